"""Pods, claims, Workflows and CronWorkflows on a real API server: what it accepts, keeps and answers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.submission.kubeflow.cluster import Cluster as Reached
from pipelines.submission.kubeflow.cluster import open_cluster
from pipelines.submission.kubeflow.pods import pod_troubles, workflow_troubles
from tests.cluster.conftest import Cluster, control_plane, make_namespace
from tests.kubeflow.conftest import Dual
from tests.kubeflow.fake_kfp import FakeKfp
from tests.kubeflow.plays import waiting
from tests.kubeflow.workflows import workflow

pytestmark = pytest.mark.cluster
Json = dict[str, Any]
IMAGE = "registry.example.com/dual-deployer@sha256:" + "0" * 64


def _crd(kind: str, plural: str) -> Json:
    """As in Argo's minimal manifests, which Kubeflow Pipelines installs: any content."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.argoproj.io"},
        "spec": {
            "group": "argoproj.io",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """An API server with Argo's kinds and the namespace kubeflow, in which Pod Security 'restricted' is enforced."""
    with control_plane() as found:
        kinds = {"Workflow": "workflows", "CronWorkflow": "cronworkflows"}
        found.apply(*(_crd(kind, plural) for kind, plural in kinds.items()))
        names = [f"crd/{plural}.argoproj.io" for plural in kinds.values()]
        found.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
        make_namespace(found, "kubeflow")
        yield found


@pytest.fixture
def reached(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Reached:
    """The way to it, as dual finds it."""
    monkeypatch.setenv("KUBECONFIG", cluster.environment["KUBECONFIG"])
    return open_cluster()


def _pod(cluster: Cluster, run: str, step: str, status: Json, **spec: Any) -> None:
    """A pod of a step, and what kubelet or the scheduler would say of it."""
    restricted = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    container = {
        "name": "main",
        "image": "registry.example.com/dual-trainer:v1",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    name = f"{run}-{step.replace('_', '-')}"
    metadata = {
        "name": name,
        "namespace": "kubeflow",
        "labels": {"pipeline/runid": run},
        "annotations": {"workflows.argoproj.io/node-name": f"dual-deploy-x.root.exit-handler-1.{step.replace('_', '-')}.executor"},
    }
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container], "securityContext": restricted, **spec},
    }
    cluster.apply(body)
    cluster.kubectl("-n", "kubeflow", "patch", "pod", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


def _event(cluster: Cluster, name: str, reason: str, message: str, kind: str = "Pod") -> None:
    involved = {"kind": kind, "namespace": "kubeflow", "name": name}
    metadata = {"name": f"{name}.{reason.lower()}", "namespace": "kubeflow"}
    times = {"firstTimestamp": "2026-11-26T03:00:00Z", "lastTimestamp": "2026-11-26T03:00:00Z"}
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": metadata,
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            **times,
        }
    )


