"""What assemble_release does: judge, build release.json from the judged pieces, and write it all, release.json last."""

import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from components.assemble_release.inputs import Inputs
from components.assemble_release.judge import STEP, judge_release
from components.assemble_release.model_card import render_card
from components.assemble_release.settings import AssembleReleaseSettings
from components.assemble_release.write import write_release
from components.core.channel import read_channel
from components.core.errors import DataError
from components.core.examples import labels_digest
from components.core.gate import Verdict
from components.core.record import StepRecord, read_records
from components.core.release import (
    MOBILE_FILE,
    Dataset,
    ModelEvaluation,
    ModelHalf,
    Pair,
    PairEvaluations,
    PairPreprocessing,
    Release,
    content_id,
    file_entry,
    release_version,
    tree_files,
)
from components.core.settings import section, value

NOT_BLESSED = "NOT BLESSED"
_PIPELINE_ONLY = frozenset({"curve", "verdict"})


def assemble(record: StepRecord, *, settings: str, inputs: Inputs) -> str:
    """Write the release of a blessed pair and return its id; `NOT BLESSED` if any verdict or cross-check refuses it.

    A refused pair leaves nothing under releases/. Repeats safely after a kill at any write, and beside another writer of the same
    content. Raises `DataError` for artifacts that can't be read.
    """
    options = section(settings, STEP, AssembleReleaseSettings)
    channel = read_channel(record.store)
    verdict = judge_release(inputs, channel[0].release if channel else "")
    record.verdict(verdict)
    if not verdict.blessed:
        return NOT_BLESSED
    release = build_release(record, inputs, verdict, name=str(value(settings, "name", "classifier")))
    _describe(record, release)
    card = render_card(release, options)
    written = write_release(record.store, release, inputs, card=card, report=lambda: _report(record, release.id))
    record.note(f"release {release.id} (version {release.version}) {'is written' if written else 'was there already, unchanged'}")
    return release.id


def build_release(record: StepRecord, inputs: Inputs, verdict: Verdict, *, name: str) -> Release:
    """release.json of the judged pieces; the id follows from the content, the rest is context."""
    cloud, mobile, golden = tree_files(inputs.cloud_folder), {MOBILE_FILE: file_entry(inputs.mobile_file)}, tree_files(inputs.golden_folder)
    preprocessing = PairPreprocessing(cloud=inputs.golden.preprocessing.cloud, mobile=inputs.quantization.preprocessing)
    labels, dataset = inputs.examples.labels, _dataset(inputs)
    try:
        release_id = content_id(
            labels=labels,
            cloud=cloud,
            mobile=mobile,
            golden=golden,
            preprocessing=preprocessing,
            policy=inputs.pair.policy,
            dataset=dataset.digest,
        )
    except ValueError:
        raise DataError("a number of the policy is NaN or infinite", where="pair.json", fix="Run compare_pair again") from None
    makers = read_records(record.store, record.run_id)
    number = release_version(release_id)
    return Release(
        id=release_id,
        version=number,
        name=name,
        labels=labels,
        labels_digest=labels_digest(labels),
        dataset=dataset,
        preprocessing=preprocessing,
        models=Pair(
            cloud=ModelHalf(path=f"cloud/{number}", files=cloud, **_origin(makers, "train_cloud")),
            mobile=ModelHalf(path="mobile", files=mobile, **_mobile_origin(makers, inputs)),
        ),
        golden=golden,
        evaluations=PairEvaluations(cloud=_plain(inputs.cloud), mobile=_plain(inputs.mobile)),
        pair=inputs.pair.model_dump(mode="json", exclude=set(_PIPELINE_ONLY)),
        policy=inputs.pair.policy,
        baseline=verdict.baseline,
        verdicts={**inputs.verdicts(), STEP: verdict},
        run_id=record.run_id,
        code_version=code_version(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _dataset(inputs: Inputs) -> Dataset:
    examples = inputs.examples
    counts = {str(split): facts.count for split, facts in examples.splits.items()}
    return Dataset(digest=examples.digest, spans=examples.spans, source=examples.source, drawn=examples.drawn, examples=counts)


def _plain(evaluation: ModelEvaluation) -> ModelEvaluation:
    # The verdict has its own place in release.json.
    return ModelEvaluation.model_validate(evaluation.model_dump(mode="json", exclude={"verdict"}))


def _origin(makers: Mapping[str, Any], step: str) -> dict[str, Any]:
    training = makers[step].data.get("training", {}) if step in makers else {}
    weights = training.get("weights", {})
    detail: dict[str, JsonValue] = {key: training[key] for key in ("parameters", "epochs", "seed", "precision") if key in training}
    return {"backbone": training.get("backbone", ""), "weights": _in_words(weights), "detail": detail}


def _in_words(weights: Mapping[str, Any]) -> str:
    named = {"imagenet": "ImageNet (keras.applications)", "file": "a weights file", "none": "none: trained from scratch"}
    used = named.get(weights.get("used", ""), weights.get("used", ""))
    return ". ".join(part for part in (used, weights.get("note", "")) if part)


def _mobile_origin(makers: Mapping[str, Any], inputs: Inputs) -> dict[str, Any]:
    origin = _origin(makers, "train_mobile")
    kept = inputs.quantization.model_dump(mode="json", exclude={"verdict", "labels", "preprocessing", "rungs", "schema", "schema_"})
    return {**origin, "detail": {**origin["detail"], "quantization": kept}}


def code_version() -> str:
    """The package's version, with the commit if it runs from a checkout (`0.1.0+g1a2b3c4d`, `.dirty` if it was edited)."""
    number = package_version("dual-deploy")
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=.dirty", "--abbrev=12", "--exclude=*"]
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return number
    return f"{number}+g{commit}"


def _describe(record: StepRecord, release: Release) -> None:
    record.data("release", release.id)
    record.metric("cloud_bytes", release.models.cloud.size())
    record.metric("mobile_bytes", release.models.mobile.size())
    halves = {"cloud": release.models.cloud, "mobile": release.models.mobile}
    rows = [[name, half.backbone, half.weights, len(half.files), half.size()] for name, half in halves.items()]
    record.table("Models", ["model", "backbone", "weights", "files", "bytes"], rows)


def _report(record: StepRecord, release: str) -> bytes:
    from components.report.page import render

    record.write()
    return render(record.store, record.run_id, release=release).encode()
