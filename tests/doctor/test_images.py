"""Images are looked for in their registry, with this machine's logins and without."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.doctor.finding import Finding
from pipelines.doctor.images import check_images
from pipelines.doctor.visit import Visit
from tests.doctor.conftest import only
from tests.mirror.fake_registry import Stored, fake_registry
from tests.rollout.web import unused_port

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of Docker's config.json, empty; no other login of this machine counts."""
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


@pytest.fixture
def registry(docker: Path) -> Iterator[Stored]:
    with fake_registry() as stored:
        stored.add_manifest("team/dual-server", "0.1.0", MANIFEST, b"{}")
        yield stored


def look(*images: str) -> list[Finding]:
    return check_images(Visit(target="vertex", images=images, seconds=4))


def test_an_image_that_is_there_and_one_that_is_not(registry: Stored) -> None:
    there, missing = look(f"{registry.address}/team/dual-server:0.1.0", f"{registry.address}/team/dual-server:9")
    assert (there.status, "is there" in there.found) == ("ok", True)
    assert (missing.status, "there is no" in missing.found, "skaffold build" in missing.fix) == ("warning", True, True)
    assert {request.split(" ")[0] for request in registry.requests} == {"HEAD"}


def test_an_image_by_digest(registry: Stored) -> None:
    digest = registry.add_manifest("team/x", "1", MANIFEST, b'{"a": 1}')
    assert only(look(f"{registry.address}/team/x@{digest}")).status == "ok"


def test_a_private_registry_needs_the_right_login(registry: Stored, docker: Path) -> None:
    registry.user = ("me", "hunter2")
    image = f"{registry.address}/team/dual-server:0.1.0"

    def logged_in(password: str) -> Finding:
        auth = base64.b64encode(f"me:{password}".encode()).decode()
        (docker / "config.json").write_text(json.dumps({"auths": {registry.address: {"auth": auth}}}))
        return only(look(image))

    wrong = logged_in("wrong")
    assert (wrong.status, "--try" in wrong.found) == ("warning", True), wrong
    assert logged_in("hunter2").status == "ok"
    assert "hunter2" not in repr(wrong)


@pytest.mark.parametrize(
    ("image", "words"),
    [("dual-server:0.1.0", "has no registry"), ("UPPER/case:1", "is not the name of an image")],
)
def test_names_that_no_node_can_pull(image: str, words: str, docker: Path) -> None:
    found = only(look(image))
    assert (found.status, words in found.found) == ("warning", True), found


def test_a_registry_that_does_not_answer(docker: Path) -> None:
    found = only(look(f"localhost:{unused_port()}/x/y:1"))
    assert (found.status, "can't be reached" in found.found, "from here" in found.found) == ("warning", True, True), found
