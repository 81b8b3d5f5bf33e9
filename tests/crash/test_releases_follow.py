"""A newer release at every phase of an older one, undos, first deployments, and the same inputs twice."""

import pytest

from components.core.errors import ConflictError, RolloutError, UsageError
from serving.rollout.cluster.objects import Live
from serving.rollout.cluster.settings import Step
from tests.crash.cluster_site import RELEASES
from tests.crash.stage import Scene, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
WRITES = ("POST", "PATCH", "PUT", "DELETE")
UNPUBLISHED = ["prepare", "validate_preview", "canary", "analyze", "paused", "promote", "post_analysis", "drain"]
MANUAL = [Step(weight=25, pause="manual"), Step(weight=50)]


def writes(stage: Stage) -> int:
    return sum(stage.api.calls[verb] for verb in WRITES)


# --- supersession -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize("phase", UNPUBLISHED)
def test_a_newer_release_supersedes_an_older_one(stage: Stage, phase: str, good: bool) -> None:
    newer: list[Scene] = []
    scene = Scene()
    how = {"strategy": "canary", "steps": MANUAL}
    scene.at[phase] = [lambda: newer.append(stage.run("c", Scene(outcomes=[] if good else ["failed"]), strategy="canary", run_id="c"))]
    stage.run("b", scene, publish=False, **how) if phase == "paused" else stage.run("b", scene, publish=False, strategy="canary")
    # The older process ends at its next look, and changes nothing any more.
    assert isinstance(scene.error, ConflictError)
    assert "was overtaken by epoch 3 (run c, release cccccccccccc)" in str(scene.error)
    assert "supersedes the rollout of bbbbbbbbbbbb (run r, " in newer[0].states[0].events[-1].text
    assert isinstance(newer[0].error, type(None) if good else RolloutError)
    assert [(each.revision.release[0], each.outcome) for each in stage.state().history[-2:]] == [
        ("b", "superseded"),
        ("c", "promoted" if good else "aborted"),
    ]
    # What it goes back to is what was promoted, and never what was only under way.
    stage.has_all("c" if good else "a")


def test_a_newer_release_waits_for_the_old_pods_of_a_published_one(stage: Stage) -> None:
    newer: list[Scene] = []
    scene = Scene()
    scene.at["drain"] = [lambda: (stage.channel.publish(RELEASES["b"]), newer.append(stage.run("c", run_id="c")))]
    stage.run("b", scene, scale_down_delay=0.3)
    assert isinstance(scene.error, ConflictError)
    assert newer[0].error is None
    assert [(each.revision.release[0], each.outcome) for each in stage.state().history[-2:]] == [("b", "promoted"), ("c", "promoted")]
    assert newer[0].states[0].phase == "drain"
    stage.has_all("c")


def test_a_newer_release_supersedes_an_abort(stage: Stage) -> None:
    newer: list[Scene] = []
    scene = Scene(passes=False)
    scene.at["aborting"] = [lambda: newer.append(stage.run("c", run_id="c"))]
    stage.run("b", scene)
    assert isinstance(scene.error, ConflictError)
    stage.has_all("c")


def test_the_same_release_takes_its_own_rollout_over(stage: Stage) -> None:
    second: list[Scene] = []
    scene = Scene()
    scene.at["canary"] = [lambda: second.append(stage.run("b", strategy="canary", run_id="second"))]
    stage.run("b", scene, strategy="canary")
    assert isinstance(scene.error, ConflictError)
    assert second[0].phases()[0] == "canary"
    assert "took over from run r" in second[0].texts()
    stage.has_all("b")


# --- undo -------------------------------------------------------------------------------------------------------------------------


def undo(stage: Stage, to: str, scene: Scene | None = None, *, run_id: str = "u") -> Scene:
    """What `dual rollout undo` does once it knows the release."""
    return stage.run(to, scene, kind="undo", run_id=run_id)


