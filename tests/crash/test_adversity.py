"""What a rollout that lasts long enough meets: clocks that disagree, states that grow, people who act in the same moment."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Thread
from typing import Any

import pytest

from components.core.errors import ConflictError, DataError, RolloutError
from components.core.gate import Reason
from serving.rollout.analysis.pods import PodTarget
from serving.rollout.cluster.actions import request
from serving.rollout.cluster.api import Api, ChangedError, ClusterError, Json
from serving.rollout.cluster.begin import Site, begin
from serving.rollout.cluster.names import ACTION, NAME, Names
from serving.rollout.cluster.objects import Live, live_of
from serving.rollout.cluster.settings import Step
from serving.rollout.cluster.state import Book, ClusterRollout
from serving.rollout.cluster.turn import Clock
from serving.rollout.state import utc_now
from tests.crash.cluster_site import RELEASES, Controller, FileChannel, Script, plan_of, service, template
from tests.crash.stage import Act, Scene, Stage
from tests.crash.starts import stand

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
HOUR = timedelta(hours=1)
MIB = 1_048_576
PHASES = ["prepare", "validate_preview", "canary", "analyze", "paused", "promote", "post_analysis", "drain"]
PAUSES = [Step(weight=25, pause=0.2)]


def at(moment: str, *acts: Act) -> Scene:
    scene = Scene()
    scene.at[moment] = list(acts)
    return scene


# --- clocks -----------------------------------------------------------------------------------------------------------------------


def left_by(stage: Stage, phase: str, wrong: timedelta) -> None:
    """A rollout whose process died in a phase; its machine's clock was wrong by that much."""
    right, stage.clock = stage.clock, Clock(now=lambda: utc_now() + wrong)
    stand(stage, phase, strategy="canary", steps=PAUSES, scale_down_delay=0.2)
    stage.clock = right


@pytest.mark.parametrize("phase", PHASES)
def test_a_clock_that_was_ahead_makes_nobody_wait_for_it(stage: Stage, phase: str) -> None:
    left_by(stage, phase, HOUR)
    began = utc_now()
    scene = stage.run("b", strategy="canary")
    assert scene.error is None
    assert utc_now() - began < timedelta(seconds=20)
    moments = ("deadline", "paused_until", "drain_until", "measured_at", "stepped_at")
    ahead = [getattr(state, name) for state in scene.states for name in moments if getattr(state, name)]
    assert max(map(datetime.fromisoformat, ahead)) < began + timedelta(seconds=60)
    stage.has_all("b")


@pytest.mark.parametrize("phase", PHASES)
def test_a_clock_that_was_behind_or_a_process_that_was_long_gone(stage: Stage, phase: str) -> None:
    left_by(stage, phase, -HOUR)
    if phase == "drain":
        stage.channel.publish(RELEASES["b"])
    assert stage.run("b", strategy="canary").error is None
    stage.has_all("b")


def test_what_was_not_published_in_time_goes_back_however_late_somebody_looks(stage: Stage) -> None:
    left_by(stage, "drain", -HOUR)
    scene = stage.run("b", strategy="canary", publish=False)
    assert "the pair was not published within 20 s of the switch" in str(scene.error)
    stage.has_all("a")


@pytest.mark.parametrize("text", ["tomorrow", "2026-11-26T05:00:00", ""])
@pytest.mark.parametrize("moment", ["deadline", "stepped_at"])
def test_a_moment_that_somebody_edited_is_named(stage: Stage, moment: str, text: str) -> None:
    def edit() -> None:
        state = json.loads(stage.api.get("ConfigMap", "classifier-rollout")["data"]["state.json"])
        stage.edit("ConfigMap", "classifier-rollout", ("data", "state.json"), json.dumps({**state, moment: text}))

    scene = stage.run("b", at("analyze", edit), strategy="canary")
    if (moment, text) == ("stepped_at", ""):
        # That one may be empty, and what a process holds itself is what it goes by.
        assert scene.error is None
        return
    assert isinstance(scene.error, DataError)
    assert f"the rollout's state is malformed: {moment}: " in str(scene.error)
    assert "delete configmap classifier-rollout" in str(scene.error)


# --- sizes ------------------------------------------------------------------------------------------------------------------------


def size(stage: Stage) -> int:
    return len(stage.api.get("ConfigMap", "classifier-rollout")["data"]["state.json"].encode())


def test_actions_as_long_as_annotations_may_be(stage: Stage) -> None:
    junk = "日" * 80_000
    scene = stage.run("b", at("analyze", *[stage.ask(junk)] * 7), strategy="canary")
    assert scene.error is None
    assert scene.texts().count("was asked for, and means nothing in the phase analyze: nothing was done") == 7
    assert size(stage) < 50_000
    stage.has_all("b")


class Talker(Script):
    """A judge who says too much."""

    def preview(self, candidate: list[PodTarget]) -> list[Reason]:
        return [Reason(metric=f"golden {number}", passed=False, text="日" * 500_000) for number in range(3)]


