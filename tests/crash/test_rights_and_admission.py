"""Rights that are taken away, a namespace that is being deleted, a policy that refuses: by the API server's own rules, with a way out."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client.exceptions import ApiException

from components.core.errors import RolloutError
from serving.rollout.cluster import api as api_module
from serving.rollout.cluster.api import Api, ClusterError, ForbiddenError, Json, connect
from serving.rollout.cluster.objects import Live
from tests.conftest import ROOT
from tests.crash.cluster_site import route
from tests.crash.stage import Act, Scene, Stage
from tests.crash.starts import stand

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
USER = "somebody"
RULES: list[Json] = next(
    each["rules"] for each in yaml.safe_load_all((ROOT / "manifests" / "base" / "rollout.yaml").read_text()) if each["kind"] == "Role"
)
ROUTES = {"apiGroups": ["gateway.networking.k8s.io"], "resources": ["httproutes"], "verbs": ["get", "patch"]}


def raw(stage: Stage, verb: str, path: str, body: Any = None) -> Json:
    """A request that a rollout does not make."""
    how: Any = {"auth_settings": ["BearerToken"], "_preload_content": False, "_return_http_data_only": True}
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    return json.loads(stage.api._client.call_api(path, verb, body=body, header_params=headers, **how).data)


class Rights:
    """What `somebody` may do in the namespace: what the manifests' Role says, until it is taken away."""

    def __init__(self, stage: Stage, kubeconfig: Path) -> None:
        """Everything is allowed."""
        self._stage, self._folder = stage, f"{RBAC}/{stage.api.namespace}"
        subject = {"kind": "User", "name": USER, "apiGroup": "rbac.authorization.k8s.io"}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "rollout"}
        self._rules([*RULES, ROUTES], "POST")
        raw(stage, "POST", f"{self._folder}/rolebindings", {"metadata": {"name": "rollout"}, "roleRef": reference, "subjects": [subject]})
        self._client = connect("default", kubeconfig=kubeconfig)._client
        self._client.set_default_header("Impersonate-User", USER)
        self._await("get", "services", allowed=True)

    def seen(self) -> Stage:
        """The stage as that identity sees it."""
        return Stage(Api(self._client, self._stage.api.namespace, patience=20), self._stage.channel)

    def _rules(self, rules: list[Json], verb: str = "PUT") -> None:
        path = f"{self._folder}/roles" + ("/rollout" if verb == "PUT" else "")
        raw(self._stage, verb, path, {"metadata": {"name": "rollout"}, "rules": rules})

    def take(self, verb: str, resource: str) -> None:
        """Take one verb on one resource away; returns when that is in force."""
        rules = [*RULES, ROUTES]
        kept = [[each for each in rule["verbs"] if each != verb or resource not in rule["resources"]] for rule in rules]
        self._rules([{**rule, "verbs": verbs} for rule, verbs in zip(rules, kept, strict=True) if verbs])
        self._await(verb, resource, allowed=False)

    def take_all(self) -> None:
        """Take everything away."""
        self._rules([])
        self._await("get", "services", allowed=False)

    def give(self) -> None:
        """Everything is allowed again."""
        self._rules([*RULES, ROUTES])
        for rule in [*RULES, ROUTES]:
            self._await(rule["verbs"][-1], rule["resources"][0], allowed=True)

    def _await(self, verb: str, resource: str, *, allowed: bool) -> None:
        rule = next(each for each in [*RULES, ROUTES] if resource in each["resources"] and verb in each["verbs"])
        group, name = rule["apiGroups"][0], rule.get("resourceNames", [""])[0]
        resource, _, below = resource.partition("/")
        what = {"namespace": self._stage.api.namespace, "verb": verb, "group": group, "resource": resource, "subresource": below}
        review = {"spec": {"user": USER, "resourceAttributes": {**what, "name": name}}}
        deadline = time.monotonic() + 20
        while raw(self._stage, "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]["allowed"] != allowed:
            assert time.monotonic() < deadline, f"{verb} {resource} never became {'allowed' if allowed else 'forbidden'}"
            time.sleep(0.02)


@pytest.fixture
def rights(stage: Stage, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Rights:
    monkeypatch.setattr(api_module, "_RIGHTS_SECONDS", 0.3)
    return Rights(stage, kubeconfig)


def at(moment: str, *acts: Act) -> Scene:
    scene = Scene()
    scene.at[moment] = list(acts)
    return scene


# --- rights -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["canary", "blue-green", "recreate"])
def test_the_manifests_role_is_enough(stage: Stage, rights: Rights, strategy: str) -> None:
    assert rights.seen().run("b", strategy=strategy).error is None
    stage.has_all("b")
    assert "failed" in str(rights.seen().run("c", Scene(outcomes=["failed"]), strategy=strategy).error)
    stage.has_all("b")


@pytest.mark.parametrize("phase", ["prepare", "canary", "analyze", "promote", "post_analysis", "drain"])
def test_all_rights_taken_away_in_the_middle(stage: Stage, rights: Rights, phase: str) -> None:
    scene = rights.seen().run("b", at(phase, rights.take_all), strategy="canary")
    assert isinstance(scene.error, ForbiddenError)
    assert f"{stage.api.namespace}/classifier" in str(scene.error)
    assert "Give this identity the Role classifier-rollout" in str(scene.error)
    # Nothing is known and nothing was changed.
    assert stage.state().phase == phase
    rights.give()
    assert rights.seen().run("b", strategy="canary").error is None
    stage.has_all("b")


def test_the_right_to_move_traffic_taken_away_before_the_switch(stage: Stage, rights: Rights) -> None:
    scene = rights.seen().run("b", at("promote", lambda: rights.take("patch", "services")))
    assert isinstance(scene.error, RolloutError)
    assert f"Service {stage.api.namespace}/classifier: not allowed to PATCH it" in str(scene.error)
    stage.has_all("a")


def test_the_right_to_move_traffic_taken_away_under_a_weight(stage: Stage, rights: Rights) -> None:
    scene = at("analyze", lambda: rights.take("patch", "services"))
    scene.outcomes = ["failed"]
    assert isinstance(rights.seen().run("b", scene, strategy="canary").error, ForbiddenError)
    # Traffic could not be taken back: so no pod that has some of it was ended.
    assert stage.state().phase == "aborting"
    assert stage.live() == Live(stage.revision("a"), shared=True)
    assert stage.pods() == {"a": 3, "b": 1}
    rights.give()
    assert "the analysis failed" in str(rights.seen().run("b", strategy="canary").error)
    stage.has_all("a")


def test_the_right_to_save_taken_away(stage: Stage, rights: Rights) -> None:
    scene = rights.seen().run("b", at("analyze", lambda: rights.take("update", "configmaps")), strategy="canary")
    assert isinstance(scene.error, ForbiddenError)
    assert f"ConfigMap {stage.api.namespace}/classifier-rollout: not allowed to PUT it" in str(scene.error)
    assert stage.state().phase == "analyze"
    rights.give()
    assert rights.seen().run("b", strategy="canary").error is None
    stage.has_all("b")


@pytest.mark.parametrize("resource", ["pods/log", "events"])
def test_rights_that_a_rollout_can_do_without(stage: Stage, rights: Rights, resource: str) -> None:
    rights.take("get" if resource == "pods/log" else "create", resource)
    assert rights.seen().run("b", strategy="canary").error is None
    stage.has_all("b")


def test_a_route_that_may_not_be_seen_any_more_is_not_taken_for_none(stage: Stage, rights: Rights, gateway_api: None) -> None:
    del gateway_api
    stage.api.create("HTTPRoute", route())
    stand(stage, "analyze", strategy="canary")
    before = weights(stage)
    assert before == [75, 25]
    rights.take("get", "httproutes")
    scene = rights.seen().run("c", strategy="canary")
    assert isinstance(scene.error, ForbiddenError)
    assert f"HTTPRoute {stage.api.namespace}/classifier: not allowed to GET it" in str(scene.error)
    # The candidate that has the weight keeps it, its pods, and the Service that leads to them.
    assert weights(stage) == before
    assert stage.selector("classifier-preview")["dual.dev/revision"] == stage.revision("b")
    assert stage.pods() == {"a": 3, "b": 1}
    rights.give()
    assert rights.seen().run("c", strategy="canary").error is None
    assert weights(stage) == [100, 0]
    stage.has_all("c")


def weights(stage: Stage) -> list[int]:
    return [each["weight"] for each in stage.api.get("HTTPRoute", "classifier")["spec"]["rules"][0]["backendRefs"]]


# --- a namespace that is being deleted --------------------------------------------------------------------------------------------


def end(stage: Stage) -> None:
    """What kubectl delete namespace does; no controller takes the objects away here."""
    raw(stage, "DELETE", f"/api/v1/namespaces/{stage.api.namespace}")


def test_a_first_deployment_into_a_namespace_that_is_being_deleted(empty_stage: Stage) -> None:
    end(empty_stage)
    scene = empty_stage.run("a")
    assert type(scene.error) is ClusterError
    assert f"ConfigMap {empty_stage.api.namespace}/classifier-rollout: its namespace is being deleted: " in str(scene.error)
    assert "apply the manifests to a namespace that stays" in str(scene.error)


def test_a_namespace_deleted_before_the_candidate_is_there(stage: Stage) -> None:
    assert stage.run("c").error is None
    assert stage.run("a").error is None
    began = time.monotonic()
    scene = stage.run("b", at("prepare", lambda: end(stage)))
    assert isinstance(scene.error, RolloutError)
    assert f"Deployment {stage.api.namespace}/{stage.deployment('b')}: its namespace is being deleted: " in str(scene.error)
    # It is no right that might come back.
    assert time.monotonic() - began < api_module._RIGHTS_SECONDS
    stage.has_all("a")


def test_objects_that_go_one_by_one_end_the_run(stage: Stage) -> None:
    def go() -> None:
        end(stage)
        for kind, name in (("Deployment", stage.deployment("b")), ("Service", "classifier"), ("ConfigMap", "classifier-rollout")):
            stage.delete(kind, name)

    scene = stage.run("b", at("analyze", go), strategy="canary")
    assert "the state was deleted" in str(scene.error)


# --- policies ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def forbid(stage: Stage, request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Makes the cluster's own policy refuse a kind; returns when that is in force."""

    def make(resource: str, operation: str) -> None:
        name, label = f"{stage.api.namespace}-{resource}", {"kubernetes.io/metadata.name": stage.api.namespace}
        rule = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": [operation], "resources": [resource]}
        match = {"resourceRules": [rule], "namespaceSelector": {"matchLabels": label}}
        validations = [{"expression": "false", "message": "not on a Friday", "reason": "Forbidden"}]
        raw(
            stage,
            "POST",
            f"{ADMISSION}/validatingadmissionpolicies",
            {"metadata": {"name": name}, "spec": {"matchConstraints": match, "validations": validations}},
        )
        binding = {"policyName": name, "validationActions": ["Deny"]}
        raw(stage, "POST", f"{ADMISSION}/validatingadmissionpolicybindings", {"metadata": {"name": name}, "spec": binding})
        for folder in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
            request.addfinalizer(lambda folder=folder: raw(stage, "DELETE", f"{ADMISSION}/{folder}/{name}"))

    return make


def is_refused(stage: Stage, path: str) -> bool:
    body = [{"op": "add", "path": "/metadata/annotations/x", "value": "y"}]
    try:
        how: Any = {"auth_settings": ["BearerToken"], "_preload_content": False, "query_params": [("dryRun", "All")]}
        headers = {"Content-Type": "application/json-patch+json", "Accept": "application/json"}
        stage.api._client.call_api(path, "PATCH", body=body, header_params=headers, **how)
    except ApiException as error:
        return error.status == 403
    return False


def test_a_policy_that_refuses_is_no_missing_right(stage: Stage, forbid: Callable[[str, str], None]) -> None:
    services = f"/api/v1/namespaces/{stage.api.namespace}/services/classifier"

    def refuse() -> None:
        forbid("services", "UPDATE")
        deadline = time.monotonic() + 30
        while not is_refused(stage, services):
            assert time.monotonic() < deadline, "the policy never came into force"
            time.sleep(0.05)

    scene = stage.run("b", at("promote", refuse))
    assert isinstance(scene.error, RolloutError)
    assert f"Service {stage.api.namespace}/classifier: the API server refused to PATCH it (403): " in str(scene.error)
    assert "denied request: not on a Friday" in str(scene.error)
    assert "Correct what it names" in str(scene.error)
    assert "Role" not in str(scene.error)
    stage.has_all("a")
