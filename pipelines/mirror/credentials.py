"""Whom to be at a registry, from the files and helpers that `docker login` and `podman login` leave.

config.json: docs.docker.com "docker login", section "Credential stores"; auth.json: man page containers-auth.json(5). Nothing is written,
and no secret is printed.
"""

import binascii
import json
import os
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.core.errors import UsageError
from pipelines.mirror.reference import DOCKER_HUB

_HUB_KEY = "https://index.docker.io/v1/"
_HELPER_SECONDS = 60


@dataclass(frozen=True)
class Credentials:
    """A user and a password, or a token that buys tokens; neither is shown when printed."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


def find_credentials(registry: str, repository: str) -> Credentials | None:
    """The credentials of the most specific entry for a repository, in the first file that has one; None to stay anonymous."""
    for path in _files():
        if path.is_file() and (found := _of_file(path, registry, repository)):
            return found
    return None


def _files() -> Iterator[Path]:
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
    yield Path(os.environ.get("DOCKER_CONFIG", "~/.docker")).expanduser() / "config.json"
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers" / "auth.json"
    yield Path("~/.config/containers/auth.json").expanduser()


def _of_file(path: Path, registry: str, repository: str) -> Credentials | None:
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"can't be read ({type(error).__name__})", where=str(path), fix="Log in again: docker login REGISTRY") from None
    if helper := config.get("credHelpers", {}).get(registry):
        return _ask(helper, registry)
    entries = config.get("auths", {})
    for key in _keys(registry, repository):
        if (entry := entries.get(key)) and (found := _of_entry(entry, path, key)):
            return found
    if store := config.get("credsStore"):
        return _ask(store, _HUB_KEY if registry == DOCKER_HUB else registry)
    return None


def _keys(registry: str, repository: str) -> Iterator[str]:
    """From the most specific: the repository, the folders above it, the registry, and the older spellings of that."""
    parts = [registry, *repository.split("/")]
    yield from ("/".join(parts[:length]) for length in range(len(parts), 0, -1))
    yield from (f"https://{registry}", f"https://{registry}/v1/", f"https://{registry}/v2/")
    if registry == DOCKER_HUB:
        yield from (_HUB_KEY, "index.docker.io")


def _of_entry(entry: dict[str, Any], path: Path, key: str) -> Credentials | None:
    if token := entry.get("identitytoken"):
        return Credentials(identity_token=token)
    if entry.get("username"):
        return Credentials(entry["username"], entry.get("password", ""))
    if not entry.get("auth"):
        return None
    try:
        user, _, password = b64decode(entry["auth"], validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise UsageError(f"the entry for {key} is damaged", where=str(path), fix=f"Log in again: docker login {key}") from None
    return Credentials(user, password.rstrip("\0"))


def _ask(helper: str, server: str) -> Credentials | None:
    """Ask `docker-credential-<helper>`; None if it knows nobody there."""
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, "get"], input=server, capture_output=True, text=True, timeout=_HELPER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        fix = "Install it, or remove it from Docker's config.json and log in again"
        raise UsageError(f"did not answer ({type(error).__name__})", where=program, fix=fix) from None
    if done.returncode:
        # Helpers say so on standard output, and for a server that they don't know it is no failure.
        if "credentials not found" in done.stdout:
            return None
        raise UsageError(f"failed with exit code {done.returncode}", where=program, fix=f"Try: echo {server} | {program} get") from None
    answer = json.loads(done.stdout)
    if answer.get("Username") == "<token>":
        return Credentials(identity_token=answer["Secret"])
    return Credentials(answer["Username"], answer["Secret"])
