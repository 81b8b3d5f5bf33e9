"""LiteRT.js comes from npm once, as pinned or not at all; the registry here is a local server with packages of our own."""

import hashlib
import io
import os
import tarfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner

from components.core.download import Patience
from components.core.errors import DataError, DualError, UsageError
from pipelines.cli.web import command
from serving.web import vendor
from serving.web.vendor import PACKAGES, Package, is_vendored, vendored

INDEX = b'import { createWasmLib } from "@litertjs/wasm-utils";\nexport const ours = 1;\n'


@dataclass
class Registry:
    """npm's registry, as far as tarballs go."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@contextmanager
def serve(registry: Registry) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            registry.asked.append(self.path)
            body = registry.files.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    registry.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield
    server.shutdown()
    server.server_close()


def tarball(files: dict[str, bytes], **special: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            (info := tarfile.TarInfo(name)).size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in special.values():
            tar.addfile(info)
    return buffer.getvalue()


def pinned(name: str, data: bytes, files: dict[str, str]) -> Package:
    integrity = f"sha512-{b64encode(hashlib.sha512(data).digest()).decode()}"
    return Package(name=name, version="1.0.0", sha256=hashlib.sha256(data).hexdigest(), integrity=integrity, files=files)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    core = tarball({"package/dist/index.js": INDEX, "package/wasm/a.wasm": b"\0asm", "package/dist/index.js.map": b"not taken"})
    utils = tarball({"package/dist/index.js": b"export const createWasmLib = 1;\n"})
    packages = (
        pinned("@litertjs/core", core, {"package/dist/index.js": "core/index.js", "package/wasm/a.wasm": "core/wasm/a.wasm"}),
        pinned("@litertjs/wasm-utils", utils, {"package/dist/index.js": "wasm-utils/index.js"}),
    )
    monkeypatch.setattr(vendor, "PACKAGES", packages)
    monkeypatch.setattr("components.core.download.Patience", lambda: Patience(attempts=2, first_wait=0.01, timeout=5))
    registry = Registry(files={"/@litertjs/core/-/core-1.0.0.tgz": core, "/@litertjs/wasm-utils/-/wasm-utils-1.0.0.tgz": utils})
    with serve(registry):
        yield registry


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def quiet(text: str) -> None:
    del text


def test_the_named_files_are_taken_and_imports_lead_to_each_other(registry: Registry, tmp_path: Path) -> None:
    folder = vendored(tmp_path / "litert", registry=registry.url, say=quiet)
    assert files(folder) == ["core/index.js", "core/wasm/a.wasm", "vendor.json", "wasm-utils/index.js"]
    assert b'from "../wasm-utils/index.js"' in (folder / "core" / "index.js").read_bytes()
    assert is_vendored(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["litert"]
    assert folder.stat().st_mode & 0o055 == 0o055


def test_a_second_call_asks_nothing(registry: Registry, tmp_path: Path) -> None:
    vendored(tmp_path / "litert", registry=registry.url, say=quiet)
    asked = len(registry.asked)
    vendored(tmp_path / "litert", registry=registry.url, say=quiet)
    assert len(registry.asked) == asked == 2


def test_an_older_version_is_replaced(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "litert").mkdir()
    (tmp_path / "litert" / "vendor.json").write_text('{"package": "@litertjs/core", "version": "0.9.0"}')
    (tmp_path / "litert" / "old.js").write_text("old")
    assert "old.js" not in files(vendored(tmp_path / "litert", registry=registry.url, say=quiet))


@pytest.mark.parametrize("mark", [None, "{}", '{"package": "theirs"}', "[1]", "no json"])
def test_a_folder_with_somebodys_files_is_left_alone(registry: Registry, tmp_path: Path, mark: str | None) -> None:
    (folder := tmp_path / "documents").mkdir()
    (folder / "thesis.txt").write_text("years of work")
    if mark is not None:
        (folder / "vendor.json").write_text(mark)
    before = files(folder)
    with pytest.raises(UsageError, match="holds something else than LiteRT"):
        vendored(folder, registry=registry.url, say=quiet)
    assert (files(folder), registry.asked) == (before, [])
    assert [path.name for path in tmp_path.iterdir()] == ["documents"]


def test_an_empty_folder_is_taken_also_by_a_link(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    vendored(tmp_path / "link", registry=registry.url, say=quiet)
    assert (tmp_path / "link").is_symlink()
    assert is_vendored(tmp_path / "real")


def test_another_content_or_none_leaves_nothing(registry: Registry, tmp_path: Path) -> None:
    name = "/@litertjs/wasm-utils/-/wasm-utils-1.0.0.tgz"
    good = registry.files[name]
    for body, error in ((good[:-3], DualError), (tarball({"package/dist/index.js": b"evil"}), DataError), (None, DualError)):
        registry.files.pop(name)
        if body is not None:
            registry.files[name] = body
        else:
            registry.files["elsewhere"] = b""
        with pytest.raises(error):
            vendored(tmp_path / "litert", registry=registry.url, say=quiet)
        assert list(tmp_path.iterdir()) == []
        registry.files.setdefault(name, good)


def test_a_registry_that_is_not_there_is_said(tmp_path: Path, registry: Registry) -> None:
    del registry
    with pytest.raises(DualError, match=r"127\.0\.0\.1:9"):
        vendored(tmp_path / "litert", registry="http://127.0.0.1:9", say=quiet)
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_the_place_of_a_file_is_refused(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tarfile.TarInfo("package/dist/index.js")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    data = tarball({}, link=link)
    registry.files["/@litertjs/core/-/core-1.0.0.tgz"] = data
    taken = {"package/dist/index.js": "core/index.js"}
    monkeypatch.setattr(vendor, "PACKAGES", (pinned("@litertjs/core", data, taken),))
    with pytest.raises(DataError, match=r"lacks the file package/dist/index\.js"):
        vendored(tmp_path / "litert", registry=registry.url, say=quiet)
    assert list(tmp_path.iterdir()) == []


def test_both_digests_count(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    first, second = vendor.PACKAGES
    monkeypatch.setattr(vendor, "PACKAGES", (replace(first, integrity="sha512-AAAA"), second))
    with pytest.raises(DataError, match="has integrity sha512-"):
        vendored(tmp_path / "litert", registry=registry.url, say=quiet)
    assert list(tmp_path.iterdir()) == []


def test_npms_own_setting_names_the_registry(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "npm_config_registry", registry.url)
    done = CliRunner().invoke(command, ["vendor", "--to", str(tmp_path / "litert")])
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, str(tmp_path / "litert"))


def test_offline_says_what_is_missing(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"LiteRT\.js is not there"):
        CliRunner().invoke(command, ["--offline", "--vendor", str(tmp_path / "litert"), "--store", str(tmp_path)], catch_exceptions=False)
    assert registry.asked == []


def test_what_is_pinned_is_npms() -> None:
    assert [(each.name, each.version) for each in PACKAGES] == [("@litertjs/core", "2.5.3"), ("@litertjs/wasm-utils", "2.5.3")]
    address = PACKAGES[0].address("https://registry.npmjs.org/")
    assert address == "https://registry.npmjs.org/@litertjs/core/-/core-2.5.3.tgz"
