"""What people ask for by annotation is taken up in every phase, exactly once; pauses, gates and what can't be judged wait for them."""

from datetime import datetime, timedelta

import pytest

from components.core.errors import RolloutError
from serving.rollout.cluster.names import ACTION
from serving.rollout.cluster.objects import Live
from serving.rollout.cluster.settings import Step
from tests.crash.cluster_site import METRICS, RELEASES
from tests.crash.stage import Scene, Stage, leaping

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
MANUAL = [Step(weight=25, pause="manual"), Step(weight=50)]
PHASES = ["prepare", "validate_preview", "canary", "analyze", "promote", "post_analysis", "drain"]


def asked(stage: Stage, moment: str, *actions: str) -> Scene:
    """A scene in which somebody asks for these, one each time that the moment comes."""
    scene = Scene()
    scene.at[moment] = [stage.ask(action) for action in actions]
    return scene


def annotations(stage: Stage) -> dict[str, str]:
    return stage.api.get("ConfigMap", "classifier-rollout")["metadata"].get("annotations") or {}


@pytest.mark.parametrize("action", ["abort", "undo"])
@pytest.mark.parametrize("phase", PHASES)
def test_an_abort_is_taken_up_in_every_phase(stage: Stage, phase: str, action: str) -> None:
    scene = stage.run("b", asked(stage, phase, action), strategy="canary", publish=False)
    assert isinstance(scene.error, RolloutError)
    assert f"{action} was asked for by an operator" in str(scene.error)
    # The very next thing that happened.
    assert scene.phases()[scene.phases().index(phase) + 1 :] == ["aborting", "aborted"]
    assert ACTION not in annotations(stage)
    stage.has_all("a")


def test_an_abort_after_the_publication_means_nothing_and_says_what_does(stage: Stage) -> None:
    scene = Scene()
    scene.at["drain"] = [lambda: (stage.channel.publish(RELEASES["b"]), stage.ask("abort")())]
    assert stage.run("b", scene).error is None
    text = "abort was asked for, and means nothing in the phase drain: nothing was done; both halves go back with: dual rollout undo"
    assert text in scene.texts()
    stage.has_all("b")


@pytest.mark.parametrize("action", ["nonsense", "resume", "pause", "promote"])
@pytest.mark.parametrize("phase", ["prepare", "validate_preview", "promote", "post_analysis", "drain"])
def test_what_means_nothing_is_said_taken_away_and_changes_nothing(stage: Stage, phase: str, action: str) -> None:
    scene = stage.run("b", asked(stage, phase, action))
    assert scene.error is None
    assert scene.texts().count(f"{action} was asked for, and means nothing in the phase {phase}: nothing was done") == 1
    assert ACTION not in annotations(stage)
    stage.has_all("b")


@pytest.mark.parametrize("phase", ["canary", "analyze"])
def test_promote_skips_the_rest_of_the_steps(stage: Stage, phase: str) -> None:
    scene = stage.run("b", asked(stage, phase, "promote"), strategy="canary")
    assert scene.error is None
    assert scene.phases().count("canary") == 1
    assert "promote: promote was asked for" in scene.texts()
    stage.has_all("b")


def test_promote_in_a_manual_pause(stage: Stage) -> None:
    scene = stage.run("b", asked(stage, "paused", "promote"), strategy="canary", steps=MANUAL)
    assert scene.error is None
    assert scene.phases().count("canary") == 1
    stage.has_all("b")


@pytest.mark.parametrize("phase", ["canary", "analyze"])
def test_pause_and_resume_go_on_where_the_rollout_stood(stage: Stage, phase: str) -> None:
    seen: list[Live] = []
    scene = asked(stage, phase, "pause")
    scene.at["paused"] = [lambda: (seen.append(stage.live()), stage.ask("resume")())]
    assert stage.run("b", scene, strategy="canary").error is None
    assert [state.step for state in scene.states if state.phase == "paused"] == [0]
    assert [state.step for state in scene.states if state.phase == "analyze"] == ([0, 1] if phase == "canary" else [0, 0, 1])
    assert seen == [Live(stage.revision("a"), shared=phase == "analyze")]
    stage.has_all("b")


def test_a_pause_before_the_second_steps_weight_does_not_skip_that_step(stage: Stage) -> None:
    scene = Scene()
    scene.at["canary"] = [lambda: None, stage.ask("pause")]
    scene.at["paused"] = [stage.ask("resume")]
    assert stage.run("b", scene, strategy="canary").error is None
    assert [(state.phase, state.step) for state in scene.states if state.phase in ("canary", "analyze", "paused")] == [
        *[("canary", 0), ("analyze", 0), ("canary", 1), ("paused", 1), ("canary", 1), ("analyze", 1)]
    ]
    stage.has_all("b")


