"""The flow of a site that shares work out: what is compiled, and what Kubeflow's driver makes of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.errors import UsageError
from components.report.story import SHARED_OUT
from pipelines.step_needs import NEEDS
from tests.kubeflow_backend import Backend, Refused, Run
from tests.pipeline.compiled import text

SHARDING = {"enabled": True, "parallel": 3}
PLAN = {"ingest": ["1 of 2", "2 of 2"], "evaluation": ["1 of 3", "2 of 3", "3 of 3"]}
ANSWERS: dict[str, Any] = {"plan-shards": PLAN, "assemble-release": {"Output": "0123456789ab"}}
LOOPS = {"ingest": "ingest-shard", "evaluate-cloud": "evaluate-cloud-shard", "evaluate-mobile": "evaluate-mobile-shard"}


def planned(tmp_path: Path, answers: dict[str, Any] = ANSWERS, **site: Any) -> Run:
    backend = Backend(text("kubeflow", sharding=SHARDING, **site), tmp_path, answers=answers)
    return backend.run({"data": "gs://images", "store": "s3://bucket/dual", "spans": "3-7"})


def tasks(target: str) -> dict[str, Any]:
    spec = next(yaml.safe_load_all(text(target, sharding=SHARDING)))
    return spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]


def test_every_shard_is_a_pod_and_the_step_knows_how_many_there_were(tmp_path: Path) -> None:
    run = planned(tmp_path)
    assert set(run.states.values()) == {"SUCCEEDED"}
    for step, shard_step in LOOPS.items():
        shards = PLAN["ingest" if step == "ingest" else "evaluation"]
        assert [run.inputs[f"{shard_step}.{number}"]["shard"] for number in range(len(shards))] == shards
        assert run.inputs[step]["shards"] == shards
    assert {(inputs["store"], inputs["run_id"]) for inputs in run.inputs.values()} == {("s3://bucket/dual", run.id)}
    assert {run.inputs[f"ingest-shard.{number}"]["data"] for number in range(2)} == {"gs://images"}


def test_the_plan_gets_the_same_form_as_ingest(tmp_path: Path) -> None:
    run = planned(tmp_path, settings={"seed": 2})
    plan, merge = run.inputs["plan-shards"], run.inputs["ingest"]
    assert plan == {name: value for name, value in merge.items() if name != "shards"}
    assert (plan["spans"], plan["site"]) == ("3-7", '{"seed": 2}')


@pytest.mark.parametrize("target", ["kubeflow", "vertex"])
def test_a_step_waits_for_its_shards_which_wait_for_what_they_read(target: str) -> None:
    found = tasks(target)
    loops = {name: task for name, task in found.items() if "parameterIterator" in task}
    assert len(loops) == 3
    assert {task["iteratorPolicy"]["parallelismLimit"] for task in loops.values()} == {3}
    merges = {step: [name for name in found[step]["dependentTasks"] if name in loops] for step in LOOPS}
    assert all(len(waited_for) == 1 for waited_for in merges.values())
    assert {"ingest", "train-cloud"} <= set(loops[merges["evaluate-cloud"][0]]["dependentTasks"])
    assert {"ingest", "quantize-mobile"} <= set(loops[merges["evaluate-mobile"][0]]["dependentTasks"])
    assert loops[merges["ingest"][0]]["dependentTasks"] == ["plan-shards"]


def test_a_shard_is_placed_like_its_step_and_the_site_can_say_otherwise(tmp_path: Path) -> None:
    run = planned(tmp_path, steps={"ingest_shard": {"memory_limit": "3G"}})
    assert run.pods["ingest-shard.1"]["resources"]["limits"]["memory"] == "3G"
    assert run.pods["ingest"]["resources"]["limits"]["memory"] == NEEDS["ingest"].memory_limit
    assert run.pods["evaluate-cloud-shard.2"]["resources"] == run.pods["evaluate-cloud"]["resources"]


def test_a_failed_shard_ends_the_run_and_the_report_still_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Backend._task

    def one_fails(self: Backend, run: Run, name: str, *rest: Any) -> Any:
        return ("FAILED", {}, {}) if name == "ingest-shard.1" else whole(self, run, name, *rest)

    monkeypatch.setattr(Backend, "_task", one_fails)
    run = planned(tmp_path)
    assert (run.states["ingest"], run.states["report"]) == ("OMITTED", "SUCCEEDED")
    assert run.states["ingest-shard.0"] == "SUCCEEDED"


def test_what_is_no_list_of_shards_is_refused_by_the_driver(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="expect LIST, got str"):
        planned(tmp_path, answers={**ANSWERS, "plan-shards": {**PLAN, "ingest": "2"}})


def test_without_the_sites_word_there_is_no_further_step() -> None:
    for target in ("local", "kubeflow", "vertex"):
        compiled = text(target)
        assert not [step for step in SHARED_OUT if f"comp-{step.replace('_', '-')}:" in compiled]
        assert "parameterIterator" not in compiled


def test_a_site_that_says_nonsense_is_told() -> None:
    with pytest.raises((UsageError, ValueError), match="greater than or equal to 1"):
        text("kubeflow", sharding={"enabled": True, "parallel": 0})
