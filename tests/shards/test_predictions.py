"""Batch prediction: the answers of a release, alike from any number of shards, on this machine and as the compiled pipeline runs it."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from components.core.errors import AlreadyExistsError, DataError, UsageError
from components.core.record import Record, open_step, read_records
from components.core.shards import ShardSettings, all_shards
from components.core.stores import Store, open_store
from components.predict.predict import Asked, Summary, answer_shard, parse_asked, plan_predictions, predict_all
from components.publish_mobile.publication import publish_release
from components.report.story import tell
from pipelines.compile import compile_pipeline
from pipelines.targets import make_target
from tests.kubeflow_backend import Backend, open_folder
from tests.release_pieces import make_release
from tests.unit.test_evaluation_models import LABELS, colour_network, write_cloud, write_mobile


def coloured(channel: int, strength: int, size: int = 40) -> bytes:
    """An image in which one colour channel is the brightest, more or less clearly."""
    pixels = np.full((size, size, 3), 100, np.uint8)
    pixels[:, :, channel] = 100 + strength
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 images in folders that mean nothing, of which some are hardly coloured; and what is no image."""
    root = tmp_path_factory.mktemp("images")
    (root / "deep" / "er").mkdir(parents=True)
    for number in range(23):
        folder = root / ("deep/er" if number % 4 == 0 else "")
        (folder / f"{number:02}.{'JPG' if number % 5 == 0 else 'jpg'}").write_bytes(coloured(number % 3, 2 if number % 2 else 60))
    (root / "07-broken.jpg").write_bytes(b"no picture")
    (root / "11-cut.jpg").write_bytes(coloured(0, 60, 400)[:900])
    (root / "notes.txt").write_text("nothing")
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A promoted pair: the phone takes hardly coloured images for daisies, the cloud knows better."""
    root = tmp_path_factory.mktemp("pair")
    root.chmod(0o755)
    cloud, mobile = write_cloud(root / "cloud", colour_network()), write_mobile(root / "mobile", colour_network(bias=0.4, sharpness=20))
    store = open_store(str(root / "store"))
    release = make_release(store, root, 0, tflite=mobile / "model.tflite", saved_model=cloud / "saved_model")
    publish_release(store, release.id)
    return store


@pytest.fixture(scope="module")
def release(store: Store) -> str:
    return next(iter(store.list("releases/"))).split("/")[1]


def asked(images: Path, release: str, which: str = "layered") -> Asked:
    return parse_asked(str(images), release, which, 4)


def predict(store: Store, what: Asked, output: Path, run_id: str, shards: int = 1, name: str = "") -> tuple[Summary, Record]:
    with open_step("predict", store=store.uri, run_id=run_id) as record:
        return predict_all(record, what, output, shards=shards, name=name), record.record


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def pieces(store: Store) -> list[str]:
    return list(store.list("cache/predict/pieces/"))


@pytest.mark.parametrize("which", ["cloud", "mobile", "layered"])
def test_every_image_has_a_line_in_the_order_of_the_names(store: Store, release: str, images: Path, tmp_path: Path, which: str) -> None:
    summary, record = predict(store, asked(images, release, which), tmp_path / "out", f"whole-{which}")
    found = rows(tmp_path / "out")
    assert [row["image"] for row in found] == sorted(
        p.relative_to(images).as_posix() for p in images.rglob("*") if p.suffix.lower() == ".jpg"
    )
    assert (summary.images, summary.answered, summary.unreadable, summary.ignored) == (25, 23, 2, 1)
    assert {row["image"] for row in found if "error" in row} == {"07-broken.jpg", "11-cut.jpg"}
    answered = [row for row in found if "error" not in row]
    assert {row["release"] for row in answered} == {release}
    assert summary.labels == {label: sum(row["label"] == label for row in answered) for label in sorted({row["label"] for row in answered})}
    assert record.metrics["answered"] == 23
    assert store.get(f"predictions/whole-{which}/predictions.jsonl").data == (tmp_path / "out" / "predictions.jsonl").read_bytes()


def test_the_cloud_is_right_and_the_phone_asks_it_when_unsure(store: Store, release: str, images: Path, tmp_path: Path) -> None:
    by_model = {}
    for which in ("cloud", "mobile", "layered"):
        predict(store, asked(images, release, which), tmp_path / which, f"who-{which}")
        by_model[which] = {row["image"]: row for row in rows(tmp_path / which) if "error" not in row}
    truth = {name: LABELS[int(Path(name).stem) % 3] for name in by_model["cloud"]}
    assert {name: row["label"] for name, row in by_model["cloud"].items()} == truth
    assert {name: row["label"] for name, row in by_model["mobile"].items()} != truth
    who = {row["model"] for row in by_model["layered"].values()}
    assert who == {"cloud", "mobile"}
    for name, row in by_model["layered"].items():
        assert row == by_model[row["model"]][name]


@pytest.mark.parametrize("count", [2, 3, 7, 9])
def test_any_number_of_shards_gives_the_same_bytes(store: Store, release: str, images: Path, tmp_path: Path, count: int) -> None:
    what = asked(images, release)
    whole, _ = predict(store, what, tmp_path / "whole", f"one-{count}")
    for shard in reversed(all_shards(count)):
        with open_step(shard.title("predict_shard"), store=store.uri, run_id=f"many-{count}") as record:
            answer_shard(record, what, shard)
    merged, _ = predict(store, what, tmp_path / "many", f"many-{count}", shards=count)
    assert (tmp_path / "many" / "predictions.jsonl").read_bytes() == (tmp_path / "whole" / "predictions.jsonl").read_bytes()
    assert merged == whole.model_copy(update={"run_id": f"many-{count}"})
    assert pieces(store) == []


def test_missing_shards_are_asked_by_the_merge(
    store: Store, release: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    what = asked(images, release)
    with open_step("predict_shard-2-of-3", store=store.uri, run_id="missing") as record:
        answer_shard(record, what, all_shards(3)[1])
    capsys.readouterr()
    predict(store, what, tmp_path / "out", "missing", shards=3)
    said = capsys.readouterr().out
    assert [f"about part {n} of 3" in said for n in (1, 2, 3)] == [True, False, True]


def test_the_plan_pins_the_release_and_counts(store: Store, release: str, images: Path) -> None:
    with open_step("plan_predictions", store=store.uri, run_id="plan") as record:
        assert plan_predictions(record, data=str(images), release="", sharding=ShardSettings(images=10)) == (3, release)


def test_another_runs_predictions_are_not_overwritten(store: Store, release: str, images: Path, tmp_path: Path) -> None:
    predict(store, asked(images, release), tmp_path / "a", "first", name="weekly")
    predict(store, asked(images, release), tmp_path / "a", "first", name="weekly")
    with pytest.raises(AlreadyExistsError, match="run first"):
        predict(store, asked(images, release), tmp_path / "b", "second", name="weekly")


def test_what_makes_no_sense_is_refused(store: Store, release: str, images: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").write_text("a")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_text("a")
    with pytest.raises(DataError, match="holds no image among 1 files"):
        predict(store, asked(tmp_path / "none", release), tmp_path / "out", "r")
    with pytest.raises(DataError, match="none of 1 images could be read; the first is not a readable"):
        predict(store, asked(tmp_path / "bad", release), tmp_path / "out", "r")
    for model, size in (("both", 4), ("cloud", 0)):
        with pytest.raises(UsageError):
            parse_asked(str(images), release, model, size)


def test_the_compiled_pipeline_gives_what_the_command_gives(store: Store, release: str, images: Path, tmp_path: Path) -> None:
    from pipelines.cli.batch import command

    images.chmod(0o755)
    done = CliRunner().invoke(
        command, [str(images), "--store", store.uri, "--batch-size", "4", "-o", str(tmp_path / "here.jsonl"), "--json"]
    )
    assert done.exit_code == 0, done.output
    given = {"data": str(images), "store": store.uri, "batch_size": 4, "shard_images": 9}
    with open_folder() as root:
        _open_to_all(Path(store.uri))
        run = Backend(compile_pipeline(make_target("kubeflow"), pipeline="dual-batch").text, root).run(given)
    assert set(run.states.values()) == {"SUCCEEDED"}, run.logs
    assert run.outputs["plan-predictions"] == {"shards": ["1 of 3", "2 of 3", "3 of 3"], "release": release}
    assert store.get(f"predictions/{run.id}/predictions.jsonl").data == (tmp_path / "here.jsonl").read_bytes()
    assert json.loads(store.get(f"predictions/{run.id}/summary.json").data)["answered"] == 23
    assert (tell(read_records(store, run.id)).outcome, tell(read_records(store, run.id)).release) == ("PREDICTED", release)


def _open_to_all(folder: Path) -> None:
    """The pods' user is nobody of this machine."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    for parent in folder.parents:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(0o755)


