"""One loaded SavedModel: its signatures, and runs of them.

It is loaded into a graph session, as TF Serving does: `Session` runs release the GIL, TF1 and TF2 exports load alike, and nothing of
the exporting program's Python is needed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import tensorflow as tf

from serving.server.status import Code, Refusal, invalid

DEFAULT_SIGNATURE = "serving_default"
INIT_OP = "__saved_model_init_op"
_TAGS = ["serve"]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a signature: the graph's tensor name, dtype, and shape (None: rank unknown; -1: any size)."""

    tensor: str
    dtype: Any
    shape: tuple[int, ...] | None

    def is_batched(self) -> bool:
        """Whether the first dimension may have any size."""
        return self.shape is not None and len(self.shape) > 0 and self.shape[0] == -1

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether a value of this shape fits."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(w in (-1, h) for h, w in zip(shape, self.shape, strict=True))


@dataclass(frozen=True)
class Signature:
    """A named entry point of the model."""

    name: str
    method: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    def is_batched(self) -> bool:
        """Whether rows of several requests may be run together."""
        return all(spec.is_batched() for spec in (*self.inputs.values(), *self.outputs.values()))


class Servable:
    """A SavedModel in memory; `run` may be called from any thread."""

    def __init__(self, path: Path) -> None:
        """Load the SavedModel in `path`; TensorFlow's errors pass through (a missing file, a broken graph)."""
        self.path = path
        self._session: Any = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            self._meta: Any = tf.compat.v1.saved_model.loader.load(self._session, _TAGS, str(path))
        self.signatures = {name: _signature(name, proto) for name, proto in self._meta.signature_def.items() if name != INIT_OP}
        self._callables: dict[tuple[str, tuple[str, ...]], Callable[..., list[Any]]] = {}
        self._lock = Lock()

    def signature_protos(self) -> Mapping[str, Any]:
        """The SignatureDef messages by name, as they were exported."""
        return self._meta.signature_def

    def signature(self, name: str) -> Signature | None:
        """The signature of that name (empty: the default one), or None."""
        return self.signatures.get(name or DEFAULT_SIGNATURE)

    def run(self, signature: Signature, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        """Run a signature; arrays in and out by the signature's names. TensorFlow's errors pass through."""
        call = self._callable(signature, tuple(outputs))
        return dict(zip(outputs, call(*(inputs[name] for name in signature.inputs)), strict=True))

    def close(self) -> None:
        """Free the model's memory."""
        self._session.close()
        self._callables.clear()

    def _callable(self, signature: Signature, outputs: tuple[str, ...]) -> Callable[..., list[Any]]:
        with self._lock:
            key = (signature.name, outputs)
            if key not in self._callables:
                graph = self._session.graph
                fetches = [graph.get_tensor_by_name(signature.outputs[name].tensor) for name in outputs]
                feeds = [graph.get_tensor_by_name(spec.tensor) for spec in signature.inputs.values()]
                self._callables[key] = self._session.make_callable(fetches, feed_list=feeds)
            return self._callables[key]


def check_inputs(signature: Signature, inputs: Mapping[str, Any]) -> None:
    """Raise the refusal that TF Serving gives for missing, extra, mistyped or misshapen inputs."""
    if len(inputs) != len(signature.inputs):
        raise invalid(_size_mismatch(set(inputs), set(signature.inputs)))
    for name, value in inputs.items():
        spec = signature.inputs.get(name)
        if spec is None:
            expected = ",".join(sorted(signature.inputs))
            raise invalid(f"input tensor alias not found in signature: {name}. Inputs expected to be in the set {{{expected}}}.")
        if _dtype(value) != spec.dtype:
            raise invalid(f"Input '{name}': expects {spec.dtype.name} but {_dtype(value).name} is provided")
        if not spec.accepts(value.shape):
            raise invalid(f"Input '{name}': shape {_shape(value.shape)} does not fit the signature's {_shape(spec.shape or ())}")


def pick_outputs(signature: Signature, wanted: Sequence[str]) -> list[str]:
    """The outputs to fetch: the request's filter, or all of them, in the signature's order."""
    for name in wanted:
        if name not in signature.outputs:
            expected = ",".join(sorted(signature.outputs))
            raise invalid(f"output tensor alias not found in signature: {name} Outputs expected to be in the set {{{expected}}}.")
        if list(wanted).count(name) > 1:
            raise invalid(f"duplicate output tensor alias: {name}")
    return list(wanted) or sorted(signature.outputs)


def require_signature(servable: Servable, name: str) -> Signature:
    """The signature for a gRPC request, or TF Serving's refusal."""
    signature = servable.signature(name)
    if signature is None:
        raise Refusal(Code.FAILED_PRECONDITION, f'Serving signature key "{name or DEFAULT_SIGNATURE}" not found.')
    return signature


def _signature(name: str, proto: Any) -> Signature:
    inputs = {key: _spec(info) for key, info in sorted(proto.inputs.items())}
    outputs = {key: _spec(info) for key, info in sorted(proto.outputs.items())}
    return Signature(name, proto.method_name, inputs, outputs)


def _spec(info: Any) -> TensorSpec:
    shape = info.tensor_shape
    sizes = None if shape.unknown_rank else tuple(int(dim.size) for dim in shape.dim)
    return TensorSpec(info.name, tf.dtypes.as_dtype(info.dtype), sizes)


def _dtype(value: Any) -> Any:
    return tf.string if value.dtype.kind in "OSU" else tf.dtypes.as_dtype(value.dtype)


def _shape(sizes: Sequence[int]) -> str:
    return "[" + ",".join("?" if size == -1 else str(size) for size in sizes) + "]"


def _size_mismatch(sent: set[str], wanted: set[str]) -> str:
    def joined(names: set[str]) -> str:
        return "{" + ",".join(sorted(names)) + "}"

    return (
        f"input size does not match signature: {len(sent)}!={len(wanted)} len({joined(sent)}) != len({joined(wanted)})."
        f" Sent extra: {joined(sent - wanted)}. Missing but required: {joined(wanted - sent)}."
    )


def rows_of(inputs: Mapping[str, Any]) -> int:
    """The common size of the first dimension; a refusal if the inputs differ."""
    sizes = {int(np.shape(value)[0]) for value in inputs.values()}
    if len(sizes) != 1:
        raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
    return sizes.pop()
