"""Labelled images for the smoke accuracy: a folder of class folders, or a release's golden images with their true labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path

from components.core.errors import UsageError
from serving.rollout.traffic import Query

_SUFFIXES = {".jpg", ".jpeg", ".png"}
"""What the cloud model decodes."""


@dataclass(frozen=True)
class LabelledImage:
    """An encoded image and its true class."""

    name: str
    image: bytes
    label: str


def folder_images(folder: Path, most: int) -> list[LabelledImage]:
    """At most `most` images of a folder that holds a folder per class: the same ones every time, evenly from the classes.

    `UsageError` if there is none.
    """
    classes = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    files = [sorted(f for f in each.iterdir() if f.suffix.lower() in _SUFFIXES) for each in classes]
    turns = (file for file in chain.from_iterable(zip_longest(*files)) if file is not None)
    chosen = [LabelledImage(f"{f.parent.name}/{f.name}", f.read_bytes(), f.parent.name) for f in islice(turns, most)]
    if not chosen:
        what = "holds no class folder with a JPEG or PNG image"
        raise UsageError(what, where=str(folder), fix="Correct analysis.smoke_accuracy.folder, or mount the folder")
    return chosen


def golden_images(queries: Sequence[Query]) -> list[LabelledImage]:
    """The golden images whose true class is known."""
    return [LabelledImage(query.name, query.image, query.truth) for query in queries if query.truth]
