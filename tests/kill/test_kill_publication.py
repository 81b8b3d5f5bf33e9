"""kill -9 at every write of staged publications and of collections, and publishers and collectors that race as processes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.core.channel import read_channel, read_stored_channel
from components.core.envelope import trusted_signatures
from components.core.stores import Store
from components.publish_mobile.history import committed, read_history
from components.publish_mobile.publication import publish_release
from components.publish_mobile.signing import own_keyring
from components.publish_mobile.verify import verify_store
from tests.kill.test_kill_store import check, kill_twice
from tests.kill.victims import (
    MOMENTS,
    Kill,
    Moment,
    Zygote,
    collect_job,
    collect_often_job,
    publish_often_job,
    publish_until_won_job,
    start_job,
    widen_job,
)
from tests.release_pieces import make_store

START_WRITES = 6
"""Blob and version record of the release and of its fallback, history, channel."""
WIDEN_FIRST_OWN_WRITE, WIDEN_WRITES = 5, 6
PUBLISHERS = 8


@contextmanager
def devices_watching(store: Store) -> Iterator[list[str]]:
    """Devices that read the channel all the time: every moment in which what it names was not there, or its signature did not fit."""
    problems: list[str] = []
    stop = threading.Event()
    keyring = own_keyring()

    def look() -> None:
        highest = 0
        while not stop.is_set():
            found = read_stored_channel(store)
            if found is None or found.envelope is None:
                problems.append("no channel")
                continue
            if not trusted_signatures(found.envelope, keyring):
                problems.append(f"sequence {found.channel.sequence} is not signed")
            if found.channel.sequence < highest:
                problems.append(f"sequence {found.channel.sequence} after {highest}")
            highest = found.channel.sequence
            halves = [found.channel, *([found.channel.fallback] if found.channel.fallback else [])]
            missing = [half.release for half in halves if not store.exists(half.mobile.blob)]
            now = read_channel(store)
            # What a channel named that has been replaced meanwhile may have been collected.
            if missing and now and now[0].sequence == highest:
                problems.append(f"sequence {highest} names {missing}, whose file is not there")

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield problems
    finally:
        stop.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("write", range(1, START_WRITES + 1))
def test_staged_start_killed_at_every_write(zygote: Zygote, tmp_path: Path, write: int, moment: Moment) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    with devices_watching(store) as problems:
        kill_twice(zygote, start_job, Path(store.uri), Kill(write, moment), second.id)
    assert problems == []
    check(store, second.id, entries=2)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("write", range(WIDEN_FIRST_OWN_WRITE, WIDEN_WRITES + 1))
def test_widening_killed_at_every_write(zygote: Zygote, tmp_path: Path, write: int, moment: Moment) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    publish_release(store, second.id, basis_points=1000)
    with devices_watching(store) as problems:
        kill_twice(zygote, widen_job, Path(store.uri), Kill(write, moment), "5000")
    assert problems == []
    check(store, second.id, entries=3)
    assert read_channel(store)[0].staging.basis_points == 5000  # type: ignore[index]


def test_no_write_is_left_out_above(zygote: Zygote, tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    assert zygote.run(start_job, Path(store.uri), Kill(START_WRITES + 1, "before"), second.id) == 0
    assert zygote.run(widen_job, Path(store.uri), Kill(WIDEN_WRITES + 1, "before"), "5000") == 0


COLLECTION_WRITES = 4
"""Mark, version record, blob, mark."""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("write", range(1, COLLECTION_WRITES + 1))
def test_collection_killed_at_every_write_and_publishers_go_on(zygote: Zygote, tmp_path: Path, write: int, moment: Moment) -> None:
    store, (first, second, third) = make_store(tmp_path, 3)
    publish_release(store, first.id)
    publish_release(store, second.id)
    with devices_watching(store) as problems:
        assert zygote.run(collect_job, Path(store.uri), Kill(write, moment), "0.5") == -9
        assert zygote.run(collect_job, Path(store.uri), None, "0.5") == 0
        publish_release(store, third.id)
    assert problems == []
    assert verify_store(store) == []
    assert not store.exists(f"mobile/blobs/{first.mobile_file().sha256}.tflite")


def test_publisher_and_collector_processes_leave_nothing_dangling(zygotes: list[Zygote], tmp_path: Path) -> None:
    """The collector takes away whatever the channel does not name, all the time; the publisher goes back and forth between releases."""
    store, releases = make_store(tmp_path, 3)
    publish_release(store, releases[0].id)
    root, stop, codes = Path(store.uri), tmp_path / "stop", []
    collector = threading.Thread(target=lambda: codes.append(zygotes[1].run(collect_often_job, root, None, str(stop))))
    with devices_watching(store) as problems:
        collector.start()
        codes.append(zygotes[0].run(publish_often_job, root, None, "12", *(release.id for release in releases)))
        stop.touch()
        collector.join()
    assert problems == []
    assert codes == [0, 0]
    assert verify_store(store) == []
    assert len(read_history(store)) > len(releases)


@pytest.fixture
def publishers() -> Iterator[list[Zygote]]:
    made = [Zygote() for _ in range(PUBLISHERS)]
    yield made
    for each in made:
        each.close()


@pytest.mark.slow
def test_eight_publishers_race_and_every_one_gets_its_turn(publishers: list[Zygote], tmp_path: Path) -> None:
    store, releases = make_store(tmp_path, PUBLISHERS + 1)
    publish_release(store, releases[-1].id)
    root, codes = Path(store.uri), []

    def publish(zygote: Zygote, release: str) -> None:
        codes.append(zygote.run(publish_until_won_job, root, None, release))

    pairs = zip(publishers, releases, strict=False)
    threads = [threading.Thread(target=publish, args=(zygote, release.id)) for zygote, release in pairs]
    with devices_watching(store) as problems:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []
    assert codes == [0] * PUBLISHERS
    assert verify_store(store) == []
    found = read_channel(store)
    assert found is not None
    won = [entry.release for entry in committed(read_history(store), found[0])]
    assert sorted(won) == sorted(release.id for release in releases)
