"""The sidecar that holds releases, beside a real server: models are loaded, labelled and unloaded, and live traffic does not notice."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from components.core.candidate import candidate_version, offer_candidate
from components.core.digest import sha256_bytes
from components.core.errors import DataError
from components.core.release import MANIFEST, Release, release_folder
from components.core.stores import Store, open_store
from serving.fetch.__main__ import main
from serving.fetch.hold import Holder, Stager, keep_up
from serving.fetch.hold import hold as hold_as_ordered
from serving.fetch.order import HoldOrder, Order, read_hold_order
from serving.fetch.stage import Patience
from serving.rollout.cluster.holding import Holding, refusal_of
from serving.rollout.servers import Server, ServerEntry
from serving.server.config import read_models
from serving.server.options import Options
from tests.conftest import tiny_jpeg
from tests.release_pieces import make_release
from tests.serving.harness import RunningServer
from tests.serving.rollout_site import golden_of, live_traffic, make_real_releases
from tests.serving.saved_model import export_tiny

PATIENCE = Patience(attempts=1, first_wait=0.0)
IMAGE = tiny_jpeg(1, seed=1)


@dataclass
class Sheet:
    """The record as a test writes it."""

    order: HoldOrder
    said: Holding | None = None
    changed: threading.Event = field(default_factory=threading.Event)

    def read(self) -> tuple[dict[int, Order], dict[str, int]] | None:
        if self.said is None:
            return None
        return {v: self.order.of(release, self.said.releases[release]) for v, release in self.said.versions().items()}, self.said.labels()

    def wait(self, seconds: float) -> None:
        self.changed.wait(min(seconds, 0.05))
        self.changed.clear()

    def write(self, stable: Release, *beside: Release, canary: Release | None = None, **digests: str) -> None:
        every = [stable, *beside, *([canary] if canary else [])]
        releases = {each.id: digests.get(f"r{each.id}", "") for each in every}
        self.said = Holding(stable=stable.id, canary=canary.id if canary else None, releases=releases)
        self.changed.set()


class Pod:
    """A server that starts without a model, and the holder beside it."""

    def __init__(self, store: Store, root: Path) -> None:
        self.models, self.config = root / "models" / "classifier", root / "models.config"
        self.config.write_text("model_config_list {}")
        self.server = RunningServer(read_models(self.config), self._options(0, 0))
        self.ports = self.server.ports
        rest, grpc = self.ports.rest_port or 0, self.ports.grpc_port or 0
        self.order = HoldOrder(store.uri, "labels-000000", None, self.models, rest, grpc)
        self.asked = Server(ServerEntry(**self.entry))
        self.said: list[str] = []
        self.sheet, self._ended = Sheet(self.order), threading.Event()
        self._holder = threading.Thread(target=self._hold, daemon=True)

    @property
    def entry(self) -> dict[str, Any]:
        where = {"host": "127.0.0.1", "rest_port": self.order.rest_port, "grpc_port": self.order.grpc_port}
        return {"id": "pod", "pid": 0, "model_dir": str(self.models), "name": "classifier", **where}

    def _options(self, rest: int, grpc: int) -> Options:
        return Options(max_load_retries=0, poll_seconds=0.1, rest_port=rest, grpc_port=grpc)

    def _hold(self) -> None:
        stager = Stager(self.order, self.said.append, PATIENCE, retry_seconds=0.2)
        keep_up(Holder(Server(ServerEntry(**self.entry)), stager), self.sheet, self.said.append, self._ended.is_set)

    def start(self) -> None:
        self._holder.start()

    def stop(self) -> None:
        self._ended.set()
        self.sheet.changed.set()
        self._holder.join(30)
        self.asked.close()
        self.server.stop()

    def restart_server(self) -> None:
        """What the kubelet does when it crashed."""
        self.server.stop()
        self.server = RunningServer(read_models(self.config), self._options(self.order.rest_port, self.order.grpc_port))

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {self.asked.states()}, {self.said}"
            time.sleep(0.02)

    def serves(self, release: Release, label: str = "stable") -> None:
        self.wait(lambda: self.asked.label_version(label) == release.version, f"{label} at {release.id}")
        assert self.asked.states()[release.version][0] == "AVAILABLE"

    def holds(self, *releases: Release) -> None:
        versions = {release.version for release in releases}
        self.wait(lambda: self.folders() == {str(v) for v in versions}, f"folders {versions}")
        self.wait(lambda: {v for v, (state, _) in self.asked.states().items() if state == "AVAILABLE"} == versions, f"{versions}")

    def folders(self) -> set[str]:
        return {path.name for path in self.models.iterdir()} if self.models.is_dir() else set()

    def is_ready(self) -> bool:
        """What the kubelet's probe asks."""
        return self.asked._http.get("/v1/models/classifier/labels/stable/metadata").is_success


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[Release]]:
    """Two good releases, and one whose model can't be loaded."""
    root = tmp_path_factory.mktemp("hold")
    store, releases = make_real_releases(root, 2)
    folder = export_tiny(root / "broken", 9.0)
    (folder / "saved_model.pb").write_bytes(b"no graph")
    shutil.rmtree(folder / "variables")
    return store, [*releases, make_release(store, root, 2, saved_model=folder, golden=golden_of(9.0))]


