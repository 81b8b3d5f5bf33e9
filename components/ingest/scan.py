"""The one pass over the images: read, judged, decoded and spooled in parallel, in the order of the source."""

import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from typing import BinaryIO

from components.core.examples import Split
from components.ingest.hashing import looks
from components.ingest.items import Item, Problem, Source, TooLargeError, UnreadableError
from components.ingest.picture import Picture, Rejected, plain_picture
from components.ingest.settings import IngestSettings

Say = Callable[[str], None]
_EVERY, _BATCH, _HANDED = 500, 256, 8
_CONNECTIONS = 32


@dataclass(slots=True)
class Entry:
    """What is remembered of one usable image; its bytes lie in the spool at `offset`. `split` None: to be decided."""

    key: str
    label: str
    split: Split | None
    slices: str
    original: bytes
    """SHA-256 of the file as it was found."""
    stored: bytes
    """SHA-256 of the bytes to store."""
    look: bytes
    """See `looks`; filled in once a batch is full."""
    offset: int
    length: int
    format: str
    height: int
    width: int


@dataclass
class Scan:
    """Every usable image and every problem of a source; `read` counts both."""

    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)
    read: int = 0
    scaled: int = 0
    thumbs: list[bytes] = field(default_factory=list)
    """Thumbnails of the last entries, whose looks are still to be computed."""

    def settle(self) -> None:
        """Compute the looks of the last entries, all at once: one by one, Python would take longer than the arithmetic."""
        if self.thumbs:
            for entry, look in zip(self.entries[-len(self.thumbs) :], looks(self.thumbs), strict=True):
                entry.look = look.tobytes()
            self.thumbs.clear()


class Spool:
    """Image bytes on disk between the scan and the shards: an unnamed file, so a killed process leaves nothing behind."""

    def __init__(self, file: BinaryIO | None) -> None:
        """Write to `file`, or nowhere if None (a check without output)."""
        self._file, self._end = file, 0

    def add(self, data: bytes) -> int:
        """Append; returns the offset."""
        start = self._end
        if self._file:
            self._file.write(data)
        self._end += len(data)
        return start

    def read(self, entry: Entry) -> bytes:
        """An entry's bytes; safe from several threads once the scan is over."""
        if self._file is None:
            raise ValueError("a check keeps no images")
        return os.pread(self._file.fileno(), entry.length, entry.offset)

    def flush(self) -> None:
        """Make everything readable."""
        if self._file:
            self._file.flush()


def scan_source(source: Source, settings: IngestSettings, spool: Spool, say: Say) -> Scan:
    """Read every item once. Bad items become problems with their policy's action; nothing raises because of an image."""
    result = Scan()
    keys: Counter[str] = Counter()
    for item, outcome in _parallel(source, settings):
        keys[item.key] += 1
        key = item.key if keys[item.key] == 1 else f"{item.key}#{keys[item.key]}"
        _take(result, item, key, outcome, spool, settings)
        if result.read % _EVERY == 0:
            say(f"read {result.read:,}{f' of {source.total:,}' if source.total else ''} images")
    result.settle()
    spool.flush()
    # Some sources notice problems only while they are read.
    result.problems += [_decided(problem, settings) for problem in source.problems]
    return result


Outcome = tuple[Picture, bytes] | Rejected


def _parallel(source: Source, settings: IngestSettings) -> Iterator[tuple[Item, Outcome]]:
    """Outcomes in the order of the items; a bounded number is under way, so that memory doesn't grow with the data."""
    workers = settings.workers or (_CONNECTIONS if source.remote else os.cpu_count() or 1)
    items, waiting = iter(source.items), deque[Future[list[tuple[Item, Outcome]]]]()
    with warnings.catch_warnings(), ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        # Pillow warns about what becomes a named problem here.
        warnings.filterwarnings("ignore", module="PIL")
        # One by one, handing over would cost as much as decoding a small picture.
        while batch := list(islice(items, _HANDED)):
            waiting.append(pool.submit(_open_batch, batch, settings))
            if len(waiting) > 2 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _open_batch(items: list[Item], settings: IngestSettings) -> list[tuple[Item, Outcome]]:
    return [(item, _open(item, settings)) for item in items]


def _open(item: Item, settings: IngestSettings) -> Outcome:
    try:
        data = item.load()
    except UnreadableError as error:
        return Rejected("unreadable_file", str(error))
    except TooLargeError as error:
        return Rejected("too_large", str(error))
    picture = plain_picture(data, settings)
    return picture if isinstance(picture, Rejected) else (picture, sha256(data).digest())


def _take(result: Scan, item: Item, key: str, outcome: Outcome, spool: Spool, settings: IngestSettings) -> None:
    result.read += 1
    result.labels[item.label] += 1
    if isinstance(outcome, Rejected):
        result.problems.append(_decided(Problem(outcome.kind, key, outcome.detail), settings))
        return
    picture, original = outcome
    result.thumbs.append(picture.thumb)
    result.problems += [Problem(kind, key, action="fixed") for kind in picture.fixes]
    result.scaled += picture.scaled
    stored = original if picture.untouched else sha256(picture.data).digest()
    offset = spool.add(picture.data)
    result.entries.append(
        Entry(
            key=key,
            label=item.label,
            split=item.split,
            slices=item.slices,
            original=original,
            stored=stored,
            look=b"",
            offset=offset,
            length=len(picture.data),
            format=picture.format,
            height=picture.height,
            width=picture.width,
        )
    )
    if len(result.thumbs) >= _BATCH:
        result.settle()


def _decided(problem: Problem, settings: IngestSettings) -> Problem:
    action = "refused" if getattr(settings.policies, problem.kind) == "refuse" else "skipped"
    return Problem(problem.kind, problem.key, problem.detail, action)
