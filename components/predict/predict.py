"""Batch prediction: planned, answered in shards, and put together as one file with a summary, all of it under one release."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast, get_args

from pydantic import BaseModel, ConfigDict, Field

from components.core.errors import AlreadyExistsError, DataError, UsageError
from components.core.record import StepRecord
from components.core.release import Release, read_baseline, read_release
from components.core.shards import WHOLE, Pieces, Shard, ShardSettings, all_shards, shard_count
from components.core.stores import Store, join
from components.predict.answers import Row, Which, answer, open_models
from components.predict.images import Images, list_images, read_checked

Say = Callable[[str], None]
_SOURCE = ("components.predict", "components.evaluation", "components.core", "components.evaluate_cloud", "components.evaluate_mobile")
_PIECE = "answers.jsonl"
_READERS = 16
_EVERY = 500
PREDICTIONS, SUMMARY = "predictions.jsonl", "summary.json"


@dataclass(frozen=True)
class Asked:
    """What a batch is asked for."""

    data: str
    release: str
    which: Which
    batch_size: int


def parse_asked(data: str, release: str, model: str, batch_size: int) -> Asked:
    """The fields of a run form; `UsageError` for a model that there is not, or a batch size that makes no sense."""
    if model not in get_args(Which):
        raise UsageError(f"there is no model '{model}'", where="field model", fix=f"Choose {', '.join(get_args(Which))}")
    if not 1 <= batch_size <= 4096:
        raise UsageError(f"{batch_size} images are no batch", where="field batch_size", fix="Choose 1 to 4096")
    return Asked(data, release, cast("Which", model), batch_size)


class Summary(BaseModel):
    """The content of summary.json, which is written last."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.predictions/v1"] = Field(default="dual.predictions/v1", alias="schema")
    run_id: str
    data: str
    release: str
    model: Which
    images: int
    answered: int
    unreadable: int
    ignored: int
    """Files that are no JPEG or PNG by their names."""
    labels: dict[str, int]
    """Label → how many images have it."""
    models: dict[str, int]
    """Who answered how many."""
    mean_score: float


@dataclass
class _Count:
    labels: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    images: int = 0
    unreadable: int = 0
    scores: float = 0.0

    def add(self, row: Row) -> None:
        self.images += 1
        if "error" in row:
            self.unreadable += 1
            return
        self.labels[row["label"]] += 1
        self.models[row["model"]] += 1
        self.scores += row["score"]


def choose_release(store: Store, release: str) -> Release:
    """The release of that id, or the promoted one where it is empty; `UsageError` if nothing is promoted."""
    if release:
        return read_release(store, release)
    if (promoted := read_baseline(store)) is None:
        raise UsageError("nothing is promoted yet", where=store.uri, fix="Ship a release with dual run, or name one with --release")
    return promoted


def plan_predictions(record: StepRecord, *, data: str, release: str, sharding: ShardSettings) -> tuple[int, str]:
    """How many shards the images are worth, and the id of the release that answers for all of them, whatever is promoted meanwhile."""
    chosen, images = choose_release(record.store, release), list_images(data)
    count = shard_count(len(images.names), sharding)
    record.note(f"{len(images.names):,} images for release {chosen.id}: {count} shard{'s' if count > 1 else ''}")
    return count, chosen.id


def answer_shard(record: StepRecord, asked: Asked, shard: Shard) -> None:
    """Leave the answers to one part in the store for `predict_all`."""
    if shard.count == 1:
        record.note("one shard: predict asks the release itself")
        return
    with TemporaryDirectory(prefix="dual-piece-") as folder:
        _take(record, asked, list_images(asked.data), shard, Path(folder))
    record.note(f"part {shard}: answered")


def predict_all(record: StepRecord, asked: Asked, output: Path, *, shards: int = 1, name: str = "") -> Summary:
    """Write predictions.jsonl and summary.json to the folder `output` and to `predictions/<name>/` of the store (default: the run's id).

    A line for each image in the order of the names: image, label, score, model, release; or image and error. The same from any number of
    shards. Raises `AlreadyExistsError` if another run wrote under that name, `DataError` if no image could be answered.
    """
    prefix = join("predictions", name or record.run_id)
    images = list_images(asked.data)
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    summary = _written(record.store, prefix, record.run_id)
    if summary is None:
        summary = _write(output / PREDICTIONS, _rows(record, asked, images, shards), record.run_id, asked, images)
        (output / SUMMARY).write_text(summary.model_dump_json(by_alias=True, indent=1))
        for file in (PREDICTIONS, SUMMARY):  # the predictions are there when their summary is
            record.store.put_file(join(prefix, file), output / file)
    else:
        record.store.get_tree(prefix, output)
    for shard in all_shards(shards) if shards > 1 else ():
        _pieces(record.store).drop(_inputs(record.run_id, asked, images, shard))
    _show(record, summary, f"{record.store.uri}/{prefix}/{PREDICTIONS}")
    return summary


