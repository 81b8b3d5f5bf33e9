"""What all tests share: the real photographs where they are present, and tiny examples that need nothing."""

import atexit
import io
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.core.digest import sha256_bytes, sha256_json
from components.core.examples import MANIFEST, SPLITS, Examples, SplitExamples

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Tests publish to local stores: the key that this makes is none of the user's.
os.environ["DUAL_KEYS"] = tempfile.mkdtemp(prefix="dual-keys-")
atexit.register(shutil.rmtree, os.environ["DUAL_KEYS"], ignore_errors=True)
ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("DUAL_SHARED", ROOT.parent / "shared"))
LABELS = ["daisy", "roses", "tulips"]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real photographs and weights; tests that need it are skipped elsewhere, with a line that says so."""
    if not (SHARED / "data" / "flowers").is_dir():
        pytest.skip(f"needs the shared data folder at {SHARED} (set DUAL_SHARED)")
    return SHARED


def tiny_jpeg(label: int, seed: int, side: int = 48) -> bytes:
    """A small picture whose class a network learns in seconds: a bright disc, whose colour is the class, on noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (side, side, 3), dtype=np.uint8)
    y, x = np.mgrid[:side, :side]
    centre = rng.uniform(side * 0.35, side * 0.65, 2)
    disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (side * 0.3) ** 2
    pixels[disc, label % 3] = rng.integers(190, 255)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def write_tiny_examples(root: Path, per_class: dict[str, int] | None = None) -> Path:
    """Write an examples artifact of three classes in the contract's layout."""
    import tensorflow as tf

    def feature(value: bytes | int) -> tf.train.Feature:
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    counts = per_class or {"train": 16, "validation": 6, "test": 8}
    splits, facts = {}, []
    for number, split in enumerate(SPLITS):
        (root / split).mkdir(parents=True)
        shard = f"{split}/shard-00000-of-00001.tfrecord"
        with tf.io.TFRecordWriter(str(root / shard)) as writer:
            for index in range(counts[split] * len(LABELS)):
                label = index % len(LABELS)
                image = tiny_jpeg(label, seed=1000 * number + index)
                key, slices = f"{LABELS[label]}/{split}-{index}.jpg", json.dumps({"source": "web" if index % 2 else "phone"})
                features = {
                    "image/encoded": image,
                    "image/format": b"jpeg",
                    "image/height": 48,
                    "image/width": 48,
                    "image/label": label,
                    "image/class/text": LABELS[label].encode(),
                    "image/key": key.encode(),
                    "image/sha256": sha256_bytes(image).encode(),
                    "image/slices": slices.encode(),
                }
                example = tf.train.Example(features=tf.train.Features(feature={k: feature(v) for k, v in features.items()}))
                writer.write(example.SerializeToString())
                facts.append([split, key, label, sha256_bytes(image), slices])
        per = dict.fromkeys(LABELS, counts[split])
        splits[split] = SplitExamples(shards=[shard], count=counts[split] * len(LABELS), per_class=per)
    examples = Examples(labels=LABELS, digest=sha256_json(sorted(facts)), splits=splits, slice_columns=["source"], source="tiny")
    (root / MANIFEST).write_text(examples.model_dump_json(by_alias=True))
    return root


@pytest.fixture(scope="session")
def tiny_examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A read-only examples artifact: 3 classes, 48/18/24 examples of 48 px, slices `source=web|phone`."""
    return write_tiny_examples(tmp_path_factory.mktemp("examples"))
