"""kill -9 at every write of a rollout and its publication, with a real server and live traffic the whole time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.core.channel import read_channel
from components.core.release import Release
from components.core.stores import Store, open_store
from components.publish_mobile.verify import verify_store
from serving.rollout.servers import Server
from tests.kill.victims import Job, Kill, Moment, Zygote, ship_job, undo_servers_job
from tests.serving.rollout_site import following, live_traffic, make_real_releases, serves

pytestmark = pytest.mark.slow
SHIP_WRITES = 8
UNDO_WRITES = 5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[Release]]:
    return make_real_releases(tmp_path_factory.mktemp("kill"), 2)


@pytest.fixture
def store(made: tuple[Store, list[Release]], tmp_path: Path) -> Store:
    made[0].get_tree("releases", tmp_path / "store" / "releases")
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Iterator[Server]:
    with following(store, tmp_path / "models") as server:
        yield server


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("write", range(1, SHIP_WRITES + 1))
def test_shipping_killed_at_every_write(
    zygote: Zygote, made: tuple[Store, list[Release]], store: Store, server: Server, write: int, moment: Moment
) -> None:
    first, second = made[1]
    assert zygote.run(ship_job, Path(store.uri), None, first.id, "run-1") == 0
    assert serves(server, first)
    with live_traffic(server) as problems:
        kill_twice(zygote, ship_job, Path(store.uri), Kill(write, moment), second.id)
        assert serves(server, second)
    assert problems[:3] == []
    assert verify_store(store) == []
    assert read_channel(store)[0].release == second.id  # type: ignore[index]


def kill_twice(zygote: Zygote, job: Job, root: Path, kill: Kill, release: str) -> None:
    """The first run dies, the second too if it gets there, the third succeeds."""
    assert zygote.run(job, root, kill, release, "run-2") == -9
    assert zygote.run(job, root, kill, release, "run-3") in (-9, 0)
    assert zygote.run(job, root, None, release, "run-4") == 0


def test_shipping_has_no_write_that_is_not_killed_above(
    zygote: Zygote, made: tuple[Store, list[Release]], store: Store, server: Server
) -> None:
    first, _ = made[1]
    assert zygote.run(ship_job, Path(store.uri), Kill(SHIP_WRITES + 1, "before"), first.id, "run-1") == 0
    assert serves(server, first)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("write", range(1, UNDO_WRITES + 1))
def test_undo_killed_at_every_write(
    zygote: Zygote, made: tuple[Store, list[Release]], store: Store, server: Server, write: int, moment: Moment
) -> None:
    first, second = made[1]
    for release in (first, second):
        assert zygote.run(ship_job, Path(store.uri), None, release.id, "run-1") == 0
    with live_traffic(server) as problems:
        kill_twice(zygote, undo_servers_job, Path(store.uri), Kill(write, moment), first.id)
        assert serves(server, first)
    assert problems[:3] == []
    assert verify_store(store) == []
    assert read_channel(store)[0].release == first.id  # type: ignore[index]
