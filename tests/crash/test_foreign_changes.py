"""Somebody scales, edits, relabels or deletes what a rollout owns, in the middle of it: it ends as it should, and says what it found."""

import json

import pytest

from components.core.errors import ConflictError, DataError, MissingObjectError, RolloutError, UsageError
from serving.rollout.cluster.names import EPOCH, NAME, REVISION, STABLE
from serving.rollout.cluster.objects import Live
from tests.crash.cluster_site import RELEASES, service, template
from tests.crash.stage import Act, Scene, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
BEFORE_THE_SWITCH = [
    ("canary", "validate_preview"),
    ("canary", "canary"),
    ("canary", "analyze"),
    ("canary", "promote"),
    ("blue-green", "validate_preview"),
]
AFTER_IT = [("canary", "post_analysis"), ("blue-green", "post_analysis"), ("blue-green", "drain")]
ANNOTATIONS = ("metadata", "annotations")


def at(moment: str, *acts: Act) -> Scene:
    """Somebody does these, one each time that the moment comes."""
    scene = Scene()
    scene.at[moment] = list(acts)
    return scene


def goes_wrong(scene: Scene, error: type[Exception], *texts: str) -> None:
    """Assert that it ended with an error that says all this."""
    assert type(scene.error) is error
    for text in texts:
        assert text in str(scene.error)


# --- scaled -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [0, 7])
@pytest.mark.parametrize(("strategy", "phase"), [("canary", "validate_preview"), ("canary", "analyze"), ("blue-green", "validate_preview")])
def test_a_scaled_candidate_is_set_back(stage: Stage, strategy: str, phase: str, replicas: int) -> None:
    scene = stage.run("b", at(phase, lambda: stage.scale("b", replicas)), strategy=strategy)
    assert scene.error is None
    assert f"Deployment {stage.deployment('b')} has {replicas} pods where " in scene.texts()
    stage.has_all("b")


def test_a_stable_revision_that_is_scaled_up_stays_so_and_the_candidate_follows(stage: Stage) -> None:
    seen: list[dict[str, int]] = []
    scene = at("analyze", lambda: stage.scale("a", 6), lambda: seen.append(stage.pods()))
    scene.at["measure"] = [lambda: seen.append(stage.pods())]
    assert stage.run("b", scene, strategy="canary").error is None
    # A quarter of the traffic beside 6 pods are 2 of 8, a half of it 6 of 12.
    assert seen == [{"a": 6, "b": 2}, {"a": 6, "b": 6}]
    stage.has_all("b")


def test_a_stable_revision_that_is_scaled_down_stays_so(stage: Stage) -> None:
    seen: list[dict[str, int]] = []
    scene = at("analyze", lambda: stage.scale("a", 1), lambda: seen.append(stage.pods()))
    assert stage.run("b", scene, strategy="canary").error is None
    assert seen == [{"a": 1, "b": 1}]
    stage.has_all("b")


@pytest.mark.parametrize(("strategy", "phase"), BEFORE_THE_SWITCH)
def test_a_stable_revision_without_pods_gets_them_back(stage: Stage, strategy: str, phase: str) -> None:
    seen: list[int] = []
    scene = at(phase, lambda: stage.scale("a", 0))
    scene.at["post_analysis"] = [lambda: seen.append(stage.pods()["a"])]
    assert stage.run("b", scene, strategy=strategy).error is None
    assert f"Deployment {stage.deployment('a')} had no pods: set to 3" in scene.texts()
    assert seen == [3]
    stage.has_all("b")


def test_old_pods_that_somebody_takes_away_come_back_with_an_abort(stage: Stage) -> None:
    scene = at("post_analysis", lambda: stage.scale("a", 0))
    scene.outcomes = ["failed"]
    stage.run("b", scene)
    goes_wrong(scene, RolloutError, "the analysis after the switch failed")
    stage.has_all("a")


@pytest.mark.parametrize("published", [False, True])
def test_a_promoted_revision_that_is_scaled_to_nothing_is_set_back(stage: Stage, published: bool) -> None:
    publish = (lambda: stage.channel.publish(RELEASES["b"])) if published else (lambda: None)
    scene = at("drain" if published else "post_analysis", lambda: (publish(), stage.scale("b", 0), stage.settle("b")))
    assert stage.run("b", scene, scale_down_delay=0.1).error is None
    assert f"Deployment {stage.deployment('b')} had no pods: set to 3" in scene.texts()
    stage.has_all("b")


