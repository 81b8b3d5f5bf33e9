"""Rollouts by labels on an API server, with servers in memory and the real holders in the pods: every course, and every trouble."""

import pytest

from components.core.errors import DualError, RolloutError
from components.core.release import release_version
from serving.rollout.cluster.names import HOLDS, NAME
from serving.rollout.cluster.objects import Live
from tests.crash.cluster_site import METRICS, RELEASES, service
from tests.crash.labels.stage import PHASES, UNDER_WAY, LabelStage, at
from tests.crash.stage import Scene

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
HOST_PATH = ("metadata", "annotations", HOLDS)


# --- courses ----------------------------------------------------------------------------------------------------------------------


def test_a_good_release_takes_over_in_the_pods_that_there_are(label_stage: LabelStage) -> None:
    pods = {pod.name for pod in label_stage.fakes()}
    seen: dict[str, tuple[set[str], set[str]]] = {}
    scene = Scene()
    for phase in PHASES:
        scene.at[phase] = [lambda phase=phase: seen.update({phase: (label_stage.answers(), label_stage.loaded())})]
    assert label_stage.run("b", scene).error is None
    assert scene.phases() == PHASES
    assert seen["validate_preview"] == seen["analyze"] == ({"a"}, {"a", "b"})
    assert seen["post_analysis"] == seen["drain"] == ({"b"}, {"a", "b"})
    assert {pod.name for pod in label_stage.fakes()} == pods
    assert [(state.asked, state.achieved) for state in scene.states if state.phase in ("analyze", "post_analysis")] == [(0, 0), (100, 100)]
    label_stage.has_only("b")


@pytest.mark.parametrize("how", ["preview", "analysis", "post"])
def test_a_bad_release_leaves_everything_as_it_was(label_stage: LabelStage, how: str) -> None:
    scene = Scene(passes=how != "preview", outcomes=["failed"] if how == "analysis" else ["successful", "failed"])
    assert isinstance(label_stage.run("b", scene).error, RolloutError)
    assert ("post_analysis" in scene.phases()) == (how == "post")
    assert f"live traffic is where it was: {RELEASES['a']} in {label_stage.host}" in scene.texts()
    label_stage.has_only("a")


def test_releases_follow_each_other_in_the_same_pods(label_stage: LabelStage) -> None:
    for release in ("b", "c", "a"):
        assert label_stage.run(release).error is None
        label_stage.has_only(release)
    assert [name for name in deployments(label_stage) if name != "classifier"] == [f"classifier-{label_stage.host}"]


def deployments(stage: LabelStage) -> list[str]:
    return [each["metadata"]["name"] for each in stage.api.list("Deployment", f"{NAME}=classifier")]


def test_the_same_inputs_twice_write_nothing(label_stage: LabelStage) -> None:
    assert label_stage.run("b").error is None
    before = label_stage.api.calls | {"GET": 0}
    scene = label_stage.run("b")
    assert scene.states == []
    assert label_stage.api.calls | {"GET": 0} == before


def test_a_first_deployment(empty_label_stage: LabelStage) -> None:
    scene = empty_label_stage.run("a")
    assert scene.error is None
    assert scene.phases() == ["prepare", "validate_preview", "promote", "post_analysis", "drain", "promoted"]
    empty_label_stage.has_only("a")


@pytest.mark.parametrize("how", ["preview", "post", "broken"])
def test_a_bad_first_deployment_leaves_nothing_and_the_next_one_is_a_first_too(empty_label_stage: LabelStage, how: str) -> None:
    if how == "broken":
        empty_label_stage.ward.broken.add(RELEASES["a"])
    scene = empty_label_stage.run(
        "a", Scene(passes=how != "preview", outcomes=["failed"]), progress_deadline=1.0 if how == "broken" else 20.0
    )
    assert isinstance(scene.error, RolloutError)
    assert empty_label_stage.live() == Live("", shared=False)
    empty_label_stage.kubelets.attend(empty_label_stage.api.namespace)
    assert empty_label_stage.fakes() == []
    assert empty_label_stage.run("b").error is None
    empty_label_stage.has_only("b")


def test_a_manual_gate_waits_beside_the_stable_version(label_stage: LabelStage) -> None:
    seen: list[set[str]] = []
    scene = at("paused", lambda: (seen.append(label_stage.answers()), label_stage.ask("promote")()))
    assert label_stage.run("b", scene, gate=True).error is None
    assert seen == [{"a"}]
    label_stage.has_only("b")


def test_what_is_inconclusive_waits_for_somebody(label_stage: LabelStage) -> None:
    scene = at("paused", label_stage.ask("promote"), outcomes=["inconclusive"])
    assert label_stage.run("b", scene).error is None
    assert [state.phase for state in scene.states].count("paused") == 1
    label_stage.has_only("b")


