"""Models, endpoints and predictions of one project and region, asked by the documented REST (v1).

Reads are repeated while the service does not answer; a write is sent once, and who sends it looks at what came of it.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from components.core.errors import MissingError, UnavailableError, UsageError
from components.core.vertex.connection import read_connection
from components.core.vertex.credentials import find_credentials
from components.core.vertex.wire import Wire
from serving.rollout.endpoint.bodies import CONTENT, NAME, RELEASE, Json
from serving.rollout.endpoint.settings import EndpointPlace

_PAGE = 100
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 10.0


def open_service(place: EndpointPlace) -> "Service":
    """The project and region that the settings name, or the environment (DUAL_VERTEX_*); nothing is asked yet.

    `UsageError` names the key if there is no region.
    """
    if not place.region and not os.environ.get("DUAL_VERTEX_REGION"):
        fix = "Set it, for example to europe-west4, or DUAL_VERTEX_REGION"
        raise UsageError("no region is named", where="settings key roll_out_cloud.vertex.region", fix=fix)
    connection = read_connection(None, {"project": place.project, "region": place.region})
    return Service(Wire(connection, find_credentials(connection)), place.patience)


class Service:
    """One project and region. Methods raise the wire's errors; names are whole resource names."""

    def __init__(self, wire: Wire, patience: float, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """`patience` in seconds."""
        self.wire, self._patience, self._sleep = wire, patience, sleep
        self.writes = 0
        """Requests that change something, so far."""

    def address(self) -> str:
        """Project, region and identity."""
        return f"project {self.wire.project}, {self.wire.region}, with {self.wire.credentials.name}"

    def close(self) -> None:
        """End the connections."""
        self.wire.close()

    # --- models -------------------------------------------------------------------------------------------------------------------

    def model(self, identity: str) -> Json | None:
        """A Model by its id; None if there is none."""
        return self._find(f"models/{identity}")

    def versions(self, model: str, release: str, content: str) -> list[Json]:
        """A Model's versions of a release that are served in the same way, oldest first."""
        found = self._pages(f"{model}:listVersions", "models", {"filter": f'labels.{RELEASE}="{release}"'})
        same = [each for each in found if each.get("labels", {}).get(CONTENT) == content]
        return sorted(same, key=lambda each: int(each.get("versionId", 0)))

    def upload(self, body: Json, *, identity: str = "", parent: str = "") -> Json:
        """The operation that uploads a Model under an id, or a version of a `parent` Model."""
        where = {"parentModel": parent} if parent else {"modelId": identity}
        return self._write("POST", "models:upload", {"model": body, **where})

    # --- endpoints ----------------------------------------------------------------------------------------------------------------

    def find_endpoint(self, display: str, name: str) -> Json | None:
        """The endpoint of exactly that display name that carries our label; None if there is none.

        Raises `UsageError` if there are several, or only one that somebody else made.
        """
        found = self._pages("endpoints", "endpoints", {"filter": f"display_name={_quoted(display)}"})
        exact = [each for each in found if each.get("displayName") == display]
        own = [each for each in exact if each.get("labels", {}).get(NAME) == name]
        where = f"project {self.wire.project}, {self.wire.region}"
        if len(own) > 1:
            names = ", ".join(each["name"].rpartition("/")[2] for each in own)
            raise UsageError(f"several endpoints are called '{display}': {names}", where=where, fix="Delete or rename all but one")
        if exact and not own:
            identity = exact[0]["name"].rpartition("/")[2]
            label = f"gcloud ai endpoints update {identity} --region={self.wire.region} --update-labels={NAME}={name}"
            what = f"endpoint {identity} is called '{display}' and is not one of ours (no label {NAME}={name})"
            raise UsageError(what, where=where, fix=f"Choose another roll_out_cloud.vertex.endpoint, or hand it over: {label}")
        return own[0] if own else None

    def create_endpoint(self, body: Json, identity: str) -> Json:
        """The operation that makes an endpoint under an id, so that two processes make one."""
        return self._write("POST", "endpoints", body, {"endpointId": identity})

    def endpoint(self, name: str) -> Json:
        """The endpoint now; `MissingError` if it is gone."""
        return self._ask("GET", name)

    def patch_endpoint(self, endpoint: Json, **changes: Any) -> Json:
        """Change fields of an endpoint as it was read: refused if anybody has changed it since (its etag)."""
        body = {"name": endpoint["name"], "etag": endpoint["etag"], **changes}
        return self._write("PATCH", endpoint["name"], body, {"updateMask": ",".join(changes)})

    def deploy(self, endpoint: str, deployed: Json) -> Json:
        """The operation that deploys a model. No traffic split goes along: that would be written without comparing."""
        return self._write("POST", f"{endpoint}:deployModel", {"deployedModel": deployed})

    def undeploy(self, endpoint: str, identity: str) -> Json:
        """The operation that removes a deployed model; Google refuses it for one that has traffic."""
        return self._write("POST", f"{endpoint}:undeployModel", {"deployedModelId": identity})

    # --- operations ---------------------------------------------------------------------------------------------------------------

    def operation(self, name: str) -> Json:
        """An operation now."""
        return self._ask("GET", name)

    def unfinished(self, resource: str) -> list[Json]:
        """Operations of a resource that go on; none if the resource is not there."""
        try:
            return [each for each in self._pages(f"{resource}/operations", "operations", {}) if not each.get("done")]
        except MissingError:
            return []

    # --- asking -------------------------------------------------------------------------------------------------------------------

    def _find(self, path: str) -> Json | None:
        try:
            return self._ask("GET", path)
        except MissingError:
            return None

    def _pages(self, path: str, key: str, query: Mapping[str, Any]) -> Iterator[Json]:
        token = ""
        while True:
            answer = self._ask("GET", path, {**query, "pageSize": _PAGE, "pageToken": token})
            yield from answer.get(key, ())
            if not (token := answer.get("nextPageToken", "")):
                return

    def _ask(self, method: str, path: str, query: Mapping[str, Any] | None = None) -> Json:
        deadline, wait = time.monotonic() + self._patience, _FIRST_WAIT
        while True:
            try:
                return self.wire.ask(method, path, query=query)
            except UnavailableError:
                if time.monotonic() + wait > deadline:
                    raise
            self._sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    def _write(self, method: str, path: str, body: Json, query: Mapping[str, Any] | None = None) -> Json:
        self.writes += 1
        return self.wire.ask(method, path, body, query)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
