"""The ladder: what is measured, what is judged, what is chosen; and the whole step on tiny examples."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.core.errors import DataError
from components.core.gate import Verdict
from components.core.record import open_step, read_records
from components.core.stores import open_store
from components.quantize_mobile.interpreter import Classifier
from components.quantize_mobile.ladder import _choose, _is_wanted, judge_rung
from components.quantize_mobile.measure import accuracy, agreement, paired_drop
from components.quantize_mobile.quantization import Rung, read_quantization
from components.quantize_mobile.quantize import quantize_mobile_model
from components.quantize_mobile.settings import FALLBACKS, QuantizeSettings
from tests.conftest import LABELS
from tests.unit.test_quantize_network import random_mobilenet, untyped_keras


def rung(name: str = "ptq", **changed: Any) -> Rung:
    usual = {"full_int8": True, "accuracy": 0.9, "drop": 0.01, "size_bytes": 1_000_000}
    return Rung.model_validate({"rung": name, "method": "", "verdict": Verdict(step="q", blessed=False), **usual, **changed})


def answers(classes: list[int]) -> Any:
    return np.eye(3, dtype=np.float32)[classes]


def test_drop_is_paired_and_its_interval_knows_which_answers_changed() -> None:
    labels = np.zeros(200, np.int64)
    reference, same, swapped = [0] * 180 + [1] * 20, [0] * 180 + [1] * 20, [0] * 160 + [1] * 20 + [0] * 20
    drop, (low, high) = paired_drop(labels, answers(reference), answers(same))
    assert drop == 0
    assert low < 0 < high < 0.02
    drop, (wide_low, wide_high) = paired_drop(labels, answers(reference), answers(swapped))
    assert drop == 0
    assert wide_low < low
    assert wide_high > high
    drop, (low, high) = paired_drop(labels, answers(reference), answers([0] * 150 + [1] * 50))
    assert drop == pytest.approx(0.15)
    assert 0.09 < low < 0.15 < high < 0.21


def test_agreement_and_accuracy_count_the_most_probable_class() -> None:
    assert agreement(answers([0, 1, 2, 2]), answers([0, 1, 1, 2])) == 0.75
    assert accuracy(np.array([0, 0, 2, 2]), answers([0, 1, 2, 2])) == 0.75


@pytest.mark.parametrize(
    ("changed", "settings", "text"),
    [
        ({}, {}, ""),
        ({"drop": 0.03}, {}, ""),
        ({"drop": 0.034}, {}, "int8_drop 0.034 (must be <= 0.03)"),
        ({"drop": -0.03}, {}, ""),
        ({"accuracy": 0.7}, {"min_accuracy": 0.8}, "int8_accuracy 0.7 (must be >= 0.8)"),
        ({"size_bytes": 25_000_000}, {}, "megabytes 25 MB (must be <= 20 MB)"),
        ({"full_int8": False, "float_operations": {"CONV_2D": 3}}, {}, "NOT full int8: 3 float operations in the ptq model (must be 0)"),
        ({"full_int8": False}, {"allow_dynamic_range": True}, "NOT full int8: 0 float operations in the ptq model (must be 0)"),
    ],
)
def test_gate_of_a_rung(changed: dict[str, Any], settings: dict[str, Any], text: str) -> None:
    verdict = judge_rung(rung(**changed), QuantizeSettings(**settings))
    assert verdict.failures() == ([text] if text else [])
    assert verdict.blessed == (not text)


def test_dynamic_range_is_blessed_only_when_allowed_and_says_what_it_is() -> None:
    fallback = rung("dynamic_range", full_int8=False, float_operations={"CONV_2D": 3})
    assert not judge_rung(fallback, QuantizeSettings()).blessed
    allowed = judge_rung(fallback, QuantizeSettings(allow_dynamic_range=True))
    assert allowed.blessed
    assert any("NOT full int8" in reason.text and "allowed" in reason.text for reason in allowed.reasons)


def test_cheapest_good_enough_rung_is_chosen_else_the_best_that_meets_the_gate(tmp_path: Path) -> None:
    yes, no = Verdict(step="q", blessed=True), Verdict(step="q", blessed=False)

    def chosen(*tried: Rung) -> str:
        return _choose(list(tried), QuantizeSettings(enough_drop=0.01), tmp_path).rung

    poor = rung("ptq", verdict=no, accuracy=0.7, drop=0.2)
    passing = rung("clipped", verdict=yes, accuracy=0.88, drop=0.02)
    assert chosen(poor, rung("clipped", verdict=yes, accuracy=0.89), rung("qat", verdict=yes, accuracy=0.9, drop=0.0)) == "clipped"
    assert chosen(poor, passing, rung("qat", verdict=yes, accuracy=0.885, drop=0.015)) == "qat"
    assert chosen(poor, passing, rung("qat", verdict=yes, accuracy=0.87, drop=0.03)) == "clipped"
    fallback = rung("dynamic_range", verdict=yes, full_int8=False, accuracy=0.95, drop=-0.01)
    assert chosen(poor, passing, fallback) == "clipped"
    assert chosen(poor, fallback) == "dynamic_range"
    assert chosen(poor, rung("clipped", verdict=no, accuracy=0.8, drop=0.1)) == "clipped"
    with pytest.raises(DataError, match="no method made a usable model"):
        chosen(rung(failed="refused", verdict=no))


def test_dearer_rungs_are_tried_until_one_is_good_enough() -> None:
    yes, no, settings = Verdict(step="q", blessed=True), Verdict(step="q", blessed=False), QuantizeSettings(enough_drop=0.01)
    passing, enough = rung(verdict=yes, drop=0.02), rung(verdict=yes, drop=0.01)
    assert _is_wanted("qat", [rung(verdict=no)], settings)
    assert _is_wanted("qat", [passing], settings)
    assert not _is_wanted("qat", [enough], settings)
    assert _is_wanted("qat", [enough], QuantizeSettings(measure_all=True))
    allowed = QuantizeSettings(allow_dynamic_range=True)
    assert not _is_wanted("dynamic_range", [], settings)
    assert _is_wanted("dynamic_range", [rung(verdict=no)], allowed)
    assert not _is_wanted("dynamic_range", [passing], allowed), "no float model where an int8 one meets the gate"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_examples: Path) -> Path:
    """A mobile training artifact: minimalistic MobileNetV3 at 32 px, random but for its head, which fits the tiny examples."""
    from components.core.examples import read_examples
    from components.core.preprocessing import Preprocessing
    from components.quantize_mobile.pixels import load_pixels
    from components.training.training import Training, WeightsUsed, write_training

    keras = untyped_keras()
    root, contract = tmp_path_factory.mktemp("training"), Preprocessing(height=32, width=32)
    model = random_mobilenet("MobileNetV3Small", True, 32, len(LABELS))
    train = load_pixels(tiny_examples, "train", contract, 1000, 1)
    features = keras.Model(model.input, model.get_layer("avg_pool").output).predict(train.images.astype(np.float32), verbose=0)
    inputs = np.hstack([features, np.ones((len(features), 1), np.float32)])
    solved = np.linalg.solve(inputs.T @ inputs + np.eye(inputs.shape[1]), inputs.T @ (12 * np.eye(3)[train.labels]))
    model.layers[-1].set_weights([solved[:-1], solved[-1]])
    model.save(root / "model.keras")
    facts: dict[str, Any] = {"kind": "mobile", "backbone": "MobileNetV3Small", "weights": WeightsUsed(asked="none", used="none")}
    facts |= {"preprocessing": contract, "labels": LABELS, "seed": 1, "examples_digest": read_examples(tiny_examples).digest}
    facts |= {"parameters": model.count_params(), "epochs": {}, "history": [], "validation": {}, "precision": "float32", "replicas": 1}
    write_training(root, Training(**facts, seconds={}, settings={"label_smoothing": 0.1}))
    return root


def quantize(trained: Path, examples: Path, folder: Path, **settings: Any) -> Any:
    with open_step("quantize_mobile", store=str(folder / "store"), run_id="run", view=str(folder / "view.html")) as record:
        text = json.dumps({"name": "tiny", "quantize_mobile": {"latency_runs": 3, **settings}})
        quantize_mobile_model(record, examples=examples, model=trained, settings=text, output=folder / "quantized")
        return record.record


def test_step_measures_every_rung_and_writes_the_contract(trained: Path, tiny_examples: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"measure_all": True, "max_drop": 0.3, "enough_drop": 0.3, "calibration_sizes": [6, 12]}
    record = quantize(trained, tiny_examples, tmp_path, **settings, qat={"epochs": 1, "batch_size": 8}, ranges={"images": 24})
    result = read_quantization(tmp_path / "quantized")
    assert [tried.rung for tried in result.rungs] == ["ptq", "clipped", "corrected", "equalised", "qat", *FALLBACKS]
    assert [tried.rung for tried in result.rungs if not tried.full_int8] == [*FALLBACKS]
    assert not [tried.rung for tried in result.rungs if tried.failed]
    assert result.float_reference.accuracy > 0.7
    assert result.method == "ptq"
    assert result.verdict.blessed
    assert result.examples == 18
    model = Classifier(tmp_path / "quantized" / "model.tflite")
    assert (model.labels, model.input_size) == (LABELS, (32, 32))
    assert Classifier(tmp_path / "quantized" / "float.tflite").labels == LABELS
    assert {"int8_accuracy", "int8_drop", "size_bytes", "latency_ms", "full_int8"} <= set(record.metrics)
    stored = read_records(open_store(str(tmp_path / "store")), "run")["quantize_mobile"]
    assert {picture.name for picture in stored.pictures} == {"rungs", "spread"}
    assert len(stored.tables[0].rows) == 8
    assert "data:image/png;base64," in (tmp_path / "view.html").read_text()


def test_ladder_stops_at_the_first_rung_that_meets_the_gate_and_is_cached(trained: Path, tiny_examples: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"max_drop": 1.0, "enough_drop": 1.0, "calibration_sizes": [6]}
    assert not quantize(trained, tiny_examples, tmp_path, **settings).cached
    first = read_quantization(tmp_path / "quantized")
    assert [tried.rung for tried in first.rungs] == ["ptq"]
    shutil.rmtree(tmp_path / "quantized")
    assert quantize(trained, tiny_examples, tmp_path, **settings).cached
    assert read_quantization(tmp_path / "quantized") == first


def test_unmet_gate_is_not_blessed_and_the_best_model_is_still_written(trained: Path, tiny_examples: Path, tmp_path: Path) -> None:
    record = quantize(trained, tiny_examples, tmp_path, rungs=["ptq", "dynamic_range"], calibration_sizes=[6], min_accuracy=1.0)
    result = read_quantization(tmp_path / "quantized")
    assert [tried.rung for tried in result.rungs] == ["ptq"], "dynamic range is not tried unless it is allowed"
    assert record.verdict is not None
    assert not record.verdict.blessed
    assert "int8_accuracy" in record.verdict.summary()
    assert Classifier(tmp_path / "quantized" / "model.tflite").labels == LABELS


def test_allowed_fallback_is_labelled_everywhere(trained: Path, tiny_examples: Path, tmp_path: Path) -> None:
    record = quantize(trained, tiny_examples, tmp_path, rungs=["dynamic_range"], allow_dynamic_range=True, max_drop=1.0)
    result = read_quantization(tmp_path / "quantized")
    assert (result.method, result.full_int8, result.verdict.blessed) == ("dynamic_range", False, True)
    assert any("NOT full int8" in warning for warning in record.warnings)
    assert Classifier(tmp_path / "quantized" / "model.tflite").output_details["quantization"] == (1 / 256, 0)


@pytest.mark.parametrize("damage", ["training.json", "model.keras", "labels", "truncated"])
def test_damaged_input_is_a_data_error(trained: Path, tiny_examples: Path, tmp_path: Path, damage: str) -> None:
    broken = shutil.copytree(trained, tmp_path / "broken")
    if damage == "labels":
        text = (broken / "training.json").read_text()
        (broken / "training.json").write_text(text.replace('"roses"', '"roses2"'))
    elif damage == "truncated":
        (broken / "model.keras").write_bytes((trained / "model.keras").read_bytes()[:5000])
    else:
        (broken / damage).unlink()
    with pytest.raises(DataError, match="broken"):
        quantize(broken, tiny_examples, tmp_path)


def test_balanced_order_takes_turns_and_repeats() -> None:
    from components.quantize_mobile.pixels import balanced_order

    labels = np.array([0] * 50 + [1] * 5 + [2] * 20)
    order = balanced_order(labels, 7)
    assert sorted(order.tolist()) == list(range(75))
    assert np.bincount(labels[order[:15]]).tolist() == [5, 5, 5]
    np.testing.assert_array_equal(order, balanced_order(labels, 7))
    assert order.tolist() != balanced_order(labels, 8).tolist()
