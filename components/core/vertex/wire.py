"""The one place where requests leave and answers are judged: identity, timeouts, no redirects followed, every failure one of ours."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from components.core.errors import DualError, UnavailableError, UsageError
from components.core.vertex.connection import Connection
from components.core.vertex.credentials import Credentials
from components.core.vertex.faults import Asked, AuthError, Refusal, answer_fault

Json = dict[str, Any]
_OPERATION_SECONDS = 120.0
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0


class TooSlowError(UnavailableError):
    """The request arrived, and no answer came in time."""


class Wire:
    """Asks one project in one region; paths are relative to it (`pipelineJobs/ID`), or whole resource names (`projects/…`)."""

    def __init__(self, connection: Connection, credentials: Credentials) -> None:
        """`UsageError` if no project is named anywhere."""
        self.region, self.endpoint, self.credentials = connection.region, connection.endpoint(), credentials
        self.overridden = self.endpoint != f"https://{connection.region}-aiplatform.googleapis.com"
        """Whether another endpoint than the region's is asked."""
        self.project = connection.project or credentials.project
        if not self.project:
            fix = "Give --project, or set DUAL_VERTEX_PROJECT or GOOGLE_CLOUD_PROJECT"
            raise UsageError(f"no project is named, and the credentials ({credentials.name}) bring none", where="Vertex AI", fix=fix)
        self.parent = f"projects/{self.project}/locations/{self.region}"
        self._client = httpx.Client(timeout=connection.timeout, follow_redirects=False)

    def ask(self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None) -> Json:
        """The answer's JSON; raises our errors. A token that is refused is renewed once."""
        try:
            return self._once(method, path, body, query, self.credentials.headers())
        except AuthError as error:
            if self.credentials.google is None or not error.what.startswith("401"):
                raise
            return self._once(method, path, body, query, self.credentials.headers(renew=True))

    def pages(self, path: str, key: str, query: Mapping[str, Any]) -> Iterator[Json]:
        """Every item of a list, page by page."""
        token = ""
        while True:
            answer = self.ask("GET", path, query={**query, "pageToken": token})
            yield from answer.get(key, ())
            if not (token := answer.get("nextPageToken", "")):
                return

    def finish(self, operation: Json) -> None:
        """Wait until a long-running operation is done; its error is raised, and `UnavailableError` if it takes more than two minutes."""
        deadline, wait = time.monotonic() + _OPERATION_SECONDS, _FIRST_WAIT
        while not operation.get("done"):
            if time.monotonic() > deadline:
                what = f"{operation.get('name')} is not done after {_OPERATION_SECONDS:.0f} s; it goes on"
                raise UnavailableError(what, where=self.endpoint, fix="Look again later")
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
            operation = self.ask("GET", str(operation["name"]))
        if error := operation.get("error"):
            # A google.rpc.Status, whose code is gRPC's and not HTTP's.
            raise DualError(f"Google could not do it ({error.get('message', error)})", where=str(operation.get("name")), fix="Try again")

    def send(self, method: str, address: str, body: Any, *, seconds: float) -> httpx.Response:
        """Whatever a whole address answers within so many seconds, for whoever judges that; `UnavailableError` if nothing does."""
        response = self._sent(method, address, body, seconds, self.credentials.headers())
        if response.status_code == httpx.codes.UNAUTHORIZED and self.credentials.google is not None:
            return self._sent(method, address, body, seconds, self.credentials.headers(renew=True))
        return response

    def _sent(self, method: str, address: str, body: Any, seconds: float, headers: Mapping[str, str]) -> httpx.Response:
        try:
            return self._client.request(method, address, json=body, headers=dict(headers), timeout=seconds)
        except httpx.HTTPError as error:
            raise self._silent(error) from None

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    def _once(self, method: str, path: str, body: Any, query: Mapping[str, Any] | None, headers: Mapping[str, str]) -> Json:
        address = f"{self.endpoint}/v1/{path if path.startswith('projects/') else f'{self.parent}/{path}'}"
        given = {name: value for name, value in (query or {}).items() if value not in ("", None)}
        try:
            answer = self._client.request(method, address, json=body, params=given, headers=dict(headers))
        except httpx.HTTPError as error:
            raise self._silent(error) from None
        found = _json(answer)
        if answer.status_code == 200 and found is not None:
            return found
        if 200 <= answer.status_code < 400:
            what = f"answers {answer.status_code} with something that is no JSON"
            raise UsageError(what, where=self.endpoint, fix="Check --host, and proxies on the way")
        raise answer_fault(Asked(self.endpoint, self.project, self.region, self.credentials.name), Refusal(answer.status_code, found))

    def _silent(self, error: httpx.HTTPError) -> DualError:
        if "Name or service not known" in str(error) or "nodename" in str(error) or "No address" in str(error):
            fix = "Check --region (gcloud ai locations list), and DNS"
            return UnavailableError(f"there is no such host: is '{self.region}' a region", where=self.endpoint, fix=fix)
        fix = "Check the network, proxies and DNS"
        if isinstance(error, httpx.ReadTimeout):
            return TooSlowError("takes too long", where=self.endpoint, fix=fix)
        how = "takes too long" if isinstance(error, httpx.TimeoutException) else f"does not answer ({error or type(error).__name__})"
        return UnavailableError(how, where=self.endpoint, fix=fix)


def _json(answer: httpx.Response) -> Json | None:
    try:
        found = answer.json()
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
