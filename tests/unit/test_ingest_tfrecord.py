"""Our TFRecord framing and tf.train.Example codec against TensorFlow's own."""

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.errors import DataError
from components.ingest.tfrecord import decode_example, encode_example, frame, framed_example, read_records
from tests.unit.ingest_runs import class_folders, ingest

FEATURES = st.dictionaries(st.text(min_size=1, max_size=20), st.binary(max_size=300) | st.integers(0, 2**63 - 1), max_size=8)


@pytest.fixture(scope="module")
def tf() -> Any:
    import tensorflow

    return tensorflow


@settings(max_examples=60, deadline=None)
@given(FEATURES)
def test_encoding_is_what_tensorflow_reads(tf: Any, features: dict[str, bytes | int]) -> None:
    encoded = encode_example(features)
    parsed = tf.train.Example.FromString(encoded)
    read = {name: (f.bytes_list.value or f.int64_list.value)[0] for name, f in parsed.features.feature.items()}
    assert read == features
    assert decode_example(encoded) == features
    assert decode_example(parsed.SerializeToString(deterministic=True)) == features


@settings(max_examples=60, deadline=None)
@given(FEATURES, st.sampled_from([0, 16, 17, 127, 128, 16_383, 16_384, 70_000]))
def test_pieces_are_the_framed_example(features: dict[str, bytes | int], size: int) -> None:
    features |= {"image": bytes(size)}
    assert b"".join(framed_example(features)) == frame(encode_example(features))


def test_decoding_takes_first_values_and_negative_numbers_and_skips_floats(tf: Any) -> None:
    train = tf.train
    feature = {
        "many": train.Feature(bytes_list=train.BytesList(value=[b"a", b"b"])),
        "minus": train.Feature(int64_list=train.Int64List(value=[-5, 7])),
        "floats": train.Feature(float_list=train.FloatList(value=[0.5])),
        "none": train.Feature(bytes_list=train.BytesList(value=[])),
    }
    data = train.Example(features=train.Features(feature=feature)).SerializeToString()
    assert decode_example(data) == {"many": b"a", "minus": -5}


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_decoding_rubbish_raises_value_errors_only(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode_example(data)


def test_framing_is_tensorflow_s_both_ways(tf: Any, tmp_path: Path) -> None:
    records = [b"", b"x", bytes(range(256)) * 500]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_bytes(b"".join(map(frame, records)))
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for record in records:
            writer.write(record)
    assert ours.read_bytes() == theirs.read_bytes()
    assert [r.numpy() for r in tf.data.TFRecordDataset(str(ours))] == records
    with theirs.open("rb") as file:
        assert list(read_records(file, "theirs", 1 << 20)) == records


@pytest.mark.parametrize("damage", ["cut", "flip", "length", "limit"])
def test_damaged_records_are_named(damage: str) -> None:
    good = frame(b"first") + frame(b"second record")
    data = {"cut": good[:-3], "flip": good[:-9] + b"X" + good[-8:], "length": good[:21] + b"\xff" + good[22:], "limit": good}[damage]
    with pytest.raises(DataError, match=r"some\.tfrecord: the record at byte 21"):
        list(read_records(io.BytesIO(data), "some.tfrecord", 8 if damage == "limit" else 1 << 20))


def test_training_reads_what_ingest_wrote(tf: Any, tmp_path: Path) -> None:
    from components.training.records import read_split

    run = ingest(class_folders(tmp_path / "data"), tmp_path, examples_per_shard=5)
    rows = {row["key"].numpy().decode(): row for row in read_split(run.root, "train")}
    assert len(rows) == run.examples.splits["train"].count
    row = rows[next(key for key in rows if key.startswith("dogs/"))]
    assert int(row["label"]) == 1
    assert tf.io.decode_image(row["image"]).shape == (40, 48, 3)
