"""Rollouts by labels while pods, servers and holders restart, lack, refuse or are crushed, and while somebody edits what is owned."""

from datetime import UTC, datetime

import pytest

from components.core.errors import RolloutError
from serving.rollout.cluster.holding import refusal_of
from serving.rollout.cluster.names import HOLDS
from tests.crash.cluster_site import METRICS, RELEASES
from tests.crash.labels.stage import PHASES, UNDER_WAY, LabelStage, at
from tests.crash.stage import leaping

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
HOST_PATH = ("metadata", "annotations", HOLDS)


# --- pods -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["pod", "server"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_pod_that_is_replaced_or_a_server_that_restarts_in_any_phase(label_stage: LabelStage, phase: str, what: str) -> None:
    act = label_stage.replace_pod if what == "pod" else label_stage.restart_server
    assert label_stage.run("b", at(phase, act)).error is None
    label_stage.has_only("b")


@pytest.mark.parametrize("what", ["pod", "server"])
def test_a_pod_comes_back_right_when_nobody_rolls_out_anything(label_stage: LabelStage, what: str) -> None:
    assert label_stage.run("b").error is None
    for number in range(3):
        (label_stage.replace_pod if what == "pod" else label_stage.restart_server)(number)
    label_stage.has_only("b")


def test_a_candidate_that_no_server_can_load_is_left_at_once(label_stage: LabelStage) -> None:
    label_stage.ward.broken.add(RELEASES["b"])
    scene = label_stage.run("b")
    assert isinstance(scene.error, RolloutError)
    assert f"can't load release {RELEASES['b']}: no graph in it" in str(scene.error)
    assert scene.phases() == ["prepare", "aborting", "aborted"]
    label_stage.has_only("a")


def test_files_that_a_holder_refuses_are_told_by_its_log(label_stage: LabelStage, monkeypatch: pytest.MonkeyPatch) -> None:
    label_stage.ward.refused.add(RELEASES["b"])
    line = f"{refusal_of(RELEASES['b'])}saved_model.pb: sha256 is another one"
    monkeypatch.setattr(label_stage.api, "logs", lambda *_, **__: f"fetching\n{line}\n")
    scene = label_stage.run("b", progress_deadline=1e5)
    assert line in str(scene.error)
    label_stage.has_only("a")


def test_a_version_that_does_not_come_is_waited_for_until_the_deadline(label_stage: LabelStage) -> None:
    label_stage.ward.refused.add(RELEASES["b"])
    label_stage.clock = leaping(3)
    scene = label_stage.run("b")
    assert "not within the deadline" in str(scene.error)
    assert f"release {RELEASES['b']} is not known to it" in str(scene.error)
    label_stage.has_only("a")


def test_as_long_as_one_pod_lacks_the_candidate_no_label_moves(label_stage: LabelStage) -> None:
    label_stage.fakes()[1].asleep = True
    label_stage.clock = leaping(3)
    scene = label_stage.run("b")
    assert f"{label_stage.fakes()[1].name}: release {RELEASES['b']} is not known to it" in str(scene.error)
    assert scene.phases() == ["prepare", "aborting", "aborted"]
    label_stage.fakes()[1].asleep = False
    label_stage.has_only("a")


def test_as_long_as_one_label_does_not_move_the_switch_is_not_saved_and_goes_back(label_stage: LabelStage) -> None:
    def sleep() -> None:
        label_stage.fakes()[1].asleep = True

    label_stage.clock = leaping(3)
    scene = label_stage.run("b", at("promote", sleep))
    assert f"{label_stage.fakes()[1].name}: the label stable is at {RELEASES['a']}, not at {RELEASES['b']}" in str(scene.error)
    assert "post_analysis" not in scene.phases()
    label_stage.fakes()[1].asleep = False
    label_stage.has_only("a")


def test_a_holder_that_slept_through_the_rollout_comes_to_the_same_end(label_stage: LabelStage) -> None:
    assert label_stage.run("b", at("drain", lambda: setattr(label_stage.fakes()[0], "asleep", True))).error is None
    label_stage.kubelets.attend(label_stage.api.namespace)
    assert label_stage.loaded() == {"b", "A"}
    label_stage.fakes()[0].asleep = False
    label_stage.has_only("b")


