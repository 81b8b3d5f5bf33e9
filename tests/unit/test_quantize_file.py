"""The .tflite as a file: contract, labels and metadata in it, and the classifier that apps use on it."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.core.errors import DataError, UsageError
from components.quantize_mobile.flatbuffer import Contents, finish, read_contents
from components.quantize_mobile.interpreter import Classifier, read_labels
from tests.unit.test_quantize_network import pictures, small_network

LABELS = ["daisy", "löwenzahn", "rose, red"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The smallest network in every form that the step writes."""
    from components.quantize_mobile.convert import to_dynamic_range, to_float, to_int8_by_calibration, to_int8_by_ranges
    from components.quantize_mobile.ranges import measure_ranges

    network, images = small_network(), pictures(12, 32).astype(np.uint8)
    made = {
        "float": to_float(network),
        "ptq": to_int8_by_calibration(network, images),
        "clipped": to_int8_by_ranges(network, measure_ranges(network, images, "mse")),
        "arithmetic": to_int8_by_ranges(other := small_network("arithmetic"), measure_ranges(other, images, "mse")),
        "dynamic_range": to_dynamic_range(network),
    }
    folder = tmp_path_factory.mktemp("models")
    for name, data in made.items():
        (folder / f"{name}.tflite").write_bytes(finish(data, LABELS, "flowers", "A test.", contract=name != "float"))
    return {name: folder / f"{name}.tflite" for name in made}


@pytest.mark.parametrize("form", ["ptq", "clipped", "arithmetic", "dynamic_range"])
def test_edges_keep_the_published_contract(models: dict[str, Path], form: str) -> None:
    model = Classifier(models[form])
    assert model.input_details["dtype"] is np.uint8
    assert model.input_details["shape"].tolist() == [1, 32, 32, 3]
    assert model.input_details["quantization"] == (1.0, 0)
    assert model.output_details["dtype"] is np.uint8
    assert model.output_details["shape"].tolist() == [1, 3]
    assert model.output_details["quantization"] == (1 / 256, 0)


@pytest.mark.parametrize("form", ["ptq", "clipped", "arithmetic", "dynamic_range"])
def test_quantized_probabilities_follow_the_float_ones(models: dict[str, Path], form: str) -> None:
    images = pictures(12, 32).astype(np.uint8)
    reference, quantized = (Classifier(models[name]).predict(images) for name in ("float", form))
    assert reference.std(axis=0).max() > 0.02, "the images must not all look alike"
    np.testing.assert_allclose(quantized, reference, atol=0.03)


def test_only_int8_forms_are_free_of_floats(models: dict[str, Path]) -> None:
    contents = {name: read_contents(path.read_bytes()) for name, path in models.items()}
    assert {name: found.full_int8 for name, found in contents.items()} == {
        "float": False,
        "ptq": True,
        "clipped": True,
        "arithmetic": True,
        "dynamic_range": False,
    }
    assert contents["ptq"].operations["QUANTIZE"] == 2
    assert contents["clipped"].operations["HARD_SWISH"] == 1
    assert "HARD_SWISH" not in contents["arithmetic"].operations
    assert contents["float"].float_operations == contents["float"].operations


def test_one_float_operation_is_not_full_int8() -> None:
    assert not Contents({"CONV_2D": 9, "SOFTMAX": 1}, {"SOFTMAX": 1}).full_int8
    assert Contents({"CONV_2D": 9}, {}).full_int8


def test_labels_are_an_ordinary_zip_member(models: dict[str, Path]) -> None:
    assert Classifier(models["ptq"]).labels == LABELS
    with zipfile.ZipFile(models["ptq"]) as archive:
        assert archive.testzip() is None
        member = archive.getinfo("labels.txt")
        assert member.compress_type == zipfile.ZIP_STORED
    # Strict readers take the member's offset as counted from the start of the file.
    assert models["ptq"].read_bytes()[member.header_offset :].startswith(b"PK\x03\x04")


def test_metadata_is_a_flatbuffer_that_names_the_labels_and_the_image(models: dict[str, Path]) -> None:
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.ModelT.InitFromPackedBuf(models["ptq"].read_bytes(), 0)
    entries = [entry for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
    assert len(entries) == 1
    content = bytes(model.buffers[entries[0].buffer].data)
    assert content[4:8] == b"M001"
    assert all(word in content for word in (b"labels.txt", b"flowers", b"1.0.0"))


def test_weights_stay_aligned(models: dict[str, Path]) -> None:
    from ai_edge_litert import schema_py_generated as schema

    data = models["clipped"].read_bytes()
    model: Any = schema.Model.GetRootAs(data, 0)
    offsets = []
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer is not None and buffer.DataLength():
            offsets.append(buffer._tab.Vector(buffer._tab.Offset(4)))
    assert offsets
    assert all(offset % 16 == 0 for offset in offsets)


def test_single_image_and_batch_agree_and_raw_is_what_the_phone_sees(models: dict[str, Path]) -> None:
    model, images = Classifier(models["ptq"]), pictures(3, 32).astype(np.uint8)
    batch = model.predict(images)
    assert batch.shape == (3, 3)
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(model.predict(images[1]), batch[1:2])
    raw = model.predict_raw(images[1])
    assert raw.dtype == np.uint8
    np.testing.assert_array_equal(raw / np.float32(256), batch[1])
    assert model.predict(images[:0]).shape == (0, 3)


@pytest.mark.parametrize("pixels", [np.zeros((16, 32, 3), np.uint8), np.zeros((32, 32, 3), np.float32), np.zeros((32, 32), np.uint8)])
def test_wrong_pixels_are_refused(models: dict[str, Path], pixels: Any) -> None:
    with pytest.raises(UsageError, match=r"expected uint8 \[32, 32, 3\] pixels"):
        Classifier(models["ptq"]).predict(pixels)


def test_float_model_has_no_raw_codes(models: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="not uint8"):
        Classifier(models["float"]).predict_raw(np.zeros((32, 32, 3), np.uint8))


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "half", "overwritten", "labels"])
def test_damaged_file_is_a_data_error_that_names_it(models: dict[str, Path], tmp_path: Path, damage: str) -> None:
    data, path = models["ptq"].read_bytes(), tmp_path / "bad.tflite"
    bodies = {
        "empty": b"",
        "text": b"no model at all " * 20,
        "half": data[: len(data) // 2],
        "overwritten": data[:64] + b"\xff" * 256 + data[320:],
        "labels": _relabelled(data, "one\ntwo\n"),
    }
    if damage in bodies:
        path.write_bytes(bodies[damage])
    with pytest.raises(DataError, match=r"bad\.tflite"):
        Classifier(path)


def test_model_without_labels_still_loads(models: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "bare.tflite"
    data = models["ptq"].read_bytes()
    path.write_bytes(data[: data.rindex(b"PK\x03\x04")])
    assert read_labels(path) == []
    assert Classifier(path).labels == []


def test_classifier_needs_no_tensorflow(models: dict[str, Path]) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from components.quantize_mobile.interpreter import Classifier\n"
        f"Classifier(Path({str(models['ptq'])!r})).predict(np.zeros((32, 32, 3), np.uint8))\n"
        "assert not {'tensorflow', 'keras', 'tf_keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _relabelled(data: bytes, text: str) -> bytes:
    buffer = io.BytesIO(data[: data.rindex(b"PK\x03\x04")])
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("labels.txt", text)
    return buffer.getvalue()
