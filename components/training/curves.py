"""How a training went, as a picture and as TensorBoard logs."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.training.training import Epoch, Phase

_PHASES: tuple[tuple[Phase, str], ...] = (("head", "head on features"), ("fine_tune", "fine-tuning"), ("scratch", "from scratch"))


def draw_curves(history: Sequence[Epoch], title: str) -> bytes:
    """Loss and accuracy against the epoch, one row per phase that ran, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    phases = [(phase, name) for phase, name in _PHASES if any(epoch.phase == phase for epoch in history)]
    figure = Figure(figsize=(9, 0.5 + 2.7 * max(1, len(phases))), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    grid = figure.subplots(max(1, len(phases)), 2, squeeze=False)
    for row, (phase, name) in zip(grid, phases, strict=False):
        epochs = [epoch for epoch in history if epoch.phase == phase]
        for axes, quantity in zip(row, ("loss", "accuracy"), strict=True):
            _draw(axes, epochs, quantity, name)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _draw(axes: Any, epochs: Sequence[Epoch], quantity: str, name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    numbers = [epoch.epoch + 1 for epoch in epochs]
    axes.plot(numbers, [getattr(epoch, quantity) for epoch in epochs], label="training", marker=".", color="#8a8f98")
    axes.plot(numbers, [getattr(epoch, f"val_{quantity}") for epoch in epochs], label="validation", marker=".", color="#1565c0")
    kept = min(epochs, key=lambda epoch: epoch.val_loss)
    axes.axvline(kept.epoch + 1, color="#2e7d32", linestyle=":", label=f"lowest loss (epoch {kept.epoch + 1})")
    axes.set(title=f"{name}: {quantity}", xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


class TensorBoardLog:
    """Writes epochs as TensorBoard scalars while they happen: `<folder>/<phase>/…`, tags loss, accuracy, val_loss, val_accuracy."""

    def __init__(self, folder: Path) -> None:
        """Log below `folder`, which is made when needed."""
        self._folder = folder
        self._writers: dict[Phase, Any] = {}

    def write(self, epoch: Epoch) -> None:
        """Log one epoch now."""
        import tensorflow as tf

        if epoch.phase not in self._writers:
            self._writers[epoch.phase] = tf.summary.create_file_writer(str(self._folder / epoch.phase))
        writer = self._writers[epoch.phase]
        with writer.as_default(step=epoch.epoch):
            for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
                tf.summary.scalar(name, getattr(epoch, name))
        writer.flush()