# A fresh interpreter that forks; the shards' pieces are laid out anew each time, so that no model is loaded again.
_KILLED = """
import shutil, signal, sys
from pathlib import Path
from tests.kill.at_write import ends
from components.core.record import open_step
from components.core.shards import all_shards
from components.predict.predict import answer_shard, parse_asked, predict_all

store, data, release, work = Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
what = parse_asked(data, release, "layered", 8)
def shards():
    for shard in all_shards(2):
        with open_step(shard.title("predict_shard"), store=str(store), run_id="killed") as record:
            answer_shard(record, what, shard)

def whole():
    with open_step("predict", store=str(store), run_id="killed") as record:
        predict_all(record, what, work / "out", shards=2)

assert ends(0, shards) == 0
shutil.copytree(store / "cache" / "predict", work / "pieces")
kill_at = 1
while True:
    for folder in (store / "cache" / "predict", store / "predictions" / "killed", work / "out"):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(work / "pieces", store / "cache" / "predict")
    first = ends(kill_at, whole)
    if first == 0:
        break
    assert first == -signal.SIGKILL, first
    summary = store / "predictions" / "killed" / "summary.json"
    seen = (store / "predictions" / "killed" / "predictions.jsonl").read_bytes() if summary.exists() else b""
    assert ends(0, whole) == 0
    again = [(folder / "predictions.jsonl").read_bytes() for folder in (summary.parent, work / "out")]
    left = list((store / "cache" / "predict").rglob("*.json*"))
    print("killed", kill_at, *(text.hex() for text in again), seen.hex() or "-", len(left), flush=True)
    kill_at += 1
"""


def test_killed_at_every_write_of_the_merge(store: Store, release: str, images: Path, tmp_path: Path) -> None:
    predict(store, parse_asked(str(images), release, "layered", 8), tmp_path / "whole", "unkilled")
    expected = (tmp_path / "whole" / "predictions.jsonl").read_bytes().hex()
    command = [sys.executable, "-c", _KILLED, store.uri, str(images), release, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    assert done.returncode == 0, done.stderr
    lines = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("killed ")]
    assert len(lines) > 15
    for number, stored, output, seen, left in lines:
        assert (stored, output, left) == (expected, expected, "0"), f"killed at write {number}"
        # A summary is there only if all that it sums up is.
        assert seen in ("-", expected), f"killed at write {number}"
