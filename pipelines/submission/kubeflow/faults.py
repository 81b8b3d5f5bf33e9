"""What went wrong between here and the server, one message for each cause: identity, certificate, address, a page instead of an API."""

import json
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from components.core.errors import ConflictError, DualError, MissingError, UnavailableError, UsageError

_LOGIN = re.compile(r"/(dex|oauth2|login|authservice|oidc|auth|realms)\b|accounts\.google\.com", re.IGNORECASE)
_PASSING = (408, 425, 429, 500, 502, 503, 504)


class AuthError(DualError):
    """The server refuses this identity, or wants one."""


class KubeflowError(DualError):
    """The server refuses what was asked, or is none that this client can talk to."""


@dataclass(frozen=True)
class Asked:
    """Who was asked, and by whom."""

    host: str
    identity: str
    """The credentials, in words."""
    fix: str
    """What to do if they are refused."""


def answer_fault(asked: Asked, status: int, headers: Mapping[str, str], body: str) -> DualError:
    """The error for an answer that is no success: its status, where it redirects to, and what it says."""
    if 300 <= status < 400:
        return redirect_fault(asked, headers.get("Location", headers.get("location", "")))
    if status == 400 and "HTTPS server" in body:
        return KubeflowError(
            "the server speaks TLS at this port, and was asked without", where=asked.host, fix="Write https:// in the address"
        )
    return _FAULTS.get(status, _refusal(status))(asked, server_message(body))


def _unknown(asked: Asked, said: str) -> DualError:
    return AuthError(f"401, the server does not know who asks ({asked.identity}){said}", where=asked.host, fix=asked.fix)


def _forbidden(asked: Asked, said: str) -> DualError:
    fix = "Ask for a RoleBinding to kubeflow-edit in the namespace of the runs (multi-user), or use another identity"
    fix = asked.fix if asked.identity.startswith("no credentials") else fix
    return AuthError(f"403, this identity may not do that ({asked.identity}){said}", where=asked.host, fix=fix)


def _missing(asked: Asked, said: str) -> DualError:
    return MissingError(f"404, not found{said}", where=asked.host, fix="Check the id, the namespace, and that the address ends at the API")


def _taken(asked: Asked, said: str) -> DualError:
    return ConflictError(f"409, the name is taken{said}", where=asked.host, fix="Choose another name")


def _refusal(status: int) -> Callable[[Asked, str], DualError]:
    def refused(asked: Asked, said: str) -> DualError:
        return UsageError(f"{status}, the server refuses the request{said}", where=asked.host, fix="Correct what it names")

    def away(asked: Asked, said: str) -> DualError:
        fix = "Try again later; see the log of ml-pipeline"
        return UnavailableError(f"{status}, the server can't answer now{said}", where=asked.host, fix=fix)

    return away if status in _PASSING else refused


_FAULTS: Mapping[int, Callable[[Asked, str], DualError]] = {401: _unknown, 403: _forbidden, 404: _missing, 409: _taken}


def redirect_fault(asked: Asked, location: str) -> DualError:
    """The error for a redirect: to a login page, to another scheme, or elsewhere."""
    target = urlsplit(location)
    bare = f"{target.scheme}://{target.netloc}{target.path}" if target.netloc else target.path or "an unnamed place"
    if _LOGIN.search(location):
        what = f"redirects to the login page {bare}: nobody is logged in ({asked.identity})"
        return AuthError(what, where=asked.host, fix=asked.fix)
    if target.scheme == "https" and urlsplit(asked.host).scheme == "http":
        return KubeflowError("redirects to https", where=asked.host, fix="Write https:// in the address")
    return KubeflowError(f"redirects to {bare}", where=asked.host, fix="Give that address, up to and without /apis, as the host")


