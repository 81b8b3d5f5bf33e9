"""validate_infra against real processes: the server on a tiny SavedModel, the interpreter on a tiny .tflite."""

import json
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.core.errors import UsageError
from components.core.record import StepRecord, open_step
from components.evaluation.evaluation import Predictions, read_evaluation, read_predictions
from components.validate_infra.asking import ask_cloud
from components.validate_infra.child import Child, ChildError
from components.validate_infra.golden import CloudAnswer, choose_golden, read_golden
from components.validate_infra.infra import Infra, Side, read_infra
from components.validate_infra.mobile_check import check_mobile
from components.validate_infra.settings import Budgets, ValidateInfraSettings
from components.validate_infra.validate import Artifacts, validate_models
from components.validate_infra.verdict import judge_infra
from serving.server.config import single_model
from tests.serving.harness import RunningServer
from tests.serving.saved_model import export_tiny
from tests.serving.tiny_pair import make_artifacts, rewrite_predictions


@dataclass(frozen=True)
class Done:
    """A finished step."""

    record: StepRecord
    output: Path
    infra: Infra


def validate(artifacts: Artifacts, root: Path, **settings: Any) -> Done:
    text = json.dumps({"name": "classifier", "validate_infra": {"requests": 12, "max_request_mb": 1, **settings}})
    with open_step("validate_infra", store=str(root / "store"), run_id="run") as record:
        validate_models(record, artifacts, settings=text, output=root / "servable")
    return Done(record, root / "servable", read_infra(root / "servable"))


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory, tiny_examples: Path) -> Artifacts:
    return make_artifacts(tmp_path_factory.mktemp("artifacts"), tiny_examples)


@pytest.fixture(scope="module")
def done(artifacts: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Done:
    return validate(artifacts, tmp_path_factory.mktemp("validated"))


def texts(done: Done, metric: str) -> list[str]:
    return [reason.text for reason in done.infra.verdict.reasons if reason.metric == metric]


def test_a_good_pair_is_blessed_with_every_check_said(done: Done) -> None:
    assert done.infra.verdict.blessed, done.infra.verdict.failures()
    assert "cloud: 6 of 6 golden answers over REST equal the evaluation's" in texts(done, "cloud_golden")[0]
    assert len(texts(done, "cloud_golden")) == 3
    assert "mobile: 6 of 6 golden answers" in texts(done, "mobile_golden")[0]
    assert done.record.record.verdict == done.infra.verdict
    assert {"cloud_p99_ms", "cloud_load_seconds", "cloud_memory_mb", "mobile_p50_ms", "mobile_size_mb"} <= set(done.record.record.metrics)


def test_every_malformed_request_is_refused_cleanly(done: Done) -> None:
    assert len(done.infra.cloud.malformed) == 23
    assert [each for each in done.infra.cloud.malformed if not each.clean] == []
    assert done.infra.cloud.alive
    huge = {each.protocol: each.answer.split()[0] for each in done.infra.cloud.malformed if each.case == "huge"}
    assert huge == {"REST": "413", "gRPC": "RESOURCE_EXHAUSTED"}


def test_the_warmup_file_was_replayed(done: Done) -> None:
    assert done.infra.cloud.warmup == (7, 7)
    assert texts(done, "cloud_warmup") == ["cloud: 7 of 7 warm-up requests were replayed before the model was AVAILABLE"]
    assert (done.output / "cloud/assets.extra/tf_serving_warmup_requests").stat().st_size > 0


def test_the_server_log_tail_is_kept(done: Done) -> None:
    assert "Successfully loaded servable version" in done.infra.cloud.log_tail


def test_golden_images_prove_the_contract(done: Done, artifacts: Artifacts) -> None:
    from components.quantize_mobile.interpreter import Classifier

    golden = read_golden(done.output / "golden")
    assert [each.label for each in golden.images] == ["daisy", "daisy", "roses", "roses", "tulips", "tulips"]
    classifier = Classifier(artifacts.mobile_model / "model.tflite")
    for each in golden.images:
        pixels = np.asarray(Image.open(done.output / "golden" / each.pixels))
        assert pixels.shape == (32, 32, 3)
        assert [int(p) for p in classifier.predict_raw(pixels)] == each.mobile.probabilities
        assert (done.output / "golden" / each.file).read_bytes()[:2] == b"\xff\xd8"


def test_the_same_inputs_give_the_same_golden_files(done: Done, artifacts: Artifacts, tmp_path: Path) -> None:
    from components.validate_infra.validate import make_golden

    make_golden(done.record, artifacts, ValidateInfraSettings(), tmp_path / "golden")
    for path in (done.output / "golden").iterdir():
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "golden" / path.name).read_bytes()


def test_golden_images_are_right_ones_and_the_least_certain_one() -> None:
    keys = np.array([f"k{n}" for n in range(6)])
    labels = np.array([0, 0, 0, 0, 1, 1])
    first = np.array([0.9, 0.8, 0.2, 0.55, 0.3, 0.4])
    cloud = Predictions(keys, labels, np.stack([first, 1 - first], axis=1).astype(np.float32))
    mobile = replace(cloud, keys=keys[::-1], labels=labels[::-1], probabilities=cloud.probabilities[::-1])
    chosen = choose_golden(cloud, mobile, classes=3, per_class=2)
    assert chosen[0] in {"k0", "k1"}
    assert chosen[1] == "k3"
    assert chosen[2:] == ["k4", "k5"]
    assert choose_golden(cloud, mobile, classes=3, per_class=2) == chosen


