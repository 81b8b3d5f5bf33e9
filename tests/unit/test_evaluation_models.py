"""Exported artifacts, tiny but real, go through evaluate_cloud and evaluate_mobile."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.core.errors import DataError, UsageError
from components.core.preprocessing import Preprocessing
from components.core.record import open_step, read_records
from components.core.run_settings import write_settings
from components.core.stores import open_store
from components.evaluation.evaluation import Evaluation, read_evaluation, read_predictions

LABELS = ["daisy", "roses", "tulips"]
CONTRACT = Preprocessing(height=32, width=32)
SETTINGS = json.dumps({"seed": 3})


def colour_network(bias: float = 0.0, sharpness: float = 60.0) -> Any:
    """The class is the brightest colour channel; `bias` pulls answers towards the first class."""
    import keras

    network = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    network.layers[-1].set_weights([np.eye(3, dtype=np.float32) * sharpness, np.array([bias, 0, 0], np.float32)])
    return network


def write_cloud(root: Path, network: Any, labels: list[str] = LABELS, graph_labels: list[str] | None = None) -> Path:
    from components.training.export import export_saved_model
    from components.training.training import Training, WeightsUsed, write_training

    export_saved_model(network, graph_labels or labels, CONTRACT, root / "saved_model")
    training = Training(
        kind="cloud",
        backbone="colour",
        weights=WeightsUsed(asked="none", used="none"),
        preprocessing=CONTRACT,
        labels=labels,
        seed=1,
        examples_digest="",
        parameters=12,
        epochs={},
        history=[],
        validation={},
        precision="float32",
        replicas=1,
        seconds={},
        settings={},
    )
    write_training(root, training)
    return root


def write_mobile(root: Path, network: Any, labels: list[str] = LABELS) -> Path:
    import tensorflow as tf

    holder: Any = tf.Module()
    spec = tf.TensorSpec([1, 32, 32, 3], tf.float32, name="pixels")
    holder.call = tf.function(network.call, input_signature=[spec])
    converter: Any = tf.lite.TFLiteConverter.from_concrete_functions([holder.call.get_concrete_function()], holder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    noise = np.random.default_rng(0).uniform(0, 255, (8, 1, 32, 32, 3)).astype(np.float32)
    extremes = [np.zeros((1, 32, 32, 3), np.float32), np.full((1, 32, 32, 3), 255, np.float32)]
    converter.representative_dataset = lambda: ([image] for image in [*noise, *extremes])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    root.mkdir(parents=True, exist_ok=True)
    (root / "model.tflite").write_bytes(converter.convert())
    with zipfile.ZipFile(root / "model.tflite", "a") as archive:
        archive.writestr("labels.txt", "".join(f"{label}\n" for label in labels))
    (root / "quantization.json").write_text(json.dumps({"preprocessing": CONTRACT.model_dump(), "labels": labels}))
    return root


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cloud(tmp_path_factory.mktemp("cloud"), colour_network())


@pytest.fixture(scope="module")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Biased to the first class: right on some images only."""
    return write_mobile(tmp_path_factory.mktemp("mobile"), colour_network(bias=10.5))


def _evaluate(kind: str, examples: Path, model: Path, output: Path, *, store: Path | None = None, **changes: Any) -> tuple[Evaluation, Any]:
    from components.evaluate_cloud.evaluate import evaluate_cloud_model
    from components.evaluate_mobile.evaluate import evaluate_mobile_model

    step, run = f"evaluate_{kind}", evaluate_cloud_model if kind == "cloud" else evaluate_mobile_model
    settings = json.dumps({"seed": 3, step: {"resamples": 200} | changes})
    with open_step(step, store=str(store or output / "store"), run_id="r1", view=str(output / "view.html")) as record:
        return run(record, examples=examples, model=model, settings=settings, output=output / "evaluation"), record.record