def page_fault(asked: Asked, body: str) -> DualError:
    """The error for a success that is a page instead of JSON: a login page, or pages of something else."""
    title = re.search(r"<title>(.*?)</title>", body, re.IGNORECASE | re.DOTALL)
    named = f" ('{' '.join(title[1].split())[:60]}')" if title else ""
    if re.search(r"password|sign.?in|log.?in", body, re.IGNORECASE):
        return AuthError(f"answers with a login page{named} instead of JSON ({asked.identity})", where=asked.host, fix=asked.fix)
    advice = "Check the address: behind Kubeflow's dashboard it ends with /pipeline"
    return KubeflowError(f"answers with a web page{named} instead of JSON: this is not the API", where=asked.host, fix=advice)


def shape_fault(host: str, why: str) -> DualError:
    """The error for an answer that is JSON and not what the API says it is."""
    return KubeflowError(f"answers something else than the API of Kubeflow Pipelines 2.x says ({why})", where=host, fix="Check the address")


def transport_fault(error: BaseException, asked: Asked) -> DualError:
    """The error for a request that got no answer: which of the many ways it failed."""
    causes = list(_chain(error))
    text = " ".join(str(cause) for cause in causes)
    for kinds, words, make in _TRANSPORT:
        if any(isinstance(cause, kinds) for cause in causes) or any(word in text for word in words):
            return make(text, asked)
    return UnavailableError(f"the connection broke ({type(error).__name__})", where=asked.host, fix="Try again")


def _certificate(text: str, asked: Asked) -> DualError:
    reason = re.search(r"certificate verify failed: ([^(\[]+)", text)
    why = reason[1].strip(" .") if reason else "it can't be verified"
    fix = "Name the authority that signed it: DUAL_KFP_CA_FILE=ca.pem"
    if "ostname" in why or "IP address" in why:
        fix = "Use a name that is in the certificate"
    elif "expired" in why:
        fix = "The server needs a new certificate; check this machine's clock too"
    return KubeflowError(f"the server's certificate is not trusted: {why}", where=asked.host, fix=fix)


def _no_tls(_: str, asked: Asked) -> DualError:
    fix = "Write http:// if the port speaks plain HTTP; else the server must speak TLS 1.2 or newer"
    return KubeflowError("TLS could not be agreed on: the port may speak plain HTTP", where=asked.host, fix=fix)


def _no_name(_: str, asked: Asked) -> DualError:
    return KubeflowError("there is no such name", where=asked.host, fix="Check the address, and the network's DNS")


def _closed(_: str, asked: Asked) -> DualError:
    return UnavailableError(
        "nothing listens there: the connection was refused", where=asked.host, fix="Check the port, and whether a port-forward has ended"
    )


def _late(_: str, asked: Asked) -> DualError:
    fix = "Check the network and firewalls, or raise DUAL_KFP_TIMEOUT"
    return UnavailableError("did not answer in time", where=asked.host, fix=fix)


_Maker = Callable[[str, Asked], DualError]
_TRANSPORT: tuple[tuple[tuple[type[BaseException], ...], tuple[str, ...], _Maker], ...] = (
    ((ssl.SSLCertVerificationError,), ("CERTIFICATE_VERIFY_FAILED",), _certificate),
    ((ssl.SSLError,), ("[SSL",), _no_tls),
    ((socket.gaierror,), ("Name or service not known", "Failed to resolve"), _no_name),
    ((ConnectionRefusedError,), ("Connection refused",), _closed),
    ((TimeoutError,), ("timed out",), _late),
)
"""(types, words, error), most telling first: what a cause is, or, where a library keeps no cause, what its message says."""


def server_message(body: str) -> str:
    """What the server says, as `: message`; empty if it says nothing that a person can read."""
    try:
        said = json.loads(body)
    except ValueError:
        said = {"message": "" if "<html" in body.lower() else body}
    if not isinstance(said, dict):
        return ""
    message = str(said.get("error_message") or said.get("message") or said.get("error") or said.get("error_details") or "")
    line = " ".join(message.split())
    return f": {line[:400]}" if line else ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        reason = getattr(each, "reason", None)
        waiting += [each.__cause__, each.__context__, reason if isinstance(reason, BaseException) else None]
        waiting += [arg for arg in each.args if isinstance(arg, BaseException)]
