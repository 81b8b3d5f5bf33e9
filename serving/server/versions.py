"""Which versions of a model should be loaded: what lies in its folder, and the version policy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Policy:
    """TF Serving's ServableVersionPolicy: the latest `count`, all, or the named versions."""

    kind: Literal["latest", "all", "specific"] = "latest"
    count: int = 1
    versions: tuple[int, ...] = ()

    def choose(self, present: set[int]) -> set[int]:
        """The versions to load out of those that are present."""
        if self.kind == "all":
            return set(present)
        if self.kind == "specific":
            return present & set(self.versions)
        return set(sorted(present)[-self.count :])


def policy_from_proto(proto: Any) -> Policy:
    """The policy of a ModelConfig; unset means the latest one."""
    kind = proto.WhichOneof("policy_choice")
    if kind == "all":
        return Policy("all")
    if kind == "specific":
        return Policy("specific", versions=tuple(proto.specific.versions))
    return Policy(count=proto.latest.num_versions or 1)


def present_versions(base: Path) -> dict[int, Path]:
    """Version number → folder, for every folder below `base` whose name is a number; nothing if `base` is missing."""
    try:
        folders = [path for path in base.iterdir() if path.name.isascii() and path.name.isdigit() and path.is_dir()]
    except OSError:
        return {}
    return {int(path.name): path for path in sorted(folders)}
