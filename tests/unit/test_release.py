"""The release contract: ids, files, digests, differences, downloads."""

import json
from pathlib import Path

import jsonschema
import pytest

from components.core.errors import DataError
from components.core.release import (
    Release,
    diff_releases,
    fetch_release,
    list_releases,
    read_baseline,
    read_release,
    release_version,
    stage_cloud,
    verify_release,
    version_release,
)
from components.core.release_schema import SCHEMA_FILE, release_schema
from components.core.stores import open_store
from components.publish_mobile.publication import publish_release
from tests.release_pieces import make_release, make_store


def test_id_names_the_content_and_is_the_version(tmp_path: Path) -> None:
    store, (release, other) = make_store(tmp_path, 2)
    again = make_release(open_store(str(tmp_path / "elsewhere")), tmp_path / "again", 0)
    assert release.id == again.id != other.id
    assert release.version == int(release.id, 16) < 1 << 53
    assert version_release(release.version) == release.id
    assert read_release(store, release.id) == release


def test_leading_zeros_of_an_id_survive_the_version() -> None:
    assert version_release(release_version("00000000002a")) == "00000000002a"


def test_release_json_satisfies_its_published_schema(tmp_path: Path) -> None:
    _, (release,) = make_store(tmp_path, 1)
    schema = json.loads(SCHEMA_FILE.read_text())
    assert schema == release_schema(), "run: python -m components.core.release_schema"
    jsonschema.validate(json.loads(release.to_json()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(release.to_json()) | {"id": "not hex"}, schema)


def test_a_release_exists_when_its_release_json_does(tmp_path: Path) -> None:
    store, (release,) = make_store(tmp_path, 1)
    store.put("releases/0123456789ab/labels.txt", b"daisy\n")
    assert [each.id for each in list_releases(store)] == [release.id]
    with pytest.raises(DataError, match="no release '0123456789ab'"):
        read_release(store, "0123456789ab")


def test_malformed_release_json_names_the_key(tmp_path: Path) -> None:
    store, (release,) = make_store(tmp_path, 1)
    store.put(f"releases/{release.id}/release.json", release.to_json().replace(b'"labels_digest"', b'"labels_hash"'))
    with pytest.raises(DataError, match="labels_digest: Field required"):
        read_release(store, release.id)


def test_baseline_is_what_the_channel_names(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    assert read_baseline(store) is None
    publish_release(store, first.id)
    publish_release(store, second.id)
    assert read_baseline(store) == second


def test_verify_is_silent_about_a_whole_release(tmp_path: Path) -> None:
    store, (release,) = make_store(tmp_path, 1)
    assert verify_release(store, release.id) == []


def test_verify_names_every_changed_missing_and_added_file(tmp_path: Path) -> None:
    store, (release,) = make_store(tmp_path, 1)
    cloud = release.cloud_folder()
    store.put(f"{cloud}/saved_model.pb", b"graph X")
    store.put(f"{cloud}/variables/variables.index", b"longer than before")
    store.put(f"{cloud}/extra.bin", b"")
    store.delete(f"releases/{release.id}/mobile/model.tflite")
    store.put(f"releases/{release.id}/labels.txt", b"daisy\nroses\ntulipS\n")
    found = "\n".join(verify_release(store, release.id))
    for expected in (
        "saved_model.pb: sha256",
        "variables.index: 18 bytes",
        "extra.bin: unexpected",
        "model.tflite: missing",
        "labels.txt: sha",
    ):
        assert expected in found
    assert len(found.splitlines()) == 5


@pytest.mark.parametrize(
    ("key", "value"),
    [("version", 7), ("labels_digest", "e" * 64), ("policy", {"threshold": 0.5}), ("id", "0123456789ab")],
)
def test_verify_sees_an_edited_release_json(tmp_path: Path, key: str, value: object) -> None:
    store, (release,) = make_store(tmp_path, 1)
    edited = json.loads(release.to_json()) | {key: value}
    store.put(f"releases/{release.id}/release.json", json.dumps(edited).encode())
    assert any(key in line or "id of the content" in line for line in verify_release(store, release.id))


def test_report_and_card_are_outside_the_digest(tmp_path: Path) -> None:
    store, (release,) = make_store(tmp_path, 1)
    store.put(f"releases/{release.id}/model_card.md", b"edited by a person")
    assert verify_release(store, release.id) == []


def test_diff_lists_the_leaves_that_differ(tmp_path: Path) -> None:
    _, (one, two) = make_store(tmp_path, 2)
    changed = {key: (a, b) for key, a, b in diff_releases(one, two)}
    assert changed["run_id"] == ("run-0", "run-1")
    assert "models.mobile.files.model.tflite.sha256" in changed
    assert "labels" not in changed
    assert diff_releases(one, one) == []


def test_fetch_brings_the_whole_release(tmp_path: Path) -> None:
    store, (release,) = make_store(tmp_path, 1)
    fetch_release(store, release.id, tmp_path / "copy")
    assert (tmp_path / "copy" / "mobile" / "model.tflite").read_bytes() == b"TFL3 0"
    assert Release.model_validate_json((tmp_path / "copy" / "release.json").read_bytes()) == release
    assert {path.name for path in tmp_path.iterdir()} == {"artifacts-0", "store", "copy"}
    (tmp_path / "copy" / "labels.txt").write_bytes(b"edited in place")
    assert verify_release(store, release.id) == []


def test_fetch_leaves_nothing_of_a_damaged_release(tmp_path: Path) -> None:
    store, (release,) = make_store(tmp_path, 1)
    store.put(f"releases/{release.id}/golden/00-roses.jpg", b"another picture")
    with pytest.raises(DataError, match="dual release verify"):
        fetch_release(store, release.id, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert not list(tmp_path.glob(".copy*"))


def test_stage_makes_a_version_folder_once(tmp_path: Path) -> None:
    store, (release,) = make_store(tmp_path, 1)
    models = tmp_path / "models"
    assert stage_cloud(store, release.id, models) == stage_cloud(store, release.id, models) == release.version
    assert [path.name for path in models.iterdir()] == [str(release.version)]
    assert (models / str(release.version) / "saved_model.pb").read_bytes() == b"graph 0"


def test_null_metrics_are_left_out(tmp_path: Path) -> None:
    _, (release,) = make_store(tmp_path, 1)
    assert release.evaluations.cloud.slices["source=web"] == {"accuracy": 0.92, "examples": 15}
