"""What each method of the int8 ladder loses: MobileNetV3 trained on a folder of images, every rung measured on the test split.

    python -m benchmarks.int8 --data flowers/ [--weights mobilenet_v3_small.weights.h5] [--backbone MobileNetV3Small]
        [--json FILE] [--short]

Trains the float model with the product's own steps (ingest, train_mobile), then makes every rung of quantize_mobile from it, and
quantization-aware training with pruned and with clustered weights beside. Training on makes models better whether they are rounded or
not: so the rows that train are compared with `float_control`, the float model trained on alike (same epochs, teacher, learning rates)
without rounding; the others with the float model they were made from. Several `--backbone` and `--weights` go together in pairs.

The JSON is a list of objects with rung, backbone, full_int8, against (the rung that drop and agreement refer to), accuracy, drop,
drop_low, drop_high (fractions; paired 95 % interval), agreement, size_bytes, compressed_bytes, latency_ms_1, latency_ms_2 (threads),
float_operations (null: all), seconds, test_images; figures are null where a rung made no usable model.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

Row = dict[str, Any]
_TRAINED = {"qat": {}, "qat_pruned": {"sparsity": 0.5}, "qat_clustered": {"clusters": 32}}
"""Rows that train: what they change in the section `qat`."""
_FIGURES = ("full_int8", "accuracy", "agreement", "size_bytes", "compressed_bytes", "latency_ms_1", "latency_ms_2")


def main() -> None:
    """Measure and print."""
    options = _options()
    rows: list[Row] = []
    for backbone, weights in zip(options.backbone, options.weights, strict=True):
        with tempfile.TemporaryDirectory(prefix="dual-int8-") as scratch:
            folder = options.keep / backbone if options.keep else Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            rows += measure(options, backbone, weights, folder)
        print(table([row for row in rows if row["backbone"] == backbone]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="class folders, or train/validation/test folders of class folders")
    parser.add_argument("--backbone", nargs="+", default=["MobileNetV3Small"])
    parser.add_argument("--weights", nargs="+", default=["imagenet"], help="for each backbone: imagenet, none, or the path of an .h5 file")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of quantization-aware training, and of the control")
    parser.add_argument("--fine-tune", type=int, default=3, help="fine-tuning epochs of the float model")
    parser.add_argument("--scratch-epochs", type=int, default=30, help="epochs of a float model without weights to start from")
    parser.add_argument("--scratch-size", type=int, default=96, help="image side of such a model in pixels")
    parser.add_argument("--keep", type=Path, help="folder for examples, models and caches; a second run reuses them")
    parser.add_argument("--short", action="store_true", help="only the rungs of seconds, none that trains")
    parser.add_argument("--json", type=Path, help="write the list to this file, after each backbone")
    options = parser.parse_args()
    if len(options.backbone) != len(options.weights):
        parser.error("give as many --weights as --backbone")
    return options


def measure(options: argparse.Namespace, backbone: str, weights: str, folder: Path) -> list[Row]:
    """One row per rung, the float reference first."""
    examples, model = train(options, backbone, weights, folder)
    from components.core.record import open_step
    from components.quantize_mobile.pixels import load_pixels
    from components.quantize_mobile.rungs import Source
    from components.quantize_mobile.settings import QatSettings, QuantizeSettings
    from components.training.training import read_training

    training = read_training(model)
    allowed = {"allow_dynamic_range": True, "allow_selective_float": True}
    rungs = ["ptq", "clipped", "equalised", "corrected", "selective_float", "dynamic_range"]
    # One calibration size: choosing one by the test split would flatter it.
    settings = QuantizeSettings.model_validate(
        {"rungs": rungs, "measure_all": True, "calibration_sizes": [300], "qat": QatSettings(epochs=options.epochs), **allowed}
    )
    pixels = load_pixels(examples, "test", training.preprocessing, 100_000, 1)
    with open_step("quantize_mobile", store=str(folder / "store"), run_id="benchmark") as record:
        source = Source(examples, model, training, settings, 1, record)
        rows = _untrained(source, pixels, folder)
        if not options.short:
            rows += _trained(source, pixels, folder)
    return [{**row, "backbone": backbone, "test_images": len(pixels)} for row in rows]


def _untrained(source: Any, pixels: Any, folder: Path) -> list[Row]:
    """The float model, and what is made of it without training."""
    from components.quantize_mobile.convert import to_float
    from components.quantize_mobile.ladder import climb, open_bench
    from components.quantize_mobile.rungs import rungs

    bench = open_bench(folder, "int8", source.training.labels, to_float(source.float_network), pixels, source.settings)
    return [float_row("float", bench), *(row(rung, "float", bench) for rung in climb(source.record, bench, rungs(source))[1])]


def _trained(source: Any, pixels: Any, folder: Path) -> list[Row]:
    """The control, and what is trained under int8 arithmetic, against it."""
    from components.quantize_mobile.convert import to_float
    from components.quantize_mobile.finetune import fine_tune
    from components.quantize_mobile.ladder import climb, open_bench
    from components.quantize_mobile.rungs import lessons, rungs

    float_network, qat, began = source.float_network, source.settings.qat, time.monotonic()
    control, _ = fine_tune(float_network, float_network, None, lessons(source), qat, source.record.say)
    bench = open_bench(folder, "int8", source.training.labels, to_float(control), pixels, source.settings)
    rows = [{**float_row("float_control", bench), "seconds": round(time.monotonic() - began, 1)}]
    for name, changed in _TRAINED.items():
        source.settings = source.settings.model_copy(update={"rungs": ["qat"], "qat": qat.model_copy(update=changed)})
        bench.settings = source.settings
        rows.append({**row(climb(source.record, bench, rungs(source))[0], "float_control", bench), "rung": name})
    return rows


def train(options: argparse.Namespace, backbone: str, weights: str, folder: Path) -> tuple[Path, Path]:
    """(examples, model): what ingest and train_mobile make of the data."""
    from components.core.record import open_step
    from components.ingest.ingest import ingest_data
    from components.train_mobile.train import train_mobile_model

    scratch = {"epochs": options.scratch_epochs, "image_size": options.scratch_size}
    mobile = {"backbone": backbone, "weights": weights, "fine_tune": {"epochs": options.fine_tune}, "from_scratch": scratch}
    settings = json.dumps({"seed": 1, "train_mobile": mobile})
    store, examples, model = str(folder / "store"), folder / "examples", folder / "model"
    with open_step("ingest", store=store, run_id="benchmark") as record:
        ingest_data(record, data=options.data, settings=settings, output=examples)
    with open_step("train_mobile", store=store, run_id="benchmark") as record:
        train_mobile_model(record, examples=examples, settings=settings, output=model)
    return examples, model


def float_row(name: str, bench: Any) -> Row:
    """The row of the float model that a bench compares with."""
    reference, path = bench.reference, bench.path("float")
    figures: Row = {
        "rung": name,
        "method": "float32",
        "full_int8": False,
        "against": name,
        "accuracy": reference.accuracy,
        "agreement": 1.0,
    }
    figures |= {"drop": 0.0, "drop_low": 0.0, "drop_high": 0.0, "size_bytes": reference.size_bytes, "compressed_bytes": compressed(path)}
    return {
        **figures,
        "latency_ms_1": reference.latency_ms,
        "latency_ms_2": two_threads(bench, path),
        "float_operations": None,
        "seconds": 0.0,
    }


def row(rung: Any, against: str, bench: Any) -> Row:
    """The row of one rung; figures are null where it made no usable model."""
    named: Row = {"rung": rung.rung, "method": rung.failed or rung.method, "against": against, "seconds": rung.seconds}
    if rung.failed:
        return {**named, **dict.fromkeys((*_FIGURES, "drop", "drop_low", "drop_high", "float_operations"))}
    figures = {name: getattr(rung, name) for name in ("full_int8", "accuracy", "drop", "agreement", "size_bytes", "compressed_bytes")}
    low, high = rung.drop_interval
    speed = {"latency_ms_1": rung.latency_ms, "latency_ms_2": two_threads(bench, bench.path(rung.rung))}
    return {**named, **figures, "drop_low": low, "drop_high": high, **speed, "float_operations": sum(rung.float_operations.values())}


def two_threads(bench: Any, path: Path) -> float:
    """Milliseconds of one prediction on two threads."""
    from components.quantize_mobile.measure import latency_ms

    return latency_ms(path, bench.pixels.images[0], bench.settings.latency_runs, threads=2)


def compressed(path: Path) -> int:
    """Bytes of a file under gzip."""
    import gzip

    return len(gzip.compress(path.read_bytes(), 9))


def table(rows: list[Row]) -> str:
    """The rows as text."""
    lines = ["rung             int8  accuracy    drop       drop, 95 %  agree     kB  gz kB   ms 1   ms 2 float ops  seconds"]
    for r in rows:
        if r["accuracy"] is None:
            lines.append(f"{r['rung']:16} no usable model: {r['method']}")
            continue
        floats = "all" if r["float_operations"] is None else r["float_operations"]
        lines.append(
            f"{r['rung']:16} {'yes' if r['full_int8'] else 'no':5} {r['accuracy']:8.3f} {r['drop']:+7.3f} "
            f"[{r['drop_low']:+.3f}, {r['drop_high']:+.3f}] {r['agreement']:6.3f} "
            f"{r['size_bytes'] / 1000:6.0f} {r['compressed_bytes'] / 1000:6.0f} "
            f"{r['latency_ms_1']:6.2f} {r['latency_ms_2']:6.2f} {floats:>9} {r['seconds']:8.1f}"
        )
    return "\n".join(
        [*lines, f"{rows[0]['backbone']}, {rows[0]['test_images']} test images; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"]
    )


if __name__ == "__main__":
    main()