def test_the_saved_model_is_measured_by_its_serving_signature(tiny_examples: Path, cloud: Path, tmp_path: Path) -> None:
    evaluation, record = _evaluate("cloud", tiny_examples, cloud, tmp_path)
    assert (evaluation.model, evaluation.split, evaluation.examples, evaluation.labels) == ("cloud", "test", 24, LABELS)
    assert evaluation.metrics["accuracy"] == 1.0
    assert evaluation.confusion == [[8, 0, 0], [0, 8, 0], [0, 0, 8]]
    assert {name: metrics["examples"] for name, metrics in evaluation.slices.items()} == {"source=phone": 12, "source=web": 12}
    assert evaluation.verdict.blessed
    assert read_evaluation(tmp_path / "evaluation") == evaluation
    assert [picture.name for picture in record.pictures] == ["confusion", "calibration", "slices"]
    assert read_records(open_store(str(tmp_path / "store")), "r1")["evaluate_cloud"].verdict == evaluation.verdict


def test_the_tflite_is_measured_as_an_app_runs_it(tiny_examples: Path, mobile: Path, tmp_path: Path) -> None:
    from components.evaluation.split import read_batches
    from components.quantize_mobile.interpreter import Classifier
    from components.training.transform import decode_and_resize

    evaluation, record = _evaluate("mobile", tiny_examples, mobile, tmp_path)
    stored, batch = read_predictions(tmp_path / "evaluation"), next(read_batches(tiny_examples, "test", 24))
    classifier = Classifier(mobile / "model.tflite")
    expected = [classifier.predict(decode_and_resize(image, CONTRACT).numpy())[0] for image in batch.images]
    assert stored.keys.tolist() == batch.keys
    assert stored.labels.tolist() == batch.labels
    assert np.array_equal(stored.probabilities, np.array(expected))
    answers = np.argmax(expected, axis=1)
    assert evaluation.metrics["accuracy"] == pytest.approx((answers == batch.labels).mean())
    assert 0.5 < evaluation.metrics["accuracy"] < 1.0
    assert "worst_mistakes" in [picture.name for picture in record.pictures]
    assert "data:image/jpeg" in (tmp_path / "view.html").read_text()


def test_the_same_seed_gives_the_same_bytes_whatever_the_batch(tiny_examples: Path, mobile: Path, tmp_path: Path) -> None:
    for name, size in (("a", 32), ("b", 5)):
        _evaluate("mobile", tiny_examples, mobile, tmp_path / name, batch_size=size)
    for file in ("evaluation.json", "predictions.npz"):
        assert (tmp_path / "a" / "evaluation" / file).read_bytes() == (tmp_path / "b" / "evaluation" / file).read_bytes()


def test_another_split_can_be_measured(tiny_examples: Path, cloud: Path, tmp_path: Path) -> None:
    evaluation, _ = _evaluate("cloud", tiny_examples, cloud, tmp_path, split="validation")
    assert (evaluation.split, evaluation.examples) == ("validation", 18)


def test_a_network_that_answers_nan_is_refused_and_still_inspectable(tiny_examples: Path, tmp_path: Path) -> None:
    root = write_cloud(tmp_path / "model", colour_network(bias=float("nan")))
    evaluation, record = _evaluate("cloud", tiny_examples, root, tmp_path)
    assert not evaluation.verdict.blessed
    assert "24 of 24 answers are no probabilities" in evaluation.verdict.summary()
    assert record.status == "succeeded"
    assert read_predictions(tmp_path / "evaluation").invalid() == 24


def test_too_many_values_of_a_column_are_not_sliced_and_said(tiny_examples: Path, cloud: Path, tmp_path: Path) -> None:
    evaluation, record = _evaluate("cloud", tiny_examples, cloud, tmp_path, max_slice_values=1)
    assert evaluation.slices == {}
    assert "slice column 'source' has 2 values" in record.warnings[0]


def test_a_gated_slice_is_judged(tiny_examples: Path, mobile: Path, tmp_path: Path) -> None:
    gate = {"slices": {"source=*": {"accuracy": {"min": 0.99}}}, "thresholds": {"accuracy": {"min": 0.1}}}
    evaluation, _ = _evaluate("mobile", tiny_examples, mobile, tmp_path, gate=gate)
    assert {reason.slice for reason in evaluation.verdict.reasons if not reason.passed} == {"source=phone", "source=web"}


# --- what can't be evaluated


@pytest.mark.parametrize("kind", ["cloud", "mobile"])
def test_labels_in_another_order_are_a_data_error(tiny_examples: Path, tmp_path: Path, kind: str) -> None:
    write = write_cloud if kind == "cloud" else write_mobile
    model = write(tmp_path / "model", colour_network(), labels=["roses", "daisy", "tulips"])
    with pytest.raises(DataError, match="other classes, or another order"):
        _evaluate(kind, tiny_examples, model, tmp_path)


