"""What each identity may: the whole list that the API server's authorizer has for it, and `can-i` asked for every verb and resource.

What everybody who is logged in may (to ask for one's own rights, for example) is left out: it is what an account without any Role may.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from kubernetes import config

from tests.cluster.conftest import MANIFESTS, NAMESPACE, Cluster, make_namespace

pytestmark = pytest.mark.cluster

Right = tuple[str, str, str]
"""Verb, resource/part.group, name ("" means any)."""
VERBS = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "bind", "escalate", "impersonate"]


def rights(resource: str, verbs: str, *names: str) -> set[Right]:
    return {(verb, resource, name) for verb in verbs.split() for name in (names or [""])}


ROLLOUT = {
    *rights("deployments.apps", "get list watch create patch delete"),
    *rights("services", "get patch", "classifier", "classifier-preview"),
    *rights("configmaps", "get list watch create"),
    *rights("configmaps", "update patch", "classifier-rollout"),
    *rights("leases.coordination.k8s.io", "create"),
    *rights("leases.coordination.k8s.io", "get update", "classifier-rollout"),
    *rights("pods", "get list watch"),
    *rights("pods/log", "get"),
    *rights("endpointslices.discovery.k8s.io", "list"),
    *rights("events", "create patch"),
    *rights("events.events.k8s.io", "create patch"),
    *rights("horizontalpodautoscalers.autoscaling", "get list create patch delete"),
}
GATEWAY = rights("httproutes.gateway.networking.k8s.io", "get patch", "classifier")
INFRA_CHECK = rights("pods", "create delete") | rights("events", "list")
HOLDER = rights("services", "get watch", "classifier")
COMBINATIONS: list[tuple[str, str, set[Right]]] = [
    ("canary-gcs-hpa", f"{NAMESPACE}:classifier-rollout", ROLLOUT),
    ("canary-gcs-hpa", f"{NAMESPACE}:classifier-server", set()),
    ("canary-gcs-hpa", f"{NAMESPACE}:default", set()),
    ("canary-gcs-hpa", "kubeflow:pipeline-runner", set()),
    ("canary-s3-gateway-monitoring", f"{NAMESPACE}:classifier-rollout", ROLLOUT | GATEWAY),
    ("canary-s3-follower", f"{NAMESPACE}:classifier-follower", ROLLOUT),
    ("canary-s3-follower", f"{NAMESPACE}:classifier-server", set()),
    ("canary-pvc-local-server-follower", f"{NAMESPACE}:classifier-follower", ROLLOUT),
    ("everything", f"{NAMESPACE}:classifier-follower", ROLLOUT | GATEWAY | INFRA_CHECK),
    ("canary-pvc-pipeline-runner-infra-check", f"{NAMESPACE}:classifier-rollout", ROLLOUT | INFRA_CHECK),
    ("canary-pvc-pipeline-runner-infra-check", "kubeflow:pipeline-runner", ROLLOUT | INFRA_CHECK),
    ("canary-pvc-pipeline-runner-infra-check", f"{NAMESPACE}:classifier-server", set()),
    ("labels-gcs-gpu", f"{NAMESPACE}:classifier-server", HOLDER),
    ("labels-gcs-gpu", f"{NAMESPACE}:classifier-rollout", ROLLOUT),
    ("labels-gcs-gpu", f"{NAMESPACE}:default", set()),
]
EVERYWHERE = [NAMESPACE, "kube-system", "kubeflow", "default"]


class Authorizer:
    """Asks the API server what ServiceAccounts, written `namespace:name`, may."""

    def __init__(self, cluster: Cluster) -> None:
        self._api: Any = config.new_client_from_config(cluster.environment["KUBECONFIG"])
        self.resources = sorted(_resources(cluster))

    def listed(self, account: str, namespace: str) -> set[Right]:
        """All rights of an account in a namespace, those for the whole cluster included."""
        # Its groups, which may have rights too, come by themselves.
        user, _ = _identity(account)
        status = self._post("selfsubjectrulesreviews", {"namespace": namespace}, {"Impersonate-User": user})
        assert not status["incomplete"]
        return {right for rule in status["resourceRules"] for right in _rights_of(rule)}

    def may(self, account: str, right: Right, namespace: str = NAMESPACE) -> bool:
        """`kubectl auth can-i`."""
        verb, resource, name = right
        whole, _, group = resource.partition(".")
        kind, _, part = whole.partition("/")
        user, groups = _identity(account)
        asked = {"verb": verb, "group": group, "resource": kind, "subresource": part, "name": name, "namespace": namespace}
        return self._post("subjectaccessreviews", {"user": user, "groups": groups, "resourceAttributes": asked}, {})["allowed"]

    def _post(self, kind: str, spec: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        path = f"/apis/authorization.k8s.io/v1/{kind}"
        answer = self._api.call_api(
            path, "POST", body={"spec": spec}, header_params=headers, _preload_content=False, _return_http_data_only=True
        )
        return json.loads(answer.data)["status"]


def _identity(account: str) -> tuple[str, list[str]]:
    namespace = account.partition(":")[0]
    return f"system:serviceaccount:{account}", ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]


def _rights_of(rule: dict[str, Any]) -> Iterator[Right]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                for name in rule.get("resourceNames") or [""]:
                    yield verb, f"{resource}.{group}".rstrip("."), name


def _resources(cluster: Cluster) -> Iterator[str]:
    """Every resource and subresource that the API server knows."""
    groups = json.loads(cluster.kubectl("get", "--raw", "/apis").stdout)["groups"]
    for path in ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)]:
        found = json.loads(cluster.kubectl("get", "--raw", path).stdout)
        group = found["groupVersion"].rpartition("/")[0]
        yield from (f"{each['name']}.{group}".rstrip(".") for each in found["resources"])


@pytest.fixture(scope="module")
def authorizer(quiet_cluster: Cluster) -> Authorizer:
    return Authorizer(quiet_cluster)


def nobody(account: str) -> str:
    """An account of the same namespace that has no Role."""
    return f"{account.partition(':')[0]}:nobody"


@pytest.fixture
def applied(quiet_cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """The identities of one combination."""
    make_namespace(quiet_cluster, NAMESPACE)
    quiet_cluster.apply(*roles(quiet_cluster, request.param))
    yield request.param
    quiet_cluster.kubectl("delete", "roles,rolebindings,serviceaccounts", "--all", "-n", NAMESPACE)


def _title(value: object) -> str:
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(("applied", "account", "expected"), COMBINATIONS, indirect=["applied"], ids=_title)
def test_an_identity_has_these_rights_and_no_others(authorizer: Authorizer, applied: str, account: str, expected: set[Right]) -> None:
    for namespace in EVERYWHERE:
        found = authorizer.listed(account, namespace) - authorizer.listed(nobody(account), namespace)
        assert found == (expected if namespace == NAMESPACE else set()), namespace


@pytest.mark.parametrize("applied", ["canary-s3-gateway-monitoring"], indirect=True)
def test_can_i_agrees_for_every_verb_and_resource(authorizer: Authorizer, applied: str) -> None:
    rollout, server = f"{NAMESPACE}:classifier-rollout", f"{NAMESPACE}:classifier-server"
    must = ROLLOUT | GATEWAY
    assert {right for right in must if not authorizer.may(rollout, right)} == set()
    everything = {(verb, resource, "") for verb in VERBS for resource in authorizer.resources}
    for account, allowed in ((rollout, must), (server, set[Right]())):
        wrong = {right for right in everything - allowed if authorizer.may(account, right)}
        assert {right for right in wrong if not authorizer.may(nobody(account), right)} == set()


@pytest.mark.parametrize("applied", ["canary-s3-gateway-monitoring"], indirect=True)
@pytest.mark.parametrize(
    "right",
    [
        ("get", "secrets", "classifier-s3"),
        ("patch", "services", "another"),
        ("delete", "services", "classifier"),
        ("update", "configmaps", "classifier-store"),
        ("patch", "configmaps", "classifier-rollout-settings"),
        ("delete", "configmaps", "classifier-rollout"),
        ("patch", "httproutes.gateway.networking.k8s.io", "another"),
        ("create", "pods", ""),
        ("create", "pods/exec", ""),
        ("create", "serviceaccounts/token", "classifier-server"),
        ("patch", "roles.rbac.authorization.k8s.io", "classifier-rollout"),
        ("patch", "nodes", ""),
    ],
    ids=lambda right: " ".join(right).strip(),
)
def test_the_rollout_may_not(authorizer: Authorizer, applied: str, right: Right) -> None:
    assert not authorizer.may(f"{NAMESPACE}:classifier-rollout", right)


def test_a_token_of_the_rollout_is_refused_what_it_may_not(quiet_cluster: Cluster) -> None:
    """Not the authorizer's opinion but its effect."""
    make_namespace(quiet_cluster, NAMESPACE)
    quiet_cluster.apply(*roles(quiet_cluster, "canary-gcs-hpa"))
    token = quiet_cluster.kubectl("create", "token", "classifier-rollout", "-n", NAMESPACE).stdout.strip()
    for arguments, allowed in ((["get", "deployments"], True), (["get", "secrets"], False), (["get", "nodes"], False)):
        done = quiet_cluster.kubectl(*without_certificate(quiet_cluster), "--token", token, "-n", NAMESPACE, *arguments, check=False)
        assert ("Forbidden" not in done.stderr) == allowed, done.stderr


def without_certificate(cluster: Cluster) -> list[str]:
    """Flags for a kubectl that knows the server but not the administrator."""
    view = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json").stdout)
    return ["--kubeconfig", "/dev/null", "--server", view["clusters"][0]["cluster"]["server"], "--insecure-skip-tls-verify"]


def roles(cluster: Cluster, name: str) -> Iterable[dict[str, Any]]:
    """The identities of a combination."""
    built = cluster.build(MANIFESTS / "tests" / name)
    return [each for each in built if each["kind"] in ("Role", "RoleBinding", "ServiceAccount")]
