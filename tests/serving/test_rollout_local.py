"""The local rollout against a real server that follows its store: two versions, one label, and every way back."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from components.core.channel import read_channel
from components.core.errors import ConflictError, DualError, RolloutError
from components.core.record import StepRecord
from components.core.release import Release
from components.core.stores import Store, open_store
from components.publish_mobile.publication import publish_release
from components.publish_mobile.publish import publish
from components.publish_mobile.verify import verify_store
from components.roll_out_cloud.roll_out import roll_out
from serving.rollout.labels import begin_rollout
from serving.rollout.local import desired
from serving.rollout.reload import ReloadRefusedError, reload_config
from serving.rollout.servers import Server, running_servers
from serving.rollout.state import Rollout, read_rollout
from serving.rollout.undo import undo_release
from tests.release_pieces import make_release, record_of
from tests.serving.rollout_site import following, live_traffic, make_real_releases, serves

SETTINGS = json.dumps(
    {"name": "flowers", "roll_out_cloud": {"requests": 12, "load_timeout": 60, "max_p99_ms": 20_000, "max_p99_ratio": 1000}}
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[Release]]:
    """A store with three real releases, nothing published; copied for each test."""
    return make_real_releases(tmp_path_factory.mktemp("rollout"), 3)


@pytest.fixture
def releases(made: tuple[Store, list[Release]]) -> list[Release]:
    return made[1]


@pytest.fixture
def store(made: tuple[Store, list[Release]], tmp_path: Path) -> Store:
    made[0].get_tree("releases", tmp_path / "store" / "releases")
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Iterator[Server]:
    with following(store, tmp_path / "models") as server:
        yield server


def ship(store: Store, release: Release, run_id: str = "run-1", settings: str = SETTINGS) -> StepRecord:
    """Both deploy steps of one run."""
    record = record_of(store, "roll_out_cloud", run_id)
    roll_out(record, release=release.id, settings=settings)
    publish(record_of(store, "publish_mobile", run_id), release=release.id, settings=settings)
    return record


def state(store: Store) -> Rollout:
    found = read_rollout(store)
    assert found is not None
    return found[0]


def test_releases_follow_each_other_and_clients_notice_nothing(store: Store, releases: list[Release], server: Server) -> None:
    first, second, _ = releases
    ship(store, first)
    assert serves(server, first)
    with live_traffic(server) as problems:
        record = ship(store, second, "run-2")
        assert serves(server, second)
        undone = undo_release(store, "worse")
        assert serves(server, first)
    assert problems[:3] == []
    assert (undone.servers, undone.problems, undone.left) == (1, [], second.id)
    assert state(store).phase == "rolled_back"
    assert verify_store(store) == []
    assert [table.name for table in record.record.tables] == ["Time line", "Replayed traffic"]
    assert [row[1] for row in record.record.tables[0].rows] == ["prepare", "analyze", "promote", "promoted"]
    assert [row[1:3] for row in record.record.tables[1].rows] == [[12, 0], [12, 0]]
    assert record.record.verdict is not None
    assert record.record.verdict.blessed
    assert [picture.name for picture in record.record.pictures] == ["latency"]


def test_candidate_is_beside_the_stable_version_until_it_is_promoted(store: Store, releases: list[Release], server: Server) -> None:
    first, second, _ = releases
    ship(store, first)
    machine = begin_rollout(store, second.id, "run-2", servers=[server], settings=options(), say=print)
    machine._prepare()
    assert serves(server, first)
    assert serves(server, second, "canary")
    assert desired(store).labels() == {"stable": first.id, "canary": second.id}
    machine._analyze()
    machine._promote()
    assert serves(server, second)
    assert read_channel(store)[0].release == first.id  # type: ignore[index]


def options() -> Any:
    from components.core.settings import section
    from components.roll_out_cloud.settings import RollOutCloudSettings

    return section(SETTINGS, "roll_out_cloud", RollOutCloudSettings)


def test_a_candidate_with_other_answers_than_golden_is_unloaded(store: Store, releases: list[Release], server: Server) -> None:
    first, second, _ = releases
    ship(store, first)
    edit_golden(store, second, lambda golden: golden["images"][0]["cloud"].update(label="tulips"))
    record = record_of(store, "roll_out_cloud", "run-2")
    with pytest.raises(RolloutError, match=r"golden_agreement 0\.6667 .*00.jpg: answered daisy, expected tulips"):
        roll_out(record, release=second.id, settings=SETTINGS)
    assert serves(server, first)
    assert second.version not in live(server)
    assert not (server.model_dir / str(second.version)).exists()
    assert state(store).phase == "aborted"
    assert record.record.verdict is not None
    assert not record.record.verdict.blessed


def live(server: Server) -> set[int]:
    return {version for version, (each, _) in server.states().items() if each in ("LOADING", "AVAILABLE")}


def edit_golden(store: Store, release: Release, change: Callable[[Any], object]) -> None:
    name = f"releases/{release.id}/golden/golden.json"
    golden = json.loads(store.get(name).data)
    change(golden)
    store.put(name, json.dumps(golden).encode())


def test_a_slow_candidate_is_unloaded(store: Store, releases: list[Release], server: Server) -> None:
    settings = json.dumps({"roll_out_cloud": {"requests": 6, "max_p99_ms": 0.001}})
    with pytest.raises(RolloutError, match="latency_p99"):
        roll_out(record_of(store, "roll_out_cloud"), release=releases[0].id, settings=settings)
    assert desired(store).stable is None
    assert live(server) == set()


def test_a_model_that_does_not_load_is_reported_with_the_servers_reason(store: Store, releases: list[Release], server: Server) -> None:
    first, second, _ = releases
    ship(store, first)
    broken = make_release(store, Path(store.uri).parent / "broken", 9)
    with pytest.raises(DualError, match="can't be loaded"):
        roll_out(record_of(store, "roll_out_cloud", "run-2"), release=broken.id, settings=SETTINGS)
    assert state(store).phase == "aborted"
    assert serves(server, first)
    ship(store, second, "run-3")
    assert serves(server, second)


def test_servers_fall_back_when_the_publication_never_comes(store: Store, releases: list[Release], server: Server) -> None:
    first, second, _ = releases
    ship(store, first)
    quick = json.dumps({"roll_out_cloud": {"requests": 6, "publish_within": 2.5, "max_p99_ms": 20_000}})
    roll_out(record_of(store, "roll_out_cloud", "run-2"), release=second.id, settings=quick)
    assert serves(server, second)
    assert serves(server, first)
    with pytest.raises(RolloutError, match="is not in force"):
        publish(record_of(store, "publish_mobile", "run-2"), release=second.id, settings=quick)
    assert verify_store(store) == []


def test_a_failed_publication_takes_the_cloud_half_back(store: Store, releases: list[Release], server: Server) -> None:
    first, second, _ = releases
    ship(store, first)
    roll_out(record_of(store, "roll_out_cloud", "run-2"), release=second.id, settings=SETTINGS)
    assert serves(server, second)
    store.put(f"releases/{second.id}/mobile/model.tflite", b"rotten")
    with pytest.raises(DualError, match="damaged"):
        publish(record_of(store, "publish_mobile", "run-2"), release=second.id, settings=SETTINGS)
    assert server.label_version("stable") == first.version
    assert second.version not in live(server)


def test_a_newer_rollout_supersedes_and_the_old_process_changes_nothing_more(store: Store, releases: list[Release], server: Server) -> None:
    first, second, third = releases
    ship(store, first)
    old = begin_rollout(store, second.id, "run-2", servers=[server], settings=options(), say=print)
    ship(store, third, "run-3")
    before = store.get("rollouts/cloud.json").data
    with pytest.raises(DualError) as caught:
        old.run()
    assert isinstance(caught.value, ConflictError | RolloutError)
    assert store.get("rollouts/cloud.json").data == before
    assert serves(server, third)
    assert second.version not in live(server)


def test_the_same_release_again_is_no_rollout(store: Store, releases: list[Release], server: Server) -> None:
    ship(store, releases[0])
    before = {name: store.get(name).generation for name in store.list("")}
    record = ship(store, releases[0], "run-2")
    assert {name: store.get(name).generation for name in store.list("")} == before
    assert "nothing to roll out" in record.record.notes[-1]


def test_a_server_that_starts_later_follows_the_channel(store: Store, releases: list[Release], tmp_path: Path) -> None:
    publish_release(store, releases[0].id)
    with following(store, tmp_path / "late") as late:
        assert serves(late, releases[0])


def test_servers_that_died_without_a_word_are_passed_over(store: Store) -> None:
    entry = {"id": "x", "pid": 1, "host": "127.0.0.1", "rest_port": 9, "grpc_port": 9, "model_dir": "/nowhere", "name": "flowers"}
    store.put("serving/servers/x.json", json.dumps(entry).encode())
    assert running_servers(store) == []


def test_what_the_server_refuses_comes_back_with_its_words(server: Server) -> None:
    address = f"127.0.0.1:{server.entry.grpc_port}"
    with pytest.raises(ReloadRefusedError, match="refused the configuration"):
        reload_config(address, name="flowers", base_path="", versions=[7], labels={})


def test_a_server_that_is_gone_is_one_clear_line() -> None:
    with pytest.raises(DualError, match="does not answer") as caught:
        reload_config("127.0.0.1:9", name="x", base_path="/x", versions=[1], labels={}, timeout=5)
    assert not isinstance(caught.value, ReloadRefusedError)


@pytest.mark.parametrize(
    ("phase", "sequence", "seconds", "stable", "canary"),
    [
        ("prepare", 1, 60, 0, 1),
        ("analyze", 1, 60, 0, 1),
        ("promote", 1, 60, 1, None),
        ("promoted", 1, 60, 1, None),
        ("promoted", 1, -1, 0, None),
        ("promoted", 0, 60, 0, None),
        ("aborting", 1, 60, 0, None),
        ("aborted", 1, 60, 0, None),
        ("rolled_back", 1, 60, 0, None),
    ],
)
def test_desired_follows_a_live_rollout_of_the_current_channel_only(
    store: Store, releases: list[Release], phase: Any, sequence: int, seconds: int, stable: int, canary: int | None
) -> None:
    from serving.rollout.state import save_rollout, stamp, utc_now

    publish_release(store, releases[0].id)
    deadline = stamp(utc_now() + timedelta(seconds=seconds))
    rollout = Rollout(epoch=1, phase=phase, release=releases[1].id, stable=releases[0].id, sequence=sequence, run_id="r", deadline=deadline)
    save_rollout(store, rollout, None)
    want = desired(store)
    assert want.stable == releases[stable].id
    assert want.canary == (None if canary is None else releases[canary].id)
    assert releases[0].id in want.loaded


@pytest.mark.slow
def test_without_a_running_server_one_is_started_for_the_checks(store: Store, releases: list[Release]) -> None:
    record = ship(store, releases[0])
    assert any("one is started" in note for note in record.record.notes)
    ship(store, releases[1], "run-2")
    edit_golden(store, releases[2], lambda golden: golden["images"][0]["cloud"].update(label="tulips"))
    with pytest.raises(RolloutError, match="golden_agreement"):
        roll_out(record_of(store, "roll_out_cloud", "run-3"), release=releases[2].id, settings=SETTINGS)
    assert desired(store).stable == releases[1].id
