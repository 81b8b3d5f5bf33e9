"""An evaluation whose questions were shared out gives the same files, verdict and pictures as one in a single pod."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.core.errors import DataError
from components.core.record import Record, open_step
from components.core.shards import all_shards
from components.core.stores import open_store
from components.evaluate_cloud.evaluate import ask_cloud_shard, evaluate_cloud_model
from components.evaluate_mobile.evaluate import ask_mobile_shard, evaluate_mobile_model
from components.evaluation.split import read_batches
from tests.shards.sharded_ingest import shown
from tests.unit.test_evaluation_models import colour_network, write_cloud, write_mobile

KINDS: dict[str, Any] = {"cloud": (ask_cloud_shard, evaluate_cloud_model), "mobile": (ask_mobile_shard, evaluate_mobile_model)}
FILES = ("evaluation.json", "predictions.npz")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, network = tmp_path_factory.mktemp("models"), colour_network(bias=10.5)
    return {"cloud": write_cloud(root / "cloud", network), "mobile": write_mobile(root / "mobile", network)}


def settings(kind: str) -> str:
    return json.dumps({"seed": 3, f"evaluate_{kind}": {"resamples": 200, "batch_size": 5}})


def ask(kind: str, number: int, count: int, examples: Path, model: Path, work: Path, run_id: str = "r1") -> Record:
    shard = all_shards(count)[number]
    with open_step(shard.title(f"evaluate_{kind}_shard"), store=str(work / "store"), run_id=run_id) as record:
        KINDS[kind][0](record, shard, examples=examples, model=model, settings=settings(kind))
    return record.record


def evaluate(kind: str, count: int, examples: Path, model: Path, work: Path, run_id: str = "r1") -> Record:
    with open_step(f"evaluate_{kind}", store=str(work / "store"), run_id=run_id) as record:
        KINDS[kind][1](record, examples=examples, model=model, settings=settings(kind), output=work / "evaluation", shards=count)
    return record.record


def pieces(work: Path, kind: str) -> list[str]:
    return [name for name in open_store(str(work / "store")).list(f"cache/evaluate_{kind}/pieces/") if name.endswith("piece.json")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_same_files_and_record_from_any_number(
    kind: str, count: int, tiny_examples: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    whole = evaluate(kind, 1, tiny_examples, models[kind], tmp_path / "whole")
    for number in range(count):
        ask(kind, number, count, tiny_examples, models[kind], tmp_path / "shards")
    assert len(pieces(tmp_path / "shards", kind)) == count
    merged = evaluate(kind, count, tiny_examples, models[kind], tmp_path / "shards")
    for file in FILES:
        one, many = (tmp_path / name / "evaluation" / file for name in ("whole", "shards"))
        assert one.read_bytes() == many.read_bytes()
    assert shown(merged) == shown(whole)
    assert pieces(tmp_path / "shards", kind) == []


def test_a_missing_part_is_asked_and_no_other(
    tiny_examples: Path, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (0, 2):
        ask("cloud", number, 3, tiny_examples, models["cloud"], tmp_path)
    capsys.readouterr()
    evaluate("cloud", 3, tiny_examples, models["cloud"], tmp_path)
    said = [line for line in capsys.readouterr().out.splitlines() if "asking about part" in line]
    assert said == ["evaluate_cloud: asking about part 2 of 3"]


def test_no_verdict_rests_on_another_run_or_model(tiny_examples: Path, models: dict[str, Path], tmp_path: Path) -> None:
    for number in range(2):
        ask("cloud", number, 2, tiny_examples, models["cloud"], tmp_path)
    other = write_cloud(tmp_path / "other", colour_network(bias=30))
    evaluate("cloud", 2, tiny_examples, other, tmp_path)
    assert len(pieces(tmp_path, "cloud")) == 2
    evaluate("cloud", 2, tiny_examples, models["cloud"], tmp_path, run_id="r2")
    assert len(pieces(tmp_path, "cloud")) == 2


def test_parts_end_where_batches_end(tiny_examples: Path) -> None:
    whole = [batch.keys for batch in read_batches(tiny_examples, "test", 5)]
    for count in (1, 2, 3, 5, 7):
        parts = [[batch.keys for batch in read_batches(tiny_examples, "test", 5, shard)] for shard in all_shards(count)]
        assert [keys for part in parts for keys in part] == whole


def test_a_shard_refuses_a_model_of_other_labels(tiny_examples: Path, tmp_path: Path) -> None:
    model = write_cloud(tmp_path / "model", colour_network(), labels=["a", "b", "c"])
    with pytest.raises(DataError, match="other classes, or another order"):
        ask("cloud", 0, 2, tiny_examples, model, tmp_path)


def test_a_piece_with_pickles_is_not_loaded(tiny_examples: Path, models: dict[str, Path], tmp_path: Path) -> None:
    from components.evaluation import pieces as module

    (tmp_path / "answers.json").write_text('{"keys": [], "labels": [], "slices": [], "looks": []}')
    np.save(tmp_path / "probabilities.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        module._read(tmp_path)


def test_the_baseline_is_asked_by_the_shards_too(
    tiny_examples: Path, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from components.publish_mobile.publication import publish_release
    from tests.release_pieces import make_release

    better = {"cloud": write_cloud(tmp_path / "c", colour_network()), "mobile": write_mobile(tmp_path / "m", colour_network())}
    for work in ("whole", "shards"):
        store = open_store(str(tmp_path / work / "store"))
        tflite, saved_model = better["mobile"] / "model.tflite", better["cloud"] / "saved_model"
        publish_release(store, make_release(store, tmp_path / work, 0, tflite=tflite, saved_model=saved_model).id)
    whole = evaluate("cloud", 1, tiny_examples, models["cloud"], tmp_path / "whole")
    for number in range(2):
        ask("cloud", number, 2, tiny_examples, models["cloud"], tmp_path / "shards")
    assert len(pieces(tmp_path / "shards", "cloud")) == 4
    capsys.readouterr()
    merged = evaluate("cloud", 2, tiny_examples, models["cloud"], tmp_path / "shards")
    assert "asking about part" not in capsys.readouterr().out
    assert shown(merged) == shown(whole)
    assert merged.verdict is not None
    assert merged.verdict.baseline
    assert pieces(tmp_path / "shards", "cloud") == []
