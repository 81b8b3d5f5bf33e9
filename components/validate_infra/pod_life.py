"""A check's pod from its making to its end, which comes in any case; and the pods of steps that were killed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from components.core.errors import DualError
from components.validate_infra.pod import RUN, WATCH, check_labels
from serving.rollout.cluster.api import Api, ChangedError, ForbiddenError, Json
from serving.rollout.cluster.names import Names, query
from serving.rollout.cluster.trouble import Logs, explain, troubles_of_one, warnings_of

_OVER = ("Succeeded", "Failed")
Say = Callable[[str], None]


class PodError(DualError):
    """The pod did not get ready, or is not what it was."""


@contextmanager
def running_pod(api: Api, body: Json, warn: Say) -> Iterator[str]:
    """Make the pod, and delete it at the end, also at a wrong one; its name.

    Raises `ForbiddenError` if this identity may not make it, or the namespace refuses it.
    """
    name = body["metadata"]["name"]
    try:
        _create(api, body)
        yield name
    finally:
        _delete(api, name, body["spec"]["activeDeadlineSeconds"], warn)


def _create(api: Api, body: Json) -> None:
    try:
        api.create("Pod", body)
    except ForbiddenError as error:
        fix = (
            "It needs the right to make pods (manifests/components/infra-check), room in the quota, and to satisfy the namespace's policies"
        )
        raise ForbiddenError(error.what, where=error.where, fix=fix) from None
    except ChangedError:
        # The name is this attempt's alone: an answer was lost, and the call repeated.
        return


def _delete(api: Api, name: str, seconds: int, warn: Say) -> None:
    try:
        if found := api.find("Pod", name):
            api.delete("Pod", found, as_read=False)
    except ChangedError:
        return
    except DualError as error:
        # The verdict is worth more than the clean-up, which the next check makes up for.
        warn(f"Pod {name} could not be deleted ({error}); Kubernetes ends it {seconds} s after its start")


def wait_ready(api: Api, name: str, *, within: float, poll: float, say: Say) -> Json:
    """The pod once it is ready; says what holds it up. Raises `PodError` with the reason if it can't be, or takes longer than `within`."""
    deadline, said, logs = time.monotonic() + within, "", Logs(api)
    while True:
        pod = _require(api, name)
        if is_ready(pod):
            return pod
        found = troubles_of_one(logs, without_watch(pod))
        if any(trouble.final for trouble in found):
            raise PodError(explain(found))
        if time.monotonic() > deadline:
            why = explain([*found, *warnings_of(api, name)])
            raise PodError(f"Pod {name} was not ready within {within:g} s: {why}", fix="Remove the reason, or raise ready_within")
        if found and explain(found) != said:
            said = explain(found)
            say(said)
        time.sleep(poll)


def _require(api: Api, name: str) -> Json:
    pod = api.find("Pod", name)
    if pod is None or pod["metadata"].get("deletionTimestamp"):
        raise PodError(f"Pod {name} was deleted by somebody", fix="Find out who (kubectl get events), then run again")
    return pod


def is_ready(pod: Json) -> bool:
    """Whether the server is ready and the pod has an address."""
    # Not the pod's own condition: that would wait for the container beside the server too.
    status = without_watch(pod)["status"]
    return bool(status["containerStatuses"]) and all(each.get("ready") for each in status["containerStatuses"]) and "podIP" in status


def state_of(api: Api, name: str) -> str:
    """What became of the pod, in words; empty if nothing did."""
    try:
        found = troubles_of_one(Logs(api), without_watch(_require(api, name)))
    except DualError as error:
        return str(error)
    return explain(found) if found else ""


def without_watch(pod: Json) -> Json:
    """The pod as if there were no container beside the server's: what becomes of that one is no trouble."""
    status = pod.get("status") or {}
    kept = [each for each in status.get("containerStatuses") or [] if each["name"] != WATCH]
    return {**pod, "status": {**status, "containerStatuses": kept}}


def remove_leftovers(api: Api, names: Names, run_id: str, say: Say) -> None:
    """Delete the pods of checks whose step is gone; one whose step may still run is left alone."""
    for pod in api.list("Pod", query(check_labels(names))):
        if not pod["metadata"].get("deletionTimestamp") and _is_left_over(api, pod, run_id):
            say(f"Pod {pod['metadata']['name']} was left by a step that is gone: it is deleted")
            _delete(api, pod["metadata"]["name"], pod["spec"].get("activeDeadlineSeconds", 0), say)


def _is_left_over(api: Api, pod: Json, run_id: str) -> bool:
    metadata = pod["metadata"]
    # A run's step runs once at a time: an earlier attempt of it is over.
    if metadata.get("annotations", {}).get(RUN) == run_id or (pod.get("status") or {}).get("phase") in _OVER:
        return True
    age = datetime.now(UTC) - datetime.fromisoformat(metadata["creationTimestamp"])
    # It may have waited as long for a node as it may run; its step has given up by then.
    return age.total_seconds() > 2 * pod["spec"].get("activeDeadlineSeconds", 0) or any(
        _is_gone(api, owner) for owner in metadata.get("ownerReferences", [])
    )


def _is_gone(api: Api, owner: Json) -> bool:
    found = api.find("Pod", owner["name"])
    return found is None or found["metadata"]["uid"] != owner["uid"] or (found.get("status") or {}).get("phase") in _OVER
