"""Whole trainings on tiny examples: artifacts, caching, resuming after a kill, falling back, and what the SavedModel promises."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from components.core.errors import UsageError
from components.core.record import Record
from components.core.stores import open_store
from components.training.training import CLOUD_MODEL, MOBILE_MODEL, read_training
from tests.conftest import LABELS
from tests.training_runs import load_network, run_mobile, save_tiny_weights, settings_text, start_mobile


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def mobile(weights: Path, tiny_examples: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """A mobile training with fine-tuning, never interrupted: its folder (store/, model/) and its record."""
    root = tmp_path_factory.mktemp("mobile")
    settings = settings_text("train_mobile", weights, fine_tune=4)
    return root, run_mobile(root / "store", tiny_examples, settings, root / "model")


@pytest.fixture(scope="module")
def cloud(weights: Path, tiny_examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cloud training's artifact folder."""
    from components.core.record import open_step
    from components.train_cloud.train import train_cloud_model

    root = tmp_path_factory.mktemp("cloud")
    with open_step("train_cloud", store=str(root / "store"), run_id="run") as record:
        train_cloud_model(record, examples=tiny_examples, settings=settings_text("train_cloud", weights), output=root / "model")
    return root / "model"


def test_training_json_says_what_was_done(mobile: tuple[Path, Record], weights: Path, tiny_examples: Path) -> None:
    training = read_training(mobile[0] / "model")
    assert training.kind == "mobile"
    assert training.weights.used == "file"
    assert training.weights.asked == str(weights)
    assert training.labels == LABELS
    assert training.examples_digest == json.loads((tiny_examples / "examples.json").read_text())["digest"]
    assert (training.preprocessing.height, training.preprocessing.width) == (32, 32)
    assert training.epochs["fine_tune"] == 4
    assert training.epochs["head"] >= 10
    assert len(training.history) == sum(training.epochs.values())
    assert training.precision == "float32"
    assert {"decode", "features", "head", "fine_tune", "export"} <= set(training.seconds)


def test_the_shipped_network_is_the_best_of_fine_tuning(mobile: tuple[Path, Record]) -> None:
    training = read_training(mobile[0] / "model")
    losses = [epoch.val_loss for epoch in training.history if epoch.phase == "fine_tune"]
    assert training.validation["loss"] <= min(losses) + 1e-4
    assert training.validation["accuracy"] > 0.6, "three colours are learnt even on random features"


def test_the_mobile_model_takes_raw_pixels_and_gives_probabilities(mobile: tuple[Path, Record], tiny_examples: Path) -> None:
    from components.training.fit import evaluate
    from components.training.inputs import Inputs

    training = read_training(mobile[0] / "model")
    model = load_network(mobile[0] / "model")
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, 3)
    held = Inputs(tiny_examples, "validation", training.preprocessing, cache_megabytes=64)
    loss, accuracy = evaluate(model, held, 5)
    assert loss == pytest.approx(training.validation["loss"], abs=1e-4)
    assert accuracy == pytest.approx(training.validation["accuracy"])


def test_the_record_has_metrics_curves_and_times(mobile: tuple[Path, Record]) -> None:
    root, record = mobile
    assert record.metrics["validation_accuracy"] == read_training(root / "model").validation["accuracy"]
    assert [picture.name for picture in record.pictures] == ["curves"]
    assert open_store(str(root / "store")).get("runs/run/train_mobile/curves.png").data.startswith(b"\x89PNG")
    assert record.data["training"] == json.loads((root / "model" / "training.json").read_text())
    assert not record.warnings


def test_tensorboard_can_read_the_curves(mobile: tuple[Path, Record]) -> None:
    import tensorflow as tf

    training = read_training(mobile[0] / "model")
    (file,) = (mobile[0] / "model" / "tensorboard" / "fine_tune").iterdir()
    found: dict[str, list[float]] = {}
    for event in tf.compat.v1.train.summary_iterator(str(file)):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append(float(tf.make_ndarray(value.tensor)))
    wanted = [epoch.val_loss for epoch in training.history if epoch.phase == "fine_tune"]
    assert found["val_loss"] == pytest.approx(wanted)
    assert set(found) == {"loss", "accuracy", "val_loss", "val_accuracy"}


def test_unchanged_inputs_are_not_trained_again(mobile: tuple[Path, Record], weights: Path, tiny_examples: Path, tmp_path: Path) -> None:
    root, first = mobile
    settings = settings_text("train_mobile", weights, fine_tune=4)
    second = run_mobile(root / "store", tiny_examples, settings, tmp_path / "model")
    assert second.cached
    assert second.metrics == first.metrics
    assert (tmp_path / "model" / MOBILE_MODEL).read_bytes() == (root / "model" / MOBILE_MODEL).read_bytes()


