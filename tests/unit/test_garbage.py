"""What a collection keeps and removes, and that publishers and collections never take away what the other needs."""

import json
import threading
from pathlib import Path

import pytest

from components.core.channel import read_channel
from components.core.errors import ConflictError, DataError
from components.core.release import Release
from components.core.stores import Store
from components.core.stores.local import LocalStore
from components.publish_mobile import collection
from components.publish_mobile.collection import MARK, Collection, Mark, nothing_is_collected, read_mark
from components.publish_mobile.garbage import Window, collect_garbage, find_garbage
from components.publish_mobile.publication import publish_release, undo_publication
from components.publish_mobile.verify import verify_store
from components.publish_mobile.version import put_version
from tests.release_pieces import make_store
from tests.unit.test_publish import die_before_swap, promote

NOTHING_OLD = Window(publications=1, days=0.0)


def downloads(store: Store) -> set[str]:
    return set(store.list("mobile/blobs/")) | set(store.list("mobile/versions/"))


def files(release: Release) -> set[str]:
    return {f"mobile/blobs/{release.mobile_file().sha256}.tflite", f"mobile/versions/{release.id}.json"}


def every(*releases: Release) -> set[str]:
    return {name for release in releases for name in files(release)}


def test_a_dry_run_names_what_goes_and_removes_nothing(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    publish_release(store, second.id)
    garbage = find_garbage(store, NOTHING_OLD)
    assert set(garbage.names()) == files(first)
    assert garbage.names()[0].startswith("mobile/versions/")
    assert garbage.kept == {second.id: "the channel stable names it"}
    assert downloads(store) == every(first, second)
    assert read_mark(store) is None


def test_what_nobody_names_goes_and_comes_back_with_an_undo(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    publish_release(store, second.id)
    store.put("mobile/blobs/" + "0" * 64 + ".tflite", b"left by a publisher that died")
    collect_garbage(store, NOTHING_OLD)
    assert downloads(store) == files(second)
    assert verify_store(store) == []
    undo_publication(store, "")
    assert files(first) <= downloads(store)
    assert verify_store(store) == []


def test_channel_fallback_and_other_channels_stay(tmp_path: Path) -> None:
    store, (first, second, third, fourth) = make_store(tmp_path, 4)
    publish_release(store, fourth.id)
    store.put("channels/beta.json", store.get("channels/stable.json").data)
    publish_release(store, first.id)
    publish_release(store, second.id)
    publish_release(store, third.id, basis_points=1000)
    collect_garbage(store, NOTHING_OLD)
    assert downloads(store) == every(second, third, fourth)


def test_the_window_keeps_the_last_publications_and_the_last_days(tmp_path: Path) -> None:
    store, releases = make_store(tmp_path, 4)
    for release in releases:
        publish_release(store, release.id)
    assert set(find_garbage(store, Window(publications=3, days=0.0)).names()) == files(releases[0])
    assert find_garbage(store, Window(publications=1, days=1.0)).names() == []
    for number, days in ((1, 9), (2, 8), (3, 3), (4, 2)):
        date_entry(store, number, f"2026-11-{20 - days:02}T06:00:00+00:00")
    # The second was current until the third came.
    assert set(find_garbage(store, Window(publications=1, days=days_since("2026-11-15"))).names()) == files(releases[0])


def date_entry(store: Store, number: int, at: str) -> None:
    name = f"history/{number:08d}.json"
    store.put(name, json.dumps(json.loads(store.get(name).data) | {"at": at}).encode())


def days_since(day: str) -> float:
    from datetime import UTC, datetime

    return (datetime.now(UTC) - datetime.fromisoformat(f"{day}T00:00:00+00:00")).total_seconds() / 86400


def test_a_rollout_that_is_alive_keeps_its_release_and_a_dead_one_does_not(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    put_version(store, second)
    promote(store, second.id, "run-1", sequence=1)
    assert find_garbage(store, NOTHING_OLD).names() == []
    promote(store, second.id, "run-1", sequence=1, seconds=-1)
    assert set(find_garbage(store, NOTHING_OLD).names()) == files(second)


def test_what_is_about_to_be_published_stays_until_another_has_overtaken_it(tmp_path: Path) -> None:
    store, (first, second, third) = make_store(tmp_path, 3)
    publish_release(store, first.id)
    die_before_swap(store, second.id)
    collect_garbage(store, NOTHING_OLD)
    assert downloads(store) == every(first, second)
    publish_release(store, third.id)
    collect_garbage(store, NOTHING_OLD)
    assert downloads(store) == files(third)


class Meddling(LocalStore):
    """A store in which a whole collection happens at a chosen write of a publication."""

    moment = ""

    def put_if_absent(self, name: str, data: bytes) -> bool:
        written = super().put_if_absent(name, data)
        if self.moment and name.startswith(self.moment):
            self.collect()
        return written

    def swap(self, name: str, data: bytes, generation: str | None) -> str:
        if self.moment == "channels/" and name.startswith("channels/"):
            self.collect()
        return super().swap(name, data, generation)

    def collect(self) -> None:
        collect_garbage(LocalStore(self.root), NOTHING_OLD)


@pytest.mark.parametrize("moment", ["mobile/blobs/", "mobile/versions/", "history/", "channels/"])
def test_a_collection_between_any_two_writes_takes_nothing_that_is_published(tmp_path: Path, moment: str) -> None:
    _, (first, second) = make_store(tmp_path, 2)
    store = Meddling(tmp_path / "store")
    for release in (first, second):
        publish_release(store, release.id)
    collect_garbage(store, NOTHING_OLD)
    store.moment = moment
    # The .tflite of `first` was published before, taken, and put anew: what is garbage now is about to be named.
    assert undo_publication(store, "")[0].release == first.id
    assert verify_store(store) == []


def test_a_publisher_in_the_middle_of_a_collection_waits_and_writes_again_what_was_taken(tmp_path: Path) -> None:
    _, (first, second) = make_store(tmp_path, 2)
    announced = threading.Event()

    class Publisher(LocalStore):
        def put_if_absent(self, name: str, data: bytes) -> bool:
            written = super().put_if_absent(name, data)
            if name.startswith("history/"):
                announced.set()
            return written

    publisher = threading.Thread(target=lambda: undo_publication(Publisher(tmp_path / "store"), ""))

    class Collector(LocalStore):
        def delete(self, name: str) -> None:
            if not publisher.is_alive():
                publisher.start()
                announced.wait(10)
                # Time enough to go wrong: it must not get past the mark.
                publisher.join(0.5)
                assert publisher.is_alive()
            super().delete(name)

    store = Collector(tmp_path / "store")
    for release in (first, second):
        publish_release(store, release.id)
    assert set(collect_garbage(store, NOTHING_OLD).names()) == files(first)
    publisher.join(10)
    assert read_channel(store)[0].release == first.id  # type: ignore[index]
    assert verify_store(store) == []


def test_a_publisher_waits_for_a_living_collection_and_ignores_one_that_is_over(tmp_path: Path) -> None:
    store, (first,) = make_store(tmp_path, 1)
    held = Collection(store)
    with pytest.raises(ConflictError, match="under way"):
        nothing_is_collected(store, patience=0.3)
    held.end()
    nothing_is_collected(store, patience=0.0)
    publish_release(store, first.id)


def test_a_dead_collections_mark_is_taken_away(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path, 1)
    dead = Collection(store, lease=0.3)
    nothing_is_collected(store, lease=0.3, patience=5.0)
    found = read_mark(store)
    assert found is not None
    assert found[0].done
    with pytest.raises(ConflictError, match="taken the collection over"):
        dead.end()


def test_a_collection_that_shows_life_is_not_taken_away(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path, 1)
    time = [0.0]
    alive = Collection(store, lease=0.3, clock=lambda: time[0])

    class Beating(LocalStore):
        def find(self, name: str) -> object:  # type: ignore[override]
            time[0] += 0.11
            alive.still_mine()
            return super().find(name)

    with pytest.raises(ConflictError, match="under way"):
        nothing_is_collected(Beating(tmp_path / "store"), lease=0.3, patience=1.0)
    alive.end()


def test_a_collection_whose_mark_was_taken_stops_before_the_next_deletion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    publish_release(store, second.id)
    real = collection.Collection.still_mine

    def halted(self: Collection) -> None:
        """As if the process had slept longer than its lease, and a publisher had taken the mark away."""
        found = read_mark(store)
        assert found is not None
        store.swap(MARK, found[0].model_copy(update={"done": True}).to_json(), found[1])
        self._clock = lambda: self._beaten + self._lease
        real(self)

    monkeypatch.setattr(Collection, "still_mine", halted)
    with pytest.raises(ConflictError, match="taken the collection over"):
        collect_garbage(store, NOTHING_OLD)
    assert downloads(store) == every(first, second)


def test_two_collections_at_once_are_one_after_the_other(tmp_path: Path) -> None:
    store, (first,) = make_store(tmp_path, 1)
    publish_release(store, first.id)
    held = Collection(store)
    with pytest.raises(ConflictError):
        nothing_is_collected(store, patience=0.0)
    held.end()
    collect_garbage(store, NOTHING_OLD)
    found = read_mark(store)
    assert found is not None
    assert found[0].done


def test_a_mark_that_is_none_is_named(tmp_path: Path) -> None:
    store, (first,) = make_store(tmp_path, 1)
    store.put(MARK, b"{}")
    with pytest.raises(DataError, match=r"collection\.json"):
        publish_release(store, first.id)
    assert read_channel(store) is None


def test_a_mark_survives_its_json() -> None:
    mark = Mark(owner="a", beat=3)
    assert Mark.model_validate_json(mark.to_json()) == mark
