"""The follower as a pod with its own identity: what kubectl asks for is done under load, and nothing fails, and nothing is wrong."""

import base64
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.load import Load
from components.publish_mobile.private_key import make_key
from components.publish_mobile.signing import KEY_VARIABLE
from tests.conftest import ROOT
from tests.live.cluster import REGISTRY, LiveSite, image_tag
from tests.live.steps import Step, state_of, wait_for, wait_for_phase
from tests.live.test_rollout_under_load import RATE, first, live_is, problems, promoted, promoted_is, releases_in, ship

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1500)]
ALIVE_WITHIN = 5.0
_LABEL = "app.kubernetes.io/component=follower"


class FollowerPod:
    """The component follower-pvc as a user would apply it, beside a site whose pods fetch from another address of the same store."""

    def __init__(self, site: LiveSite, folder: Path, signing_key: bytes) -> None:
        """Apply it, with a volume that is the store's folder on this machine."""
        self._site, self._root = site, Path(site.releases.store.uri.removeprefix("file://"))
        folder.mkdir()
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(self._kustomization(folder)))
        secret = {"signing-key": base64.b64encode(signing_key).decode()}
        for body in (*self._volume(), {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "classifier-follower"}, "data": secret}):
            site.cluster.kubectl("-n", site.namespace, "apply", "-f", "-", stdin=json.dumps(body))
        site.cluster.kubectl("apply", "-k", folder)
        try:
            wait_for(lambda: "is over: promoted" in self.log(), "the follower's first look", timeout=180)
        except AssertionError as error:
            described = site.cluster.kubectl("-n", site.namespace, "describe", "pods", "-l", _LABEL)
            raise AssertionError(f"{error}\n{self.log()}\n{described}") from None

    def log(self) -> str:
        """What it said."""
        return self._site.cluster.kubectl("-n", self._site.namespace, "logs", "deployment/classifier-follower", check=False)

    def annotate(self, action: str) -> None:
        """What an operator types."""
        self.open_store()
        where = ["-n", self._site.namespace, "annotate", "configmap", "classifier-rollout", "--overwrite"]
        self._site.cluster.kubectl(*where, f"dual.dev/action={action}")

    def open_store(self) -> None:
        """Let the pod's user write what this test's user wrote, as one user's store would."""
        for path in [self._root, *self._root.rglob("*")]:
            path.chmod(0o777 if path.is_dir() else 0o666)

    def pod(self) -> dict[str, Any]:
        """Its only pod."""
        (pod,) = self._site.pods(_LABEL)
        return pod

    def _kustomization(self, folder: Path) -> dict[str, Any]:
        store = {"name": "follower", "env": [{"name": "DUAL_STORE", "value": "/store", "valueFrom": None}]}
        patch = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "classifier-follower"}}
        patch["spec"] = {"template": {"spec": {"containers": [store]}}}
        return {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": self._site.namespace,
            "components": [os.path.relpath(ROOT / "manifests" / "components" / "follower-pvc", folder)],
            "images": [{"name": "dual-deployer", "newName": f"{REGISTRY}/dual-deployer", "newTag": image_tag()}],
            "patches": [{"patch": yaml.safe_dump(patch)}],
        }

    def _volume(self) -> Iterator[dict[str, Any]]:
        """The claim of component pvc, bound to the folder."""
        spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "manual"}
        claim = {"namespace": self._site.namespace, "name": "classifier-store"}
        volume = {**spec, "hostPath": {"path": str(self._root)}, "claimRef": claim, "persistentVolumeReclaimPolicy": "Retain"}
        yield {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": self._site.namespace}, "spec": volume}
        asked = {"accessModes": ["ReadWriteOnce"], "storageClassName": "manual", "volumeName": self._site.namespace}
        asked["resources"] = {"requests": {"storage": "1Gi"}}
        yield {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "classifier-store"}, "spec": asked}


@pytest.fixture
def load(site: LiveSite) -> Callable[[], Load]:
    return lambda: Load(site.target(), rate=RATE, clients=6, connection_seconds=0.3)


def test_what_kubectl_asks_for_is_done_by_the_follower(
    site: LiveSite, tmp_path: Path, load: Callable[[], Load], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key().pem()
    monkeypatch.setenv(KEY_VARIABLE, key.decode())
    first(site, tmp_path)
    assert "promoted" in ship(site, tmp_path, "b").output
    follower = FollowerPod(site, tmp_path / "follower", key)
    with load() as running:
        running.wait_for(100)
        # After the end: the old pods are gone, and no process of ours is left.
        follower.annotate("undo")
        wait_for(lambda: live_is(site, "a") and promoted_is(site, "a"), "both halves back at a")
        wait_for_phase(site, "rolled_back")
        running.wait_for(len(running.answers) + 200)
        assert releases_in(running.answers[-50:]) == {site.releases["a"]}
        # In the middle: its process is killed at the gate.
        step = Step(site, tmp_path, "start", site.releases["c"], settings=site.settings(gate=True, alive_within=ALIVE_WITHIN))
        wait_for_phase(site, "paused", step=step)
        step.kill()
        follower.annotate("abort")
        wait_for_phase(site, "aborted")
        # And once more, to be brought to its end.
        step = Step(site, tmp_path, "start", site.releases["c"], settings=site.settings(gate=True, alive_within=ALIVE_WITHIN))
        wait_for_phase(site, "paused", step=step)
        step.kill()
        follower.annotate("promote")
        wait_for(lambda: promoted_is(site, "c"), "the pair of c")
        wait_for_phase(site, "promoted")
        running.wait_for(len(running.answers) + 100)
    assert problems(running.answers) == []
    assert releases_in(running.answers[-50:]) == {site.releases["c"]}
    assert promoted(site) == site.releases["c"]
    state, pod = state_of(site), follower.pod()
    assert state is not None
    assert state.run_id == f"follower@{pod['metadata']['name']}"
    # It lives, and its probe says so.
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    assert "gave no sign of life" in follower.log()
