"""Every overlay and combination builds, fits the API server's schemas, and is admitted without a warning."""

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.rollout.cluster.names import COMPONENT
from tests.cluster.conftest import MANIFESTS, NAMESPACE, Cluster, Json, make_namespace

pytestmark = pytest.mark.cluster

OVERLAYS = sorted((MANIFESTS / "overlays").iterdir())
COMBINATIONS = sorted(path for path in (MANIFESTS / "tests").iterdir() if path.is_dir())
COMPONENTS = sorted(path.name for path in (MANIFESTS / "components").iterdir())
# Of each group one at most: they answer the same question.
CHOICES = [
    ["canary", "blue-green", "labels"],
    ["gcs", "s3", "http", "pvc", "image-volume"],
    ["", "gpu", "local-server"],
    ["", "monitoring", "monitoring-gmp"],
    ["", "follower", "follower-pvc"],
    *(["", name] for name in ("gateway", "hpa", "infra-check", "pipeline-runner", "psa")),
]
FOLDERS = [*OVERLAYS, *COMBINATIONS]


def title(path: Path) -> str:
    return f"{path.parent.name}-{path.name}"


def covering_pairs() -> list[list[str]]:
    """Selections, one of each group, in which every pair of components that may meet does."""
    every = [tuple(each) for each in itertools.product(*CHOICES)]
    wanted = {pair for one, two in itertools.combinations(CHOICES, 2) for pair in itertools.product(one, two)}
    selections = []
    while wanted:
        best = max(every, key=lambda each: len(wanted & set(itertools.combinations(each, 2))))
        wanted -= set(itertools.combinations(best, 2))
        selections.append([name for name in best if name])
    return selections


def pods(built: list[Json]) -> Iterator[Json]:
    yield from (each["spec"]["template"] for each in built if each["kind"] == "Deployment")


def test_every_component_is_in_a_combination_and_explains_itself() -> None:
    used = {Path(each).name for folder in FOLDERS for each in yaml.safe_load((folder / "kustomization.yaml").read_text())["components"]}
    assert used == set(COMPONENTS) == {name for group in CHOICES for name in group if name}
    for name in COMPONENTS:
        folder = MANIFESTS / "components" / name
        assert (folder / "README.md").read_text().startswith(f"# {name}\n")


def test_every_file_begins_with_what_it_is_for() -> None:
    assert [file for file in MANIFESTS.rglob("*.yaml") if not file.read_text().startswith("# ")] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=title)
def test_it_fits_the_schemas_of_the_api_server(cluster: Cluster, schemas: Path, folder: Path) -> None:
    built = cluster.kubectl("kustomize", folder).stdout
    location = f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    cluster.run("kubeconform", "-strict", "-summary", "-schema-location", location, "-", stdin=built)


@pytest.mark.parametrize("folder", FOLDERS, ids=title)
def test_it_is_admitted_without_a_warning(cluster: Cluster, folder: Path) -> None:
    make_namespace(cluster, NAMESPACE)
    for way in (["--server-side"], []):
        done = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", *way, "-k", folder, check=False)
        said = "\n".join(line for line in done.stderr.splitlines() if "missing the kubectl.kubernetes.io/last-applied" not in line)
        assert done.returncode == 0, said
        assert "Warning" not in said


@pytest.mark.parametrize("folder", FOLDERS, ids=title)
def test_its_pods_pass_pod_security(cluster: Cluster, folder: Path) -> None:
    """A Deployment is only warned of; it is the pod that would be refused."""
    make_namespace(cluster, NAMESPACE)
    built = cluster.build(folder)
    cluster.apply(*(each for each in built if each["kind"] == "ServiceAccount"))
    dropped = set() if has_feature(cluster, "ImageVolume") else {"store"} if "image-volume" in folder.name else set()
    for template in pods(built):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": NAMESPACE, **template["metadata"]}}
        body = json.dumps({**pod, "spec": template["spec"]})
        done = cluster.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=body)
        assert "Warning" not in done.stderr
        asked, got = ({volume["name"] for volume in spec["volumes"]} for spec in (template["spec"], json.loads(done.stdout)["spec"]))
        tokens = {volume for volume in got if volume.startswith("kube-api-access-")}
        assert got - tokens == asked - dropped
        # Only who asks the Kubernetes API gets a token for it.
        assert len(tokens) == (template["metadata"]["labels"][COMPONENT] == "follower")


def has_feature(cluster: Cluster, name: str) -> bool:
    """Whether a feature of the API server is switched on."""
    lines = cluster.kubectl("get", "--raw", "/metrics").stdout.splitlines()
    return any(line.startswith(f'kubernetes_feature_enabled{{name="{name}"') and line.endswith(" 1") for line in lines)


def test_every_pair_of_components_fits(cluster: Cluster, schemas: Path, tmp_path: Path) -> None:
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    folder = tmp_path / "manifests" / "tests" / "pair"
    folder.mkdir()
    built = "\n---\n".join(build_selection(cluster, names, folder) for names in covering_pairs())
    location = f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    cluster.run("kubeconform", "-strict", "-schema-location", location, "-", stdin=built)


def build_selection(cluster: Cluster, names: list[str], folder: Path) -> str:
    """Build base with these components; the order in which they are named must not matter."""
    components = [f"../../components/{name}" for name in names]
    body = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": NAMESPACE, "resources": ["../../base"]}
    built = []
    for order in (components, components[::-1]):
        (folder / "kustomization.yaml").write_text(json.dumps({**body, "components": order}))
        built.append(cluster.kubectl("kustomize", folder).stdout)
    one, other = (sorted(canonical(each) for each in yaml.safe_load_all(text)) for text in built)
    assert one == other, f"the order of {names} matters"
    return built[0]


def canonical(value: Any) -> str:
    """JSON in which lists are sets: the order of volumes, tolerations or rules means nothing here."""
    if isinstance(value, dict):
        return json.dumps({key: canonical(each) for key, each in sorted(value.items())})
    return json.dumps(sorted(map(canonical, value)) if isinstance(value, list) else value)