def test_an_undo_is_at_once_while_the_old_pods_are_up(stage: Stage) -> None:
    undone: list[Scene] = []
    scene = Scene()
    scene.at["drain"] = [lambda: (stage.channel.publish(RELEASES["b"]), undone.append(undo(stage, "a")))]
    stage.run("b", scene, scale_down_delay=60)
    assert isinstance(scene.error, ConflictError)
    assert undone[0].error is None
    assert undone[0].phases() == ["prepare", "promote", "post_analysis", "drain", "rolled_back"]
    assert "the pods of before are still ready" in undone[0].texts()
    stage.has_all("a")


def test_an_undo_after_the_old_pods_are_gone_starts_them_again_and_asks_them(stage: Stage) -> None:
    assert stage.run("b").error is None
    undone = undo(stage, "a")
    assert undone.error is None
    assert undone.phases() == ["prepare", "validate_preview", "promote", "post_analysis", "drain", "rolled_back"]
    stage.has_all("a")


def test_an_undo_that_died_after_it_started_the_pods_still_asks_them(stage: Stage) -> None:
    assert stage.run("b").error is None
    machine = stage.machine("a", Scene(), kind="undo")
    machine.objects.claim()
    machine.objects.scale(machine.candidate, 3)
    stage.settle("a")
    undone = undo(stage, "a", Scene(passes=False))
    assert isinstance(undone.error, RolloutError)
    assert "the candidate failed its preview" in str(undone.error)
    stage.has_all("b")


def test_an_undo_goes_to_the_very_pods_of_before_though_the_template_changed(stage: Stage) -> None:
    assert stage.run("b").error is None
    before = stage.revision("a")
    stage.edit("Deployment", "classifier", ("spec", "template", "spec", "containers", "0", "image"), "server:2")
    assert undo(stage, "a").error is None
    assert stage.live() == Live(before, shared=False)
    assert stage.api.get("Deployment", stage.names.deployment(before))["spec"]["template"]["spec"]["containers"][0]["image"] == "server:1"


def test_an_undo_whose_deployment_is_gone_is_made_from_the_template(stage: Stage) -> None:
    assert stage.run("b").error is None
    stage.delete("Deployment", stage.deployment("a"))
    assert undo(stage, "a").error is None
    stage.has_all("a")


def test_an_undo_of_an_undo(stage: Stage) -> None:
    assert stage.run("b").error is None
    assert undo(stage, "a").error is None
    assert undo(stage, "b").error is None
    stage.has_all("b")
    assert [each.outcome for each in stage.state().history] == ["promoted", "promoted", "rolled_back", "rolled_back"]


def test_an_undo_that_fails_stays_with_the_promoted_release(stage: Stage) -> None:
    assert stage.run("b").error is None
    undone = undo(stage, "a", Scene(passes=False))
    assert isinstance(undone.error, RolloutError)
    stage.has_all("b")


@pytest.mark.parametrize("phase", ["prepare", "validate_preview", "promote", "post_analysis", "drain"])
def test_an_undo_is_taken_over_where_it_stands(stage: Stage, phase: str) -> None:
    assert stage.run("b").error is None
    again: list[Scene] = []
    scene = Scene()
    scene.at[phase] = [lambda: again.append(undo(stage, "a", run_id="again"))]
    undo(stage, "a", scene)
    assert isinstance(scene.error, ConflictError)
    assert again[0].error is None
    assert again[0].phases()[0] == phase
    stage.has_all("a")


@pytest.mark.parametrize("phase", ["validate_preview", "drain"])
def test_a_release_supersedes_an_undo_that_is_not_published(stage: Stage, phase: str) -> None:
    assert stage.run("b").error is None
    newer: list[Scene] = []
    scene = Scene()
    scene.at[phase] = [lambda: newer.append(stage.run("c", Scene(passes=False), run_id="c"))]
    stage.run("a", scene, kind="undo", publish=False)
    assert isinstance(newer[0].error, RolloutError)
    stage.has_all("b")


