"""An evaluation in shards: several pods ask the model about their part of the split, the step itself measures and judges.

The parts end where batches end, so that the model sees the same batches as in one pod and gives the same answers. Pieces are named by
the run: a verdict never rests on what an earlier run had computed (DESIGN: gates never use the cache).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from components.core.errors import DualError
from components.core.examples import read_examples
from components.core.record import StepRecord
from components.core.release import Release, read_baseline
from components.core.shards import Pieces, Shard, all_shards
from components.evaluation.baseline import incomparable
from components.evaluation.evaluation import Predictions
from components.evaluation.image_model import ImageModel
from components.evaluation.settings import EvaluateSettings
from components.evaluation.slices import Look
from components.evaluation.split import Observed, join, observe
from components.evaluation.subject import Ground, Subject, check_labels

_SOURCE = ("components.evaluation", "components.training", "components.core")
_ANSWERS, _PROBABILITIES = "answers.json", "probabilities.npy"


@dataclass(frozen=True)
class Asking:
    """One model, asked about the split in as many parts as `ground` says."""

    record: StepRecord
    step: str
    """The evaluation, also where one of its shards is asking."""
    ground: Ground
    which: str
    """What the model is: its digest, or its release."""

    def everything(self, model: ImageModel) -> Observed:
        """What the model answers to the whole split: from the pieces, and where one is missing from the model."""
        if self.ground.shards == 1:
            return self._ask(model, Shard(1, 1))
        return _joined([self.part(model, shard) for shard in all_shards(self.ground.shards)])

    def part(self, model: ImageModel, shard: Shard) -> Observed:
        """What it answers to one part, which is in the store afterwards."""

        def build(folder: Path) -> None:
            self.record.say(f"asking about part {shard}")
            _write(self._ask(model, shard), folder)

        with TemporaryDirectory(prefix="dual-piece-") as folder:
            self._pieces().take(self._inputs(shard), Path(folder), build)
            return _read(Path(folder))

    def drop(self) -> None:
        """Remove the pieces."""
        for shard in all_shards(self.ground.shards) if self.ground.shards > 1 else ():
            self._pieces().drop(self._inputs(shard))

    def _ask(self, model: ImageModel, shard: Shard) -> Observed:
        return observe(model, self.ground.root, self.ground.settings.split, self.ground.settings.batch_size, shard)

    def _pieces(self) -> Pieces:
        return Pieces(self.record.store, self.step, _SOURCE)

    def _inputs(self, shard: Shard) -> dict[str, Any]:
        settings = self.ground.settings
        asked = {"run": self.record.run_id, "model": self.which, "examples": self.ground.examples.digest}
        return {**asked, "split": settings.split, "batch_size": settings.batch_size, "shard": str(shard)}


def ask_shard(record: StepRecord, step: str, subject: Subject, *, settings: EvaluateSettings, examples: Path, shard: Shard) -> None:
    """Leave in the store what the candidate answers to its part, and the baseline if it is going to be asked again.

    Raises `DataError` if the model's labels differ from the examples' or the split is empty.
    """
    ground = Ground(examples, read_examples(examples), settings, 0, shard.count)
    check_labels(subject.model, ground.examples)
    if shard.count == 1:
        record.note(f"one shard: {step} asks the model itself")
        return
    asked = Asking(record, step, ground, subject.digest()).part(subject.model, shard)
    record.note(f"part {shard}: {len(asked.predictions)} examples")
    try:
        _ask_baseline(record, step, subject, ground, shard)
    except DualError as error:
        # What it means for the verdict is said by the evaluation, which tries it again.
        record.note(f"the baseline could not be asked: {error}")


def _ask_baseline(record: StepRecord, step: str, subject: Subject, ground: Ground, shard: Shard) -> None:
    release = None if ground.settings.reset_baseline else read_baseline(record.store)
    if release is None or incomparable(release, ground.examples.labels) or _recorded(release, subject, ground):
        return
    with TemporaryDirectory(prefix="dual-baseline-") as folder:
        model = subject.open_released(record.store, release, Path(folder))
        Asking(record, step, ground, release.id).part(model, shard)
    record.note(f"part {shard}: the baseline {release.id} was asked too")


def _recorded(release: Release, subject: Subject, ground: Ground) -> bool:
    """Whether the release's own figures are of the same examples; then it is not asked again."""
    recorded = getattr(release.evaluations, subject.kind)
    return bool(recorded.examples_digest == ground.examples.digest and recorded.split == ground.settings.split)


def _joined(parts: Sequence[Observed]) -> Observed:
    classes = parts[0].predictions.probabilities.shape[1]
    predictions = join([(list(p.predictions.keys), list(p.predictions.labels), p.predictions.probabilities) for p in parts], classes)
    return Observed(predictions, [row for part in parts for row in part.slices], [look for part in parts for look in part.looks])


def _write(observed: Observed, folder: Path) -> None:
    answers = {
        "keys": observed.predictions.keys.tolist(),
        "labels": observed.predictions.labels.tolist(),
        "slices": observed.slices,
        "looks": [asdict(look) for look in observed.looks],
    }
    (folder / _ANSWERS).write_text(json.dumps(answers))
    np.save(folder / _PROBABILITIES, observed.predictions.probabilities, allow_pickle=False)


def _read(folder: Path) -> Observed:
    told = json.loads((folder / _ANSWERS).read_text())
    keys, labels = np.array(told["keys"], dtype=np.str_), np.array(told["labels"], dtype=np.int64)
    probabilities = np.load(folder / _PROBABILITIES, allow_pickle=False)
    return Observed(Predictions(keys, labels, probabilities), told["slices"], [Look(**look) for look in told["looks"]])
