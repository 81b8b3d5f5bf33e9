"""A channel beside stable: its own sequence and history, the mobile half alone, and the cloud model that is live."""

from pathlib import Path

import pytest

from components.core.channel import STABLE, read_channel
from components.core.errors import StaleError, UsageError
from components.core.stores import Store
from components.publish_mobile.garbage import Window, find_garbage
from components.publish_mobile.history import channels_with_history, read_history
from components.publish_mobile.publication import publish_release, undo_publication
from components.publish_mobile.settings import PublishMobileSettings
from components.publish_mobile.start import start
from components.publish_mobile.steer import pause, resume, sign, widen
from components.publish_mobile.verify import verify_store
from serving.rollout.local import desired
from tests import release_pieces
from tests.release_pieces import make_release, make_store
from tests.unit.test_publish import die_before_swap

BETA = "beta"
LIMITS = PublishMobileSettings.model_validate({})
NOTHING_OLD = Window(publications=1, days=0.0)


def names(store: Store, channel: str = BETA) -> tuple[str, int]:
    found = read_channel(store, channel)
    assert found is not None
    return found[0].release, found[0].sequence


def test_beta_moves_the_mobile_half_alone_by_its_own_sequence(tmp_path: Path) -> None:
    store, (first, second, third) = make_store(tmp_path, 3)
    publish_release(store, first.id)
    before = store.get("channels/stable.json").data
    channel = start(store, second.id, 10_000, run_id="me", limits=LIMITS, channel=BETA)
    assert (channel.channel, channel.release, channel.sequence) == (BETA, second.id, 1)
    assert (channel.cloud.version, channel.mobile.sha256) == (first.version, second.mobile_file().sha256)
    start(store, third.id, 1000, run_id="me", limits=LIMITS, channel=BETA)
    assert (store.get("channels/stable.json").data, desired(store).stable) == (before, first.id)
    widen(store, 5000, channel=BETA)
    pause(store, channel=BETA)
    resume(store, channel=BETA)
    sign(store, channel=BETA)
    assert undo_publication(store, "worse", channel=BETA)[1] == third.id
    assert (names(store), names(store, STABLE)) == ((second.id, 7), (first.id, 1))
    assert [entry.action for entry in read_history(store, BETA)] == ["publish", "publish", "widen", "pause", "resume", "sign", "undo"]
    assert len(read_history(store)) == 1
    assert verify_store(store) == []


def test_a_pair_that_goes_live_leaves_beta_alone_and_verifiable(tmp_path: Path) -> None:
    store, (first, second, third) = make_store(tmp_path, 3)
    publish_release(store, first.id)
    publish_release(store, second.id, channel=BETA)
    publish_release(store, third.id)
    assert (names(store), names(store, STABLE)) == ((second.id, 1), (third.id, 2))
    assert verify_store(store) == []
    store.delete(f"mobile/versions/{second.id}.json")
    assert any(second.id in difference for difference in verify_store(store))


def test_without_a_live_cloud_model_and_with_other_labels_beta_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, (first,) = make_store(tmp_path, 1)
    with pytest.raises(UsageError, match="no cloud model is live"):
        publish_release(store, first.id, channel=BETA)
    publish_release(store, first.id)
    monkeypatch.setattr(release_pieces, "LABELS", ["ash", "birch", "cedar"])
    with pytest.raises(UsageError, match="other labels than"):
        publish_release(store, make_release(store, tmp_path, 9).id, channel=BETA)
    assert channels_with_history(store) == {STABLE}
    assert not store.exists("channels/beta.json")


@pytest.mark.parametrize("name", ["", "Beta", "../stable", "a/b", "-x", "x" * 33, "beta.json"])
def test_a_name_that_is_none_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    before = list(store.list(""))
    with pytest.raises(UsageError, match="name of a channel"):
        publish_release(store, second.id, channel=name)
    assert list(store.list("")) == before


def test_what_is_not_published_there_is_said_with_the_channels_name(tmp_path: Path) -> None:
    store, (first,) = make_store(tmp_path, 1)
    publish_release(store, first.id)
    with pytest.raises(UsageError, match="nothing was published in the channel beta"):
        undo_publication(store, "", channel=BETA)


def test_a_publisher_of_beta_that_dies_is_continued_and_one_that_is_late_is_refused(tmp_path: Path) -> None:
    store, (first, second, third) = make_store(tmp_path, 3)
    publish_release(store, first.id)
    die_before_swap(store, second.id, BETA)
    # Begun, and named by no channel yet: a collection of garbage must leave it alone.
    assert find_garbage(store, NOTHING_OLD).kept[second.id] == "sequence 1 of beta is being published"
    publish_release(store, second.id, channel=BETA)
    assert (names(store), len(read_history(store, BETA))) == ((second.id, 1), 1)
    with pytest.raises(StaleError, match="the channel moved on"):
        publish_release(store, third.id, after=0, channel=BETA)


def test_garbage_keeps_what_beta_named_not_long_ago(tmp_path: Path) -> None:
    store, (first, second, third) = make_store(tmp_path, 3)
    publish_release(store, first.id)
    publish_release(store, second.id, channel=BETA)
    publish_release(store, third.id, channel=BETA)
    assert f"mobile/versions/{second.id}.json" in find_garbage(store, NOTHING_OLD).names()
    kept = find_garbage(store, Window(publications=2, days=0.0))
    assert (kept.names(), kept.kept[second.id]) == ([], "sequence 1 of beta was current not long ago")
