"""Images in a real API server: events of failed pulls, a pod that tries, and the whole command."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipelines.doctor.images import check_images, check_pulls, check_pulls_by_trying
from tests.doctor.conftest import Place, only
from tests.doctor.pieces import apply_overlay

pytestmark = pytest.mark.cluster
Json = dict[str, Any]


def test_events_of_failed_pulls_are_told(place: Place) -> None:
    assert only(check_pulls(place.visit())).status == "ok"
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "reason": "Failed", "type": "Warning"}
    message = 'Failed to pull image "registry.example.com/x:1": 403 Forbidden'
    place.apply({**event, "message": message, "involvedObject": {"kind": "Pod", "name": "p", "namespace": place.namespace}})
    found = only(check_pulls(place.visit()))
    assert (found.status, found.found) == ("warning", message)


@contextmanager
def kubelet(place: Place, states: dict[str, Json]) -> Iterator[list[str]]:
    """Gives the doctor's pod the status that a kubelet would, by image; yields the pods that it saw."""
    ended, seen = threading.Event(), list[str]()

    def run() -> None:
        while not ended.is_set():
            for pod in place.cluster.objects("pods", "-n", place.namespace):
                name = pod["metadata"]["name"]
                if name in seen:
                    continue
                base = {"ready": False, "restartCount": 0}
                statuses = [
                    {**base, "name": each["name"], "image": each["image"], "imageID": "", **states[each["image"]]}
                    for each in pod["spec"]["containers"]
                ]
                place.status("pod", name, {"phase": "Pending", "containerStatuses": statuses})
                seen.append(name)
            time.sleep(0.05)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def test_images_are_pulled_by_a_pod_that_is_gone_afterwards(place: Place) -> None:
    place.cluster.kubectl("label", "namespace", place.namespace, "pod-security.kubernetes.io/enforce=restricted")
    waiting = {"reason": "ErrImagePull", "message": "pull access denied"}
    # An image that was pulled and has no such command: what is asked is answered.
    started = {"reason": "StartError", "exitCode": 128, "containerID": "containerd://x"}
    states = {
        "r.example/good:1": {"imageID": "sha256:1", "state": {"terminated": started}},
        "r.example/bad:1": {"state": {"waiting": waiting}},
    }
    with kubelet(place, states) as seen:
        good, bad = check_pulls_by_trying(place.visit(images=tuple(states), try_images=True, seconds=10))
    assert (good.status, bad.status) == ("ok", "failed")
    assert "ErrImagePull: pull access denied" in bad.found
    assert len(seen) == 1
    assert place.cluster.objects("pods", "-n", place.namespace) == []


def test_a_pod_that_nobody_starts_is_told_in_time_and_removed(place: Place) -> None:
    began = time.monotonic()
    found = only(check_pulls_by_trying(place.visit(images=("r.example/x:1",), try_images=True, seconds=1)))
    assert time.monotonic() - began < 5
    assert (found.status, "no node had pulled it" in found.found) == ("warning", True)
    assert place.cluster.objects("pods", "-n", place.namespace) == []


def test_nothing_is_tried_unless_it_was_asked_for(place: Place) -> None:
    assert check_pulls_by_trying(place.visit(images=("r.example/x:1",))) == []


def test_the_templates_images_are_looked_for_too(place: Place) -> None:
    assert only(check_images(place.visit())).status == "skipped"
    apply_overlay(place, "blue-green-http-local-server")
    told = " ".join(found.found for found in check_images(place.visit(seconds=2)))
    assert "dual-server:0.1.0" in told
    assert "dual-deployer:0.1.0" in told


def test_the_command_tells_and_leaves_with_its_own_code(place: Place) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "doctor", "--target", "kubeflow", "-n", place.namespace, "--json"]
    only_these = [part for name in ("cluster", "namespaces", "manifests", "rights", "gpus") for part in ("--only", name)]
    done = subprocess.run([*command, *only_these], env=place.cluster.environment, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert {each["check"] for each in found} >= {"cluster", "namespace", "manifests", "rights", "gpus"}, done.stderr
    assert set(found[0]) == {"check", "status", "found", "fix"}
    # There is no namespace kubeflow in this cluster.
    assert ("failed" in {each["status"] for each in found}, done.returncode) == (True, 6)
