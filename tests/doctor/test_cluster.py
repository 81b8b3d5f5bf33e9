"""A real API server: its version, namespaces, what is applied, and every right that a rollout needs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.doctor.cluster import check_cluster, check_namespaces, check_objects
from pipelines.doctor.rights import BASE, COMPONENTS, Rule, check_rights, expand
from tests.cluster.conftest import MANIFESTS, Cluster
from tests.doctor.conftest import Place, only
from tests.doctor.pieces import apply_overlay, site

pytestmark = pytest.mark.cluster
Json = dict[str, Any]


def test_the_api_server_tells_its_version_and_who_asks(place: Place) -> None:
    found = only(check_cluster(place.visit()))
    assert found.status == "ok"
    assert "Kubernetes v1." in found.found
    assert "as kubernetes-admin" in found.found or "as " in found.found


def test_a_namespace_that_is_not_there_is_told_with_the_command(place: Place) -> None:
    assert only(check_namespaces(place.visit())).status == "ok"
    missing = only(check_namespaces(place.visit(namespace="nowhere", connection=None, target="vertex")))
    assert (missing.status, "kubectl create namespace nowhere" in missing.fix) == ("failed", True)


def test_manifests_that_are_not_applied_are_told(place: Place) -> None:
    missing = only(check_objects(place.visit()))
    assert (missing.status, "Deployment classifier" in missing.found, "kubectl apply -k" in missing.fix) == ("warning", True, True)
    apply_overlay(place, "canary-s3-gateway-monitoring")
    found = check_objects(place.visit(store="s3://elsewhere/x"))
    assert [each.status for each in found] == ["ok", "warning"]
    assert "server pods read s3://" in found[1].found


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
