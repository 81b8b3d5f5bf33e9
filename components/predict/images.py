"""The images of a batch prediction: every JPEG and PNG below a folder or a bucket's prefix, unlabelled, in the order of their names."""

from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO

from components.core.errors import DataError
from components.core.shards import WHOLE, Shard
from components.ingest.items import TooLargeError, UnreadableError
from components.ingest.source import open_tree
from components.ingest.trees import Tree

_SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_BYTES = 32 << 20
"""More is not decoded: the same limit as of `dual predict`."""


@dataclass(frozen=True)
class Images:
    """What was listed. Nothing is read yet."""

    tree: Tree
    names: list[str]
    ignored: int
    """Other files."""

    def listing(self) -> str:
        """Digest of the names in their order."""
        return sha256(b"\0".join(name.encode("utf-8", "surrogateescape") for name in self.names)).hexdigest()

    def batches(self, size: int, shard: Shard = WHOLE) -> list[list[str]]:
        """The shard's names, `size` at a time: shards end where batches end."""
        first, end = shard.of(-(-len(self.names) // size))
        return [self.names[i * size : (i + 1) * size] for i in range(first, end)]


def list_images(data: str) -> Images:
    """List a folder, gs:// or s3:// prefix; `DataError` if there is no image, `UsageError` for another kind of address."""
    tree = open_tree(data)
    names = sorted(tree.names())
    images = [name for name in names if name.lower().endswith(_SUFFIXES)]
    if not images:
        raise DataError(f"holds no image among {len(names)} files", where=data, fix=f"Give a folder of {', '.join(_SUFFIXES)} files")
    return Images(tree, images, len(names) - len(images))


def read_checked(tree: Tree, name: str) -> bytes | str:
    """An image's bytes, or why they can't be used; size and format are looked at before anything decodes them."""
    from PIL import Image, UnidentifiedImageError

    try:
        data = tree.read(name, MAX_BYTES)
        with Image.open(BytesIO(data), formats=("JPEG", "PNG")) as image:
            image.verify()
    except TooLargeError as error:
        return f"is larger than {MAX_BYTES >> 20} MiB ({error})"
    except UnreadableError as error:
        return f"can't be read ({error})"
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError):
        return "is not a readable JPEG or PNG image"
    return data
