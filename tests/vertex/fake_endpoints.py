"""Models and endpoints of Vertex AI in this process: the documented v1 REST, what it refuses, and deployed models that really answer.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.models and …/projects.locations.endpoints
"""

import json
import random
import re
import threading
import time
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.kubeflow.fake_kfp import Answer, Request, as_json
from tests.vertex.fake_vertex import PARENT, REGION, TOKEN, Refusal, denied, invalid
from tests.vertex.filters import matches
from tests.vertex.rest_checks import endpoint_value, known, label_only, labelled, last, named, page, shown

NUMBERED = f"projects/123/locations/{REGION}"
"""Google answers with the project's number, whatever it was asked by."""
_MODEL = {"displayName", "description", "versionDescription", "versionAliases", "labels", "artifactUri", "containerSpec"}
_CONTAINER = {"imageUri", "command", "args", "env", "ports", "predictRoute", "healthRoute"}
_ENDPOINT = {"displayName", "description", "labels", "trafficSplit", "dedicatedEndpointEnabled"}
_DEPLOYED = {"id", "model", "displayName", "dedicatedResources", "serviceAccount"}
_MUTABLE = {"displayName", "description", "labels", "trafficSplit"}
Json = dict[str, Any]


@dataclass
class Behaviour:
    """How the containers of one release answer."""

    labels: dict[bytes, tuple[str, list[float]]] = field(default_factory=dict)
    """Image → label and probabilities."""
    seconds: float = 0.0
    failing: float = 0.0
    """Share of requests that fail."""
    status: int = 500
    names_itself: bool = False
    """Whether a failure says whose it was."""


