"""Which weights a training starts from: paths are checked, and a missing network costs seconds, not minutes."""

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from components.core.errors import UsageError
from components.training.imagenet import WeightsUnavailableError, bounded_downloads, has_cached_weights, reachable
from components.training.settings import CLOUD_BACKBONES, CloudTrainSettings, MobileTrainSettings
from components.training.train import check_weights, from_scratch_instead
from tests.training_runs import save_tiny_weights


@pytest.fixture
def silent_server() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_silent_network_is_given_up_in_seconds(silent_server: str) -> None:
    began = time.monotonic()
    assert not reachable(silent_server, seconds=0.5)
    assert time.monotonic() - began < 2


def test_a_closed_port_and_a_refusing_proxy_are_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not reachable("http://127.0.0.1:9", seconds=2)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert not reachable(seconds=2)


def test_offline_downloads_fail_at_once_and_only_inside() -> None:
    began = time.monotonic()
    with bounded_downloads(online=False), pytest.raises(urllib.error.URLError, match=r"example\.invalid can't be reached"):
        urllib.request.urlopen("https://example.invalid/weights.h5")
    assert time.monotonic() - began < 1
    assert socket.getdefaulttimeout() is None
    with pytest.raises(urllib.error.URLError, match=r"(?i)refused"):
        urllib.request.urlopen("http://127.0.0.1:9")


def test_keras_cache_is_looked_at_where_keras_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert not has_cached_weights()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "densenet121_notop.h5").touch()
    assert has_cached_weights()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("absent.h5", None, "there is no file"), ("text.h5", b"hello world", "no HDF5"), ("w.bin", b"\x89HDF\r\n\x1a\n", "no HDF5")],
)
def test_a_path_that_is_no_weights_file_names_its_setting(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=rf"settings key train_cloud\.weights: .*{message}"):
        check_weights(str(tmp_path / name), "train_cloud.weights")


def test_the_note_says_what_was_used_instead() -> None:
    weights = from_scratch_instead("DenseNet121", "the network can't be reached")
    assert (weights.asked, weights.used) == ("imagenet", "none")
    assert "DenseNet121" in weights.note
    assert "trained from scratch instead" in weights.note


def test_backbones_are_checked_with_the_configuration() -> None:
    with pytest.raises(ValidationError, match="'DenseNet12' is none of"):
        CloudTrainSettings(backbone="DenseNet12")
    with pytest.raises(ValidationError, match="'DenseNet121' is none of MobileNetV3Small"):
        MobileTrainSettings(backbone="DenseNet121")


def test_every_network_of_keras_can_be_named() -> None:
    import keras

    known = {name for name in dir(keras.applications) if name[0].isupper()}
    assert {name.removesuffix("Minimalistic") for name in CLOUD_BACKBONES} == known


@pytest.mark.parametrize("backbone", ["DenseNet121", "MobileNet", "ResNet50", "VGG16", "NASNetMobile"])
def test_rescaling_is_that_of_the_network(backbone: str) -> None:
    import keras

    from components.training.backbones import rescaling_of

    modules = {"DenseNet121": "densenet", "MobileNet": "mobilenet", "ResNet50": "resnet50", "VGG16": "vgg16", "NASNetMobile": "nasnet"}
    pixels = np.random.default_rng(1).uniform(0, 255, (2, 3, 3, 3)).astype(np.float32)
    scale, offset, swapped = rescaling_of(backbone)
    mine = (pixels[..., ::-1] if swapped else pixels) * np.array(scale) + np.array(offset)
    np.testing.assert_allclose(mine, getattr(keras.applications, modules[backbone]).preprocess_input(pixels.copy()), atol=1e-3)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    from components.training.backbones import build_network

    with pytest.raises(UsageError, match=r"settings key train_mobile\.weights: .*can't be loaded into MobileNetV3Large"):
        build_network("MobileNetV3Large", 32, 3, weights=save_tiny_weights(tmp_path), dropout=0, key="train_mobile.weights")


def test_imagenet_without_network_and_cache_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.training.backbones import build_network

    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    # Keras reads KERAS_HOME once, at its import.
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(WeightsUnavailableError, match="the network can't be reached"):
        build_network("MobileNetV3LargeMinimalistic", 32, 3, weights="imagenet", dropout=0)
    assert time.monotonic() - began < 15
