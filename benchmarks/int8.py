"""What each method of the int8 ladder loses: MobileNetV3 trained on a folder of images, every rung measured on its test split.

    python -m benchmarks.int8 --data flowers/ [--weights mobilenet_v3_small.weights.h5] [--backbone MobileNetV3Small] [--json FILE]

Trains the float model with the product's own steps (ingest, train_mobile), then makes every rung of quantize_mobile from it. The JSON
is a list of objects with rung, backbone, full_int8, accuracy, drop and drop_interval (fractions), agreement, size_bytes, latency_ms_1
and latency_ms_2 (threads), float_ops; the first object is the float reference.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

Row = dict[str, Any]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="class folders, or train/validation/test folders of class folders")
    parser.add_argument("--weights", default="imagenet", help="imagenet, none, or the path of an .h5 file")
    parser.add_argument("--backbone", default="MobileNetV3Small")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of quantization-aware training")
    parser.add_argument("--fine-tune", type=int, default=3, help="fine-tuning epochs of the float model")
    parser.add_argument("--json", type=Path, help="write the list to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dual-int8-") as scratch:
        rows = measure(options, Path(scratch))
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def measure(options: argparse.Namespace, scratch: Path) -> list[Row]:
    """One row per rung, the float reference first."""
    examples, model = train(options, scratch)
    from components.core.record import open_step
    from components.quantize_mobile.convert import to_float
    from components.quantize_mobile.ladder import climb, open_bench
    from components.quantize_mobile.measure import latency_ms
    from components.quantize_mobile.pixels import load_pixels
    from components.quantize_mobile.rungs import Source, rungs
    from components.quantize_mobile.settings import QatSettings, QuantizeSettings
    from components.training.training import read_training

    training = read_training(model)
    # One calibration size: choosing one by the test split would flatter it.
    settings = QuantizeSettings(measure_all=True, calibration_sizes=[300], qat=QatSettings(epochs=options.epochs))
    pixels = load_pixels(examples, "test", training.preprocessing, 100_000, 1)
    with open_step("quantize_mobile", store=str(scratch / "store"), run_id="benchmark") as record:
        source = Source(examples, model, training, settings, 1, record)
        bench = open_bench(scratch, "int8", training.labels, to_float(source.float_network), pixels, settings)
        tried = climb(record, bench, rungs(source))[1]
    common = {"backbone": options.backbone, "test_images": len(pixels)}
    reference = bench.reference
    first: Row = {"rung": "float", "full_int8": False, "accuracy": reference.accuracy, "drop": 0.0, "drop_interval": [0.0, 0.0]}
    first |= {"agreement": 1.0, "size_bytes": reference.size_bytes, "latency_ms_1": reference.latency_ms, "float_ops": None}
    rows = [first, *(row(rung) for rung in tried)]
    for entry in rows:
        path = bench.path(entry["rung"])
        entry["latency_ms_2"] = latency_ms(path, pixels.images[0], settings.latency_runs, threads=2) if path.is_file() else None
    return [{**entry, **common} for entry in rows]


def train(options: argparse.Namespace, scratch: Path) -> tuple[Path, Path]:
    """(examples, model): what ingest and train_mobile make of the data."""
    from components.core.record import open_step
    from components.ingest.ingest import ingest_data
    from components.train_mobile.train import train_mobile_model

    mobile = {"backbone": options.backbone, "weights": options.weights, "fine_tune": {"epochs": options.fine_tune}}
    settings = json.dumps({"seed": 1, "train_mobile": mobile})
    store, examples, model = str(scratch / "store"), scratch / "examples", scratch / "model"
    with open_step("ingest", store=store, run_id="benchmark") as record:
        ingest_data(record, data=options.data, settings=settings, output=examples)
    with open_step("train_mobile", store=store, run_id="benchmark") as record:
        train_mobile_model(record, examples=examples, settings=settings, output=model)
    return examples, model


def row(rung: Any) -> Row:
    """The row of one rung; figures are null where it made no usable model."""
    names = ("full_int8", "accuracy", "drop", "drop_interval", "agreement", "size_bytes")
    figures = {name: None if rung.failed else getattr(rung, name) for name in names}
    floats = sum(rung.float_operations.values())
    return {
        "rung": rung.rung,
        "method": rung.method,
        **figures,
        "latency_ms_1": rung.latency_ms,
        "float_ops": floats,
        "seconds": rung.seconds,
    }


def table(rows: list[Row]) -> str:
    """The rows as text."""
    lines = ["rung           int8  accuracy    drop       drop, 95 %  agree     kB   ms 1   ms 2 float ops"]
    for r in rows:
        if r["accuracy"] is None:
            lines.append(f"{r['rung']:14} no usable model: {r['method']}")
            continue
        low, high = r["drop_interval"]
        floats = "all" if r["float_ops"] is None else r["float_ops"]
        lines.append(
            f"{r['rung']:14} {'yes' if r['full_int8'] else 'no':5} {r['accuracy']:8.3f} {r['drop']:+7.3f} [{low:+.3f}, {high:+.3f}] "
            f"{r['agreement']:6.3f} {r['size_bytes'] / 1000:6.0f} {r['latency_ms_1']:6.2f} {r['latency_ms_2']:6.2f} {floats:>9}"
        )
    return "\n".join([*lines, f"{rows[0]['backbone']}, {rows[0]['test_images']} test images"])


if __name__ == "__main__":
    main()
