"""The init container of a server pod, from the environment to the staged folder, over a folder and a real HTTP server."""

import functools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from components.core.digest import sha256_bytes
from components.core.download import Patience
from components.core.errors import DualError
from components.core.release import Release
from components.core.stores import Store, http
from components.core.stores.local import LocalStore
from serving.fetch import __main__ as program
from serving.fetch import stage as staging
from serving.fetch.__main__ import main
from tests.release_pieces import make_release, make_store

# No step of a pod's start may depend on what its image does not have.
WITHOUT = "import sys; sys.modules.update(dict.fromkeys(['tensorflow', 'kfp', 'matplotlib', 'kubernetes']))"
PROGRAM = f"{WITHOUT}; from serving.fetch.__main__ import main; code = main(); "
PROGRAM += "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]); sys.exit(code)"


class Site:
    """A store with releases, and the environment of a pod that fetches from it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.patch = root, monkeypatch
        self.store, (self.release, self.other) = make_store(root, 2)
        self.models = root / "models" / "classifier"
        self.set(STORE=self.store.uri, RELEASE=self.release.id, MODEL_DIR=str(self.models))
        monkeypatch.setattr(program, "Patience", functools.partial(staging.Patience, first_wait=0.0))
        monkeypatch.setattr(http, "Patience", functools.partial(Patience, first_wait=0.0))

    def set(self, **variables: str) -> None:
        """Change DUAL_* variables of the pod."""
        for name, value in variables.items():
            self.patch.setenv(f"DUAL_{name}", value)

    @property
    def target(self) -> Path:
        """Where the version has to appear."""
        return self.models / str(self.release.version)

    def file(self, name: str) -> Path:
        """A file of the release in the store."""
        return Path(self.store.uri) / self.release.folder() / name


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


@contextmanager
def served(folder: Path, seconds: float = 0.0) -> Iterator[str]:
    """The folder over HTTP; each piece of a body comes after a pause."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Keep the log quiet."""

        def copyfile(self, source: object, outputfile: object) -> None:
            while piece := source.read(1 << 16):  # type: ignore[attr-defined]
                time.sleep(seconds)
                outputfile.write(piece)  # type: ignore[attr-defined]

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Clients may be killed."""

    server = Server(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def leavings(models: Path, target: Path) -> list[Path]:
    return [path for path in models.iterdir() if path != target]


def expected_of(store: Store, release: Release) -> dict[str, bytes]:
    return {name: store.get(f"{release.cloud_folder()}/{name}").data for name in release.models.cloud.files}


def test_a_version_is_staged_whole_and_a_second_time_kept(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    assert files_of(site.target) == expected_of(site.store, site.release)
    assert leavings(site.models, site.target) == []
    assert site.target.stat().st_mode & 0o777 == 0o755
    said = capsys.readouterr().err
    assert f"release {site.release.id} from {site.store.uri}" in said
    assert f"{site.target} is staged" in said
    inode = site.target.stat().st_ino
    assert main() == 0
    assert site.target.stat().st_ino == inode
    assert "is there already" in capsys.readouterr().err


def test_a_release_comes_over_http(site: Site) -> None:
    with served(Path(site.store.uri)) as address:
        site.set(STORE=address, RELEASE_SHA256=sha256_bytes(site.file("release.json").read_bytes()))
        assert main() == 0
    assert files_of(site.target) == expected_of(site.store, site.release)


def test_it_needs_neither_tensorflow_nor_kfp(site: Site) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert site.target.is_dir()


@pytest.mark.parametrize(
    ("variables", "code", "said"),
    [
        ({"STORE": ""}, 2, "DUAL_STORE: is not set.*ConfigMap classifier-store"),
        ({"STORE": "ftp://host/x"}, 2, "is not a store"),
        ({"RELEASE": "template"}, 2, "DUAL_RELEASE: 'template' is no release id.*dual rollout start"),
        ({"RELEASE": "0123456789abc"}, 2, "no release id"),
        ({"RELEASE": "../../../etc"}, 2, "no release id"),
        ({"RELEASE_SHA256": "abc"}, 2, "DUAL_RELEASE_SHA256: 'abc' is no SHA-256"),
        ({"RELEASE_SHA256": "0" * 64}, 4, "release.json: sha256 is [0-9a-f]{64}, the rollout asked for 0{64}"),
        ({"RELEASE": "0123456789ab"}, 4, "there is no release '0123456789ab'.*mounted"),
        ({"STORE": "/nowhere/at/all"}, 4, "/nowhere/at/all: there is no release"),
        ({"STORE": "http://127.0.0.1:9/x"}, 1, "127.0.0.1:9/x/releases/.*can't be reached"),
    ],
)
def test_every_wrong_order_names_what_and_the_way_out(
    site: Site, capsys: pytest.CaptureFixture[str], variables: dict[str, str], code: int, said: str
) -> None:
    site.set(**variables)
    assert main() == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(f"^error: .*{said}", last), last
    assert not site.models.exists() or list(site.models.iterdir()) == []


@pytest.mark.parametrize("change", ["edited", "longer", "shorter", "missing"])
def test_a_damaged_file_leaves_nothing_and_is_named(site: Site, capsys: pytest.CaptureFixture[str], change: str) -> None:
    path = site.file(f"{site.release.models.cloud.path}/variables/variables.index")
    content = path.read_bytes()
    path.unlink()
    if change != "missing":
        path.write_bytes({"edited": b"X" + content[1:], "longer": content + b"X", "shorter": content[:-1]}[change])
    assert main() == 4
    said = capsys.readouterr().err
    assert "variables/variables.index" in said.splitlines()[-1]
    assert "Trying again" not in said
    assert list(site.models.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        (b'"roses"', b'"robes"', "id of the content"),
        (b'"cloud/', b'"clout/', "models.cloud.path"),
        (b'"version":', b'"version":1', "version"),
    ],
)
def test_a_release_json_that_was_edited_is_refused(
    site: Site, capsys: pytest.CaptureFixture[str], old: bytes, new: bytes, key: str
) -> None:
    path = site.file("release.json")
    edited = path.read_bytes().replace(b'"version": ', b'"version":').replace(old, new)
    path.unlink()
    path.write_bytes(edited)
    assert main() == 4
    assert f"{key} is " in capsys.readouterr().err


def test_another_release_under_the_id_is_refused(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.store.put(f"releases/{site.release.id}/release.json", site.other.to_json())
    assert main() == 4
    assert f"id is {site.other.id}, expected {site.release.id}" in capsys.readouterr().err


def test_a_folder_with_another_version_is_refused(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (site.models / "7").mkdir(parents=True)
    assert main() == 2
    assert "holds version 7 as well" in capsys.readouterr().err


def test_what_a_killed_fetcher_left_goes(site: Site) -> None:
    (site.models / f".{site.release.version}.abc" / "variables").mkdir(parents=True)
    (site.models / f".{site.release.version}.abc" / "variables" / "half").write_bytes(b"half")
    assert main() == 0
    assert leavings(site.models, site.target) == []


def test_a_passing_failure_is_tried_again_and_a_lasting_one_ends(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    class Shaky(LocalStore):
        failures = 2

        def get(self, name: str) -> object:  # type: ignore[override]
            if self.failures:
                self.failures -= 1
                raise DualError("no credentials yet", where=self.uri, fix="Wait")
            return super().get(name)

    store = Shaky(Path(site.store.uri))
    site.patch.setattr(staging, "open_store", lambda uri: store)
    assert main() == 0
    assert capsys.readouterr().err.count("Trying again") == 2
    store.failures = 100
    assert main() == 1
    assert store.failures == 96


def test_a_full_disk_says_which_size_to_raise(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28), str(site.target))

    site.patch.setattr(LocalStore, "copy_file", full)
    assert main() == 1
    assert "No space left on device). Raise the volume's sizeLimit" in capsys.readouterr().err


def test_two_fetchers_at_once_stage_one_version(site: Site) -> None:
    fetchers = [subprocess.Popen([sys.executable, "-m", "serving.fetch"], stderr=subprocess.PIPE) for _ in range(3)]
    said = [fetcher.communicate(timeout=60)[1] for fetcher in fetchers]
    assert [fetcher.returncode for fetcher in fetchers] == [0, 0, 0], said
    assert leavings(site.models, site.target) == []


def test_killed_in_the_middle_it_leaves_no_version_and_the_next_one_ends_well(site: Site) -> None:
    big = site.root / "big"
    big.mkdir()
    (big / "saved_model.pb").write_bytes(os.urandom(1 << 20))
    site.release = make_release(site.store, site.root, 7, saved_model=big)
    with served(Path(site.store.uri), seconds=0.1) as address:
        site.set(STORE=address, RELEASE=site.release.id)
        fetcher = subprocess.Popen([sys.executable, "-m", "serving.fetch"], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 30
        while not list(site.models.glob(".*/saved_model.pb")) and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        fetcher.send_signal(signal.SIGKILL)
        fetcher.communicate()
    assert not site.target.exists()
    assert len(list(site.models.iterdir())) == 1
    site.set(STORE=site.store.uri)
    assert main() == 0
    assert leavings(site.models, site.target) == []


def test_memory_does_not_grow_with_the_model(site: Site) -> None:
    def peak() -> int:
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
        return int(done.stdout.splitlines()[-1]) // 1024

    big = site.root / "big"
    big.mkdir()
    with (big / "saved_model.pb").open("wb") as file:
        file.truncate(192 << 20)
    with served(Path(site.store.uri)) as address:
        site.set(STORE=address)
        before = peak()
        site.release = make_release(site.store, site.root, 7, saved_model=big)
        site.set(RELEASE=site.release.id, MODEL_DIR=str(site.root / "other"))
        assert peak() - before < 40
