"""Answers that refuse a request: canonical codes as TF Serving uses them, and the HTTP status of each.

A `Refusal` is part of the wire protocol, not of Dual Deploy's own error tree: it goes to a client and never leaves the server.
Source of the mapping: tensorflow_serving/model_servers/http_server.cc, ToHTTPStatusCode.
"""

from enum import IntEnum


class Code(IntEnum):
    """The canonical status codes, numbered as in google.rpc.Code (and gRPC, and absl)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
"""HTTP status by code; the rest (UNKNOWN, INTERNAL, DATA_LOSS) is 500."""


class Refusal(Exception):
    """A request that can't be answered; `http` overrides the code's usual HTTP status."""

    def __init__(self, code: Code, message: str, *, http: int | None = None) -> None:
        """Keep the code and the text that the client gets."""
        super().__init__(message)
        self.code, self.message = code, message
        self.http = http or HTTP_STATUS.get(code, 500)


def invalid(message: str) -> Refusal:
    """The refusal of a malformed request (400, INVALID_ARGUMENT)."""
    return Refusal(Code.INVALID_ARGUMENT, message)


def not_found(message: str) -> Refusal:
    """The refusal of a request for what is not there (404, NOT_FOUND)."""
    return Refusal(Code.NOT_FOUND, message)


def from_tensorflow(error: BaseException) -> Refusal:
    """An error of a TensorFlow run as the client sees it; anything else is INTERNAL."""
    code, message = getattr(error, "error_code", None), getattr(error, "message", None)
    if isinstance(code, int) and isinstance(message, str):
        return Refusal(Code(code), message)
    return Refusal(Code.INTERNAL, f"{type(error).__name__}: {error}")
