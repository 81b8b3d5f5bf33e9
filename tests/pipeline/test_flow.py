"""The flow as KFP compiles it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.report.story import ORDER


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from kfp import compiler

    from pipelines.dual import trace
    from pipelines.targets import Local

    path = tmp_path_factory.mktemp("ir") / "dual.yaml"
    compiler.Compiler().compile(trace(Local()), str(path))
    return yaml.safe_load(path.read_text())


def _tasks(compiled: dict[str, Any]) -> dict[str, Any]:
    dags = [compiled["root"]["dag"], *(c["dag"] for c in compiled["components"].values() if "dag" in c)]
    return {name: task for dag in dags for name, task in dag["tasks"].items() if "componentRef" in task}


def test_every_step_is_a_task_and_nothing_else_is(compiled: dict[str, Any]) -> None:
    names = {name.replace("-", "_") for name in _tasks(compiled)}
    steps = {name for name in names if not name.startswith(("exit_handler", "condition"))}
    assert steps == set(ORDER)


def test_kfp_caches_nothing(compiled: dict[str, Any]) -> None:
    steps = {name: task for name, task in _tasks(compiled).items() if name.replace("-", "_") in ORDER}
    assert [name for name, task in steps.items() if task.get("cachingOptions", {}).get("enableCache")] == []


def test_images_are_logical_names(compiled: dict[str, Any]) -> None:
    executors = compiled["deploymentSpec"]["executors"].values()
    assert {executor["container"]["image"] for executor in executors} == {"dual-trainer", "dual-deployer"}


def test_nothing_is_installed_at_run_time(compiled: dict[str, Any]) -> None:
    commands = [" ".join(e["container"]["command"]) for e in compiled["deploymentSpec"]["executors"].values()]
    assert not [command for command in commands if "pip install" in command]


def test_shipping_waits_for_the_verdict(compiled: dict[str, Any]) -> None:
    dags = [c["dag"]["tasks"] for c in compiled["components"].values() if "dag" in c]
    shipping = next(tasks for tasks in dags if "roll-out-cloud" in tasks)
    assert set(shipping) == {"roll-out-cloud", "publish-mobile"}
    assert shipping["publish-mobile"]["dependentTasks"] == ["roll-out-cloud"]
    condition = next(t for tasks in dags for t in tasks.values() if t.get("triggerPolicy", {}).get("condition"))
    assert "NOT BLESSED" in condition["triggerPolicy"]["condition"]


def test_the_exit_step_runs_whatever_happened(compiled: dict[str, Any]) -> None:
    report = compiled["root"]["dag"]["tasks"]["report"]
    assert report["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"


def test_compiling_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    from kfp import compiler

    from pipelines.dual import trace
    from pipelines.targets import Local

    for name in ("a.yaml", "b.yaml"):
        compiler.Compiler().compile(trace(Local()), str(tmp_path / name))
    assert (tmp_path / "a.yaml").read_bytes() == (tmp_path / "b.yaml").read_bytes()
