"""Why there is no answer: a name, a port, a certificate, a firewall. The same words for every service."""

import socket
import ssl
from collections.abc import Iterator

_CAUSES: list[tuple[tuple[type[BaseException], ...], tuple[str, ...], str, str]] = [
    (
        (ssl.SSLCertVerificationError,),
        ("CERTIFICATE_VERIFY_FAILED",),
        "",
        "Check the certificate authority and this machine's clock",
    ),
    ((ssl.SSLError,), ("[SSL",), "TLS could not be agreed on: the port may speak plain HTTP", "Check the address's scheme and port"),
    ((socket.gaierror,), ("Name or service not known", "name resolution"), "there is no such name", "Check the address, DNS and the VPN"),
    (
        (ConnectionRefusedError,),
        ("refused",),
        "nothing listens there: the connection was refused",
        "Check the address; does the server run?",
    ),
    ((TimeoutError,), ("timed out",), "did not answer in time", "Is a firewall or a VPN in between?"),
]
"""(types, words, what it means, what to do); the first that fits counts. httpx keeps the cause or its text, not always both."""


def silence(error: BaseException, look: str = "") -> tuple[str, str]:
    """(what is wrong, what to do) for a request without an answer; `look` is a command that shows more."""
    causes = list(_chain(error))
    text = " ".join(f"{type(cause).__name__} {cause}" for cause in causes)
    what, fix = f"the connection broke ({type(error).__name__}: {_first_line(error)})", "Try again"
    for types, words, meaning, advice in _CAUSES:
        if any(isinstance(cause, types) for cause in causes) or any(word in text for word in words):
            what, fix = meaning or _certificate(text), advice
            break
    else:
        if "Timeout" in type(error).__name__:
            what, fix = _CAUSES[-1][2:]
    return what, f"{fix}. See: {look}" if look else fix


def _certificate(text: str) -> str:
    _, found, rest = text.partition("certificate verify failed: ")
    why = rest.partition(" (_ssl")[0].strip() if found else "it can't be verified"
    return f"the server's certificate is not trusted: {why}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200].rstrip(".")
