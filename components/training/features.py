"""The frozen backbone's features: computed once per image and augmented view, kept in the store for the next training."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from components.training.feature_engines import Forward
from components.training.head import Features
from components.training.inputs import Inputs
from components.training.settings import TrainSettings
from components.training.workspace import Workspace

_VALIDATION = "validation"


def extract(
    forward: Callable[[], Forward],
    train: Inputs,
    validation: Inputs,
    settings: TrainSettings,
    seed: int,
    workspace: Workspace,
    say: Callable[[str], None],
) -> tuple[Features, Features]:
    """Features of both splits, from the workspace if they were kept there; each part is kept as soon as it is there.

    `forward` is asked for as often as a part is missing.
    """

    def part(name: str, batches: Callable[[], Any]) -> Any:
        return _part(name, lambda: forward()(batches()), workspace, say)

    batch = settings.feature_batch
    views = [part(_view(0), lambda: train.plain(batch))]
    for view in range(settings.augment.views):
        views.append(part(_view(view + 1), lambda view=view: train.view(batch, view, settings.augment, seed)))
    held = part(_VALIDATION, lambda: validation.plain(batch))
    return Features(np.stack(views), train.labels), Features(held[None], validation.labels)


def all_kept(workspace: Workspace, settings: TrainSettings) -> bool:
    """Whether `extract` would find every part in the workspace."""
    return all(workspace.has(name) for name in (*map(_view, range(settings.augment.views + 1)), _VALIDATION))


def _view(number: int) -> str:
    """The name of the unchanged images' part, which is 0, or of an augmented view's."""
    return f"view-{number}"


def _part(name: str, compute: Callable[[], Any], workspace: Workspace, say: Callable[[str], None]) -> Any:
    piece = workspace.load(name)
    if piece is not None:
        say(f"features {name}: {len(piece.arrays[0])} images, kept from an earlier training")
        return piece.arrays[0]
    began = time.monotonic()
    values = compute()
    workspace.save(name, [values], {})
    seconds = time.monotonic() - began
    say(f"features {name}: {len(values)} images × {values.shape[1]} in {seconds:.1f} s ({len(values) / seconds:.0f} images/s)")
    return values
