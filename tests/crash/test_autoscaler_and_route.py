"""Where an autoscaler decides on the number of pods, or an HTTPRoute on the weight: the rollout works with them and fights neither."""

import pytest

from components.core.errors import RolloutError
from serving.rollout.cluster.api import Json
from serving.rollout.cluster.names import COMPONENT, NAME, SERVER
from serving.rollout.cluster.objects import Live
from serving.rollout.cluster.settings import Step
from tests.crash.cluster_site import Controller, route, service
from tests.crash.stage import Act, Scene, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
LABELS = {NAME: "classifier", COMPONENT: SERVER}


def at(moment: str, *acts: Act) -> Scene:
    scene = Scene()
    scene.at[moment] = list(acts)
    return scene


# --- autoscaler -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def scaled(stage: Stage) -> Stage:
    """A stage with an applied autoscaler, and the stable revision's copy of it."""
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "classifier"}
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}
    spec = {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 20, "metrics": [cpu]}
    kind = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}
    stage.api.create("HorizontalPodAutoscaler", {**kind, "metadata": {"name": "classifier", "labels": LABELS}, "spec": spec})
    assert stage.run("b").error is None
    assert autoscalers(stage) == {"b"}
    return stage


def autoscalers(stage: Stage) -> set[str]:
    """The releases whose revisions have one."""
    found = {each["metadata"]["name"]: each for each in stage.api.list("HorizontalPodAutoscaler", f"{NAME}=classifier")}
    assert all(each["spec"]["scaleTargetRef"]["name"] == name for name, each in found.items())
    return {letter for letter in "abc" if stage.deployment(letter) in found}


def test_the_copy_is_made_with_the_switch_and_goes_with_the_old_pods(scaled: Stage) -> None:
    seen: dict[str, set[str]] = {}
    scene = Scene()
    for phase in ("validate_preview", "canary", "analyze", "promote", "post_analysis", "drain", "promoted"):
        scene.at[phase] = [lambda phase=phase: seen.__setitem__(phase, autoscalers(scaled))]
    assert scaled.run("c", scene, strategy="canary").error is None
    before, after = {"b"}, {"b", "c"}
    assert [seen[phase] for phase in ("validate_preview", "canary", "analyze", "promote")] == [before] * 4
    assert [seen[phase] for phase in ("post_analysis", "drain", "promoted")] == [after, after, {"c"}]


def test_an_abort_takes_the_candidates_copy_away(scaled: Stage) -> None:
    assert isinstance(scaled.run("c", Scene(outcomes=["failed"])).error, RolloutError)
    assert autoscalers(scaled) == {"b"}
    scaled.has_all("b")


def test_the_autoscalers_number_takes_over(scaled: Stage) -> None:
    scaled.scale("b", 6)
    seen: list[dict[str, int]] = []
    scene = at("post_analysis", lambda: seen.append(scaled.pods()))
    assert scaled.run("c", scene).error is None
    assert seen == [{"b": 6, "c": 6}]


def test_what_it_decides_in_the_middle_is_respected(scaled: Stage) -> None:
    seen: list[dict[str, int]] = []
    scene = at("analyze", lambda: scaled.scale("b", 9), lambda: scaled.scale("b", 6))
    scene.at["measure"] = [lambda: seen.append(scaled.pods())] * 2
    scene.at["post_analysis"] = [lambda: (seen.append(scaled.pods()), scaled.scale("c", 8))]
    scene.at["drain"] = [lambda: (seen.append(scaled.pods()), scaled.scale("c", 7))]
    assert scaled.run("c", scene, strategy="canary", scale_down_delay=0.1).error is None
    # A quarter beside 9 are 3, a half beside 6 are 6; then it may do with both what it likes.
    assert seen == [{"b": 9, "c": 3}, {"b": 6, "c": 6}, {"b": 6, "c": 6}, {"b": 6, "c": 8}]
    scaled.has_all("c", pods=7)


def test_an_undo_brings_the_copy_back(scaled: Stage) -> None:
    assert scaled.run("c").error is None
    assert scaled.run("b", kind="undo").error is None
    assert autoscalers(scaled) == {"b"}


def test_a_copy_that_somebody_deleted_or_edited_is_no_obstacle(scaled: Stage) -> None:
    name = scaled.deployment("b")
    scaled.edit("HorizontalPodAutoscaler", name, ("metadata", "annotations", "dual.dev/epoch"), "mine")
    assert scaled.run("c", at("drain", lambda: scaled.delete("HorizontalPodAutoscaler", scaled.deployment("c")))).error is None
    assert autoscalers(scaled) == set()
    assert scaled.run("a").error is None
    assert autoscalers(scaled) == {"a"}


