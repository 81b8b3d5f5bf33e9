"""Artifacts of a judged run without a training: what assemble_release, the rollout and the publication read."""

import json
import shutil
import zipfile
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.assemble_release.assemble import build_release
from components.assemble_release.inputs import Inputs, read_inputs
from components.assemble_release.judge import STEP
from components.assemble_release.write import write_release
from components.core.examples import Examples, SplitExamples
from components.core.gate import Reason, Verdict, combine
from components.core.record import Record, StepRecord
from components.core.release import Release
from components.core.stores import Store, open_store

LABELS = ["daisy", "roses", "tulips"]
SIDE = 32
DIGEST = "d" * 64
CONTRACT = {"height": SIDE, "width": SIDE}
CHANNEL = "channels/stable.json"


def passed(step: str) -> Verdict:
    """A verdict with one check that passed."""
    return combine(step, [Reason(metric="accuracy", passed=True, text="accuracy 0.9 (must be >= 0.8)")])


def refused(step: str, text: str = "accuracy 0.5 (must be >= 0.8)") -> Verdict:
    """A verdict with one check that failed."""
    return combine(step, [Reason(metric="accuracy", passed=False, text=text)])


@dataclass(frozen=True)
class Artifacts:
    """Folders of one run's artifacts."""

    root: Path

    def inputs(self) -> Inputs:
        """What assemble_release reads from them."""
        names = ("examples", "mobile_model", "servable", "cloud", "mobile", "pair")
        examples, mobile_model, servable, cloud, mobile, pair = (str(self.root / name) for name in names)
        return read_inputs(examples, mobile_model, servable, cloud, mobile, pair)

    def change(self, file: str, **values: Any) -> None:
        """Change keys of a JSON file."""
        path = self.root / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values))


@dataclass(frozen=True)
class GoldenImage:
    """An image and the cloud model's answer."""

    file: str
    image: bytes
    label: str
    probabilities: list[float]
    pixels: bytes = b""
    """PNG of the mobile model's input."""
    mobile: list[int] | None = None
    """The mobile model's uint8 answer."""


A_PICTURE = GoldenImage("00-roses.jpg", b"a picture", "roses", [0.1, 0.8, 0.1])


def write_artifacts(
    root: Path, *, seed: int = 0, tflite: Path | None = None, saved_model: Path | None = None, golden: Sequence[GoldenImage] = (A_PICTURE,)
) -> Artifacts:
    """A whole set of blessed artifacts; without `tflite` and `saved_model` the models are a few bytes that depend on `seed`."""
    _examples(root / "examples")
    _models(root, seed, tflite, saved_model)
    _golden(root / "servable" / "golden", golden)
    for name, accuracy in (("cloud", 0.92), ("mobile", 0.9)):
        _write(root / name / "evaluation.json", _evaluation(name, accuracy))
    policy = {"threshold": 0.6, "target_accuracy": 0.91, "accuracy": 0.915, "cloud_share": 0.2}
    pair = {"schema": "dual.pair/v1", "agreement": 0.93, "policy": policy, "curve": [[0.0, 0.9, 0.0], [1.0, 0.92, 1.0]]}
    _write(root / "pair" / "pair.json", pair | {"verdict": passed("compare_pair").model_dump()})
    return Artifacts(root)


def _examples(root: Path) -> None:
    count = SplitExamples(shards=[], count=30, per_class=dict.fromkeys(LABELS, 10))
    examples = Examples(labels=LABELS, digest=DIGEST, splits={"train": count, "validation": count, "test": count}, spans=["2026-11-20"])
    _write(root / "examples.json", examples.model_dump(mode="json", by_alias=True))


def _models(root: Path, seed: int, tflite: Path | None, saved_model: Path | None) -> None:
    cloud = root / "servable" / "cloud"
    if saved_model is None:
        (cloud / "variables").mkdir(parents=True)
        (cloud / "saved_model.pb").write_bytes(f"graph {seed}".encode())
        (cloud / "variables" / "variables.index").write_bytes(f"weights {seed}".encode())
    else:
        shutil.copytree(saved_model, cloud)
    (root / "mobile_model").mkdir()
    if tflite is None:
        (root / "mobile_model" / "model.tflite").write_bytes(f"TFL3 {seed}".encode())
    else:
        shutil.copy(tflite, root / "mobile_model" / "model.tflite")
    quantization = {"schema": "dual.quantization/v1", "method": "ptq", "full_int8": True, "drop": 0.0, "labels": LABELS}
    _write(root / "mobile_model" / "quantization.json", quantization | {"preprocessing": CONTRACT, "verdict": _blessed("quantize_mobile")})
    _write(root / "servable" / "infra.json", {"schema": "dual.infra/v1", "verdict": _blessed("validate_infra")})