def predict_here(store: Store, asked: Asked, path: Path, say: Say) -> Summary:
    """Write the answers to a file of this machine, whole or not at all: what the pipeline's pods do, in one shard and without a run.

    Raises `DataError` if there is no image, or none could be answered.
    """
    images = list_images(asked.data)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        summary = _write(partial, answer_all(store, asked, images, say), "", asked, images)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return summary


def answer_all(store: Store, asked: Asked, images: Images, say: Say, shard: Shard = WHOLE) -> Iterator[Row]:
    """A row for each image of the shard; what a pod does, and what a laptop does with all of them."""
    release, done, total = read_release(store, asked.release), 0, sum(map(len, images.batches(asked.batch_size, shard)))
    with open_models(store, release) as models, ThreadPoolExecutor(_READERS) as pool:
        for names in images.batches(asked.batch_size, shard):
            read = list(pool.map(lambda name: read_checked(images.tree, name), names))
            yield from answer(models, asked.which, names, read)
            before, done = done, done + len(names)
            if before // _EVERY != done // _EVERY or done == total:
                say(f"{done:,} of {total:,} images")


def _write(path: Path, rows: Iterator[Row], run_id: str, asked: Asked, images: Images) -> Summary:
    count = _Count()
    with path.open("w") as file:
        for row in rows:
            count.add(row)
            file.write(_line(row))
    summary = _summary(run_id, asked, images, count)
    if not summary.answered:
        reason = next(json.loads(line)["error"] for line in path.open())
        raise DataError(
            f"none of {summary.images} images could be read; the first {reason}", where=asked.data, fix="Give JPEG or PNG images"
        )
    return summary


def _rows(record: StepRecord, asked: Asked, images: Images, shards: int) -> Iterator[Row]:
    if shards == 1:
        yield from answer_all(record.store, asked, images, record.say)
        return
    for shard in all_shards(shards):
        with TemporaryDirectory(prefix="dual-piece-") as folder:
            _take(record, asked, images, shard, Path(folder))
            with (Path(folder) / _PIECE).open() as file:
                yield from map(json.loads, file)


def _take(record: StepRecord, asked: Asked, images: Images, shard: Shard, folder: Path) -> None:
    def build(target: Path) -> None:
        record.say(f"asking release {asked.release} about part {shard}")
        with (target / _PIECE).open("w") as file:
            file.writelines(_line(row) for row in answer_all(record.store, asked, images, record.say, shard))

    _pieces(record.store).take(_inputs(record.run_id, asked, images, shard), folder, build)


def _pieces(store: Store) -> Pieces:
    return Pieces(store, "predict", _SOURCE)


def _inputs(run_id: str, asked: Asked, images: Images, shard: Shard) -> dict[str, Any]:
    """Of one run: a bucket's listing does not tell whether an image was replaced since the last one."""
    return {"run": run_id, **vars(asked), "listing": images.listing(), "shard": str(shard)}


def _line(row: Row) -> str:
    return f"{json.dumps(row, ensure_ascii=False)}\n"


def _written(store: Store, prefix: str, run_id: str) -> Summary | None:
    """What an earlier attempt of this run finished; `AlreadyExistsError` if it was another run."""
    if (found := store.find(join(prefix, SUMMARY))) is None:
        return None
    summary = Summary.model_validate_json(found.data)
    if summary.run_id != run_id:
        raise AlreadyExistsError(f"holds the predictions of run {summary.run_id}", where=f"{store.uri}/{prefix}", fix="Choose another name")
    return summary


def _summary(run_id: str, asked: Asked, images: Images, count: _Count) -> Summary:
    answered = count.images - count.unreadable
    return Summary(
        run_id=run_id,
        data=asked.data,
        release=asked.release,
        model=asked.which,
        images=count.images,
        answered=answered,
        unreadable=count.unreadable,
        ignored=images.ignored,
        labels=dict(sorted(count.labels.items())),
        models=dict(sorted(count.models.items())),
        mean_score=round(count.scores / answered, 6) if answered else 0.0,
    )


def _show(record: StepRecord, summary: Summary, where: str) -> None:
    record.note(f"{summary.answered:,} of {summary.images:,} images answered by release {summary.release} ({summary.model}): {where}")
    if summary.unreadable:
        record.warn(f"{summary.unreadable:,} images could not be read; their lines say why")
    shares = [[label, number, number / summary.answered] for label, number in summary.labels.items()]
    record.table("labels", ["label", "images", "share"], shares)
    record.table("who answered", ["model", "images"], [[model, number] for model, number in summary.models.items()])
    for name in ("images", "answered", "unreadable", "mean_score"):
        record.metric(name, getattr(summary, name))
    record.data("predictions", where)
    record.data("release", summary.release)