# --- selectors and epochs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("selector", [{"app": "something-else"}, {NAME: "classifier", REVISION: "none"}], ids=["other", "nobody"])
@pytest.mark.parametrize(("strategy", "phase"), [*BEFORE_THE_SWITCH, *AFTER_IT])
def test_an_edited_selector_is_set_back(stage: Stage, strategy: str, phase: str, selector: dict[str, str]) -> None:
    scene = at(phase, lambda: stage.edit("Service", "classifier", ("spec", "selector"), selector))
    assert stage.run("b", scene, strategy=strategy, scale_down_delay=0.1).error is None
    if phase != "canary":
        assert "Service classifier was changed by somebody: set back to " in scene.texts()
    stage.has_all("b")


def test_a_removed_note_of_the_stable_revision_comes_back(stage: Stage) -> None:
    seen: list[Live] = []
    scene = at("analyze", lambda: stage.drop("Service", "classifier", (*ANNOTATIONS, STABLE)))
    scene.at["measure"] = [lambda: seen.append(stage.live())]
    assert stage.run("b", scene, strategy="canary").error is None
    assert seen == [Live(stage.revision("a"), shared=True)]
    stage.has_all("b")


@pytest.mark.parametrize("epoch", ["", "old", "1", "999", "9" * 5000])
@pytest.mark.parametrize("kind", ["Service", "Deployment"])
@pytest.mark.parametrize("phase", ["canary", "drain"])
def test_a_foreign_epoch_on_an_object(stage: Stage, phase: str, kind: str, epoch: str) -> None:
    def write() -> None:
        name = "classifier" if kind == "Service" else stage.deployment("b")
        if epoch:
            stage.edit(kind, name, (*ANNOTATIONS, EPOCH), epoch)
        else:
            stage.drop(kind, name, (*ANNOTATIONS, EPOCH))

    assert stage.run("b", at(phase, write), strategy="canary").error is None
    stage.has_all("b")
    # And the next one has no trouble with it either.
    assert stage.run("c", strategy="blue-green").error is None
    stage.has_all("c")


# --- labels and content -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", ["a", "b"])
@pytest.mark.parametrize("label", [REVISION, NAME])
def test_a_relabelled_deployment_is_known_by_its_name(stage: Stage, release: str, label: str) -> None:
    path = ("metadata", "labels", label)
    scene = at("analyze", lambda: stage.edit("Deployment", stage.deployment(release), path, "else"))
    assert stage.run("b", scene, strategy="canary").error is None
    assert stage.api.get("Deployment", stage.deployment("a"))["spec"]["replicas"] == 0
    assert stage.live() == Live(stage.revision("b"), shared=False)
    assert stage.run("c").error is None
    assert stage.api.get("Deployment", stage.deployment("b"))["spec"]["replicas"] == 0


def test_a_relabelled_pod_is_not_measured_and_is_told_of(stage: Stage) -> None:
    names: list[str] = []
    scene = at("validate_preview", lambda: names.extend(stage.make_pod(release, {}, ready=True) for release in ("a", "a", "b")))
    scene.at["analyze"] = [lambda: stage.edit("Pod", names[0], ("metadata", "labels", REVISION), "mine")]
    assert stage.run("b", scene, strategy="canary").error is None
    assert scene.measured[0] == ([names[2]], [names[1]])
    assert f"Pod {names[0]} has live traffic and is no part of this rollout" in scene.texts()
    assert f"kubectl -n {stage.api.namespace} delete pod {names[0]}" in scene.texts()


@pytest.mark.parametrize(("strategy", "phase"), [*BEFORE_THE_SWITCH, ("blue-green", "post_analysis")])
def test_an_edited_candidate_goes_back_and_the_next_run_corrects_it(stage: Stage, strategy: str, phase: str) -> None:
    image = ("spec", "template", "spec", "containers", "0", "image")
    scene = stage.run("b", at(phase, lambda: stage.edit("Deployment", stage.deployment("b"), image, "server:evil")), strategy=strategy)
    goes_wrong(
        scene, RolloutError, f"Deployment {stage.deployment('b')} was edited by somebody", "Change the template Deployment classifier"
    )
    stage.has_all("a")
    again = stage.run("b", strategy=strategy)
    assert f"Deployment {stage.deployment('b')} was edited by somebody: set back to what the template says" in again.texts()
    assert stage.api.get("Deployment", stage.deployment("b"))["spec"]["template"]["spec"]["containers"][0]["image"] == "server:1"
    stage.has_all("b")