def _golden(folder: Path, images: Sequence[GoldenImage]) -> None:
    folder.mkdir()
    for each in images:
        (folder / each.file).write_bytes(each.image)
    entries = [
        {"file": i.file, "label": i.label, "cloud": {"label": i.label, "probabilities": [float(p) for p in i.probabilities]}}
        | _mobile_answer(folder, i)
        for i in images
    ]
    head = {
        "schema": "dual.golden/v1",
        "preprocessing": {"cloud": CONTRACT, "mobile": CONTRACT},
        "tolerances": {"cloud": 0.001, "mobile": 2},
    }
    _write(folder / "golden.json", head | {"images": entries})


def _mobile_answer(folder: Path, image: GoldenImage) -> dict[str, Any]:
    if image.mobile is None:
        return {}
    name = image.file.replace(".jpg", ".png")
    (folder / name).write_bytes(image.pixels)
    label = LABELS[image.mobile.index(max(image.mobile))]
    return {"pixels": name, "mobile": {"label": label, "probabilities": image.mobile}}


def _evaluation(model: str, accuracy: float) -> dict[str, Any]:
    metrics = {"accuracy": accuracy, "macro_f1": accuracy - 0.01} | {f"recall/{label}": accuracy for label in LABELS}
    return {
        "schema": "dual.evaluation/v1",
        "model": model,
        "split": "test",
        "examples": 30,
        "labels": LABELS,
        "examples_digest": DIGEST,
        "metrics": metrics,
        "intervals": {"accuracy": [accuracy - 0.05, accuracy + 0.05]},
        "confusion": [[10, 0, 0], [0, 10, 0], [0, 0, 10]],
        "slices": {"source=web": {"accuracy": accuracy, "examples": 15, "precision/daisy": None}},
        "verdict": _blessed(f"evaluate_{model}"),
    }


def _blessed(step: str) -> dict[str, Any]:
    return passed(step).model_dump()


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def record_of(store: Store, step: str, run_id: str = "run-1") -> StepRecord:
    """A step's record without the context manager."""
    return StepRecord(store, run_id, step, Record(step=step, started="2026-11-21T06:00:00+00:00"))


def make_release(store: Store, root: Path, seed: int, **models: Any) -> Release:
    """A whole release in the store; another `seed` is another release."""
    inputs = write_artifacts(root / f"artifacts-{seed}", seed=seed, **models).inputs()
    release = build_release(record_of(store, STEP, f"run-{seed}"), inputs, passed(STEP), name="classifier")
    write_release(store, release, inputs, card="# card", report=lambda: b"<p>report</p>")
    return release


def make_store(root: Path, seeds: int) -> tuple[Store, list[Release]]:
    """A local store with releases of the seeds 0, 1 and so on."""
    store = open_store(str(root / "store"))
    return store, [make_release(store, root, seed) for seed in range(seeds)]


def manifest_of(store: Store) -> dict[str, Any]:
    """What the payload of the stable channel says."""
    return json.loads(b64decode(json.loads(store.get(CHANNEL).data)["payload"]))


def put_manifest(store: Store, manifest: dict[str, Any], signatures: list[dict[str, str]] | None = None) -> None:
    """Put another manifest in the place of the stable channel's, with the signatures of before or with these."""
    envelope = json.loads(store.get(CHANNEL).data)
    envelope["payload"] = b64encode(json.dumps(manifest).encode()).decode()
    store.put(CHANNEL, json.dumps(envelope | ({} if signatures is None else {"signatures": signatures})).encode())


def write_tiny_tflite(path: Path, labels: list[str] | None = None, side: int = SIDE) -> Path:
    """A real full-int8 .tflite of the published contract: mean colours as probabilities; labels inside."""
    import numpy as np
    import tensorflow as tf

    class Network(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([1, side, side, 3], tf.float32)])
        def __call__(self, pixels: Any) -> Any:
            return tf.nn.softmax(tf.reduce_mean(pixels, axis=[1, 2]) / 32.0)

    network = Network()
    converter: Any = tf.lite.TFLiteConverter.from_concrete_functions([network.__call__.get_concrete_function()], network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    samples = [np.full((1, side, side, 3), level, np.float32) for level in (0, 128, 255)]
    converter.representative_dataset = lambda: ([sample] for sample in samples)
    path.write_bytes(converter.convert())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "".join(f"{label}\n" for label in labels or LABELS))
    return path
