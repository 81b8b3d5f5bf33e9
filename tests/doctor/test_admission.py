"""What a real API server lets in: Pod Security, quotas, limits, Secrets, kinds, and Kubeflow's own objects."""

import json
from typing import Any

import pytest

from pipelines.doctor.admission import check_admission, check_pod_security, check_quotas
from pipelines.doctor.kfp import check_argo, check_kfp_parts
from pipelines.doctor.kinds import check_kinds
from pipelines.doctor.secrets import check_s3_credentials, check_secrets
from tests.doctor.conftest import Place, only
from tests.doctor.pieces import apply_overlay, site

pytestmark = pytest.mark.cluster
Json = dict[str, Any]


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
