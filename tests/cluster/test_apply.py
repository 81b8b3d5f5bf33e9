"""Applying manifests again changes nothing, before, during and after a rollout, by either way of applying.

The rollout is the real one, under the real identity: a token of the ServiceAccount classifier-rollout and its Role.
"""

import itertools
import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Literal

import pytest

from serving.rollout.cluster.api import Api, connect
from serving.rollout.cluster.begin import Site, begin
from serving.rollout.cluster.names import Names
from serving.rollout.cluster.settings import Plan, Step
from serving.rollout.cluster.state import Book
from tests.cluster.conftest import MANIFESTS, Cluster, Json
from tests.cluster.stand_ins import QUICK, Channel, ContentJudge, ready_pods
from tests.cluster.test_manifests import FOLDERS, has_feature, title

pytestmark = pytest.mark.cluster

KINDS = "deployments,services,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets,"
KINDS += "horizontalpodautoscalers,persistentvolumeclaims,"
KINDS += "httproutes,servicemonitors,prometheusrules,podmonitorings,rules.monitoring.googleapis.com"
WAYS = {"client-side": [], "server-side": ["--server-side"]}
RELEASES = ["a" * 12, "b" * 12]
NUMBERS = itertools.count(1)


class Installation:
    """An overlay or combination in a namespace of its own."""

    def __init__(self, cluster: Cluster, folder: Path, way: list[str], scratch: Path) -> None:
        self.cluster, self.way, self.namespace = cluster, way, f"apply-{os.getpid()}-{next(NUMBERS)}"
        shutil.copytree(MANIFESTS, scratch / "manifests")
        self.folder = scratch / "manifests" / "own"
        self.folder.mkdir()
        where = os.path.relpath(scratch / "manifests" / folder.relative_to(MANIFESTS), self.folder)
        own = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": self.namespace, "resources": [where]}
        (self.folder / "kustomization.yaml").write_text(json.dumps(own))

    def apply(self) -> list[str]:
        """Apply everything; what kubectl says of each object."""
        done = self.cluster.kubectl("apply", *self.way, "-k", self.folder)
        assert "conflict" not in done.stderr
        return done.stdout.splitlines()

    def objects(self) -> dict[str, Json]:
        """Every object of the namespace, whoever made it."""
        found = self.cluster.objects(KINDS, "-n", self.namespace)
        return {f"{each['kind']}/{each['metadata']['name']}": each for each in found}

    def versions(self) -> dict[str, str]:
        """Their resource versions: one that was written differs, even if it looks the same."""
        return {name: _version(each) for name, each in self.objects().items()}

    def promote(self) -> None:
        """As an operator does without Python."""
        self.cluster.kubectl("annotate", "--overwrite", "configmap", "classifier-rollout", "-n", self.namespace, "dual.dev/action=promote")

    def rollout_api(self, scratch: Path) -> Api:
        """The API as the ServiceAccount classifier-rollout sees it."""
        token = self.cluster.kubectl("create", "token", "classifier-rollout", "-n", self.namespace).stdout.strip()
        config = json.loads(self.cluster.kubectl("config", "view", "--raw", "--flatten", "-o", "json").stdout)
        config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
        path = scratch / "rollout.kubeconfig"
        path.write_text(json.dumps(config))
        return connect(self.namespace, kubeconfig=path, patience=10)


def _version(found: Json) -> str:
    version = found["metadata"]["resourceVersion"]
    if found["kind"] == "PersistentVolumeClaim":
        # The second server-side apply of a claim writes the same bytes again (Kubernetes 1.34): what is in it counts.
        version = json.dumps({**found, "metadata": {**found["metadata"], "resourceVersion": ""}})
    return version


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("folder", FOLDERS, ids=title)
def test_a_second_time_changes_nothing(quiet_cluster: Cluster, folder: Path, way: str, tmp_path: Path) -> None:
    site = Installation(quiet_cluster, folder, WAYS[way], tmp_path)
    assert site.apply()
    before = site.versions()
    said = site.apply()
    if way == "client-side":
        # kubectl sends a budget's selector always, and says so, although nothing is written; and what this API server has switched off.
        harmless = {"poddisruptionbudget.policy/classifier configured"}
        if "image-volume" in folder.name and not has_feature(quiet_cluster, "ImageVolume"):
            harmless.add("deployment.apps/classifier configured")
        assert {line for line in said if not line.endswith("unchanged")} == harmless
    assert site.versions() == before


