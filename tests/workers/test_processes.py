"""Two worker processes train one network: what one worker would get, a killed one costs no more than its epoch, and none is left over."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.core.errors import UsageError
from components.core.record import Record, read_records
from components.core.stores import open_store
from components.training.distributed.coordinate import WorkersError
from components.training.training import read_training
from tests.training_runs import run_mobile, save_tiny_weights, settings_text, start_mobile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
WORKER = "components.training.distributed.worker"
PATIENCE = 240.0
EPOCHS = 5


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_weights(tmp_path_factory.mktemp("weights"))


def settings(weights: Path | str, epochs: int, workers: int = 2, **changes: Any) -> str:
    # Dropout draws for a whole batch at once: with it, two halves are other random numbers than one whole.
    told = {"count": workers, "target": "processes", "start_within": PATIENCE, "stalled_after": PATIENCE, **changes}
    fine_tune = {"epochs": epochs, "batch_size": 16, "learning_rate": 0.0003, "patience": 99}
    text = settings_text("train_mobile", weights, head={"dropout": 0.0}, workers=told)
    nested = json.loads(text)
    nested["train_mobile"]["fine_tune"] = fine_tune
    return json.dumps(nested)


def tuned(folder: Path) -> list[tuple[float, ...]]:
    """Losses and accuracies of the fine-tuning's epochs."""
    history = read_training(folder).history
    return [(each.loss, each.accuracy, each.val_loss, each.val_accuracy) for each in history if each.phase == "fine_tune"]


def workers_of(store: Path) -> list[psutil.Process]:
    """The workers of the training whose store this is, the first one first."""
    found = [each for each in psutil.process_iter() if _is_worker(each, store)]
    return sorted(found, key=lambda each: int(each.environ()["JOB_COMPLETION_INDEX"]))


def _is_worker(process: psutil.Process, store: Path) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return WORKER in words and str(store) in words


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def told(store: Path) -> dict[str, Any]:
    """The last epoch that the workers told of."""
    files = [*(store / "cache" / "train_mobile" / "orders").glob("*.progress")]
    return json.loads(files[0].read_bytes()) if files else {"phase": "", "epoch": -1}


def tuning(store: Path, epoch: int) -> dict[str, Any] | None:
    found = told(store)
    return found if found["phase"] == "fine_tune" and found["epoch"] >= epoch else None


@pytest.fixture
def nobody_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert workers_of(tmp_path / "store") == []


@pytest.fixture(scope="module")
def whole(weights: Path, tiny_examples: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """A training by two workers that nobody disturbs: its model, and its record."""
    root = tmp_path_factory.mktemp("whole")
    return root / "model", run_mobile(root / "store", tiny_examples, settings(weights, EPOCHS), root / "model")


def test_two_workers_get_what_one_gets_with_the_same_global_batch(
    whole: tuple[Path, Record], weights: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    run_mobile(tmp_path / "store", tiny_examples, settings(weights, EPOCHS, workers=1), tmp_path / "one")
    two, one = tuned(whole[0]), tuned(tmp_path / "one")
    assert len(two) == len(one) == EPOCHS
    assert two[0][0] == pytest.approx(one[0][0], rel=1e-4), "the first epoch's loss: float32 sums in another order"
    for left, right in zip(two, one, strict=True):
        assert left == pytest.approx(right, rel=0.02, abs=0.01)
    assert read_training(whole[0]).replicas == 2
    assert not whole[1].cached
    assert "2 workers train together (processes)" in whole[1].notes


@pytest.mark.usefixtures("nobody_left")
def test_a_killed_worker_costs_the_epoch_it_died_in_and_changes_nothing(
    whole: tuple[Path, Record], weights: Path, tiny_examples: Path, tmp_path: Path
) -> None:
    process = start_mobile(tmp_path / "store", tiny_examples, settings(weights, EPOCHS), tmp_path / "model")
    before = wait_for(lambda: tuning(tmp_path / "store", 1))
    workers_of(tmp_path / "store")[1].kill()
    assert process.wait(PATIENCE) == 0
    history = [each for each in read_training(tmp_path / "model").history if each.phase == "fine_tune"]
    # What had been told was kept before: it was not trained again, or its seconds would be others.
    assert history[before["epoch"]].seconds == before["seconds"]
    assert tuned(tmp_path / "model") == [pytest.approx(each, rel=1e-3, abs=1e-3) for each in tuned(whole[0])]
    notes = read_records(open_store(str(tmp_path / "store")), "run")["train_mobile"].notes
    assert "worker 1 was ended by signal 9: started again (1 of 3)" in notes


@pytest.mark.usefixtures("nobody_left")
def test_an_ended_step_ends_its_workers_and_is_taken_up_where_it_was(weights: Path, tiny_examples: Path, tmp_path: Path) -> None:
    process = start_mobile(tmp_path / "store", tiny_examples, settings(weights, EPOCHS), tmp_path / "model")
    before = wait_for(lambda: tuning(tmp_path / "store", 1))
    assert len(workers_of(tmp_path / "store")) == 2
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) != 0
    assert workers_of(tmp_path / "store") == []
    run_mobile(tmp_path / "store", tiny_examples, settings(weights, EPOCHS), tmp_path / "again")
    history = [each for each in read_training(tmp_path / "again").history if each.phase == "fine_tune"]
    assert (len(history), history[before["epoch"]].seconds) == (EPOCHS, before["seconds"])


@pytest.mark.usefixtures("nobody_left")
def test_what_would_fail_again_is_not_tried_again(tiny_examples: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.weights.h5"
    other.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(WorkersError, match=r"exit code 2: (.|\n)*can't be loaded"):
        run_mobile(tmp_path / "store", tiny_examples, settings(other, 2), tmp_path / "model")
    assert read_records(open_store(str(tmp_path / "store")), "run")["train_mobile"].status == "failed"


@pytest.mark.usefixtures("nobody_left")
def test_workers_that_do_not_begin_are_ended_with_a_sentence(weights: Path, tiny_examples: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkersError, match=r"no epoch was finished for 0.1 s: worker 0 runs, worker 1 runs"):
        run_mobile(tmp_path / "store", tiny_examples, settings(weights, 2, start_within=0.1), tmp_path / "model")


def test_a_wrong_count_is_a_usage_error(weights: Path, tiny_examples: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"workers\.count"):
        run_mobile(tmp_path / "store", tiny_examples, settings(weights, 2, workers=0), tmp_path / "model")
    assert os.environ.get("TF_CONFIG") is None
