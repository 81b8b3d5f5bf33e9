"""The running servers of a store, from its address book `serving/servers/<id>.json`, and what a rollout asks of them."""

import json
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ValidationError

from components.core.errors import DataError, DualError
from components.core.stores import Store
from serving.rollout.reload import reload_config

_BOOK = "serving/servers/"
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104
_POLL = 0.1


class ServerEntry(BaseModel):
    """One running server: where it answers and which folder it loads its versions from."""

    id: str
    pid: int
    host: str
    rest_port: int
    grpc_port: int
    model_dir: str
    name: str


class Server:
    """One server, spoken to as TF Serving is: REST for questions, gRPC for reloads."""

    def __init__(self, entry: ServerEntry) -> None:
        """Connect lazily; `close` when done."""
        self.entry = entry
        self.model_dir = Path(entry.model_dir)
        host = _ANY_ADDRESS.get(entry.host, entry.host)
        self._host = f"[{host}]" if ":" in host else host
        # No base_url below the model's path: httpx would ask for `…/name/`, which TF Serving refuses.
        self._model = f"/v1/models/{entry.name}"
        self._http = httpx.Client(base_url=f"http://{self._host}:{entry.rest_port}", timeout=30.0, trust_env=False)

    def __str__(self) -> str:
        """`name at host:port`."""
        return f"{self.entry.name} at {self._host}:{self.entry.rest_port}"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def answers(self) -> bool:
        """Whether it can be reached at all; a server that died without leaving the book can't."""
        try:
            self._http.get(self._model, timeout=5.0)
        except httpx.HTTPError:
            return False
        return True

    def states(self) -> dict[int, tuple[str, str]]:
        """Version → (state, error message) for every version the server knows; empty for none."""
        response = self._ask("")
        found = response.json().get("model_version_status", []) if response.is_success else []
        return {int(each["version"]): (each["state"], each.get("status", {}).get("error_message", "")) for each in found}

    def label_version(self, label: str) -> int | None:
        """The version that a label selects, or None if the server has no such label."""
        response = self._ask(f"/labels/{label}")
        found = response.json().get("model_version_status", []) if response.is_success else []
        return int(found[0]["version"]) if len(found) == 1 else None

    def reload(self, versions: Sequence[int], labels: Mapping[str, int], timeout: float = 30.0) -> None:
        """Serve exactly these versions with these labels; returns when the server accepted it. `DualError` if it did not.

        For a model that is new to the server that is after its load (as in TF Serving), hence the timeout in seconds.
        """
        address, entry = f"{self._host}:{self.entry.grpc_port}", self.entry
        reload_config(address, name=entry.name, base_path=entry.model_dir, versions=versions, labels=labels, timeout=timeout)

    def wait_available(self, versions: Sequence[int], timeout: float) -> None:
        """Wait until every version is AVAILABLE; `DualError` with the server's own reason if one can't be loaded or takes too long."""

        def ready() -> bool:
            states = self.states()
            for version in versions:
                state, message = states.get(version, ("", ""))
                if state == "END" and message:
                    raise DualError(f"version {version} can't be loaded: {message}", where=str(self), fix="See the server's log")
            return all(states.get(version, ("", ""))[0] == "AVAILABLE" for version in versions)

        self._wait(ready, f"versions {list(versions)} were not all AVAILABLE within {timeout:g} s", timeout)

    def wait_label(self, label: str, version: int, timeout: float) -> None:
        """Wait until requests to `label` reach `version`; `DualError` if they don't in time."""
        self._wait(lambda: self.label_version(label) == version, f"the label {label} did not reach {version} within {timeout:g} s", timeout)

    def predict(self, version: int | str, image: bytes) -> dict[str, Any]:
        """Classify one encoded image by a version or a label: `probabilities`, `label`, `score`. `DualError` if the server refuses."""
        target = f"labels/{version}" if isinstance(version, str) else f"versions/{version}"
        body = {"instances": [{"b64": b64encode(image).decode()}]}
        try:
            response = self._http.post(f"{self._model}/{target}:predict", json=body)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        if not response.is_success:
            raise DualError(f"answered {response.status_code}: {response.text[:300]}", where=str(self), fix="See the server's log")
        return response.json()["predictions"][0]

    def _wait(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise DualError(
                    what, where=str(self), fix="See the server's log; a slow machine needs a larger roll_out_cloud.load_timeout"
                )
            time.sleep(_POLL)

    def _ask(self, path: str) -> httpx.Response:
        try:
            return self._http.get(f"{self._model}{path}")
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> DualError:
        return DualError(f"does not answer ({type(error).__name__}: {error})", where=str(self), fix="Is the server still running?")


def running_servers(store: Store) -> list[Server]:
    """Every server in the store's address book that answers; entries of dead ones are skipped, malformed ones are `DataError`."""
    servers = [Server(_entry(store, name)) for name in store.list(_BOOK) if store.exists(name)]
    alive = []
    for server in servers:
        if server.answers():
            alive.append(server)
        else:
            server.close()
    return alive


def _entry(store: Store, name: str) -> ServerEntry:
    try:
        return ServerEntry.model_validate_json(store.get(name).data)
    except (ValidationError, json.JSONDecodeError) as error:
        what = f"is no server entry ({error.errors()[0]['msg'] if isinstance(error, ValidationError) else error})"
        raise DataError(
            what, where=f"{store.uri}/{name}", fix="Delete it: a running server writes its entry again when it starts"
        ) from None


def close_all(servers: Sequence[Server]) -> None:
    """Close every server's connections."""
    for server in servers:
        with suppress(Exception):
            server.close()
