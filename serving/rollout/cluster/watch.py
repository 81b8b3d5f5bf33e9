"""Waiting for a change of one object without asking again and again.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

import random
import time
from collections.abc import Callable, Iterator
from math import ceil

from serving.rollout.cluster.api import Api, ExpiredError, UnavailableError

_LONGEST_WATCH = 120.0
"""Seconds; a connection that is dead without having said so is left after that."""
_SHORTEST_WATCH = 1.0
"""Seconds; what ends sooner, though nothing happened, was no watch."""
_TRIES = 4
_LONGEST_PAUSE = 10.0


class Doorbell:
    """Rings when an object changes."""

    def __init__(self, api: Api, kind: str, name: str, sleep: Callable[[float], None] = time.sleep) -> None:
        """Nothing is asked yet."""
        self._api, self._kind, self._name, self._sleep = api, kind, name, sleep
        self._pauses = growing_pauses(_LONGEST_PAUSE)

    def wait(self, version: str, seconds: float) -> None:
        """Return when the object was changed after `version`, when that can't be known any more, or when `seconds` are over.

        A watch that breaks is resumed where it stood, after pauses that grow from one to the next until a watch holds again.
        """
        deadline, tries = time.monotonic() + seconds, 0
        while (left := deadline - time.monotonic()) > 0 and tries < _TRIES:
            began = time.monotonic()
            try:
                for event in self._api.watch(self._kind, self._name, version, ceil(min(left, _LONGEST_WATCH))):
                    self._pauses = growing_pauses(_LONGEST_PAUSE)
                    if event["type"] != "BOOKMARK":
                        return
                    version = event["object"]["metadata"]["resourceVersion"]
            except ExpiredError:
                return
            except UnavailableError:
                began = time.monotonic()
            if time.monotonic() - began < min(left, _SHORTEST_WATCH):
                tries += 1
                self._sleep(min(next(self._pauses), left))


def growing_pauses(longest: float) -> Iterator[float]:
    """Seconds: about 0.1, 0.2, 0.4 and so on up to `longest`, each a bit shorter or longer, so that many who wait don't come together."""
    pause = 0.1
    while True:
        # Nothing here is secret.
        yield pause * random.uniform(0.5, 1.5)  # noqa: S311
        pause = min(2 * pause, longest)