@dataclass
class FakeEndpoints:
    """One project and region. `behaviours` by release; `guard` may refuse a request, or answer it."""

    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    guard: Callable[[Request], Answer | None] = lambda _: None
    requests: list[Request] = field(default_factory=list)
    models: dict[str, list[Json]] = field(default_factory=dict)
    """Id → versions, oldest first."""
    endpoints: dict[str, Json] = field(default_factory=dict)
    operations: dict[str, Json] = field(default_factory=dict)
    polls: int = 1
    """So often is an operation answered as not done."""
    fails: dict[str, Json] = field(default_factory=dict)
    """Method (upload, deployModel …) → the google.rpc.Status that its operation ends with."""
    watch: list[Callable[[str], None]] = field(default_factory=list)
    """Told of every change, after it."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    chance: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311
    number: int = 4_000
    url: str = ""

    def answer(self, request: Request) -> Answer:
        """One request of somebody with a token."""
        self.requests.append(request)
        try:
            if f"Bearer {TOKEN}" not in request.headers.values():
                raise Refusal(401, "Request had invalid authentication credentials.")
            if (guarded := self.guard(request)) is not None:
                return guarded
            if request.path.endswith(":predict"):
                return self._predict(request)
            with self.lock:
                found = self._route(request)
            if request.method != "GET":
                for tell in self.watch:
                    tell(f"{request.method} {request.path}")
            return as_json(found)
        except ValueError as error:
            return as_json(invalid("filter", f"can't be parsed: {error}").body, 400)
        except Refusal as refusal:
            return as_json(refusal.body, refusal.code)

    def writes(self) -> list[Request]:
        """Requests that were to change something."""
        return [each for each in self.requests if each.method != "GET" and not each.path.endswith(":predict")]

    def only(self) -> Json:
        """The one endpoint."""
        (found,) = self.endpoints.values()
        return found

    def shares(self) -> dict[str, int]:
        """Release → percent of the one endpoint's traffic, without those that have none."""
        endpoint = self.only()
        names = {each["id"]: each["displayName"].rpartition("-")[2] for each in endpoint["deployedModels"]}
        return {names[identity]: share for identity, share in endpoint["trafficSplit"].items() if share}

    def deployed(self) -> list[str]:
        """Releases that are deployed, in the order in which they were."""
        return [each["displayName"].rpartition("-")[2] for each in self.only()["deployedModels"]]

    def _route(self, request: Request) -> Json:
        path = request.path.removeprefix("/v1/")
        for parent in (PARENT, NUMBERED):
            path = path.removeprefix(f"{parent}/")
        if path == request.path.removeprefix("/v1/"):
            raise denied("Permission 'aiplatform.endpoints.get' denied on resource (or it may not exist).")
        for method, pattern, act in _ROUTES:
            if request.method == method and (match := re.fullmatch(pattern, path)):
                return act(self, request, *match.groups())
        raise Refusal(404, "Method not found.")

    # --- models -------------------------------------------------------------------------------------------------------------------

    def upload(self, request: Request) -> Json:
        """models.upload: a new Model, or a version of one."""
        body = json.loads(request.body)
        known(body, {"model", "modelId", "parentModel", "serviceAccount"}, "request")
        model, identity = body["model"], body.get("modelId", "")
        known(model, _MODEL, "model")
        known(model.get("containerSpec", {}), _CONTAINER, "model.container_spec")
        named(model, "model")
        if not model.get("containerSpec", {}).get("imageUri"):
            raise invalid("model.container_spec.image_uri", "is required")
        if not model.get("artifactUri", "").startswith("gs://"):
            raise invalid("model.artifact_uri", "must be a Cloud Storage path")
        if body.get("parentModel"):
            identity = last(body["parentModel"])
            if identity not in self.models:
                raise Refusal(404, f"The Model {identity} does not exist.")
        elif not re.fullmatch(r"[a-z_][a-z0-9_-]{0,62}", identity):
            raise invalid("model_id", "does not match [a-z_][a-z0-9_-]{0,62}")
        elif identity in self.models:
            raise Refusal(409, f"The Model {identity} already exists.")

        def do() -> Json:
            versions = self.models.setdefault(identity, [])
            name, number = f"{NUMBERED}/models/{identity}", str(len(versions) + 1)
            # A container's specification is input only.
            kept = {key: value for key, value in model.items() if key != "containerSpec"}
            versions.append({**kept, "name": name, "versionId": number, "versionCreateTime": f"2026-11-26T03:00:{len(versions):02}Z"})
            return {"model": name, "modelVersionId": number}

        return self._operation("upload", f"models/{identity}", do)

    def get_model(self, _: Request, identity: str) -> Json:
        """models.get: the default version, or the one after `@`."""
        name, version = [*identity.split("@"), ""][:2]
        versions = self.models.get(name, [])
        found = [each for each in versions if version in ("", each["versionId"])]
        if not found:
            raise Refusal(404, f"The Model {identity} does not exist.")
        return found[0]

    def list_versions(self, request: Request, identity: str) -> Json:
        """models.listVersions."""
        self.get_model(request, identity)
        asked = request.query.get("filter", "")
        found = [each for each in self.models[identity] if matches(each, asked, label_only)]
        return page([{**each, "name": f"{each['name']}@{each['versionId']}"} for each in found], request, "models")

    # --- endpoints ----------------------------------------------------------------------------------------------------------------

    def create_endpoint(self, request: Request) -> Json:
        """endpoints.create."""
        body, identity = json.loads(request.body), request.query.get("endpointId", "")
        known(body, _ENDPOINT, "endpoint")
        named(body, "endpoint")
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?|[1-9][0-9]{0,8}", identity):
            raise invalid("endpoint_id", f"'{identity}' is no id")
        if identity in self.endpoints:
            raise Refusal(409, f"The Endpoint {identity} already exists.")

        def do() -> Json:
            self.endpoints[identity] = {"deployedModels": [], "trafficSplit": {}, **body, "name": f"{NUMBERED}/endpoints/{identity}"}
            self._touch(self.endpoints[identity])
            return self.endpoints[identity]

        return self._operation("create", f"endpoints/{identity}", do)

    def list_endpoints(self, request: Request) -> Json:
        """endpoints.list."""
        asked = request.query.get("filter", "")
        found = [each for each in self.endpoints.values() if matches(each, asked, endpoint_value)]
        return page(found, request, "endpoints")

    def get_endpoint(self, _: Request, identity: str) -> Json:
        """endpoints.get."""
        return self._endpoint(identity)

    def patch_endpoint(self, request: Request, identity: str) -> Json:
        """endpoints.patch: what the mask names, if the etag is the current one (or none was sent)."""
        endpoint, body = self._endpoint(identity), json.loads(request.body)
        mask = [each for each in request.query.get("updateMask", "").split(",") if each]
        if not mask:
            raise invalid("update_mask", "is required")
        if wrong := set(mask) - _MUTABLE:
            raise invalid("update_mask", f"{min(wrong)} can't be changed")
        if body.get("etag") not in (None, endpoint["etag"]):
            raise Refusal(409, "The etag does not match the current one: the Endpoint has been changed.", status="ABORTED")
        if "trafficSplit" in mask:
            self._check_split(endpoint, body.get("trafficSplit", {}))
        labelled(body.get("labels", {}), "endpoint")
        endpoint.update({name: body.get(name, {}) for name in mask})
        self._touch(endpoint)
        return endpoint

    def deploy(self, request: Request, identity: str) -> Json:
        """endpoints.deployModel."""
        endpoint, body = self._endpoint(identity), json.loads(request.body)
        known(body, {"deployedModel", "trafficSplit"}, "request")
        model = body["deployedModel"]
        known(model, _DEPLOYED, "deployed_model")
        if not re.fullmatch(r"[0-9]{1,10}", model.get("id", "1")):
            raise invalid("deployed_model.id", "must be 1-10 characters of [0-9]")
        present = [each["id"] for each in endpoint["deployedModels"]]
        if model.get("id") in present or self._goes_on(f"endpoints/{identity}", model.get("id", "")):
            raise Refusal(409, f"DeployedModel {model['id']} already exists.")
        self.get_model(request, last(model["model"]))
        if not model.get("dedicatedResources", {}).get("machineSpec", {}).get("machineType"):
            raise invalid("deployed_model.dedicated_resources.machine_spec.machine_type", "is required")
        if not 1 <= model["dedicatedResources"]["minReplicaCount"] <= model["dedicatedResources"]["maxReplicaCount"]:
            raise invalid("deployed_model.dedicated_resources", "max_replica_count must be at least min_replica_count, which is at least 1")

        def do() -> Json:
            resource, _, version = model["model"].partition("@")
            made = {**model, "model": f"{NUMBERED}/models/{last(resource)}", "modelVersionId": version or "1"}
            endpoint["deployedModels"].append(made)
            if body.get("trafficSplit"):
                self._check_split(endpoint, {made["id"] if k == "0" else k: v for k, v in body["trafficSplit"].items()})
                endpoint["trafficSplit"] = {made["id"] if k == "0" else k: v for k, v in body["trafficSplit"].items()}
            self._touch(endpoint)
            return {"deployedModel": made}

        return self._operation("deployModel", f"endpoints/{identity}", do, about=model.get("id", ""))

    def undeploy(self, request: Request, identity: str) -> Json:
        """endpoints.undeployModel."""
        endpoint, body = self._endpoint(identity), json.loads(request.body)
        known(body, {"deployedModelId", "trafficSplit"}, "request")
        gone = body["deployedModelId"]
        if gone not in [each["id"] for each in endpoint["deployedModels"]]:
            raise Refusal(404, f"DeployedModel {gone} is not on this Endpoint.")
        if body.get("trafficSplit", endpoint["trafficSplit"]).get(gone):
            raise Refusal(400, f"DeployedModel {gone} has traffic assigned to it.", status="FAILED_PRECONDITION")

        def do() -> Json:
            if endpoint["trafficSplit"].get(gone):
                raise Refusal(400, f"DeployedModel {gone} has traffic assigned to it.", status="FAILED_PRECONDITION")
            endpoint["deployedModels"] = [each for each in endpoint["deployedModels"] if each["id"] != gone]
            endpoint["trafficSplit"].pop(gone, None)
            self._touch(endpoint)
            return {}

        return self._operation("undeployModel", f"endpoints/{identity}", do, about=f"-{gone}")

    def _check_split(self, endpoint: Json, split: Json) -> None:
        present = {each["id"] for each in endpoint["deployedModels"]}
        if unknown := set(split) - present:
            raise invalid("endpoint.traffic_split", f"there is no DeployedModel {min(unknown)}")
        if not all(isinstance(share, int) and 0 <= share <= 100 for share in split.values()):
            raise invalid("endpoint.traffic_split", "must be whole percents")
        if split and sum(split.values()) != 100:
            raise invalid("endpoint.traffic_split", f"must add up to 100, not {sum(split.values())}")

    def _endpoint(self, identity: str) -> Json:
        if identity not in self.endpoints:
            raise Refusal(404, f"The Endpoint {identity} does not exist.")
        return self.endpoints[identity]

    def _touch(self, endpoint: Json) -> None:
        self.number += 1
        endpoint["etag"] = f"AMEw9y{self.number}"

    # --- operations ---------------------------------------------------------------------------------------------------------------

    def _operation(self, method: str, resource: str, do: Callable[[], Json], about: str = "") -> Json:
        self.number += 1
        name = f"{NUMBERED}/{resource}/operations/{self.number}"
        self.operations[name] = {"name": name, "left": self.polls, "do": do, "method": method, "about": about, "done": False}
        return self._further(name)

    def _goes_on(self, resource: str, about: str) -> bool:
        return any(f"/{resource}/" in name and not each["done"] and each["about"] == about for name, each in self.operations.items())

    def _further(self, name: str) -> Json:
        operation = self.operations[name]
        if not operation["done"] and operation["left"] <= 0:
            operation["done"] = True
            operation |= self._end(operation)
        operation["left"] -= 1
        return shown(operation)

    def _end(self, operation: Json) -> Json:
        if operation["method"] in self.fails:
            return {"error": self.fails[operation["method"]]}
        try:
            return {"response": operation["do"]()}
        except Refusal as refusal:
            return {"error": {"code": 9, "message": str(refusal)}}

    def get_operation(self, _: Request, resource: str, identity: str) -> Json:
        """operations.get: each look takes it further."""
        name = f"{NUMBERED}/{resource}/operations/{identity}"
        if name not in self.operations:
            raise Refusal(404, "The operation does not exist.")
        return self._further(name)

    def list_operations(self, request: Request, resource: str) -> Json:
        """operations.list of a resource."""
        if resource.startswith("endpoints/"):
            self._endpoint(last(resource))
        names = [name for name in self.operations if name.startswith(f"{NUMBERED}/{resource}/operations/")]
        shown = [
            {key: value for key, value in self.operations[name].items() if key in ("name", "done", "error", "response")} for name in names
        ]
        return page(shown, request, "operations")

    # --- predictions --------------------------------------------------------------------------------------------------------------

    def _predict(self, request: Request) -> Answer:
        """endpoints.predict: by the split's chances, to a container that answers as its release does."""
        with self.lock:
            endpoint = self._endpoint(last(request.path.removesuffix(":predict")))
            split = {k: v for k, v in endpoint["trafficSplit"].items() if v}
            if not split:
                raise Refusal(400, "The Endpoint has no traffic assigned.", status="FAILED_PRECONDITION")
            chosen = self.chance.choices(list(split), list(split.values()))[0]
            (deployed,) = [each for each in endpoint["deployedModels"] if each["id"] == chosen]
            behaviour = self.behaviours[deployed["displayName"].rpartition("-")[2]]
            fails = self.chance.random() < behaviour.failing
        instances = json.loads(request.body)["instances"]
        time.sleep(behaviour.seconds)
        if fails:
            headers = {"Content-Type": "application/json"} | ({"X-Vertex-AI-Deployed-Model-Id": chosen} if behaviour.names_itself else {})
            body = {"error": {"code": behaviour.status, "message": "The model's container failed.", "status": "INTERNAL"}}
            return Answer(behaviour.status, json.dumps(body).encode(), headers)
        answers = [behaviour.labels[b64decode(each["b64"])] for each in instances]
        predictions = [{"label": label, "probabilities": values, "score": max(values)} for label, values in answers]
        model = {"model": deployed["model"], "modelVersionId": deployed["modelVersionId"]}
        return as_json({"predictions": predictions, "deployedModelId": chosen, **model})


_ID = r"([^/:]+)"
_RESOURCE = r"((?:models|endpoints)/[^/:]+)"
_ROUTES: list[tuple[str, str, Callable[..., Json]]] = [
    ("POST", "models:upload", FakeEndpoints.upload),
    ("GET", f"models/{_ID}", FakeEndpoints.get_model),
    ("GET", f"models/{_ID}:listVersions", FakeEndpoints.list_versions),
    ("POST", "endpoints", FakeEndpoints.create_endpoint),
    ("GET", "endpoints", FakeEndpoints.list_endpoints),
    ("GET", f"endpoints/{_ID}", FakeEndpoints.get_endpoint),
    ("PATCH", f"endpoints/{_ID}", FakeEndpoints.patch_endpoint),
    ("POST", f"endpoints/{_ID}:deployModel", FakeEndpoints.deploy),
    ("POST", f"endpoints/{_ID}:undeployModel", FakeEndpoints.undeploy),
    ("GET", f"{_RESOURCE}/operations/{_ID}", FakeEndpoints.get_operation),
    ("GET", f"{_RESOURCE}/operations", FakeEndpoints.list_operations),
]