def test_checkpoints_are_gone_and_features_stay_when_all_is_done(mobile: tuple[Path, Record]) -> None:
    names = list(open_store(str(mobile[0] / "store")).list("cache/"))
    assert not [name for name in names if "/work/" in name]
    assert sorted({name.rpartition("/")[2] for name in names if name.startswith("cache/features/")}) == [
        "validation.npz",
        "view-0.npz",
        "view-1.npz",
    ]


def test_a_training_killed_in_fine_tuning_ends_like_one_that_was_not(
    mobile: tuple[Path, Record], weights: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    store, settings = tmp_path / "store", settings_text("train_mobile", weights, fine_tune=4)
    process = start_mobile(store, tiny_examples, settings, tmp_path / "killed")
    while not (kept := list((store / "cache").glob("train_mobile/work/*/fine_tune.npz"))):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = _epochs_done(kept[0])
    assert 1 <= done < 4, "killed too late to show anything"

    resumed = run_mobile(store, tiny_examples, settings, tmp_path / "model")
    ours, wanted = read_training(tmp_path / "model"), read_training(mobile[0] / "model")
    assert not resumed.cached
    assert ours.validation == wanted.validation
    assert [epoch.model_copy(update={"seconds": 0}) for epoch in ours.history] == [
        epoch.model_copy(update={"seconds": 0}) for epoch in wanted.history
    ]
    _assert_same_network(tmp_path / "model", mobile[0] / "model")


def _epochs_done(checkpoint: Path) -> int:
    with np.load(checkpoint, allow_pickle=False) as file:
        return int(json.loads(file["facts"].tobytes())["done"])


def _assert_same_network(left: Path, right: Path) -> None:
    weights = [load_network(folder).get_weights() for folder in (left, right)]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_network_imagenet_becomes_from_scratch_and_says_so(
    tiny_examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    settings = settings_text("train_mobile", "imagenet", image_size=224, mixed_precision="off")
    record = run_mobile(tmp_path / "store", tiny_examples, settings, tmp_path / "model")
    training = read_training(tmp_path / "model")
    assert training.weights.used == "none"
    assert "could not be downloaded" in training.weights.note
    assert record.warnings == [training.weights.note]
    assert training.preprocessing.height == 32, "from_scratch.image_size"
    assert training.epochs == {"scratch": 2}

    again = run_mobile(tmp_path / "store", tiny_examples, settings, tmp_path / "again")
    assert again.cached
    assert again.warnings == [training.weights.note]


@pytest.mark.slow
def test_what_was_trained_in_16_bits_ships_in_32(
    tiny_examples: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.training.devices.gpu_capabilities", lambda: [(9, 0)])
    settings = settings_text("train_mobile", weights, fine_tune=1)
    run_mobile(tmp_path / "store", tiny_examples, settings, tmp_path / "model")
    training = read_training(tmp_path / "model")
    assert training.precision == "mixed_bfloat16"
    assert {layer.compute_dtype for layer in load_network(tmp_path / "model").layers} == {"float32"}
    # A fine-tuning that made things worse is undone, so the best epoch may be one of the head's.
    best = min(epoch.val_loss for epoch in training.history)
    assert training.validation["loss"] == pytest.approx(best, abs=0.05)


def test_mixed_precision_without_a_gpu_is_refused(weights: Path, tiny_examples: Path, tmp_path: Path) -> None:
    settings = settings_text("train_mobile", weights, mixed_precision="on")
    with pytest.raises(UsageError, match=r"settings key train_mobile\.mixed_precision: it is on, but no GPU was found"):
        run_mobile(tmp_path / "store", tiny_examples, settings, tmp_path / "model")


@pytest.mark.parametrize(
    ("mode", "capabilities", "precision"),
    [
        ("auto", [], "float32"),
        ("auto", [(6, 1)], "float32"),
        ("auto", [(7, 5)], "mixed_float16"),
        ("auto", [(9, 0), (7, 5)], "mixed_float16"),
        ("on", [(9, 0)], "mixed_bfloat16"),
        ("off", [(9, 0)], "float32"),
    ],
)
def test_precision_follows_the_weakest_gpu(mode: str, capabilities: list[tuple[int, int]], precision: str) -> None:
    from components.training.devices import choose_precision

    assert choose_precision(mode, capabilities) == precision  # pyright: ignore[reportArgumentType]


def test_a_wrong_setting_names_its_key(tiny_examples: Path, tmp_path: Path) -> None:
    settings = json.dumps({"train_mobile": {"fine_tune": {"layers": 0}}})
    with pytest.raises(UsageError, match=r"train_mobile\.fine_tune\.layers"):
        run_mobile(tmp_path / "store", tiny_examples, settings, tmp_path / "model")


def test_saved_model_has_the_contract_s_signatures(cloud: Path) -> None:
    import tensorflow as tf

    signatures = tf.saved_model.load(str(cloud / CLOUD_MODEL)).signatures
    assert set(signatures) == {"serving_default", "from_pixels", "transform"}
    shapes = {
        name: {
            key: (spec.dtype.name, spec.shape.as_list())
            for key, spec in {**function.structured_input_signature[1], **function.structured_outputs}.items()
        }
        for name, function in signatures.items()
    }
    answer = {"probabilities": ("float32", [None, 3]), "label": ("string", [None]), "score": ("float32", [None])}
    assert shapes["serving_default"] == {"image_bytes": ("string", [None]), **answer}
    assert shapes["from_pixels"] == {"pixels": ("uint8", [None, 32, 32, 3]), **answer}
    assert shapes["transform"] == {"image_bytes": ("string", [None]), "pixels": ("uint8", [None, 32, 32, 3])}
    assert (cloud / CLOUD_MODEL / "assets" / "labels.txt").read_text().split() == LABELS
    assert sorted(path.name for path in cloud.iterdir()) == [CLOUD_MODEL, "tensorboard", "training.json"]


def test_saved_model_holds_the_network_once(cloud: Path) -> None:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel.FromString((cloud / CLOUD_MODEL / "saved_model.pb").read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    holders = [function.signature.name for function in functions if any("Depthwise" in node.op for node in function.node_def)]
    assert len(holders) == 1


def test_saved_model_answers_alike_from_bytes_and_from_pixels(cloud: Path, tiny_examples: Path) -> None:
    import tensorflow as tf

    from components.training.records import read_split
    from components.training.transform import decode_and_resize

    signatures = tf.saved_model.load(str(cloud / CLOUD_MODEL)).signatures
    records = list(read_split(tiny_examples, "validation"))
    images = tf.stack([record["image"] for record in records])
    pixels = signatures["transform"](image_bytes=images)["pixels"]
    contract = read_training(cloud).preprocessing
    np.testing.assert_array_equal(pixels, np.stack([decode_and_resize(record["image"], contract) for record in records]))
    whole, resized = signatures["serving_default"](image_bytes=images), signatures["from_pixels"](pixels=pixels)
    np.testing.assert_allclose(whole["probabilities"], resized["probabilities"], atol=1e-6)
    labels = [LABELS.index(label.decode()) for label in np.asarray(whole["label"])]
    np.testing.assert_array_equal(labels, np.asarray(whole["probabilities"]).argmax(axis=1))
    np.testing.assert_array_equal(whole["score"], np.asarray(whole["probabilities"]).max(axis=1))
    accuracy = float(np.mean(np.array(labels) == [int(record["label"]) for record in records]))
    assert accuracy == pytest.approx(read_training(cloud).validation["accuracy"])


@pytest.mark.parametrize("spoilt", [b"", b"no image", b"\xff\xd8\xff\xe0broken"])
def test_saved_model_refuses_bytes_that_are_no_image(cloud: Path, spoilt: bytes) -> None:
    import tensorflow as tf

    from tests.conftest import tiny_jpeg

    serve = tf.saved_model.load(str(cloud / CLOUD_MODEL)).signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError):
        serve(image_bytes=tf.constant([tiny_jpeg(0, 1), spoilt]))


@pytest.mark.flowers
def test_flowers_with_the_shared_weights_reach_their_figure(shared: Path, tmp_path: Path) -> None:
    from components.core.record import open_step
    from components.ingest.ingest import ingest_data
    from components.training.fit import evaluate
    from components.training.inputs import Inputs

    (file,) = (shared / "data" / "weights").glob("*.weights.h5")
    settings = json.dumps({"train_mobile": {"weights": str(file), "fine_tune": {"epochs": 0}}})
    with open_step("ingest", store=str(tmp_path / "store"), run_id="run") as record:
        ingest_data(record, data=str(shared / "data" / "flowers"), settings=settings, output=tmp_path / "examples")
    run_mobile(tmp_path / "store", tmp_path / "examples", settings, tmp_path / "model")
    training = read_training(tmp_path / "model")
    held = Inputs(tmp_path / "examples", "test", training.preprocessing, cache_megabytes=512)
    _, accuracy = evaluate(load_network(tmp_path / "model"), held, 64)
    assert accuracy >= 0.87
