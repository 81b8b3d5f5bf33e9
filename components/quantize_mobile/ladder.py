"""The ladder: methods from the cheapest to the dearest, each measured, until one keeps the float model's accuracy."""

import gzip
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.core.errors import DataError
from components.core.gate import Reason, Verdict, at_most, combine
from components.core.record import StepRecord
from components.quantize_mobile.fakequant import Ranges
from components.quantize_mobile.flatbuffer import finish, read_contents
from components.quantize_mobile.interpreter import Classifier
from components.quantize_mobile.measure import accuracy, agreement, latency_ms, paired_drop
from components.quantize_mobile.network import Network
from components.quantize_mobile.pixels import Pixels
from components.quantize_mobile.quantization import FloatReference, Rung
from components.quantize_mobile.settings import FALLBACKS, QuantizeSettings, RungName


@dataclass(frozen=True)
class Arithmetic:
    """What a model computes: a network in int8 with these ranges, in place of `exact` in floats."""

    exact: Network
    rounded: Network
    ranges: Ranges


@dataclass(frozen=True)
class Candidate:
    """One model of a rung: what was done, the .tflite as the converter wrote it, and its arithmetic where that is known."""

    method: str
    data: bytes
    arithmetic: Arithmetic | None = None


Candidates = Callable[[], list[Candidate]]
"""Makes one rung's models."""


@dataclass
class Bench:
    """What every rung is measured with and against."""

    folder: Path
    """Where the models of all rungs lie while the step runs."""
    name: str
    labels: list[str]
    pixels: Pixels
    settings: QuantizeSettings
    reference: FloatReference
    answers: NDArray[np.float32]
    """The float model's probabilities [N, C] for `pixels`."""
    arithmetics: dict[str, Arithmetic | None] = field(default_factory=dict)
    """Rung → the arithmetic of its best model."""

    def path(self, rung: str) -> Path:
        """Where a rung's model lies."""
        return self.folder / f"{rung}.tflite"


def open_bench(folder: Path, name: str, labels: list[str], float_model: bytes, pixels: Pixels, settings: QuantizeSettings) -> Bench:
    """Write the float reference, `float.tflite` in `folder`, and measure it on `pixels`."""
    path = folder / "float.tflite"
    path.write_bytes(finish(float_model, labels, name, f"Float32 reference of {name}.", contract=False))
    answers = Classifier(path).predict(pixels.images)
    speed = latency_ms(path, pixels.images[0], settings.latency_runs)
    reference = FloatReference(accuracy=accuracy(pixels.labels, answers), size_bytes=path.stat().st_size, latency_ms=speed)
    return Bench(folder, name, labels, pixels, settings, reference, answers)


def climb(record: StepRecord, bench: Bench, rungs: Mapping[RungName, Candidates]) -> tuple[Rung, list[Rung]]:
    """Try the settings' rungs in their order; the one to ship, and all that were tried.

    The first that meets the gate and loses no more than `enough_drop` is taken. If none does, the most accurate that meets the gate;
    if none does that, the most accurate usable one; full int8 goes before others. Raises `DataError` if no usable model came out.
    """
    tried: list[Rung] = []
    for name in bench.settings.rungs:
        if _is_wanted(name, tried, bench.settings):
            tried.append(_try(bench, name, rungs[name]))
            record.say(_line(tried[-1]))
    return _choose(tried, bench.settings, bench.folder), tried


def _is_wanted(name: RungName, tried: list[Rung], settings: QuantizeSettings) -> bool:
    if settings.measure_all:
        return True
    if name in FALLBACKS:
        return settings.allows(name) and not any(rung.verdict.blessed for rung in tried)
    return not any(_is_enough(rung, settings) for rung in tried)


def _is_enough(rung: Rung, settings: QuantizeSettings) -> bool:
    return rung.verdict.blessed and round(rung.drop, 9) <= settings.enough_drop


