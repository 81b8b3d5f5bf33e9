"""How far a long transfer is: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Say = Callable[[str], None]
_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def meter(name: str, total: int | None, say: Say | None = None) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told the bytes done so far; `total` is None where nobody knows it.

    Lines go to `say`, or to standard error; without `say` a terminal gets a bar instead.
    """
    if say is None and sys.stderr.isatty():
        with _bar(name, total) as update:
            yield update
    else:
        yield _lines(name, total, say or tell)


def tell(text: str) -> None:
    """Print one line to standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextmanager
def _bar(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=total)
        yield lambda done: progress.update(task, completed=done)


def _lines(name: str, total: int | None, say: Say) -> Callable[[int], None]:
    last = time.monotonic()

    def update(done: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= _SECONDS_BETWEEN_LINES or done == total:
            last = now
            say(f"{name}: {done / 1e6:.1f} MB" + (f" of {total / 1e6:.1f} MB ({done / total:.0%})" if total else ""))

    return update
