"""Publication and undo: one order of writes, one commit point, a whole pair at every moment."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from components.core.channel import read_channel
from components.core.errors import AlreadyExistsError, ConflictError, DataError, DualError, RolloutError, StaleError, UsageError
from components.core.stores import Store
from components.core.stores.local import LocalStore
from components.publish_mobile.history import committed, read_history
from components.publish_mobile.publication import publish_release, undo_publication
from components.publish_mobile.publish import publish
from components.publish_mobile.verify import verify_store
from serving.rollout.local import desired
from serving.rollout.state import Phase, Rollout, read_rollout, save_rollout, stamp, utc_now
from serving.rollout.undo import undo_release
from tests.release_pieces import make_store, manifest_of, put_manifest, record_of


class Tracing(LocalStore):
    """A local store that tells which contract objects were written, in order."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.writes: list[str] = []

    def put(self, name: str, data: bytes) -> None:
        self.writes.append(name)
        super().put(name, data)

    def put_if_absent(self, name: str, data: bytes) -> bool:
        written = super().put_if_absent(name, data)
        self.writes += [name] if written else []
        return written

    def swap(self, name: str, data: bytes, generation: str | None) -> str:
        self.writes.append(name)
        with_generation = super().swap(name, data, generation)
        # LocalStore swaps through put.
        self.writes.pop()
        return with_generation


def current(store: Store) -> tuple[int, str, str]:
    found = read_channel(store)
    assert found is not None
    return found[0].sequence, found[0].release, found[0].previous


def test_channel_names_both_halves_and_all_an_app_needs(tmp_path: Path) -> None:
    store, (release,) = make_store(tmp_path, 1)
    channel = publish_release(store, release.id, run_id="run-9")
    assert (channel.sequence, channel.release, channel.previous) == (1, release.id, "")
    assert channel.cloud.version == release.version
    assert store.exists(f"{channel.cloud.path}/saved_model.pb")
    assert store.get(channel.mobile.blob).data == b"TFL3 0"
    assert channel.mobile.contract.input.shape == [1, 32, 32, 3]
    assert channel.mobile.contract.output.shape == [1, 3]
    assert (channel.mobile.labels, channel.policy) == (release.labels, release.policy)
    (entry,) = read_history(store)
    assert (entry.action, entry.run_id, entry.after) == ("publish", "run-9", 0)
    assert verify_store(store) == []


def test_the_channel_is_written_last(tmp_path: Path) -> None:
    _, (release,) = make_store(tmp_path, 1)
    store = Tracing(tmp_path / "store")
    publish_release(store, release.id)
    sha = release.mobile_file().sha256
    expected = [f"mobile/blobs/{sha}.tflite", f"mobile/versions/{release.id}.json", "history/00000001.json", "channels/stable.json"]
    assert store.writes == expected


def test_publishing_the_current_release_again_writes_nothing(tmp_path: Path) -> None:
    _, (release,) = make_store(tmp_path, 1)
    store = Tracing(tmp_path / "store")
    first = publish_release(store, release.id)
    store.writes.clear()
    assert publish_release(store, release.id) == first
    assert store.writes == []


def test_an_unknown_release_is_not_published(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path, 1)
    with pytest.raises(DataError, match="no release"):
        publish_release(store, "0123456789ab")
    assert read_history(store) == []


def test_publication_that_rests_on_an_old_channel_is_refused(tmp_path: Path) -> None:
    store, (first, second, third) = make_store(tmp_path, 3)
    publish_release(store, first.id)
    publish_release(store, second.id)
    with pytest.raises(StaleError, match="the channel moved on"):
        publish_release(store, third.id, after=1)
    assert current(store)[1] == second.id


def test_entry_of_a_loser_is_passed_over_and_repaired_history_has_no_gap(tmp_path: Path) -> None:
    store, (first, second, third) = make_store(tmp_path, 3)
    publish_release(store, first.id)
    die_before_swap(store, second.id)
    publish_release(store, third.id)
    assert current(store) == (3, third.id, first.id)
    assert [entry.release for entry in committed(read_history(store), read_channel(store)[0])] == [third.id, first.id]  # type: ignore[index]
    publish_release(store, second.id)
    assert current(store) == (4, second.id, third.id)
    assert [entry.sequence for entry in read_history(store)] == [1, 2, 3, 4]
    assert verify_store(store) == []


