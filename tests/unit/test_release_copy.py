"""A release in another store is the same release, or none."""

from pathlib import Path

import pytest

from components.core.errors import DataError
from components.core.release import list_releases, verify_release
from components.core.release_copy import copy_release
from components.core.stores import open_store
from components.core.stores.local import LocalStore
from tests.release_pieces import make_store


def test_a_copy_verifies_and_repeats(tmp_path: Path) -> None:
    source, (release, _) = make_store(tmp_path, 2)
    target = open_store(str(tmp_path / "other"))
    for _ in range(2):
        assert copy_release(source, target, release.id) == release
    assert [each.id for each in list_releases(target)] == [release.id]
    assert verify_release(target, release.id) == []


def test_a_copy_that_was_cut_off_is_no_release_and_is_completed(tmp_path: Path) -> None:
    source, (release,) = make_store(tmp_path, 1)

    class Cut(LocalStore):
        def put_if_absent(self, name: str, data: bytes) -> bool:
            if name.endswith("release.json"):
                raise InterruptedError
            return super().put_if_absent(name, data)

    with pytest.raises(InterruptedError):
        copy_release(source, Cut(tmp_path / "other"), release.id)
    target = open_store(str(tmp_path / "other"))
    assert list_releases(target) == []
    copy_release(source, target, release.id)
    assert verify_release(target, release.id) == []


def test_damage_on_either_side_is_named(tmp_path: Path) -> None:
    source, (release,) = make_store(tmp_path, 1)
    target = open_store(str(tmp_path / "other"))
    target.put(f"{release.folder()}/labels.txt", b"something else")
    with pytest.raises(DataError, match="the copy differs"):
        copy_release(source, target, release.id)
    source.put(f"{release.folder()}/labels.txt", b"rotten")
    with pytest.raises(DataError, match="the release is damaged"):
        copy_release(source, open_store(str(tmp_path / "third")), release.id)