def test_from_client_side_to_server_side_and_back(quiet_cluster: Cluster, tmp_path: Path) -> None:
    site = Installation(quiet_cluster, MANIFESTS / "tests" / "canary-s3-gateway-monitoring", [], tmp_path)
    site.apply()
    for way in ("server-side", "client-side", "server-side"):
        site.way = WAYS[way]
        site.apply()
        before = site.versions()
        site.apply()
        assert site.versions() == before
        assert quiet_cluster.kubectl("diff", *site.way, "-k", site.folder).stdout == ""


class Rollout:
    """The real state machine in a thread: one step, which waits until somebody promotes; the pair is published after it."""

    def __init__(self, api: Api, channel: Channel, release: str, strategy: Literal["canary", "blue-green"]) -> None:
        names = Names(namespace=api.namespace)
        plan = Plan(
            strategy=strategy,
            steps=[Step(weight=40, pause="manual")],
            gate=strategy == "blue-green",
            analysis=QUICK,
            poll_seconds=0.05,
            scale_down_delay=0.0,
        )
        site = Site(api=api, names=names, judge=ContentJudge(), published=channel, say=lambda _: None)
        self.machine = begin(site, release, "", plan, run_id="run")
        self.book, self.channel, self.release = Book(api, names), channel, release
        self.trouble: list[Exception] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.machine.run()
            self.channel.promoted = self.release
            self.machine.run(finish=True)
        except Exception as error:
            self.trouble.append(error)

    def waits(self) -> bool:
        """Whether it comes to a halt before its end."""
        deadline = time.monotonic() + 60
        while self.thread.is_alive():
            state = self.book.read()
            if state is not None and state.phase == "paused":
                return True
            assert time.monotonic() < deadline, state and [event.text for event in state.events]
            time.sleep(0.05)
        return False

    def ends_well(self) -> bool:
        """Wait for the end."""
        self.thread.join(60)
        assert self.trouble == []
        state = self.book.read()
        assert state is not None
        return state.phase == "promoted"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["canary-s3-gateway-monitoring", "canary-pvc-local-server", "blue-green-s3-gpu-hpa-monitoring"])
def test_applying_in_a_rollout_touches_nothing_of_it(quiet_cluster: Cluster, name: str, way: str, tmp_path: Path) -> None:
    site = Installation(quiet_cluster, MANIFESTS / "tests" / name, WAYS[way], tmp_path)
    site.apply()
    api, channel = site.rollout_api(tmp_path), Channel()
    paused = 0
    with ready_pods(quiet_cluster.environment["KUBECONFIG"], site.namespace):
        for release in RELEASES:
            rollout = Rollout(api, channel, release, "blue-green" if name.startswith("blue-green") else "canary")
            while rollout.waits():
                paused += 1
                unchanged(site)
                site.promote()
                time.sleep(0.5)
            assert rollout.ends_well()
            unchanged(site)
    assert paused
    found = site.objects()
    assert "dual.dev/epoch" in found["Service/classifier"]["metadata"]["annotations"]
    assert found["Service/classifier"]["spec"]["selector"]["dual.dev/revision"].startswith(RELEASES[-1])


def unchanged(site: Installation) -> None:
    """Applying writes to no object at all."""
    before = site.versions()
    site.apply()
    after = site.versions()
    assert {name for name in before if after.get(name) != before[name]} == set()


def test_a_changed_overlay_reaches_the_template_and_no_pod(quiet_cluster: Cluster, tmp_path: Path) -> None:
    site = Installation(quiet_cluster, MANIFESTS / "tests" / "canary-pvc-local-server", [], tmp_path)
    site.apply()
    api = site.rollout_api(tmp_path)
    with ready_pods(quiet_cluster.environment["KUBECONFIG"], site.namespace):
        assert Rollout(api, Channel(), RELEASES[0], "canary").ends_well()
    base = site.folder.parent / "base" / "classifier.yaml"
    base.write_text(base.read_text().replace("--rest_api_timeout_in_ms=30000", "--rest_api_timeout_in_ms=20000"))
    before = site.versions()
    site.apply()
    assert {name for name, version in site.versions().items() if before[name] != version} == {"Deployment/classifier"}
