"""What the doctor finds in a real API server: rights, nodes, quotas, volumes, kinds, pods that are let in or not."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.doctor.admission import check_admission, check_pod_security, check_quotas
from pipelines.doctor.cluster import check_cluster, check_namespaces, check_objects
from pipelines.doctor.gpus import check_gpus, check_server_gpus
from pipelines.doctor.images import check_images, check_pulls, check_pulls_by_trying
from pipelines.doctor.kfp import check_argo, check_kfp_parts
from pipelines.doctor.kinds import check_kinds
from pipelines.doctor.rights import BASE, COMPONENTS, Rule, check_rights, expand
from pipelines.doctor.secrets import check_s3_credentials, check_secrets
from pipelines.doctor.storage import check_claims, check_storage_classes
from pipelines.targets.site import Site
from tests.cluster.conftest import MANIFESTS, Cluster
from tests.doctor.conftest import Place, only

pytestmark = pytest.mark.cluster
Json = dict[str, Any]


def site(**kubeflow: Any) -> Site:
    return Site.model_validate({"kubeflow": kubeflow})


def node(name: str, gpus: int = 0, labels: dict[str, str] | None = None, taints: list[Json] | None = None) -> tuple[Json, Json]:
    """A node, and the status that its kubelet would write."""
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels or {}}, "spec": {"taints": taints or []}}
    amounts = {"cpu": "8", "memory": "32Gi", "pods": "110", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return body, {"allocatable": amounts, "capacity": amounts, "conditions": [ready]}


def add_node(place: Place, *arguments: Any, **options: Any) -> None:
    body, state = node(*arguments, **options)
    place.cluster.apply(body)
    name = body["metadata"]["name"]
    place.status("node", name, state, namespaced=False)
    # Every new node gets a taint that the node controller takes away once it is ready; there is none here.
    place.cluster.kubectl("patch", "node", name, "--type=merge", "-p", json.dumps({"spec": body["spec"]}))


# --- the cluster itself


def test_the_api_server_tells_its_version_and_who_asks(place: Place) -> None:
    found = only(check_cluster(place.visit()))
    assert found.status == "ok"
    assert "Kubernetes v1." in found.found
    assert "as kubernetes-admin" in found.found or "as " in found.found


def test_a_namespace_that_is_not_there_is_told_with_the_command(place: Place) -> None:
    assert only(check_namespaces(place.visit())).status == "ok"
    missing = only(check_namespaces(place.visit(namespace="nowhere", connection=None, target="vertex")))
    assert (missing.status, "kubectl create namespace nowhere" in missing.fix) == ("failed", True)


_built: dict[str, str] = {}


def apply_overlay(place: Place, name: str) -> None:
    """What a combination of the manifests makes, in the test's namespace."""
    if name not in _built:
        _built[name] = json.dumps([body for body in place.cluster.build(MANIFESTS / "tests" / name) if body["kind"] != "Namespace"])
    bodies = json.loads(_built[name])
    for body in bodies:
        body["metadata"]["namespace"] = place.namespace
        for subject in body.get("subjects", []):
            subject["namespace"] = place.namespace
    place.cluster.apply(*bodies)


def test_manifests_that_are_not_applied_are_told(place: Place) -> None:
    missing = only(check_objects(place.visit()))
    assert (missing.status, "Deployment classifier" in missing.found, "kubectl apply -k" in missing.fix) == ("warning", True, True)
    apply_overlay(place, "canary-s3-gateway-monitoring")
    found = check_objects(place.visit(store="s3://elsewhere/x"))
    assert [each.status for each in found] == ["ok", "warning"]
    assert "server pods read s3://" in found[1].found


# --- rights


def rules_of(documents: list[Json]) -> list[Rule]:
    rules = [rule for body in documents if body["kind"] == "Role" for rule in body["rules"]]
    return [
        Rule(tuple(rule["apiGroups"]), tuple(rule["resources"]), tuple(rule["verbs"]), tuple(rule.get("resourceNames", [])))
        for rule in rules
    ]


