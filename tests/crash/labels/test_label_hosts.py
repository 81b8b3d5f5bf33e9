"""Hosts that come and go: a changed template, pods of one release before and after, and what a first rollout leaves."""

import pytest

from components.core.errors import RolloutError, UsageError
from serving.rollout.cluster.names import HOLDS
from serving.rollout.cluster.objects import Live
from tests.crash.cluster_site import RELEASES, template
from tests.crash.labels.site import gaps, host_template
from tests.crash.labels.stage import LabelStage, at
from tests.crash.stage import Scene

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
HOST_PATH = ("metadata", "annotations", HOLDS)


# --- pods that are made anew ------------------------------------------------------------------------------------------------------


def change_template(stage: LabelStage, image: str = "server:2") -> None:
    stage.edit("Deployment", "classifier", ("spec", "template", "spec", "containers", "0", "image"), image)


@pytest.mark.parametrize("make_room", [False, True])
@pytest.mark.parametrize("release", ["a", "b"])
def test_a_changed_template_makes_the_pods_anew(label_stage: LabelStage, release: str, make_room: bool) -> None:
    before = label_stage.host
    change_template(label_stage)
    assert label_stage.host != before
    scene = label_stage.run(release, make_room=make_room)
    assert scene.error is None
    assert ("requests fail until those are ready" in scene.texts()) == make_room
    assert ("validate_preview" in scene.phases()) != make_room
    label_stage.has_only(release)
    assert label_stage.fakes(before) == []


@pytest.mark.parametrize("make_room", [False, True])
def test_a_bad_release_in_new_pods_goes_back_to_the_old_ones(label_stage: LabelStage, make_room: bool) -> None:
    before = label_stage.host
    change_template(label_stage)
    bad = Scene(outcomes=["failed"]) if make_room else Scene(passes=False)
    assert isinstance(label_stage.run("b", bad, make_room=make_room).error, RolloutError)
    change_template(label_stage, "server:1")
    assert label_stage.host == before
    assert label_stage.answers() == {"a"}
    assert label_stage.live() == Live(before, shared=False)
    assert label_stage.held()[before].releases == {RELEASES["a"]: ""}


def test_an_undo_goes_back_to_the_pods_of_before_too(label_stage: LabelStage) -> None:
    before = label_stage.host
    change_template(label_stage)
    assert label_stage.run("b").error is None
    scene = label_stage.run("a", kind="undo")
    assert scene.error is None
    assert label_stage.live() == Live(before, shared=False)
    assert label_stage.answers() == {"a"}


def test_what_a_superseded_rollout_left_in_new_pods_is_not_taken_for_the_candidate(label_stage: LabelStage) -> None:
    change_template(label_stage)
    label_stage.run("b", at("promote", lambda: label_stage.run("c", run_id="c")), publish=False)
    label_stage.has_only("c")


def test_to_hosts_and_back_to_pods_of_one_release(label_stage: LabelStage) -> None:
    def applied(what: dict[str, object]) -> None:
        label_stage.edit("Deployment", "classifier", ("spec", "template"), what["spec"]["template"])  # pyright: ignore

    assert label_stage.run("b").error is None
    applied(template())
    assert isinstance(label_stage.run("c").error, UsageError)
    scene = label_stage.run("c", strategy="blue-green")
    assert scene.error is None
    revision = label_stage.live().stable
    assert revision.startswith(RELEASES["c"])
    # An undo finds what the host held.
    assert label_stage.run("b", strategy="blue-green", kind="undo").error is None
    assert label_stage.answers() == {"b"}
    assert label_stage.run("c", strategy="blue-green").error is None
    applied(host_template())
    assert "strategy blue-green is not for this template" in str(label_stage.run("a", strategy="blue-green").error)
    assert label_stage.run("a").error is None
    label_stage.has_only("a")


def test_a_rollout_in_pods_of_one_release_that_supersedes_one_by_labels_takes_the_label_back(label_stage: LabelStage) -> None:
    label_stage.run("b", publish=False, finish=False)
    assert label_stage.answers() == {"b"}
    label_stage.edit("Deployment", "classifier", ("spec", "template"), template()["spec"]["template"])
    scene = label_stage.run("c", Scene(passes=False), strategy="blue-green")
    assert isinstance(scene.error, RolloutError)
    assert label_stage.answers() == {"a"}
    assert gaps(label_stage.kubelets, label_stage.api.namespace) == []
