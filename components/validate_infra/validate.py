"""What validate_infra does: make the servable, load both models in processes (or a pod) of their own, ask them, and judge."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from components.core.errors import DataError
from components.core.examples import read_model
from components.core.preprocessing import Preprocessing
from components.core.record import StepRecord
from components.core.release import PairPreprocessing
from components.core.settings import section, value
from components.core.stores import open_store
from components.evaluation.evaluation import Predictions, read_evaluation, read_predictions
from components.evaluation.split import read_images
from components.training.training import CLOUD_MODEL, read_training
from components.validate_infra.asking import Servable
from components.validate_infra.cloud_check import SERVER, check_cloud
from components.validate_infra.golden import Golden, Tolerances, choose_golden, write_golden
from components.validate_infra.infra import MANIFEST, Infra, Side
from components.validate_infra.mobile_check import check_mobile
from components.validate_infra.report import tell
from components.validate_infra.settings import ValidateInfraSettings
from components.validate_infra.verdict import check_budgets, judge_infra

_MOBILE_FILE = "model.tflite"
_WARMUP_SINGLES = 8
_MB = 1e6


@dataclass(frozen=True)
class Artifacts:
    """The step's inputs."""

    examples: Path
    cloud_model: Path
    mobile_model: Path
    cloud: Path
    """The cloud model's evaluation."""
    mobile: Path
    """The mobile model's evaluation."""


def validate_models(record: StepRecord, inputs: Artifacts, *, settings: str, output: Path) -> None:
    """Write the servable (`cloud/`, `golden/`, infra.json) to `output` and the verdict to the record.

    Whatever the models do wrong is in the verdict. Raises `UsageError` without a budget, `DataError` for unusable artifacts.
    """
    options = section(settings, "validate_infra", ValidateInfraSettings)
    name = str(value(settings, "name", "classifier"))
    check_budgets(options.budgets)
    golden, images = make_golden(record, inputs, options, output / "golden")
    saved_model = output / "cloud"
    _copy_model(inputs.cloud_model / CLOUD_MODEL, saved_model)
    servable = Servable(saved_model, name, golden, images, write_warmups(saved_model, images, name))
    with tempfile.TemporaryDirectory(prefix="dual-infra-") as scratch:
        record.say("the cloud model behind the server")
        cloud, server = _check_cloud(record, servable, Path(scratch), options)
        record.say("the mobile model in the interpreter")
        mobile = check_mobile(inputs.mobile_model / _MOBILE_FILE, golden, output / "golden", Path(scratch), options)
    cloud.measurements["size_mb"] = _megabytes(saved_model)
    mobile.measurements["size_mb"] = _megabytes(inputs.mobile_model / _MOBILE_FILE)
    verdict = judge_infra(cloud, mobile, options)
    infra = Infra(server=server, golden=len(golden.images), cloud=cloud, mobile=mobile, verdict=verdict)
    tell(record, infra, golden, output / "golden", options.budgets)
    open_store(str(output)).put(MANIFEST, infra.model_dump_json(by_alias=True, indent=1).encode())


def _check_cloud(record: StepRecord, servable: Servable, work: Path, options: ValidateInfraSettings) -> tuple[Side, str]:
    """The side, and what served it."""
    if options.target == "local":
        return check_cloud(servable, work, options), SERVER
    from components.validate_infra.cluster_check import check_on_cluster

    return check_on_cluster(record, servable, options)


def make_golden(record: StepRecord, inputs: Artifacts, options: ValidateInfraSettings, folder: Path) -> tuple[Golden, list[bytes]]:
    """Choose and write the golden images; the golden set, and the encoded images in its order."""
    evaluation = read_evaluation(inputs.cloud)
    cloud, mobile = read_predictions(inputs.cloud), read_predictions(inputs.mobile)
    keys = choose_golden(cloud, mobile, len(evaluation.labels), options.golden_per_class)
    if not keys:
        raise DataError("the evaluation has no example, so nothing can be checked", where=str(inputs.cloud), fix="Ingest more images")
    _note_missing(record, cloud, evaluation.labels)
    images = read_images(inputs.examples, evaluation.split, keys)
    contract = PairPreprocessing(cloud=read_training(inputs.cloud_model).preprocessing, mobile=_mobile_contract(inputs.mobile_model))
    golden = write_golden(
        folder,
        keys,
        images,
        {key: _pixels(images[key], contract) for key in keys},
        labels=evaluation.labels,
        cloud=cloud,
        mobile=mobile,
        preprocessing=contract,
        tolerances=Tolerances(cloud=options.cloud_tolerance, mobile=options.mobile_tolerance),
    )
    return golden, [images[key] for key in keys]


def write_warmups(saved_model: Path, images: list[bytes], name: str) -> int:
    """Write the warm-up file: some images one by one, then all of them as one batch; how many requests that is."""
    from serving.server.warmup import predict_request, write_warmup

    batches = [*([image] for image in images[:_WARMUP_SINGLES]), images]
    requests = [predict_request(name, {"image_bytes": batch}) for batch in batches]
    write_warmup(saved_model, requests)
    return len(requests)


class _Quantization(BaseModel):
    """quantization.json, as far as it is needed here."""

    preprocessing: Preprocessing


def _mobile_contract(folder: Path) -> Preprocessing:
    return read_model(_Quantization, folder / "quantization.json", "Run the step quantize_mobile again").preprocessing


def _copy_model(source: Path, target: Path) -> None:
    if not (source / "saved_model.pb").is_file():
        raise DataError("there is no SavedModel", where=str(source), fix="Run the step train_cloud again")
    shutil.copytree(source, target)


def _megabytes(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / _MB


def _pixels(image: bytes, contract: PairPreprocessing) -> NDArray[np.uint8]:
    from components.training.transform import decode_and_resize

    return decode_and_resize(image, contract.mobile).numpy()


def _note_missing(record: StepRecord, cloud: Predictions, labels: list[str]) -> None:
    missing = [label for index, label in enumerate(labels) if not (cloud.labels == index).any()]
    if missing:
        record.warn(f"no golden image of {', '.join(missing)}: the evaluation has no example of it")