def test_the_doctor_asks_for_exactly_the_rights_of_the_manifests(cluster: Cluster) -> None:
    def applied(folder: Path) -> set[Any]:
        return set(expand(rules_of(cluster.build(folder))))

    assert applied(MANIFESTS / "base") == set(expand(BASE))
    everything = set(expand([*BASE, *(rule for rules in COMPONENTS.values() for rule in rules)]))
    assert applied(MANIFESTS / "tests" / "everything") == everything


@contextmanager
def as_account(place: Place, account: str) -> Iterator[Any]:
    """A kubeconfig of a ServiceAccount of the namespace."""
    token = place.cluster.kubectl("create", "token", account, "-n", place.namespace).stdout.strip()
    content = json.loads(place.cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json").stdout)
    content["users"] = [{"name": content["users"][0]["name"], "user": {"token": token}}]
    path = Path(place.cluster.environment["KUBECONFIG"]).parent / f"{place.namespace}-{account}.json"
    path.write_text(yaml.safe_dump(content))
    try:
        yield path
    finally:
        path.unlink()


def test_rights_are_those_of_the_identity_that_asks(place: Place) -> None:
    apply_overlay(place, "canary-gcs-hpa")
    assert check_rights(place.visit())[0].status == "ok"
    with as_account(place, "classifier-server") as kubeconfig:
        own, steps = check_rights(place.visit(kubeconfig=kubeconfig))
    assert own.status == "failed"
    assert "patch services/classifier-preview" in own.found
    assert "create deployments.apps" in own.found
    assert "kubectl create rolebinding" in own.fix
    assert (steps.status, "may not ask" in steps.found) == ("warning", True)


def test_the_rollouts_own_account_has_all_it_needs(place: Place) -> None:
    apply_overlay(place, "canary-gcs-hpa")
    with as_account(place, "classifier-rollout") as kubeconfig:
        assert check_rights(place.visit(kubeconfig=kubeconfig))[0].status == "ok"


def test_a_role_that_lacks_one_verb_is_told_by_that_verb(place: Place) -> None:
    apply_overlay(place, "canary-gcs-hpa")
    patch = '[{"op": "replace", "path": "/rules/0/verbs", "value": ["get", "list", "watch", "create", "patch"]}]'
    place.cluster.kubectl("patch", "role", "classifier-rollout", "-n", place.namespace, "--type=json", "-p", patch)
    with as_account(place, "classifier-rollout") as kubeconfig:
        own = check_rights(place.visit(kubeconfig=kubeconfig))[0]
    assert (own.status, own.found) == ("failed", f"this identity may not, in {place.namespace}: delete deployments.apps")


def test_the_steps_account_is_looked_at_too(place: Place) -> None:
    apply_overlay(place, "canary-gcs-hpa")
    warned = check_rights(place.visit())[1]
    assert (warned.status, f"{place.namespace}:pipeline-runner may not" in warned.found) == ("warning", True)
    stops = check_rights(place.visit(site=site(serving_namespace=place.namespace)))[1]
    assert (stops.status, "pipeline-runner" in stops.fix) == ("failed", True)


# --- GPUs


def test_gpu_nodes_are_counted_by_model(place: Place) -> None:
    add_node(place, "cpu-1")
    add_node(place, "gpu-1", gpus=2, labels={"cloud.google.com/gke-accelerator": "nvidia-l4"})
    add_node(place, "gpu-2", gpus=1, labels={"nvidia.com/gpu.product": "Tesla-T4"})
    found = only(check_gpus(place.visit()))
    assert (found.status, found.found) == ("ok", "1 x Tesla-T4, 2 x nvidia-l4 on 2 node(s)")


def test_without_gpus_a_site_that_wants_none_is_fine_and_one_that_does_is_not(place: Place) -> None:
    add_node(place, "cpu-1")
    assert only(check_gpus(place.visit())).status == "ok"
    wanting = only(check_gpus(place.visit(site=site(accelerators={"count": 1}))))
    assert (wanting.status, "wait for ever" in wanting.found) == ("failed", True)


def test_hardware_without_a_device_plugin_is_told(place: Place) -> None:
    add_node(place, "gpu-1", labels={"nvidia.com/gpu.present": "true"})
    plugin, pool = check_gpus(place.visit())
    assert (plugin.status, pool.status) == ("failed", "ok")
    assert "1 node(s) have NVIDIA hardware and offer no nvidia.com/gpu (gpu-1)" in plugin.found
    assert "no DaemonSet" in plugin.found
    assert "gpu-operator" in plugin.fix


def test_a_device_plugin_that_is_not_ready_is_named(place: Place) -> None:
    add_node(place, "gpu-1", labels={"nvidia.com/gpu.present": "true"})
    pod = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "x", "image": "y"}]}}
    body = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "nvidia-device-plugin"}}
    place.apply({**body, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": pod}})
    plugin = check_gpus(place.visit())[0]
    assert f"DaemonSet {place.namespace}/nvidia-device-plugin: 0 of 0 ready" in plugin.found
    place.cluster.kubectl("delete", "daemonset", "nvidia-device-plugin", "-n", place.namespace)


@pytest.mark.parametrize(
    ("accelerators", "status", "words"),
    [
        ({"count": 1}, "ok", "can go to 1 node(s)"),
        ({"count": 4}, "failed", "offers 2 of the 4 wanted"),
        ({"count": 1, "node_selector": {"pool": "other"}}, "failed", "lacks the label pool=other"),
        ({"count": 1, "node_selector": {"pool": "gpu"}}, "ok", "can go to"),
    ],
)
def test_the_sites_pool_is_compared_with_the_nodes(place: Place, accelerators: Json, status: str, words: str) -> None:
    add_node(place, "gpu-1", gpus=2, labels={"pool": "gpu"}, taints=[{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}])
    found = check_gpus(place.visit(site=site(accelerators=accelerators)))[-1]
    assert (found.check, found.status, words in found.found) == ("gpu pool", status, True), found


def test_a_taint_that_nobody_tolerates_keeps_steps_away(place: Place) -> None:
    add_node(place, "gpu-1", gpus=1, taints=[{"key": "team", "value": "other", "effect": "NoSchedule"}])
    refused = check_gpus(place.visit(site=site(accelerators={"count": 1})))[-1]
    assert (refused.status, "team:NoSchedule is not tolerated" in refused.found) == ("failed", True)
    tolerating = {"count": 1, "tolerations": [{"key": "team", "value": "other", "effect": "NoSchedule"}]}
    assert check_gpus(place.visit(site=site(accelerators=tolerating)))[-1].status == "ok"


def test_a_template_that_asks_for_a_gpu_needs_a_node_that_it_tolerates(place: Place) -> None:
    apply_overlay(place, "blue-green-gcs-gpu")
    assert only(check_server_gpus(place.visit())).status == "failed"
    add_node(place, "gpu-1", gpus=1, taints=[{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}])
    assert only(check_server_gpus(place.visit())).status == "ok"


# --- volumes


def storage_class(name: str, default: bool = False, late: bool = False) -> Json:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    mode = "WaitForFirstConsumer" if late else "Immediate"
    metadata = {"name": name, "annotations": annotations}
    kind = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass"}
    return {**kind, "metadata": metadata, "provisioner": "example.com/x", "volumeBindingMode": mode}


def claim(name: str, storage: str | None = None, mode: str = "ReadWriteOnce") -> Json:
    spec: Json = {"accessModes": [mode], "resources": {"requests": {"storage": "1Gi"}}}
    body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}}
    return {**body, "spec": {**spec, **({"storageClassName": storage} if storage is not None else {})}}


