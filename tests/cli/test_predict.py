"""`dual predict` takes the mobile model as a device does, and says which model answered and why."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from components.core.stores import open_store
from components.publish_mobile.publication import publish_release
from pipelines.cli import cli
from tests.client.device_site import Site, make_site
from tests.conftest import tiny_jpeg
from tests.release_pieces import CHANNEL, LABELS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("site"), 2)


@pytest.fixture
def site(made: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DUAL_KEYS", str(tmp_path / "keys"))
    shutil.copytree(made.store.uri, tmp_path / "store")
    site = Site(open_store(str(tmp_path / "store")), made.releases, made.key)
    site.publish(0)
    (tmp_path / "keyring.json").write_bytes(site.trust.keyring.to_json())
    (tmp_path / "image.jpg").write_bytes(tiny_jpeg(1, 5))
    return site


def predict(tmp_path: Path, *arguments: str, code: int = 0, model: str = "mobile") -> Result:
    command = ["predict", str(tmp_path / "image.jpg"), "--store", str(tmp_path / "store"), "--model", model, *arguments]
    result = CliRunner().invoke(cli, command, prog_name="dual")
    assert result.exit_code == code, result.output
    return result


def test_a_channel_of_unknown_signers_is_refused_unless_their_keyring_is_given(site: Site, tmp_path: Path) -> None:
    refused = predict(tmp_path, code=4).output
    assert "this device trusts no key at all" in refused
    assert "--keys" in refused
    row = json.loads(predict(tmp_path, "--json", "--keys", str(tmp_path / "keyring.json")).output)
    assert (row["label"], row["model"], row["release"]) == (LABELS[1], "mobile", site.releases[0].id)


def test_an_unsigned_channel_is_taken_only_if_told(site: Site, tmp_path: Path) -> None:
    envelope = json.loads(site.store.get(CHANNEL).data)
    site.store.put(CHANNEL, json.dumps(envelope | {"signatures": []}).encode())
    assert "signed by nobody" in predict(tmp_path, code=4).output
    predict(tmp_path, "--unsigned")


def test_the_candidate_answers_whatever_the_percentage_and_the_old_one_when_the_store_is_gone(site: Site, tmp_path: Path) -> None:
    keys = ("--keys", str(tmp_path / "keyring.json"), "--json")
    site.publish(1, basis_points=0)
    assert json.loads(predict(tmp_path, *keys).output)["release"] == site.releases[1].id
    shutil.rmtree(tmp_path / "store")
    result = predict(tmp_path, *keys)
    assert json.loads(result.stdout)["release"] == site.releases[1].id
    assert "Answering with the release of before" in result.stderr


def test_layered_with_a_server_that_is_not_there_is_the_phones_answer(site: Site, tmp_path: Path) -> None:
    options = ("--keys", str(tmp_path / "keyring.json"), "--server", "http://127.0.0.1:9", "--json")
    row = json.loads(predict(tmp_path, *options, model="layered").output)
    assert row["model"] == "mobile"
    assert ("at least" in row["why"]) or ("can't be reached" in row["why"])


def test_the_mobile_model_of_another_channel_is_kept_apart(site: Site, tmp_path: Path) -> None:
    keys = ("--keys", str(tmp_path / "keyring.json"), "--json")
    assert "nothing is published in the channel beta" in predict(tmp_path, "--channel", "beta", *keys, code=2).output
    site.publish(1)
    publish_release(site.store, site.releases[0].id, signing=site.signing, channel="beta")
    # The device has seen sequence 2 of stable: sequence 1 of beta is no attack.
    assert json.loads(predict(tmp_path, *keys).output)["release"] == site.releases[1].id
    assert json.loads(predict(tmp_path, "--channel", "beta", *keys).output)["release"] == site.releases[0].id
    site.store.put("channels/beta.json", site.store.get(CHANNEL).data)
    said = predict(tmp_path, "--channel", "beta", *keys).output
    assert "is the channel 'stable', not 'beta'" in said
    assert site.releases[0].id in said
