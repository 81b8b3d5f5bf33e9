"""Checks what goes over the wire against the SDK's own generated types (kfp_server_api, made from the server's OpenAPI)."""

import re
from datetime import datetime
from typing import Any

import kfp_server_api
from kfp_server_api import ApiClient

_SERIALIZER = ApiClient()
_PLAIN = {"str": (str, int), "int": int, "float": (int, float), "bool": bool, "object": object}


class Refusal(Exception):
    """What the server refuses: an HTTP status, and the message of its gRPC status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def read(body: Any, model: str) -> dict[str, Any]:
    """A request's body, if it is a `model` and nothing else: unknown keys and wrong types are refused, as protobuf's JSON parser does."""
    _check(body, model, model)
    return body


def write(model: str, **values: Any) -> dict[str, Any]:
    """An answer's body: what is zero or empty is left out, as protobuf does; a field that the type doesn't have is a bug of the fake."""
    made: Any = _SERIALIZER.sanitize_for_serialization(getattr(kfp_server_api, model)(**values))
    return _with_zulu({key: each for key, each in made.items() if each or isinstance(each, dict)})


def _check(value: Any, kind: str, where: str) -> None:
    if listed := re.fullmatch(r"list\[(.*)\]", kind):
        _expect(isinstance(value, list), where, value)
        for each in value:
            _check(each, listed[1], where)
    elif mapped := re.fullmatch(r"dict\(str, (.*)\)", kind):
        _expect(isinstance(value, dict), where, value)
        for name, each in value.items():
            _check(each, mapped[1], f"{where}.{name}")
    elif kind == "datetime":
        _expect(isinstance(value, str) and _is_rfc3339(value), where, value)
    elif kind in _PLAIN:
        _expect(isinstance(value, _PLAIN[kind]), where, value)
    else:
        _check_model(value, getattr(kfp_server_api, kind), where)


def _check_model(value: Any, model: Any, where: str) -> None:
    if not model.openapi_types:
        # An enum: its words are constants of the class.
        _expect(value in vars(model).values(), where, value)
        return
    _expect(isinstance(value, dict), where, value)
    names = {wire: name for name, wire in model.attribute_map.items()}
    for key, each in value.items():
        if key not in names:
            raise Refusal(400, f'proto: unknown field "{key}" ({where})')
        if each is not None:
            _check(each, model.openapi_types[names[key]], f"{where}.{key}")


def _expect(fits: bool, where: str, value: Any) -> None:
    if not fits:
        raise Refusal(400, f"proto: invalid value for {where}: {value!r}")


def _is_rfc3339(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _with_zulu(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_zulu(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_zulu(each) for each in value]
    return value.replace("+00:00", "Z") if isinstance(value, str) and value.endswith("+00:00") else value
