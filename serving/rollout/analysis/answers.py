"""Whole HTTP answers within a total time and size: a service that drips or floods must not hold up a rollout."""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import httpx

from components.core.errors import UsageError

_MOST_BYTES = 16 * 2**20
_QUOTED = 200


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    text: str

    @property
    def ok(self) -> bool:
        """Whether it is a 2xx."""
        return 200 <= self.status < 300

    def quoted(self) -> str:
        """Status and the begin of the text, for a message."""
        return f"answered {self.status}: {' '.join(self.text.split())[:_QUOTED]}"


def fetch(client: httpx.Client, request: httpx.Request, *, seconds: float, most: int = _MOST_BYTES) -> Answer:
    """Send and read; `httpx.HTTPError` if it can't be sent, or is not answered within `seconds` and `most` bytes in all.

    `seconds` hold for each of connecting, sending and waiting, and for all of reading.
    """
    request.extensions = {**request.extensions, "timeout": httpx.Timeout(seconds).as_dict()}
    deadline = time.monotonic() + seconds
    response = client.send(request, stream=True)
    try:
        body = bytearray()
        for part in response.iter_bytes():
            body += part
            if len(body) > most:
                raise httpx.DecodingError(f"more than {most} bytes", request=request)
            if time.monotonic() > deadline:
                raise httpx.ReadTimeout("the answer drips", request=request)
    finally:
        response.close()
    return Answer(response.status_code, bytes(body).decode(errors="replace"))


def explain(error: Exception, seconds: float) -> str:
    """Why there was no answer, in words without the URL or a header: both may be secret.

    Only what the operating system says about a connection is quoted; other messages of httpx can hold a header's value.
    """
    if isinstance(error, httpx.ConnectError):
        return f"can't be reached ({error})"
    if isinstance(error, httpx.TimeoutException):
        return f"gave no whole answer within {seconds:g} s"
    return f"gave no usable answer ({type(error).__name__})"


def secret_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Header → value from the environment, by header → name of the variable; `UsageError` names a variable that is not set."""
    for header, variable in headers.items():
        if not os.environ.get(variable, "").strip():
            raise UsageError(
                f"the environment variable {variable} is not set", where=f"header {header}", fix="Set it in the environment of the step"
            )
    # A newline at the end is what a file of a mounted secret often has; no header may hold one.
    return {header: os.environ[variable].strip() for header, variable in headers.items()}


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text without any of the secrets: a service may echo the headers that it refuses."""
    for secret in secrets:
        # The value of `Bearer <token>` is the token.
        for part in (secret, secret.rpartition(" ")[2]):
            text = text.replace(part, "***")
    return text
