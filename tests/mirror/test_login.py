"""Whom to be at a registry: the token flow, and the files and helpers that hold credentials."""

import base64
import json
import stat
from pathlib import Path

import pytest

from components.core.errors import DualError, UsageError
from pipelines.mirror.credentials import Credentials, find_credentials
from pipelines.mirror.manifest import Descriptor
from pipelines.mirror.reference import parse_reference
from pipelines.mirror.registry import RegistryImages
from pipelines.mirror.session import Session
from tests.mirror.fake_registry import Stored
from tests.mirror.pieces import add_image

BLOB = Descriptor("application/octet-stream", "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", 1)


def log_in(folder: Path, registry: str, **entry: str) -> None:
    (folder / "config.json").write_text(json.dumps({"auths": {registry: entry}}))


def basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def images(stored: Stored, repository: str = "app") -> RegistryImages:
    return RegistryImages(Session(stored.address, plain=True), repository)


def test_a_token_is_bought_once_for_each_scope_and_used(here: Stored, nobody: Path) -> None:
    here.user = ("me", "secret")
    add_image(here, "app", "1", [b"x"])
    log_in(nobody, here.address, auth=basic("me", "secret"))
    repository = images(here)
    repository.manifest("1")
    repository.write_blob(BLOB, iter([b"x"]))
    assert repository.has_blob(BLOB)
    assert here.pushed("TOKEN") == ["TOKEN repository:app:pull as user", "TOKEN repository:app:pull,push as user"]


def test_without_credentials_one_may_pull_what_is_public_and_is_told_how_to_log_in_to_push(here: Stored) -> None:
    here.user = ("me", "secret")
    add_image(here, "app", "1", [b"x"])
    assert images(here).manifest("1").digest.startswith("sha256:")
    with pytest.raises(DualError, match=f"docker login {here.address}"):
        images(here).write_blob(BLOB, iter([b"x"]))


def test_a_wrong_password_is_said_and_not_shown(here: Stored, nobody: Path) -> None:
    here.user = ("me", "secret")
    log_in(nobody, here.address, auth=basic("me", "wrong-secret"))
    with pytest.raises(DualError, match=r"refuses .401 .*UNAUTHORIZED") as caught:
        images(here).manifest("1")
    assert "wrong-secret" not in str(caught.value)
    assert "wrong-secret" not in repr(Credentials("me", "wrong-secret"))


def test_an_identity_token_buys_tokens(here: Stored, nobody: Path) -> None:
    here.user, here.identity_token = ("me", "secret"), "refresh"
    log_in(nobody, here.address, identitytoken="refresh")
    images(here).write_blob(BLOB, iter([b"x"]))
    assert BLOB.digest in here.blobs


def test_a_realm_without_tls_gets_no_credentials_from_a_registry_with_tls(here: Stored, nobody: Path) -> None:
    here.user = ("me", "secret")
    log_in(nobody, here.address, auth=basic("me", "secret"))
    repository = images(here)
    repository.session.plain = False
    with pytest.raises(UsageError, match="not https"):
        repository.manifest("1")
    assert here.pushed("TOKEN") == []


def test_the_most_specific_entry_counts_and_podmans_file_is_read_too(nobody: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {"r.example.com": {"auth": basic("all", "1")}, "r.example.com/team": {"username": "team", "password": "2"}}
    (nobody / "config.json").write_text(json.dumps({"auths": entries}))
    assert find_credentials("r.example.com", "team/app") == Credentials("team", "2")
    assert find_credentials("r.example.com", "other") == Credentials("all", "1")
    assert find_credentials("q.example.com", "other") is None
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {"q.example.com": {"auth": basic("q", "3")}}}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    assert find_credentials("q.example.com", "other") == Credentials("q", "3")


def test_docker_hub_is_known_by_its_old_name(nobody: Path) -> None:
    log_in(nobody, "https://index.docker.io/v1/", auth=basic("hub", "1"))
    assert find_credentials("docker.io", "library/python") == Credentials("hub", "1")


@pytest.mark.parametrize("config", [{"credHelpers": {"r.example.com": "test"}}, {"credsStore": "test"}])
def test_helpers_are_asked(nobody: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, object]) -> None:
    helper = tmp_path / "bin" / "docker-credential-test"
    helper.parent.mkdir()
    helper.write_text(
        '#!/bin/sh\nread server\n[ "$1 $server" = "get r.example.com" ] || { echo "credentials not found in native keychain"; exit 1; }\n'
        'echo \'{"Username": "me", "Secret": "kept"}\'\n'
    )
    helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{helper.parent}:/bin:/usr/bin")
    (nobody / "config.json").write_text(json.dumps(config))
    assert find_credentials("r.example.com", "app") == Credentials("me", "kept")
    assert find_credentials("q.example.com", "app") is None
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    with pytest.raises(UsageError, match="docker-credential-test"):
        find_credentials("r.example.com", "app")


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("python:3.11-slim", "docker.io/library/python:3.11-slim"),
        ("tensorflow/serving", "docker.io/tensorflow/serving:latest"),
        ("docker.io/python", "docker.io/library/python:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("r.example.com:5000/a/b_c-d.e:V1.0_x", "r.example.com:5000/a/b_c-d.e:V1.0_x"),
        (f"r.example.com/app@sha256:{'0' * 64}", f"r.example.com/app@sha256:{'0' * 64}"),
        (f"r.example.com/app:1@sha256:{'a' * 64}", f"r.example.com/app:1@sha256:{'a' * 64}"),
    ],
)
def test_names_as_people_write_them(text: str, full: str) -> None:
    assert str(parse_reference(text)) == full


@pytest.mark.parametrize(
    "text", ["", "App", "a//b", "app:", "app@", "app@sha256:12", "app@md5:12", "a b", "r.example.com/", "../etc/passwd", "app:1:2"]
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(UsageError, match="not the name of an image"):
        parse_reference(text)