def test_class_names_of_the_graph_in_another_order_are_a_data_error(tiny_examples: Path, tmp_path: Path) -> None:
    model = write_cloud(tmp_path / "model", colour_network(), graph_labels=["roses", "daisy", "tulips"])
    with pytest.raises(DataError, match="its class names are in another order"):
        _evaluate("cloud", tiny_examples, model, tmp_path)


def test_a_saved_model_that_is_damaged_is_a_data_error(tiny_examples: Path, cloud: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(cloud, tmp_path / "model")
    (tmp_path / "model" / "saved_model" / "saved_model.pb").write_bytes(b"torn")
    with pytest.raises(DataError, match="can't load the SavedModel"):
        _evaluate("cloud", tiny_examples, tmp_path / "model", tmp_path)
    (tmp_path / "model" / "training.json").unlink()
    with pytest.raises(DataError, match=r"training\.json: the file is missing"):
        _evaluate("cloud", tiny_examples, tmp_path / "model", tmp_path)


def test_a_tflite_of_another_size_than_its_contract_is_a_data_error(tiny_examples: Path, mobile: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(mobile, tmp_path / "model")
    other = CONTRACT.model_copy(update={"height": 64})
    (tmp_path / "model" / "quantization.json").write_text(json.dumps({"preprocessing": other.model_dump()}))
    with pytest.raises(DataError, match="the contract says"):
        _evaluate("mobile", tiny_examples, tmp_path / "model", tmp_path)


def test_an_empty_split_is_a_data_error(cloud: Path, tmp_path: Path) -> None:
    from tests.conftest import write_tiny_examples

    examples = write_tiny_examples(tmp_path / "examples", {"train": 1, "validation": 1, "test": 0})
    with pytest.raises(DataError, match="the split 'test' has no examples"):
        _evaluate("cloud", examples, cloud, tmp_path)


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"gate": {"thresholds": {}}}, "gate", "no thresholds are configured"),
        ({"gate": {"thresholds": {"accuracy": {}}}}, "gate", "the threshold has no bound"),
        ({"gate": {"slices": {"web": {"accuracy": {"min": 0.5}}}}}, "gate", "'web' is no slice"),
        ({"gate": {"thresholds": {"accuracy": {"min": 2, "max": 1}}}}, "gate.thresholds.accuracy", "nothing could pass"),
        ({"split": "exam"}, "split", "found 'exam'"),
        ({"resamples": 10}, "resamples", "greater than or equal to 200"),
    ],
)
def test_bad_settings_end_the_step_before_anything_is_loaded(tmp_path: Path, changes: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        _evaluate("cloud", tmp_path / "nowhere", tmp_path / "nowhere", tmp_path, **changes)
    assert f"settings key evaluate_cloud.{key}:" in str(caught.value)


# --- the baseline, fetched from the store and asked the same


def _promote(root: Path, cloud: Path, mobile: Path) -> tuple[Path, str]:
    from components.publish_mobile.publication import publish_release
    from tests.release_pieces import make_release

    store = open_store(str(root / "store"))
    release = make_release(store, root, 0, tflite=mobile / "model.tflite", saved_model=cloud / "saved_model")
    publish_release(store, release.id)
    return root / "store", release.id


GATE = {"thresholds": {"accuracy": {"min": 0.1, "max_drop": 0.02}}, "slices": {"source=web": {"accuracy": {"max_drop": 0.02}}}}


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root, network = tmp_path_factory.mktemp("weak"), colour_network(bias=12.0)
    return write_cloud(root / "cloud", network), write_mobile(root / "mobile", network)


@pytest.mark.parametrize("kind", ["cloud", "mobile"])
def test_a_worse_candidate_is_refused_by_the_baseline_measured_today(
    tiny_examples: Path, cloud: Path, mobile: Path, weak: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    store, release = _promote(tmp_path, cloud, mobile)
    candidate = weak[0] if kind == "cloud" else weak[1]
    evaluation, record = _evaluate(kind, tiny_examples, candidate, tmp_path, store=store, gate=GATE)
    assert not evaluation.verdict.blessed
    assert evaluation.verdict.baseline == release
    assert any(text.startswith("drop of accuracy from") for text in evaluation.verdict.failures())
    assert evaluation.baseline.how == "evaluated"
    own, _ = _evaluate(kind, tiny_examples, cloud if kind == "cloud" else mobile, tmp_path / "own", gate=GATE)
    assert evaluation.baseline.metrics == own.metrics
    assert evaluation.baseline.changes["accuracy"][0] == pytest.approx(evaluation.metrics["accuracy"] - own.metrics["accuracy"])
    assert record.tables[0].columns[-2:] == ["baseline", "change"]


def test_a_better_candidate_passes(tiny_examples: Path, cloud: Path, weak: tuple[Path, Path], tmp_path: Path) -> None:
    store, _ = _promote(tmp_path, *weak)
    evaluation, _ = _evaluate("cloud", tiny_examples, cloud, tmp_path, store=store, gate=GATE)
    assert evaluation.verdict.blessed, evaluation.verdict.summary()


def test_a_damaged_baseline_refuses_until_it_is_reset_with_a_reason(
    tiny_examples: Path, cloud: Path, mobile: Path, weak: tuple[Path, Path], tmp_path: Path
) -> None:
    store, release = _promote(tmp_path, *weak)
    (store / "releases" / release / "mobile" / "model.tflite").write_bytes(b"damaged")
    evaluation, _ = _evaluate("mobile", tiny_examples, mobile, tmp_path, store=store, gate=GATE)
    assert not evaluation.verdict.blessed
    assert "the file was changed after its release" in evaluation.verdict.summary()
    reset = {"gate": GATE, "reset_baseline": "the disk was lost"}
    evaluation, record = _evaluate("mobile", tiny_examples, mobile, tmp_path, store=store, **reset)
    assert evaluation.verdict.blessed
    assert (evaluation.verdict.baseline, evaluation.baseline.release) == ("", release)
    assert any("the disk was lost" in reason.text for reason in evaluation.verdict.reasons)
    assert any("the disk was lost" in warning for warning in record.warnings)


def test_a_baseline_that_cannot_be_loaded_refuses_with_its_reason(tiny_examples: Path, cloud: Path, tmp_path: Path) -> None:
    from components.publish_mobile.publication import publish_release
    from tests.release_pieces import make_release

    store = open_store(str(tmp_path / "store"))
    publish_release(store, make_release(store, tmp_path, 0).id)  # models of a few bytes
    evaluation, _ = _evaluate("cloud", tiny_examples, cloud, tmp_path, store=tmp_path / "store", gate=GATE)
    assert not evaluation.verdict.blessed
    assert "can't load the SavedModel" in evaluation.verdict.summary()


# --- KFP


def test_the_components_log_what_kfp_shows(tiny_examples: Path, cloud: Path, mobile: Path, tmp_path: Path) -> None:
    from kfp import dsl

    from components.evaluate_cloud.component import evaluate_cloud
    from components.evaluate_mobile.component import evaluate_mobile

    store = open_store(str(tmp_path / "store"))
    write_settings(store, "r1", SETTINGS)
    both: list[tuple[Any, Path]] = [(evaluate_cloud, cloud), (evaluate_mobile, mobile)]
    for component, model in both:
        root = tmp_path / model.name
        outputs = {
            "evaluation": dsl.Artifact(uri=str(root / "evaluation")),
            "metrics": dsl.Metrics(uri=str(root / "metrics")),
            "classification": dsl.ClassificationMetrics(uri=str(root / "classification")),
            "view": dsl.HTML(uri=str(root / "view.html")),
        }
        inputs = {"examples": dsl.Dataset(uri=str(tiny_examples)), "model": dsl.Model(uri=str(model))}
        component.python_func(store=store.uri, run_id="r1", **inputs, **outputs)
        accuracy = read_evaluation(root / "evaluation").metrics["accuracy"]
        assert outputs["metrics"].metadata["accuracy"] == accuracy
        logged = outputs["classification"].metadata
        assert logged["confusionMatrix"]["rows"][0]["row"][0] == 8
        assert json.dumps(logged, allow_nan=False), "plain and finite"
        assert logged["confidenceMetrics"][0]["recall"] == 0
        assert logged["confidenceMetrics"][-1]["recall"] == 1
        assert (root / "view.html").read_text().startswith("<!doctype html>")
