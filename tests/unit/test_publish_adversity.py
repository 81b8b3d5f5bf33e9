"""A publisher on a full disk, and publishers whose clocks are wrong: the channel stays whole, and sequences decide."""

import errno
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from components.core.channel import read_channel
from components.core.errors import DualError
from components.publish_mobile import publication
from components.publish_mobile.history import read_history
from components.publish_mobile.publication import publish_release, undo_publication
from components.publish_mobile.verify import verify_store
from tests.release_pieces import make_store

WRITES = 4
"""Blob, version record, history, channel: each flushes its file and its folder."""


@pytest.mark.parametrize("call", range(1, 2 * WRITES + 1))
def test_a_full_disk_at_any_write_leaves_the_old_channel_and_the_next_run_publishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    real, count = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal count
        count += 1
        if count == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DualError, match="No space left"):
        publish_release(store, second.id)
    monkeypatch.setattr(os, "fsync", real)
    found = read_channel(store)
    assert found is not None
    # The last flush is of the folder, after the rename: the new channel is there by then.
    assert found[0].release == (first.id if call < 2 * WRITES else second.id)
    assert verify_store(store) == []
    publish_release(store, second.id)
    assert [entry.release for entry in read_history(store)] == [first.id, second.id]
    assert verify_store(store) == []
    assert [path for path in (tmp_path / "store" / ".tmp").iterdir() if path.name != "lock"] == []


class Clock(datetime):
    """A clock that is wrong by decades."""

    year_told = 1970

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime(cls.year_told, 1, 1, tzinfo=tz or UTC)


def test_publishers_with_wrong_clocks_go_on_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, releases = make_store(tmp_path, 3)
    monkeypatch.setattr(publication, "datetime", Clock)
    for year, release in zip((2099, 1970, 2026), releases, strict=True):
        Clock.year_told = year
        publish_release(store, release.id)
    assert [(entry.sequence, entry.at[:4]) for entry in read_history(store)] == [(1, "2099"), (2, "1970"), (3, "2026")]
    assert undo_publication(store, "")[0].release == releases[1].id
    assert verify_store(store) == []
