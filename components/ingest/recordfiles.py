"""TFRecord files of tf.train.Example as items."""

import gzip
import itertools
import json
import re
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast
from zlib import error as ZlibError

from components.core.errors import DataError
from components.core.examples import MANIFEST, Split
from components.ingest.folders import class_name
from components.ingest.items import SPLIT_NAMES, Item, Problem, Source, TooLargeError
from components.ingest.settings import IngestSettings
from components.ingest.tfrecord import Value, decode_example, read_records

_FILE = re.compile(r"\.tfrecords?(-\d+-of-\d+)?(\.gz)?$", re.IGNORECASE)
_IMAGE = ("image/encoded", "image")
_TEXT = ("image/class/text", "image/label/text", "label/text")
_NUMBER = ("image/label", "image/class/label", "label")
_KEY = ("image/key", "image/filename", "image/source_id", "filename", "id")
_RECORD_LIMIT = 1 << 30


def is_record_file(name: str) -> bool:
    """Whether a file's name says TFRecord."""
    return bool(_FILE.search(name))


def record_source(files: list[tuple[str, Path]], fingerprint: object, settings: IngestSettings) -> Source:
    """Items of TFRecord files, given as (relative name, path) in order. The split is taken from the names where they tell it.

    Labels are texts in the records, or numbers with names from `ingest.label_names`, or a `labels.txt` or `examples.json` beside.
    While the items are read: `DataError` for a damaged file or a number without a name; records without an image become problems.
    """
    names = settings.label_names or _names_beside(files[0][1].parent) or _names_beside(files[0][1].parent.parent)
    source = Source(items=(), kind="TFRecords", fingerprint=fingerprint, classes=list(names))
    source.items = itertools.chain.from_iterable(_items(name, path, names, settings, source) for name, path in files)
    return source


def _names_beside(folder: Path) -> list[str]:
    labels, manifest = folder / "labels.txt", folder / MANIFEST
    if manifest.is_file():
        return list(json.loads(manifest.read_text())["labels"])
    return [line.strip() for line in labels.read_text().splitlines() if line.strip()] if labels.is_file() else []


def _split_of(name: str) -> Split | None:
    words = re.split(r"[^a-z]+", name.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def _items(name: str, path: Path, names: list[str], settings: IngestSettings, source: Source) -> Iterator[Item]:
    split = _split_of(name)
    with closing(_open(path)) as file:
        for number, data in enumerate(_records(file, name)):
            place = f"{name}:{number}"
            try:
                features = decode_example(data)
            except ValueError:
                source.problems.append(Problem("not_an_image", place, "no tf.train.Example"))
                continue
            image, label = _first(features, _IMAGE), _label(features, names, place)
            if not isinstance(image, bytes) or label is None:
                source.problems.append(Problem("no_label", place, f"lacks {'a label' if label is None else 'an image'}"))
                continue
            slices = _slices(features, source)
            yield Item(_key(features, place), label, partial(_limited, image, int(settings.max_file_mb * 1e6)), split, slices)


def _open(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _records(file: BinaryIO, name: str) -> Iterator[bytes]:
    try:
        yield from read_records(file, name, _RECORD_LIMIT)
    except (EOFError, ZlibError, gzip.BadGzipFile) as error:
        raise DataError(f"is damaged ({error})", where=name, fix="Write the file again") from None


def _first(features: dict[str, Value], names: tuple[str, ...]) -> Value | None:
    return next((features[name] for name in names if name in features), None)


def _label(features: dict[str, Value], names: list[str], place: str) -> str | None:
    text = _first(features, _TEXT)
    found = text if isinstance(text, bytes) and text else _first(features, _NUMBER)
    if isinstance(found, bytes):
        return class_name(found.decode("utf-8", "backslashreplace")) or None
    if found is None:
        return None
    if not 0 <= found < len(names):
        what = f"label number {found} has no name" + (f" among {', '.join(names)}" if names else "")
        raise DataError(what, where=place, fix="Set ingest.label_names, or put a labels.txt beside the files")
    return class_name(names[found])


def _key(features: dict[str, Value], place: str) -> str:
    key = _first(features, _KEY)
    return key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) and key else place


def _slices(features: dict[str, Value], source: Source) -> str:
    """The record's slices as sorted JSON; new columns are added to the source."""
    raw = features.get("image/slices", b"{}")
    try:
        slices = json.loads(raw) if isinstance(raw, bytes) else {}
    except ValueError:
        slices = {}
    if not isinstance(slices, dict):
        return "{}"
    source.slice_columns += sorted(slices.keys() - set(source.slice_columns))
    return json.dumps(slices, sort_keys=True, ensure_ascii=False)


def _limited(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise TooLargeError(f"{len(data):,} bytes")
    return data