# --- deleted ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strategy", "phase"), BEFORE_THE_SWITCH)
def test_a_deleted_stable_deployment_is_made_again(stage: Stage, strategy: str, phase: str) -> None:
    seen: list[int] = []
    scene = at(phase, lambda: stage.delete("Deployment", stage.deployment("a")))
    scene.at["post_analysis"] = [lambda: seen.append(stage.pods()["a"])]
    assert stage.run("b", scene, strategy=strategy).error is None
    assert f"Deployment {stage.deployment('a')} was deleted by somebody: it is made again from the template" in scene.texts()
    assert seen == [3]
    stage.has_all("b")


def test_an_abort_makes_a_deleted_stable_deployment_again(stage: Stage) -> None:
    scene = at("post_analysis", lambda: stage.delete("Deployment", stage.deployment("a")))
    scene.outcomes = ["failed"]
    goes_wrong(stage.run("b", scene), RolloutError, "the analysis after the switch failed")
    stage.has_all("a")
    variables = stage.api.get("Deployment", stage.deployment("a"))["spec"]["template"]["spec"]["initContainers"][0]["env"]
    assert variables == [{"name": "DUAL_RELEASE", "value": RELEASES["a"]}]


@pytest.mark.parametrize(("strategy", "phase"), [*BEFORE_THE_SWITCH, *AFTER_IT])
def test_a_deleted_candidate_goes_back(stage: Stage, strategy: str, phase: str) -> None:
    scene = at(phase, lambda: stage.delete("Deployment", stage.deployment("b")))
    stage.run("b", scene, strategy=strategy, publish=False, finish=True)
    goes_wrong(scene, RolloutError, f"Deployment {stage.deployment('b')} was deleted by somebody", "kubectl -n", "get events")
    stage.has_all("a")


def test_a_published_revision_that_is_deleted_is_made_again_before_the_old_pods_go(stage: Stage) -> None:
    scene = at("drain", lambda: (stage.channel.publish(RELEASES["b"]), stage.delete("Deployment", stage.deployment("b"))))
    assert stage.run("b", scene).error is None
    assert f"Deployment {stage.deployment('b')} was deleted by somebody: it is made again" in scene.texts()
    stage.has_all("b")


@pytest.mark.parametrize(
    ("strategy", "phase"), [("canary", "analyze"), ("blue-green", "validate_preview"), ("blue-green", "post_analysis")]
)
def test_a_deleted_live_service_stops_the_rollout_until_it_is_applied_again(stage: Stage, strategy: str, phase: str) -> None:
    scene = stage.run("b", at(phase, lambda: stage.delete("Service", "classifier")), strategy=strategy)
    goes_wrong(
        scene, MissingObjectError, f"Service {stage.api.namespace}/classifier: there is no such object", "kubectl apply -k manifests/"
    )
    assert stage.state().phase == "aborting"
    stage.api.create("Service", service("classifier"))
    goes_wrong(stage.run("b", strategy=strategy), RolloutError, "Service", "there is no such object")
    stage.has_all("a")
    assert stage.run("b", strategy=strategy).error is None
    stage.has_all("b")


def test_a_live_service_deleted_after_the_publication_does_not_tear_the_pair(stage: Stage) -> None:
    scene = at("drain", lambda: (stage.channel.publish(RELEASES["b"]), stage.delete("Service", "classifier")))
    goes_wrong(stage.run("b", scene), MissingObjectError, "Service", "kubectl apply -k manifests/")
    assert stage.state().phase == "drain"
    assert stage.pods() == {"a": 3, "b": 3}
    stage.api.create("Service", service("classifier"))
    assert stage.run("b").error is None
    stage.has_all("b")


@pytest.mark.parametrize("phase", ["prepare", "analyze", "drain"])
def test_nothing_depends_on_the_preview_service(stage: Stage, phase: str) -> None:
    assert stage.run("b", at(phase, lambda: stage.delete("Service", "classifier-preview")), strategy="canary").error is None
    stage.has_all("b")
    failing = Scene(outcomes=["failed"])
    goes_wrong(stage.run("c", failing, strategy="canary"), RolloutError, "the analysis failed")
    stage.has_all("b")


# --- the state --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strategy", "phase"), [*BEFORE_THE_SWITCH, *AFTER_IT])
def test_a_deleted_state_ends_the_run_and_the_next_one_begins_anew_from_the_objects(stage: Stage, strategy: str, phase: str) -> None:
    scene = at(phase, lambda: stage.delete("ConfigMap", "classifier-rollout"))
    stage.run("b", scene, strategy=strategy, publish=False, finish=True)
    goes_wrong(scene, ConflictError, f"ConfigMap {stage.api.namespace}/classifier-rollout", "the state was deleted", "dual rollout status")
    again = stage.run("c", Scene(outcomes=["failed"]), strategy=strategy)
    goes_wrong(again, RolloutError, "failed")
    # What the channel names is what traffic goes back to, even if an unpublished candidate had it all.
    stage.has_all("a")
    assert stage.run("b", strategy=strategy).error is None
    stage.has_all("b")


