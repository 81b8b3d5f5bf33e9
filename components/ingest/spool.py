"""Image bytes on disk between the scan and the shards."""

import os
import threading
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

# POSIX lets a system refuse longer lists: https://man7.org/linux/man-pages/man2/readv.2.html
_IOV_MAX = 1024
_PIECE = 1 << 22


class Spool:
    """An unnamed file, so that a killed process leaves nothing behind. Written and read by several threads at once."""

    def __init__(self, file: BinaryIO | None) -> None:
        """Write to `file`, or nowhere if None (a check without output)."""
        self._file, self._end, self._lock = file, 0, threading.Lock()

    def add(self, images: Sequence[bytes]) -> list[int]:
        """Append images; returns the offset of each."""
        size = sum(map(len, images))
        with self._lock:
            start, self._end = self._end, self._end + size
        if self._file:
            for first in range(0, len(images), _IOV_MAX):
                _write(self._file.fileno(), images[first : first + _IOV_MAX], start + sum(map(len, images[:first])))
        return list(accumulate(map(len, images[:-1]), initial=start)) if images else []

    def add_file(self, path: Path) -> int:
        """Append what a file holds; returns the offset of its first byte."""
        start = self._end
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                self.add([piece])
        return start

    def read(self, offset: int, length: int) -> bytes:
        """The bytes of one image."""
        if self._file is None:
            raise ValueError("a check keeps no images")
        return os.pread(self._file.fileno(), length, offset)


def _write(handle: int, images: Sequence[bytes], offset: int) -> None:
    written = os.pwritev(handle, images, offset)
    # A full disk or a signal can stop a write half-way; the next one goes on or says why it can't.
    rest = memoryview(b"".join(images))[written:] if written < sum(map(len, images)) else memoryview(b"")
    while rest:
        done = os.pwrite(handle, rest, offset + written)
        rest, written = rest[done:], written + done
