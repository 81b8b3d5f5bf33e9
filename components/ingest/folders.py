"""Class folders (`<class>/…/image`) and split folders (`train/<class>/…/image`) as items."""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial

from components.core.errors import DataError
from components.core.examples import Split
from components.ingest.items import SPLIT_NAMES, Item, Problem, Source
from components.ingest.trees import Tree, spell

_IMAGES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".mpo", ".jfif")


def folder_source(tree: Tree, limit: int, root: str = "", span: str = "") -> Source:
    """Items of the class or split folders below `root` in `tree`; files above `limit` bytes are refused when read.

    Keys are names in the tree, without a folder that only wraps the others. Raises `DataError` if there is no class folder.
    """
    given, root = root, _unwrapped(tree, root)
    splits = _split_folders(tree, root)
    classes = _classes(tree, root, splits)
    if not classes:
        raise DataError(
            "there are no class folders", where=f"{tree.uri}/{root}".rstrip("/"), fix="Put the images into one folder per class"
        )
    survey = _survey(tree, root, splits)
    return Source(
        items=_items(tree, given, root, splits, limit, span),
        kind="split folders" if splits else "class folders",
        fingerprint=tree.fingerprint(),
        listing=tree.listing(),
        classes=sorted(set(classes.values())),
        total=survey.labelled,
        distinct=survey.distinct,
        remote=tree.remote,
        spans=[span] if span else [],
        problems=survey.strays + _unreadable(tree, root),
    )


@dataclass
class _Survey:
    """What the names of the files tell."""

    labelled: int = 0
    """How many lie in a class folder."""
    strays: list[Problem] = field(default_factory=list)
    """Images that lie outside any class folder; other files there (a manifest, a licence) are nobody's business."""
    distinct: bool = True
    """Names in a tree differ, and so do keys, unless a name had to be written in another way."""


def _survey(tree: Tree, root: str, splits: dict[str, Split]) -> _Survey:
    found, depth = _Survey(), _depth(root, splits)
    for name in _names(tree, root):
        if name.count("/") >= depth:
            found.labelled += 1
            found.distinct = found.distinct and spell(name) == name
        elif _is_image(name):
            found.strays.append(Problem("no_label", spell(name), "outside any class folder"))
    return found


def _names(tree: Tree, root: str) -> Iterable[str]:
    return (name for name in tree.names() if name.startswith(root)) if root else tree.names()


def _depth(root: str, splits: dict[str, Split]) -> int:
    """How many slashes the name of a file in a class folder has at least."""
    return root.count("/") + (2 if splits else 1)


def _unwrapped(tree: Tree, root: str) -> str:
    """Step into a folder that only wraps the class folders, as archives have it."""
    while True:
        below = _children(tree, root)
        if len(below) != 1 or not _children(tree, inner := f"{root}{below[0]}/"):
            return root
        if any(name.startswith(inner) and "/" not in name.removeprefix(inner) and _is_image(name) for name in tree.names()):
            return root
        root = inner


def _children(tree: Tree, root: str) -> list[str]:
    """Names of the folders directly below `root`."""
    nested = (name.removeprefix(root) for name in tree.folders() if name.startswith(root))
    return sorted({name.split("/")[0] for name in nested if name})


def _split_folders(tree: Tree, root: str) -> dict[str, Split]:
    """Folder name → split, if every folder below `root` is named like a split, one is for training, and they hold folders."""
    below = _children(tree, root)
    splits: dict[str, Split] = {name: SPLIT_NAMES[name.lower()] for name in below if name.lower() in SPLIT_NAMES}
    is_split = len(splits) == len(below) and "train" in splits.values() and _children(tree, f"{root}{below[0]}/")
    return splits if is_split else {}


def _classes(tree: Tree, root: str, splits: dict[str, Split]) -> dict[str, str]:
    """Class folder → class name, also of empty folders."""
    folders = [f"{root}{split}/" for split in splits] or [root]
    return {name: class_name(name) for folder in folders for name in _children(tree, folder)}


def _items(tree: Tree, given: str, root: str, splits: dict[str, Split], limit: int, span: str) -> Iterator[Item]:
    label_of, depth = cache(class_name), _depth(root, splits)
    for name in _names(tree, root):
        if name.count("/") >= depth:
            below = name.removeprefix(root)
            parts = below.split("/", 2)
            split = splits[parts[0]] if splits else None
            yield Item(spell(given + below), label_of(parts[1 if splits else 0]), partial(tree.read, name, limit), split, span=span)


def _unreadable(tree: Tree, root: str) -> list[Problem]:
    return [Problem("unreadable_folder", spell(name)) for name in tree.unreadable() if name.startswith(root)]


def _is_image(name: str) -> bool:
    return name.lower().endswith(_IMAGES)


def class_name(text: str) -> str:
    """A label as it is kept: NFC, so that folders from macOS and Linux name the same class."""
    return unicodedata.normalize("NFC", spell(text)).strip()
