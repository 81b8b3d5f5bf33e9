"""A store with real small releases, and a server of the test's own process that follows it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.core.errors import DualError
from components.core.release import Release
from components.core.stores import Store, open_store
from serving.rollout.servers import Server, running_servers
from serving.server.options import Options
from serving.server.store import Follower, empty_config
from tests.conftest import tiny_jpeg
from tests.release_pieces import GoldenImage, make_release
from tests.serving.harness import RunningServer
from tests.serving.saved_model import TINY_LABELS, TinyClassifier, export_tiny


def make_real_releases(root: Path, count: int) -> tuple[Store, list[Release]]:
    """A store with releases whose cloud models load and answer as their golden images say; nothing is published."""
    store = open_store(str(root / "store"))
    biases = [0.5 * number for number in range(count)]
    releases = [
        make_release(store, root, number, saved_model=export_tiny(root / f"model-{number}", bias), golden=golden_of(bias))
        for number, bias in enumerate(biases)
    ]
    return store, releases


def golden_of(bias: float) -> list[GoldenImage]:
    model = TinyClassifier(bias)
    images = [tiny_jpeg(label, seed=label) for label in range(3)]
    answers: Any = model.serve(images)
    facts = zip(images, answers["label"].numpy(), answers["probabilities"].numpy(), strict=True)
    return [GoldenImage(f"{n:02}.jpg", image, label.decode(), list(p)) for n, (image, label, p) in enumerate(facts)]


@contextmanager
def following(store: Store, folder: Path) -> Iterator[Server]:
    """A server of this process that follows the store, as `dual serve` does."""
    folder.mkdir()
    options = Options(max_load_retries=0, allow_labels_for_unavailable=True)
    with RunningServer(empty_config("flowers", folder), options, await_models=False) as running:
        follower = Follower(store, folder, "flowers")
        follower.start(running.ports)
        try:
            (server,) = running_servers(store)
            yield server
            server.close()
        finally:
            follower.stop()


@contextmanager
def live_traffic(server: Server) -> Iterator[list[str]]:
    """Asks the label stable all the time, as clients do; what went wrong."""
    problems: list[str] = []
    stop = threading.Event()
    image = tiny_jpeg(1, seed=1)

    def ask() -> None:
        while not stop.is_set():
            try:
                answer = server.predict("stable", image)
            except DualError as error:
                problems.append(str(error))
            else:
                problems.extend([] if answer["label"] in TINY_LABELS else [str(answer)])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield problems
    finally:
        stop.set()
        thread.join()


def serves(server: Server, release: Release, label: str = "stable") -> bool:
    server.wait_label(label, release.version, 30)
    return server.states()[release.version][0] == "AVAILABLE"
