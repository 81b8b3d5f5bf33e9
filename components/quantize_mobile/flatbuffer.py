"""The .tflite file itself: which operations and types are in it, and the contract and labels written into it."""

import io
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from components.quantize_mobile.interpreter import LABELS_FILE
from components.quantize_mobile.metadata import model_metadata

_METADATA_NAME = "TFLITE_METADATA"
_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16
"""The schema's force_align of buffers, which the generated Python code does not keep."""


@dataclass(frozen=True)
class Contents:
    """What a .tflite computes with."""

    operations: dict[str, int]
    """Operation → how often."""
    float_operations: dict[str, int]
    """Those that read or write a tensor of floats."""

    @property
    def full_int8(self) -> bool:
        """No operation touches a float; only integer arithmetic and the uint8 edges are left."""
        return not self.float_operations


def read_contents(data: bytes) -> Contents:
    """Walk every operation of every subgraph and the types of its tensors."""
    from ai_edge_litert import schema_py_generated as schema

    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    floats = {schema.TensorType.FLOAT16, schema.TensorType.FLOAT32, schema.TensorType.FLOAT64, schema.TensorType.BFLOAT16}
    model = _unpack(data)
    every, floating = Counter[str](), Counter[str]()
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
            types = {graph.tensors[index].type for index in [*operator.inputs, *operator.outputs] if index >= 0}
            every[name] += 1
            floating[name] += bool(types & floats)
    return Contents(dict(sorted(every.items())), {name: count for name, count in sorted(floating.items()) if count})


def finish(data: bytes, labels: Sequence[str], name: str, description: str, *, contract: bool = True) -> bytes:
    """The model with its metadata and labels.txt, as apps read them; still one file that LiteRT loads.

    The metadata is TFLite's own (schema "M001", in the buffer TFLITE_METADATA); labels.txt is appended as an uncompressed ZIP. With
    `contract`, edges of type uint8 that have no scale get the published one (pixels 1, probabilities 1/256, zero points 0).
    """
    model = _unpack(data)
    graph = model.subgraphs[0]
    inputs, outputs = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    if contract:
        _set_scale(inputs, 1.0)
        _set_scale(outputs, 1.0 / 256.0)
    _, height, width, _ = inputs.shape
    _put_metadata(model, model_metadata(name, description, int(height), int(width)))
    return _append_file(_pack(model), LABELS_FILE, "".join(f"{label}\n" for label in labels))


def _set_scale(tensor: Any, scale: float) -> None:
    from ai_edge_litert import schema_py_generated as schema

    quantization = tensor.quantization or schema.QuantizationParametersT()
    if tensor.type == schema.TensorType.UINT8 and quantization.scale is None:
        quantization.scale, quantization.zeroPoint = [scale], [0]
        tensor.quantization = quantization


def _put_metadata(model: Any, content: bytes) -> None:
    from ai_edge_litert import schema_py_generated as schema

    buffer = _aligned_buffer(content)
    entry = schema.MetadataT()
    entry.name, entry.buffer = _METADATA_NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(m for m in model.metadata or [] if m.name not in (_METADATA_NAME, _METADATA_NAME.encode())), entry]


def _aligned_buffer(content: bytes) -> Any:
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    class Aligned(schema.BufferT):
        """A buffer whose data starts at a multiple of 16 bytes."""

        def Pack(self, builder: Any) -> Any:
            vector = None
            if self.data is not None and len(self.data):
                body = np.asarray(self.data, np.uint8).tobytes()
                builder.StartVector(1, len(body), _ALIGNMENT)
                builder.head = builder.head - len(body)
                builder.Bytes[builder.head : builder.head + len(body)] = body
                vector = builder.EndVector()
            schema.BufferStart(builder)
            if vector is not None:
                schema.BufferAddData(builder, vector)
            return schema.BufferEnd(builder)

    buffer = Aligned()
    buffer.data = np.frombuffer(content, np.uint8)
    return buffer


def _unpack(data: bytes) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(data, 0)


def _pack(model: Any) -> bytes:
    import flatbuffers

    model.buffers = [_aligned_buffer(bytes(b.data) if b.data is not None else b"") for b in model.buffers]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _append_file(data: bytes, name: str, text: str) -> bytes:
    # Appending lets the archive's offsets count from the start of the whole file, which strict readers ask for.
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)
    return buffer.getvalue()