def test_a_default_storage_class_is_looked_for(place: Place) -> None:
    place.cluster.apply(storage_class("slow"))
    none = only(check_storage_classes(place.visit()))
    assert (none.status, "no default" in none.found, "is-default-class=true" in none.fix) == ("warning", True, True)
    place.cluster.apply(storage_class("fast", default=True))
    one = only(check_storage_classes(place.visit()))
    assert (one.status, "default fast" in one.found) == ("ok", True)
    place.cluster.apply(storage_class("third", default=True))
    assert only(check_storage_classes(place.visit())).status == "warning"


def test_a_claim_that_waits_is_told_unless_it_has_to(place: Place) -> None:
    place.cluster.apply(storage_class("now"), storage_class("later", late=True))
    place.apply(claim("waits-for-a-pod", "later"))
    assert only(check_claims(place.visit())).status == "ok"
    place.apply(claim("stuck", "now"))
    stuck = only(check_claims(place.visit()))
    assert (stuck.status, stuck.found) == ("failed", f"{place.namespace}/stuck waits: no volume of class 'now'")


def test_the_sites_cache_volume_must_be_one_for_several_pods(place: Place) -> None:
    wanting = place.visit(site=site(cache_volume={"claim": "cache"}))
    missing = check_claims(wanting)[-1]
    assert (missing.status, "there is no claim" in missing.found) == ("failed", True)
    place.cluster.apply(storage_class("later", late=True))
    place.apply(claim("cache", "later"))
    assert check_claims(wanting)[-1].status == "warning"
    place.cluster.kubectl("delete", "pvc", "cache", "-n", place.namespace, "--wait=false")
    place.apply(claim("shared", "later", "ReadWriteMany"))
    assert check_claims(place.visit(site=site(cache_volume={"claim": "shared"})))[-1].status == "ok"


