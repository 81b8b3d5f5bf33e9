"""The self-test of a published model: a few golden pictures with the answers that a device must get, in one small file.

    {"schema": "dual.selftest/v1", "labels": […], "tolerance": steps of 1/256,
     "images": [{"pixels": base64 of a PNG of the model's input, "probabilities": the model's uint8 outputs, "label": its answer}]}

Made from the release's golden/: phones need neither the cloud model's answers nor all of the images.
"""

from base64 import b64encode
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.digest import canonical_json, sha256_bytes
from components.core.errors import DataError
from components.core.release import Release
from components.core.stores import Store, join

SCHEMA = "dual.selftest/v1"
IMAGES = 4
"""Of different classes where there are as many: enough to see a broken runtime or delegate, small beside the model."""
_GOLDEN = "golden.json"


class _Answer(BaseModel):
    label: str
    probabilities: list[int]


class _Image(BaseModel):
    model_config = ConfigDict(extra="ignore")

    pixels: str = ""
    label: str
    mobile: _Answer | None = None


class _Tolerances(BaseModel):
    mobile: int


class _Golden(BaseModel):
    model_config = ConfigDict(extra="ignore")

    tolerances: _Tolerances
    images: list[_Image]


def make_selftest(store: Store, release: Release) -> bytes | None:
    """The self-test's bytes, a function of the release's files alone; None if its golden images have no answers of the mobile model.

    Raises `DataError` if a golden file is missing or damaged.
    """
    if _GOLDEN not in release.golden:
        return None
    golden = _parse(_read(store, release, _GOLDEN), release)
    images = [_entry(store, release, image) for image in _choose(golden.images)]
    if not images:
        return None
    return canonical_json({"schema": SCHEMA, "labels": release.labels, "tolerance": golden.tolerances.mobile, "images": images})


def _parse(data: bytes, release: Release) -> _Golden:
    try:
        return _Golden.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"golden.json: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise DataError(what, where=f"{release.folder()}/golden", fix="Run the pipeline again") from None


def _choose(images: list[_Image]) -> list[_Image]:
    """The first image of each of at most `IMAGES` classes, evenly over the classes."""
    first: dict[str, _Image] = {}
    for image in images:
        if image.pixels and image.mobile:
            first.setdefault(image.label, image)
    kept = list(first.values())
    count = min(IMAGES, len(kept))
    return [kept[number * len(kept) // count] for number in range(count)]


def _entry(store: Store, release: Release, image: _Image) -> dict[str, Any]:
    answer = image.mobile
    assert answer is not None  # noqa: S101 - chosen by it
    pixels = b64encode(_read(store, release, image.pixels)).decode()
    return {"pixels": pixels, "probabilities": answer.probabilities, "label": answer.label}


def _read(store: Store, release: Release, file: str) -> bytes:
    name = join(release.folder(), "golden", file)
    data, expected = store.get(name).data, release.golden[file]
    if sha256_bytes(data) != expected.sha256:
        fix = "The store is damaged: look with `dual release verify`, then run the pipeline again"
        raise DataError(f"sha256 differs from release.json's {expected.sha256}", where=f"{store.uri}/{name}", fix=fix)
    return data