def test_a_reason_that_is_longer_than_a_state_may_be_still_takes_it_back(stage: Stage) -> None:
    for _ in range(3):
        site = Site(api=stage.api, names=stage.names, judge=Talker(), published=stage.channel, say=lambda _: None)
        with pytest.raises(RolloutError, match="the candidate failed its preview: 日日"):
            begin(site, RELEASES["b"], "", plan_of("canary"), run_id="r").run()
    assert size(stage) < MIB
    assert max(len(event.text) for event in stage.state().events) == max(len(each.reason) for each in stage.state().history) == 4000
    stage.has_all("a")
    assert stage.run("b").error is None


def test_a_state_that_is_nearly_full_is_shortened_and_still_saved(stage: Stage) -> None:
    long = "日" * 4000

    def fill() -> None:
        state = machine.state
        for _ in range(150):
            state = state.to(state.phase, long, now=utc_now())
        machine.state = state.model_copy(update={"history": [each.model_copy(update={"reason": long}) for each in state.history * 20]})

    scene = at("analyze", fill)
    machine = stage.machine("b", scene, strategy="canary")
    machine.run()
    assert 0 < size(stage) < MIB
    stage.channel.publish(RELEASES["b"])
    machine.run(finish=True)
    assert size(stage) < MIB
    assert [event.phase for event in stage.state().events][-2:] == ["drain", "promoted"]
    assert stage.state().history[-1].outcome == "promoted"
    stage.has_all("b")


def test_annotations_that_leave_no_room_are_named(empty_stage: Stage) -> None:
    path = ("metadata", "annotations")
    empty_stage.edit("Service", "classifier", path, {"example.com/junk": "x" * (262_144 - 30)})
    scene = empty_stage.run("a")
    assert type(scene.error) is ClusterError
    assert f"Service {empty_stage.api.namespace}/classifier: the API server refused to PATCH it (422): " in str(scene.error)
    assert "Too long" in str(scene.error)
    assert empty_stage.pods() == {}
    empty_stage.edit("Service", "classifier", path, {})
    assert empty_stage.run("a").error is None
    empty_stage.has_all("a")


# --- at the same moment -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["pause", "promote", "nonsense"])
def test_an_abort_in_the_moment_in_which_something_else_is_carried_out_is_not_lost(stage: Stage, first: str) -> None:
    scene = at("analyze", stage.ask(first))
    machine = stage.machine("b", scene, strategy="canary")
    right: Callable[..., Json] = machine.book._write

    def late(state: ClusterRollout, taking: str, clearing: bool) -> Json:
        if taking == first:
            stage.ask("abort")()
        return right(state, taking, clearing)

    machine.book._write = late
    with pytest.raises(RolloutError, match="abort was asked for by an operator"):
        machine.run()
    assert ACTION not in (stage.api.get("ConfigMap", "classifier-rollout")["metadata"].get("annotations") or {})
    stage.has_all("a")


def test_what_is_asked_for_leaves_what_others_note_at_the_same_moment(stage: Stage) -> None:
    stand(stage, "analyze", strategy="canary")
    right, api = stage.api.patch, Api(stage.api._client, stage.api.namespace)

    def late(kind: str, name: str, operations: Any) -> Json:
        if not noted:
            noted.append(stage.edit(kind, name, ("metadata", "annotations"), {"example.com/note": "by a colleague"}))
        return right(kind, name, operations)

    noted: list[object] = []
    api.patch = late
    assert not request(api, stage.names, "abort", within=0.1)
    found = stage.api.get("ConfigMap", "classifier-rollout")["metadata"]["annotations"]
    assert found == {"example.com/note": "by a colleague", ACTION: "abort"}


@pytest.mark.parametrize("phase", ["prepare", "analyze", "drain"])
def test_a_state_that_may_not_be_changed_any_more(stage: Stage, phase: str) -> None:
    scene = at(phase, lambda: stage.edit("ConfigMap", "classifier-rollout", ("immutable",), True))
    stage.run("b", scene, strategy="canary")
    assert type(scene.error) is ClusterError
    assert f"ConfigMap {stage.api.namespace}/classifier-rollout: the API server refused to PUT it (422)" in str(scene.error)
    assert stage.state().phase == phase
    stage.delete("ConfigMap", "classifier-rollout")
    assert stage.run("b", strategy="canary").error is None
    stage.has_all("b")


# --- deleted and made anew --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["prepare", "paused", "aborting", "promoted"])
def test_a_state_deleted_at_any_other_moment(stage: Stage, phase: str) -> None:
    scene = at(phase, lambda: stage.delete("ConfigMap", "classifier-rollout"))
    scene.outcomes = ["failed"] if phase == "aborting" else []
    stage.run("b", scene, strategy="canary", steps=PAUSES)
    assert isinstance(scene.error, type(None) if phase == "promoted" else ConflictError)
    assert stage.run("c", strategy="canary").error is None
    stage.has_all("c")