# --- admission


def test_pod_security_labels_are_told(place: Place) -> None:
    assert "nothing is enforced" in only(check_pod_security(place.visit())).found
    place.cluster.kubectl("label", "namespace", place.namespace, "pod-security.kubernetes.io/enforce=restricted")
    assert only(check_pod_security(place.visit())).found == f"{place.namespace}: restricted, which pods of the manifests satisfy"


def test_pods_like_ours_are_let_in_where_the_strictest_level_is_enforced(place: Place) -> None:
    place.cluster.kubectl("label", "namespace", place.namespace, "pod-security.kubernetes.io/enforce=restricted")
    apply_overlay(place, "canary-s3-gateway-monitoring")
    found = check_admission(place.visit())
    assert [(each.check, each.status) for each in found] == [("admission (server)", "ok"), ("admission (steps)", "ok")], found
    assert place.cluster.objects("pods", "-n", place.namespace) == []


def test_a_template_that_breaks_the_rules_would_be_refused_and_nothing_is_made(place: Place) -> None:
    place.cluster.kubectl("label", "namespace", place.namespace, "pod-security.kubernetes.io/enforce=restricted")
    apply_overlay(place, "canary-s3-gateway-monitoring")
    patch = json.dumps([{"op": "add", "path": "/spec/template/spec/hostNetwork", "value": True}])
    place.cluster.kubectl("patch", "deployment", "classifier", "-n", place.namespace, "--type=json", "-p", patch)
    server = check_admission(place.visit())[0]
    assert (server.status, "violates PodSecurity" in server.found, "hostNetwork" in server.found) == ("failed", True, True)
    assert "kubectl label namespace" in server.fix
    assert place.cluster.objects("pods", "-n", place.namespace) == []


def quota(place: Place, hard: dict[str, str], used: dict[str, str]) -> None:
    place.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}})
    # There is no quota controller in this cluster.
    place.status("resourcequota", "q", {"hard": hard, "used": used})


def test_a_quota_that_is_used_up_is_told_and_so_is_room(place: Place) -> None:
    assert only(check_quotas(place.visit())).found == f"none in {place.namespace}"
    quota(place, {"pods": "3", "requests.memory": "8Gi"}, {"pods": "1", "requests.memory": "1Gi"})
    assert only(check_quotas(place.visit())).status == "ok"
    place.status("resourcequota", "q", {"used": {"pods": "3", "requests.memory": "1Gi"}})
    full = only(check_quotas(place.visit()))
    assert (full.status, full.found) == ("failed", f"{place.namespace}/q is used up: pods 3 of 3")


def test_a_step_that_does_not_fit_the_quota_is_told_by_the_dry_run(place: Place) -> None:
    quota(place, {"limits.memory": "4Gi"}, {"limits.memory": "0"})
    found = check_admission(place.visit())[-1]
    assert (found.check, found.status, "exceeded quota: q" in found.found) == ("admission (steps)", "failed", True), found
    assert "kubectl describe resourcequota" in found.fix


def test_a_limit_range_is_told_by_the_dry_run(place: Place) -> None:
    limits = [{"type": "Container", "max": {"memory": "1Gi"}}]
    place.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": {"limits": limits}})
    found = check_admission(place.visit())[-1]
    assert (found.status, "maximum memory usage" in found.found, "limitrange" in found.fix) == ("failed", True, True), found


# --- secrets, kinds, Kubeflow's own


