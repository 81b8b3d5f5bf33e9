"""LiteRT.js from npm: fetched once at build or first use, checked, and served from this origin. Nothing of it is in the repository.

The page loads no code from elsewhere, so the runtime that executes the model lies beside it: the module, its loader, and WebAssembly for
the CPU with and without relaxed SIMD. (The variants with threads and JSPI are left out: the models here take milliseconds.)
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from components.core.download import download
from components.core.errors import DataError, DualError, UsageError
from components.core.meter import Say

REGISTRY = "https://registry.npmjs.org"
_LARGEST = 64 << 20
_MARK = "vendor.json"


@dataclass(frozen=True)
class Package:
    """One package of npm, pinned by its digests, and which of its files are taken to where."""

    name: str
    version: str
    sha256: str
    """Of the tarball, in hex."""
    integrity: str
    """The same file's Subresource Integrity, as npm's own lock files have it."""
    files: dict[str, str]

    def address(self, registry: str) -> str:
        """Where a registry has the tarball (docs of npm: `dist.tarball`)."""
        return f"{registry.rstrip('/')}/{self.name}/-/{self.name.rpartition('/')[2]}-{self.version}.tgz"


_WASM = ("litert_wasm_internal.js", "litert_wasm_internal.wasm", "litert_wasm_compat_internal.js", "litert_wasm_compat_internal.wasm")
PACKAGES = (
    Package(
        name="@litertjs/core",
        version="2.5.3",
        sha256="a97660833e9e7e1063c95e12016718881240b14f7438728a2f62785e912d30fd",
        integrity="sha512-PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
        files={"package/dist/index.js": "core/index.js", **{f"package/wasm/{name}": f"core/wasm/{name}" for name in _WASM}},
    ),
    Package(
        name="@litertjs/wasm-utils",
        version="2.5.3",
        sha256="ce2a1f8379c067be49e59752e5a7f40db6be09f6e497f0f11e59f17b515366a7",
        integrity="sha512-4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
        files={"package/dist/index.js": "wasm-utils/index.js"},
    ),
)
_BARE = (b'from "@litertjs/wasm-utils"', b'from "../wasm-utils/index.js"')
"""Browsers know no package names, and an import map would need an inline script, which the page's policy forbids."""


def vendored(folder: Path | None = None, *, registry: str = "", say: Say | None = None) -> Path:
    """The folder with LiteRT.js, fetched if it is not there yet: `core/index.js`, `core/wasm/`, `wasm-utils/`, vendor.json.

    `folder` defaults to one in the user's cache; `registry` to $npm_config_registry, else npm's own. Whole or not at all. Raises what
    `download` raises, `DataError` for a tarball of another digest or content, `UsageError` for a folder with something else in it.
    """
    target = folder or default_folder()
    if not is_vendored(target):
        _fetch(_free(target), registry or _configured(), say)
    return target


def default_folder() -> Path:
    """Where it lies in the user's cache."""
    return user_cache_path("dual-deploy") / "web" / f"litert-{PACKAGES[0].version}"


def is_vendored(folder: Path) -> bool:
    """Whether the folder holds exactly this version."""
    mark = folder / _MARK
    return mark.is_file() and mark.read_text() == _mark()


def _free(target: Path) -> Path:
    """The folder without links, if it may be replaced: new, empty, or LiteRT.js of another version. Somebody's own files never are."""
    try:
        used = target.exists() and any(target.iterdir())
    except OSError as error:
        raise UsageError(f"can't be read ({error.strerror})", where=str(target), fix="Give another folder") from error
    if used and not _is_ours(target / _MARK):
        raise UsageError("holds something else than LiteRT.js", where=str(target), fix="Give a new or empty folder; nothing was changed")
    return target.resolve()


def _is_ours(mark: Path) -> bool:
    try:
        found = json.loads(mark.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("package") == PACKAGES[0].name


def _configured() -> str:
    # npm's own spelling, and the one of everybody else.
    return os.environ.get("npm_config_registry") or os.environ.get("NPM_CONFIG_REGISTRY") or REGISTRY  # noqa: SIM112


def _mark() -> str:
    core = PACKAGES[0]
    packages = [{"name": each.name, "version": each.version, "integrity": each.integrity} for each in PACKAGES]
    return json.dumps({"package": core.name, "version": core.version, "entry": "core/index.js", "wasm": "core/wasm/", "packages": packages})


def _fetch(target: Path, registry: str, say: Say | None) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise DualError(f"can't be written ({error.strerror})", where=str(target), fix="Give another folder with --vendor") from error
    try:
        for package in PACKAGES:
            name = f"{package.name.rpartition('/')[2]}-{package.version}.tgz"
            _unpack(package, download(package.address(registry), staging / "packages" / name, package.sha256, say=say), staging)
        shutil.rmtree(staging / "packages")
        (staging / _MARK).write_text(_mark())
        _put(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _unpack(package: Package, archive: Path, folder: Path) -> None:
    """Only the files that are named, each a plain one: not `extractall`, whose filter Python 3.11.2 lacks."""
    data = archive.read_bytes()
    found = f"sha512-{b64encode(hashlib.sha512(data).digest()).decode()}"
    where = f"{package.name} {package.version}"
    if found != package.integrity:
        raise DataError(f"has integrity {found}, not {package.integrity}", where=where, fix="Don't use this registry; tell its operators")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for name, place in package.files.items():
            member = tar.getmember(name) if name in tar.getnames() else None
            content = tar.extractfile(member) if member and member.isfile() and member.size <= _LARGEST else None
            if content is None:
                raise DataError(f"lacks the file {name}", where=where, fix="Another version? Report it")
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_bytes(content.read().replace(*_BARE))


def _put(staging: Path, target: Path) -> None:
    """Rename; a process that was faster with the same is as good."""
    staging.chmod(0o755)
    if target.exists() and not is_vendored(target):
        shutil.rmtree(target)
    try:
        staging.rename(target)
    except OSError as error:
        if not is_vendored(target):
            raise DualError(f"can't be written ({error.strerror})", where=str(target), fix="Give another folder with --vendor") from error
