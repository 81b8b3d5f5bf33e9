"""`dual publish` and `dual keys` as a person types them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from components.core.release import Release
from components.core.stores import Store
from pipelines.cli import cli
from tests.release_pieces import make_store


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DUAL_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


@pytest.fixture
def made(tmp_path: Path) -> tuple[Store, list[Release]]:
    return make_store(tmp_path, 2)


def dual(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, list(arguments), prog_name="dual")
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def test_a_release_reaches_all_devices_step_by_step(made: tuple[Store, list[Release]]) -> None:
    store, (first, second) = made
    here = ("--store", store.uri)
    assert f"release {first.id} for 100 % of the devices" in dual("publish", "start", first.id, *here).output
    said = dual("publish", "start", second.id, "--percent", "5", *here).output
    assert f"release {second.id} for 5 % of the devices; the others use {first.id}" in said
    assert "5 % of the devices, paused" in dual("publish", "pause", "--reason", "crashes", *here).output
    assert "paused" in dual("publish", "status", *here).output
    assert "5 %" in dual("publish", "resume", *here).output
    assert "50 %" in dual("publish", "widen", "50", *here).output
    status = json.loads(dual("publish", "status", "--json", *here).output)
    assert (status["channel"]["sequence"], status["channel"]["staging"]["basis_points"]) == (5, 5000)
    assert list(status["signatures"].values()) == ["good"]
    assert first.id in dual("publish", "undo", "--reason", "worse", *here).output
    rows = [json.loads(line) for line in dual("publish", "history", "--json", *here).output.splitlines()]
    assert [row["action"] for row in rows] == ["publish", "publish", "pause", "resume", "widen", "undo"]
    assert all(row["took_effect"] for row in rows)
    text = dual("publish", "history", *here).output
    assert "crashes" in text
    assert "never took effect" not in text


def test_testers_follow_another_channel(made: tuple[Store, list[Release]]) -> None:
    store, (first, second) = made
    beta = ("--channel", "beta", "--store", store.uri)
    dual("publish", "start", first.id, "--store", store.uri)
    assert f"beta: sequence 1, release {second.id} for 50 % of the devices" in dual("publish", "start", "--percent", "50", *beta).output
    assert "beta: sequence 2" in dual("publish", "widen", "100", *beta).output
    assert "cloud     as the channel stable says" in dual("publish", "status", *beta).output
    assert "there is none before it" in dual("publish", "undo", *beta, code=2).output
    assert dual("publish", "history", *beta).output.count(second.id) == 2
    assert "stable, sequence 1" in dual("publish", "status", "--store", store.uri).output
    assert "beta" not in dual("publish", "history", "--store", store.uri).output


def test_status_of_a_calm_channel_says_what_an_undo_would_do(made: tuple[Store, list[Release]]) -> None:
    store, (first, second) = made
    for release in (first, second):
        dual("publish", "start", release.id, "--store", store.uri)
    text = dual("publish", "status", "--store", store.uri).output
    assert f"dual publish undo goes back to {first.id}" in text
    assert "(good)" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status"], "nothing was published"),
        (["widen", "50"], "nothing was published"),
        (["undo"], "nothing was published"),
        (["start", "--percent", "101"], "no percentage"),
        (["start", "--percent", "1.234"], "no percentage"),
        (["gc", "--keep", "0"], "not in the range"),
    ],
)
def test_wrong_use_exits_2(made: tuple[Store, list[Release]], arguments: list[str], words: str) -> None:
    assert words in dual("publish", *arguments, "--store", made[0].uri, code=2).output


def test_garbage_is_shown_first_and_removed_when_asked(made: tuple[Store, list[Release]]) -> None:
    store, releases = made
    for release in releases:
        dual("publish", "start", release.id, "--store", store.uri)
    blob = f"mobile/blobs/{releases[0].mobile_file().sha256}.tflite"
    here = ("--keep", "1", "--days", "0", "--store", store.uri)
    shown = dual("publish", "gc", *here).output
    assert f"garbage {blob}" in shown
    assert "Nothing was changed" in shown
    assert store.exists(blob)
    assert json.loads(dual("publish", "gc", "--delete", "--json", *here).output)["names"][-1] == blob
    assert not store.exists(blob)
    assert "garbage" not in dual("publish", "gc", *here).output


def test_keys_are_made_listed_rotated_and_sign(made: tuple[Store, list[Release]], keys: Path) -> None:
    store, releases = made
    assert "no keys" in dual("keys", "list").output
    key = json.loads(dual("keys", "new", "--name", "flowers", "--json").output)
    assert key["name"] == "flowers"
    assert json.loads(dual("keys", "list", "--json").output) == {"schema": "dual.keyring/v1", "keys": [key]}
    dual("publish", "start", releases[0].id, "--store", store.uri)
    assert "signs until 20" in dual("keys", "rotate", "--overlap-days", "30").output
    dual("publish", "sign", "--store", store.uri, "--reason", "rotation")
    status = json.loads(dual("publish", "status", "--json", "--store", store.uri).output)
    assert list(status["signatures"].values()) == ["good", "good"]
    listed = dual("keys", "list").output
    assert f"{key['key_id']}  since" in listed
    assert listed.count("private half here") == 2
    (keys / f"{key['key_id']}.pem").unlink()
    assert "public half only" in dual("keys", "list").output


def test_rotation_of_nothing_exits_2() -> None:
    assert "dual keys new" in dual("keys", "rotate", code=2).output


def test_the_key_of_local_stores_is_listed_as_such(made: tuple[Store, list[Release]]) -> None:
    store, releases = made
    dual("publish", "start", releases[0].id, "--store", store.uri)
    assert "local stores only" in dual("keys", "list").output
    assert json.loads(dual("keys", "list", "--json").output)["keys"] == []
    assert len(json.loads(dual("keys", "list", "--json", "--local").output)["keys"]) == 1


def test_who_publishes_without_a_key_is_told_what_devices_make_of_it(
    made: tuple[Store, list[Release]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUAL_PUBLISH_MOBILE__SIGNING", "unsigned")
    store, (release, *_) = made
    told = dual("publish", "start", release.id, "--store", store.uri.removeprefix("file://"))
    assert "warning: the channel is unsigned" in told.stderr
    assert "devices refuse it" in told.stderr


def test_a_run_that_could_not_be_signed_in_the_end_does_not_begin(tmp_path: Path) -> None:
    refused = dual("run", "--data", "drawn", "--store", str(tmp_path), "--set", "publish_mobile.signing=required", code=2)
    assert "there is no key to sign the channel with" in refused.stderr
    assert not (tmp_path / "runs").exists()