@pytest.mark.parametrize("phase", ["prepare", "analyze"])
def test_pods_that_do_not_bear_both_versions_are_relieved_at_once(label_stage: LabelStage, phase: str) -> None:
    def crush() -> None:
        name = label_stage.fakes()[0].name
        ended = {"reason": "OOMKilled", "exitCode": 137, "finishedAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
        status = {"name": "server", "restartCount": 1, "ready": False, "image": "", "imageID": "", "lastState": {"terminated": ended}}
        label_stage.edit("Pod", f"{name}/status", ("status", "containerStatuses"), [status])
        label_stage.edit("Pod", f"{name}/status", ("status", "conditions"), [{"type": "Ready", "status": "False"}])

    scene = label_stage.run("b", at(phase, crush), progress_deadline=1e5)
    assert "don't bear both versions" in str(scene.error)
    assert "container server ended with code 137 (out of memory)" in str(scene.error)
    assert "it has to hold two versions" in str(scene.error)
    assert label_stage.held()[label_stage.host].releases == {RELEASES["a"]: ""}


def test_pods_that_are_all_gone_with_a_candidate_beside_go_back_to_one(label_stage: LabelStage) -> None:
    def lose() -> None:
        label_stage.kubelets.left.add(label_stage.api.namespace)
        label_stage.set_ready("b", 0)

    scene = at("analyze", lose, outcomes=["error"] * 3)
    scene.at["aborting"] = [lambda: (label_stage.kubelets.left.discard(label_stage.api.namespace), label_stage.settle("b"))]
    plan = METRICS.model_copy(update={"consecutive_error_limit": 100, "interval": 0.001})
    assert "has no ready pod any more" in str(label_stage.run("b", scene, analysis=plan).error)
    label_stage.has_only("a")


# --- what somebody else does ------------------------------------------------------------------------------------------------------


OTHER = '{"labels-000000": {"stable": "cccccccccccc", "releases": {"cccccccccccc": ""}}}'


@pytest.mark.parametrize(
    ("phase", "text"), [*((phase, "{}") for phase in UNDER_WAY), ("analyze", "nonsense"), ("promote", "nonsense"), ("drain", OTHER)]
)
def test_what_pods_are_to_hold_is_set_back_when_somebody_edits_it(label_stage: LabelStage, phase: str, text: str) -> None:
    scene = label_stage.run("b", at(phase, lambda: label_stage.edit("Service", "classifier", HOST_PATH, text)))
    assert scene.error is None
    if phase not in ("prepare", "promote"):
        assert f"what Deployment classifier-{label_stage.host} is to hold was changed by somebody: set back to" in scene.texts()
    label_stage.has_only("b")


def test_a_label_that_somebody_moves_ahead_of_the_rollout_is_moved_back(label_stage: LabelStage) -> None:
    def move() -> None:
        text = label_stage.api.get("Service", "classifier")["metadata"]["annotations"][HOLDS]
        wrong = text.replace(f'"stable": "{RELEASES["a"]}"', f'"stable": "{RELEASES["b"]}"').replace(f'"canary": "{RELEASES["b"]}", ', "")
        assert wrong != text
        label_stage.edit("Service", "classifier", HOST_PATH, wrong)

    scene = label_stage.run("b", at("analyze", move, outcomes=["failed"]))
    assert "was changed by somebody: set back to" in scene.texts()
    label_stage.has_only("a")


@pytest.mark.parametrize("phase", UNDER_WAY)
def test_a_selector_that_somebody_edits_is_set_back(label_stage: LabelStage, phase: str) -> None:
    wrong = {**label_stage.names.labels, "dual.dev/revision": "none"}
    scene = label_stage.run("b", at(phase, lambda: label_stage.edit("Service", "classifier", ("spec", "selector"), wrong)))
    assert scene.error is None
    label_stage.has_only("b")


@pytest.mark.parametrize("phase", UNDER_WAY)
def test_pods_that_somebody_takes_away_are_made_again(label_stage: LabelStage, phase: str) -> None:
    assert label_stage.run("b", at(phase, lambda: label_stage.scale("b", 0))).error is None
    label_stage.has_only("b")


@pytest.mark.parametrize("phase", UNDER_WAY)
def test_a_host_that_somebody_deletes_is_made_again(label_stage: LabelStage, phase: str) -> None:
    def delete() -> None:
        label_stage.delete("Deployment", label_stage.deployment("b"))
        with label_stage.ward.lock:
            for pod in list(label_stage.fakes()):
                label_stage.replace_pod(0) if pod else None

    scene = label_stage.run("b", at(phase, delete))
    # After the switch the candidate is not what was checked, and until it is published that means going back.
    label_stage.has_only("a" if scene.error else "b")


def test_pods_that_somebody_edits_are_not_what_was_checked(label_stage: LabelStage) -> None:
    path = ("spec", "template", "spec", "containers", "0", "image")
    scene = label_stage.run("b", at("analyze", lambda: label_stage.edit("Deployment", label_stage.deployment("b"), path, "mine:1")))
    assert "was edited by somebody: its pods are not what was checked" in str(scene.error)
    label_stage.has_only("a")


def test_the_number_of_pods_is_the_templates_after_a_rollout_and_an_operators_before(label_stage: LabelStage) -> None:
    label_stage.edit("Deployment", "classifier", ("metadata", "annotations", "dual.dev/replicas"), "2")
    scene = at("analyze", lambda: label_stage.scale("b", 4))
    assert label_stage.run("b", scene).error is None
    label_stage.has_only("b", pods=2)
