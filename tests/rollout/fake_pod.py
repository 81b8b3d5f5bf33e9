"""A pod with the REST interface of TF Serving: our server's own metrics page, and answers that a test decides."""

import base64
import json
from collections.abc import Callable
from typing import Any

from serving.rollout.analysis.pods import PodTarget
from serving.rollout.analysis.scrape import PATH
from serving.rollout.traffic import Query
from serving.server.metrics import Metrics
from serving.server.status import Code
from tests.rollout.web import Asked, Reply, WebServer, reply

MODEL = "flowers"
CLASSES = ["daisy", "roses", "tulips"]


def golden(count: int = 3) -> list[Query]:
    """Golden images: the image's bytes say which class it is."""
    return [Query(f"{n:02}.jpg", f"{n} {CLASSES[n % 3]}".encode(), CLASSES[n % 3], expected(CLASSES[n % 3]), 0.001) for n in range(count)]


def expected(label: str) -> list[float]:
    return [0.8 if each == label else 0.1 for each in CLASSES]


def right_answer(image: bytes) -> dict[str, Any]:
    label = image.decode().split()[-1]
    return {"label": label, "probabilities": expected(label), "score": 0.8}


def answers_always(label: str) -> Callable[[bytes], dict[str, Any]]:
    return lambda image: {"label": label, "probabilities": expected(label), "score": 0.8}


class FakePod(WebServer):
    """Counts its requests in `metrics` as the real server does; `seconds` is the latency that it claims, nobody waits for it."""

    def __init__(self, name: str = "canary-1", revision: str = "new") -> None:
        super().__init__(self._answered)
        self.metrics, self.seconds = Metrics(), 0.010
        self.classify: Callable[[bytes], dict[str, Any] | Reply] = right_answer
        self.page: Callable[[], Reply] = lambda: Reply(self.metrics.page())
        self.target = PodTarget(name, "127.0.0.1", self.port, 0, revision)

    def count(self, code: Code = Code.OK, *, times: int = 1, seconds: float = 0.010, model: str = MODEL, entrypoint: str = "GRPC") -> None:
        """Live traffic."""
        for _ in range(times):
            self.metrics.requested(model, code, api="predict", entrypoint=entrypoint, seconds=seconds)

    def restart(self) -> None:
        self.metrics = Metrics()

    def predictions(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == f"/v1/models/{MODEL}:predict"]

    def _answered(self, asked: Asked) -> Reply:
        if asked.path == PATH:
            return self.page()
        if asked.path != f"/v1/models/{MODEL}:predict":
            return reply({"error": "Not found"}, 404)
        (instance,) = json.loads(asked.body)["instances"]
        found = self.classify(base64.b64decode(instance["b64"]))
        if isinstance(found, Reply):
            if not found.cut:
                # A server that dies over a request never counts it.
                self.count(Code.INTERNAL, entrypoint="REST")
            return found
        self.count(seconds=self.seconds, entrypoint="REST")
        return reply({"predictions": [found]})
