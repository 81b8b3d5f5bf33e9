"""Whether a model, on this device and runtime, is what its publisher measured: the contract's tensors, and the golden answers."""

import json
from base64 import b64decode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from components.core.channel import MobilePointer, mobile_contract
from components.core.errors import DualError, SelfTestError, UnsupportedError

SCHEMA = "dual.selftest/v1"
_FIX = "The version in service stays; tell whoever publishes there which device and runtime this is"


class Runner(Protocol):
    """A loaded model, as `components.quantize_mobile.interpreter.Classifier` is one."""

    labels: list[str]

    @property
    def input_details(self) -> dict[str, Any]:
        """Shape, dtype and quantization of the input."""
        ...

    @property
    def output_details(self) -> dict[str, Any]:
        """The same of the output."""
        ...

    def predict_raw(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [H, W, 3] → the output's uint8 [C]."""
        ...


Load = Callable[[Path], Runner]


class _Picture(BaseModel):
    pixels: str
    probabilities: list[int]
    label: str


class _SelfTest(BaseModel):
    tolerance: int
    images: list[_Picture]


def load_litert(path: Path) -> Runner:
    """The model in LiteRT's interpreter, one thread."""
    from components.quantize_mobile.interpreter import Classifier

    return Classifier(path)


def check_contract(mobile: MobilePointer, runtime: str, where: str) -> None:
    """Refuse what this client can't feed; `UnsupportedError` says what differs, before anything is downloaded."""
    if mobile.contract != mobile_contract(mobile.contract.preprocessing, len(mobile.labels)):
        raise UnsupportedError("the model's tensors are not those that this client knows", where=where, fix="Update the app")
    if mobile.minimum_runtime and _numbers(mobile.minimum_runtime) > _numbers(runtime):
        what = f"the model needs TFLite {mobile.minimum_runtime}, this device has {runtime}"
        raise UnsupportedError(what, where=where, fix="Update the app's runtime")


def check_model(path: Path, mobile: MobilePointer, selftest: bytes | None, load: Load = load_litert) -> Runner:
    """Load the model, compare its tensors with the contract and its answers with the golden ones; the loaded model.

    Raises `SelfTestError` if it does not load, is not what the contract says, or answers otherwise.
    """
    try:
        model = load(path)
        _check_tensors(model, mobile)
        if selftest is not None:
            _check_answers(model, mobile, selftest)
    except SelfTestError:
        raise
    except (DualError, ValidationError, ValueError, RuntimeError, OSError) as error:
        raise SelfTestError(f"the model can't be run here ({error})", where=mobile.blob, fix=_FIX) from None
    return model


def _check_tensors(model: Runner, mobile: MobilePointer) -> None:
    for name, details, expected in (
        ("input", model.input_details, mobile.contract.input),
        ("output", model.output_details, mobile.contract.output),
    ):
        shape, dtype = [int(size) for size in details["shape"]], np.dtype(details["dtype"]).name
        scale, zero = (float(each) for each in details["quantization"])
        # A file that leaves a scale out (0) has what its converter takes for granted.
        same_scale = not scale or (abs(scale - expected.scale) <= 1e-6 and zero == expected.zero_point)
        if shape != expected.shape or dtype != expected.dtype or not same_scale:
            promised = f"{expected.dtype} {expected.shape} × {expected.scale:g}"
            what = f"the model's {name} is {dtype} {shape} × {scale:g}, the contract says {promised}"
            raise SelfTestError(what, where=mobile.blob, fix=_FIX)
    if model.labels and model.labels != mobile.labels:
        raise SelfTestError("the labels in the model are not the manifest's", where=mobile.blob, fix=_FIX)


def _check_answers(model: Runner, mobile: MobilePointer, selftest: bytes) -> None:
    content = json.loads(selftest)
    if content.get("schema") != SCHEMA:
        raise SelfTestError(
            f"the self-test is {content.get('schema')!r}, this client knows {SCHEMA}", where=mobile.blob, fix="Update the app"
        )
    test = _SelfTest.model_validate(content)
    for number, picture in enumerate(test.images):
        found = [int(step) for step in model.predict_raw(_pixels(picture))]
        worst = max(abs(a - b) for a, b in zip(found, picture.probabilities, strict=True))
        if worst > test.tolerance:
            what = f"picture {number} ({picture.label}): an output is off by {worst} steps of 1/256, {test.tolerance} are allowed"
            raise SelfTestError(what, where=mobile.blob, fix=_FIX)


def _pixels(picture: _Picture) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(BytesIO(b64decode(picture.pixels)), formats=("PNG",)) as image:
        return np.asarray(image.convert("RGB"))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