# --- route ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def routed(stage: Stage, gateway_api: None) -> Stage:
    """A stage with an applied HTTPRoute that has no backends yet; the rollout gives it some."""
    del gateway_api
    make_route(stage)
    assert stage.run("b", strategy="canary").error is None
    assert weights(stage) == [(100, 0)]
    return stage


def make_route(stage: Stage) -> None:
    stage.api.create("HTTPRoute", route())


def backends(live: int, preview: int) -> list[Json]:
    names = {"classifier": live, "classifier-preview": preview}
    return [{"name": name, "port": 8501, "weight": weight} for name, weight in names.items()]


def weights(stage: Stage) -> list[tuple[int, int]]:
    """Of the live and of the preview Service, in each rule; both are written out."""
    found = []
    for rule in stage.api.get("HTTPRoute", "classifier")["spec"]["rules"]:
        by_name = {each["name"]: each["weight"] for each in rule["backendRefs"]}
        found.append((by_name["classifier"], by_name["classifier-preview"]))
    return found


def test_weights_rise_only_with_ready_pods_and_fall_before_they_go(routed: Stage) -> None:
    seen: dict[str, list[object]] = {}
    scene = Scene()

    def note() -> None:
        moment = f"{scene.states[-1].phase} {scene.states[-1].step}"
        seen[moment] = [*weights(routed), routed.pods(), routed.live().shared]

    for phase in ("validate_preview", "canary", "analyze", "promote", "post_analysis", "promoted"):
        scene.at[phase] = [note, note]
    assert routed.run("c", scene, strategy="canary").error is None
    # 25 % of what 3 pods carry needs 1, 50 % needs 2.
    assert seen["validate_preview 0"] == [(100, 0), {"b": 3, "c": 1}, False]
    assert seen["canary 0"] == [(100, 0), {"b": 3, "c": 1}, False]
    assert seen["analyze 0"] == [(75, 25), {"b": 3, "c": 1}, False]
    assert seen["canary 1"] == [(75, 25), {"b": 3, "c": 1}, False]
    assert seen["analyze 1"] == [(50, 50), {"b": 3, "c": 2}, False]
    assert seen["post_analysis 1"] == [(100, 0), {"b": 3, "c": 3}, False]
    routed.has_all("c")
    assert [state.achieved for state in scene.states if state.phase == "analyze"] == [25.0, 50.0]


def test_an_abort_writes_weight_0_before_the_pods_go(routed: Stage) -> None:
    seen: list[object] = []
    scene = at("aborting", lambda: seen.append(weights(routed)))
    scene.outcomes = ["failed"]
    assert isinstance(routed.run("c", scene, strategy="canary").error, RolloutError)
    assert seen == [[(75, 25)]]
    assert weights(routed) == [(100, 0)]
    routed.has_all("b")


@pytest.mark.parametrize("strategy", ["canary", "blue-green", "recreate"])
def test_every_strategy_leaves_the_route_to_the_live_service(stage: Stage, gateway_api: None, strategy: str) -> None:
    del gateway_api
    make_route(stage)
    assert stage.run("b", strategy=strategy).error is None
    assert weights(stage) == [(100, 0)]
    stage.has_all("b")


def test_what_an_operator_writes_into_a_rule_stays(routed: Stage) -> None:
    paths = [("PathPrefix", "/v1"), ("Exact", "/")]
    rules = [{"matches": [{"path": {"type": kind, "value": path}}], "backendRefs": backends(100, 0)} for kind, path in paths]
    routed.edit("HTTPRoute", "classifier", ("spec", "rules"), rules)
    seen: list[object] = []
    assert routed.run("c", at("analyze", lambda: seen.append(weights(routed))), strategy="canary").error is None
    assert seen == [[(75, 25), (75, 25)]]
    found = routed.api.get("HTTPRoute", "classifier")["spec"]
    assert [rule["matches"] for rule in found["rules"]] == [rule["matches"] for rule in rules]
    assert found["hostnames"] == ["c.example.com"]
    assert weights(routed) == [(100, 0)] * 2


