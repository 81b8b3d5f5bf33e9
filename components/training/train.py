"""A training step from start to end: which weights, which phases, what is kept, what is written."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from components.core.cache import cached_result, has_result
from components.core.digest import sha256_file, sha256_json, sha256_source
from components.core.errors import UsageError
from components.core.examples import Examples, read_examples
from components.core.record import StepRecord
from components.core.stores import join
from components.training.imagenet import WeightsUnavailableError, has_cached_weights, reachable
from components.training.settings import TrainSettings
from components.training.training import Epoch, WeightsUsed
from components.training.workspace import Workspace

Kind = Literal["cloud", "mobile"]
_SOURCE = ("components.training", "components.core.preprocessing", "components.core.examples")


@dataclass(frozen=True)
class Job:
    """One training: everything that decides its result, and where it leaves its pieces."""

    kind: Kind
    record: StepRecord
    root: Path
    examples: Examples
    settings: TrainSettings
    seed: int
    weights: WeightsUsed
    seconds: dict[str, float] = field(default_factory=dict)
    weights_file: Path | None = None
    """Where the weights lie here, if not where they were asked for."""
    on_epoch: Callable[[Epoch], None] = lambda _: None
    """Hears each epoch, those of an interrupted run too."""

    @property
    def size(self) -> int:
        """Side of the square input in pixels."""
        return self.settings.image_size if self.pretrained else self.settings.from_scratch.image_size

    @property
    def pretrained(self) -> bool:
        """Whether there are weights to start from."""
        return self.weights.used != "none"

    def initial(self) -> str | None:
        """The `weights` argument of keras.applications."""
        return {"imagenet": "imagenet", "file": str(self.weights_file or self.weights.asked), "none": None}[self.weights.used]

    def inputs(self) -> dict[str, Any]:
        """All that the result depends on, as JSON (the source code apart)."""
        return {
            "kind": self.kind,
            "examples": self.examples.digest,
            "settings": self.settings.model_dump(exclude={"weights", "cache_megabytes", "workers"}),
            # Sums over more replicas are other floats.
            **({"workers": self.settings.workers.count} if self.settings.workers.count > 1 else {}),
            "seed": self.seed,
            "weights": self.weights.model_dump(exclude={"asked"}),
            "versions": [version(package) for package in ("tensorflow", "keras", "ai-edge-litert")],
        }

    def key(self) -> str:
        """Names this very training, whoever does it and wherever: 24 hex digits."""
        return sha256_json([self.inputs(), sha256_source(_SOURCE)])[:24]

    def checkpoints(self) -> Workspace:
        """Where this very training keeps its checkpoints."""
        return Workspace(self.record.store, join("cache", self.record.step, "work", self.key()))

    def source(self) -> list[str]:
        """The Python packages that its result depends on."""
        return [*_SOURCE, f"components.{self.record.step}"]

    def is_done(self) -> bool:
        """Whether its result is in the store."""
        return has_result(self.record.store, self.record.step, self.inputs(), self.source())

    def features(self, precision: str, engine: str) -> Workspace:
        """Where the features lie that every training of the same backbone on the same images shares."""
        kept = {"backbone", "augment"} if self.settings.augment.views else {"backbone"}
        computed = {"size": self.size, "precision": precision, "engine": engine}
        inputs = {**self.inputs(), "settings": self.settings.model_dump(include=kept), **computed}
        key = sha256_json([{**inputs, "kind": ""}, sha256_source(_SOURCE)])[:24]
        return Workspace(self.record.store, join("cache", "features", key))

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the wall-clock seconds inside to `seconds[part]`."""
        began = time.monotonic()
        yield
        self.seconds[part] = round(self.seconds.get(part, 0.0) + time.monotonic() - began, 2)


def train(record: StepRecord, kind: Kind, *, examples: Path, settings: TrainSettings, seed: int, output: Path) -> None:
    """Train one side on the examples artifact and fill the folder `output` as the contract of `kind` says.

    Reuses the step's cached result; resumes from the checkpoints of a killed run. Raises `UsageError` for weights that can't
    be used, `DataError` for examples that can't; falls back to training from scratch, with a warning, where ImageNet weights
    can't be had.
    """
    asked = check_weights(settings.weights, f"{record.step}.weights")
    why = ""
    if asked.used == "imagenet":
        why = "" if has_cached_weights() or reachable() else "the network can't be reached"
    if not why:
        try:
            return _train(Job(kind, record, examples, read_examples(examples), settings, seed, asked), output)
        except WeightsUnavailableError as error:
            why = error.what
    weights = from_scratch_instead(settings.backbone, why)
    record.warn(weights.note)
    return _train(Job(kind, record, examples, read_examples(examples), settings, seed, weights), output)


def check_weights(asked: str, key: str) -> WeightsUsed:
    """What the setting asks for; a path is checked here, and `UsageError` names the settings `key` if it is no weights file."""
    if asked in ("imagenet", "none"):
        return WeightsUsed(asked=asked, used=asked)
    path = Path(asked).expanduser()
    if not path.is_file():
        fix = "Give imagenet, none, or the path of an .h5 file"
        raise UsageError(f"there is no file {path}", where=f"settings key {key}", fix=fix)
    # What HDF5 files begin with (HDF5 file format specification, section II.A).
    with path.open("rb") as file:
        if path.suffix != ".h5" or file.read(8) != b"\x89HDF\r\n\x1a\n":
            raise UsageError(f"{path} is no HDF5 file", where=f"settings key {key}", fix="Give an .h5 file of Keras weights")
    return WeightsUsed(asked=str(path.resolve()), used="file", sha256=sha256_file(path))


def from_scratch_instead(backbone: str, why: str) -> WeightsUsed:
    """The weights that are used when ImageNet's can't be had, with the sentence that says so wherever it matters."""
    note = f"ImageNet weights of {backbone} are not in Keras' cache and could not be downloaded ({why}): trained from scratch instead"
    return WeightsUsed(asked="imagenet", used="none", note=note)


def _train(job: Job, output: Path) -> None:
    if job.settings.workers.count > 1 and not job.is_done():
        _have_trained(job, output)
    else:
        finish(job, output)


def _have_trained(job: Job, output: Path) -> None:
    from components.training.distributed.coordinate import train_by_workers

    course = train_by_workers(job)
    finish(job, output)
    # The pieces of the record came from the first worker, who knows nothing of what became of the others.
    job.record.record.cached = False
    if job.settings.workers.target != "processes":
        job.record.data("workers_elsewhere", job.settings.workers.count)
    for sentence in course:
        job.record.note(sentence)


def finish(job: Job, output: Path) -> None:
    """Fill `output` with the result, from the store if it is there, else by training in this process; then the checkpoints go."""

    def build(folder: Path) -> None:
        from components.training.build import build_artifact

        build_artifact(job, folder)

    cached_result(job.record, output, job.inputs(), job.source(), build)
    for phase in ("fine_tune", "scratch"):
        job.checkpoints().delete(phase)
