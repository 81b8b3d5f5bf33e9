"""TFLite's model metadata (schema file identifier "M001"), written with flatbuffers.

The package that used to write it (tflite-support) no longer installs. The numbers of fields and enumerations are those of
`metadata_schema.fbs` in TensorFlow Lite Support; only what an image classifier needs is here.
"""

from collections.abc import Sequence
from typing import Any

from components.quantize_mobile.interpreter import LABELS_FILE

_IDENTIFIER = b"M001"
_PARSER = "1.0.0"
_IMAGE, _FEATURE = 2, 1
_RGB = 1
_AXIS_LABELS = 2
_NORMALIZATION = 1
_Field = tuple[int, str, Any]
"""Field number, its type in the builder (`offset`, `byte`, `uint8`, `uint32`), its value."""


def model_metadata(name: str, description: str, height: int, width: int) -> bytes:
    """The flatbuffer of ModelMetadata: RGB pixels of `height`×`width` in [0, 255], not to be normalised by the app, and labels.txt."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    graph = _table(builder, 10, [(2, "offset", _offsets(builder, [_image(builder, height, width)])), (3, "offset", _outputs(builder))])
    fields: list[_Field] = [
        (0, "offset", builder.CreateString(name)),
        (1, "offset", builder.CreateString(description)),
        (3, "offset", _offsets(builder, [graph])),
        (7, "offset", builder.CreateString(_PARSER)),
    ]
    builder.Finish(_table(builder, 8, fields), _IDENTIFIER)
    return bytes(builder.Output())


def _image(builder: Any, height: int, width: int) -> int:
    size = _table(builder, 2, [(0, "uint32", width), (1, "uint32", height)])
    properties = _table(builder, 2, [(0, "byte", _RGB), (1, "offset", size)])
    # Mean 0 and deviation 1: the model rescales inside, an app hands over the pixels as they are.
    options = _table(builder, 2, [(0, "offset", _floats(builder, [0.0])), (1, "offset", _floats(builder, [1.0]))])
    unit = _table(builder, 2, [(0, "uint8", _NORMALIZATION), (1, "offset", options)])
    fields: list[_Field] = [
        (0, "offset", builder.CreateString("image")),
        (1, "offset", builder.CreateString("RGB pixels in [0, 255], resized to the whole input.")),
        (3, "offset", _content(builder, _IMAGE, properties)),
        (4, "offset", _offsets(builder, [unit])),
        (5, "offset", _stats(builder, 0.0, 255.0)),
    ]
    return _table(builder, 7, fields)


def _outputs(builder: Any) -> int:
    file_fields: list[_Field] = [
        (0, "offset", builder.CreateString(LABELS_FILE)),
        (1, "offset", builder.CreateString("Class names in the order of the probabilities.")),
        (2, "byte", _AXIS_LABELS),
    ]
    labels = _table(builder, 5, file_fields)
    fields: list[_Field] = [
        (0, "offset", builder.CreateString("probability")),
        (1, "offset", builder.CreateString("One probability per class.")),
        (3, "offset", _content(builder, _FEATURE, _table(builder, 0, []))),
        (5, "offset", _stats(builder, 0.0, 1.0)),
        (6, "offset", _offsets(builder, [labels])),
    ]
    return _offsets(builder, [_table(builder, 7, fields)])


def _content(builder: Any, kind: int, properties: int) -> int:
    return _table(builder, 3, [(0, "uint8", kind), (1, "offset", properties)])


def _stats(builder: Any, low: float, high: float) -> int:
    return _table(builder, 2, [(0, "offset", _floats(builder, [high])), (1, "offset", _floats(builder, [low]))])


def _table(builder: Any, size: int, fields: Sequence[_Field]) -> int:
    builder.StartObject(size)
    prepend = {
        "offset": builder.PrependUOffsetTRelativeSlot,
        "byte": builder.PrependInt8Slot,
        "uint8": builder.PrependUint8Slot,
        "uint32": builder.PrependUint32Slot,
    }
    for number, kind, value in fields:
        prepend[kind](number, value, 0)
    return builder.EndObject()


def _offsets(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _floats(builder: Any, values: Sequence[float]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependFloat32(value)
    return builder.EndVector()
