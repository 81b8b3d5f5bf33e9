"""A promoted cloud model teaches the mobile one: which release, what the targets become, and that a training follows it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.core.errors import DataError, UsageError
from components.core.release import Release
from components.core.stores import open_store
from components.publish_mobile.publication import publish_release
from components.training.settings import TeacherSettings
from components.training.training import read_training
from tests.conftest import LABELS
from tests.release_pieces import make_release
from tests.training_runs import load_network, run_mobile, save_tiny_weights, settings_text


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Release]:
    """A store whose stable release is sure of tulips, whatever the picture."""
    import keras

    from components.core.preprocessing import Preprocessing
    from components.training.export import export_saved_model

    root = tmp_path_factory.mktemp("teacher")
    inputs = keras.Input((32, 32, 3))
    head = keras.layers.Dense(3, activation="softmax", kernel_initializer="zeros")
    network: Any = keras.Model(inputs, head(keras.layers.GlobalAveragePooling2D()(inputs)))
    head.set_weights([np.zeros((3, 3)), np.log([0.1, 0.1, 0.8])])
    export_saved_model(network, LABELS, Preprocessing(height=32, width=32), root / "model")
    store = open_store(str(root / "store"))
    release = make_release(store, root, 0, saved_model=root / "model")
    publish_release(store, release.id)
    return root / "store", release


def test_stable_is_what_is_promoted_and_nothing_before_the_first(taught: tuple[Path, Release], tmp_path: Path) -> None:
    from components.training.teacher import find_teacher

    store = open_store(str(taught[0]))
    for asked in ("stable", taught[1].id):
        found = find_teacher(store, asked, LABELS)
        assert found is not None
        assert found.id == taught[1].id
    assert find_teacher(open_store(str(tmp_path / "empty")), "stable", LABELS) is None
    with pytest.raises(DataError, match="there is no release"):
        find_teacher(store, "000000000000", LABELS)
    with pytest.raises(UsageError, match=r"knows the labels daisy, roses, tulips"):
        find_teacher(store, "stable", ["cat", "dog"])


@pytest.mark.parametrize("side", [32, 48])
def test_targets_mix_labels_and_answers_whatever_the_size(taught: tuple[Path, Release], tmp_path: Path, side: int) -> None:
    from components.training.teacher import Teacher

    teacher = Teacher(open_store(str(taught[0])), TeacherSettings(release=taught[1].id, share=0.25), tmp_path)
    labels = np.eye(3, dtype=np.float32)[[0, 2]]
    mixed = np.asarray(teacher.mix(np.full((2, side, side, 3), 300.0, np.float32), labels))
    np.testing.assert_allclose(mixed, 0.75 * labels + 0.25 * np.array([[0.1, 0.1, 0.8]]), atol=1e-6)


def test_a_training_follows_its_teacher_and_says_so(taught: tuple[Path, Release], tiny_examples: Path, tmp_path: Path) -> None:
    weights = save_tiny_weights(tmp_path)
    settings = settings_text("train_mobile", weights, fine_tune=3, teacher={"release": "stable", "share": 1.0}, label_smoothing=0.0)
    record = run_mobile(taught[0], tiny_examples, settings, tmp_path / "model")
    training = read_training(tmp_path / "model")
    assert training.settings["teacher"] == {"release": taught[1].id, "share": 1.0}
    assert any(taught[1].id in note for note in record.notes)
    losses = [epoch.loss for epoch in training.history if epoch.phase == "fine_tune"]
    # The teacher's own entropy is the least that a pupil can reach: it never saw the labels.
    assert losses[-1] < losses[0]
    assert losses[-1] > 0.63
    assert load_network(tmp_path / "model").output_shape == (None, 3)


def test_without_a_promoted_release_there_is_a_warning_and_no_teacher(tiny_examples: Path, tmp_path: Path) -> None:
    weights = save_tiny_weights(tmp_path)
    settings = settings_text("train_mobile", weights, fine_tune=1, teacher={"release": "stable"})
    record = run_mobile(tmp_path / "store", tiny_examples, settings, tmp_path / "model")
    assert any("nothing is promoted yet" in warning for warning in record.warnings)
    assert read_training(tmp_path / "model").settings["teacher"]["release"] == ""
    assert json.loads(settings)["train_mobile"]["teacher"] == {"release": "stable"}
