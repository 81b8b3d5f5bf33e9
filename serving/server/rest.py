"""The REST API: TF Serving's paths, bodies, errors and status codes, as a Starlette application.

Source of the paths: tensorflow_serving/model_servers/http_rest_api_util.cc.
"""

import asyncio
import json
import logging
import re
import time
import zlib
from typing import Any

from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from serving.server import messages
from serving.server.json_tensors import PredictBody, parse_predict, render
from serving.server.service import Service, Target, product
from serving.server.status import Code, Refusal, invalid

_MODEL = r"/v1/models(?:/([^/:]+))?(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?"
_CALL = re.compile(_MODEL + ":(classify|regress|predict)", re.IGNORECASE)
_LOOK = re.compile(_MODEL + r"(?:/(metadata))?", re.IGNORECASE)
_LOG = logging.getLogger("serving.server")
_JSON = "application/json"
_DISCARD_SECONDS = 10.0
_BIG = 1 << 20


def make_app(service: Service) -> Starlette:
    """The application; everything below /v1/ and the metrics page."""
    routes = [Route("/{path:path}", _Rest(service).handle, methods=["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])]
    return Starlette(routes=routes)


class _Rest:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def handle(self, request: Request) -> Response:
        path = request.scope["path"]
        if path == self._service.options.metrics_path:
            return _response(self._service.metrics.page().encode(), 200, "text/plain")
        if not path.lower().startswith("/v1/"):
            return _response(b"", 404, "text/html")
        try:
            return _response(await self._answer(request, path), 200, _JSON)
        except Refusal as refusal:
            await _discard(request)
            return _refuse(refusal)
        except ClientDisconnect:
            return _response(b"", 499, _JSON)
        except Exception as error:
            _LOG.exception("a request failed in a way that was not foreseen")
            return _refuse(Refusal(Code.INTERNAL, f"{type(error).__name__}: {error}"))

    async def _answer(self, request: Request, path: str) -> bytes:
        call, look = _CALL.fullmatch(path), _LOOK.fullmatch(path)
        if request.method == "POST" and call and call[1]:
            return await self._call(request, _target(call), call[4].lower())
        if request.method == "GET" and look:
            if not look[1]:
                raise invalid("Missing model name in request.")
            return self._metadata(_target(look)) if look[4] else self._status(_target(look))
        raise invalid(f"Malformed request: {request.method} {path}")

    async def _call(self, request: Request, target: Target, method: str) -> bytes:
        began, code = time.perf_counter(), Code.OK
        try:
            with self._service.admitted():
                body = await _read(request, self._service.options.max_request_bytes)
                async with asyncio.timeout(self._service.options.rest_timeout_seconds):
                    return await self._predict(target, body, method)
        except TimeoutError:
            code = Code.DEADLINE_EXCEEDED
            raise Refusal(code, f"the request took longer than {self._service.options.rest_timeout_seconds:g} s") from None
        except Refusal as refusal:
            code = refusal.code
            raise
        finally:
            took = time.perf_counter() - began
            self._service.metrics.requested(target.name, code, api=method.capitalize(), entrypoint="REST", seconds=took)

    async def _predict(self, target: Target, body: bytes, method: str) -> bytes:
        with self._service.catalog.use(target.name, target.version, target.label) as loaded:
            if method != "predict":
                raise messages.no_examples_api(method, loaded.servable.signature(""))
            parsed = await _parsed(body, loaded)
            outputs = await self._service.predict(loaded, parsed.signature, parsed.inputs)
            return render(outputs, parsed.format)

    def _status(self, target: Target) -> bytes:
        versions = self._service.catalog.statuses(target.name, target.version, target.label)
        return _proto_json(messages.status_response(versions))

    def _metadata(self, target: Target) -> bytes:
        with self._service.catalog.use(target.name, target.version, target.label) as loaded:
            signatures = messages.signature_map(loaded)
            return _proto_json(messages.metadata_response(loaded, signatures), metadata=signatures)


async def _parsed(body: bytes, loaded: Any) -> PredictBody:
    if len(body) < _BIG:
        return parse_predict(body, loaded.servable.signature)
    # Megabytes of JSON would hold up every other request on the event loop.
    return await asyncio.to_thread(parse_predict, body, loaded.servable.signature)


def _target(match: re.Match[str]) -> Target:
    if match[2] and int(match[2]) >= 1 << 63:
        raise invalid(f"Failed to convert version: {match[2]} to numeric.")
    return Target(match[1], int(match[2]) if match[2] else None, match[3] or "")


async def _read(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return _unzipped(bytes(body), limit) if "gzip" in request.headers.get("content-encoding", "") else bytes(body)


def _unzipped(body: bytes, limit: int) -> bytes:
    try:
        plain = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body, limit + 1)
    except zlib.error as error:
        raise invalid(f"the gzip body can't be unpacked: {error}") from None
    if len(plain) > limit:
        raise _too_large(limit)
    return plain


def _too_large(limit: int) -> Refusal:
    return Refusal(Code.RESOURCE_EXHAUSTED, f"the request body is larger than {limit} bytes", http=413)


async def _discard(request: Request) -> None:
    # A client that still sends would see a reset connection instead of the answer; the bytes are dropped as they come.
    try:
        async with asyncio.timeout(_DISCARD_SECONDS):
            async for _ in request.stream():
                pass
    except (TimeoutError, ClientDisconnect, RuntimeError):
        return


def _refuse(refusal: Refusal) -> Response:
    return _response(json.dumps({"error": refusal.message}).encode(), refusal.http, _JSON)


def _response(body: bytes, status: int, kind: str) -> Response:
    return Response(body, status, media_type=kind, headers={"server": product()})


def _proto_json(message: Any, metadata: Any = None) -> bytes:
    # The metadata map holds an Any message; TF Serving prints its content in place (ToJsonString in http_rest_api_util.cc).
    if metadata is None:
        text = json_format.MessageToJson(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        return text.encode()
    spec = _proto_dict(message.model_spec)
    return json.dumps({"model_spec": spec, "metadata": {"signature_def": _proto_dict(metadata)}}, indent=1).encode()


def _proto_dict(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
