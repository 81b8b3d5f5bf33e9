"""Quantize the mobile model: float reference, ladder of methods, gate, pictures, artifact."""

import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from components.core.cache import cached_result
from components.core.digest import sha256_file
from components.core.errors import DataError
from components.core.examples import read_examples
from components.core.gate import Verdict
from components.core.record import StepRecord
from components.core.settings import section, value
from components.quantize_mobile.quantization import (
    FLOAT_MODEL,
    QUANTIZED_MODEL,
    LayerError,
    Quantization,
    Rung,
    read_quantization,
    write_quantization,
)
from components.quantize_mobile.settings import QuantizeSettings
from components.training.training import MOBILE_MODEL, Training, read_training

_SOURCE = (
    "components.quantize_mobile",
    "components.training.inputs",
    "components.training.augment",
    "components.training.devices",
    "components.training.records",
    "components.training.transform",
)
_SPLIT = "validation"


def quantize_mobile_model(record: StepRecord, *, examples: Path, model: Path, settings: str, output: Path) -> Quantization:
    """Fill `output` with model.tflite, float.tflite and quantization.json by the section `quantize_mobile` of the run's settings.

    `examples` and `model` are the artifacts of ingest and train_mobile. The verdict is written whatever it is: when no method meets the
    gate, the best model is still there. Raises `DataError` if an input is missing or damaged or no method makes a usable model,
    `UsageError` for a network that can't be rebuilt.
    """
    job = Job(record, examples, model, section(settings, "quantize_mobile", QuantizeSettings), settings)
    cached_result(record, output, job.inputs(), _SOURCE, job.build)
    return read_quantization(output)


class Job:
    """One quantization: its inputs, and how the artifact is built from them."""

    def __init__(self, record: StepRecord, examples: Path, model: Path, chosen: QuantizeSettings, settings: str) -> None:
        self.record, self.examples, self.model, self.settings = record, examples, model, chosen
        self.name, self.seed = str(value(settings, "name", "classifier")), int(value(settings, "seed", 1))
        self.training = _read_input(model, read_examples(examples).labels)

    def inputs(self) -> dict[str, Any]:
        """All that the result depends on, as JSON (the source code apart)."""
        return {
            "examples": read_examples(self.examples).digest,
            "model": sha256_file(self.model / MOBILE_MODEL),
            "training": self.training.settings,
            "settings": self.settings.model_dump(),
            "seed": self.seed,
            "name": self.name,
            "versions": [version("tensorflow"), version("keras"), version("ai-edge-litert")],
        }

    def build(self, output: Path) -> None:
        """Run the ladder and write the artifact and the record's pieces."""
        # Before TensorFlow is imported: its start-up lines are no news.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        from components.quantize_mobile.convert import to_float
        from components.quantize_mobile.ladder import climb, open_bench
        from components.quantize_mobile.pixels import load_pixels
        from components.quantize_mobile.rungs import Source, rungs
        from components.training.devices import make_repeatable

        make_repeatable(self.seed)
        source = Source(self.examples, self.model, self.training, self.settings, self.seed, self.record)
        pixels = load_pixels(self.examples, _SPLIT, self.training.preprocessing, self.settings.measured_images, self.seed)
        with tempfile.TemporaryDirectory(prefix="dual-quantize-") as scratch:
            folder = Path(scratch)
            bench = open_bench(folder, self.name, self.training.labels, to_float(source.float_network), pixels, self.settings)
            self.record.say(f"float: accuracy {bench.reference.accuracy:.3f} on {len(pixels)} {_SPLIT} images")
            chosen, tried = climb(self.record, bench, rungs(source))
            shutil.copyfile(bench.path(chosen.rung), output / QUANTIZED_MODEL)
            shutil.copyfile(bench.path("float"), output / FLOAT_MODEL)
            layers = _layers(bench.arithmetics.get(chosen.rung), source)
        result = self._result(chosen, tried, bench.reference, len(pixels)).model_copy(update={"layers": layers})
        write_quantization(output, result)
        self._report(result, source)

    def _result(self, chosen: Rung, tried: list[Rung], reference: Any, count: int) -> Quantization:
        shared = chosen.model_dump(include={"full_int8", "accuracy", "drop", "drop_interval", "agreement", "size_bytes", "latency_ms"})
        return Quantization(
            method=chosen.rung,
            float_reference=reference,
            rungs=tried,
            split=_SPLIT,
            examples=count,
            preprocessing=self.training.preprocessing,
            labels=self.training.labels,
            verdict=_named(chosen.verdict, chosen),
            **shared,
        )

    def _report(self, result: Quantization, source: Any) -> None:
        from components.quantize_mobile.drawing import draw_rungs, draw_spread

        record = self.record
        for name, number in _metrics(result).items():
            record.metric(name, number)
        record.table("Methods", _COLUMNS, [_float_row(result), *(_row(rung) for rung in result.rungs)])
        record.picture(
            "rungs", draw_rungs(result), "Accuracy of each method against the float model, with the paired 95 % interval of the drop."
        )
        record.picture(
            "spread", draw_spread(source.float_network), "Spread of the weights over each layer's channels: why one scale per layer loses."
        )
        self._report_layers(result)
        record.note(_summary(result))
        if not result.full_int8:
            record.warn(f"model.tflite is NOT full int8: it came from the {result.method} fallback and computes in floats")
        record.verdict(result.verdict)

    def _report_layers(self, result: Quantization) -> None:
        from components.quantize_mobile.drawing import draw_layers
        from components.quantize_mobile.layers import worst_layers

        if not result.layers:
            return
        worst = worst_layers(result.layers, _WORST)
        self.record.table("Layers that int8 hurts most", _LAYER_COLUMNS, [_layer_row(rank, layer) for rank, layer in enumerate(worst, 1)])
        self.record.picture("layers", draw_layers(result.layers, worst), _LAYERS_CAPTION)


