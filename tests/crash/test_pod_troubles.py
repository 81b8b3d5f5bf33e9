"""Pods that do not get ready, or are ready no longer: a fast end where that is final, the deadline where it may pass, and a way out."""

from typing import Any

import pytest

from components.core.errors import MissingObjectError, RolloutError
from serving.rollout.cluster.objects import Live
from tests.crash.cluster_site import RELEASES, Controller
from tests.crash.stage import Scene, Stage, leaping

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
QUOTA = 'pods "x" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=9, limited: pods=9'
POLICY = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": privileged'


def waiting(reason: str, message: str = "", *, restarts: int = 0, container: str = "server", code: int = 1) -> dict[str, Any]:
    """A container's status as a kubelet writes it."""
    last = {"lastState": {"terminated": {"exitCode": code, "reason": "OOMKilled" if code == 137 else "Error"}}} if restarts else {}
    state = {"waiting": {"reason": reason, "message": message}}
    return {"name": container, "ready": False, "restartCount": restarts, "image": "i", "imageID": "", "state": state, **last}


FINAL = {
    "image": (
        {"containerStatuses": [waiting("ImagePullBackOff", 'Back-off pulling image "server:9"')]},
        "ImagePullBackOff: Back-off pulling",
    ),
    "never": ({"containerStatuses": [waiting("ErrImageNeverPull", "not present")]}, "container server: ErrImageNeverPull: not present"),
    "configuration": ({"containerStatuses": [waiting("CreateContainerConfigError", "secret x not found")]}, "secret x not found"),
    "model": ({"containerStatuses": [waiting("CrashLoopBackOff", restarts=2, code=255)]}, "server ended with code 255, 2 restart(s)"),
    "memory": ({"containerStatuses": [waiting("CrashLoopBackOff", restarts=4, code=137)]}, "ended with code 137 (out of memory)"),
    "download": (
        {"initContainerStatuses": [waiting("CrashLoopBackOff", restarts=3, container="fetch")]},
        "container fetch ended with code 1, 3 restart(s)",
    ),
}
PASSING = {
    "pulling": ({"containerStatuses": [waiting("ErrImagePull", "timeout")]}, ", container server: ErrImagePull: timeout"),
    "once": ({"containerStatuses": [waiting("CrashLoopBackOff", restarts=1)]}, ", container server ended with code 1, 1 restart(s)"),
    "nodes": (
        {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]},
        " has no node: 0/3 nodes are available",
    ),
    "evicted": ({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"}, " was evicted: The node was low"),
    "node gone": ({"conditions": []}, " on node node-1 is not ready: it still starts, its probe fails, or the node is gone"),
}


@pytest.fixture
def manual(stage: Stage, controller: Controller) -> Stage:
    """A stage on which no Deployment but the stable one's gets pods ready by itself."""
    controller.left.add(f"{stage.api.namespace}/{stage.deployment('b')}")
    return stage


def never_ready(stage: Stage) -> Scene:
    """A rollout of a release whose pods nobody makes ready, by a clock that runs."""
    stage.clock = leaping(2)
    return Scene()


@pytest.mark.parametrize("trouble", FINAL)
@pytest.mark.parametrize("strategy", ["canary", "blue-green"])
def test_what_will_not_pass_ends_the_rollout_at_once(manual: Stage, strategy: str, trouble: str) -> None:
    status, text = FINAL[trouble]
    manual.make_pod("b", dict(status), name="bad")
    scene = manual.run("b", strategy=strategy)
    assert isinstance(scene.error, RolloutError)
    assert f"pods of Deployment {manual.deployment('b')} will not get ready: Pod bad, container " in str(scene.error)
    assert text in str(scene.error)
    assert "Correct the template Deployment" in str(scene.error) or f"kubectl -n {manual.api.namespace} logs bad -c " in str(scene.error)
    assert scene.phases() == ["prepare", "aborting", "aborted"]
    manual.has_all("a")


@pytest.mark.parametrize("trouble", PASSING)
def test_what_may_pass_is_waited_for_until_the_deadline(manual: Stage, trouble: str) -> None:
    status, text = PASSING[trouble]
    manual.make_pod("b", dict(status), name="slow")
    scene = manual.run("b", never_ready(manual))
    assert isinstance(scene.error, RolloutError)
    assert f"not within the deadline ({scene.states[0].deadline}): 0 of 3 pods of Deployment {manual.deployment('b')}" in str(scene.error)
    assert f"Pod slow{text}" in str(scene.error)
    assert f"kubectl -n {manual.api.namespace} " in str(scene.error) or "Correct the template Deployment" in str(scene.error)
    manual.has_all("a")


@pytest.mark.parametrize(("message", "text", "final"), [(QUOTA, "describe resourcequota", False), (POLICY, "Correct the template", True)])
def test_pods_that_can_not_be_made(manual: Stage, message: str, text: str, final: bool) -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    scene = never_ready(manual)
    machine = manual.machine("b", scene)
    machine.objects.ensure_deployment(machine.template, machine.state.candidate)
    manual.set_ready("b", 0, failure)
    with pytest.raises(RolloutError) as caught:
        machine.run()
    assert f"Deployment {manual.deployment('b')} can't make pods: {message}" in str(caught.value)
    assert text in str(caught.value)
    assert ("will not get ready" in str(caught.value)) == final
    manual.has_all("a")


@pytest.mark.parametrize(("kind", "resource"), [("Deployment", "count/deployments.apps"), ("ConfigMap", "count/configmaps")])
def test_a_quota_that_lets_no_object_be_made_is_named(empty_stage: Stage, kind: str, resource: str) -> None:
    empty_stage.fill_quota(resource)
    scene = empty_stage.run("a")
    assert scene.error is not None
    assert "a full quota does not let it be made: " in str(scene.error)
    assert f"{kind} {empty_stage.api.namespace}/" in str(scene.error)
    assert "Raise the quota" in str(scene.error)
    assert empty_stage.pods() == {}


def test_pods_that_get_ready_late_go_on(manual: Stage, controller: Controller) -> None:
    manual.make_pod("b", {"containerStatuses": [waiting("ErrImagePull", "timeout")]})
    manual.after(3, lambda: manual.gain("b", controller))
    assert manual.run("b").error is None
    manual.has_all("b")


# --- ready no longer --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strategy", "phase"), [("canary", "validate_preview"), ("canary", "analyze"), ("blue-green", "validate_preview")])
def test_a_candidate_that_is_gone_for_a_while_is_waited_for(stage: Stage, controller: Controller, strategy: str, phase: str) -> None:
    scene = Scene()
    scene.at[phase] = [lambda: stage.lose("b", controller, waits=8)]
    assert stage.run("b", scene, strategy=strategy).error is None
    if phase == "analyze":
        assert f"no pod of Deployment {stage.deployment('b')} is ready: waiting" in scene.texts()
        # What was reported while it had no pods.
        assert scene.states[-1].phase == "promoted"
    stage.has_all("b")


@pytest.mark.parametrize("phase", ["analyze", "post_analysis"])
def test_all_pods_gone_for_a_while_as_when_a_kubelet_starts_again(stage: Stage, controller: Controller, phase: str) -> None:
    scene = Scene()
    scene.at[phase] = [lambda: (stage.lose("a", controller, waits=8), stage.lose("b", controller, waits=8))]
    assert stage.run("b", scene, strategy="canary").error is None
    stage.has_all("b")


@pytest.mark.parametrize("phase", ["post_analysis", "drain"])
def test_a_candidate_that_is_gone_after_the_switch_goes_back_while_the_old_pods_are_ready(
    stage: Stage, controller: Controller, phase: str
) -> None:
    scene = Scene()
    scene.at[phase] = [lambda: stage.lose("b", controller)]
    stage.run("b", scene, publish=False)
    assert isinstance(scene.error, RolloutError)
    stage.gain("b", controller)
    stage.has_all("a")
    assert "ready" in str(scene.error)
    assert f"Deployment {stage.deployment('b')}" in str(scene.error)


def test_the_old_pods_stay_as_long_as_the_new_ones_are_not_ready(stage: Stage, controller: Controller) -> None:
    stage.clock = leaping(1)
    scene = Scene()
    scene.at["drain"] = [lambda: (stage.channel.publish(RELEASES["b"]), stage.lose("b", controller))]
    stage.run("b", scene)
    assert "the old pods stay, for the new ones are gone: 0 of 3 pods" in str(scene.error)
    assert stage.state().phase == "drain"
    assert stage.pods() == {"a": 3, "b": 3}
    stage.gain("b", controller)
    assert stage.run("b").error is None
    stage.has_all("b")


def test_a_stable_revision_that_is_gone_is_waited_for_by_an_abort(stage: Stage, controller: Controller) -> None:
    scene = Scene(outcomes=["failed"])
    scene.at["post_analysis"] = [lambda: stage.lose("a", controller)]
    stage.clock = leaping(2)
    stage.run("b", scene)
    # The candidate that failed still serves: nothing is better than it.
    assert f"0 of 3 pods of Deployment {stage.deployment('a')} are ready" in str(scene.error)
    assert stage.state().phase == "aborting"
    assert stage.live() == Live(stage.revision("b"), shared=False)
    stage.gain("a", controller)
    assert "the analysis after the switch failed" in str(stage.run("b").error)
    stage.has_all("a")


def test_an_abort_leaves_a_shared_candidate_even_if_a_stable_pod_is_missing(stage: Stage, controller: Controller) -> None:
    scene = Scene(outcomes=["failed"])
    scene.at["measure"] = [lambda: stage.lose("a", controller, ready=2)]
    stage.run("b", scene, strategy="canary")
    assert isinstance(scene.error, RolloutError)
    assert not isinstance(scene.error, MissingObjectError)
    stage.has_all("a")
