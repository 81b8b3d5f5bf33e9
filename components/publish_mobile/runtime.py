"""The oldest TFLite runtime that can run a .tflite, as its converter wrote it into the file's metadata.

The converter adds a metadata entry `min_runtime_version` whose buffer holds the version, padded with zeros; TFLite's own
`FlatBufferModel::GetMinimumRuntime` reads the same. The numbers of tables and fields are those of TensorFlow's schema.fbs.
Read by hand, because the image that publishes has neither LiteRT nor flatbuffers.
"""

import re
import struct

_IDENTIFIER = b"TFL3"
_ENTRY = b"min_runtime_version"
_MODEL_BUFFERS, _MODEL_METADATA = 4, 6
_METADATA_NAME, _METADATA_BUFFER = 0, 1
_BUFFER_DATA = 0


def minimum_runtime(model: bytes) -> str:
    """A version such as `2.3.0`; empty if the file does not say one, or is no .tflite."""
    if model[4:8] != _IDENTIFIER:
        return ""
    try:
        text = _find(model).rstrip(b"\0").decode()
    except (struct.error, UnicodeDecodeError, IndexError):
        return ""
    return text if re.fullmatch(r"\d+\.\d+\.\d+", text) else ""


def _find(data: bytes) -> bytes:
    model = _uint(data, 0)
    for entry in _tables(data, _field(data, model, _MODEL_METADATA)):
        if _bytes(data, _field(data, entry, _METADATA_NAME)) == _ENTRY:
            field = _field(data, entry, _METADATA_BUFFER)
            buffers = _tables(data, _field(data, model, _MODEL_BUFFERS))
            return _bytes(data, _field(data, buffers[_uint(data, field) if field else 0], _BUFFER_DATA))
    return b""


def _field(data: bytes, table: int, number: int) -> int:
    """Where a table's field is; 0 if it is not set."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    slot = 4 + 2 * number
    if slot >= struct.unpack_from("<H", data, vtable)[0]:
        return 0
    offset = struct.unpack_from("<H", data, vtable + slot)[0]
    return table + offset if offset else 0


def _tables(data: bytes, field: int) -> list[int]:
    if not field:
        return []
    vector = field + _uint(data, field)
    places = [vector + 4 + 4 * index for index in range(min(_uint(data, vector), len(data) // 4))]
    return [place + _uint(data, place) for place in places]


def _bytes(data: bytes, field: int) -> bytes:
    if not field:
        return b""
    vector = field + _uint(data, field)
    return data[vector + 4 : vector + 4 + _uint(data, vector)]


def _uint(data: bytes, place: int) -> int:
    return struct.unpack_from("<I", data, place)[0]
