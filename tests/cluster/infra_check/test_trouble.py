"""What can go wrong with validate_infra's pod is a refusal with its reason, and nothing stays behind."""

import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.conftest import Json
from tests.cluster.infra_check.kubelet import Behave, failed, pending, waiting
from tests.cluster.infra_check.place import Place, as_rollout, assert_matches, failures, wait_until

pytestmark = pytest.mark.cluster


def crashed(_: Json) -> Json:
    return failed("server", 137, "OOMKilled")


def overdue(_: Json) -> Json:
    message = "Pod was active on the node longer than the specified deadline"
    return {**failed("x", 0), "containerStatuses": [], "reason": "DeadlineExceeded", "message": message}


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        (
            lambda _: waiting("server", "ImagePullBackOff", 'Back-off pulling image "tensorflow/serving:9"'),
            "container server: ImagePullBackOff: Back-off pulling",
        ),
        (lambda _: waiting("server", "CreateContainerConfigError", 'configmap "x" not found'), "CreateContainerConfigError"),
        (lambda _: failed("fetch", 4, message="error: sha256 is"), "container fetch ended with code 4; it said: error: sha256 is"),
        (crashed, r"container server ended with code 137 \(out of memory\)"),
        (overdue, "was ended: DeadlineExceeded: Pod was active"),
    ],
    ids=["image", "config", "fetch", "memory", "deadline"],
)
def test_a_pod_that_cannot_serve_is_a_refusal_with_its_reason(place: Place, behave: Behave, said: str) -> None:
    with place.kubelet(behave):
        began = time.monotonic()
        side, record = place.check()
    assert time.monotonic() - began < 30, "what is final is not waited for"
    assert_matches(said, side.failure)
    assert failures(side) == [f"cloud: {side.failure}"]
    assert record.record.status == "succeeded"
    assert place.pods() == place.candidates() == []


def test_a_candidate_that_is_damaged_on_its_way_is_a_refusal(place: Place) -> None:
    def damage(pod: Json) -> None:
        for file in place.candidates():
            if file.name == "saved_model.pb":
                file.unlink()
                file.write_bytes(b"other bytes")

    with place.kubelet(damage):
        side, _ = place.check()
    assert_matches(r"container fetch ended with code 4; its log ends with: .*saved_model.pb: sha256 is", side.failure.replace("\n", " "))
    assert "[fetch] error: " in side.log_tail


def test_a_model_that_does_not_load_is_a_refusal_with_the_servers_words(place: Place, tmp_path: Path) -> None:
    broken = shutil.copytree(place.servable.saved_model, tmp_path / "broken")
    next((broken / "variables").glob("*.data*")).unlink()
    with place.kubelet():
        side, _ = place.check(replace(place.servable, saved_model=broken))
    assert "container server ended with code 1; its log ends with: " in side.failure
    assert "variables.data-00000-of-00001; No such file or directory" in side.failure
    assert "[server] " in side.log_tail


def test_a_pod_that_waits_too_long_is_a_refusal_with_what_the_events_say(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    as_rollout(place, monkeypatch)

    def unmounted(pod: Json) -> Json:
        event = {
            "metadata": {"name": f"{pod['metadata']['name']}.1", "namespace": place.names.namespace},
            "involvedObject": {"kind": "Pod", "name": pod["metadata"]["name"], "namespace": place.names.namespace},
            "type": "Warning",
            "reason": "FailedMount",
            "message": 'MountVolume.SetUp failed for volume "monitoring" : configmap "classifier-monitoring" not found',
        }
        place.api.create("Event", event)
        return pending()

    with place.kubelet(unmounted):
        side, _ = place.check(ready_within=2)
    assert "was not ready within 2 s: Pod classifier-infra-check-" in side.failure
    assert 'FailedMount: MountVolume.SetUp failed for volume "monitoring" : configmap "classifier-monitoring" not found' in side.failure
    assert place.pods() == []


def test_a_server_that_ends_while_it_is_asked_is_a_refusal(place: Place) -> None:
    with place.kubelet() as kubelet:

        def fall_over(pod: Json) -> None:
            def fall() -> None:
                wait_until(lambda: bool(place.api.get("Pod", pod["metadata"]["name"])["status"].get("podIP")), "readiness")
                kubelet.kill(pod["metadata"]["name"])
                kubelet.patch(pod["metadata"]["name"], failed("server", 139))

            threading.Thread(target=fall, daemon=True).start()

        kubelet._behave = fall_over
        side, _ = place.check(place.servable)
    assert_matches(r"the server in Pod \S+ failed a golden image: .*container server ended with code 139", side.failure.replace("\n", " "))


def test_a_pod_that_somebody_deletes_is_a_refusal(place: Place) -> None:
    def deleted(pod: Json) -> Json:
        place.api.delete("Pod", pod, as_read=False)
        return pending()

    with place.kubelet(deleted):
        side, _ = place.check()
    assert_matches(r"Pod classifier-infra-check-\w+ was deleted by somebody", side.failure)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_step_that_is_ended_takes_its_pod_and_candidate_along(place: Place, number: signal.Signals) -> None:
    def interrupt(pod: Json) -> Json:
        threading.Timer(0.3, os.kill, (os.getpid(), number)).start()
        return pending()

    with place.kubelet(interrupt) as kubelet:
        with pytest.raises((SystemExit, KeyboardInterrupt)):
            place.check()
        wait_until(lambda: kubelet.deleted == list(kubelet.pods) and len(kubelet.pods) == 1, "the deletion")
    assert place.pods() == place.candidates() == []
