"""A percentage of the devices: whom the others fall back to, what widening, pausing and undoing leave, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from components.core.channel import Channel, read_channel
from components.core.errors import ConflictError, DataError, StaleError, UsageError
from components.core.staging import bucket
from components.core.stores import Store
from components.core.stores.local import LocalStore
from components.publish_mobile.history import read_history
from components.publish_mobile.publication import publish_release, undo_publication
from components.publish_mobile.publish import publish
from components.publish_mobile.settings import PublishMobileSettings
from components.publish_mobile.start import start
from components.publish_mobile.steer import pause, resume, widen
from components.publish_mobile.verify import verify_store
from serving.rollout.cluster import whereabouts
from serving.rollout.cluster.settings import ClusterSettings
from serving.rollout.local import desired
from tests import release_pieces
from tests.release_pieces import make_release, make_store, record_of
from tests.unit.test_publish import promote

LIMITS = PublishMobileSettings.model_validate({})


def now(store: Store) -> Channel:
    found = read_channel(store)
    assert found is not None
    return found[0]


def uses(channel: Channel, installation: str, has: str = "") -> str:
    """The release whose mobile half an installation uses."""
    if channel.staging.includes(channel.channel, installation, has_candidate=has == channel.release):
        return channel.release
    return channel.fallback.release if channel.fallback else ""


def person(channel: Channel, low: int, high: int) -> str:
    """An installation whose bucket is in [low, high)."""
    names = (f"installation-{number}" for number in range(100_000))
    return next(name for name in names if low <= bucket(channel.channel, channel.staging.salt, name) < high)


def test_a_share_takes_the_candidate_the_others_the_release_before_and_servers_all(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    channel = publish_release(store, second.id, basis_points=1000)
    assert (uses(channel, person(channel, 0, 1000)), uses(channel, person(channel, 1000, 10_000))) == (second.id, first.id)
    assert channel.fallback is not None
    assert (channel.fallback.mobile.sha256, channel.fallback.policy) == (first.mobile_file().sha256, first.policy)
    assert (channel.cloud.version, desired(store).stable) == (second.version, second.id)
    assert verify_store(store) == []


def test_widening_goes_up_to_everybody_by_new_sequences(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    publish_release(store, second.id, basis_points=1000)
    early = person(now(store), 0, 1000)
    for points in (2500, 9999):
        assert widen(store, points).staging.basis_points == points
        assert uses(now(store), early) == second.id
        assert verify_store(store) == []
    whole = widen(store, 10_000, reason="all well")
    assert (whole.sequence, whole.fallback, whole.previous) == (5, None, first.id)
    assert verify_store(store) == []
    assert [(e.action, e.staging.basis_points) for e in read_history(store)][1:] == [
        ("publish", 1000),
        ("widen", 2500),
        ("widen", 9999),
        ("widen", 10_000),
    ]


def test_a_pause_stops_and_a_resumption_goes_on(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    publish_release(store, second.id, basis_points=5000)
    paused = pause(store, reason="crashes")
    inside = person(paused, 0, 5000)
    assert (uses(paused, inside), uses(paused, inside, has=second.id)) == (first.id, second.id)
    assert verify_store(store) == []
    with pytest.raises(UsageError, match="is paused"):
        widen(store, 6000)
    with pytest.raises(UsageError, match="is paused"):
        pause(store)
    assert uses(resume(store), inside) == second.id
    with pytest.raises(UsageError, match="not paused"):
        resume(store)


@pytest.mark.parametrize("points", [1, 1000])
def test_a_percentage_only_grows(tmp_path: Path, points: int) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    publish_release(store, second.id, basis_points=1000)
    with pytest.raises(UsageError, match="only grows"):
        widen(store, points)
    assert len(read_history(store)) == 2


def test_there_is_nothing_to_widen_or_pause_at_all_devices_or_before_the_first(tmp_path: Path) -> None:
    store, (first,) = make_store(tmp_path, 1)
    changes: list[Callable[[], Channel]] = [lambda: widen(store, 10_000), lambda: pause(store)]
    for change in changes:
        with pytest.raises(UsageError, match="nothing was published"):
            change()
    publish_release(store, first.id)
    for change in changes:
        with pytest.raises(UsageError, match="to all devices"):
            change()


def test_a_candidate_that_not_everybody_had_is_nobodys_fallback(tmp_path: Path) -> None:
    store, (first, second, third) = make_store(tmp_path, 3)
    publish_release(store, first.id)
    publish_release(store, second.id, basis_points=3000)
    channel = publish_release(store, third.id, basis_points=1000)
    assert channel.fallback is not None
    assert (channel.fallback.release, channel.previous) == (first.id, second.id)
    assert verify_store(store) == []


def test_an_undo_brings_a_release_back_as_far_as_it_was(tmp_path: Path) -> None:
    store, (first, second, third) = make_store(tmp_path, 3)
    publish_release(store, first.id)
    publish_release(store, second.id, basis_points=1000)
    widen(store, 3000)
    pause(store)
    publish_release(store, third.id, basis_points=1000)
    back = undo_publication(store, "worse")[0]
    assert (back.release, back.staging.basis_points, back.staging.paused, back.previous) == (second.id, 3000, True, first.id)
    assert back.fallback is not None
    assert back.fallback.release == first.id
    assert verify_store(store) == []
    all_back = undo_publication(store, "worse still")[0]
    assert (all_back.release, all_back.fallback, all_back.staging.basis_points) == (first.id, None, 10_000)


def test_an_undo_takes_a_staged_pair_back_from_everybody(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    staged = publish_release(store, second.id, basis_points=1000)
    back = undo_publication(store, "")[0]
    early = person(staged, 0, 1000)
    assert uses(back, early, has=second.id) == first.id
    assert back.cloud.version == first.version


def test_the_first_release_may_be_staged_and_has_no_fallback(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    channel = publish_release(store, first.id, basis_points=1000)
    assert channel.fallback is None
    assert uses(channel, person(channel, 1000, 10_000)) == ""
    assert publish_release(store, second.id, basis_points=1000).fallback is None
    assert verify_store(store) == []


def test_other_labels_go_to_everybody_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, (first,) = make_store(tmp_path, 1)
    publish_release(store, first.id)
    monkeypatch.setattr(release_pieces, "LABELS", ["daisy", "roses", "violets"])
    other = make_release(store, tmp_path, 7)
    with pytest.raises(UsageError, match="other labels"):
        publish_release(store, other.id, basis_points=1000)
    assert now(store).release == first.id
    assert publish_release(store, other.id).release == other.id


def test_a_wider_share_that_rests_on_an_old_channel_is_refused(tmp_path: Path) -> None:
    _, (first, second, third) = make_store(tmp_path, 3)

    class Overtaken(LocalStore):
        def swap(self, name: str, data: bytes, generation: str | None) -> str:
            publish_release(LocalStore(self.root), third.id)
            return super().swap(name, data, generation)

    store = LocalStore(tmp_path / "store")
    publish_release(store, first.id)
    publish_release(store, second.id, basis_points=1000)
    with pytest.raises(StaleError):
        widen(Overtaken(store.root), 5000)
    assert (now(store).release, verify_store(store)) == (third.id, [])


def test_nothing_is_changed_while_a_cloud_rollout_rests_on_the_channel(tmp_path: Path) -> None:
    store, (first, second, third) = make_store(tmp_path, 3)
    publish_release(store, first.id)
    publish_release(store, second.id, basis_points=1000)
    promote(store, third.id, "run-3", sequence=2, phase="analyze")
    with pytest.raises(ConflictError, match="being rolled out"):
        widen(store, 5000)
    with pytest.raises(ConflictError, match="being rolled out"):
        start(store, first.id, 10_000, run_id="me", limits=LIMITS)


def test_step_stages_as_the_settings_say(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    promote(store, second.id, "run-1", sequence=1)
    record = record_of(store, "publish_mobile")
    publish(record, release=second.id, settings='{"publish_mobile": {"percent": 12.5}}')
    assert now(store).staging.basis_points == 1250
    assert any("12.5 % of the devices" in note for note in record.record.notes)


def test_publishers_without_settings_take_the_share_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    monkeypatch.setenv("DUAL_PUBLISH_MOBILE__PERCENT", "5")
    assert publish_release(store, second.id).staging.basis_points == 500
    monkeypatch.setenv("DUAL_PUBLISH_MOBILE__PERCENT", "few")
    with pytest.raises(UsageError, match="few"):
        publish_release(store, first.id)


def test_start_publishes_the_newest_release_after_checking_it(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    newest = max((first, second), key=lambda release: (release.created, release.id))
    channel = start(store, "", 10_000, run_id="me", limits=LIMITS)
    assert (channel.release, read_history(store)[0].run_id) == (newest.id, "me")
    with pytest.raises(UsageError, match="current already"):
        start(store, newest.id, 500, run_id="me", limits=LIMITS)
    other = next(release for release in (first, second) if release != newest)
    with pytest.raises(DataError, match="at most"):
        start(store, other.id, 500, run_id="me", limits=PublishMobileSettings.model_validate({"max_megabytes": 1e-6}))
    store.put(f"{other.folder()}/labels.txt", b"")
    with pytest.raises(DataError, match="damaged"):
        start(store, other.id, 500, run_id="me", limits=LIMITS)
    assert len(read_history(store)) == 1


def test_start_does_not_leave_half_a_pair_on_a_cluster(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    whereabouts.note(store, first.id, "classifier", "flowers", ClusterSettings.model_validate({}))
    with pytest.raises(UsageError, match="namespace flowers"):
        start(store, second.id, 10_000, run_id="me", limits=LIMITS)
    assert now(store).release == first.id
