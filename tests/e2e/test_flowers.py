"""The main job on the real photographs with the weights at hand: the figures that the project promises."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.flowers, pytest.mark.timeout(1800)]
WEIGHTS = "weights/mobilenet_v3_small_224_1.0_float_no_top_from_tflite.weights.h5"


@pytest.fixture(scope="module")
def shipped(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A quick run on the flowers, DenseNet121 from scratch, MobileNetV3-Small from the weights."""
    store = tmp_path_factory.mktemp("flowers") / "store"
    weights = shared / "data" / WEIGHTS
    command = [sys.executable, "-m", "pipelines.cli", "run", "--data", str(shared / "data" / "flowers"), "--store", str(store), "--json"]
    result = subprocess.run(
        [*command, "--set", f"train_mobile.weights={weights}", "--set", "train_cloud.weights=none"],
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )
    told = json.loads(result.stdout.splitlines()[-1])
    assert (result.returncode, told["outcome"]) == (0, "SHIPPED"), told
    return store, json.loads((store / "releases" / told["release"] / "release.json").read_text())


def test_int8_keeps_the_accuracy_of_the_pretrained_network(shipped: tuple[Path, dict[str, Any]]) -> None:
    _, release = shipped
    assert release["evaluations"]["mobile"]["metrics"]["accuracy"] >= 0.84


def test_the_cloud_model_learns_from_scratch(shipped: tuple[Path, dict[str, Any]]) -> None:
    _, release = shipped
    assert release["evaluations"]["cloud"]["metrics"]["accuracy"] >= 0.45


def test_the_worse_cloud_model_is_honestly_never_asked(shipped: tuple[Path, dict[str, Any]]) -> None:
    _, release = shipped
    assert release["evaluations"]["cloud"]["metrics"]["accuracy"] < release["evaluations"]["mobile"]["metrics"]["accuracy"]
    assert release["policy"]["cloud_share"] <= 0.2


def test_labels_match_the_photographs_by_the_published_model(shipped: tuple[Path, dict[str, Any]], shared: Path) -> None:
    store, release = shipped
    images = [next(iter(sorted((shared / "data/flowers/test" / label).glob("*.jpg")))) for label in release["labels"]]
    command = [sys.executable, "-m", "pipelines.cli", "predict", *map(str, images), "--store", str(store), "--model", "mobile", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    right = sum(row["label"] == Path(row["image"]).parent.name for row in rows)
    assert right >= len(rows) - 1, rows
