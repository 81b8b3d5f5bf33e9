"""The cloud model in a short-lived pod that the cluster's own template makes: the real image, flags, limits and init container."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import httpx

from components.core.candidate import offer_candidate, withdraw_candidate, withdraw_leftovers
from components.core.errors import DualError
from components.core.record import StepRecord
from components.validate_infra.asking import ASKING_ERRORS, Servable, ask_cloud, metrics_page, refusal, replayed_warmups
from components.validate_infra.child import TAIL_LINES
from components.validate_infra.infra import Side
from components.validate_infra.pod import WATCH, Check, make_pod, owner_reference, ports_of, server_of
from components.validate_infra.pod_life import PodError, remove_leftovers, running_pod, state_of, wait_ready
from components.validate_infra.settings import ValidateInfraSettings
from serving.client.remote import RemoteModel, RestModel
from serving.peak import PAUSE, printed_peak
from serving.rollout.cluster.api import Api, Json
from serving.rollout.cluster.begin import read_template
from serving.rollout.cluster.names import Names
from serving.rollout.cluster.site import connect_to

_TOLD_WITHIN = 10.0
_WHOLE_LOG = 5000
"""Lines: what is said of the warm-up comes early."""


def check_on_cluster(record: StepRecord, servable: Servable, settings: ValidateInfraSettings) -> tuple[Side, str]:
    """Let a pod load the SavedModel, and ask it; the side, with whatever went wrong in it, and what served it.

    The pod, and the candidate in the record's store that it fetched, are gone at the end. Raises `DualError` if the cluster can't be
    reached or does not let a pod be made: that says nothing about the model.
    """
    api = connect_to(settings.kubernetes)
    names = Names(namespace=api.namespace, name=servable.name)
    template = read_template(api, names)
    remove_leftovers(api, names, record.run_id, record.say)
    withdraw_leftovers(record.store, record.run_id)
    with _offered(record, servable) as candidate:
        body = make_pod(template, names, _check(api, record, candidate, settings))
        with running_pod(api, body, record.warn) as pod:
            record.say(f"Pod {names.namespace}/{pod} is made from Deployment {names.template}")
            check = _PodCheck(api, record, pod, body["spec"], settings)
            side = check.ask(servable)
            return side, check.server


@contextmanager
def _offered(record: StepRecord, servable: Servable) -> Iterator[str]:
    candidate = ""
    try:
        candidate = offer_candidate(record.store, servable.saved_model, name=servable.name, run_id=record.run_id)
        yield candidate
    finally:
        try:
            if candidate:
                withdraw_candidate(record.store, candidate)
        except DualError as error:
            record.warn(f"the candidate could not be taken out of the store ({error}); a later check does it")


def _check(api: Api, record: StepRecord, candidate: str, settings: ValidateInfraSettings) -> Check:
    options = settings.kubernetes
    return Check(
        candidate=candidate,
        run_id=record.run_id,
        seconds=options.ready_within + options.asked_within,
        store=options.store,
        owner=owner_reference(api, os.environ),
    )


class _PodCheck:
    """One pod, asked and measured."""

    def __init__(self, api: Api, record: StepRecord, pod: str, spec: Json, settings: ValidateInfraSettings) -> None:
        self._api, self._record, self._pod, self._spec, self._settings = api, record, pod, spec, settings
        self.server = f"{server_of(spec)['image']} in a pod of the namespace {api.namespace}"

    def ask(self, servable: Servable) -> Side:
        """The side of the cloud model."""
        side, page, began = Side(), "", time.monotonic()
        try:
            options = self._settings.kubernetes
            pod = wait_ready(self._api, self._pod, within=options.ready_within, poll=options.poll_seconds, say=self._record.say)
            side.measurements["start_seconds"] = time.monotonic() - began
            self._note(pod, side)
            with self._connect(pod, servable.name) as model:
                ask_cloud(side, model, servable.golden, servable.images, self._settings)
                page = metrics_page(model)
        except PodError as error:
            side.failure = str(error)
        except ASKING_ERRORS as error:
            side.failure = self._reason(error)
        self._look(side, page, servable.warmups)
        return side

    def _note(self, pod: Json, side: Side) -> None:
        """Which image really runs; and how long loading took at most, should the server not say it more precisely."""
        name = server_of(self._spec)["name"]
        status = next(each for each in pod["status"]["containerStatuses"] if each["name"] == name)
        self.server += f" ({status['imageID']})" if status.get("imageID") else ""
        started = status.get("state", {}).get("running", {}).get("startedAt")
        conditions = {each["type"]: each for each in pod["status"].get("conditions") or [] if each["status"] == "True"}
        ready = conditions.get("ContainersReady", {}).get("lastTransitionTime")
        if started and ready:
            side.measurements["load_seconds"] = (datetime.fromisoformat(ready) - datetime.fromisoformat(started)).total_seconds()

    def _connect(self, pod: Json, name: str) -> RemoteModel:
        rest, grpc = ports_of(self._spec)
        if self._settings.kubernetes.access == "proxy":
            self._record.warn("gRPC was left out: the API server, through which the pod is asked, passes only HTTP on")
            return RestModel(self._api.pod_client(self._pod, rest, self._settings.request_timeout), name)
        address = pod["status"]["podIP"]
        return RemoteModel(f"[{address}]" if ":" in address else address, rest, grpc, name, self._settings.request_timeout)

    def _reason(self, error: Exception) -> str:
        state = self._fate(error) or f"it still runs; its log ends with: {self._log(5)}"
        return f"the server in Pod {self._pod} failed a golden image: {refusal(error)}. {state}"

    def _fate(self, error: Exception) -> str:
        """What became of the pod; after a lost connection it may take the node some seconds to say."""
        deadline = time.monotonic() + (0.0 if isinstance(error, httpx.HTTPStatusError) else _TOLD_WITHIN)
        while not (state := state_of(self._api, self._pod)) and time.monotonic() < deadline:
            time.sleep(self._settings.kubernetes.poll_seconds)
        return state

    def _look(self, side: Side, page: str, warmups: int) -> None:
        """What the pod leaves: memory, warm-up, the ends of its logs."""
        time.sleep(2 * PAUSE)
        peak = printed_peak(self._api.logs(self._pod, WATCH, lines=TAIL_LINES))
        if peak is not None:
            side.measurements["memory_mb"] = peak
        elif not side.failure:
            self._record.warn(f"the server's memory could not be measured: the container {WATCH} of Pod {self._pod} says nothing")
        side.warmup = (warmups, replayed_warmups(self._log(_WHOLE_LOG), page, warmups))
        initial = [each["name"] for each in self._spec.get("initContainers", [])]
        parts = [(name, self._api.logs(self._pod, name, lines=TAIL_LINES)) for name in initial]
        parts.append((server_of(self._spec)["name"], self._log(TAIL_LINES)))
        side.log_tail = "\n".join(f"[{name}] {line}" for name, text in parts for line in text.splitlines())

    def _log(self, lines: int) -> str:
        return self._api.logs(self._pod, server_of(self._spec)["name"], lines=lines)
