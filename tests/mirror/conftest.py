"""Two registries, and no credentials but those of a test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mirror.fake_registry import Stored, fake_registry


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of Docker's config.json, empty."""
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "docker").mkdir()
    return tmp_path / "docker"


@pytest.fixture
def here() -> Iterator[Stored]:
    with fake_registry() as stored:
        yield stored


@pytest.fixture
def there() -> Iterator[Stored]:
    with fake_registry() as stored:
        yield stored
