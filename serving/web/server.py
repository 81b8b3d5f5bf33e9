"""The page's server: its own files, LiteRT.js, what a channel publishes, and the one question to the cloud model. One origin, nothing else.

GET  /  /page/<file>  /sw.js          the page
GET  /vendor/…                        LiteRT.js
GET  /settings.json                   what the page is built to trust (dual.web/v1)
GET  /store/channels/<channel>.json   the channel, and the content-addressed files that it can name
POST /cloud/predict                   TF Serving's `:predict` of one model
"""

import asyncio
import re
import tempfile
from collections.abc import AsyncIterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.core.channel import channel_name
from components.core.envelope import LARGEST
from components.core.errors import DualError, MissingObjectError
from components.core.keyring import Keyring
from components.core.stores import Store

PAGE = Path(__file__).with_name("page")
MAX_BLOB = 256 << 20
MAX_IMAGE = 8 << 20
"""Of an image that is asked about; base64 makes it a third longer."""
MAX_ANSWER = 1 << 20
"""Of the cloud model's answer."""
UPLOAD_SECONDS = 60.0
"""That a browser is given to send its image."""
_BLOB = re.compile(r"mobile/blobs/[0-9a-f]{64}\.(tflite|selftest\.json)")
_POLICY = "; ".join(
    (
        "default-src 'none'",
        # WebAssembly is compiled, nothing is evaluated: no inline script, no eval.
        "script-src 'self' 'wasm-unsafe-eval'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "worker-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}
_FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Web:
    """What one page shows."""

    store: Store
    keyring: Keyring
    vendor: Path
    channel: str = "stable"
    model: str = ""
    """Name that a manifest must have; empty: any."""
    server: str = ""
    """Address of a server of the cloud model (`http://host:port`); empty: there is none to ask."""
    name: str = "classifier"
    """The model's name on that server."""
    timeout: float = 2.0
    """Seconds that it is given for an answer."""
    tester: bool = False
    """Take every candidate, whatever the staged percentage."""

    def settings(self) -> dict[str, Any]:
        """The content of settings.json."""
        return {
            "schema": "dual.web/v1",
            "channel": self.channel,
            "model": self.model,
            "tester": self.tester,
            "store": "store/",
            "keys": [{"key_id": key.key_id, "public_key": key.public_key} for key in self.keyring.keys],
            "cloud": {"path": "cloud/predict", "timeout_ms": round(self.timeout * 1000)} if self.server else None,
            "max_blob": MAX_BLOB,
            "max_image": MAX_IMAGE,
        }


def make_web(web: Web) -> Starlette:
    """The application; it answers what is listed above and 404 for everything else."""
    pages = _Pages(web)
    routes = [
        Route("/", pages.index),
        Route("/sw.js", pages.service_worker),
        Route("/settings.json", pages.settings),
        Route("/store/{name:path}", pages.published),
        Route("/cloud/predict", pages.predict, methods=["POST"]),
        Mount("/page", StaticFiles(directory=PAGE)),
        Mount("/vendor", StaticFiles(directory=web.vendor)),
    ]
    return Starlette(routes=routes, middleware=[Middleware(_Headed)])


class _Headed:
    """Puts the security headers on every answer, also on errors."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                extra = {**_HEADERS, "cache-control": "no-cache"}
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in extra.items() if k.encode() not in given)]
            await send(message)

        await self._app(scope, receive, headed)


class _Pages:
    def __init__(self, web: Web) -> None:
        self._web = web
        self._url = f"{web.server.rstrip('/')}/v1/models/{web.name}:predict"

    async def index(self, _: Request) -> Response:
        return Response((PAGE / "index.html").read_bytes(), media_type="text/html")

    async def service_worker(self, _: Request) -> Response:
        """At the root, whose whole it serves when there is no network."""
        return Response((PAGE / "sw.js").read_bytes(), media_type="text/javascript")

    async def settings(self, _: Request) -> Response:
        return JSONResponse(self._web.settings())

    async def published(self, request: Request) -> Response:
        """The channel or a blob, as it lies in the store; a name that no manifest can hold is never asked for."""
        name, channel = request.path_params["name"], channel_name(self._web.channel)
        if name != channel and not _BLOB.fullmatch(name):
            return _refuse(404, "is not published", name, "See docs/channel-spec.md for what is")
        try:
            data = await run_in_threadpool(self._read, name, LARGEST if name == channel else MAX_BLOB)
        except MissingObjectError as error:
            return _refuse(404, error.what, name, error.fix)
        except DualError as error:
            return _refuse(502, error.what, name, error.fix)
        media = "application/json" if name.endswith(".json") else "application/octet-stream"
        return Response(data, media_type=media, headers={"cache-control": "no-cache" if name == channel else _FOREVER})

    def _read(self, name: str, limit: int) -> bytes:
        with tempfile.TemporaryDirectory(prefix="dual-web-") as folder:
            self._web.store.copy_file(name, path := Path(folder) / "file", limit=limit)
            return path.read_bytes()

    async def predict(self, request: Request) -> Response:
        """The question as the page asked it, to the one model; its answer as it came."""
        if not self._web.server:
            return _refuse(404, "there is no cloud model to ask", "dual web", "Start it with --server http://host:port")
        # What a browser says of itself and no page can forge: other sites can't read an answer, and are not to spend the model either.
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return _refuse(403, "another site asks", "cloud/predict", "Open the page itself")
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                body = await _limited(request.stream(), MAX_IMAGE * 4 // 3 + 1024)
        except TimeoutError:
            return _refuse(408, f"the image did not come within {UPLOAD_SECONDS:g} s", "cloud/predict", "Send a smaller one")
        except ClientDisconnect:
            return Response(status_code=499)
        if body is None:
            return _refuse(413, f"the image has more than {MAX_IMAGE >> 20} MiB", "cloud/predict", "Send a smaller one")
        return await self._forward(body)

    async def _forward(self, body: bytes) -> Response:
        try:
            # httpx counts from byte to byte: a server that drips would hold the page for ever.
            async with asyncio.timeout(self._web.timeout):
                status, answer = await self._post(body)
        except (TimeoutError, httpx.TimeoutException):
            return _refuse(504, f"gave no answer within {self._web.timeout:g} s", self._url, "Is it overloaded? See --timeout")
        except httpx.HTTPError as error:
            return _refuse(502, f"can't be reached ({type(error).__name__})", self._url, "Is it running? See --server")
        if answer is None:
            return _refuse(502, f"answers with more than {MAX_ANSWER >> 20} MiB", self._url, "Is it a model server? See --server")
        return Response(answer, status_code=status, media_type="application/json")

    async def _post(self, body: bytes) -> tuple[int, bytes | None]:
        headers = {"content-type": "application/json"}
        async with (
            httpx.AsyncClient(timeout=self._web.timeout, trust_env=False) as client,
            client.stream("POST", self._url, content=body, headers=headers) as answer,
        ):
            return answer.status_code, await _limited(answer.aiter_bytes(), MAX_ANSWER)


async def _limited(body: AsyncIterable[bytes], limit: int) -> bytes | None:
    """The whole of it, or None if it is longer; no more of it is read then."""
    pieces, size = [], 0
    async for piece in body:
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            return None
    return b"".join(pieces)


def _refuse(status: int, what: str, where: str, fix: str) -> Response:
    return JSONResponse({"error": {"what": what, "where": where, "fix": fix}}, status_code=status)