def test_the_same_intent_continues_a_dead_publishers_entry(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    die_before_swap(store, second.id)
    publish_release(store, second.id)
    assert current(store) == (2, second.id, first.id)
    assert len(read_history(store)) == 2


def die_before_swap(store: Store, release: str, channel: str = "stable") -> None:
    class Dead(LocalStore):
        def swap(self, name: str, data: bytes, generation: str | None) -> str:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        publish_release(Dead(Path(store.uri)), release, channel=channel)


@pytest.mark.parametrize("moment", ["history", "channel"])
def test_a_faster_publisher_between_read_and_swap_wins(tmp_path: Path, moment: str) -> None:
    store, (first, second, third) = make_store(tmp_path, 3)
    publish_release(store, first.id)

    class Overtaken(LocalStore):
        def put_if_absent(self, name: str, data: bytes) -> bool:
            if moment == "history" and name.startswith("history/"):
                publish_release(store, third.id)
            return super().put_if_absent(name, data)

        def swap(self, name: str, data: bytes, generation: str | None) -> str:
            if moment == "channel":
                publish_release(store, third.id)
            return super().swap(name, data, generation)

    with pytest.raises(StaleError):
        publish_release(Overtaken(Path(store.uri)), second.id)
    assert current(store)[1] == third.id
    assert verify_store(store) == []


def test_undo_goes_back_with_both_halves_and_a_new_sequence(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    publish_release(store, second.id)
    undone = undo_release(store, "worse on phones")
    assert (undone.left, undone.channel.release, undone.channel.sequence) == (second.id, first.id, 3)
    assert undone.channel.mobile.sha256 == first.mobile_file().sha256
    assert undone.channel.cloud.version == first.version
    assert read_history(store)[-1].reason == "worse on phones"
    assert desired(store).stable == first.id
    assert verify_store(store) == []


def test_undos_go_further_back_each_time_and_not_in_circles(tmp_path: Path) -> None:
    store, (first, second, third) = make_store(tmp_path, 3)
    for release in (first, second, third):
        publish_release(store, release.id)
    assert undo_publication(store, "")[0].release == second.id
    publish_release(store, third.id)
    assert undo_publication(store, "")[0].release == second.id
    assert undo_publication(store, "")[0].release == first.id
    with pytest.raises(UsageError, match="first release"):
        undo_publication(store, "")


def test_undo_without_a_publication_says_so(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path, 1)
    with pytest.raises(UsageError, match="nothing was published"):
        undo_release(store, "")


def test_undo_after_a_kill_before_its_swap_is_one_undo(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    publish_release(store, second.id)

    class Dead(LocalStore):
        def swap(self, name: str, data: bytes, generation: str | None) -> str:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        undo_publication(Dead(Path(store.uri)), "")
    undo_publication(store, "")
    assert current(store) == (3, first.id, "")


def test_sequence_goes_on_when_the_channel_file_was_deleted(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    publish_release(store, second.id)
    store.delete("channels/stable.json")
    assert publish_release(store, first.id).sequence == 3


def test_a_damaged_blob_is_repaired_and_a_damaged_source_is_not_published(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    store.put(f"mobile/blobs/{first.mobile_file().sha256}.tflite", b"rotten")
    publish_release(store, first.id)
    assert verify_store(store) == []
    store.put(f"{second.folder()}/mobile/model.tflite", b"rotten")
    with pytest.raises(DataError, match="sha256"):
        publish_release(store, second.id)
    assert current(store)[1] == first.id


def test_an_edited_version_record_is_a_conflict(tmp_path: Path) -> None:
    store, (release,) = make_store(tmp_path, 1)
    store.put(f"mobile/versions/{release.id}.json", b"{}")
    with pytest.raises(AlreadyExistsError, match="changed by hand"):
        publish_release(store, release.id)


def edit_channel(store: Store, **values: object) -> None:
    put_manifest(store, manifest_of(store) | values, signatures=[])


DAMAGES: dict[str, Callable[[Store, str], None]] = {
    "though the channel names it": lambda store, _: edit_channel(store, sequence=9),
    "release": lambda store, _: edit_channel(store, release="0123456789ab"),
    "policy": lambda store, _: edit_channel(store, policy={}),
    "channels/stable.json": lambda store, _: store.put("channels/stable.json", b"{"),
    "nothing is published": lambda store, _: store.delete("channels/stable.json"),
    "history/00000001.json: missing": lambda store, _: store.delete("history/00000001.json"),
    "history/00000002.json": lambda store, _: store.delete("history/00000002.json"),
    "mobile/blobs": lambda store, _: store.put(next(n for n in store.list("mobile/blobs/") if blob(store) in n), b"x"),
    "mobile/versions": lambda store, release: store.delete(f"mobile/versions/{release}.json"),
    "saved_model.pb": lambda store, _: store.put(next(n for n in store.list("releases/") if in_use(store, n)), b"x"),
    "does not fit the manifest": lambda store, _: put_manifest(store, manifest_of(store)),
    "an undo would fail": lambda store, _: store.delete(f"releases/{current(store)[2]}/release.json"),
}


def blob(store: Store) -> str:
    return manifest_of(store)["mobile"]["sha256"]


def in_use(store: Store, name: str) -> bool:
    return current(store)[1] in name and name.endswith("saved_model.pb")


@pytest.mark.parametrize("expected", DAMAGES)
def test_verify_finds(tmp_path: Path, expected: str) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    publish_release(store, second.id)
    assert verify_store(store) == []
    DAMAGES[expected](store, second.id)
    assert any(expected in line for line in verify_store(store))


def promote(store: Store, release: str, run_id: str, sequence: int = 0, seconds: float = 60.0, phase: Phase = "promoted") -> None:
    """Put the rollout's state where roll_out_cloud leaves it."""
    found = read_rollout(store)
    epoch = found[0].epoch + 1 if found else 1
    deadline = stamp(utc_now() + timedelta(seconds=seconds))
    stable = "" if not sequence else current(store)[1]
    rollout = Rollout(epoch=epoch, phase=phase, release=release, stable=stable, sequence=sequence, run_id=run_id, deadline=deadline)
    save_rollout(store, rollout, found[1] if found else None)


def test_step_publishes_what_its_own_rollout_promoted(tmp_path: Path) -> None:
    store, (release,) = make_store(tmp_path, 1)
    promote(store, release.id, "run-1")
    record = record_of(store, "publish_mobile")
    publish(record, release=release.id, settings="{}")
    assert current(store) == (1, release.id, "")
    assert record.record.data["release"] == release.id


def test_step_repeated_after_its_commit_changes_nothing(tmp_path: Path) -> None:
    store, (release,) = make_store(tmp_path, 1)
    promote(store, release.id, "run-1")
    for _ in range(2):
        publish(record_of(store, "publish_mobile"), release=release.id, settings="{}")
    assert len(read_history(store)) == 1


def damage(store: Store, release: str) -> None:
    promote(store, release, "run-1")
    store.put(f"releases/{release}/labels.txt", b"")


FAILURES: dict[str, tuple[type[DualError], str, Callable[[Store, str], None]]] = {
    "no rollout": (RolloutError, "never began", lambda store, release: None),
    "rollout expired": (RolloutError, "is not in force", lambda store, release: promote(store, release, "run-1", seconds=-1)),
    "rollout unfinished": (RolloutError, "is not in force", lambda store, release: promote(store, release, "run-1", phase="promote")),
    "rollout superseded": (ConflictError, "superseded", lambda store, release: promote(store, "0123456789ab", "run-2")),
    "release damaged": (DataError, "damaged", damage),
}


@pytest.mark.parametrize("case", FAILURES)
def test_step_refuses_to_publish_half_a_pair(tmp_path: Path, case: str) -> None:
    store, (release,) = make_store(tmp_path, 1)
    error, text, prepare = FAILURES[case]
    prepare(store, release.id)
    with pytest.raises(error, match=text):
        publish(record_of(store, "publish_mobile"), release=release.id, settings="{}")
    assert read_channel(store) is None
    assert desired(store).stable != release.id


def test_step_refuses_a_model_too_large_for_devices_and_takes_the_rollout_back(tmp_path: Path) -> None:
    store, (release,) = make_store(tmp_path, 1)
    promote(store, release.id, "run-1")
    record = record_of(store, "publish_mobile")
    with pytest.raises(DataError, match="at most 1e-06 are allowed"):
        publish(record, release=release.id, settings=json.dumps({"publish_mobile": {"max_megabytes": 1e-6}}))
    found = read_rollout(store)
    assert found is not None
    assert (found[0].phase, "1e-06" in found[0].reason) == ("aborted", True)
    assert any("taken back" in text for text in record.record.warnings)


def test_loser_of_a_race_takes_its_rollout_back(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    promote(store, second.id, "run-1")
    publish_release(store, first.id)
    with pytest.raises(StaleError):
        publish(record_of(store, "publish_mobile"), release=second.id, settings="{}")
    found = read_rollout(store)
    assert found is not None
    assert found[0].phase == "aborted"
    assert desired(store).stable == first.id