@pytest.fixture
def store(made: tuple[Store, list[Release]], tmp_path: Path) -> Store:
    made[0].get_tree("releases", tmp_path / "store" / "releases")
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def pod(store: Store, tmp_path: Path) -> Iterator[Pod]:
    running = Pod(store, tmp_path)
    running.start()
    yield running
    running.stop()


def test_nothing_is_loaded_before_the_record_says_it_and_then_the_pod_gets_ready(pod: Pod, made: tuple[Store, list[Release]]) -> None:
    a, _, _ = made[1]
    assert not pod.is_ready()
    assert pod.folders() == set()
    pod.sheet.write(a)
    pod.serves(a)
    pod.holds(a)
    assert pod.is_ready()
    pod.wait(lambda: any(line.startswith("held: stable is version") for line in pod.said), "a line that says so")


def test_a_candidate_comes_beside_takes_over_and_goes_back_and_live_traffic_does_not_notice(
    pod: Pod, made: tuple[Store, list[Release]]
) -> None:
    a, b, _ = made[1]
    pod.sheet.write(a)
    pod.serves(a)
    with live_traffic(pod.asked) as problems:
        pod.sheet.write(a, canary=b)
        pod.serves(b, "canary")
        assert pod.asked.label_version("stable") == a.version
        pod.sheet.write(b, a)
        pod.serves(b)
        assert pod.asked.label_version("canary") is None
        assert pod.asked.predict("stable", IMAGE) == pod.asked.predict(b.version, IMAGE) != pod.asked.predict(a.version, IMAGE)
        pod.sheet.write(a, b)
        pod.serves(a)
        pod.sheet.write(b)
        pod.serves(b)
        pod.holds(b)
    assert problems == []


def test_a_candidate_that_cannot_be_loaded_takes_nothing_away(pod: Pod, made: tuple[Store, list[Release]]) -> None:
    a, _, broken = made[1]
    pod.sheet.write(a)
    pod.serves(a)
    with live_traffic(pod.asked) as problems:
        pod.sheet.write(a, canary=broken)
        pod.wait(lambda: pod.asked.states().get(broken.version, ("", ""))[1] != "", "the server's reason")
        # Whatever the record says, a label goes nowhere else.
        pod.sheet.write(broken, a)
        time.sleep(0.3)
        assert pod.asked.label_version("stable") == a.version
        pod.sheet.write(a)
        pod.holds(a)
    assert problems == []


@pytest.mark.parametrize("stable", ["a", "b"])
def test_a_pod_that_is_made_in_the_middle_comes_up_as_the_record_says(pod: Pod, made: tuple[Store, list[Release]], stable: str) -> None:
    a, b, _ = made[1]
    if stable == "a":
        pod.sheet.write(a, canary=b)
    else:
        pod.sheet.write(b, a)
    pod.serves(a if stable == "a" else b)
    pod.holds(a, b)


def test_a_pod_that_is_made_beside_a_broken_candidate_gets_ready_all_the_same(pod: Pod, made: tuple[Store, list[Release]]) -> None:
    a, _, broken = made[1]
    pod.sheet.write(a, canary=broken)
    pod.serves(a)
    assert pod.is_ready()
    pod.wait(lambda: pod.asked.states().get(broken.version, ("", ""))[1] != "", "the server's reason")


