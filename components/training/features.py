"""The frozen backbone's features: computed once per image and augmented view, kept in the store for the next training."""

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from components.training.backbones import frozen_inference
from components.training.head import Features
from components.training.inputs import Inputs
from components.training.settings import TrainSettings
from components.training.workspace import Workspace


def extract(
    backbone: keras.Model,
    train: Inputs,
    validation: Inputs,
    settings: TrainSettings,
    seed: int,
    workspace: Workspace,
    say: Callable[[str], None],
) -> tuple[Features, Features]:
    """Features of both splits, from the workspace if they were kept there; each part is kept as soon as it is there."""
    forward = _forward(backbone)

    def part(name: str, batches: Callable[[], Any]) -> Any:
        return _part(name, lambda: forward(batches()), workspace, say)

    batch = settings.feature_batch
    views = [part("view-0", lambda: train.plain(batch))]
    for view in range(settings.augment.views):
        views.append(part(f"view-{view + 1}", lambda view=view: train.view(batch, view, settings.augment, seed)))
    held = part("validation", lambda: validation.plain(batch))
    return Features(np.stack(views), train.labels), Features(held[None], validation.labels)


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


def _forward(backbone: keras.Model) -> Callable[[Any], Any]:
    """(pixels, …) batches → features float32 [N, D]; on all devices if the backbone lives on several."""
    if backbone.distribute_strategy.num_replicas_in_sync > 1:
        run: Any = backbone.predict
        return lambda batches: run(batches.map(lambda pixels, _: pixels), verbose=0).astype(np.float32)
    step = frozen_inference(backbone)
    return lambda batches: np.concatenate([np.asarray(step(pixels), np.float32) for pixels, _ in batches])
