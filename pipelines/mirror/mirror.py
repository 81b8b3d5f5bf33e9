"""What `dual images` does: lists the images that a site needs, and copies them."""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from components.core.errors import UsageError
from components.core.meter import Say
from pipelines.compile_images import read_build
from pipelines.mirror.copying import Copied, Copier
from pipelines.mirror.inventory import OURS, Needed, find_needed
from pipelines.mirror.layout import Layout, LayoutImages
from pipelines.mirror.manifest import Images
from pipelines.mirror.place import Registries, Target, open_source
from pipelines.mirror.reference import Reference, parse_reference


@dataclass(frozen=True)
class Mirrored:
    """One image, copied."""

    name: str
    """Its logical name if it is ours, else its repository as written."""
    copied: Copied


@dataclass(frozen=True)
class _Wanted:
    name: str
    reference: Reference
    images: Images


def needed_images(sources: Iterable[str], builds: Path | None) -> list[Needed]:
    """The images of `sources`, and of the list of builds alone if there are no sources. Raises `UsageError` if nothing is given."""
    named = [*sources] or ([str(builds)] if builds else [])
    if not named:
        fix = "Give compiled pipelines, manifests or overlays, for example: dual images list dual.yaml manifests/overlays/onprem"
        raise UsageError("there is nothing to look into", where="SOURCE...", fix=fix)
    return find_needed(named, read_build(builds, allow_tags=True).references if builds else {})


def mirror_images(
    sources: Iterable[str], builds: Path | None, archive: str | None, target: str, registries: Registries, *, platform: str = "", say: Say
) -> list[Mirrored]:
    """Copy the images of `sources`, or all of the layout `archive`, to `target`; what each took, in their order.

    Raises `UsageError` before anything is copied if a name is no image, two would get one name, or one of ours has no address.
    """
    with ExitStack() as stack:
        wanted = [*_of_archive(open_source(archive, stack))] if archive else [*_of_registries(needed_images(sources, builds), registries)]
        place = Target(target, registries, stack)
        placed = [(each, *place.place(_ours(each.name), each.reference)) for each in wanted]
        _refuse_clashes([(each.reference, image) for each, _, image in placed])
        copier = Copier(say, platform, registries.patience)
        return [Mirrored(each.name, copier.copy(each.images, each.reference, images, image)) for each, images, image in placed]


def write_map(done: Iterable[Mirrored], path: Path) -> None:
    """Write where the images are now in the form of skaffold's build.json, which `dual compile --images` and `--images` here read."""
    builds = [{"imageName": each.name, "tag": str(each.copied.image)} for each in done]
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps({"builds": builds}, indent=1) + "\n")
    part.replace(path)


def _of_registries(needed: Iterable[Needed], registries: Registries) -> Iterator[_Wanted]:
    for each in needed:
        if each.image.partition(":")[0] in OURS:
            fix = "Say where it is: --images build.json (skaffold build --file-output build.json)"
            raise UsageError(f"'{each.image}' is a logical image, at no registry", where=each.users[0], fix=fix)
        reference = parse_reference(each.image)
        yield _Wanted(each.name, reference, registries.images(reference))


def _of_archive(layout: Layout) -> Iterator[_Wanted]:
    for name in layout.names():
        reference = parse_reference(name)
        yield _Wanted(_ours(reference.repository.rpartition("/")[2]) or reference.name, reference, LayoutImages(layout, reference.name))


def _ours(name: str) -> str:
    return name if name in OURS else ""


def _refuse_clashes(placed: Iterable[tuple[Reference, Reference]]) -> None:
    taken: dict[str, Reference] = {}
    for source, image in placed:
        other = taken.setdefault(str(image), source)
        if image.tag and other != source:
            fix = "Mirror them one by one to two prefixes: --to registry.example.com/one, --to registry.example.com/two"
            raise UsageError(f"{other} and {source} would both become {image}", where="--to", fix=fix)
