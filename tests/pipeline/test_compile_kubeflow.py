"""Every setting of a Kubeflow site, found in the compiled YAML; what the backend makes of it is in test_kubeflow_backend.py."""

from typing import Any

import pytest

from components.core.errors import UsageError
from components.report.story import ORDER
from pipelines.step_needs import NEEDS
from pipelines.targets import Site, make_target
from tests.pipeline.compiled import documents, executor, form, pod, tasks

TRAINING = ("train_cloud", "train_mobile", "quantize_mobile")
GPU = {
    "count": 2,
    "node_selector": {"cloud.google.com/gke-accelerator": "nvidia-l4"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
}


@pytest.mark.parametrize("step", ORDER)
def test_requests_and_limits_are_both_said(step: str) -> None:
    resources = executor("kubeflow", step)["resources"]
    needs = NEEDS[step]
    said = {key: resources[f"resource{key}"] for key in ("CpuRequest", "CpuLimit", "MemoryRequest", "MemoryLimit")}
    wanted = {"CpuRequest": needs.cpu, "CpuLimit": needs.cpu_limit, "MemoryRequest": needs.memory, "MemoryLimit": needs.memory_limit}
    assert said == wanted


def test_a_site_changes_one_step_and_no_other() -> None:
    steps = {"train_cloud": {"cpu": "6", "cpu_limit": "12", "memory": "24Gi", "memory_limit": "48Gi", "timeout": 100, "retries": 5}}
    changed = executor("kubeflow", "train_cloud", steps=steps)["resources"]
    assert (changed["resourceCpuRequest"], changed["resourceCpuLimit"]) == ("6", "12")
    assert (changed["resourceMemoryRequest"], changed["resourceMemoryLimit"]) == ("24Gi", "48Gi")
    assert pod("train_cloud", steps=steps)["activeDeadlineSeconds"] == "100"
    assert tasks("kubeflow", steps=steps)["train_cloud"]["retryPolicy"]["maxRetryCount"] == 5
    assert executor("kubeflow", "train_mobile", steps=steps)["resources"] == executor("kubeflow", "train_mobile")["resources"]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ({"ingest": {"cpu": "8"}}, ["kubeflow.steps.ingest", "cpu 8", "cpu_limit 4"]),
        ({"report": {"memory_limit": "100Mi"}}, ["kubeflow.steps.report", "memory 512M", "memory_limit 100Mi"]),
    ],
)
def test_a_request_above_its_limit_is_refused_before_kubernetes_does(steps: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        documents("kubeflow", steps=steps)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("step", ORDER)
def test_retries_wait_longer_each_time(step: str) -> None:
    policy = tasks("kubeflow")[step]["retryPolicy"]
    assert policy == {"backoffDuration": "30s", "backoffFactor": 2.0, "backoffMaxDuration": "600s", "maxRetryCount": 2}


def test_no_retries_leave_no_policy() -> None:
    assert "retryPolicy" not in tasks("kubeflow", steps={"report": {"retries": 0}})["report"]


@pytest.mark.parametrize("step", ORDER)
def test_every_task_has_a_timeout_its_name_and_no_cache(step: str) -> None:
    task = tasks("kubeflow")[step]
    assert pod(step)["activeDeadlineSeconds"] == str(NEEDS[step].timeout)
    assert task["taskInfo"]["name"] == step
    assert task["cachingOptions"] == {}


def test_the_run_has_a_deadline_of_its_own_and_may_have_a_time_to_live() -> None:
    assert documents("kubeflow")[1]["platforms"]["kubernetes"]["pipelineConfig"] == {"activeDeadlineSeconds": 172800}
    config = documents("kubeflow", run_timeout=60, keep_workflow=7)[1]["platforms"]["kubernetes"]["pipelineConfig"]
    assert config == {"activeDeadlineSeconds": 60, "resourceTtlOnCompletion": 7}
    assert "pipelineConfig" not in documents("kubeflow", run_timeout=0)[1]["platforms"]["kubernetes"]


def test_accelerators_are_fields_of_the_form_with_the_site_as_default() -> None:
    fields = form("kubeflow", accelerators=GPU)
    assert fields["accelerator_type"]["defaultValue"] == "nvidia.com/gpu"
    assert fields["accelerator_count"]["defaultValue"] == "2"
    assert fields["node_selector"]["defaultValue"] == GPU["node_selector"]
    assert fields["tolerations"]["defaultValue"] == GPU["tolerations"]


@pytest.mark.parametrize("step", ORDER)
def test_only_training_steps_get_accelerators(step: str) -> None:
    accelerator = executor("kubeflow", step, accelerators=GPU)["resources"].get("accelerator")
    placed = pod(step, accelerators=GPU)
    if step in TRAINING:
        assert accelerator == {
            "resourceType": "{{$.inputs.parameters['pipelinechannel--accelerator_type']}}",
            "resourceCount": "{{$.inputs.parameters['pipelinechannel--accelerator_count']}}",
        }
        assert placed["nodeSelector"] == {"nodeSelectorJson": {"componentInputParameter": "pipelinechannel--node_selector"}}
        assert placed["tolerations"] == [{"tolerationJson": {"componentInputParameter": "pipelinechannel--tolerations"}}]
    else:
        assert accelerator is None
        assert "nodeSelector" not in placed
        assert "tolerations" not in placed


def test_the_count_is_a_text_because_the_backend_reads_numbers_from_nothing_else() -> None:
    assert form("kubeflow")["accelerator_count"]["parameterType"] == "STRING"


def test_a_site_takes_accelerators_from_a_step() -> None:
    steps = {"quantize_mobile": {"accelerator": False}}
    assert "accelerator" not in executor("kubeflow", "quantize_mobile", accelerators=GPU, steps=steps)["resources"]


def test_the_other_steps_go_to_the_sites_pool() -> None:
    pool = {
        "node_selector": {"pool": "cpu"},
        "tolerations": [{"key": "team", "value": "ml", "effect": "NoExecute", "toleration_seconds": 9}],
    }
    placed = pod("ingest", pool=pool)
    assert placed["nodeSelector"] == {"labels": {"pool": "cpu"}}
    toleration = {"key": "team", "operator": "Equal", "value": "ml", "effect": "NoExecute", "tolerationSeconds": "9"}
    assert placed["tolerations"] == [toleration]


def test_spot_steps_go_to_spot_machines_and_the_others_do_not() -> None:
    site = {"spot": {"enabled": True}, "accelerators": GPU}
    spot = {"cloud.google.com/gke-spot": "true"}
    toleration = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
    assert pod("validate_data", **site)["nodeSelector"] == {"labels": spot}
    assert pod("validate_data", **site)["tolerations"] == [toleration]
    assert form("kubeflow", **site)["node_selector"]["defaultValue"] == {**GPU["node_selector"], **spot}
    assert form("kubeflow", **site)["tolerations"]["defaultValue"] == [*GPU["tolerations"], toleration]
    for step in ("validate_infra", "assemble_release", "roll_out_cloud", "publish_mobile", "report"):
        assert "nodeSelector" not in pod(step, **site)


@pytest.mark.parametrize("step", ORDER)
def test_training_has_shared_memory(step: str) -> None:
    mounts = pod(step).get("emptyDirMounts", [])
    wanted = [{"medium": "Memory", "mountPath": "/dev/shm", "sizeLimit": "1G", "volumeName": "shared-memory"}]  # noqa: S108
    assert mounts == (wanted if step in TRAINING else [])


def test_scratch_is_a_folder_of_limited_size_that_temporary_files_go_to() -> None:
    site = {"steps": {"ingest": {"scratch": "50G"}}, "scratch_path": "/fast"}
    assert pod("ingest", **site)["emptyDirMounts"] == [{"mountPath": "/fast", "sizeLimit": "50G", "volumeName": "scratch"}]
    assert executor("kubeflow", "ingest", **site)["env"] == [{"name": "TMPDIR", "value": "/fast"}]
    assert "env" not in executor("kubeflow", "validate_data", **site)


def test_a_cache_volume_is_mounted_where_downloads_and_weights_are_kept() -> None:
    site = {"cache_volume": {"claim": "dual-cache", "path": "/kept"}}
    mount = pod("train_mobile", **site)["pvcMount"]
    assert [(entry["mountPath"], entry["pvcNameParameter"]["runtimeValue"]["constant"]) for entry in mount] == [("/kept", "dual-cache")]
    env = {entry["name"]: entry["value"] for entry in executor("kubeflow", "train_mobile", **site)["env"]}
    assert env == {"XDG_CACHE_HOME": "/kept", "KERAS_HOME": "/kept/keras"}
    assert "pvcMount" not in pod("report", **site)


@pytest.mark.parametrize("step", ORDER)
def test_credentials_of_the_store_come_from_a_secret_that_may_be_missing(step: str) -> None:
    secret = pod(step)["secretAsEnv"][0]
    assert (secret["secretName"], secret["optional"]) == ("dual-store", True)
    names = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"}
    assert {(pair["secretKey"], pair["envVar"]) for pair in secret["keyToEnv"]} == {(name, name) for name in names}


@pytest.mark.parametrize("step", ORDER)
def test_the_key_that_signs_channels_is_given_to_the_step_that_publishes_and_no_other(step: str) -> None:
    signing = [secret for secret in pod(step)["secretAsEnv"] if secret["secretName"] == "dual-signing-key"]
    if step == "publish_mobile":
        assert [(entry["optional"], entry["keyToEnv"]) for entry in signing] == [
            (True, [{"secretKey": "signing-key", "envVar": "DUAL_SIGNING_KEY"}])
        ]
    else:
        assert signing == []


def test_secrets_and_files_of_a_site_go_to_the_steps_that_it_names() -> None:
    site = {
        "secrets": [{"name": "hook", "env": {"token": "SLACK_HOOK"}, "steps": ["roll_out_cloud"]}],
        "secret_files": [{"name": "gcp-key", "path": "/var/gcp", "steps": ["ingest"]}],
        "env": {"GOOGLE_APPLICATION_CREDENTIALS": "/var/gcp/key.json"},
    }
    (secret,) = pod("roll_out_cloud", **site)["secretAsEnv"]
    assert (secret["secretName"], secret["optional"]) == ("hook", False)
    assert secret["keyToEnv"] == [{"secretKey": "token", "envVar": "SLACK_HOOK"}]
    assert "secretAsEnv" not in pod("ingest", **site)
    (files,) = pod("ingest", **site)["secretAsVolume"]
    assert (files["secretName"], files["mountPath"], files["optional"]) == ("gcp-key", "/var/gcp", False)
    assert "secretAsVolume" not in pod("report", **site)
    assert executor("kubeflow", "report", **site)["env"] == [
        {"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": "/var/gcp/key.json"},
    ]


@pytest.mark.parametrize("step", ORDER)
def test_pods_have_a_numeric_user_that_is_not_root_and_labels(step: str) -> None:
    placed = pod(step, labels={"team": "vision"}, annotations={"sidecar.istio.io/inject": "false"})
    assert placed["securityContext"] == {"runAsUser": "10001", "runAsGroup": "10001"}
    assert placed["podMetadata"] == {
        "labels": {"app.kubernetes.io/part-of": "dual-deploy", "dual.dev/step": step, "team": "vision"},
        "annotations": {"sidecar.istio.io/inject": "false"},
    }


def test_the_cluster_may_choose_the_user() -> None:
    assert "securityContext" not in pod("ingest", run_as_user=None, run_as_group=None)


def test_images_are_pulled_with_the_sites_secrets() -> None:
    placed = pod("train_cloud", image_pull_secrets=["registry"], image_pull_policy="Always")
    assert [entry["secretName"] for entry in placed["imagePullSecret"]] == ["registry"]
    assert placed["imagePullPolicy"] == "Always"


def test_a_step_may_have_an_image_of_its_own() -> None:
    steps = {"train_cloud": {"image": "dual-trainer-gpu"}}
    assert executor("kubeflow", "train_cloud", steps=steps)["image"] == "dual-trainer-gpu"
    assert executor("kubeflow", "train_mobile", steps=steps)["image"] == "dual-trainer"


def test_a_rollout_in_the_cluster_has_the_light_image_and_one_without_a_cluster_brings_its_server() -> None:
    assert executor("kubeflow", "roll_out_cloud")["image"] == "dual-trainer"
    assert executor("kubeflow", "roll_out_cloud", serving_namespace="dual")["image"] == "dual-deployer"
    settings = {"roll_out_cloud": {"target": "kubernetes"}}
    assert executor("kubeflow", "roll_out_cloud", settings=settings)["image"] == "dual-deployer"


def test_what_the_site_says_reaches_ingest_and_no_run_needs_to_know_it() -> None:
    import json

    site = {"serving_namespace": "dual", "settings": {"name": "flowers"}}
    constant = tasks("kubeflow", **site)["ingest"]["inputs"]["parameters"]["site"]["runtimeValue"]["constant"]
    cluster = {"target": "kubernetes", "kubernetes": {"namespace": "dual"}}
    assert json.loads(constant) == {"name": "flowers", "roll_out_cloud": cluster}
    assert "site" not in tasks("kubeflow")["ingest"]["inputs"]["parameters"]


def test_the_form_has_the_sites_defaults_and_asks_for_what_nobody_can_guess() -> None:
    assert "defaultValue" not in form("kubeflow")["data"]
    assert "defaultValue" not in form("kubeflow")["store"]
    fields = form("kubeflow", data="gs://b/{SPAN}", store="gs://b/store", profile="thorough")
    assert [fields[name]["defaultValue"] for name in ("data", "store", "profile")] == ["gs://b/{SPAN}", "gs://b/store", "thorough"]


def test_artifacts_lie_where_the_site_says() -> None:
    assert documents("kubeflow", pipeline_root="s3://bucket/kfp")[0]["defaultPipelineRoot"] == "s3://bucket/kfp"


def test_a_run_is_named_by_kubeflow() -> None:
    for step, task in tasks("kubeflow").items():
        assert task["inputs"]["parameters"]["run_id"]["runtimeValue"]["constant"] == "{{$.pipeline_job_uuid}}", step
    assert "run_id" not in form("kubeflow")


def test_every_setting_of_a_site_is_looked_at_here() -> None:
    from pathlib import Path

    from pipelines.targets.site import KubeflowSite, StepNeeds

    here = Path(__file__).read_text()
    assert [name for name in {**KubeflowSite.model_fields, **StepNeeds.model_fields} if name not in here] == []


def test_an_unknown_target_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="local, kubeflow, vertex"):
        make_target("airflow", Site())


def test_work_is_shared_out_where_the_site_says() -> None:
    loops = [t for t in tasks("kubeflow", sharding={"enabled": True, "parallel": 5}).values() if "parameterIterator" in t]
    assert [t["iteratorPolicy"]["parallelismLimit"] for t in loops] == [5, 5, 5]
