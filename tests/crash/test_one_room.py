"""Strategy recreate where there is room for one revision's pods, as on one GPU: nobody waits for room in vain, whichever way it goes."""

import pytest

from components.core.errors import ConflictError, RolloutError
from tests.crash.cluster_site import RELEASES, Controller, service
from tests.crash.stage import Scene, Stage
from tests.crash.starts import stand

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
PLAN = {"strategy": "recreate", "progress_deadline": 5.0}


@pytest.fixture
def room(stage: Stage, controller: Controller) -> Stage:
    """A stage on which pods of a second Deployment get ready when those of the first have ended."""
    controller.narrow.add(stage.api.namespace)
    return stage


def test_there_is_room_for_one(room: Stage) -> None:
    scene = room.run("b", strategy="blue-green", progress_deadline=0.5)
    assert "0 of 3 pods of" in str(scene.error)
    room.has_all("a")


def test_a_release_and_the_next_one(room: Stage) -> None:
    for release in ("b", "c"):
        assert room.run(release, **PLAN).error is None
        room.has_all(release)


def test_what_turns_out_bad_makes_way_for_the_old_pods(room: Stage) -> None:
    scene = room.run("b", Scene(outcomes=["failed"]), **PLAN)
    assert "the analysis after the switch failed" in str(scene.error)
    assert scene.phases()[-2:] == ["aborting", "aborted"]
    room.has_all("a")


def test_what_never_gets_ready_makes_way_for_the_old_pods(room: Stage, controller: Controller) -> None:
    controller.left.add(f"{room.api.namespace}/{room.deployment('b')}")
    scene = room.run("b", strategy="recreate", progress_deadline=1.0)
    assert f"0 of 3 pods of Deployment {room.deployment('b')} are ready" in str(scene.error)
    assert scene.phases() == ["prepare", "promote", "aborting", "aborted"]
    room.has_all("a")


@pytest.mark.parametrize("phase", ["promote", "post_analysis", "drain"])
def test_an_abort_in_the_gap_and_after_it(room: Stage, phase: str) -> None:
    scene = Scene()
    scene.at[phase] = [room.ask("abort")]
    assert isinstance(room.run("b", scene, publish=False, **PLAN).error, RolloutError)
    room.has_all("a")


def test_an_undo_ends_the_pods_that_it_leaves_first(room: Stage) -> None:
    assert room.run("b", **PLAN).error is None
    scene = room.run("a", kind="undo", **PLAN)
    assert scene.error is None
    assert scene.phases() == ["prepare", "promote", "post_analysis", "drain", "rolled_back"]
    assert "requests fail until those are ready" in scene.texts()
    room.has_all("a")


@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize("phase", ["prepare", "promote", "post_analysis", "drain"])
def test_a_newer_release_in_the_middle(room: Stage, phase: str, good: bool) -> None:
    newer: list[Scene] = []
    scene = Scene()
    scene.at[phase] = [lambda: newer.append(room.run("c", Scene(outcomes=[] if good else ["failed"]), run_id="c", **PLAN))]
    assert isinstance(room.run("b", scene, publish=False, **PLAN).error, ConflictError)
    assert isinstance(newer[0].error, type(None) if good else RolloutError)
    room.has_all("c" if good else "a")


def test_a_process_that_died_in_the_gap(room: Stage) -> None:
    stand(room, "promote", **PLAN)
    room.scale("a", 0)
    assert room.run("b", **PLAN).error is None
    room.has_all("b")


def test_the_same_release_again_ends_no_pods_that_are_right(room: Stage, controller: Controller) -> None:
    room.delete("Service", "classifier")
    room.api.create("Service", service("classifier"))
    room.lose("a", controller, ready=2, waits=4)
    seen: list[int] = []
    scene = Scene()
    scene.at["post_analysis"] = [lambda: seen.append(room.api.get("Deployment", room.deployment("a"))["metadata"]["generation"])]
    before = room.api.get("Deployment", room.deployment("a"))["metadata"]["generation"]
    assert room.run("a", scene, **PLAN).error is None
    # One change: the new epoch.
    assert seen == [before + 1]
    room.has_all("a")


def test_an_undo_while_the_old_pods_are_up_leaves_no_gap(stage: Stage) -> None:
    undone: list[Scene] = []
    scene = Scene()
    scene.at["drain"] = [lambda: (stage.channel.publish(RELEASES["b"]), undone.append(stage.run("a", kind="undo", **PLAN)))]
    stage.run("b", scene, strategy="blue-green", scale_down_delay=60)
    assert undone[0].error is None
    assert "requests fail" not in undone[0].texts()
    stage.has_all("a")