@pytest.mark.parametrize("phase", ["validate_preview", "analyze", "promote", "post_analysis", "drain"])
@pytest.mark.parametrize("edited", [[{"backendRefs": backends(0, 100)}], [{"backendRefs": [{"name": "else", "port": 1, "weight": 1}]}]])
def test_edited_weights_are_set_back(routed: Stage, phase: str, edited: list[Json]) -> None:
    seen: list[object] = []
    scene = at(phase, lambda: routed.edit("HTTPRoute", "classifier", ("spec", "rules"), edited))
    scene.at["measure"] = [lambda: seen.append(weights(routed))]
    assert routed.run("c", scene, strategy="canary", scale_down_delay=0.1).error is None
    assert "HTTPRoute classifier was changed by somebody: set back to " in scene.texts()
    assert seen == [[(75, 25)]]
    assert weights(routed) == [(100, 0)]
    routed.has_all("c")


def test_a_pause_before_the_steps_weight_gives_no_weight(routed: Stage) -> None:
    seen: list[object] = []
    scene = Scene()
    scene.at["canary"] = [lambda: None, routed.ask("pause")]
    scene.at["paused"] = [lambda: routed.after(4, lambda: (seen.append(weights(routed)), routed.ask("resume")()))]
    assert routed.run("c", scene, strategy="canary").error is None
    assert seen == [[(75, 25)]]
    routed.has_all("c")


def test_no_weight_without_a_ready_candidate(routed: Stage, controller: Controller) -> None:
    seen: list[object] = []
    scene = Scene()
    scene.at["analyze"] = [lambda: routed.lose("c", controller, waits=6)]
    scene.at["canary"] = [lambda: None, lambda: seen.append(weights(routed))]
    assert routed.run("c", scene, strategy="canary", steps=[Step(weight=25)]).error is None
    assert seen == [[(100, 0)]]
    assert scene.phases().count("canary") == 2
    assert f"no pod of Deployment {routed.deployment('c')} is ready any more: weight 0 until some are" in scene.texts()
    routed.has_all("c")


def test_a_candidate_that_loses_all_its_pods_under_every_weight_goes_back(routed: Stage, controller: Controller) -> None:
    scene = Scene()
    scene.at["analyze"] = [lambda: routed.lose("c", controller, waits=6)] * 4
    assert isinstance(routed.run("c", scene, strategy="canary").error, RolloutError)
    lost = f"no pod of Deployment {routed.deployment('c')} is ready any more, for the 4th time since it has traffic"
    assert lost in str(scene.error)
    assert scene.phases().count("canary") == 4
    assert weights(routed) == [(100, 0)]
    routed.gain("c", controller)
    routed.has_all("b")


def test_a_route_deleted_and_made_again_in_a_canary_is_filled_again(routed: Stage) -> None:
    seen: list[object] = []
    scene = at("analyze", lambda: (routed.delete("HTTPRoute", "classifier"), make_route(routed)))
    scene.at["measure"] = [lambda: seen.append(weights(routed))]
    assert routed.run("c", scene, strategy="canary").error is None
    assert seen == [[(75, 25)]]
    assert weights(routed) == [(100, 0)]
    routed.has_all("c")


def test_a_route_deleted_in_a_canary_takes_it_back(routed: Stage) -> None:
    scene = routed.run("c", at("analyze", lambda: routed.delete("HTTPRoute", "classifier")), strategy="canary")
    assert isinstance(scene.error, RolloutError)
    assert f"HTTPRoute {routed.api.namespace}/classifier: there is no such object. Apply the manifests" in str(scene.error)
    assert "no weight to take back" in scene.texts()
    routed.has_all("b")


def test_a_preview_service_deleted_under_a_weight_takes_the_rollout_back(routed: Stage) -> None:
    scene = routed.run("c", at("analyze", lambda: routed.delete("Service", "classifier-preview")), strategy="canary")
    assert isinstance(scene.error, RolloutError)
    assert f"Service {routed.api.namespace}/classifier-preview: there is no such object" in str(scene.error)
    routed.has_all("b")
    assert weights(routed) == [(100, 0)]
    routed.api.create("Service", service("classifier-preview"))
    assert routed.run("c", strategy="canary").error is None


def test_a_route_applied_anew_at_rest_is_filled_by_the_same_release(routed: Stage) -> None:
    routed.delete("HTTPRoute", "classifier")
    make_route(routed)
    assert routed.run("b", strategy="canary").error is None
    assert weights(routed) == [(100, 0)]
    routed.has_all("b")


def test_a_route_that_comes_in_the_middle_is_for_the_next_rollout(stage: Stage, gateway_api: None) -> None:
    del gateway_api
    assert stage.run("b", at("analyze", lambda: make_route(stage)), strategy="canary").error is None
    stage.has_all("b")
    assert stage.run("c", strategy="canary").error is None
    assert weights(stage) == [(100, 0)]
    assert stage.live() == Live(stage.revision("c"), shared=False)