def test_a_second_pause_makes_a_timed_one_last(stage: Stage) -> None:
    scene = Scene()
    scene.at["paused"] = [stage.ask("pause"), stage.ask("pause"), stage.ask("resume")]
    assert stage.run("b", scene, strategy="canary", steps=[Step(weight=25, pause=600.0)]).error is None
    paused = [state for state in scene.states if state.phase == "paused"]
    assert [bool(state.paused_until) for state in paused] == [True, False, False]
    assert "pause was asked for, and means nothing in the phase paused" in scene.texts()
    stage.has_all("b")


def test_a_timed_pause_ends_by_itself(stage: Stage) -> None:
    stage.clock = leaping(100)
    scene = stage.run("b", strategy="canary", steps=[Step(weight=25, pause=300.0)], progress_deadline=1e5, publish_within=1e5)
    assert scene.error is None
    paused, after = (state for state in scene.states if state.phase in ("paused", "promote"))
    waited = datetime.fromisoformat(after.events[-1].at) - datetime.fromisoformat(paused.events[-1].at)
    assert timedelta(seconds=300) <= waited <= timedelta(seconds=400)
    assert "promote: the pause is over" in scene.texts()
    stage.has_all("b")


@pytest.mark.parametrize("end", ["promote", "resume"])
@pytest.mark.parametrize("strategy", ["canary", "blue-green"])
def test_the_gate_waits_for_a_person(stage: Stage, strategy: str, end: str) -> None:
    seen: list[tuple[Live, dict[str, int]]] = []
    scene = Scene()
    scene.at["paused"] = [lambda: (seen.append((stage.live(), stage.pods())), stage.ask(end)())]
    assert stage.run("b", scene, strategy=strategy, gate=True).error is None
    assert seen == [(Live(stage.revision("a"), shared=strategy == "canary"), {"a": 3, "b": 3})]
    assert scene.phases().count("paused") == 1
    assert "waiting for somebody to promote" in scene.texts()
    stage.has_all("b")


def test_a_rollout_that_is_taken_over_at_the_gate_still_waits_there(stage: Stage) -> None:
    machine = stage.machine("b", Scene(), gate=True)
    machine.objects.claim()
    while machine.state.phase != "paused":
        getattr(machine, f"_{machine.state.phase}")()
    scene = asked(stage, "paused", "promote")
    assert stage.run("b", scene, gate=True).error is None
    assert scene.phases()[:2] == ["paused", "promote"]
    stage.has_all("b")


def test_an_action_waits_for_whoever_takes_the_rollout_over(stage: Stage) -> None:
    machine = stage.machine("b", Scene(), strategy="canary")
    machine.objects.claim()
    machine._prepare()
    stage.ask("abort")()
    scene = stage.run("b", strategy="canary")
    assert "abort was asked for by an operator" in str(scene.error)
    stage.has_all("a")


def test_an_action_does_not_outlive_its_rollout(stage: Stage) -> None:
    stage.ask("abort")()
    assert stage.run("b").error is None
    scene = asked(stage, "promoted", "abort")
    assert stage.run("c", scene).error is None
    assert stage.run("a").error is None
    stage.has_all("a")


@pytest.mark.parametrize(("end", "ending"), [("promote", "b"), ("resume", "b"), ("abort", "a")])
def test_what_is_inconclusive_waits_for_a_person(stage: Stage, end: str, ending: str) -> None:
    scene = asked(stage, "paused", end)
    scene.outcomes = ["inconclusive"]
    stage.run("b", scene, strategy="canary")
    assert "inconclusive: " in next(state.events[-1].text for state in scene.states if state.phase == "paused")
    stage.has_all(ending)


def test_what_is_inconclusive_after_the_switch_goes_back(stage: Stage) -> None:
    scene = Scene(outcomes=["inconclusive"])
    assert "the analysis after the switch was inconclusive" in str(stage.run("b", scene).error)
    stage.has_all("a")


def test_errors_of_a_metric_are_measured_again_until_there_are_too_many(stage: Stage) -> None:
    plan = {"strategy": "canary", "analysis": METRICS.model_copy(update={"consecutive_error_limit": 2})}
    assert stage.run("b", Scene(outcomes=["error", "error"]), **plan).error is None
    stage.has_all("b")
    assert "the analysis could not be made" in str(stage.run("c", Scene(outcomes=["error"] * 3), **plan).error)
    stage.has_all("b")
