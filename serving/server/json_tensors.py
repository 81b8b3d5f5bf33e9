"""TF Serving's JSON: request bodies to arrays, arrays to response bodies.

Source of the formats and texts: tensorflow_serving/util/json_tensor.cc. Row format is `instances` → `predictions`, column format is
`inputs` → `outputs`; `{"b64": …}` holds binary data; an output whose name ends in `_bytes` is written that way; one output drops its name.
"""

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from serving.server.servable import DEFAULT_SIGNATURE, Signature, TensorSpec
from serving.server.status import invalid

Format = Literal["row", "column"]
_KINDS = {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}
_SHOWN = 200


@dataclass(frozen=True)
class PredictBody:
    """A parsed predict request."""

    signature: Signature
    inputs: Mapping[str, Any]
    format: Format


def parse_predict(body: bytes, find: Callable[[str], Signature | None]) -> PredictBody:
    """Parse a predict request's body; `find` gives the signature of a name.

    Raises a `Refusal` with TF Serving's text for everything that is wrong.
    """
    document = _parse(body)
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(f"JSON Value: {_show(document)} not formatted correctly. 'signature_name' key must be a string value.")
    signature = find(name)
    if signature is None:
        raise invalid(f'Serving signature name: "{name or DEFAULT_SIGNATURE}" not found in signature def')
    if "instances" in document and "inputs" in document:
        text = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        raise invalid(f"JSON Value: {_show(document)} {text}")
    if "instances" in document:
        return PredictBody(signature, _rows(document, signature.inputs), "row")
    if "inputs" in document:
        return PredictBody(signature, _columns(document["inputs"], signature.inputs), "column")
    raise invalid("Missing 'inputs' or 'instances' key")


