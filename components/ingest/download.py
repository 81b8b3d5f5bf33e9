"""The published Flowers photographs, from their server into the user's cache.

Licences: the photographs are CC BY 2.0; the archive's LICENSE.txt names every photographer and is kept beside the classes.
"""

import gzip
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath

from platformdirs import user_cache_path

from components.core.download import download
from components.core.errors import DataError, DualError
from components.core.meter import Say

__all__ = ["FLOWERS_URL", "fetch_flowers", "flowers_cached", "unpack_tar"]

FLOWERS_URL = "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz"
FLOWERS_SHA256 = "4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c"
"""As recorded by TensorFlow Datasets for http://download.tensorflow.org/example_images/flower_photos.tgz, 228,813,984 bytes
(tensorflow/datasets, tensorflow_datasets/url_checksums/tf_flowers.txt)."""


def fetch_flowers(cache: Path | None = None, say: Say | None = None, *, url: str = FLOWERS_URL, sha256: str = FLOWERS_SHA256) -> Path:
    """The folder whose subfolders are the classes; downloaded, checked and unpacked into `cache` on first use.

    `cache` defaults to the user's cache folder; `say` takes lines of progress. LICENSE.txt lies beside the returned folder.
    Raises what `download` raises, and `DataError` for an archive of another shape.
    """
    home = _home(cache, sha256)
    if not home.is_dir():
        archive = download(url, home.with_name(f"{home.name}.tgz"), sha256, say=say)
        _install(archive, home)
        archive.unlink(missing_ok=True)
    return home / "photos"


def flowers_cached(cache: Path | None = None) -> bool:
    """Whether `fetch_flowers(cache)` would need no network."""
    home = _home(cache, FLOWERS_SHA256)
    return home.is_dir() or home.with_name(f"{home.name}.tgz").is_file()


def unpack_tar(archive: Path, folder: Path) -> None:
    """Unpack the plain files and folders of a tar archive (any compression) into `folder`.

    Raises `DataError` if the archive is damaged, or holds links, devices or names that point out of it; `DualError` if the disk is
    full or closed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            for entry in tar:
                _unpack_entry(tar, entry, folder)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"can't be unpacked ({error})", where=str(archive), fix="Delete it and run again") from error
    except OSError as error:
        raise DualError(f"can't be written ({error.strerror or error})", where=str(folder), fix="Make room") from error


def _unpack_entry(tar: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path) -> None:
    """Not `extractall(filter="data")`: Python 3.11 has filters only from 3.11.4 on, and Debian 12 ships 3.11.2."""
    name = PurePosixPath(entry.name)
    if name.is_absolute() or ".." in name.parts or not (entry.isfile() or entry.isdir()):
        raise tarfile.TarError(f"'{entry.name}' is no plain file or folder inside it")
    target = folder / name
    (target if entry.isdir() else target.parent).mkdir(parents=True, exist_ok=True)
    if (content := tar.extractfile(entry)) is not None:
        with content, target.open("wb") as file:
            shutil.copyfileobj(content, file)


def _home(cache: Path | None, sha256: str) -> Path:
    return (cache if cache is not None else user_cache_path("dual-deploy")) / "flowers" / f"flower_photos-{sha256[:12]}"


def _install(archive: Path, home: Path) -> None:
    """Unpack beside `home`, put the classes into `photos/` and the rest beside them, then rename: whole or not at all."""
    staging = Path(tempfile.mkdtemp(prefix=f".{home.name}.", dir=home.parent))
    try:
        unpack_tar(archive, staging / "unpacked")
        _arrange(staging / "unpacked", staging / "home", archive)
        (staging / "home").rename(home)
    except OSError:
        if not home.is_dir():  # otherwise another process was first
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _arrange(unpacked: Path, home: Path, archive: Path) -> None:
    tops = list(unpacked.iterdir())
    root = tops[0] if len(tops) == 1 and tops[0].is_dir() else unpacked
    classes = [entry for entry in root.iterdir() if entry.is_dir()]
    if not classes:
        raise DataError("holds no class folders", where=str(archive), fix="Delete it and run again")
    (home / "photos").mkdir(parents=True)
    for entry in list(root.iterdir()):
        entry.rename((home / "photos" if entry in classes else home) / entry.name)