def test_without_a_budget_it_is_a_configuration_error(artifacts: Artifacts, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no budget is set"):
        validate(artifacts, tmp_path, budgets=dict.fromkeys(Budgets.model_fields))


def test_a_budget_that_is_exceeded_refuses() -> None:
    measured = {"start_seconds": 1.0, "load_seconds": 1.0, "p50_ms": 5.0, "p99_ms": 50.0, "memory_mb": 100.0, "size_mb": 1.0}
    side = Side(measurements=measured, differences={"REST": [0.0]}, mistaken={"REST": []}, alive=True, warmup=(1, 1))
    side.malformed = read_only_refusals()
    settings = ValidateInfraSettings(budgets=Budgets(cloud_p99_ms=49.0, mobile_load_seconds=None))
    assert judge_infra(side, side, settings).failures() == ["cloud_p99_ms 50 ms (must be <= 49 ms)"]
    side.measurements["p99_ms"] = float("nan")
    assert not judge_infra(side, side, settings).blessed
    side.measurements["p99_ms"] = 1.0
    assert judge_infra(side, side, settings).blessed
    assert "0 of 1 warm-up" in judge_infra(side.model_copy(update={"warmup": (1, 0)}), side, settings).failures()[0]
    assert not judge_infra(side.model_copy(update={"alive": False}), side, settings).blessed


def read_only_refusals() -> list[Any]:
    from components.validate_infra.infra import MalformedRequest

    return [MalformedRequest(case="x", protocol="REST", answer="400 no", clean=True)]


def test_answers_unlike_the_evaluations_refuse(done: Done, tmp_path: Path) -> None:
    export_tiny(tmp_path / "tiny" / "1")
    golden = read_golden(done.output / "golden")
    images = [(done.output / "golden" / each.file).read_bytes() for each in golden.images]
    for each in golden.images:
        each.cloud = CloudAnswer(label="tulips", probabilities=[0.1, 0.1, 0.8])
    side = Side(measurements={"start_seconds": 1.0}, warmup=(1, 1))
    with RunningServer(single_model("tiny", str(tmp_path / "tiny"))) as server, server.client() as model:
        ask_cloud(side, model, golden, images, ValidateInfraSettings(requests=5, max_request_mb=65))
    failures = judge_infra(side, done.infra.mobile, ValidateInfraSettings()).failures()
    assert [text.split(" golden")[0] for text in failures[:3]] == ["cloud: 0 of 6"] * 3
    assert "another label for 00-daisy.jpg" in failures[0]
    assert "after them the golden answers were wrong" in failures[3]


def test_a_broken_pair_is_refused_with_its_own_words(artifacts: Artifacts, tmp_path: Path) -> None:
    broken = replace(artifacts, cloud_model=tmp_path / "broken", mobile=tmp_path / "mobile")
    shutil.copytree(artifacts.cloud_model, broken.cloud_model)
    next((broken.cloud_model / "saved_model/variables").glob("*.data*")).unlink()
    predictions = read_predictions(artifacts.mobile)
    rewrite_predictions(broken.mobile, read_evaluation(artifacts.mobile), predictions, predictions.probabilities[:, [1, 0, 2]])
    done = validate(broken, tmp_path)
    cloud, mobile = done.infra.verdict.failures()
    assert "the server ended with exit code 1 before it was ready" in cloud
    assert "variables.data-00000-of-00001; No such file or directory" in cloud
    assert mobile.startswith("mobile: ")
    assert "golden answers over interpreter" in mobile
    assert "another label for" in mobile
    assert "model(s) did not become available" in done.infra.cloud.log_tail


def test_a_damaged_tflite_is_refused_with_the_interpreters_words(done: Done, tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"no model")
    folder = done.output / "golden"
    side = check_mobile(tmp_path / "model.tflite", read_golden(folder), folder, tmp_path, ValidateInfraSettings())
    assert "the interpreter ended with exit code 4 before it was ready" in side.failure
    assert "LiteRT can't load the model" in side.failure
    assert judge_infra(done.infra.cloud, side, ValidateInfraSettings()).failures() == [f"mobile: {side.failure}"]


def test_a_process_that_hangs_is_ended_by_its_id(tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text("import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('here')\ntime.sleep(600)")
    began = time.monotonic()
    with pytest.raises(ChildError, match=r"was not ready within 1 s.*here"), hanging(tmp_path) as child:
        child.wait_for_file(tmp_path / "never", 1.0)
    assert time.monotonic() - began < 10
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def hanging(folder: Path) -> Child:
    os.environ["PYTHONPATH"] = str(folder)
    try:
        return Child("sleeper", "hangs", [], folder / "log", stop_seconds=0.5)
    finally:
        del os.environ["PYTHONPATH"]
