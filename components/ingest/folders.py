"""Class folders (`<class>/…/image`) and split folders (`train/<class>/…/image`) as items."""

import unicodedata
from collections.abc import Iterator
from functools import partial

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
    files = [name for name in tree.names() if name.startswith(root)]
    splits = _split_folders(tree, root)
    depth = 2 if splits else 1
    labelled = [name for name in files if name.count("/") - root.count("/") >= depth]
    classes = _classes(tree, root, splits)
    if not classes:
        raise DataError(
            "there are no class folders", where=f"{tree.uri}/{root}".rstrip("/"), fix="Put the images into one folder per class"
        )
    return Source(
        items=_items(tree, labelled, given, root, splits, limit, span),
        kind="split folders" if splits else "class folders",
        fingerprint=tree.fingerprint(),
        classes=sorted(set(classes.values())),
        total=len(labelled),
        remote=tree.remote,
        spans=[span] if span else [],
        problems=_strays(files, labelled) + _unreadable(tree, root),
    )


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


def _items(tree: Tree, names: list[str], given: str, root: str, splits: dict[str, Split], limit: int, span: str) -> Iterator[Item]:
    for name in names:
        parts = name.removeprefix(root).split("/")
        label = class_name(parts[1 if splits else 0])
        split = splits[parts[0]] if splits else None
        yield Item(spell(given + name.removeprefix(root)), label, partial(tree.read, name, limit), split, span=span)


def _unreadable(tree: Tree, root: str) -> list[Problem]:
    return [Problem("unreadable_folder", spell(name)) for name in tree.unreadable() if name.startswith(root)]


def _strays(files: list[str], labelled: list[str]) -> list[Problem]:
    """Images that lie outside any class folder; other files there (a manifest, a licence) are nobody's business."""
    inside = set(labelled)
    return [Problem("no_label", spell(name), "outside any class folder") for name in files if name not in inside and _is_image(name)]


def _is_image(name: str) -> bool:
    return name.lower().endswith(_IMAGES)


def class_name(text: str) -> str:
    """A label as it is kept: NFC, so that folders from macOS and Linux name the same class."""
    return unicodedata.normalize("NFC", spell(text)).strip()
