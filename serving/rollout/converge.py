"""Bringing one server to a desired state without a moment in which a label points nowhere."""

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass

from components.core.errors import DualError, RolloutError
from components.core.release import release_version, stage_cloud
from components.core.stores import Store
from serving.rollout.local import Desired, desired
from serving.rollout.servers import Server

_UNLOAD_TIMEOUT = 20.0


@dataclass(frozen=True)
class _Now:
    available: frozenset[int]
    labels: dict[str, int]


def converge(store: Store, server: Server, want: Desired, timeout: float) -> bool:
    """Make `server` do what `want` says; True if anything had to change, and no request was sent if not.

    Order: stage the files, load what is missing, move the labels once that is AVAILABLE, unload what nobody wants. Each part compares
    first, so it may be repeated by any process. Raises `DualError` if a version can't be loaded within `timeout` seconds.
    """
    now = _look(server, want)
    versions = frozenset(_stage(store, server, release) for release in want.loaded)
    labels = {label: release_version(release) for label, release in want.labels().items()}
    if not versions <= now.available:
        server.reload(sorted(versions | now.available), now.labels, timeout)
        server.wait_available(sorted(versions), timeout)
    moved = labels != now.labels
    if moved:
        server.reload(sorted(versions | now.available), labels, timeout)
        for label, version in labels.items():
            server.wait_label(label, version, timeout)
    # Loading took time: what was unwanted before it may be a new rollout's candidate by now.
    if now.available - versions and desired(store) == want:
        server.reload(sorted(versions), labels, timeout)
    return moved or versions != now.available


def converge_all(store: Store, servers: list[Server], want: Desired, timeout: float) -> list[str]:
    """`converge` every server; returns what went wrong with those that could not follow (they catch up by their own polling)."""
    problems = []
    for server in servers:
        try:
            converge(store, server, want, timeout)
        except DualError as error:
            problems.append(str(error))
    return problems


def remove_version(server: Server, release: str) -> None:
    """Delete a staged version that the server no longer holds; a version still in use is left alone."""
    version, deadline = release_version(release), time.monotonic() + _UNLOAD_TIMEOUT
    while time.monotonic() < deadline:
        if server.states().get(version, ("END", ""))[0] == "END":
            shutil.rmtree(server.model_dir / str(version), ignore_errors=True)
            return
        time.sleep(0.1)


def _look(server: Server, want: Desired) -> _Now:
    states = server.states()
    labels = {}
    # Only these labels are ours; a person's own labels on the same server can't be listed, TF Serving has no call for that.
    for label in {"stable", "canary", *want.labels()}:
        with suppress(DualError):
            if (version := server.label_version(label)) is not None:
                labels[label] = version
    return _Now(frozenset(v for v, (state, _) in states.items() if state == "AVAILABLE"), labels)


def _stage(store: Store, server: Server, release: str) -> int:
    if not server.model_dir.is_dir():
        fix = "A local rollout reaches servers on this machine; stop that one or remove its entry in serving/servers/"
        raise RolloutError(f"its model folder {server.model_dir} is not on this machine", where=str(server), fix=fix)
    return stage_cloud(store, release, server.model_dir)
