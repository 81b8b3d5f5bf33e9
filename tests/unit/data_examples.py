"""Examples artifacts for the tests of validate_data, written without TensorFlow, in whatever shape a test needs."""

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from components.core.digest import sha256_bytes, sha256_json
from components.core.examples import MANIFEST, SPLITS, Examples, Split, SplitExamples
from components.ingest.tfrecord import encode_example, frame

LABELS = ["daisy", "roses", "tulips"]


@dataclass
class Item:
    """One example to be."""

    split: Split
    label: str
    image: bytes
    key: str
    slices: dict[str, str] = field(default_factory=dict)


def picture(seed: int, side: int = 32, light: float = 0.5, colour: int = 0) -> bytes:
    """A random JPEG: a soft disc on noise; `light` in 0–1 is the usual brightness, `colour` the disc's channel."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    pixels = rng.normal(255 * light + rng.normal(0, 12), rng.uniform(30, 50), (side, side, 3))
    centre = rng.uniform(side * 0.3, side * 0.7, 2)
    pixels[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (side * 0.25) ** 2, colour % 3] += 90
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def items(per_class: int = 20, held_out: int = 12, light: float = 0.5, start: int = 0) -> list[Item]:
    """Examples of three classes, in all splits, slices `source=web|phone`."""
    made: list[Item] = []
    for split in SPLITS:
        for label in range(len(LABELS)):
            for index in range(per_class if split == "train" else held_out):
                seed = start + len(made)
                slices = {"source": "web" if index % 2 else "phone"}
                made.append(Item(split, LABELS[label], picture(seed, light=light, colour=label), f"{LABELS[label]}/{seed}.jpg", slices))
    return made


def write_examples(root: Path, made: Iterable[Item], labels: list[str] | None = None) -> Path:
    """Write an examples artifact of these items; `labels` are all that occur unless given."""
    made = list(made)
    names = labels or sorted({item.label for item in made})
    splits: dict[Split, SplitExamples] = {}
    for split in SPLITS:
        chosen = [item for item in made if item.split == split]
        shard = f"{split}/shard-00000-of-00001.tfrecord"
        (root / split).mkdir(parents=True, exist_ok=True)
        (root / shard).write_bytes(b"".join(frame(_encoded(item, names)) for item in chosen))
        per_class = {name: sum(item.label == name for item in chosen) for name in names}
        splits[split] = SplitExamples(shards=[shard], count=len(chosen), per_class=per_class)
    digest = sha256_json([[item.split, item.key, item.label, sha256_bytes(item.image)] for item in made])
    manifest = Examples(labels=names, digest=digest, splits=splits, slice_columns=["source"], source="test")
    (root / MANIFEST).write_text(manifest.model_dump_json(by_alias=True))
    return root


def _encoded(item: Item, labels: list[str]) -> bytes:
    return encode_example(
        {
            "image/encoded": item.image,
            "image/format": b"jpeg",
            "image/label": labels.index(item.label),
            "image/class/text": item.label.encode(),
            "image/key": item.key.encode(),
            "image/sha256": sha256_bytes(item.image).encode(),
            "image/slices": json.dumps(item.slices).encode(),
        }
    )


def changed(made: Iterable[Item], change: Callable[[Image.Image], Image.Image]) -> list[Item]:
    """The same examples with every picture changed and saved again."""
    return [Item(item.split, item.label, altered(item.image, change), item.key, item.slices) for item in made]


def altered(image: bytes, change: Callable[[Image.Image], Image.Image]) -> bytes:
    """One encoded picture after `change`, as JPEG."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(image)) as opened:
        change(opened.convert("RGB")).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
