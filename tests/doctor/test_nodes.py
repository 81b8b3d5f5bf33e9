"""Nodes with GPUs, and volumes, in a real API server."""

from typing import Any

import pytest

from pipelines.doctor.gpus import check_gpus, check_server_gpus
from pipelines.doctor.storage import check_claims, check_storage_classes
from tests.doctor.conftest import Place, only
from tests.doctor.pieces import add_node, apply_overlay, site

pytestmark = pytest.mark.cluster
Json = dict[str, Any]


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