def test_a_server_that_crashed_is_given_what_it_had(pod: Pod, made: tuple[Store, list[Release]]) -> None:
    a, b, _ = made[1]
    pod.sheet.write(b, a)
    pod.serves(b)
    pod.holds(a, b)
    pod.restart_server()
    assert not pod.is_ready()
    pod.serves(b)
    pod.holds(a, b)


def test_files_that_are_not_the_releases_own_are_refused_and_fetched_when_they_are(
    pod: Pod, store: Store, made: tuple[Store, list[Release]]
) -> None:
    a, b, _ = made[1]
    path = Path(store.uri) / b.cloud_folder() / "saved_model.pb"
    right = path.read_bytes()
    path.write_bytes(b"X" + right[1:])
    pod.sheet.write(a)
    pod.serves(a)
    pod.sheet.write(a, canary=b)
    pod.wait(lambda: any(line.startswith(refusal_of(b.id)) and "saved_model.pb" in line for line in pod.said), "a refusal")
    assert pod.folders() == {str(a.version)}
    assert b.version not in pod.asked.states()
    path.write_bytes(right)
    pod.serves(b, "canary")


def test_a_release_json_of_another_digest_is_refused(pod: Pod, store: Store, made: tuple[Store, list[Release]]) -> None:
    a, b, _ = made[1]
    digest = sha256_bytes(store.get(f"{release_folder(a.id)}/{MANIFEST}").data)
    pod.sheet.write(a, canary=b, **{f"r{a.id}": digest, f"r{b.id}": "0" * 64})
    pod.serves(a)
    pod.wait(lambda: any(line.startswith(refusal_of(b.id)) and "the rollout asked for 0000" in line for line in pod.said), "a refusal")


def test_a_version_whose_folder_somebody_took_is_fetched_again(pod: Pod, made: tuple[Store, list[Release]]) -> None:
    a, _, _ = made[1]
    pod.sheet.write(a)
    pod.holds(a)
    shutil.rmtree(pod.models / str(a.version))
    pod.restart_server()
    pod.serves(a)
    pod.holds(a)


# --- orders -----------------------------------------------------------------------------------------------------------------------


def test_a_candidate_is_held_for_a_check_and_a_damaged_one_ends_the_container(
    pod: Pod, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = offer_candidate(store, export_tiny(tmp_path / "model", 1.0), name="classifier", run_id="run")
    environment = {
        "DUAL_STORE": store.uri,
        "DUAL_HOST": "template",
        "DUAL_CANDIDATE": digest,
        "DUAL_MODEL_DIR": str(pod.models),
        "DUAL_REST_PORT": str(pod.order.rest_port),
        "DUAL_GRPC_PORT": str(pod.order.grpc_port),
    }
    ended = threading.Event()
    check = threading.Thread(target=hold_as_ordered, args=(read_hold_order(environment), pod.said.append, ended.is_set), daemon=True)
    check.start()
    pod.wait(lambda: pod.asked.label_version("stable") == candidate_version(digest), "the candidate as stable")
    assert pod.is_ready()
    ended.set()
    check.join(30)
    manifest = Path(store.uri) / "candidates" / digest / "candidate.json"
    manifest.write_text(manifest.read_text() + " ")
    with pytest.raises(DataError):
        hold_as_ordered(read_hold_order(environment), pod.said.append)
    for key, value in environment.items():
        monkeypatch.setitem(os.environ, key, value)
    monkeypatch.setattr("serving.fetch.__main__.signal.signal", lambda *_: None)
    assert main(["--hold"]) == 4


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["--hold"], {}, "DUAL_HOST: '' is no host's revision.*A rollout sets it"),
        (["--hold"], {"DUAL_HOST": "template"}, "DUAL_HOST: 'template' is no host's revision"),
        (["--hold"], {"DUAL_HOST": "labels-0123ab"}, "DUAL_STORE: is not set"),
        (["--hold"], {"DUAL_HOST": "labels-0123ab", "DUAL_STORE": "/s", "DUAL_REST_PORT": "x"}, "x and 8500 are no two ports"),
        (["--stay"], {}, "--stay is not known"),
    ],
)
def test_every_wrong_order_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], variables: dict[str, str], said: str
) -> None:
    import re

    for name in ("DUAL_HOST", "DUAL_STORE", "DUAL_CANDIDATE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("serving.fetch.__main__.signal.signal", lambda *_: None)
    assert main(arguments) == 2
    assert re.search(said, capsys.readouterr().err)