def secret(name: str, **data: str) -> Json:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def test_secrets_that_pods_need_are_there_and_never_read(place: Place) -> None:
    apply_overlay(place, "canary-s3-gateway-monitoring")
    found = check_secrets(place.visit(site=site(image_pull_secrets=["pull"])))
    missing = {each.found.split(" ")[0] for each in found if each.status == "failed"}
    assert f"{place.namespace}/pull" in missing
    assert f"{place.namespace}/classifier-s3" in missing
    place.apply(secret("pull", password="hunter2"), secret("classifier-s3", password="hunter2"))
    after = check_secrets(place.visit(site=site(image_pull_secrets=["pull"])))
    assert [each for each in after if each.status == "failed"] == []
    assert "hunter2" not in repr(after)


def test_an_s3_store_needs_a_secret_in_the_runs_namespace(place: Place) -> None:
    assert check_s3_credentials(place.visit(store="gs://x")) == []
    missing = only(check_s3_credentials(place.visit(store="s3://x")))
    assert (missing.status, "kubectl create secret generic dual-store" in missing.fix) == ("warning", True)
    place.apply(secret("dual-store", AWS_ACCESS_KEY_ID="x"))
    assert only(check_s3_credentials(place.visit(store="s3://x"))).status == "ok"


def test_kinds_of_other_projects_are_told(place: Place) -> None:
    found = {each.check: each for each in check_kinds(place.visit())}
    # The cluster of the tests knows HTTPRoute, but no Gateway; ServiceMonitor and PrometheusRule; no metrics.
    assert "has no gateways" in found["component gateway"].found
    assert found["component monitoring"].found == "monitoring.coreos.com/v1 is known"
    assert (found["component hpa"].status, "not to be used here" in found["component hpa"].found) == ("ok", True)
    apply_overlay(place, "canary-gcs-hpa")
    needed = next(each for each in check_kinds(place.visit()) if each.check == "component hpa")
    assert (needed.status, "HorizontalPodAutoscaler classifier needs it" in needed.found) == ("failed", True)


STOCK = "spec:\n  templateDefaults:\n    retryStrategy:\n      limit: '2'\n      retryPolicy: OnError\n"


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        ({"workflowDefaults": STOCK}, "warning", "retryPolicy is OnError"),
        ({"config": "workflowDefaults:\n" + "".join(f"  {line}\n" for line in STOCK.splitlines())}, "warning", "retryPolicy is OnError"),
        ({"workflowDefaults": STOCK.replace("OnError", "Always")}, "ok", "by default Always"),
        ({"workflowDefaults": "spec: {ttlStrategy: {secondsAfterCompletion: 1}}"}, "ok", "no default"),
        ({}, "ok", "no default"),
    ],
)
def test_argos_default_retry_policy_is_read(place: Place, data: dict[str, str], status: str, words: str) -> None:
    assert only(check_argo(place.visit())).status == "skipped"
    place.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "workflow-controller-configmap"}, "data": data})
    found = only(check_argo(place.visit()))
    assert (found.status, words in found.found) == (status, True), found
    assert status == "ok" or "kubectl edit configmap workflow-controller-configmap" in found.fix


def deployment(name: str, image: str) -> Json:
    pod = {"metadata": {"labels": {"a": name}}, "spec": {"containers": [{"name": "main", "image": image}]}}
    spec = {"selector": {"matchLabels": {"a": name}}, "template": pod}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


PARTS = ["ml-pipeline", "ml-pipeline-persistenceagent", "ml-pipeline-scheduledworkflow", "workflow-controller"]


@pytest.mark.parametrize(
    ("tag", "status"), [("2.17.0", "ok"), ("2.18.3", "ok"), ("2.5.0", "warning"), ("1.8.5", "failed"), ("sha-abc", "warning")]
)
def test_kubeflows_parts_and_version_are_told(place: Place, tag: str, status: str) -> None:
    assert only(check_kfp_parts(place.visit())).status == "failed"
    place.apply(*(deployment(name, f"ghcr.io/kubeflow/kfp-api-server:{tag}") for name in PARTS))
    version, parts = check_kfp_parts(place.visit())
    assert (version.check, version.status) == ("kfp version", status)
    assert (parts.status, "workflow-controller has no pod that is ready" in parts.found) == ("failed", True)
    for name in PARTS:
        place.status("deployment", name, {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1})
    assert check_kfp_parts(place.visit())[1].status == "ok"