def _layers(arithmetic: Any, source: Any) -> list[LayerError]:
    """What the debugger says of the shipped model, on calibration images; empty where the converter chose the ranges."""
    from components.quantize_mobile.layers import measure_layers

    if arithmetic is None:
        return []
    return measure_layers(arithmetic.exact, arithmetic.rounded, arithmetic.ranges, source.calibration.images[:_DEBUGGED])


_DEBUGGED, _WORST = 50, 10
_LAYERS_CAPTION = (
    "Signal over noise of every tensor in int8, in decibels: what its own rounding and clipping leave (dots), and all noise so far (line). "
    "Dips of the dots are the layers that hurt; the worst have the numbers of the table."
)
_LAYER_COLUMNS = ["", "tensor", "operation", "range", "own error, steps", "own signal/noise, dB", "signal/noise so far, dB"]


def _layer_row(rank: int, layer: LayerError) -> list[str | float | int | None]:
    bounds = f"{layer.range[0]:.3g} … {layer.range[1]:.3g}"
    return [rank, layer.tensor, layer.kind, bounds, layer.own_error_in_steps, layer.own_signal_to_noise_db, layer.signal_to_noise_db]


def _read_input(model: Path, labels: list[str]) -> Training:
    training = read_training(model)
    if training.kind != "mobile" or not (model / MOBILE_MODEL).is_file():
        raise DataError(f"no {MOBILE_MODEL} of a mobile training", where=str(model), fix="Run train_mobile again")
    if training.labels != labels:
        raise DataError(
            "the model's labels are not those of the examples", where=str(model), fix="Run train_mobile again on these examples"
        )
    return training


def _named(verdict: Verdict, chosen: Rung) -> Verdict:
    """Each reason says which method it is about."""
    reasons = [reason.model_copy(update={"text": f"{chosen.rung}: {reason.text}"}) for reason in verdict.reasons]
    return verdict.model_copy(update={"reasons": reasons})


def _metrics(result: Quantization) -> dict[str, float]:
    return {
        "float_accuracy": result.float_reference.accuracy,
        "int8_accuracy": result.accuracy,
        "int8_drop": result.drop,
        "agreement": result.agreement,
        "size_bytes": result.size_bytes,
        "latency_ms": result.latency_ms,
        "full_int8": float(result.full_int8),
    }


_COLUMNS = ["method", "accuracy", "drop", "drop, 95 %", "agreement", "kB", "ms, 1 thread", "float operations", "seconds", "gate"]


def _float_row(result: Quantization) -> list[str | float | int | None]:
    reference = result.float_reference
    return ["float", reference.accuracy, 0.0, "", 1.0, reference.size_bytes / 1000, reference.latency_ms, "all", None, ""]


def _row(rung: Rung) -> list[str | float | int | None]:
    if rung.failed:
        return [rung.rung, None, None, "", None, None, None, None, rung.seconds, f"no usable model: {rung.failed}"]
    interval = f"{rung.drop_interval[0]:+.3f} … {rung.drop_interval[1]:+.3f}"
    floats = sum(rung.float_operations.values())
    figures = [rung.accuracy, rung.drop, interval, rung.agreement, rung.size_bytes / 1000, rung.latency_ms, floats, rung.seconds]
    return [f"{rung.rung}: {rung.method}", *figures, "met" if rung.verdict.blessed else "; ".join(rung.verdict.failures())]


def _summary(result: Quantization) -> str:
    reference = result.float_reference
    return (
        f"{result.method}: accuracy {result.accuracy:.3f} (float {reference.accuracy:.3f}) on {result.examples} {result.split} images, "
        f"{result.size_bytes / 1000:.0f} kB (float {reference.size_bytes / 1000:.0f} kB), "
        f"{result.latency_ms:.2f} ms (float {reference.latency_ms:.2f} ms) on this machine at one thread"
    )
