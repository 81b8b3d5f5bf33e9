"""TFRecord files and tf.train.Example without TensorFlow, whose import takes longer than ingesting a thousand images.

Framing: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details (little-endian length, its masked CRC-32C,
the data, its masked CRC-32C). Message: tensorflow/core/example/{example,feature}.proto. Tested against TensorFlow's own reader and writer.
"""

import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import BinaryIO

import google_crc32c

from components.core.errors import DataError

Value = bytes | int
_MASK = 0xA282EAD8
_SHORT = 16
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5


def frame(data: bytes) -> bytes:
    """One record as it stands in a TFRecord file."""
    return b"".join(_framed([data]))


def framed_example(features: Mapping[str, Value]) -> list[bytes]:
    """The pieces of `frame(encode_example(features))`: joining them is left to the writer, so that an image is copied once."""
    return _framed(_message(features))


def _framed(pieces: list[bytes]) -> list[bytes]:
    length = struct.pack("<Q", sum(map(len, pieces)))
    crc = 0
    for piece in pieces:
        crc = google_crc32c.extend(crc, piece)
    return [length, _mask(google_crc32c.value(length)), *pieces, _mask(crc)]


def read_records(file: BinaryIO, name: str, limit: int) -> Iterator[bytes]:
    """Every record of an open TFRecord file; `DataError` names the file and offset of a damaged or oversized (> `limit` bytes) one."""
    offset = 0
    while head := file.read(12):
        data = _body(file, head, limit)
        if data is None:
            raise DataError(
                f"the record at byte {offset} is damaged, cut off or larger than {limit} bytes",
                where=name,
                fix="Write the file again, or raise ingest.max_file_mb if its images are that large",
            )
        yield data
        offset += len(data) + 16


def _body(file: BinaryIO, head: bytes, limit: int) -> bytes | None:
    if len(head) < 12 or _masked(head[:8]) != head[8:]:
        return None
    (length,) = struct.unpack("<Q", head[:8])
    if length > limit:
        return None
    data, check = file.read(length), file.read(4)
    return data if len(data) == length and _masked(data) == check else None


def _masked(data: bytes) -> bytes:
    return _mask(google_crc32c.value(data))


def _mask(crc: int) -> bytes:
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF)


def encode_example(features: Mapping[str, Value]) -> bytes:
    """A serialized tf.train.Example of scalar features (bytes or non-negative int64), in the order of their names."""
    return b"".join(_message(features))


def _message(features: Mapping[str, Value]) -> list[bytes]:
    entries = [piece for name in sorted(features) for piece in _entry(name, features[name])]
    return [_head(1, sum(map(len, entries))), *entries]


def _entry(name: str, value: Value) -> tuple[bytes, ...]:
    """The pieces of one feature."""
    if isinstance(value, int) or len(value) <= _SHORT:
        return _short_entry(name, value)
    return _entry_head(name, len(value)), value


@lru_cache(maxsize=4096)
def _short_entry(name: str, value: Value) -> tuple[bytes]:
    """Remembered, because formats, labels and sizes come again and again."""
    if isinstance(value, int):
        feature = _field(3, _field(1, _varint(value)))
        return (_field(1, _field(1, name.encode()) + _field(2, feature)),)
    return (_entry_head(name, len(value)) + value,)


@lru_cache(maxsize=4096)
def _entry_head(name: str, length: int) -> bytes:
    """All that stands before a value of `length` bytes: the heads of the map entry, the feature, the list and the value, and the name."""
    value = _head(1, length)
    values = _head(1, len(value) + length) + value
    feature = _field(1, name.encode()) + _head(2, len(values) + length) + values
    return _head(1, len(feature) + length) + feature


def _field(number: int, payload: bytes) -> bytes:
    return _head(number, len(payload)) + payload


def _head(number: int, length: int) -> bytes:
    return bytes([number << 3 | _DELIMITED]) + _varint(length)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_example(data: bytes) -> dict[str, Value]:
    """The first value of every bytes or int64 feature of a serialized tf.train.Example; floats and empty lists are left out.

    Raises ValueError if `data` is no such message.
    """
    features: dict[str, Value] = {}
    for _, container in _fields(data, 1):
        for _, entry in _fields(container, 1):
            parts = dict(_fields(entry, 1, 2))
            value = _first(parts.get(2, b""))
            if value is not None:
                features[parts.get(1, b"").decode()] = value
    return features


def _first(feature: bytes) -> Value | None:
    for number, values in _fields(feature, 1, 3):
        if number == 1:
            return next((value for _, value in _fields(values, 1)), None)
        return _first_integer(values)
    return None


def _first_integer(values: bytes) -> int | None:
    if not values:
        return None
    # Packed (the default of proto3) is a length-delimited run of varints; unpacked is one varint field each.
    start = _read_varint(values, 1)[1] if values[0] & 7 == _DELIMITED else 1
    raw = _read_varint(values, start)[0]
    return raw - (1 << 64) if raw >> 63 else raw


def _fields(data: bytes, *wanted: int) -> Iterator[tuple[int, bytes]]:
    """(number, payload) of the wanted length-delimited fields of a message; others are skipped."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        if tag & 7 != _DELIMITED:
            at = _skip(data, at, tag & 7)
            continue
        length, at = _read_varint(data, at)
        if at + length > len(data):
            raise ValueError("field is cut off")
        if tag >> 3 in wanted:
            yield tag >> 3, data[at : at + length]
        at += length


def _skip(data: bytes, at: int, kind: int) -> int:
    if kind == _VARINT:
        return _read_varint(data, at)[1]
    if kind in (_FIXED64, _FIXED32):
        return at + (8 if kind == _FIXED64 else 4)
    raise ValueError(f"unknown wire type {kind}")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise ValueError("number is cut off")
