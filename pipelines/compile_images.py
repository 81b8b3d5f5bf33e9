"""From the logical images in a compiled pipeline to what a cluster can pull: by digest from skaffold's build.json, or by registry and tag.

`skaffold build --file-output build.json` writes `{"builds": [{"imageName": "dual-trainer", "tag": "registry/dual-trainer:v1@sha256:…"}]}`
(https://skaffold.dev/docs/references/cli/#skaffold-build).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.errors import UsageError

KEYS = ("image", "image_uri", "imageUri")
"""Where an intermediate representation names images: of containers, and of custom jobs in a component's payload."""

_DIGEST = re.compile(r"[^@{}\s]+@sha256:[0-9a-f]{64}")
_TAG = re.compile(r"[^@{}\s]+:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Images:
    """What each logical image is called in a registry."""

    origin: str
    """What an error calls the place that it comes from."""
    references: Mapping[str, str]
    pattern: str = ""
    """What an image is called that is not among them, `{}` for its name; empty: then it is missing."""

    def pin(self, documents: Sequence[Any]) -> dict[str, str]:
        """Replace every logical image in the documents, and return those that were; `UsageError` names one that is missing."""
        found = {name: self.references.get(name) or self.pattern.replace("{}", name) for name in sorted(logical_images(documents))}
        if missing := [name for name, reference in found.items() if not reference]:
            known = ", ".join(sorted(self.references)) or "nothing"
            fix = "Build it (skaffold build --file-output build.json), or name one image for all steps with --registry and --tag"
            raise UsageError(f"there is no image '{missing[0]}', only {known}", where=self.origin, fix=fix)
        for holder, key in _places(documents):
            holder[key] = found.get(holder[key], holder[key])
        return found

    def reference(self, name: str) -> str:
        """What a logical image is called in the registry; `UsageError` if it is missing."""
        document = {KEYS[0]: name}
        self.pin([document])
        return document[KEYS[0]]


def choose_images(build: Path | None, registry: str | None, tag: str | None, *, allow_tags: bool = False) -> Images | None:
    """What --images, or --registry and --tag, say; None if neither is given. `UsageError` if they don't go together."""
    if bool(registry) != bool(tag):
        raise UsageError("belong together", where="--registry, --tag", fix="Write for example --registry ghcr.io/me --tag v1")
    if build and registry:
        raise UsageError("name the same images", where="--images, --registry", fix="Give one of them")
    if build:
        return read_build(build, allow_tags=allow_tags)
    return tagged(registry, tag) if registry and tag else None


def logical_images(documents: Sequence[Any]) -> set[str]:
    """Names without a registry, a tag or a digest: nothing can be pulled by them."""
    return {holder[key] for holder, key in _places(documents) if not set(holder[key]) & set("/:@{")}


def read_build(path: Path, *, allow_tags: bool = False) -> Images:
    """The images of skaffold's build.json; `UsageError` if it is something else, or names one without its digest."""
    builds = _builds(path)
    for name, reference in builds.items():
        if not _DIGEST.fullmatch(reference) and not (allow_tags and _TAG.fullmatch(reference)):
            fix = "Push the images (skaffold build --push), or accept names that can move to another image with --allow-tags"
            raise UsageError(f"'{name}' has no digest: '{reference}'", where=str(path), fix=fix)
    return Images(str(path), builds)


def tagged(registry: str, tag: str) -> Images:
    """Every image at `registry`/name:`tag`; `UsageError` if that is no image's name."""
    pattern = f"{registry.rstrip('/')}/{{}}:{tag}"
    example = pattern.replace("{}", "dual-trainer", 1)
    if not _TAG.fullmatch(example) or "://" in registry:
        fix = "Write for example --registry europe-docker.pkg.dev/my-project/dual --tag v1"
        raise UsageError(f"'{example}' is no image", where="--registry, --tag", fix=fix)
    return Images("--registry, --tag", {}, pattern)


def _builds(path: Path) -> dict[str, str]:
    try:
        builds = json.loads(path.read_text())["builds"]
        return {_logical(build["imageName"]): str(build["tag"]) for build in builds}
    except OSError as error:
        raise UsageError(f"can't be read ({error.strerror})", where=str(path), fix="Check the path given as --images") from None
    except (ValueError, KeyError, TypeError) as error:
        fix = "Write it with: skaffold build --file-output build.json"
        raise UsageError(f"is no build output of skaffold ({type(error).__name__}: {error})", where=str(path), fix=fix) from None


def _logical(image: str) -> str:
    """An artifact may be named with its registry; its last part is the logical name."""
    return image.rpartition("/")[2]


def _places(value: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Every mapping and key in it that names an image."""
    if isinstance(value, dict):
        yield from ((value, key) for key in KEYS if isinstance(value.get(key), str))
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _places(item)
