"""assemble_release: a blessed pair becomes a release; anything else becomes reasons and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from components.assemble_release.assemble import NOT_BLESSED, assemble, code_version
from components.core.errors import DataError
from components.core.record import StepRecord
from components.core.release import read_release, verify_release
from components.core.stores import Store, open_store
from components.publish_mobile.publication import publish_release
from tests.release_pieces import Artifacts, record_of, refused, write_artifacts, write_tiny_tflite


@pytest.fixture(scope="module")
def tflite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_tflite(tmp_path_factory.mktemp("tflite") / "model.tflite")


@pytest.fixture
def artifacts(tmp_path: Path, tflite: Path) -> Artifacts:
    return write_artifacts(tmp_path / "artifacts", tflite=tflite)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def run(store: Store, artifacts: Artifacts, run_id: str = "run-1", settings: str = '{"name": "flowers"}') -> tuple[str, StepRecord]:
    record = record_of(store, "assemble_release", run_id)
    return assemble(record, settings=settings, inputs=artifacts.inputs()), record


def test_a_blessed_pair_becomes_a_whole_release(store: Store, artifacts: Artifacts) -> None:
    release_id, record = run(store, artifacts)
    release = read_release(store, release_id)
    assert verify_release(store, release_id) == []
    names = {name.removeprefix(f"releases/{release_id}/") for name in store.list("releases/")}
    expected = {"release.json", "labels.txt", "mobile/model.tflite", "golden/golden.json", "report/index.html", "model_card.md"}
    assert expected | {f"cloud/{release.version}/saved_model.pb"} <= names
    assert (release.name, release.run_id, release.baseline) == ("flowers", "run-1", "")
    assert set(release.verdicts) == {
        "evaluate_cloud",
        "quantize_mobile",
        "evaluate_mobile",
        "compare_pair",
        "validate_infra",
        "assemble_release",
    }
    assert release.evaluations.mobile.intervals["accuracy"] == pytest.approx((0.85, 0.95))
    assert release.policy["threshold"] == 0.6
    assert "curve" not in release.pair
    assert release.dataset.spans == ["2026-11-20"]
    assert "passed every check" in store.get(f"releases/{release_id}/report/index.html").data.decode()
    assert record.record.data["release"] == release_id
    assert record.record.verdict is not None
    assert record.record.verdict.blessed


def test_starting_weights_come_from_the_training_records(store: Store, artifacts: Artifacts) -> None:
    training = {"backbone": "DenseNet121", "weights": {"asked": "imagenet", "used": "none", "note": "no network"}, "parameters": 7}
    record = record_of(store, "train_cloud")
    record.data("training", training)
    record.write()
    release = read_release(store, run(store, artifacts)[0])
    assert release.models.cloud.backbone == "DenseNet121"
    assert release.models.cloud.weights == "none: trained from scratch. no network"
    assert release.models.cloud.detail["parameters"] == 7
    card = store.get(f"{release.folder()}/model_card.md").data.decode()
    assert "The cloud model was trained from scratch" in card


def test_same_content_is_the_same_release_and_is_not_rewritten(store: Store, artifacts: Artifacts) -> None:
    first, _ = run(store, artifacts)
    before = {name: store.get(name) for name in store.list("releases/")}
    second, record = run(store, artifacts, "run-2")
    assert second == first
    assert {name: store.get(name) for name in store.list("releases/")} == before
    assert "was there already" in record.record.notes[-1]


def test_files_that_a_dead_writer_left_are_completed_and_damage_is_repaired(store: Store, artifacts: Artifacts) -> None:
    release_id, _ = run(store, artifacts)
    release = read_release(store, release_id)
    store.delete(f"releases/{release_id}/release.json")
    store.delete(f"releases/{release_id}/golden/golden.json")
    store.put(f"{release.cloud_folder()}/saved_model.pb", b"torn")
    assert run(store, artifacts)[0] == release_id
    assert verify_release(store, release_id) == []


def test_baseline_is_the_published_release(store: Store, artifacts: Artifacts) -> None:
    first, _ = run(store, artifacts)
    publish_release(store, first)
    artifacts.change("pair/pair.json", policy={"threshold": 0.7})
    second, _ = run(store, artifacts)
    assert second != first
    assert read_release(store, second).baseline == first


REFUSALS: dict[str, Callable[[Artifacts], None]] = {
    "evaluate_cloud: NOT BLESSED: accuracy 0.5": lambda a: a.change(
        "cloud/evaluation.json", verdict=refused("evaluate_cloud").model_dump()
    ),
    "evaluate_mobile: NOT BLESSED": lambda a: a.change("mobile/evaluation.json", verdict=refused("evaluate_mobile").model_dump()),
    "quantize_mobile: NOT BLESSED": lambda a: a.change("mobile_model/quantization.json", verdict=refused("quantize_mobile").model_dump()),
    "compare_pair: NOT BLESSED": lambda a: a.change("pair/pair.json", verdict=refused("compare_pair").model_dump()),
    "validate_infra: NOT BLESSED": lambda a: a.change("servable/infra.json", verdict=refused("validate_infra").model_dump()),
    "labels of evaluate_mobile": lambda a: a.change("mobile/evaluation.json", labels=["roses", "daisy", "tulips"]),
    "labels of quantize_mobile": lambda a: a.change("mobile_model/quantization.json", labels=["a", "b", "c"]),
    "examples of evaluate_cloud": lambda a: a.change("cloud/evaluation.json", examples_digest="e" * 64),
    "split of evaluate_mobile": lambda a: a.change("mobile/evaluation.json", split="validation"),
    "model judged by evaluate_cloud": lambda a: a.change("cloud/evaluation.json", model="mobile"),
    "input size of model.tflite": lambda a: a.change("mobile_model/quantization.json", preprocessing={"height": 64, "width": 64}),
    "saved_model.pb is missing": lambda a: (a.root / "servable/cloud/saved_model.pb").unlink(),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_refused_pair_leaves_reasons_and_no_release(store: Store, artifacts: Artifacts, reason: str) -> None:
    REFUSALS[reason](artifacts)
    answer, record = run(store, artifacts)
    assert answer == NOT_BLESSED
    assert list(store.list("releases/")) == []
    assert record.record.verdict is not None
    assert any(reason in text for text in record.record.verdict.failures())


def test_labels_inside_the_tflite_are_checked(store: Store, tmp_path: Path) -> None:
    swapped = write_tiny_tflite(tmp_path / "swapped.tflite", ["tulips", "roses", "daisy"])
    answer, record = run(store, write_artifacts(tmp_path / "artifacts", tflite=swapped))
    assert answer == NOT_BLESSED
    assert record.record.verdict is not None
    assert any("labels inside model.tflite" in text for text in record.record.verdict.failures())


def test_all_reasons_are_kept_not_only_the_first(store: Store, artifacts: Artifacts) -> None:
    for reason in ("evaluate_cloud: NOT BLESSED: accuracy 0.5", "split of evaluate_mobile", "examples of evaluate_cloud"):
        REFUSALS[reason](artifacts)
    _, record = run(store, artifacts)
    assert record.record.verdict is not None
    assert len(record.record.verdict.failures()) == 3


@pytest.mark.parametrize(
    "file", ["cloud/evaluation.json", "servable/infra.json", "pair/pair.json", "mobile_model/model.tflite", "servable/golden/golden.json"]
)
def test_a_missing_piece_is_named(store: Store, artifacts: Artifacts, file: str) -> None:
    (artifacts.root / file).unlink()
    with pytest.raises(DataError, match=Path(file).name):
        run(store, artifacts)
    assert list(store.list("releases/")) == []


def test_model_card_tells_metrics_data_and_limits(store: Store, artifacts: Artifacts) -> None:
    examples = json.loads((artifacts.root / "examples/examples.json").read_text())
    artifacts.change("examples/examples.json", **examples | {"drawn": True})
    settings = json.dumps({"assemble_release": {"intended_use": "Sort flower photographs.", "owners": "garden team"}})
    release_id, _ = run(store, artifacts, settings=settings)
    card = store.get(f"releases/{release_id}/model_card.md").data.decode()
    for heading in ("# Model card", "## Intended use", "## Data", "## Metrics", "## Limits"):
        assert heading in card
    for text in (
        "Sort flower photographs.",
        "garden team",
        "| accuracy | 0.920 | 0.870 – 0.970 |",
        "| source=web | 15 |",
        "drawn by a program",
    ):
        assert text in card


def test_code_version_names_the_package_and_the_commit() -> None:
    assert code_version().startswith("0.1.0")
