"""What workers are told: one JSON object in the store, beside the examples and the weights that it names by their digests."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.errors import DataError
from components.core.examples import read_examples
from components.core.record import Record, StepRecord
from components.core.stores import Store, join
from components.training.train import Job
from components.training.training import Epoch, WeightsUsed

_DONE = "complete.json"


class Order(BaseModel):
    """A training, whole: whoever has it and the store can do it."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.workers/v1"] = Field(default="dual.workers/v1", alias="schema")
    step: str
    run_id: str
    kind: Literal["cloud", "mobile"]
    examples: str
    """Where the examples lie in the store."""
    settings: dict[str, Any]
    seed: int
    weights: WeightsUsed
    weights_file: str = ""
    """Where the weights lie in the store, if they came from a file."""


def place_order(job: Job) -> str:
    """Put everything that the workers need into the store; the order's name there."""
    order = Order(
        step=job.record.step,
        run_id=job.record.run_id,
        kind=job.kind,
        examples=_put_examples(job),
        settings=job.settings.model_dump(mode="json"),
        seed=job.seed,
        weights=job.weights,
        weights_file=_put_weights(job),
    )
    name = join("cache", job.record.step, "orders", f"{job.key()}.json")
    job.record.store.put(name, order.model_dump_json(by_alias=True).encode())
    return name


def _put_weights(job: Job) -> str:
    if job.weights.used != "file":
        return ""
    name = join("cache", "weights", f"{job.weights.sha256}.h5")
    if not job.record.store.exists(name):
        job.record.store.put_file(name, Path(job.weights.asked))
    return name


def _put_examples(job: Job) -> str:
    prefix = join("cache", "examples", job.examples.digest)
    if not job.record.store.exists(join(prefix, _DONE)):
        job.record.store.put_tree(join(prefix, "examples"), job.root)
        job.record.store.put(join(prefix, _DONE), b"{}")
    return join(prefix, "examples")


def read_order(store: Store, name: str) -> Order:
    """The order; `DataError` if it is malformed."""
    try:
        return Order.model_validate_json(store.get(name).data)
    except ValidationError as error:
        where = f"{store.uri}/{name}"
        raise DataError(f"is no order for workers ({error.errors()[0]['msg']})", where=where, fix="Run the training step again") from None


def take_order(store: Store, order: Order, folder: Path) -> Job:
    """Fetch what an order names into `folder`; the training as the step would do it by itself."""
    from components.training.settings import CloudTrainSettings, MobileTrainSettings

    store.get_tree(order.examples, root := folder / "examples")
    chosen = (CloudTrainSettings if order.kind == "cloud" else MobileTrainSettings).model_validate(order.settings)
    weights = None
    if order.weights_file:
        # Keras tells the two formats of .h5 files by their names.
        store.get_file(order.weights_file, weights := folder / Path(order.weights.asked).name)
    record = StepRecord(store, order.run_id, order.step, Record(step=order.step))
    return Job(order.kind, record, root, read_examples(root), chosen, order.seed, order.weights, weights_file=weights)


def put_progress(store: Store, order: str, epoch: Epoch) -> None:
    """Say that the workers of an order finished an epoch."""
    store.put(_progress_name(order), epoch.model_dump_json().encode())


def read_progress(store: Store, order: str) -> Epoch | None:
    """The last epoch that the workers of an order finished, also those of an earlier start."""
    found = store.find(_progress_name(order))
    return Epoch.model_validate_json(found.data) if found else None


def _progress_name(order: str) -> str:
    return f"{order.removesuffix('.json')}.progress"
