"""Whether ImageNet weights can be had here: found out in seconds, and never by waiting for a download that can't come."""

import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.core.errors import DualError

HOST = "https://storage.googleapis.com"
_STALL_SECONDS = 30.0


class WeightsUnavailableError(DualError):
    """ImageNet weights are neither in Keras' cache nor to be downloaded; `what` says why."""


def keras_models_folder() -> Path:
    """Where Keras keeps downloaded weights: `$KERAS_HOME/models`, by default `~/.keras/models`."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"


def has_cached_weights() -> bool:
    """Whether any weights file lies in Keras' cache (of whichever network: only Keras knows its file names)."""
    return any(keras_models_folder().glob("*.h5"))


def reachable(url: str = HOST, seconds: float = 4.0) -> bool:
    """Whether a web server answers at `url` within `seconds`, by the proxies of the environment; any HTTP status is an answer.

    Runs in a thread of its own, because name resolution knows no time limit.
    """
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(_answers(url, seconds)), daemon=True)
    thread.start()
    thread.join(seconds)
    return answers == [True]


@contextmanager
def bounded_downloads(online: bool) -> Iterator[None]:
    """Inside, downloads by urllib fail at once if not `online`, and otherwise when no byte came for 30 seconds."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_STALL_SECONDS)
    if not online:
        urllib.request.install_opener(urllib.request.build_opener(_Refuse()))
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)
        if not online:
            urllib.request.install_opener(urllib.request.build_opener())


class _Refuse(urllib.request.BaseHandler):
    """Answers every request with an error before a connection is tried."""

    handler_order = 0

    def default_open(self, request: urllib.request.Request) -> Any:
        raise urllib.error.URLError(f"{request.host} can't be reached")


def _answers(url: str, seconds: float) -> bool:
    # An opener of its own, because the shared one remembers the proxies of its first use.
    opener = urllib.request.build_opener()
    try:
        with opener.open(urllib.request.Request(url, method="HEAD"), timeout=seconds):  # noqa: S310 - http(s) only
            return True
    except urllib.error.HTTPError as error:
        # A proxy that forbids the host answers too, but with a status of its own.
        return error.code not in (403, 407, 502, 503, 504)
    except (OSError, ValueError):
        return False