def _choose(tried: list[Rung], settings: QuantizeSettings, folder: Path) -> Rung:
    usable = [rung for rung in tried if not rung.failed]
    if not usable:
        why = "; ".join(f"{rung.rung}: {rung.failed}" for rung in tried) or "the only rungs are last resorts, and not allowed"
        raise DataError(f"no method made a usable model ({why})", where=str(folder), fix="Change quantize_mobile.rungs, or train again")
    enough = [rung for rung in usable if _is_enough(rung, settings) and rung.full_int8]
    return enough[0] if enough else max(usable, key=lambda rung: (rung.verdict.blessed, rung.full_int8, rung.accuracy))


def _try(bench: Bench, name: RungName, candidates: Candidates) -> Rung:
    began = time.monotonic()
    made = candidates()
    rungs = [_measure(bench, name, number, candidate.method, candidate.data) for number, candidate in enumerate(made)]
    best = max(rungs, key=lambda rung: (not rung.failed, rung.accuracy))
    if not best.failed:
        bench.path(f"{name}-{rungs.index(best)}").rename(bench.path(name))
        bench.arithmetics[name] = made[rungs.index(best)].arithmetic
    return best.model_copy(update={"seconds": round(time.monotonic() - began, 1)})


def _measure(bench: Bench, name: RungName, number: int, method: str, data: bytes) -> Rung:
    path = bench.path(f"{name}-{number}")
    path.write_bytes(finish(data, bench.labels, bench.name, f"{bench.name}, quantized: {method}."))
    try:
        answers = Classifier(path).predict(bench.pixels.images)
        speed = latency_ms(path, bench.pixels.images[0], bench.settings.latency_runs)
    except DataError as error:
        failed = Reason(metric="usable", passed=False, text=error.what)
        return Rung(rung=name, method=method, failed=error.what, verdict=combine("quantize_mobile", [failed]))
    contents = read_contents(path.read_bytes())
    drop, interval = paired_drop(bench.pixels.labels, bench.answers, answers)
    rung = Rung(
        rung=name,
        method=method,
        full_int8=contents.full_int8,
        accuracy=accuracy(bench.pixels.labels, answers),
        drop=drop,
        drop_interval=interval,
        agreement=agreement(bench.answers, answers),
        size_bytes=path.stat().st_size,
        compressed_bytes=len(gzip.compress(path.read_bytes(), 9)),
        latency_ms=speed,
        operations=contents.operations,
        float_operations=contents.float_operations,
        verdict=Verdict(step="quantize_mobile", blessed=False),
    )
    return rung.model_copy(update={"verdict": judge_rung(rung, bench.settings)})


def judge_rung(rung: Rung, settings: QuantizeSettings) -> Verdict:
    """The gate of one rung: drop, accuracy, size, and no float inside (unless the settings allow this last resort)."""
    megabytes = rung.size_bytes / 1e6
    reasons = [
        at_most("int8_drop", round(rung.drop, 9), settings.max_drop),
        Reason(
            metric="int8_accuracy",
            passed=rung.accuracy >= settings.min_accuracy,
            value=rung.accuracy,
            bound=settings.min_accuracy,
            text=f"int8_accuracy {rung.accuracy:.4g} (must be >= {settings.min_accuracy:g})",
        ),
        at_most("megabytes", megabytes, settings.max_megabytes, " MB"),
        _int8_reason(rung, settings),
    ]
    return combine("quantize_mobile", reasons)


def _int8_reason(rung: Rung, settings: QuantizeSettings) -> Reason:
    if rung.full_int8:
        return Reason(metric="full_int8", passed=True, value=1.0, text="full int8: no float operation inside")
    count = sum(rung.float_operations.values())
    allowed = settings.allows(rung.rung)
    how = f"allowed by allow_{rung.rung}" if allowed else "must be 0"
    text = f"NOT full int8: {count} float operations in the {rung.rung} model ({how})"
    return Reason(metric="full_int8", passed=allowed, value=0.0, text=text)


def _line(rung: Rung) -> str:
    if rung.failed:
        return f"{rung.rung}: no usable model, {rung.failed}"
    return (
        f"{rung.rung}: accuracy {rung.accuracy:.3f}, drop {rung.drop:+.3f} [{rung.drop_interval[0]:+.3f}, {rung.drop_interval[1]:+.3f}], "
        f"agreement {rung.agreement:.3f}, {rung.size_bytes / 1000:.0f} kB, {rung.latency_ms:.2f} ms, {rung.seconds:.0f} s"
    )
