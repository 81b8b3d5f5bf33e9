"""Every setting of a Vertex site, found in the compiled YAML, and nothing in it that Vertex refuses."""

from pathlib import Path

import pytest

from components.report.story import ORDER
from pipelines.step_needs import NEEDS
from pipelines.targets.site import VertexSite, VertexStepNeeds
from tests.pipeline.compiled import documents, executor, form, tasks

TRAINING = ("train_cloud", "train_mobile", "quantize_mobile")


def test_there_is_one_document_because_vertex_refuses_a_second() -> None:
    assert len(documents("vertex")) == 1


@pytest.mark.parametrize("step", ORDER)
def test_limits_choose_the_machine(step: str) -> None:
    resources = executor("vertex", step)["resources"]
    assert (resources["resourceCpuLimit"], resources["resourceMemoryLimit"]) == (NEEDS[step].cpu_limit, NEEDS[step].memory_limit)
    assert {"resourceCpuRequest", "resourceMemoryRequest", "accelerator"} & set(resources) == set()
    # Vertex reads the older fields, which KFP writes only for what is no parameter.
    assert resources["cpuLimit"] == float(NEEDS[step].cpu_limit)
    assert resources["memoryLimit"] == float(NEEDS[step].memory_limit.removesuffix("G"))


@pytest.mark.parametrize("step", ORDER)
def test_only_training_steps_get_accelerators_by_their_google_name(step: str) -> None:
    resources = executor("vertex", step, accelerators={"type": "NVIDIA_TESLA_T4", "count": 2})["resources"]
    wanted = {"type": "NVIDIA_TESLA_T4", "count": "2", "resourceType": "NVIDIA_TESLA_T4", "resourceCount": "2"}
    assert resources.get("accelerator") == (wanted if step in TRAINING else None)


def test_the_default_accelerator_is_an_l4() -> None:
    assert executor("vertex", "train_cloud", accelerators={"count": 1})["resources"]["accelerator"]["type"] == "NVIDIA_L4"


def test_a_site_changes_one_step_and_no_other() -> None:
    steps = {"train_cloud": {"cpu_limit": "16", "memory_limit": "64G", "retries": 5, "accelerator": False, "image": "dual-trainer-gpu"}}
    site = {"steps": steps, "accelerators": {"count": 1}, "env": {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}}
    changed = executor("vertex", "train_cloud", **site)
    assert (changed["resources"]["resourceCpuLimit"], changed["resources"]["resourceMemoryLimit"]) == ("16", "64G")
    assert "accelerator" not in changed["resources"]
    assert changed["image"] == "dual-trainer-gpu"
    assert changed["env"] == [{"name": "TF_FORCE_GPU_ALLOW_GROWTH", "value": "true"}]
    assert tasks("vertex", **site)["train_cloud"]["retryPolicy"]["maxRetryCount"] == 5
    assert executor("vertex", "train_mobile", **site)["image"] == "dual-trainer"


@pytest.mark.parametrize("step", ORDER)
def test_every_task_has_its_name_no_cache_and_the_run_is_named_by_vertex(step: str) -> None:
    task = tasks("vertex")[step]
    assert (task["taskInfo"]["name"], task["cachingOptions"]) == (step, {})
    assert task["inputs"]["parameters"]["run_id"]["runtimeValue"]["constant"] == "{{$.pipeline_job_name}}"
    assert task["retryPolicy"]["maxRetryCount"] == 2


def test_the_rollout_brings_its_server() -> None:
    assert executor("vertex", "roll_out_cloud")["image"] == "dual-trainer"
    site = {"settings": {"roll_out_cloud": {"target": "vertex"}}}
    assert executor("vertex", "roll_out_cloud", **site)["image"] == "dual-deployer", "an endpoint serves: nothing needs TensorFlow"


def test_the_form_has_the_sites_defaults_and_no_nodes() -> None:
    fields = form("vertex", data="gs://b/d", store="gs://b/s", profile="standard")
    assert {name: field.get("defaultValue") for name, field in fields.items()} == {
        **{"data": "gs://b/d", "store": "gs://b/s", "profile": "standard"},
        **dict.fromkeys(("spans", "thresholds", "rollout_strategy", "rollout_steps", "settings"), ""),
    }


def test_settings_and_artifacts_of_the_site() -> None:
    site = {"settings": {"seed": 4}, "pipeline_root": "gs://b/root"}
    assert tasks("vertex", **site)["ingest"]["inputs"]["parameters"]["site"]["runtimeValue"]["constant"] == '{"seed": 4}'
    assert documents("vertex", **site)[0]["defaultPipelineRoot"] == "gs://b/root"


def test_every_setting_of_a_site_is_looked_at_here() -> None:
    here = Path(__file__).read_text()
    assert [name for name in {**VertexSite.model_fields, **VertexStepNeeds.model_fields} if name not in here] == []


def test_work_is_shared_out_where_the_site_says() -> None:
    loops = [t for t in tasks("vertex", sharding={"enabled": True, "parallel": 5}).values() if "parameterIterator" in t]
    assert [t["iteratorPolicy"]["parallelismLimit"] for t in loops] == [5, 5, 5]
