"""Dual training against the plain recipe, both in one run: seconds and test accuracy of each.

    python -m benchmarks.training --data flowers/ --weights mobilenet_v3_small.weights.h5 [--json FILE]

The plain recipe is what tutorials do: decode every image in every epoch, run the frozen backbone forward in every epoch, train the
cloud model, then the mobile model, and save each. Ours decodes once, runs the backbone once per image and augmented view, and
trains the head on features. Each recipe runs in a process of its own; its clock starts after the imports. Our ingest is timed apart.

The cloud side needs pretrained weights to mean anything. Where DenseNet121's are at hand, give `--cloud DenseNet121
--cloud-weights imagenet` (or a path); by default the cloud side is the network of `--weights` as well, trained on its own.
`--cloud-weights none` freezes random weights: the times are right, the accuracies are not.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIDES = ("cloud", "mobile")
SPLITS = ("train", "validation", "test")


def main() -> None:
    """Run both recipes and print the table; the last line says how many times faster ours was."""
    options = _options()
    if options.only:
        _write(options.json, {"plain": plain_recipe, "ours": our_recipe}[options.only](options))
        return
    with tempfile.TemporaryDirectory() as folder:
        data = _limited(options.data, options.limit, Path(folder)) if options.limit else options.data
        results = {name: _in_a_process(name, data, Path(folder) / f"{name}.json") for name in ("plain", "ours")}
    faster = {name: round(results["plain"][name] / results["ours"][name], 2) for name in ("seconds", "processor_seconds")}
    _print(results, faster, options)
    _write(options.json, {**results, "times_faster": faster, "epochs": options.epochs, "views": options.views, "limit": options.limit})


def plain_recipe(options: argparse.Namespace) -> dict[str, Any]:
    """Decode and run the frozen backbone in every epoch, one model after the other."""
    import keras

    keras.utils.set_random_seed(options.seed)
    return _both(options, lambda side: _plain_side(options, side), ingest=0.0)


def our_recipe(options: argparse.Namespace) -> dict[str, Any]:
    """The steps train_cloud and train_mobile, each with an empty cache, on ingested examples."""
    # What the plain recipe imports before its clock starts.
    import keras  # noqa: F401

    from components.core.record import open_step
    from components.ingest.ingest import ingest_data

    with tempfile.TemporaryDirectory() as folder:
        root, began = Path(folder), time.monotonic()
        with open_step("ingest", store=str(root / "store"), run_id="benchmark") as record:
            ingest_data(record, data=str(options.data), settings="{}", output=root / "examples")
        ingest = time.monotonic() - began
        return _both(options, lambda side: _our_side(options, side, root), ingest=ingest)


Predict = Callable[[list[bytes]], Any]


def _both(options: argparse.Namespace, side: Callable[[str], Predict], ingest: float) -> dict[str, Any]:
    seconds, processor, accuracy = {}, {}, {}
    for name in SIDES:
        began, spent = time.monotonic(), time.process_time()
        predict = side(name)
        seconds[name], processor[name] = round(time.monotonic() - began, 2), round(time.process_time() - spent, 2)
        accuracy[name] = round(_accuracy(options.data / "test", predict), 4)
    return {
        "seconds": round(sum(seconds.values()), 2),
        "processor_seconds": round(sum(processor.values()), 2),
        "ingest_seconds": round(ingest, 2),
        "seconds_of": seconds,
        "processor_seconds_of": processor,
        "test_accuracy": accuracy,
    }


def _plain_side(options: argparse.Namespace, side: str) -> Predict:
    import keras

    from components.training.backbones import FEATURES, build_network

    def read(split: str) -> Any:
        return keras.utils.image_dataset_from_directory(
            options.data / split, image_size=(options.size, options.size), batch_size=32, seed=options.seed, verbose=False
        )

    backbone, weights = _start(options, side)
    network: Any = build_network(backbone, options.size, len(_labels(options.data)), weights=weights, dropout=0.2)
    names = [layer.name for layer in network.layers]
    for layer in network.layers[: names.index(FEATURES)]:
        layer.trainable = False
    network.compile(optimizer=keras.optimizers.Adam(0.001), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    network.fit(read("train"), validation_data=read("validation"), epochs=options.epochs, verbose=2)
    with tempfile.TemporaryDirectory() as folder:
        network.export(folder, verbose=False) if side == "cloud" else network.save(f"{folder}/model.keras")
    return lambda images: network.predict(_pixels(images, options.size), verbose=0)


def _our_side(options: argparse.Namespace, side: str, root: Path) -> Predict:
    import tensorflow as tf

    from components.core.record import open_step
    from components.training.settings import CloudTrainSettings, MobileTrainSettings
    from components.training.train import train

    backbone, weights = _start(options, side)
    chosen: dict[str, Any] = {
        "backbone": backbone,
        "weights": str(weights or "none"),
        "image_size": options.size,
        "fine_tune": {"epochs": 0},
        "augment": {"views": options.views},
    }
    settings = {"cloud": CloudTrainSettings, "mobile": MobileTrainSettings}[side].model_validate(chosen)
    # A store for each side: features that one side kept must not help the other.
    with open_step(f"train_{side}", store=str(root / f"store-{side}"), run_id="benchmark") as record:
        kind: Any = side
        train(record, kind, examples=root / "examples", settings=settings, seed=options.seed, output=root / side)
    if side == "cloud":
        serve = tf.saved_model.load(str(root / side / "saved_model")).signatures["serving_default"]
        return lambda images: serve(image_bytes=tf.constant(images))["probabilities"]
    import keras

    network: Any = keras.models.load_model(root / side / "model.keras")
    return lambda images: network.predict(_pixels(images, options.size), verbose=0)


def _start(options: argparse.Namespace, side: str) -> tuple[str, str | Path | None]:
    if side == "mobile":
        return options.mobile, options.weights
    if options.cloud_weights is None:
        return options.mobile, options.weights
    return options.cloud, {"none": None}.get(options.cloud_weights, options.cloud_weights)


def _accuracy(folder: Path, predict: Predict) -> float:
    """On the very same files for both recipes, whatever ingest made of them."""
    labels = _labels(folder.parent)
    files = [(path, labels.index(path.parent.name)) for path in sorted(folder.rglob("*.jpg"))]
    hits = 0
    for start in range(0, len(files), 50):
        chunk = files[start : start + 50]
        found = predict([path.read_bytes() for path, _ in chunk])
        hits += sum(int(row.argmax()) == label for row, (_, label) in zip(_array(found), chunk, strict=True))
    return hits / len(files)


def _pixels(images: list[bytes], size: int) -> Any:
    import numpy as np

    from components.core.preprocessing import Preprocessing
    from components.training.transform import decode_and_resize

    return np.stack([_array(decode_and_resize(image, Preprocessing(height=size, width=size))) for image in images]).astype("float32")


def _array(tensor: Any) -> Any:
    import numpy as np

    return np.asarray(tensor)


def _labels(data: Path) -> list[str]:
    return sorted(folder.name for folder in (data / "train").iterdir() if folder.is_dir())


def _limited(data: Path, limit: int, folder: Path) -> Path:
    """A copy of the data with at most `limit` images per class and split."""
    for split in SPLITS:
        for label in _labels(data):
            (target := folder / "data" / split / label).mkdir(parents=True)
            for path in sorted((data / split / label).glob("*.jpg"))[:limit]:
                shutil.copyfile(path, target / path.name)
    return folder / "data"


def _in_a_process(name: str, data: Path, result: Path) -> dict[str, Any]:
    print(f"--- {name} ---", flush=True)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    # The last option of a name wins.
    arguments = [*sys.argv[1:], "--only", name, "--data", str(data), "--json", str(result)]
    subprocess.run([sys.executable, "-m", "benchmarks.training", *arguments], check=True, env=environment)
    return json.loads(result.read_text())


def _print(results: dict[str, dict[str, Any]], faster: dict[str, float], options: argparse.Namespace) -> None:
    print(f"\n{'recipe':8}{'seconds':>10}{'cloud':>9}{'mobile':>9}{'CPU seconds':>13}{'test accuracy: cloud':>24}{'mobile':>9}")
    for name, result in results.items():
        seconds, accuracy = result["seconds_of"], result["test_accuracy"]
        print(
            f"{name:8}{result['seconds']:10.1f}{seconds['cloud']:9.1f}{seconds['mobile']:9.1f}{result['processor_seconds']:13.1f}"
            f"{accuracy['cloud']:24.3f}{accuracy['mobile']:9.3f}"
        )
    print(
        f"ours is {faster['seconds']}× faster ({faster['processor_seconds']}× less CPU time); plain: {options.epochs} epochs, "
        f"ours: {options.views} augmented views and early stopping; ingest apart: {results['ours']['ingest_seconds']} s"
    )


def _write(path: Path | None, content: dict[str, Any]) -> None:
    if path:
        path.write_text(json.dumps(content, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/, validation/ and test/, a folder per class in each")
    parser.add_argument("--weights", type=Path, required=True, help="the mobile backbone's weights without its top (.h5)")
    parser.add_argument("--mobile", default="MobileNetV3Small", help="the network of --weights")
    parser.add_argument("--cloud", default="DenseNet121", help="the cloud network, if --cloud-weights is given")
    parser.add_argument("--cloud-weights", help="imagenet, none (random) or a path; default: as the mobile side")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--epochs", type=int, default=30, help="epochs of the plain recipe's head (ours stops early by itself)")
    parser.add_argument("--views", type=int, default=1, help="augmented views of ours; the plain recipe augments nothing")
    parser.add_argument("--limit", type=int, default=0, help="at most so many images per class and split; 0 is all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--only", choices=("plain", "ours"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
