"""The one pass over the images: read, judged, decoded and spooled in parallel, remembered in the order of the source."""

import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import islice

from components.core.shards import WHOLE, Shard
from components.ingest.entries import Entries, Entry
from components.ingest.hashing import looks
from components.ingest.items import Item, Problem, Source, TooLargeError, UnreadableError
from components.ingest.picture import Picture, Rejected, plain_picture
from components.ingest.settings import IngestSettings
from components.ingest.spool import Spool

Say = Callable[[str], None]
_EVERY = 500
_CONNECTIONS = 32
_FIRST, _MOST, _BATCH_BYTES = 4, 32, 1 << 19


@dataclass
class Scan:
    """Every usable image and every problem of a source; `read` counts both."""

    entries: Entries = field(default_factory=Entries)
    problems: list[Problem] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)
    read: int = 0
    scaled: int = 0


@dataclass(slots=True)
class _Batch:
    """What became of some items: entries and problems, each in the order of the items; no image bytes."""

    labels: list[str]
    """One for each item."""
    entries: list[Entry]
    problems: list[Problem]
    scaled: int
    size: int
    """Bytes that were read."""


class _Pace:
    """How many items to hand over at a time.

    One by one, handing over would cost as much as decoding a small picture; too many would leave cores idle at the end.
    """

    def __init__(self, remote: bool) -> None:
        self.items = 1 if remote else _FIRST
        self._remote, self._read, self._bytes = remote, 0, 0

    def learn(self, batch: _Batch) -> None:
        self._read += len(batch.labels)
        self._bytes += batch.size
        if not self._remote:
            self.items = max(1, min(_MOST, _BATCH_BYTES * self._read // max(1, self._bytes)))


def scan_source(source: Source, settings: IngestSettings, spool: Spool, say: Say, shard: Shard = WHOLE) -> Scan:
    """Read every item of the shard once. Bad items become problems with their policy's action; nothing raises because of an image.

    The scans of all shards, one after another, are the scan of the whole. A source of unknown length has one shard only.
    """
    result = Scan()
    first, end = shard.of(source.total)
    total = end - first
    # The last one takes also what came after counting, and notices what a source notices at its end.
    last = shard.number == shard.count
    for batch in _parallel(islice(_keyed(source), first, None if last else end), source, settings, spool):
        before, result.read = result.read, result.read + len(batch.labels)
        result.labels.update(batch.labels)
        result.problems += batch.problems
        result.scaled += batch.scaled
        for entry in batch.entries:
            result.entries.add(entry)
        for read in range(before // _EVERY + 1, result.read // _EVERY + 1):
            say(f"read {read * _EVERY:,}{f' of {total:,}' if total else ''} images")
    # Some sources notice problems only while they are read.
    result.problems += [_decided(problem, settings) for problem in (source.problems if last else ())]
    return result


def _parallel(items: Iterator[Item], source: Source, settings: IngestSettings, spool: Spool) -> Iterator[_Batch]:
    """Batches in the order of the items; a bounded number is under way, so that memory doesn't grow with the data."""
    workers = settings.workers or (_CONNECTIONS if source.remote else os.cpu_count() or 1)
    waiting, pace = deque[Future[_Batch]](), _Pace(source.remote)
    with warnings.catch_warnings(), ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        # Pillow warns about what becomes a named problem here.
        warnings.filterwarnings("ignore", module="PIL")
        while chosen := list(islice(items, pace.items)):
            waiting.append(pool.submit(_open_batch, chosen, settings, spool))
            if len(waiting) > 2 * workers:
                batch = waiting.popleft().result()
                pace.learn(batch)
                yield batch
        while waiting:
            yield waiting.popleft().result()


def _keyed(source: Source) -> Iterator[Item]:
    """The items, with a number at the end of a key that was there before."""
    if source.distinct:
        yield from source.items
        return
    keys: Counter[str] = Counter()
    for item in source.items:
        keys[item.key] += 1
        yield item if keys[item.key] == 1 else replace(item, key=f"{item.key}#{keys[item.key]}")


def _open_batch(items: list[Item], settings: IngestSettings, spool: Spool) -> _Batch:
    batch = _Batch([item.label for item in items], [], [], scaled=0, size=0)
    pictures: list[Picture] = []
    for item in items:
        outcome = _open(item, settings, batch)
        if isinstance(outcome, Rejected):
            batch.problems.append(_decided(Problem(outcome.kind, item.key, outcome.detail), settings))
        else:
            pictures.append(outcome)
    if pictures:
        offsets = spool.add([picture.data for picture in pictures])
        # All at once: one by one, Python would take longer than the arithmetic.
        found = looks([picture.thumb for picture in pictures])
        for entry, offset, look in zip(batch.entries, offsets, found, strict=True):
            entry.offset, entry.look = offset, look.tobytes()
    return batch


def _open(item: Item, settings: IngestSettings, batch: _Batch) -> Picture | Rejected:
    """A picture, whose entry is added to the batch, still without offset and look."""
    try:
        data = item.load()
    except UnreadableError as error:
        return Rejected("unreadable_file", str(error))
    except TooLargeError as error:
        return Rejected("too_large", str(error))
    batch.size += len(data)
    picture = plain_picture(data, settings)
    if isinstance(picture, Rejected):
        return picture
    batch.problems += [Problem(kind, item.key, action="fixed") for kind in picture.fixes]
    batch.scaled += picture.scaled
    batch.entries.append(_entry(item, picture, sha256(data).digest()))
    return picture


def _entry(item: Item, picture: Picture, original: bytes) -> Entry:
    return Entry(
        key=item.key,
        label=item.label,
        split=item.split,
        slices=item.slices,
        original=original,
        stored=original if picture.untouched else sha256(picture.data).digest(),
        look=b"",
        offset=0,
        length=len(picture.data),
        format=picture.format,
        height=picture.height,
        width=picture.width,
    )


def _decided(problem: Problem, settings: IngestSettings) -> Problem:
    action = "refused" if getattr(settings.policies, problem.kind) == "refuse" else "skipped"
    return Problem(problem.kind, problem.key, problem.detail, action)
