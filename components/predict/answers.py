"""A release's models asked about many images: the cloud model, the mobile one, or the phone that asks the cloud when it is unsure."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from components.core.errors import DataError
from components.core.policy import LayeredPolicy
from components.core.release import Release
from components.core.stores import Store
from components.evaluation.image_model import ImageModel

Which = Literal["cloud", "mobile", "layered"]
Row = dict[str, Any]
"""image, label, score, model and release; or image and error."""


@dataclass
class Models:
    """The two models of a release, each loaded when it is asked first."""

    store: Store
    release: Release
    folder: Path
    """Where their files go."""

    @cached_property
    def cloud(self) -> ImageModel:
        """The SavedModel by its serving signature; `DataError` if a file is not what was released."""
        from components.evaluate_cloud.evaluate import open_released

        return open_released(self.store, self.release, self.folder / "cloud")

    @cached_property
    def mobile(self) -> ImageModel:
        """The .tflite by LiteRT; `DataError` if it is not what was released."""
        from components.evaluate_mobile.evaluate import open_released

        (folder := self.folder / "mobile").mkdir(exist_ok=True)
        return open_released(self.store, self.release, folder)

    @cached_property
    def policy(self) -> LayeredPolicy:
        """When the phone asks the cloud."""
        return LayeredPolicy.model_validate(self.release.policy)


@contextmanager
def open_models(store: Store, release: Release) -> Iterator[Models]:
    """The models; their files are gone when the context ends."""
    with tempfile.TemporaryDirectory(prefix="dual-predict-") as folder:
        yield Models(store, release, Path(folder))


def answer(models: Models, which: Which, names: Sequence[str], read: Sequence[bytes | str]) -> list[Row]:
    """A row for each image, in order; `read` holds its bytes, or why there are none."""
    batch = _Batch(models, which, dict(zip(names, read, strict=True)))
    return [{"image": name, **batch.row(name)} for name in names]


@dataclass
class _Batch:
    models: Models
    which: Which
    read: dict[str, bytes | str]
    _found: dict[str, tuple[str, float, str]] = field(default_factory=dict)
    """Image → label, score, model."""
    _errors: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._errors = {name: data for name, data in self.read.items() if isinstance(data, str)}
        first = "cloud" if self.which == "cloud" else "mobile"
        self._ask(first, [name for name in self.read if name not in self._errors])
        if self.which == "layered":
            unsure = [name for name, (_, score, _) in self._found.items() if self.models.policy.decide(score) == "cloud"]
            self._ask("cloud", unsure)

    def row(self, name: str) -> Row:
        """What is said of an image, without its name."""
        if name in self._errors:
            return {"error": self._errors[name]}
        label, score, model = self._found[name]
        return {"label": label, "score": round(score, 6), "model": model, "release": self.models.release.id}

    def _ask(self, which: Literal["cloud", "mobile"], names: list[str]) -> None:
        """Ask about all at once; where a model refuses the batch, one by one, so that one image spoils no other's answer."""
        model: ImageModel = getattr(self.models, which) if names else None  # pyright: ignore[reportAssignmentType]
        try:
            self._keep(which, model, names)
        except DataError as error:
            if len(names) == 1:
                self._found.pop(names[0], None)
                self._errors[names[0]] = error.what
                return
            for name in names:
                self._ask(which, [name])

    def _keep(self, which: str, model: ImageModel, names: list[str]) -> None:
        images = [data for name in names if isinstance(data := self.read[name], bytes)]
        rows = model.predict(images) if images else ()
        for name, probabilities in zip(names, rows, strict=True):
            best = int(probabilities.argmax())
            self._found[name] = (model.labels[best], float(probabilities[best]), which)