@pytest.mark.parametrize("text", ["{", "{}", '{"epoch": "many"}'])
def test_a_garbled_state_is_named_with_the_way_out(stage: Stage, text: str) -> None:
    scene = at("analyze", lambda: stage.edit("ConfigMap", "classifier-rollout", ("data", "state.json"), text))
    stage.run("b", scene, strategy="canary")
    delete = f"kubectl -n {stage.api.namespace} delete configmap classifier-rollout"
    goes_wrong(scene, DataError, f"ConfigMap {stage.api.namespace}/classifier-rollout: the rollout's state is malformed", delete)
    goes_wrong(stage.run("b"), DataError, delete)
    stage.delete("ConfigMap", "classifier-rollout")
    assert stage.run("b").error is None
    stage.has_all("b")


def test_a_state_of_a_newer_version_is_left_alone_and_nobody_is_told_to_delete_it(stage: Stage) -> None:
    assert stage.run("b").error is None
    newer = json.loads(stage.state().model_dump_json(by_alias=True))
    newer["plan"]["of_tomorrow"] = True
    stage.edit("ConfigMap", "classifier-rollout", ("data", "state.json"), json.dumps(newer))
    refused = stage.run("c")
    goes_wrong(refused, DataError, "the rollout's state says plan.of_tomorrow, which this version of dual does not know", "of one version")
    assert "delete" not in str(refused.error)
    assert stage.pods() == {"b": 3}


def test_a_state_without_data_is_named_too(stage: Stage) -> None:
    stage.drop("ConfigMap", "classifier-rollout", ("data",))
    goes_wrong(stage.run("b"), DataError, "the key 'data' is missing", "delete configmap")


def test_an_edit_of_the_state_that_keeps_its_epoch_is_overwritten(stage: Stage) -> None:
    def edit() -> None:
        state = stage.state().model_copy(update={"phase": "promoted"})
        stage.edit("ConfigMap", "classifier-rollout", ("data", "state.json"), state.model_dump_json(by_alias=True))

    assert stage.run("b", at("measure", edit), strategy="canary").error is None
    stage.has_all("b")


# --- the template -----------------------------------------------------------------------------------------------------------------


def test_a_template_changed_meanwhile_is_the_next_rollout(stage: Stage) -> None:
    image, before = ("spec", "template", "spec", "containers", "0", "image"), stage.revision("b")
    assert stage.run("b", at("measure", lambda: stage.edit("Deployment", "classifier", image, "server:2")), strategy="canary").error is None
    assert stage.live() == Live(before, shared=False)
    assert stage.run("b", strategy="canary").error is None
    assert stage.revision("b") != before
    stage.has_all("b")


def test_a_template_deleted_meanwhile_stops_only_the_next_rollout(stage: Stage) -> None:
    assert stage.run("b", at("measure", lambda: stage.delete("Deployment", "classifier")), strategy="canary").error is None
    goes_wrong(stage.run("c"), UsageError, f"Deployment {stage.api.namespace}/classifier: the template is not there", "kubectl apply -k")
    stage.api.create("Deployment", template())
    assert stage.run("c").error is None
    stage.has_all("c")


# --- nothing in progress ----------------------------------------------------------------------------------------------------------


def replace_service(stage: Stage) -> None:
    stage.delete("Service", "classifier")
    stage.api.create("Service", service("classifier"))


DAMAGE = {
    "service made anew": replace_service,
    "scaled to nothing": lambda stage: stage.scale("a", 0),
    "deployment deleted": lambda stage: stage.delete("Deployment", stage.deployment("a")),
    "selector edited": lambda stage: stage.edit("Service", "classifier", ("spec", "selector"), {"app": "else"}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_same_release_again_repairs_what_was_damaged_at_rest(stage: Stage, damage: str) -> None:
    DAMAGE[damage](stage)
    assert stage.run("a", strategy="canary").error is None
    stage.has_all("a")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_new_release_first_brings_the_promoted_one_back(stage: Stage, damage: str) -> None:
    DAMAGE[damage](stage)
    seen: list[tuple[Live, int]] = []
    scene = at("validate_preview", lambda: seen.append((stage.live(), stage.pods().get("a", 0))))
    assert stage.run("b", scene, strategy="canary").error is None
    assert seen == [(Live(stage.revision("a"), shared=False), 3)]
    stage.has_all("b")