# --- first, and again -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["canary", "blue-green", "recreate"])
def test_a_first_deployment(empty_stage: Stage, strategy: str) -> None:
    scene = empty_stage.run("a", strategy=strategy)
    assert scene.error is None
    assert scene.phases() == ["prepare", "validate_preview", "promote", "post_analysis", "drain", "promoted"]
    empty_stage.has_all("a")


@pytest.mark.parametrize("strategy", ["canary", "blue-green", "recreate"])
@pytest.mark.parametrize("how", ["preview", "post"])
def test_a_bad_first_deployment_leaves_nothing_and_the_next_one_is_a_first_too(empty_stage: Stage, strategy: str, how: str) -> None:
    bad = Scene(passes=False) if how == "preview" else Scene(outcomes=["failed"])
    assert isinstance(empty_stage.run("a", bad, strategy=strategy).error, RolloutError)
    assert "live traffic is where it was: nowhere (there was no release before)" in bad.texts()
    assert empty_stage.pods() == {}
    assert empty_stage.selector()["dual.dev/revision"] == "none"
    assert empty_stage.run("b", strategy=strategy).error is None
    empty_stage.has_all("b")


def test_a_first_deployment_that_was_never_published_is_superseded_by_another_first_one(empty_stage: Stage) -> None:
    empty_stage.run("a", publish=False, finish=False)
    assert isinstance(empty_stage.run("b", Scene(passes=False)).error, RolloutError)
    assert empty_stage.pods() == {}
    assert empty_stage.run("b").error is None
    empty_stage.has_all("b")


def test_without_a_publication_in_time_everything_goes_back(stage: Stage) -> None:
    scene = stage.run("b", publish=False, publish_within=0.3)
    assert isinstance(scene.error, RolloutError)
    assert "the pair was not published within 0.3 s of the switch" in str(scene.error)
    assert "both halves are published, or none" in str(scene.error)
    stage.has_all("a")


@pytest.mark.parametrize("strategy", ["canary", "blue-green", "recreate"])
def test_the_same_inputs_twice_write_nothing(stage: Stage, strategy: str) -> None:
    assert stage.run("b", strategy=strategy).error is None
    before = writes(stage)
    scene = stage.run("b", strategy=strategy)
    assert writes(stage) == before
    assert scene.error is None
    assert scene.states == []
    stage.has_all("b")


def test_a_failed_release_may_be_tried_again(stage: Stage) -> None:
    for _ in range(2):
        assert isinstance(stage.run("b", Scene(passes=False)).error, RolloutError)
        stage.has_all("a")
    assert stage.run("b").error is None
    stage.has_all("b")


def test_recreate_leaves_a_gap_and_says_so(stage: Stage) -> None:
    seen: list[dict[str, int]] = []
    scene = Scene()
    scene.at["post_analysis"] = [lambda: seen.append(stage.pods())]
    assert stage.run("b", scene, strategy="recreate").error is None
    assert seen == [{"b": 3}]
    assert "recreate: the pods of aaaaaaaaaaaa-" in scene.texts()
    assert "requests fail until those are ready" in scene.texts()
    stage.has_all("b")


def test_recreate_brings_the_old_pods_back_when_the_new_ones_are_bad(stage: Stage) -> None:
    assert isinstance(stage.run("b", Scene(outcomes=["failed"]), strategy="recreate").error, RolloutError)
    stage.has_all("a")


def test_old_revisions_are_forgotten_beyond_those_that_are_kept(stage: Stage) -> None:
    for release in ("b", "c", "a", "b"):
        assert stage.run(release, revisions_kept=1).error is None
    names = {each["metadata"]["name"] for each in stage.api.list("Deployment", "app.kubernetes.io/name=classifier")}
    assert len(names - {"classifier"}) == 2


def test_a_template_that_asks_for_nonsense_is_named(stage: Stage) -> None:
    stage.edit("Deployment", "classifier", ("metadata", "annotations", "dual.dev/replicas"), "many")
    scene = stage.run("b")
    assert isinstance(scene.error, UsageError)
    assert f"Deployment {stage.api.namespace}/classifier, annotation dual.dev/replicas: 'many' is no number of pods" in str(scene.error)
    stage.has_all("a")
