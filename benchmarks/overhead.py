"""What the machinery around the steps costs: compiling, starting a local run, and each step of it.

    python -m benchmarks.overhead [--steps 12] [--repeats 3] [--json FILE]

- compile: processor seconds of each target in a process that has KFP loaded; all three within 2 s is the bound
- start: from nothing to the first step of a local run (a process, KFP, the trace)
- runner: KFP's local runner, for a step that does nothing (the difference of two chains' lengths, so that starts cancel out)
- bookkeeping: what ours adds to that: opening the record, reading the settings, writing both and the page
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfp import dsl

from components.core.step import step

COMPILE_BOUND = 2.0
_SHORT = 2
"""Steps of the shorter chain."""


@step(image="dual-trainer")
def idle(store: str, before: str) -> str:
    """Do nothing."""
    return before


@step(image="dual-trainer")
def recorded(store: str, before: str) -> str:
    """Do nothing, as a step of ours does it."""
    import json
    from pathlib import Path

    from components.core.record import open_step

    with open_step("ingest", store=store, run_id="overhead", view=str(Path(store) / "view.html")) as record:
        json.loads(record.settings)
    return before


def main() -> int:
    """Measure and print; 1 if compiling takes longer than its bound."""
    options = _options()
    if options.chain:
        print(_run_chain(options.chain, options.steps))
        return 0
    result = {"compile_s": _compile(), **_local(options.steps, options.repeats)}
    result["met"] = sum(result["compile_s"].values()) <= COMPILE_BOUND
    print(_table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["met"] else 1


def _compile() -> dict[str, float]:
    from pipelines.compile import compile_pipeline
    from pipelines.targets import ALL_TARGETS, make_target

    compile_pipeline(make_target("local"))
    return {target: _processor_seconds(lambda target=target: compile_pipeline(make_target(target))) for target in ALL_TARGETS}


def _processor_seconds(call: Any) -> float:
    began = time.process_time()
    call()
    return round(time.process_time() - began, 3)


def _local(steps: int, repeats: int) -> dict[str, float]:
    """Milliseconds by the difference of a long and a short chain, each in a process of its own; the least of the repeats."""
    ours, theirs, start = [], [], []
    for _ in range(repeats):
        began = time.monotonic()
        short = _chain("idle", _SHORT)
        start.append((time.monotonic() - began - short) * 1000)
        theirs.append(1000 * (_chain("idle", steps + _SHORT) - short) / steps)
        ours.append(1000 * (_chain("recorded", steps + _SHORT) - _chain("recorded", _SHORT)) / steps)
    runner, whole = min(theirs), min(ours)
    return {
        "start_ms": round(min(start), 1),
        "runner_ms_per_step": round(runner, 1),
        "step_ms": round(whole, 1),
        "bookkeeping_ms_per_step": round(whole - runner, 1),
        "spread_ms": round(statistics.pstdev(ours), 1),
        "steps": steps,
    }


def _chain(kind: str, steps: int) -> float:
    """Seconds that the local runner takes for the chain, measured in a process that has loaded everything."""
    command = [sys.executable, "-m", "benchmarks.overhead", "--chain", kind, "--steps", str(steps)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(result.stdout.splitlines()[-1])


def _run_chain(kind: str, steps: int) -> float:
    from kfp import local

    from components.core.run_settings import write_settings
    from components.core.stores import open_store
    from pipelines.settings import load_settings

    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        write_settings(open_store(str(store)), "overhead", load_settings().model_dump_json())
        local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=f"{folder}/root", enable_caching=False)
        pipeline = _pipeline(recorded if kind == "recorded" else idle, steps)
        began = time.monotonic()
        pipeline(store=str(store))
        return time.monotonic() - began


def _pipeline(component: Any, steps: int) -> Any:
    @dsl.pipeline(name="chain")
    def chain(store: str) -> None:
        last: Any = "0"
        for _ in range(steps):
            last = component(store=store, before=last).output

    return chain


def _table(result: dict[str, Any]) -> str:
    compiled = ", ".join(f"{target} {seconds:.2f} s" for target, seconds in result["compile_s"].items())
    rows = [
        ("compile", f"{compiled} (bound: {COMPILE_BOUND:g} s in all, {'met' if result['met'] else 'MISSED'})"),
        ("start of a local run", f"{result['start_ms']:.0f} ms"),
        ("KFP's runner, per step", f"{result['runner_ms_per_step']:.0f} ms"),
        ("with our bookkeeping, per step", f"{result['step_ms']:.0f} ms (spread {result['spread_ms']:.0f} ms)"),
        ("bookkeeping alone", f"{result['bookkeeping_ms_per_step']:.0f} ms"),
    ]
    return "\n".join(f"{name:<32} {text}" for name, text in rows)


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12, help="Steps whose time is measured (of the whole chain with --chain).")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--chain", choices=["idle", "recorded"], help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