def render(outputs: Mapping[str, Any], style: Format) -> bytes:
    """The response body for outputs by name; a `Refusal` if their first dimensions differ in row format."""
    if style == "column":
        columns = {name: plain(value, as_bytes=_is_bytes(name, value)) for name, value in outputs.items()}
        return _dump({"outputs": columns if len(columns) > 1 else next(iter(columns.values()))})
    sizes = {name: np.shape(value)[0] if np.ndim(value) else None for name, value in outputs.items()}
    if None in sizes.values():
        raise invalid(f"Tensor name: {next(n for n, s in sizes.items() if s is None)} has no shape information ")
    if len(set(sizes.values())) > 1:
        raise invalid(f"Tensor name: {list(sizes)[-1]} has inconsistent batch size: {list(sizes.values())}")
    columns = {name: plain(value, as_bytes=_is_bytes(name, value)) for name, value in outputs.items()}
    if len(columns) == 1:
        return _dump({"predictions": next(iter(columns.values()))})
    return _dump({"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]})


def plain(value: Any, *, as_bytes: bool = False) -> Any:
    """An array as nested lists of JSON values; float32 keeps its shortest decimal form (0.1, not 0.10000000149011612)."""
    array = np.asarray(value)
    if array.size == 0:
        return array.tolist()
    if array.dtype.kind == "f" and array.dtype.itemsize < 8:
        flat = [float(text) for text in array.ravel().astype(str)]
        return _nest(flat, array.shape)
    if array.dtype.kind in "OSU":
        return _nest([_string(item, as_bytes) for item in array.ravel().tolist()], array.shape)
    return array.tolist()


def _parse(body: bytes) -> dict[str, Any]:
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = json.loads(body)
    except json.JSONDecodeError as error:
        raise invalid(f"JSON Parse error: Invalid value. at offset: {error.pos}") from None
    except UnicodeDecodeError as error:
        raise invalid(f"JSON Parse error: Invalid encoding in string. at offset: {error.start}") from None
    except (RecursionError, ValueError):
        raise invalid("JSON Parse error: Terminate parsing due to Handler error. at offset: 0") from None
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {_show(document)} Is not object")
    return document


def _rows(document: dict[str, Any], specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    instances = document["instances"]
    if not isinstance(instances, list):
        raise invalid(f"JSON Value: {_show(document)} Excepting 'instances' to be an list/array")
    if not instances:
        raise invalid(f"JSON Value: {_show(document)} No values in 'instances' array")
    if not _is_named(instances[0]):
        return _plain_rows(instances, specs)
    names = set(specs)
    for number, item in enumerate(instances):
        if not _is_named(item):
            raise invalid(f"Expecting object but got list at item {number} of input list")
        for name in item:
            if name not in names:
                raise _in_element(number, f" key: {name}", f"JSON object: does not have named input: {name}")
        if set(item) != names:
            keys = ",".join(sorted(names))
            head = f"Failed to process element: {number} of 'instances' list. JSON object: {_show(item)}"
            raise invalid(f"{head} keys must be equal to: {keys}")
    return {name: _stacked([item[name] for item in instances], spec, f" key: {name}") for name, spec in specs.items()}


def _plain_rows(instances: list[Any], specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    if len(specs) > 1:
        raise invalid("instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map")
    for number, item in enumerate(instances):
        if _is_named(item):
            raise invalid(f"Expecting value/list but got object at item {number} of input list")
    name, spec = next(iter(specs.items()))
    return {name: _stacked(instances, spec, "")}


def _stacked(items: list[Any], spec: TensorSpec, key: str) -> Any:
    fast = _fast(items, spec)
    if fast is not None:
        return fast
    rows: list[Any] = []
    for number, item in enumerate(items):
        try:
            rows.append(_array(item, spec))
        except Exception as error:
            raise _in_element(number, key, str(error)) from None
        if rows[-1].size != rows[0].size:
            raise _in_element(number, key, f"Expecting tensor size: {rows[0].size} but got: {rows[-1].size}")
        if rows[-1].shape != rows[0].shape:
            raise _in_element(number, key, f"Expecting shape {list(rows[0].shape)} but got: {list(rows[-1].shape)}")
    return np.stack(rows)


def _in_element(number: int, key: str, text: str) -> Exception:
    return invalid(f"Failed to process element: {number}{key} of 'instances' list. Error: INVALID_ARGUMENT: {text}")


def _columns(value: Any, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    if not _is_named(value):
        if len(specs) > 1:
            raise invalid("inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map")
        name, spec = next(iter(specs.items()))
        return {name: _array(value, spec)}
    for name in specs:
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _array(value[name], spec) for name, spec in specs.items()}


def _array(value: Any, spec: TensorSpec) -> Any:
    fast = _fast(value, spec)
    if fast is not None:
        return fast
    shape = _shape(value)
    flat: list[Any] = []
    _fill(value, shape, 0, spec, flat)
    if spec.dtype.name == "string":
        array = np.empty(len(flat), dtype=object)
        array[:] = flat
        return array.reshape(shape)
    return np.array(flat, dtype=spec.dtype.as_numpy_dtype).reshape(shape)


def _fast(value: Any, spec: TensorSpec) -> Any:
    """The array if numpy understands it at once and nothing needs a refusal, else None: then the slow way finds the exact error."""
    kind = np.dtype(spec.dtype.as_numpy_dtype).kind
    if kind not in _KINDS:
        return None
    try:
        array = np.asarray(value)
        if array.dtype.kind not in _KINDS[kind]:
            return None
        return array.astype(spec.dtype.as_numpy_dtype) if _fits(array, spec) else None
    except (ValueError, OverflowError):
        return None


def _fits(array: Any, spec: TensorSpec) -> bool:
    if spec.dtype.is_bool:
        return True
    finite = array[np.isfinite(array)]
    return not finite.size or (finite.min() >= spec.dtype.min and finite.max() <= spec.dtype.max)


def _shape(value: Any) -> list[int]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def _fill(value: Any, shape: list[int], level: int, spec: TensorSpec, flat: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            text = f"found at incorrect level: {level + 1} in the JSON DOM. Expected at level: {len(shape)}"
            raise invalid(f"JSON Value: {_show(value)} {text}")
        flat.append(_scalar(value, spec))
        return
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}")
    for item in value:
        _fill(item, shape, level + 1, spec, flat)


def _scalar(value: Any, spec: TensorSpec) -> Any:
    if spec.dtype.name == "string":
        if isinstance(value, dict):
            return _decoded(value)
        if isinstance(value, str):
            return value.encode("utf-8", "surrogatepass")
    elif np.asarray(value).dtype.kind in _KINDS.get(np.dtype(spec.dtype.as_numpy_dtype).kind, ""):
        if _fits(np.asarray(value), spec):
            return value
        raise invalid(f"Cannot convert JSON value: {_show(value)} to {spec.dtype.name} without loss of precision.")
    raise invalid(f"JSON Value: {_show(value)} Type: {_type(value)} is not of expected type: {spec.dtype.name}")


def _decoded(value: dict[str, Any]) -> bytes:
    if not _is_b64(value):
        raise invalid(f"JSON Value: {_show(value)} not formatted correctly for base64 data")
    text = value["b64"]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not _is_b64(value)


def _is_b64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _type(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {None: "Null", True: "True", False: "False"}[value]
    return {dict: "Object", list: "Array", str: "String"}.get(type(value), "Number")


def _show(value: Any) -> str:
    text = json.dumps(value)
    # TF Serving prints the whole value; a megabyte of base64 in an error message helps nobody.
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _is_bytes(name: str, value: Any) -> bool:
    return name.endswith("_bytes") and np.asarray(value).dtype.kind in "OSU"


def _string(item: Any, as_bytes: bool) -> Any:
    data = item if isinstance(item, bytes) else str(item).encode()
    return {"b64": base64.b64encode(data).decode()} if as_bytes else data.decode("utf-8", "replace")


def _nest(flat: list[Any], shape: tuple[int, ...]) -> Any:
    if not shape:
        return flat[0]
    for size in reversed(shape[1:]):
        flat = [flat[i : i + size] for i in range(0, len(flat), size)]
    return flat


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
