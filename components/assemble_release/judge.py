"""The release's own verdict: all others, and whether the pieces belong together."""

from collections.abc import Iterator
from typing import Any

from components.assemble_release.inputs import Inputs
from components.core.gate import Reason, Verdict, combine
from components.core.release import tree_files

STEP = "assemble_release"


def judge_release(inputs: Inputs, baseline: str) -> Verdict:
    """Blessed only if every step blessed its part and both models have the same labels, examples and preprocessing contract."""
    return combine(STEP, [*_verdicts(inputs), *_consistency(inputs), *_tflite(inputs), *_servable(inputs)], baseline)


def _verdicts(inputs: Inputs) -> Iterator[Reason]:
    for step, verdict in inputs.verdicts().items():
        yield Reason(metric=step, passed=verdict.blessed, text=f"{step}: {verdict.summary()}")


def _consistency(inputs: Inputs) -> Iterator[Reason]:
    labels, digest = inputs.examples.labels, inputs.examples.digest
    yield _same("labels of evaluate_cloud", inputs.cloud.labels, labels)
    yield _same("labels of evaluate_mobile", inputs.mobile.labels, labels)
    yield _same("labels of quantize_mobile", inputs.quantization.labels, labels)
    yield _same("examples of evaluate_cloud", inputs.cloud.examples_digest, digest)
    yield _same("examples of evaluate_mobile", inputs.mobile.examples_digest, digest)
    yield _same("split of evaluate_mobile", inputs.mobile.split, inputs.cloud.split)
    yield _same("model judged by evaluate_cloud", inputs.cloud.model, "cloud")
    yield _same("model judged by evaluate_mobile", inputs.mobile.model, "mobile")
    yield _same("preprocessing of the golden images (mobile)", inputs.golden.preprocessing.mobile, inputs.quantization.preprocessing)


def _tflite(inputs: Inputs) -> Iterator[Reason]:
    import numpy as np

    from components.quantize_mobile.interpreter import Classifier

    model, contract = Classifier(inputs.mobile_file), inputs.quantization.preprocessing
    yield _same("input size of model.tflite", model.input_size, (contract.height, contract.width))
    yield _same("labels inside model.tflite", model.labels, inputs.examples.labels)
    yield _same("input type of model.tflite", np.dtype(model.input_details["dtype"]).name, "uint8")
    yield _same("output type of model.tflite", np.dtype(model.output_details["dtype"]).name, "uint8")
    yield _same("outputs of model.tflite", int(model.output_details["shape"][1]), len(inputs.examples.labels))


def _servable(inputs: Inputs) -> Iterator[Reason]:
    found = "saved_model.pb" in tree_files(inputs.cloud_folder)
    yield Reason(metric="servable", passed=found, text="cloud/saved_model.pb is there" if found else "cloud/saved_model.pb is missing")


def _same(what: str, found: Any, expected: Any) -> Reason:
    passed = found == expected
    return Reason(metric=what, passed=passed, text=f"{what} {'agree' if passed else f'are {found}, expected {expected}'}")
