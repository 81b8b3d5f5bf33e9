"""Which reader an address needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.core.stores import open_store
from components.ingest.folders import folder_source
from components.ingest.items import Source
from components.ingest.scan import Say
from components.ingest.settings import IngestSettings
from components.ingest.trees import LocalTree, StoreTree


@contextmanager
def open_source(data: str, settings: IngestSettings, say: Say) -> Iterator[Source]:
    """Open a folder, CSV, archive or TFRecords, local or http(s)://, gs://, s3://; or `flowers`, or `drawn`.

    What had to be downloaded is gone when the context ends. Raises `DataError` or `UsageError` that name the address.
    """
    limit = int(settings.max_file_mb * 1e6)
    if data == "drawn":
        yield _drawn(settings, limit)
    elif data == "flowers":
        yield _flowers(settings, limit, say)
    elif data.startswith(("gs://", "s3://")):
        yield folder_source(StoreTree(open_store(data)), limit)
    else:
        yield folder_source(LocalTree(Path(data.removeprefix("file://")).expanduser()), limit)


def _drawn(settings: IngestSettings, limit: int) -> Source:
    from components.ingest.drawn import cached_dataset

    folder = cached_dataset(settings.drawn, Path(settings.cache) if settings.cache else None)
    source = folder_source(LocalTree(folder), limit)
    source.drawn = True
    source.notes.append("the images are drawn by the embedded generator, not photographed")
    return source


def _flowers(settings: IngestSettings, limit: int, say: Say) -> Source:
    from platformdirs import user_cache_path

    from components.ingest.download import fetch_flowers

    cache = Path(settings.cache) if settings.cache else user_cache_path("dual-deploy")
    return folder_source(LocalTree(fetch_flowers(cache, say)), limit)
