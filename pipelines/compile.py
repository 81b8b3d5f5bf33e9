"""The compiled pipeline of a target as YAML text, and the copies of it in the repository by which a change is seen."""

import difflib
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from components.core.errors import missing_extra
from pipelines.compile_images import Images, logical_images
from pipelines.targets import Target

PIPELINES = {"dual-deploy": "pipelines.dual", "dual-batch": "pipelines.batch"}
"""Name → the module that traces it."""
GOLDEN = Path(__file__).with_name("compiled")
"""What each target compiles to where no site is configured and no image is pinned."""


@dataclass(frozen=True)
class Compiled:
    """A pipeline that a backend takes, and which image each logical one became."""

    text: str
    images: dict[str, str]
    unpinned: list[str]
    """Logical images that are still in it: no cluster can pull them."""


def compile_pipeline(target: Target, images: Images | None = None, pipeline: str = "dual-deploy") -> Compiled:
    """Trace a pipeline of `PIPELINES` for the target and write it down; the same input gives the same bytes in every process."""
    head, documents = _compile(target, pipeline)
    pinned = images.pin(documents) if images else {}
    text = head + yaml.dump_all(documents, Dumper=_Readable, sort_keys=True, allow_unicode=True, width=120)
    return Compiled(text, pinned, sorted(logical_images(documents)))


def golden_path(target: str, pipeline: str = "dual-deploy") -> Path:
    """Where the repository keeps what the target compiles to."""
    return GOLDEN / (f"{target}.yaml" if pipeline == "dual-deploy" else f"{pipeline.removeprefix('dual-')}-{target}.yaml")


def difference(before: Path, text: str) -> str:
    """A unified diff from the file (missing: from nothing) to the text; empty if they are equal."""
    old = before.read_text() if before.exists() else ""
    lines = difflib.unified_diff(old.splitlines(), text.splitlines(), str(before), "compiled now", lineterm="")
    return "\n".join(lines)


def _compile(target: Target, pipeline: str) -> tuple[str, list[Any]]:
    """KFP's opening comment, and the documents: the pipeline, and what Kubernetes is to do."""
    try:
        from kfp import compiler
    except ImportError:
        raise missing_extra("pipeline", "kfp") from None
    trace = import_module(PIPELINES[pipeline]).trace

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(trace(target), str(path))
        text = path.read_text()
    lines = text.splitlines(keepends=True)
    comment = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    head = "".join(line.rstrip() + "\n" for line in lines[:comment])
    return head, list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Readable(_Dumper):
    """Texts of several lines, which are the components' code, are written as such: a diff shows the line that changed."""

    def ignore_aliases(self, data: Any) -> bool:
        """Nothing is written as a reference to something above."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _represent_text)
