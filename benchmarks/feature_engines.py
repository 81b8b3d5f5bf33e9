"""Images per second of frozen backbones by TensorFlow and by LiteRT on this CPU, in the product's own code: why `auto` chooses as it does.

    python -m benchmarks.feature_engines [--backbones MobileNetV3Small DenseNet121 …] [--images 128] [--json FILE]

The weights are random: they change neither the operations nor their number. `seconds_ready` is what comes before the first image but
one: the trace, and the conversion for LiteRT or the optimisation for TensorFlow. `difference` is the largest of two features, as a
share of the largest feature. Each engine runs the images three times, in turn with the other; the fastest of each counts.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BACKBONES = (
    *("MobileNetV3Small", "MobileNetV3Large", "MobileNetV3SmallMinimalistic", "MobileNetV2", "MobileNet", "DenseNet121", "ConvNeXtTiny"),
    *("EfficientNetB0", "EfficientNetV2B0", "ResNet50", "ResNet50V2", "InceptionV3", "NASNetMobile", "Xception", "VGG16"),
)
ENGINES = ("tensorflow", "litert")
_BATCH = 32
_TURNS = 3


def main() -> None:
    """Measure and print a line for every network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=BACKBONES, help="names of keras.applications")
    parser.add_argument("--images", type=int, default=128, help="images per measurement")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--json", type=Path, help="write the list of results to this file")
    options = parser.parse_args()
    print(f"{'':30}{'TensorFlow':>12}{'LiteRT':>10}{'':>8}{'seconds ready':>22}{'difference':>12}")
    rows = [measure(name, options.size, options.images) for name in options.backbones]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def measure(backbone: str, size: int, count: int) -> dict[str, Any]:
    """The figures of one network."""
    import keras
    import numpy as np
    import tensorflow as tf

    from components.training import devices
    from components.training.backbones import build_network, feature_network
    from components.training.feature_engines import make_forward

    devices.make_repeatable(1)
    network = feature_network(build_network(backbone, size, 5, weights=None, dropout=0.2))
    pixels = np.random.default_rng(1).uniform(0, 255, (count, size, size, 3)).astype(np.float32)
    batches = [(tf.constant(pixels[start : start + _BATCH]), None) for start in range(0, count, _BATCH)]
    ready, forward, features, rates = {}, {}, {}, dict.fromkeys(ENGINES, 0.0)
    for engine in ENGINES:
        began = time.monotonic()
        forward[engine] = make_forward(engine, network, most=_BATCH, key="feature_engine")
        forward[engine](batches[:1])
        ready[engine] = round(time.monotonic() - began, 1)
    for _ in range(_TURNS):
        for engine in ENGINES:
            began = time.monotonic()
            features[engine] = forward[engine](batches)
            rates[engine] = max(rates[engine], round(count / (time.monotonic() - began), 1))
    difference = float(np.abs(features["litert"] - features["tensorflow"]).max() / np.abs(features["tensorflow"]).max())
    keras.utils.clear_session()
    row = {"backbone": backbone, "images_per_second": rates, "seconds_ready": ready, "difference": difference}
    _print(row)
    return row


def _print(row: dict[str, Any]) -> None:
    rates, ready = row["images_per_second"], row["seconds_ready"]
    print(
        f"{row['backbone']:30}{rates['tensorflow']:12.1f}{rates['litert']:10.1f}{rates['litert'] / rates['tensorflow']:7.2f}×"
        f"{ready['tensorflow']:14.1f}{ready['litert']:8.1f}{row['difference']:12.1e}",
        flush=True,
    )


if __name__ == "__main__":
    main()
