"""What a person sees while a pipeline runs: one line per step on a terminal, plain lines elsewhere."""

import time
from typing import Any, Self

from rich.console import Console


class Progress:
    """Shows lines of steps between enter and exit; this one shows nothing."""

    def line(self, step: str, text: str) -> None:
        """A step said something."""

    def note(self, text: str) -> None:
        """Something that no step said."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def make_progress(steps: tuple[str, ...], console: Console, *, quiet: bool = False) -> Progress:
    """The bar for a terminal, plain lines for a pipe or a log, nothing if `quiet`."""
    if quiet:
        return Progress()
    return Live(steps, console) if console.is_terminal else Plain(steps, console)


class Plain(Progress):
    """A time-stamped line for everything that a step says."""

    def __init__(self, steps: tuple[str, ...], console: Console) -> None:
        """Lines of other programs than `steps` are not shown."""
        self._steps, self._console, self._began = steps, console, time.monotonic()

    def line(self, step: str, text: str) -> None:
        """Print `[seconds] step: text`."""
        if step in self._steps:
            stamp = f"[{time.monotonic() - self._began:6.1f} s]"
            self._console.print(f"{stamp} {step}: {text}", markup=False, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Print `[seconds] text`."""
        stamp = f"[{time.monotonic() - self._began:6.1f} s]"
        self._console.print(f"{stamp} {text}", markup=False, highlight=False, soft_wrap=True)


class Live(Progress):
    """A list of the steps with their state, time and last words, redrawn in place."""

    def __init__(self, steps: tuple[str, ...], console: Console) -> None:
        """Prepare one row per step; a row appears when its step starts."""
        from rich.progress import Progress as Bars
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        self._steps = steps
        columns = (
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description:<17}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[said]}"),
        )
        self._bars = Bars(*columns, console=console)
        self._rows: dict[str, Any] = {}

    def line(self, step: str, text: str) -> None:
        """Start, update or finish the step's row."""
        if step not in self._steps:
            return
        if step not in self._rows:
            self._rows[step] = self._bars.add_task(step, total=1, said="")
        finished = text.startswith(("finished", "failed"))
        self._bars.update(self._rows[step], said=text[:110].replace("[", r"\["), completed=1 if finished else 0)
        if text.startswith("warning:"):
            self._bars.console.print(f"{step}: {text}", markup=False, highlight=False)

    def note(self, text: str) -> None:
        """Print the text above the list."""
        self._bars.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
