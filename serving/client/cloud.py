"""The cloud model as a device asks it: one image over TF Serving's REST, within a time that holds whatever the network does."""

import json
import threading
import time
from base64 import b64encode
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Any, Protocol

import httpx

from components.core.errors import DualError


class CloudError(DualError):
    """The cloud gave no answer that can be used; what the phone says counts."""


@dataclass(frozen=True)
class CloudAnswer:
    """What the cloud model says of one image."""

    label: str
    score: float


class Cloud(Protocol):
    """Somewhere the cloud model can be asked."""

    def ask(self, image: bytes, timeout: float) -> CloudAnswer:
        """Classify JPEG or PNG bytes; `CloudError` if there is no answer after `timeout` seconds, or none that can be used."""
        ...


class CloudService:
    """A model behind TF Serving's REST, or whatever speaks it at `address` (`http(s)://host[:port][/path]`)."""

    def __init__(self, address: str, name: str, headers: dict[str, str] | None = None) -> None:
        """Remember the address; `headers` (an app's token) go with every request."""
        self._url, self._headers = f"{address.rstrip('/')}/v1/models/{name}:predict", headers or {}
        self._client = httpx.Client(trust_env=False)

    def ask(self, image: bytes, timeout: float) -> CloudAnswer:
        """As `Cloud` says."""
        # httpx counts from byte to byte: a server that drips would hold the app for ever. The thread ends by those limits later.
        answers: Queue[CloudAnswer | CloudError] = Queue()
        threading.Thread(target=lambda: answers.put(self._try(image, timeout)), daemon=True).start()
        try:
            answer = answers.get(timeout=timeout)
        except Empty:
            raise CloudError(f"no answer within {timeout:g} s", where=self._url) from None
        if isinstance(answer, CloudError):
            raise answer
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _try(self, image: bytes, timeout: float) -> CloudAnswer | CloudError:
        body = json.dumps({"instances": [{"b64": b64encode(image).decode()}]}).encode()
        deadline = time.monotonic() + timeout
        try:
            with self._client.stream("POST", self._url, content=body, headers=self._headers, timeout=timeout) as response:
                data = b"".join(_until(deadline, response))
        except httpx.TimeoutException:
            return CloudError(f"no answer within {timeout:g} s", where=self._url)
        except httpx.HTTPError as error:
            return CloudError(f"can't be reached ({type(error).__name__})", where=self._url)
        if response.status_code != httpx.codes.OK:
            return CloudError(f"refuses ({response.status_code})", where=self._url)
        return _parse(data, self._url)


def _until(deadline: float, response: httpx.Response) -> Any:
    for piece in response.iter_bytes():
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the answer takes too long")
        yield piece


def _parse(data: bytes, where: str) -> CloudAnswer | CloudError:
    try:
        row = json.loads(data)["predictions"][0]
        answer = CloudAnswer(str(row["label"]), float(row["score"]))
    except (ValueError, KeyError, IndexError, TypeError):
        return CloudError("answers something else than a label and a score", where=where)
    if not 0.0 <= answer.score <= 1.0:
        return CloudError(f"answers with the score {answer.score}", where=where)
    return answer