# --- images


def test_events_of_failed_pulls_are_told(place: Place) -> None:
    assert only(check_pulls(place.visit())).status == "ok"
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "reason": "Failed", "type": "Warning"}
    message = 'Failed to pull image "registry.example.com/x:1": 403 Forbidden'
    place.apply({**event, "message": message, "involvedObject": {"kind": "Pod", "name": "p", "namespace": place.namespace}})
    found = only(check_pulls(place.visit()))
    assert (found.status, found.found) == ("warning", message)


@contextmanager
def kubelet(place: Place, states: dict[str, Json]) -> Iterator[list[str]]:
    """Gives the doctor's pod the status that a kubelet would, by image; yields the pods that it saw."""
    ended, seen = threading.Event(), list[str]()

    def run() -> None:
        while not ended.is_set():
            for pod in place.cluster.objects("pods", "-n", place.namespace):
                name = pod["metadata"]["name"]
                if name in seen:
                    continue
                base = {"ready": False, "restartCount": 0}
                statuses = [
                    {**base, "name": each["name"], "image": each["image"], "imageID": "", **states[each["image"]]}
                    for each in pod["spec"]["containers"]
                ]
                place.status("pod", name, {"phase": "Pending", "containerStatuses": statuses})
                seen.append(name)
            time.sleep(0.05)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def test_images_are_pulled_by_a_pod_that_is_gone_afterwards(place: Place) -> None:
    place.cluster.kubectl("label", "namespace", place.namespace, "pod-security.kubernetes.io/enforce=restricted")
    waiting = {"reason": "ErrImagePull", "message": "pull access denied"}
    # An image that was pulled and has no such command: what is asked is answered.
    started = {"reason": "StartError", "exitCode": 128, "containerID": "containerd://x"}
    states = {
        "r.example/good:1": {"imageID": "sha256:1", "state": {"terminated": started}},
        "r.example/bad:1": {"state": {"waiting": waiting}},
    }
    with kubelet(place, states) as seen:
        good, bad = check_pulls_by_trying(place.visit(images=tuple(states), try_images=True, seconds=10))
    assert (good.status, bad.status) == ("ok", "failed")
    assert "ErrImagePull: pull access denied" in bad.found
    assert len(seen) == 1
    assert place.cluster.objects("pods", "-n", place.namespace) == []


def test_a_pod_that_nobody_starts_is_told_in_time_and_removed(place: Place) -> None:
    began = time.monotonic()
    found = only(check_pulls_by_trying(place.visit(images=("r.example/x:1",), try_images=True, seconds=1)))
    assert time.monotonic() - began < 5
    assert (found.status, "no node had pulled it" in found.found) == ("warning", True)
    assert place.cluster.objects("pods", "-n", place.namespace) == []


def test_nothing_is_tried_unless_it_was_asked_for(place: Place) -> None:
    assert check_pulls_by_trying(place.visit(images=("r.example/x:1",))) == []


def test_the_templates_images_are_looked_for_too(place: Place) -> None:
    assert only(check_images(place.visit())).status == "skipped"
    apply_overlay(place, "blue-green-http-local-server")
    told = " ".join(found.found for found in check_images(place.visit(seconds=2)))
    assert "dual-server:0.1.0" in told
    assert "dual-deployer:0.1.0" in told


# --- the whole, as a person calls it


def test_the_command_tells_and_leaves_with_its_own_code(place: Place) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "doctor", "--target", "kubeflow", "-n", place.namespace, "--json"]
    only_these = [part for name in ("cluster", "namespaces", "manifests", "rights", "gpus") for part in ("--only", name)]
    done = subprocess.run([*command, *only_these], env=place.cluster.environment, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert {each["check"] for each in found} >= {"cluster", "namespace", "manifests", "rights", "gpus"}, done.stderr
    assert set(found[0]) == {"check", "status", "found", "fix"}
    # There is no namespace kubeflow in this cluster.
    assert ("failed" in {each["status"] for each in found}, done.returncode) == (True, 6)
