"""kill -9 at every write of assembly, publication and undo: the next run repairs it, and readers never saw half of anything."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.core.channel import read_channel
from components.core.errors import ConflictError
from components.core.release import list_releases, read_release, verify_release
from components.core.stores import Store, open_store
from components.core.stores.local import LocalStore
from components.publish_mobile.history import committed, read_history
from components.publish_mobile.publication import publish_release
from components.publish_mobile.verify import verify_store
from tests.kill.victims import MOMENTS, Job, Kill, Moment, Zygote, assemble_job, publish_job, undo_job
from tests.release_pieces import make_store, write_artifacts, write_tiny_tflite

PUBLICATION_WRITES = 4
UNDO_WRITES = 2


@contextmanager
def watching(store: Store) -> Iterator[list[str]]:
    """A reader that looks at the channel all the time; every state in which the pair was not whole."""
    problems: list[str] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            if (found := read_channel(store)) is None:
                continue
            channel = found[0]
            release = read_release(store, channel.release)
            whole = channel.cloud.version == release.version and channel.mobile.sha256 == release.mobile_file().sha256
            whole = whole and store.exists(channel.mobile.blob) and store.exists(f"{channel.cloud.path}/saved_model.pb")
            if not whole:
                problems.append(f"sequence {channel.sequence}")

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield problems
    finally:
        stop.set()
        thread.join()


def kill_twice(zygote: Zygote, job: Job, root: Path, kill: Kill, *arguments: str) -> None:
    """The first process dies; the second, too, at the same number of its own writes if it gets there; the third must succeed."""
    assert zygote.run(job, root, kill, *arguments) == -9
    assert zygote.run(job, root, kill, *arguments) in (-9, 0)
    assert zygote.run(job, root, None, *arguments) == 0


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("write", range(1, PUBLICATION_WRITES + 1))
def test_publication_killed_at_every_write(zygote: Zygote, tmp_path: Path, write: int, moment: Moment) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    with watching(store) as problems:
        kill_twice(zygote, publish_job, Path(store.uri), Kill(write, moment), second.id)
    assert problems == []
    check(store, second.id, entries=2)


def check(store: Store, release: str, entries: int) -> None:
    """The store is clean, its channel names `release`, and its history has that many entries, all of which took effect."""
    assert verify_store(store) == []
    found = read_channel(store)
    assert found is not None
    assert found[0].release == release
    assert [entry.sequence for entry in read_history(store)] == list(range(1, entries + 1))
    assert len(committed(read_history(store), found[0])) == entries
    assert list(store.list("channels/")) == ["channels/stable.json"]


def test_publication_has_no_write_that_is_not_killed_above(zygote: Zygote, tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    assert zygote.run(publish_job, Path(store.uri), Kill(PUBLICATION_WRITES + 1, "before"), second.id) == 0


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("write", range(1, PUBLICATION_WRITES + 1))
def test_first_publication_killed_at_every_write(zygote: Zygote, tmp_path: Path, write: int, moment: Moment) -> None:
    store, (first,) = make_store(tmp_path, 1)
    with watching(store) as problems:
        kill_twice(zygote, publish_job, Path(store.uri), Kill(write, moment), first.id)
    assert problems == []
    check(store, first.id, entries=1)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("write", range(1, PUBLICATION_WRITES + 1))
def test_another_release_after_a_killed_publication(zygote: Zygote, tmp_path: Path, write: int, moment: Moment) -> None:
    store, (first, second, third) = make_store(tmp_path, 3)
    publish_release(store, first.id)
    zygote.run(publish_job, Path(store.uri), Kill(write, moment), second.id)
    publish_release(store, third.id)
    assert verify_store(store) == []
    found = read_channel(store)
    assert found is not None
    assert found[0].release == third.id
    entries = [entry.sequence for entry in read_history(store)]
    assert entries == list(range(1, len(entries) + 1))


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("write", [3, 4])
def test_undo_killed_at_every_write(zygote: Zygote, tmp_path: Path, write: int, moment: Moment) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    publish_release(store, second.id)
    with watching(store) as problems:
        kill_twice(zygote, undo_job, Path(store.uri), Kill(write, moment), first.id)
    assert problems == []
    check(store, first.id, entries=3)


@pytest.fixture(scope="module")
def tflite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_tflite(tmp_path_factory.mktemp("tflite") / "model.tflite")


@pytest.mark.slow
def test_assembly_killed_at_every_write(zygote: Zygote, tmp_path: Path, tflite: Path) -> None:
    artifacts = str(write_artifacts(tmp_path / "artifacts", tflite=tflite).root)
    survived, write = False, 0
    while not survived:
        write += 1
        for moment in MOMENTS:
            root = tmp_path / f"store-{write}-{moment}"
            survived = zygote.run(assemble_job, root, Kill(write, moment), artifacts, "run-1") == 0
            store = open_store(str(root))
            if not survived:
                release = check_unfinished(store)
                assert zygote.run(assemble_job, root, Kill(write, moment), artifacts, "run-2") in (-9, 0)
                assert zygote.run(assemble_job, root, None, artifacts, "run-3") == 0
                assert release in (None, *(each.id for each in list_releases(store)))
            (only,) = list_releases(store)
            assert verify_release(store, only.id) == []
            shutil.rmtree(root)
    # labels, three of the cloud, the .tflite, two golden files, card, record, report, release.json: none may be left out.
    assert write > 9


def check_unfinished(store: Store) -> str | None:
    """A killed assembly left no release, or a whole one."""
    for release in list_releases(store):
        assert verify_release(store, release.id) == []
        return release.id
    return None


def test_two_assemblies_at_once_make_one_release(zygotes: list[Zygote], tmp_path: Path, tflite: Path) -> None:
    artifacts = str(write_artifacts(tmp_path / "artifacts", tflite=tflite).root)
    root = tmp_path / "store"
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: codes.append(zygotes[n].run(assemble_job, root, None, artifacts, f"run-{n}"))) for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (release,) = list_releases(LocalStore(root))
    assert codes == [0, 0]
    assert verify_release(LocalStore(root), release.id) == []


def test_publishers_race_and_one_wins_each_round(tmp_path: Path) -> None:
    store, releases = make_store(tmp_path, 4)
    outcomes: dict[str, int] = {}

    def race(release: str) -> None:
        try:
            publish_release(LocalStore(Path(store.uri)), release, after=0)
            outcomes[release] = 0
        except ConflictError as error:
            outcomes[release] = error.exit_code

    threads = [threading.Thread(target=race, args=(release.id,)) for release in releases]
    with watching(store) as problems:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []
    assert sorted(outcomes.values()) == [0, 5, 5, 5]
    winner = next(release for release, code in outcomes.items() if code == 0)
    found = read_channel(store)
    assert found is not None
    assert found[0].release == winner
    assert verify_store(store) == []


def test_processes_race_to_publish_and_the_channel_is_whole(zygotes: list[Zygote], tmp_path: Path) -> None:
    store, releases = make_store(tmp_path, 3)
    codes: list[int] = []
    pairs = list(zip(zygotes, releases, strict=True))
    threads = [threading.Thread(target=lambda z=z, r=r: codes.append(z.run(publish_job, Path(store.uri), None, r.id))) for z, r in pairs]
    with watching(store) as problems:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []
    assert 0 in codes
    assert verify_store(store) == []
