"""This Python: its version, the extras that the target needs, and whether the installed packages are those of uv.lock."""

import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.doctor.finding import Finding, failed, ok, skipped, warning
from pipelines.doctor.visit import Visit

PACKAGE = "dual-deploy"
EXTRAS = {"local": ("pipeline", "trainer", "server"), "kubeflow": ("pipeline", "deployer"), "vertex": ("pipeline", "vertex")}
"""Target → the optional dependencies that its commands need on this machine."""
_SHOWN = 6


def check_python(visit: Visit) -> list[Finding]:
    """The interpreter is one that the package was made for."""
    from packaging.specifiers import SpecifierSet

    version, wanted = ".".join(map(str, sys.version_info[:3])), metadata.metadata(PACKAGE)["Requires-Python"]
    if version in SpecifierSet(wanted):
        return [ok("python", f"Python {version}")]
    return [failed("python", f"Python {version}, and the package needs {wanted}", "make PYTHON=/path/to/python3.12 test")]


def check_extras(visit: Visit) -> list[Finding]:
    """Everything that the target's commands import is installed, in versions that the package allows."""
    extras = [extra for extra in EXTRAS[visit.target] if extra in (metadata.metadata(PACKAGE).get_all("Provides-Extra") or [])]
    wrong = sorted(set(_unmet(extras)))
    if not wrong:
        return [ok("extras", f"{', '.join(extras)} installed")]
    command = f"uv sync {' '.join(f'--extra {extra}' for extra in extras)}"
    return [failed("extras", f"missing or of another version: {_some(wrong)}", command)]


def check_lock(visit: Visit) -> list[Finding]:
    """What is installed is what uv.lock says, so that this machine runs what the tests ran."""
    lock = lock_file()
    if lock is None:
        return [skipped("lock", "no uv.lock beside the package: installed from a wheel, or an image")]
    locked = locked_versions(lock)
    installed = {_plain(found.metadata["Name"]): found.version for found in metadata.distributions() if found.metadata["Name"]}
    both = sorted(set(locked) & set(installed))
    differing = [
        f"{name} {installed[name]} (lock: {'/'.join(sorted(locked[name]))})" for name in both if installed[name] not in locked[name]
    ]
    if differing:
        return [warning("lock", f"{len(differing)} packages differ from uv.lock: {_some(differing)}", "uv sync --frozen --all-extras")]
    return [ok("lock", f"{len(both)} packages as in uv.lock")]


def lock_file() -> Path | None:
    """uv.lock of the checkout that this package was imported from."""
    path = Path(__file__).resolve().parents[2] / "uv.lock"
    return path if path.is_file() else None


def locked_versions(lock: Path) -> dict[str, set[str]]:
    """Package → the versions in the lock: several where platforms differ."""
    content: dict[str, Any] = tomllib.loads(lock.read_text())
    found: dict[str, set[str]] = {}
    for package in content.get("package", []):
        if "version" in package and _plain(package["name"]) != PACKAGE:
            found.setdefault(_plain(package["name"]), set()).add(package["version"])
    return found


def _unmet(extras: list[str]) -> Iterator[str]:
    """Requirements of the package, with these extras, that are not met."""
    from packaging.requirements import Requirement

    for text in metadata.requires(PACKAGE) or []:
        requirement = Requirement(text)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in ["", *extras]):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield f"{requirement.name} (not installed)"
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name} {version} (needs {requirement.specifier})"


def _plain(name: str) -> str:
    """A package's name as PyPI compares it (PEP 503)."""
    return name.lower().replace("_", "-").replace(".", "-")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
