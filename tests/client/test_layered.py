"""The phone answers if it is sure enough, else the cloud does, and whatever the cloud does the answer comes in time."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.core.channel import MobilePointer, mobile_contract
from components.core.errors import DataError
from components.core.preprocessing import Preprocessing
from serving.client.cloud import CloudService
from serving.client.layered import LayeredModel
from serving.client.model import MobileModel
from serving.client.shelf import Installed
from tests.conftest import tiny_jpeg
from tests.release_pieces import LABELS, SIDE

IMAGE = tiny_jpeg(0, 1)
GOOD = {"predictions": [{"label": "tulips", "score": 0.97, "probabilities": [0.0, 0.03, 0.97]}]}


class Sure:
    """A model that answers roses with a given confidence."""

    labels = LABELS
    input_details: dict[str, Any]
    output_details: dict[str, Any]

    def __init__(self, score: float) -> None:
        self.steps = round(score * 256)

    def predict_raw(self, pixels: Any) -> Any:
        assert pixels.shape == (SIDE, SIDE, 3)
        return np.array([256 - self.steps - 1, self.steps, 1], np.uint8)


def phone(score: float, threshold: float = 0.6) -> MobileModel:
    contract = mobile_contract(Preprocessing(height=SIDE, width=SIDE), len(LABELS))
    pointer = MobilePointer(blob="b", sha256="0" * 64, size=1, contract=contract, labels=LABELS, labels_digest="")
    return MobileModel(Installed(release="0123456789ab", mobile=pointer, policy={"threshold": threshold}), Sure(score))


@dataclass
class Behaviour:
    """What the server does, and was asked."""

    answer: Callable[[BaseHTTPRequestHandler], None]
    asked: list[tuple[str, dict[str, Any], str | None]] = field(default_factory=list)


def reply(body: Any, status: int = 200) -> Callable[[BaseHTTPRequestHandler], None]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte every now and then: never silent for long, never done."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def hang(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.5)
    reply(GOOD)(handler)


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.close()


class Quiet(ThreadingHTTPServer):
    """A server whose clients may hang up."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about them."""


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour(reply(GOOD))


@pytest.fixture
def address(behaviour: Behaviour) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Keep the log quiet."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            behaviour.asked.append((self.path, json.loads(body), self.headers.get("Authorization")))
            behaviour.answer(self)

    server = Quiet(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def cloud(address: str) -> Iterator[CloudService]:
    service = CloudService(address, "flowers", {"Authorization": "Bearer app"})
    yield service
    service.close()


def test_a_sure_phone_asks_nobody(cloud: CloudService, behaviour: Behaviour) -> None:
    decision = LayeredModel(phone(0.75), cloud).classify(IMAGE)
    assert (decision.label, decision.model, decision.score) == ("roses", "mobile", 0.75)
    assert decision.why == "its confidence 0.75 is at least 0.6"
    assert (decision.cloud, decision.cloud_seconds, behaviour.asked) == (None, None, [])


def test_an_unsure_phone_asks_the_cloud_and_says_why(cloud: CloudService, behaviour: Behaviour) -> None:
    decision = LayeredModel(phone(0.5), cloud).classify(IMAGE)
    assert (decision.label, decision.model, decision.score) == ("tulips", "cloud", 0.97)
    assert decision.why == "its confidence 0.50 is below 0.6"
    assert (decision.mobile.label, decision.release) == ("roses", "0123456789ab")
    assert decision.cloud_seconds is not None
    ((path, body, token),) = behaviour.asked
    assert (path, list(body), token) == ("/v1/models/flowers:predict", ["instances"], "Bearer app")


def test_a_person_may_overrule_the_policy(cloud: CloudService, behaviour: Behaviour) -> None:
    assert LayeredModel(phone(0.9), cloud).classify(IMAGE, ask=True).model == "cloud"
    decision = LayeredModel(phone(0.55), cloud).classify(IMAGE, ask=False)
    assert (decision.model, decision.why, len(behaviour.asked)) == ("mobile", "the cloud was not to be asked", 1)


def test_offline_the_phones_answer_counts() -> None:
    decision = LayeredModel(phone(0.5), None).classify(IMAGE)
    assert (decision.model, decision.label) == ("mobile", "roses")
    assert decision.why.endswith("but there is no cloud to ask")


FAILURES: dict[str, tuple[Callable[[BaseHTTPRequestHandler], None], str]] = {
    "silent": (hang, "no answer within 0.3 s"),
    "drips": (drip, "no answer within 0.3 s"),
    "hangs up": (hang_up, "can't be reached"),
    **{str(status): (reply({"error": "x"}, status), f"refuses ({status})") for status in (400, 403, 404, 409, 412, 429, 500, 503)},
    "no JSON": (reply(b"<html>"), "something else than a label"),
    "no predictions": (reply({"outputs": {}}), "something else than a label"),
    "no images": (reply({"predictions": []}), "something else than a label"),
    "numbers only": (reply({"predictions": [0.1]}), "something else than a label"),
    "impossible score": (reply({"predictions": [{"label": "roses", "score": 7}]}), "score 7"),
    "no number": (reply(b'{"predictions": [{"label": "roses", "score": NaN}]}'), "score nan"),
    "unknown label": (reply({"predictions": [{"label": "violets", "score": 0.9}]}), "which this app does not know"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_whatever_the_cloud_does_the_phone_answers_in_time(cloud: CloudService, behaviour: Behaviour, case: str) -> None:
    behaviour.answer, text = FAILURES[case]
    began = time.monotonic()
    decision = LayeredModel(phone(0.5), cloud, timeout=0.3).classify(IMAGE)
    assert time.monotonic() - began < 1.2
    assert (decision.label, decision.model) == ("roses", "mobile")
    assert text in decision.why
    assert decision.cloud_seconds is not None


def test_nobody_listens() -> None:
    decision = LayeredModel(phone(0.5), CloudService("http://127.0.0.1:9", "flowers"), timeout=1.0).classify(IMAGE)
    assert "can't be reached" in decision.why


def test_no_image_is_no_question(cloud: CloudService, behaviour: Behaviour, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        LayeredModel(phone(0.1), cloud).classify(b"GIF89a")
    assert behaviour.asked == []
