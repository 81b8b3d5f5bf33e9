"""The cluster of these tests, one for all; a namespace for each test."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from tests.live.cluster import RIG, LiveCluster, LiveSite, live_site, rig_cluster
from tests.live.releases import Kind, make_releases

KINDS: dict[str, Kind] = {"a": "good", "b": "good", "c": "good", "wrong": "wrong", "slow": "slow", "errors": "errors", "broken": "broken"}


@pytest.fixture(scope="session")
def cluster() -> Iterator[LiveCluster]:
    if not RIG.is_file():
        pytest.skip(f"needs a Kubernetes cluster: the rig is not at {RIG} (set DUAL_SHARED)")
    with rig_cluster() as running:
        yield running


@pytest.fixture
def site(cluster: LiveCluster, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LiveSite]:
    """A namespace with the applied manifests and a store of fresh releases; nothing is rolled out."""
    # A namespace of an earlier run may still be going.
    namespace = f"{re.sub(r'[^a-z0-9]+', '-', request.node.name.lower())[:45].strip('-')}-{uuid4().hex[:6]}"
    with ExitStack() as stack:
        yield stack.enter_context(live_site(cluster, make_releases(tmp_path, KINDS), tmp_path / "overlay", namespace))


Say = Callable[[str], None]
