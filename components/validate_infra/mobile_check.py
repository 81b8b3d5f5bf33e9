"""The mobile model in LiteRT's interpreter, in a process of its own."""

import json
from pathlib import Path
from typing import Any

from components.validate_infra.asking import latency_figures
from components.validate_infra.child import Child, ChildError
from components.validate_infra.golden import Golden
from components.validate_infra.infra import MalformedRequest, Side
from components.validate_infra.settings import ValidateInfraSettings

_PROTOCOL = "interpreter"


def check_mobile(model: Path, golden: Golden, folder: Path, work: Path, settings: ValidateInfraSettings) -> Side:
    """Load the .tflite and run the golden images in `folder`; whatever goes wrong is in the returned `Side`."""
    side, result = Side(), work / "mobile.json"
    arguments = [str(model), str(folder), str(result), str(settings.requests)]
    with Child("interpreter", "components.validate_infra.mobile_worker", arguments, work / "mobile.log") as child:
        try:
            side.measurements["start_seconds"] = child.wait_for_file(result, settings.start_timeout)
            side.measurements["memory_mb"] = child.peak_memory_mb()
            _read(side, json.loads(result.read_text()), golden)
        except ChildError as error:
            side.failure = str(error)
        side.log_tail = child.tail()
    return side


def _read(side: Side, result: dict[str, Any], golden: Golden) -> None:
    if result["labels"] != golden.labels:
        side.failure = f"the labels in the .tflite's metadata are {result['labels']}, the cloud model's are {golden.labels}"
    pairs = list(zip(result["outputs"], golden.images, strict=True))
    side.differences[_PROTOCOL] = [_difference(output, each.mobile.probabilities) for output, each in pairs]
    side.mistaken[_PROTOCOL] = [e.file for o, e in pairs if _label(o, golden) != e.mobile.label and not _tied(o, golden.tolerances.mobile)]
    side.malformed = [
        MalformedRequest(case=case, protocol=_PROTOCOL, answer=text or "accepted", clean=bool(text))
        for case, text in result["refusals"].items()
    ]
    side.measurements |= {"load_seconds": result["load_seconds"], **latency_figures(result["latencies_ms"])}
    side.alive = result["repeatable"]


def _difference(output: list[int], expected: list[int]) -> float:
    if len(output) != len(expected):
        return float("inf")
    return float(max(abs(a - b) for a, b in zip(output, expected, strict=True)))


def _label(output: list[int], golden: Golden) -> str:
    best = output.index(max(output))
    return golden.labels[best] if best < len(golden.labels) else ""


def _tied(output: list[int], tolerance: int) -> bool:
    best = sorted(output)[-2:]
    return len(best) == 2 and best[1] - best[0] <= 2 * tolerance