def test_epochs_that_count_anew_are_no_licence(empty_stage: Stage) -> None:
    stage, scene = empty_stage, Scene()
    older = stage.machine("a", scene)
    older.objects.claim()
    assert older.state.epoch == 1
    for kind, name in (("ConfigMap", "classifier-rollout"), ("Service", "classifier"), ("Service", "classifier-preview")):
        stage.delete(kind, name)
    for name in ("classifier", "classifier-preview"):
        stage.api.create("Service", service(name))
    newer = stage.machine("b", Scene())
    assert newer.state.epoch == 1
    with pytest.raises(ConflictError, match=r"was overtaken by epoch 1 \(run r, release bbbbbbbbbbbb\): the state was deleted"):
        older.run()
    assert stage.pods() == {}
    newer.run()
    stage.channel.publish(RELEASES["b"])
    assert newer.run(finish=True).phase == "promoted"
    stage.has_all("b")


def test_a_late_write_is_not_for_the_object_that_has_the_name_now(stage: Stage) -> None:
    machine = stage.machine("b", Scene())
    machine.objects.claim()
    machine.objects.ensure_deployment(machine.template, machine.state.candidate)
    late: list[Any] = []
    api: Any = machine.objects.api
    right, api.patch = api.patch, lambda kind, name, operations: late.append((kind, name, operations))
    machine.objects.scale(machine.candidate, 9)
    api.patch = right
    stage.delete("Deployment", stage.deployment("b"))
    machine.objects.ensure_deployment(machine.template, machine.state.candidate)
    with pytest.raises(ChangedError):
        api.patch(*late[0])
    assert stage.pods() == {"a": 3}


@pytest.mark.parametrize("name", ["classifier", "classifier-preview"])
@pytest.mark.parametrize(
    ("strategy", "phase"),
    [
        *(("canary", each) for each in ("validate_preview", "canary", "analyze", "promote")),
        ("blue-green", "post_analysis"),
        ("canary", "drain"),
    ],
)
def test_a_service_deleted_and_made_again_in_the_middle(stage: Stage, strategy: str, phase: str, name: str) -> None:
    def replace() -> None:
        stage.delete("Service", name)
        stage.api.create("Service", service(name))

    seen: list[Live] = []
    scene = at(phase, replace)
    scene.at["measure"] = [lambda: None, lambda: seen.append(stage.live())]
    assert stage.run("b", scene, strategy=strategy, scale_down_delay=0.1).error is None
    if seen:
        assert seen == [Live(stage.revision("a"), shared=True)]
    stage.has_all("b")
    assert stage.run("c", strategy="canary").error is None
    stage.has_all("c")


# --- two models in one namespace --------------------------------------------------------------------------------------------------


def named(body: Json, name: str) -> Json:
    """An applied object of another model."""
    return json.loads(json.dumps(body).replace('"classifier', f'"{name}'))


@pytest.mark.parametrize("other", ["classifier-small", "small"])
@pytest.mark.parametrize("good", [True, False])
def test_two_models_in_one_namespace_leave_each_other_alone(
    stage: Stage, controller: Controller, tmp_path: Any, other: str, good: bool
) -> None:
    del controller
    names, channel = Names(namespace=stage.api.namespace, name=other), FileChannel(tmp_path / "channel")
    for body in (service("classifier"), service("classifier-preview")):
        stage.api.create("Service", named(body, other))
    stage.api.create("Deployment", named(template(replicas=2), other))
    ends: list[object] = []

    def ship(letter: str, fails: str = "") -> None:
        site = Site(api=Api(stage.api._client, names.namespace), names=names, judge=Script(fails), published=channel, say=lambda _: None)
        try:
            machine = begin(site, RELEASES[letter], "", plan_of("canary"), run_id="other")
            machine.run()
            channel.publish(RELEASES[letter])
            ends.append(machine.run(finish=True).phase)
        except RolloutError as error:
            ends.append(str(error))

    ship("a")
    assert ends == ["promoted"]
    thread = Thread(target=ship, args=("c", "" if good else "analysis"))
    thread.start()
    mine = stage.run("b", Scene(outcomes=["failed"] if good else []), strategy="canary")
    thread.join(60)
    assert isinstance(mine.error, RolloutError if good else type(None))
    assert ends[1:] == ["promoted"] if good else "analysis failed" in str(ends[1])
    stage_alone(stage, "a" if good else "b", names, "c" if good else "a")


def stage_alone(stage: Stage, mine: str, names: Names, others: str) -> None:
    """Assert that each of two models serves its own release, and nothing is left of the rollouts."""
    for model, letter, pods in ((stage.names, mine, 3), (names, others, 2)):
        live = live_of(stage.api.get("Service", model.service))
        assert (live.stable.split("-")[0], live.shared) == (RELEASES[letter], False)
        found = {each["metadata"]["name"]: each["spec"]["replicas"] for each in stage.api.list("Deployment", f"{NAME}={model.name}")}
        assert {name: count for name, count in found.items() if count} == {model.deployment(live.stable): pods}
        state = Book(stage.api, model).read()
        assert state is not None
        assert state.is_over()
