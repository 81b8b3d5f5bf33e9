"""The whole job by its command, on drawn flowers: what ships, what is refused, what is asked afterwards."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

DUAL = [sys.executable, "-m", "pipelines.cli"]
# Small networks on few small pictures: this tier tests the flow, not what the models reach.
SMALL = {
    "ingest.drawn.images_per_class": 30,
    "ingest.drawn.size": 64,
    "train_cloud.backbone": "MobileNetV3Small",
    "train_cloud.weights": "none",
    "train_cloud.from_scratch.epochs": 2,
    "train_cloud.from_scratch.image_size": 48,
    "train_mobile.weights": "none",
    "train_mobile.from_scratch.epochs": 2,
    "train_mobile.from_scratch.image_size": 48,
    "quantize_mobile.rungs": "[ptq]",
    "quantize_mobile.calibration_sizes": "[30]",
    "quantize_mobile.max_drop": 1.0,
    "evaluate_cloud.gate.thresholds.accuracy.min": 0.0,
    "evaluate_mobile.gate.thresholds.accuracy.min": 0.0,
    "compare_pair.gate.thresholds.agreement.min": 0.0,
    "validate_infra.requests": 10,
    "roll_out_cloud.requests": 10,
}


def dual(*arguments: str, check: bool = False) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*DUAL, *arguments], capture_output=True, text=True, check=check, timeout=900)


def run(store: Path, cache: Path, data: str = "drawn", changes: dict[str, Any] | None = None) -> "subprocess.CompletedProcess[str]":
    settings = {**SMALL, "ingest.cache": str(cache), **(changes or {})}
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return dual("run", "--data", data, "--store", str(store), "--json", *flags)


def outcome(result: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert result.stdout, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@dataclass
class Shipped:
    store: Path
    cache: Path
    outcome: dict[str, Any]
    images: list[Path]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    """A store into which one small run has shipped."""
    root = tmp_path_factory.mktemp("shipped")
    result = run(root / "store", root / "cache")
    told = outcome(result)
    assert result.returncode == 0, told
    images = sorted((root / "cache").rglob("*.jpg"))[:3]
    return Shipped(root / "store", root / "cache", told, images)


def test_a_run_ships_a_pair_that_verifies(shipped: Shipped) -> None:
    assert shipped.outcome["outcome"] == "SHIPPED"
    assert len(shipped.outcome["release"]) == 12
    verified = dual("release", "verify", "--store", str(shipped.store))
    assert (verified.returncode, verified.stdout.strip()) == (0, "ok: every digest matches")


def test_the_report_says_shipped_and_that_the_images_are_drawn(shipped: Shipped) -> None:
    page = Path(shipped.outcome["report"]).read_text()
    assert "SHIPPED" in page
    assert "drawn" in page
    assert "trained from scratch" in page or "random weights" in page


def test_the_release_says_what_it_was_made_from(shipped: Shipped) -> None:
    release = json.loads(dual("release", "show", "--store", str(shipped.store), check=True).stdout)
    assert release["dataset"]["drawn"] is True
    assert release["models"]["cloud"]["weights"]
    assert sorted(release["labels"]) == ["daisy", "dandelion", "roses", "sunflowers", "tulips"]


@pytest.mark.parametrize("model", ["cloud", "mobile", "layered"])
def test_predict_answers_one_json_object_a_line(shipped: Shipped, model: str) -> None:
    images = [str(image) for image in shipped.images]
    result = dual("predict", *images, "--store", str(shipped.store), "--model", model, "--json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 0, result.stderr
    assert [row["image"] for row in rows] == images
    assert all(set(row) == {"image", "label", "score", "model", "why", "release"} and 0 < row["score"] <= 1 for row in rows)
    assert {row["model"] for row in rows} <= ({model} if model != "layered" else {"cloud", "mobile"})


def test_predict_names_an_unreadable_image_and_answers_the_others(shipped: Shipped, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no image")
    result = dual("predict", str(broken), str(shipped.images[0]), "--store", str(shipped.store), "--model", "mobile", "--json")
    assert result.returncode == 4
    assert str(broken) in result.stderr
    assert json.loads(result.stdout)["image"] == str(shipped.images[0])


def test_the_same_run_again_comes_from_the_cache_and_ships_the_same_release(shipped: Shipped) -> None:
    again = outcome(run(shipped.store, shipped.cache))
    assert (again["outcome"], again["release"]) == ("SHIPPED", shipped.outcome["release"])
    record = json.loads((shipped.store / "runs" / again["run_id"] / "train_cloud" / "record.json").read_text())
    assert record["cached"] is True


def test_a_refused_pair_ships_nothing_and_exits_3(shipped: Shipped) -> None:
    before = (shipped.store / "channels" / "stable.json").read_bytes()
    result = run(shipped.store, shipped.cache, changes={"evaluate_mobile.gate.thresholds.accuracy.min": 1.0})
    told = outcome(result)
    assert (result.returncode, told["outcome"]) == (3, "NOT SHIPPED")
    assert "evaluate_mobile: accuracy" in told["why"]
    assert (shipped.store / "channels" / "stable.json").read_bytes() == before
    assert "NOT SHIPPED" in Path(told["report"]).read_text()


def test_bad_data_exits_4_with_a_report(shipped: Shipped, tmp_path: Path) -> None:
    (tmp_path / "only" / "roses").mkdir(parents=True)
    (tmp_path / "only" / "roses" / "a.jpg").write_bytes(shipped.images[0].read_bytes())
    result = run(tmp_path / "store", shipped.cache, data=str(tmp_path / "only"))
    told = outcome(result)
    assert (result.returncode, told["outcome"]) == (4, "FAILED")
    assert told["why"].startswith("ingest: DataError")
    assert "FAILED" in Path(told["report"]).read_text()


def test_undo_of_the_first_release_is_refused_with_a_way_out(shipped: Shipped, tmp_path: Path) -> None:
    result = dual("undo", "--store", str(tmp_path / "empty"))
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_an_interrupted_run_leaves_no_process_and_can_be_reported(shipped: Shipped, tmp_path: Path) -> None:
    store = tmp_path / "store"
    flags = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    child = subprocess.Popen(
        [*DUAL, "run", "--data", "drawn", "--store", str(store), "--set", f"ingest.cache={shipped.cache}", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert child.stdout is not None
    for line in child.stdout:
        if "validate_data: started" in line:
            break
    child.send_signal(signal.SIGINT)
    child.wait(timeout=60)
    assert child.returncode != 0
    assert _processes_of(store) == []
    told = json.loads(dual("report", "--store", str(store), "--json", "-o", str(tmp_path / "page.html")).stdout)
    assert told["outcome"] == "FAILED"


def _processes_of(store: Path) -> list[str]:
    """Command lines of living processes that name the store."""
    import psutil

    own = {os.getpid()}
    lines = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline", "pid"]) if p.info["pid"] not in own]
    return [line for line in lines if str(store) in line]
