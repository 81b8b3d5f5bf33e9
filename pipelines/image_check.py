"""Whether this container can run the steps of its image: `python -m pipelines.image_check dual-trainer`.

Run by `skaffold verify` and by tests, as the user and on the file system that pods have. It imports what the steps import, so that a
dependency that an image lacks is found before a run does.
"""

import ast
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import components

IMAGES = {
    "dual-trainer": ["serving.server.__main__", "serving.rollout.cluster.api", "ai_edge_litert.interpreter"],
    "dual-deployer": [
        *("serving.fetch.stage", "serving.rollout.cluster.api", "pipelines.cli.rollout"),
        # `dual submit`, which schedules by Argo run.
        *("pipelines.cli.submit", "pipelines.compile", "pipelines.submission.kubeflow.client", "pipelines.submission.verdict"),
    ],
    "dual-server": ["serving.server.__main__", "serving.server.service"],
}
"""Image → what runs there and is no step of its own: the server beside a step, the model fetcher, the command line."""
_SHOWN = ("tensorflow", "keras", "ai-edge-litert", "kfp", "kubernetes", "grpcio", "numpy")


def modules_of(image: str) -> list[str]:
    """The modules that the components of a logical image import when they run, and what else runs there; `KeyError` for another image."""
    return sorted({*IMAGES[image], *(module for path in _components() for module in _imports(path, image))})


def problems_of(image: str) -> Iterator[str]:
    """What is wrong with this container for the steps of `image`, a sentence each."""
    if os.getuid() == 0:
        yield "it runs as root"
    try:
        with tempfile.TemporaryFile():
            pass
    except OSError as error:
        yield f"nothing can be written to {tempfile.gettempdir()} ({error.strerror}): mount an emptyDir there"
    if image != "dual-server" and find_spec("kfp") is None:
        yield "KFP's executor is missing"
    for module in modules_of(image):
        try:
            importlib.import_module(module)
        except Exception as error:
            yield f"{module} can't be imported: {type(error).__name__}: {error}"


def main(arguments: list[str]) -> int:
    """Print what there is, and what is wrong; 1 if anything is, 2 for an image that is not ours."""
    image = arguments[0] if len(arguments) == 1 else ""
    if image not in IMAGES:
        sys.stderr.write(f"Say which image this is: {', '.join(IMAGES)}.\n")
        return 2
    found = list(problems_of(image))
    lines = [f"{image}: {problem}" for problem in found] or [f"{image}: ok, {len(modules_of(image))} modules; {', '.join(_versions())}"]
    sys.stdout.write("\n".join([*lines, *_devices()]) + "\n")
    return int(bool(found))


def _components() -> list[Path]:
    return sorted(Path(components.__path__[0]).glob("*/component.py"))


def _imports(path: Path, image: str) -> Iterator[str]:
    """The modules of ours that the component in `path` imports in its body, if it runs in `image`."""
    (function,) = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef))
    if not any(isinstance(node, ast.Constant) and node.value == image for each in function.decorator_list for node in ast.walk(each)):
        return
    for node in ast.walk(function):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _versions() -> Iterator[str]:
    for name in _SHOWN:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            continue


def _devices() -> list[str]:
    """The GPUs that TensorFlow sees, where it is loaded."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None:
        return []
    found = [device.name for device in tensorflow.config.list_physical_devices("GPU")]
    return [f"GPUs: {', '.join(found) or 'none'}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