def test_pause_and_resume_measure_what_was_not_measured_yet(label_stage: LabelStage) -> None:
    scene = at("analyze", label_stage.ask("pause"))
    scene.at["paused"] = [label_stage.ask("resume")]
    assert label_stage.run("b", scene).error is None
    assert [phase for phase in scene.phases() if phase in ("analyze", "paused", "promote")] == ["analyze", "paused", "analyze", "promote"]
    label_stage.has_only("b")


def test_a_count_of_nothing_measures_once(label_stage: LabelStage) -> None:
    scene = label_stage.run("b", analysis=METRICS.model_copy(update={"count": 0}))
    assert scene.error is None
    assert len(scene.measured) == 2
    label_stage.has_only("b")


def test_without_a_publication_in_time_the_label_goes_back(label_stage: LabelStage) -> None:
    scene = label_stage.run("b", publish=False, publish_within=0.3)
    assert "the pair was not published within 0.3 s of the switch" in str(scene.error)
    label_stage.has_only("a")


def test_both_versions_are_asked_by_number_before_the_switch_and_by_label_after_it(label_stage: LabelStage) -> None:
    machine = label_stage.machine("b", Scene())
    machine.objects.claim()
    seen: dict[str, set[tuple[str, bool]]] = {}
    while machine.state.phase != "drain":
        getattr(machine, f"_{machine.state.phase}")()
        candidate, stable = machine.asked_pods()
        seen[machine.state.phase] = {(pod.path, pod.shared) for pod in candidate}
        assert len(candidate) == len(stable) == 3
    before = {(f"versions/{release_version(RELEASES['b'])}", True)}
    assert seen["validate_preview"] == seen["analyze"] == seen["promote"] == before
    assert seen["post_analysis"] == {("labels/stable", False)}


# --- going back -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", UNDER_WAY)
def test_an_abort_in_every_phase(label_stage: LabelStage, phase: str) -> None:
    scene = label_stage.run("b", at(phase, label_stage.ask("abort")), publish=False)
    assert "abort was asked for by an operator" in str(scene.error)
    label_stage.has_only("a")


def test_an_undo_is_the_labels_way_back_while_the_version_of_before_is_loaded(label_stage: LabelStage) -> None:
    machine = label_stage.machine("b", Scene(), scale_down_delay=3600.0)
    machine.run()
    label_stage.channel.publish(RELEASES["b"])
    assert label_stage.answers() == {"b"}
    scene = label_stage.run("a", kind="undo")
    assert scene.error is None
    assert scene.phases()[:3] == ["prepare", "promote", "post_analysis"]
    assert "the version of before is still loaded" in scene.texts()
    label_stage.has_only("a")


def test_an_undo_after_that_loads_it_again_and_looks_first(label_stage: LabelStage) -> None:
    assert label_stage.run("b").error is None
    label_stage.has_only("b")
    scene = label_stage.run("a", kind="undo")
    assert scene.phases()[:3] == ["prepare", "validate_preview", "promote"]
    label_stage.has_only("a")
    assert label_stage.run("b", Scene(passes=False), kind="undo").error is not None
    label_stage.has_only("a")


@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize("phase", UNDER_WAY)
def test_a_newer_release_supersedes_in_every_phase(label_stage: LabelStage, phase: str, good: bool) -> None:
    newer: list[Scene] = []
    scene = at(phase, lambda: newer.append(label_stage.run("c", Scene(passes=good), run_id="c")))
    assert isinstance(label_stage.run("b", scene, publish=False).error, DualError)
    assert (newer[0].error is None) == good
    label_stage.has_only("c" if good else "a")


@pytest.mark.parametrize("phase", UNDER_WAY)
def test_another_process_goes_on_where_one_stopped(label_stage: LabelStage, phase: str) -> None:
    machine = label_stage.machine("b", Scene(), run_id="gone")
    machine.objects.claim()
    while machine.state.phase != phase:
        getattr(machine, f"_{machine.state.phase}")()
    scene = label_stage.run("b")
    assert scene.error is None
    assert scene.phases()[0] == phase
    label_stage.has_only("b")


def test_a_state_that_was_deleted_after_the_switch_is_gone_back_from(label_stage: LabelStage) -> None:
    label_stage.run("b", publish=False, finish=False)
    label_stage.delete("ConfigMap", "classifier-rollout")
    assert label_stage.answers() == {"b"}
    scene = label_stage.run("c", Scene(passes=False))
    assert isinstance(scene.error, RolloutError)
    label_stage.has_only("a")


def test_a_service_that_was_made_anew_is_given_what_it_said(label_stage: LabelStage) -> None:
    label_stage.delete("Service", "classifier")
    label_stage.api.create("Service", service("classifier"))
    assert "failed its preview" in str(label_stage.run("b", Scene(passes=False)).error)
    label_stage.has_only("a")
    assert label_stage.run("b").error is None
    label_stage.has_only("b")
