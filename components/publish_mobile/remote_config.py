"""Remote Config as a bell: one parameter says which sequence a channel has, so that apps look at once instead of in the evening.

The parameter is a hint and nothing more: the channel is signed, the parameter is not. The Python SDK can't write templates of clients, so
this is the REST API: read the template with its ETag, change one parameter, put it back with If-Match.
https://firebase.google.com/docs/reference/remote-config/rest/v1/projects/updateRemoteConfig
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from components.core.channel import Channel
from components.core.errors import ConflictError, DataError, DualError

_ENDPOINT = "https://firebaseremoteconfig.googleapis.com"
ENDPOINT_VARIABLE = "DUAL_REMOTE_CONFIG_ENDPOINT"
_SCOPE = "https://www.googleapis.com/auth/firebase.remoteconfig"
_ATTEMPTS = 8
_TIMEOUT = 30.0
_CHANGED = (409, 412)


def ring(channel: Channel, *, project: str, parameter: str = "dual_channel") -> bool:
    """Let the project's `parameter` name the channel's sequence and release; False if it says that or something newer already.

    All else in the template stays. Raises `ConflictError` if others change it all the time, `DataError` if the parameter holds something
    that is not ours, `DualError` if the service refuses.
    """
    value = json.dumps({"channel": channel.channel, "sequence": channel.sequence, "release": channel.release}, sort_keys=True)
    for _ in range(_ATTEMPTS):
        template, tag = _read(project)
        if _sequence(template, parameter, channel.channel) >= channel.sequence:
            return False
        template.setdefault("parameters", {})[parameter] = {
            "defaultValue": {"value": value},
            "description": "Sequence of the model channel; written by Dual Deploy.",
            "valueType": "JSON",
        }
        if _write(project, template, tag):
            return True
    fix = "Run again when the others are done"
    raise ConflictError("the template was changed by others every time", where=f"Remote Config of {project}", fix=fix)


def _sequence(template: dict[str, Any], parameter: str, channel: str) -> int:
    found = template.get("parameters", {}).get(parameter)
    if found is None:
        return 0
    try:
        said = json.loads(found["defaultValue"]["value"])
        if said["channel"] != channel:
            raise ValueError
        return int(said["sequence"])
    except (KeyError, TypeError, ValueError):
        what = f"the parameter '{parameter}' holds something else than this channel's sequence"
        raise DataError(what, where="Remote Config", fix="Choose another with publish_mobile.remote_config.parameter") from None


def _read(project: str) -> tuple[dict[str, Any], str]:
    answer = _ask("GET", project)
    # A template without an ETag could only be overwritten blindly.
    tag = answer.headers.get("ETag", "")
    if answer.status_code != 200 or not tag:
        raise _refused(answer, project)
    return answer.json(), tag


def _write(project: str, template: dict[str, Any], tag: str) -> bool:
    answer = _ask("PUT", project, json=template, headers={"If-Match": tag, "Content-Type": "application/json; UTF-8"})
    if answer.status_code in _CHANGED:
        return False
    if answer.status_code != 200:
        raise _refused(answer, project)
    return True


def _ask(method: str, project: str, **request: Any) -> Any:
    url = f"{os.environ.get(ENDPOINT_VARIABLE, _ENDPOINT).rstrip('/')}/v1/projects/{project}/remoteConfig"
    with _errors(project):
        return _session().request(method, url, timeout=_TIMEOUT, **request)


def _session() -> Any:
    import requests

    if os.environ.get(ENDPOINT_VARIABLE):
        # A stand-in knows no identity; asking for one would reach for the network.
        return requests.Session()
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    return AuthorizedSession(google.auth.default(scopes=[_SCOPE])[0])


@contextmanager
def _errors(project: str) -> Iterator[None]:
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    try:
        yield
    except (GoogleAuthError, RequestException) as error:
        fix = "Check the credentials and the network"
        raise DualError(f"can't be asked ({error})", where=f"Remote Config of {project}", fix=fix) from None


def _refused(answer: Any, project: str) -> DualError:
    fix = "Check the project's id, the role Firebase Remote Config Admin, and that the API is enabled"
    return DualError(f"the service refuses ({answer.status_code} {answer.reason})", where=f"Remote Config of {project}", fix=fix)
