"""Features of the frozen backbone: the same from either engine, whatever the batches and threads, and computed once."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from components.core.errors import UsageError
from components.training.settings import TrainSettings
from components.training.training import read_training
from tests.training_runs import run_mobile, save_tiny_weights, settings_text

KEY = "train_mobile.feature_engine"
PIXELS = np.random.default_rng(1).uniform(0, 255, (23, 32, 32, 3)).astype(np.float32)


def backbone(name: str) -> Any:
    """Random weights, with batch normalisations that keep signals alive down to the features."""
    import keras

    from components.training.backbones import build_network, feature_network

    keras.utils.set_random_seed(5)
    network = build_network(name, 32, 3, weights=None, dropout=0)
    random = np.random.default_rng(7)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.get_weights()[0].shape
            layer.set_weights([random.uniform(0.5, 2, shape), *random.normal(0, 0.5, (2, *shape)), random.uniform(0.01, 1, shape)])
    return feature_network(network)


@pytest.fixture(scope="module")
def small() -> Any:
    return backbone("MobileNetV3Small")


@pytest.fixture(scope="module")
def tflite(small: Any) -> bytes:
    from components.training.feature_engines import _converted

    return _converted(small, KEY)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_weights(tmp_path_factory.mktemp("weights"))


def batches(size: int) -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((PIXELS, np.zeros(len(PIXELS)))).batch(size)


@pytest.mark.parametrize("name", ["MobileNetV3Small", "DenseNet121"])
def test_both_engines_compute_the_same_features(name: str, request: pytest.FixtureRequest) -> None:
    from components.training.feature_engines import make_forward

    network = request.getfixturevalue("small") if name == "MobileNetV3Small" else backbone(name)
    wanted, ours = (make_forward(engine, network, most=4, key=KEY)(batches(5)) for engine in ("tensorflow", "litert"))
    assert ours.shape == (len(PIXELS), *network.output_shape[1:])
    assert ours.dtype == np.float32
    assert np.ptp(wanted, axis=0).max() > 0.01 * np.abs(wanted).max(), "pictures differ, or this test would see little"
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(("threads", "size"), [(1, 1), (2, 7), (3, 23), (5, 4), (8, 32)])
def test_features_depend_on_neither_threads_nor_batches(tflite: bytes, threads: int, size: int) -> None:
    from components.training.feature_engines import LiteRTForward

    alone = np.concatenate([LiteRTForward(tflite, 1)([(PIXELS[index : index + 1],)]) for index in range(len(PIXELS))])
    np.testing.assert_array_equal(LiteRTForward(tflite, threads)(batches(size)), alone)


def test_two_batches_at_most_are_held(tflite: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.training.feature_engines import LiteRTForward

    done = itertools.count()
    finished = [0]

    def slow(_: Any, image: np.ndarray) -> np.ndarray:
        time.sleep(0.01)
        finished[0] = next(done) + 1
        return image.mean(axis=(0, 1, 2))

    def told() -> Iterator[tuple[np.ndarray]]:
        for number in range(6):
            assert finished[0] >= 4 * (number - 1), "it took batches that it had no room for"
            yield (PIXELS[:4] + number,)

    monkeypatch.setattr(LiteRTForward, "_features", slow)
    assert LiteRTForward(tflite, 2)(told()).shape == (24, 3)


def test_as_many_interpreters_as_cores_or_images_of_a_batch(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.training import feature_engines

    made: list[int] = []
    monkeypatch.setattr(feature_engines, "_converted", lambda *_: b"")
    monkeypatch.setattr(feature_engines, "_interpreter", lambda _: made.append(1))
    for cores, most, wanted in ((2, 32, 2), (64, 32, 32), (None, 32, 1)):
        made.clear()
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        feature_engines.make_forward("litert", small, most=most, key=KEY)
        assert len(made) == wanted


@pytest.mark.parametrize(
    ("asked", "name", "obstacle", "gpu", "engine"),
    [
        ("auto", "MobileNetV3Small", "", False, "litert"),
        ("auto", "DenseNet121", "", False, "litert"),
        ("auto", "NASNetMobile", "", False, "tensorflow"),
        ("auto", "MobileNetV3Small", "", True, "tensorflow"),
        ("auto", "MobileNetV3Small", "is large", False, "tensorflow"),
        ("tensorflow", "MobileNetV3Small", "", False, "tensorflow"),
        ("tensorflow", "MobileNetV3Small", "is large", False, "tensorflow"),
        ("litert", "NASNetMobile", "", True, "litert"),
    ],
)
def test_the_engine_that_is_chosen(asked: Any, name: str, obstacle: str, gpu: bool, engine: str) -> None:
    from components.training.feature_engines import choose_engine

    assert choose_engine(asked, name, obstacle=obstacle, gpu=gpu, key=KEY) == engine


def test_litert_where_it_can_not_be_is_refused() -> None:
    from components.training.feature_engines import choose_engine

    with pytest.raises(UsageError, match=rf"settings key {KEY}: it is litert, but VGG16 lives on several devices"):
        choose_engine("litert", "VGG16", obstacle="lives on several devices", gpu=False, key=KEY)


@pytest.mark.parametrize(
    ("precision", "replicas", "parameters", "why"),
    [
        ("float32", 1, 100_000_000, ""),
        ("mixed_float16", 1, 10, "computes in mixed_float16"),
        ("float32", 2, 10, "lives on several devices"),
        ("float32", 1, 100_000_001, "has more than 100,000,000 parameters"),
    ],
)
def test_what_litert_can_not_stand_in_for(precision: str, replicas: int, parameters: int, why: str) -> None:
    from components.training.feature_engines import litert_obstacle

    strategy = SimpleNamespace(num_replicas_in_sync=replicas)
    network: Any = SimpleNamespace(distribute_strategy=strategy, count_params=lambda: parameters)
    found = litert_obstacle(network, precision)
    assert found.startswith(why)
    assert bool(found) == bool(why)


def test_a_network_that_can_not_be_converted_is_refused() -> None:
    import keras
    import tensorflow as tf

    from components.training.feature_engines import make_forward

    pixels = keras.Input((32, 32, 3))
    python: Any = keras.layers.Lambda(lambda x: tf.ensure_shape(tf.py_function(lambda y: y, [x], tf.float32), x.shape))
    with pytest.raises(UsageError, match=rf"settings key {KEY}: the network can't be converted for LiteRT"):
        make_forward("litert", keras.Model(pixels, python(pixels)), most=1, key=KEY)


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ValidationError, match="feature_engine"):
        TrainSettings.model_validate({"feature_engine": "onnx"})


def test_a_training_uses_the_engine_of_its_settings(weights: Path, tiny_examples: Path, tmp_path: Path) -> None:
    losses: dict[str, float] = {}
    for engine, used, kept in (("tensorflow", "tensorflow", 1), ("litert", "litert", 2), ("auto", "litert", 2)):
        settings = settings_text("train_mobile", weights, feature_engine=engine)
        record = run_mobile(tmp_path / "store", tiny_examples, settings, tmp_path / engine)
        assert record.notes[0].endswith(f"features by {used})")
        assert len(list((tmp_path / "store" / "cache" / "features").iterdir())) == kept
        losses[engine] = read_training(tmp_path / engine).validation["loss"]
    assert losses["litert"] == pytest.approx(losses["tensorflow"], rel=1e-3)
    assert losses["litert"] == losses["auto"]


def test_features_that_were_kept_need_no_engine(
    weights: Path, tiny_examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_mobile(tmp_path / "store", tiny_examples, settings_text("train_mobile", weights), tmp_path / "first")
    monkeypatch.setattr("components.training.build.make_forward", lambda *_, **__: pytest.fail("an engine was made"))
    settings = settings_text("train_mobile", weights, head={"epochs": 2})
    assert not run_mobile(tmp_path / "store", tiny_examples, settings, tmp_path / "second").cached
    assert read_training(tmp_path / "second").epochs == {"head": 2}
