"""Which reader an address needs."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from components.core.digest import sha256_file
from components.core.errors import DataError, UsageError
from components.core.stores import open_store
from components.ingest.archives import SUFFIXES as ARCHIVES
from components.ingest.archives import unpack
from components.ingest.fetch import BUCKET, WEB, Web, fetch_file, file_name
from components.ingest.folders import folder_source
from components.ingest.items import Source
from components.ingest.recordfiles import is_record_file, record_source
from components.ingest.scan import Say
from components.ingest.settings import IngestSettings
from components.ingest.spans import has_span, span_base, span_source
from components.ingest.tables import table_source
from components.ingest.trees import LocalTree, StoreTree, Tree

_TABLES = (".csv", ".tsv")


@contextmanager
def open_source(data: str, settings: IngestSettings, say: Say) -> Iterator[Source]:
    """Open a folder, CSV, archive or TFRecords, local or http(s)://, gs://, s3://; or `flowers`, or `drawn`.

    What had to be downloaded or unpacked is gone when the context ends. Raises `DataError` or `UsageError` that name the address.
    """
    if not data:
        raise UsageError("no data given", where="data", fix="Give a folder, a CSV, an archive, TFRecords, 'flowers' or 'drawn'")
    with ExitStack() as stack:
        yield _open(data, settings, say, stack)


def _open(data: str, settings: IngestSettings, say: Say, stack: ExitStack) -> Source:
    limit, name = int(settings.max_file_mb * 1e6), file_name(data).lower()
    if data == "drawn":
        return _drawn(settings, limit)
    if data == "flowers":
        return _flowers(settings, limit, say)
    if has_span(data):
        base, pattern = span_base(data)
        return span_source(open_tree(base), pattern, settings.spans, limit)
    if name.endswith((*_TABLES, *ARCHIVES)) or is_record_file(name) or data.startswith(WEB):
        return _open_file(data, name, settings, say, stack)
    return _open_folder_or_records(open_tree(data), settings, stack)


def _drawn(settings: IngestSettings, limit: int) -> Source:
    from components.ingest.drawn import cached_dataset

    folder = cached_dataset(settings.drawn, Path(settings.cache) if settings.cache else None)
    source = folder_source(LocalTree(folder), limit)
    # Not the times of its files: every pod may have drawn its own.
    source.fingerprint, source.drawn = folder.name, True
    return source


def _flowers(settings: IngestSettings, limit: int, say: Say) -> Source:
    from platformdirs import user_cache_path

    from components.ingest.download import FLOWERS_SHA256, fetch_flowers

    cache = Path(settings.cache) if settings.cache else user_cache_path("dual-deploy")
    source = folder_source(LocalTree(fetch_flowers(cache, say)), limit)
    source.fingerprint = FLOWERS_SHA256
    return source


def open_tree(address: str) -> Tree:
    """A folder or a bucket's prefix, listed; `UsageError` for another kind of address, `DataError` if there is nothing."""
    if address.startswith(BUCKET):
        return StoreTree(open_store(address))
    if "://" in address and not address.startswith("file://"):
        fix = "Give a local path, http(s)://, gs:// or s3://"
        raise UsageError(f"'{address.partition('://')[0]}://' is not supported", where=f"data {address}", fix=fix)
    return LocalTree(Path(address.removeprefix("file://")).expanduser())


def _open_file(data: str, name: str, settings: IngestSettings, say: Say, stack: ExitStack) -> Source:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dual-ingest-")))
    if name.endswith(ARCHIVES):
        return _open_archive(data, folder, settings, say)
    if name.endswith(_TABLES):
        table = fetch_file(data, folder, settings, say)
        return table_source(table, data, settings, stack.enter_context(Web()))
    if is_record_file(name):
        path = fetch_file(data, folder, settings, say)
        return record_source([(path.name, path)], sha256_file(path), settings)
    fix = f"Give the address of a {', '.join((*_TABLES, *ARCHIVES))} or .tfrecord file"
    raise DataError("can't tell what is there", where=data, fix=fix)


def _open_archive(data: str, folder: Path, settings: IngestSettings, say: Say) -> Source:
    archive = fetch_file(data, folder, settings, say)
    say(f"unpacking {archive.name}")
    unpack(archive, folder / "unpacked", int(settings.max_download_gb * 1e9))
    tree = LocalTree(folder / "unpacked")
    source = folder_source(tree, int(settings.max_file_mb * 1e6))
    source.fingerprint = sha256_file(archive)
    return source


def _open_folder_or_records(tree: Tree, settings: IngestSettings, stack: ExitStack) -> Source:
    """Class or split folders; TFRecords if there are any and nothing else could be meant."""
    names = [name for name in tree.names() if is_record_file(name)]
    if not names:
        return folder_source(tree, int(settings.max_file_mb * 1e6))
    if isinstance(tree, StoreTree):
        return record_source(list(_fetched(tree, names, stack)), None, settings)
    return record_source([(name, Path(tree.uri) / name) for name in names], tree.fingerprint(), settings)


def _fetched(tree: StoreTree, names: list[str], stack: ExitStack) -> Iterator[tuple[str, Path]]:
    """Copies of bucket files in a temporary folder, with the labels that lie beside them."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dual-ingest-")))
    beside = [name for name in tree.names() if name.rpartition("/")[2] in ("labels.txt", "examples.json")]
    for name in beside + names:
        path = folder / name
        tree.store.get_file(name, path)
        if name in names:
            yield name, path