def _waiting(reason: str, message: str = "") -> Json:
    state = {"waiting": {"reason": reason, "message": message}}
    return {
        "phase": "Pending",
        "containerStatuses": [{"name": "main", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": state}],
    }


def _unschedulable(message: str) -> Json:
    return {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}


@pytest.mark.parametrize(
    ("run", "status", "said"),
    [
        (
            "image",
            _waiting("ImagePullBackOff", 'Back-off pulling image "x"'),
            'ImagePullBackOff: Back-off pulling image "x" (check the image',
        ),
        (
            "config",
            _waiting("CreateContainerConfigError", 'secret "dual-store" not found'),
            'secret "dual-store" not found (a Secret or ConfigMap',
        ),
        (
            "fits",
            _unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
            "Insufficient nvidia.com/gpu. (no node has room",
        ),
        ("evicted", {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, "Evicted: low on memory (the node ran out"),
    ],
)
def test_a_pod_that_can_not_go_on_says_why(cluster: Cluster, reached: Reached, run: str, status: Json, said: str) -> None:
    _pod(cluster, run, "train_cloud", status)
    ((step, reason),) = pod_troubles(reached, "kubeflow", run)
    assert (step, said in reason) == ("train_cloud", True), reason


def test_a_pod_that_just_starts_or_runs_is_no_trouble(cluster: Cluster, reached: Reached) -> None:
    _pod(cluster, "well", "ingest", _waiting("ContainerCreating"))
    running = {"name": "main", "image": "x", "imageID": "", "ready": True, "restartCount": 0, "state": {"running": {}}}
    _pod(cluster, "well", "validate_data", {"phase": "Running", "containerStatuses": [running]})
    assert pod_troubles(reached, "kubeflow", "well") == []


def test_a_claim_without_a_storage_class_is_named_with_what_its_events_say(cluster: Cluster, reached: Reached) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "cache", "namespace": "kubeflow"},
        "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "nfs", "resources": {"requests": {"storage": "1Gi"}}},
    }
    cluster.apply(claim)
    _event(cluster, "cache", "ProvisioningFailed", 'storageclass.storage.k8s.io "nfs" not found', "PersistentVolumeClaim")
    volumes = [
        {"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}},
        {"name": "gone", "persistentVolumeClaim": {"claimName": "gone"}},
    ]
    _pod(cluster, "claims", "ingest", _unschedulable("pod has unbound immediate PersistentVolumeClaims"), volumes=volumes)
    ((_, reason),) = pod_troubles(reached, "kubeflow", "claims")
    assert 'the claim cache waits for nfs: storageclass.storage.k8s.io "nfs" not found' in reason
    assert "the claim gone does not exist" in reason


def test_a_volume_that_can_not_be_mounted_is_only_in_an_event(cluster: Cluster, reached: Reached) -> None:
    _pod(cluster, "mount", "ingest", {"phase": "Pending"})
    _event(cluster, "mount-ingest", "FailedMount", 'secret "gcs-key" not found')
    assert pod_troubles(reached, "kubeflow", "mount") == [("ingest", 'FailedMount: secret "gcs-key" not found')]


def test_nodes_whose_pods_were_never_accepted_are_seen_in_the_workflow(cluster: Cluster, reached: Reached) -> None:
    cluster.apply(workflow("quota"))
    ((step, reason),) = workflow_troubles(reached, "kubeflow", "quota")
    assert (step, reason.startswith("Unschedulable: 0/3")) == ("train_mobile", True)


def test_watching_says_why_nothing_happens(cluster: Cluster, reached: Reached, submit: Dual, kfp: FakeKfp) -> None:
    """A run that stands still, until somebody terminates it."""
    from tests.kubeflow.plays import Frame, Play

    def blocks(run: Json) -> None:
        _pod(cluster, run["run_id"], "ingest", _waiting("ErrImagePull", "manifest unknown"))

    kfp.state.play = lambda _: Play(
        [Frame("RUNNING", {"ingest": "PENDING"}, blocks), Frame("RUNNING", {"ingest": "PENDING"}), Frame("FAILED")]
    )
    result = submit("--watch", "--every", "0.02")
    assert "ingest: warning: ErrImagePull: manifest unknown (check the image's name and the pull secret)" in result.output
    assert "could not be looked at" not in result.output
    del reached


# CronWorkflows


@pytest.fixture
def schedule(reached: Reached, dual: Dual, package: Path) -> Dual:
    """`dual schedule … --engine argo`."""
    del reached
    needed = ("--package", package, "--data", "drawn", "--store", "gs://bucket/store", "--image", IMAGE)

    def run(verb: str, name: str, *words: object) -> Any:
        return dual("schedule", verb, name, "--engine", "argo", *(needed if verb == "create" else ()), *words)

    return run


def _kept(cluster: Cluster, name: str) -> Json:
    return cluster.objects("-n", "kubeflow", "cronworkflow", name)[0]


def test_a_cron_workflow_is_made_once_and_its_version_is_uploaded_first(cluster: Cluster, schedule: Dual, kfp: FakeKfp) -> None:
    result = schedule("create", "once", "--cron", "0 3 * * 1")
    assert (result.exit_code, result.output.startswith("created: once  on")) == (0, True), result.output
    (version,) = kfp.state.versions.values()
    first = _kept(cluster, "once")
    assert version["name"] in first["spec"]["workflowSpec"]["templates"][0]["container"]["args"]
    assert schedule("create", "once", "--cron", "0 3 * * 1").output.startswith("unchanged: once")
    assert _kept(cluster, "once")["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_another_content_is_refused_or_replaced_in_one_write(cluster: Cluster, schedule: Dual) -> None:
    schedule("create", "again", "--cron", "0 3 * * 1")
    schedule("pause", "again")
    result = schedule("create", "again", "--cron", "0 4 * * 1", "--set", "seed=3")
    assert (result.exit_code, "differs in schedules, workflowSpec.templates" in result.output) == (5, True), result.output
    result = schedule("create", "again", "--cron", "0 4 * * 1", "--set", "seed=3", "--replace")
    assert result.output.startswith("replaced: again  paused"), result.output
    spec = _kept(cluster, "again")["spec"]
    assert (spec["schedules"], spec["suspend"]) == (["0 4 * * 1"], True)


def test_pause_resume_list_show_and_delete(cluster: Cluster, schedule: Dual, dual: Dual) -> None:
    schedule("create", "weekly", "--cron", "0 3 * * 1", "--timezone", "Asia/Tokyo", "--paused")
    assert "weekly  paused  cron '0 3 * * 1' (Asia/Tokyo)" in dual("schedule", "list", "--engine", "argo").output
    schedule("resume", "weekly")
    assert _kept(cluster, "weekly")["spec"]["suspend"] is False
    active = {"status": {"active": [{"name": "weekly-1", "namespace": "kubeflow"}], "lastScheduledTime": "2026-11-23T18:00:00Z"}}
    cluster.kubectl("-n", "kubeflow", "patch", "cronworkflow", "weekly", "--type=merge", "-p", json.dumps(active))
    shown = schedule("show", "weekly").output
    assert "running   weekly-1" in shown
    assert "03:00:00 JST" in shown
    said = json.loads(schedule("show", "weekly", "--json").output)
    assert (said["enabled"], said["last"], len(said["next"])) == (True, "2026-11-23T18:00:00+00:00", 3)
    assert schedule("delete", "weekly").output == "weekly deleted\n"
    assert "there is no CronWorkflow 'weekly'" in schedule("delete", "weekly").output


def test_what_somebody_else_made_is_left_alone(cluster: Cluster, schedule: Dual, dual: Dual) -> None:
    other = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "CronWorkflow",
        "metadata": {"name": "other", "namespace": "kubeflow"},
        "spec": {},
    }
    cluster.apply(other)
    assert "was not made by dual" in schedule("delete", "other").output
    assert "other" not in dual("schedule", "list", "--engine", "argo").output


def test_the_file_applies_and_its_pod_passes_pod_security(cluster: Cluster, schedule: Dual, tmp_path: Path) -> None:
    file = tmp_path / "schedule.yaml"
    assert schedule("create", "file", "--cron", "0 3 * * 1", "-o", file).exit_code == 0
    done = cluster.kubectl("apply", "-f", file)
    assert "Warning" not in done.stderr
    found = {each["kind"]: each for each in yaml.safe_load_all(file.read_text())}
    spec = found["CronWorkflow"]["spec"]["workflowSpec"]
    # As Argo makes a pod of it: the template's container, the workflow's volumes and security context.
    container = {**spec["templates"][0]["container"], "name": "main"}
    names = {"serviceAccountName": spec["serviceAccountName"]}
    pod = {"containers": [container], "volumes": spec["volumes"], "securityContext": spec["securityContext"], **names}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "as-argo", "namespace": "kubeflow"}, "spec": pod}
    accepted = cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(body))
    assert ("created" in accepted.stdout, accepted.stderr) == (True, "")


def test_a_cluster_that_refuses_is_said(
    cluster: Cluster, schedule: Dual, dual: Dual, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load(Path(cluster.environment["KUBECONFIG"]).read_text())
    for user in config["users"]:
        user["user"] = {"token": "nobody"}
    (tmp_path / "nobody").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nobody"))
    result = schedule("create", "nobody", "--cron", "0 3 * * 1")
    assert (result.exit_code, "Unauthorized" in result.output) == (1, True), result.output
    assert "nobody" not in dual("schedule", "list", "--engine", "argo").output.replace("cronworkflows", "")


def test_waiting_runs_are_not_disturbed_by_a_cluster_without_them(reached: Reached, submit: Dual, dual: Dual, kfp: FakeKfp) -> None:
    kfp.state.play = lambda _: waiting()
    run = json.loads(submit("--json").output)["run"]
    assert pod_troubles(reached, "kubeflow", run) == []
    assert dual("runs", "show", run).exit_code == 0
