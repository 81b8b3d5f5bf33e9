"""Which images a site needs, read from what it deploys: compiled pipelines, manifests, kustomizations, lists of builds."""

import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from components.core.errors import UsageError

OURS = ("dual-trainer", "dual-trainer-gpu", "dual-deployer", "dual-server")
"""The logical images; a list of builds says where they are."""
_IN_ENVIRONMENT = {"V2_DRIVER_IMAGE", "V2_LAUNCHER_IMAGE"}
"""KFP's API server is told by these which images drive and launch every task (backend/src/v2, argocompiler)."""
_IN_ARGUMENTS = "--executor-image"
"""Argo's controller is told by this which image runs beside every task."""


@dataclass
class Needed:
    """An image, and what needs it."""

    image: str
    """As it is written there, or as the list of builds pins it."""
    name: str
    """The logical image, for ours; else its repository as written."""
    users: list[str] = field(default_factory=list)


def find_needed(sources: Iterable[str], builds: Mapping[str, str]) -> list[Needed]:
    """Every image that files, `-` (standard input) and kustomization folders name, once, ours as `builds` pins them.

    Raises `UsageError` for what can't be read, is not YAML or JSON, or can't be rendered.
    """
    found: dict[str, Needed] = {}
    for source in sources:
        for document in _documents(source):
            for image, user in _images(document, source):
                name = _logical(image)
                pinned = builds.get(name, image)
                needed = found.setdefault(pinned, Needed(pinned, name))
                if user not in needed.users:
                    needed.users.append(user)
    return sorted(found.values(), key=lambda each: (each.name not in OURS, each.image))


def _logical(image: str) -> str:
    """`dual-trainer` for `dual-trainer:0.1.0`; anything with a registry or an owner is nobody's logical image."""
    name = image.partition("@")[0].partition(":")[0]
    return name if name in OURS and "/" not in image else image.partition("@")[0]


def _documents(source: str) -> Iterator[Any]:
    try:
        yield from yaml.load_all(_text(source), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"is neither YAML nor JSON ({reason})", where=source, fix="Give a compiled pipeline or manifests") from None


def _text(source: str) -> str:
    if source == "-":
        return sys.stdin.read()
    path = Path(source)
    if path.is_dir():
        return _rendered(path)
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise UsageError(f"can't be read ({reason})", where=source, fix="Give a file, - or a folder with a kustomization.yaml") from None


def _rendered(folder: Path) -> str:
    """A kustomization as Kubernetes would get it, by whichever tool is there."""
    for program, *arguments in (("kubectl", "kustomize"), ("kustomize", "build")):
        if shutil.which(program):
            done = subprocess.run([program, *arguments, str(folder)], capture_output=True, text=True, check=False)
            if done.returncode:
                raise UsageError(f"can't be rendered: {done.stderr.strip()[-500:]}", where=str(folder), fix="Correct the kustomization")
            return done.stdout
    fix = f"Install one, or render it elsewhere: kubectl kustomize {folder} | dual images list -"
    raise UsageError("neither kubectl nor kustomize is on the PATH to render it", where=str(folder), fix=fix)


def _images(value: Any, user: str) -> Iterator[tuple[str, str]]:
    """Each image below `value`, and the nearest thing with a name that uses it."""
    if isinstance(value, list):
        for each in value:
            yield from _images(each, user)
        yield from ((image, user) for image in _of_arguments(value))
    if not isinstance(value, dict):
        return
    user = _user(value, user)
    yield from ((image, user) for image in _of_mapping(value))
    for key, each in value.items():
        below = f"{user}: {key}" if isinstance(each, dict) and "container" in each else user
        yield from _images(each, below)


def _of_mapping(value: Mapping[str, Any]) -> Iterator[str]:
    image = value.get("image")
    if isinstance(image, dict):
        # A volume made of an image.
        image = image.get("reference")
    if isinstance(image, str) and image and "{{" not in image:
        yield image
    if value.get("name") in _IN_ENVIRONMENT and isinstance(value.get("value"), str):
        yield value["value"]
    if isinstance(value.get("imageName"), str) and isinstance(value.get("tag"), str):
        yield value["tag"]


def _of_arguments(values: list[Any]) -> Iterator[str]:
    for before, after in zip(values, [*values[1:], ""], strict=True):
        if before == _IN_ARGUMENTS and isinstance(after, str) and after:
            yield after
        elif isinstance(before, str) and before.startswith(f"{_IN_ARGUMENTS}="):
            yield before.partition("=")[2]


def _user(value: Mapping[str, Any], user: str) -> str:
    kind, metadata = value.get("kind"), value.get("metadata")
    if isinstance(kind, str) and isinstance(metadata, dict):
        return f"{kind} {metadata.get('name') or metadata.get('generateName', '')}"
    pipeline = value.get("pipelineInfo")
    return f"pipeline {pipeline.get('name', '')}" if isinstance(pipeline, dict) else user
