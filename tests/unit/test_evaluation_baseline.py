"""What a candidate is compared with: the promoted release on the same examples, or a reason why not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.core.errors import DataError
from components.core.stores import Store, open_store
from components.evaluation.baseline import Answered, Question, find_baseline
from components.evaluation.evaluation import Predictions
from components.publish_mobile.publication import publish_release
from tests.release_pieces import DIGEST, LABELS, make_release

SAME = ["source=web"]


class _Model:
    """The baseline's model: sure of the first of its labels."""

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels

    def predict(self, images: Any) -> Any:
        return np.eye(len(self.labels), dtype=np.float32)[[0] * len(images)]


def _question(**changes: Any) -> Question:
    facts: dict[str, Any] = {"model": "cloud", "split": "test", "labels": LABELS, "examples_digest": "today", "slices": SAME}
    keys, labels = np.array(["a", "b"]), np.array([0, 1])
    facts |= {"metrics": ["accuracy"], "ask": lambda model, release: Predictions(keys, labels, model.predict(["a", "b"]))}
    return Question(**(facts | changes))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def released(store: Store, tmp_path: Path) -> str:
    release = make_release(store, tmp_path, 0)
    publish_release(store, release.id)
    return release.id


def _find(store: Store, question: Question, reset: str = "") -> Answered:
    return find_baseline(store, question, lambda _store, release, _folder: _Model(release.labels), reset)


def _never(*_: Any) -> Any:
    raise AssertionError("the baseline was loaded")


def test_before_the_first_release_there_is_none(store: Store) -> None:
    answered = _find(store, _question())
    assert (answered.comparison.how, answered.comparison.release, answered.comparison.text) == ("none", "", "")


def test_a_release_that_was_never_promoted_is_no_baseline(store: Store, tmp_path: Path) -> None:
    make_release(store, tmp_path, 0)
    assert _find(store, _question()).comparison.how == "none"


def test_on_the_same_examples_the_recorded_figures_are_enough(store: Store, released: str) -> None:
    comparison = find_baseline(store, _question(examples_digest=DIGEST), _never, "").comparison
    assert (comparison.how, comparison.release) == ("recorded", released)
    assert comparison.metrics["accuracy"] == 0.92
    assert comparison.slices["source=web"]["accuracy"] == 0.92


@pytest.mark.parametrize(
    "change",
    [
        {"examples_digest": "today"},
        {"split": "validation"},
        {"slices": ["source=phone"]},
        {"metrics": ["log_loss"]},
        {"labels": LABELS[::-1]},
    ],
)
def test_a_different_question_is_asked_again(store: Store, released: str, change: dict[str, Any]) -> None:
    answered = _find(store, _question(**({"examples_digest": DIGEST} | change)))
    assert (answered.comparison.how, answered.comparison.release) == ("evaluated", released)
    assert answered.predictions is not None


def test_probabilities_of_the_baseline_are_put_in_todays_order(store: Store, released: str) -> None:
    answered = _find(store, _question(labels=["tulips", "daisy", "roses"]))
    assert answered.predictions is not None
    assert answered.predictions.predicted.tolist() == [1, 1], "daisy, the release's first label"


def test_other_labels_are_another_question(store: Store, released: str) -> None:
    comparison = _find(store, _question(labels=["daisy", "lilies", "roses"])).comparison
    assert (comparison.how, comparison.release) == ("failed", released)
    assert "added lilies; removed tulips" in comparison.text
    assert "reset_baseline" in comparison.text


def test_a_baseline_that_fails_to_load_is_reported_not_raised(store: Store, released: str) -> None:
    def broken(*_: Any) -> Any:
        raise DataError("the graph is torn", where="saved_model.pb")

    comparison = find_baseline(store, _question(), broken, "").comparison
    assert (comparison.how, comparison.release) == ("failed", released)
    assert "the graph is torn" in comparison.text


@pytest.mark.parametrize("damage", ["delete", "corrupt"])
def test_a_deleted_or_damaged_release_is_reported_not_raised(store: Store, released: str, damage: str) -> None:
    name = f"releases/{released}/release.json"
    store.delete(name) if damage == "delete" else store.put(name, b"{")
    assert _find(store, _question()).comparison.how == "failed"
    assert _find(store, _question(), "disk lost").comparison.how == "reset"


def test_an_unreadable_channel_is_no_first_release(store: Store, released: str) -> None:
    store.put("channels/stable.json", b"{}")
    assert _find(store, _question()).comparison.how == "failed"


def test_a_reset_names_the_baseline_and_the_reason(store: Store, released: str) -> None:
    comparison = find_baseline(store, _question(), _never, "new camera").comparison
    assert (comparison.how, comparison.release) == ("reset", released)
    assert "new camera" in comparison.text
    assert comparison.metrics == {}
