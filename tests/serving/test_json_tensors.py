"""The JSON of requests and responses against anything that a client may send."""

import json
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.server.json_tensors import PredictBody, parse_predict, plain, render
from serving.server.servable import Signature, TensorSpec
from serving.server.status import Refusal

TYPES = [tf.float32, tf.float64, tf.int8, tf.uint8, tf.int32, tf.int64, tf.uint64, tf.bool, tf.string]
SPECS = {dtype.name: TensorSpec(f"{dtype.name}:0", dtype, None) for dtype in TYPES}
ONE = {name: Signature(name, "", {"x": spec}, {"y": spec}) for name, spec in SPECS.items()}
TWO = Signature("two", "", {"a": SPECS["float32"], "b": SPECS["string"]}, {"y": SPECS["float32"]})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.just({"b64": "AAA="}) | st.just({"b64": "A"}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "a", "b", "b64"]), inner, max_size=2),
    max_leaves=12,
)


@given(
    name=st.sampled_from([*ONE, "two", "nothing"]),
    key=st.sampled_from(["instances", "inputs"]),
    value=VALUES,
    extra=st.dictionaries(st.sampled_from(["signature_name", "inputs", "junk"]), VALUES, max_size=1),
)
@settings(max_examples=400, deadline=None)
def test_whatever_is_sent_is_an_array_or_a_refusal(name: str, key: str, value: Any, extra: dict[str, Any]) -> None:
    body = json.dumps({key: value, **extra}).encode()
    parsed = parsed_or_refused(body, {**ONE, "two": TWO}.get(name))
    if isinstance(parsed, Refusal):
        assert parsed.http == 400
        assert json.dumps({"error": parsed.message}).encode()
        return
    for input_name, array in parsed.inputs.items():
        spec = parsed.signature.inputs[input_name]
        assert array.dtype == (object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype)


def parsed_or_refused(body: bytes, signature: Signature | None) -> PredictBody | Refusal:
    try:
        return parse_predict(body, lambda _: signature)
    except Refusal as refusal:
        return refusal


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    with pytest.raises(Refusal):
        parse_predict(body, ONE.get)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(Refusal, match="JSON Parse error"):
        parse_predict(b'{"instances": ' + b"[" * 100_000, ONE.get)


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("shape", [(2, 3), (1,), (2, 1, 2), (0, 4)])
def test_arrays_survive_the_way_there_and_back(dtype: Any, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(1)
    array = np.array([b"a", b"\xc3\xa9"], object)[random.integers(0, 2, shape)] if dtype == tf.string else random.integers(0, 2, shape)
    array = array if dtype == tf.string else (array * 0.7 if dtype.is_floating else array).astype(dtype.as_numpy_dtype)
    body = render({"y": array, "z": array}, "column")
    sent = json.dumps({"inputs": json.loads(body)["outputs"]["y"]}).encode()
    back = parse_predict(sent, lambda _: ONE[dtype.name]).inputs["x"]
    assert back.tolist() == array.tolist()


def test_float32_is_written_with_its_shortest_digits() -> None:
    values = np.array([0.1, 1 / 3, 1e-7, 16777216, 0], np.float32)
    assert plain(values) == [0.1, 0.33333334, 1e-07, 16777216.0, 0.0]
    assert (np.array(plain(values), np.float32) == values).all()


@pytest.mark.parametrize(("name", "value"), [("uint8", 256), ("uint8", -1), ("int8", 200), ("float32", 1e39), ("int64", 1 << 63)])
def test_numbers_that_do_not_fit_are_refused(name: str, value: float) -> None:
    with pytest.raises(Refusal, match=r"without loss of precision|is not of expected type"):
        parse_predict(json.dumps({"instances": [value]}).encode(), lambda _: ONE[name])


def test_outputs_of_different_sizes_have_no_rows() -> None:
    outputs = {"a": np.zeros((2, 1)), "b": np.zeros((3, 1))}
    with pytest.raises(Refusal, match="inconsistent batch size"):
        render(outputs, "row")
    assert json.loads(render(outputs, "column"))["outputs"]["b"] == [[0.0]] * 3
    with pytest.raises(Refusal, match="has no shape information"):
        render({"a": np.float32(1)}, "row")
