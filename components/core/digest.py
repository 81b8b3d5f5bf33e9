"""SHA-256 digests of bytes, files, JSON values and source code."""

import hashlib
import json
from collections.abc import Iterable
from importlib import util
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces so that memory stays flat."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one JSON spelling of `value`: sorted keys, no spaces, UTF-8, NaN refused (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of `canonical_json(value)`."""
    return sha256_bytes(canonical_json(value))


def sha256_tree(root: Path) -> str:
    """Digest of every file below `root` by relative name and content; times and order don't matter."""
    return sha256_json({p.relative_to(root).as_posix(): sha256_file(p) for p in root.rglob("*") if p.is_file()})


def sha256_source(packages: Iterable[str]) -> str:
    """Digest of the Python source of importable packages: a changed step is not served from its cache."""
    return sha256_json({name: _package_digest(name) for name in packages})


def _package_digest(name: str) -> str:
    spec = util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(name)
    origin = Path(spec.origin)
    files = sorted(origin.parent.glob("*.py")) if origin.name == "__init__.py" else [origin]
    return sha256_json({file.name: sha256_file(file) for file in files})
