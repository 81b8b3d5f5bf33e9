"""Images against a real registry (CNCF distribution) and a real containerd: mirrored, carried in an archive, imported by a node, run."""

import json
from pathlib import Path
from uuid import uuid4

import pytest

from components.core.download import Patience
from pipelines.mirror.mirror import Mirrored, mirror_images
from pipelines.mirror.place import Registries
from tests.live.cluster import REGISTRY, LiveCluster

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(600)]


def registry_of(cluster: LiveCluster) -> str:
    """The cluster's registry as this machine reaches it: on the node, which follows the host in its network."""
    return f"{cluster.host.rpartition('.')[0]}.2:5000"


def mirror(registry: str, source: str | None, target: str, archive: str | None = None) -> Mirrored:
    (done,) = mirror_images(
        [source] if source else [], None, archive, target, Registries([registry], Patience(timeout=60)), say=lambda _: None
    )
    return done


def run_once(cluster: LiveCluster, image: str) -> str:
    """What the image prints on the node, which must have it already."""
    name = f"mirror-{uuid4().hex[:6]}"
    container = {"name": "main", "image": image, "imagePullPolicy": "Never"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(pod))
    try:
        cluster.kubectl("wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
        return cluster.kubectl("logs", name)
    finally:
        cluster.kubectl("delete", "pod", name, "--wait=false")


def test_an_image_goes_round_and_runs_on_a_node_that_was_never_asked_to_pull(cluster: LiveCluster, tmp_path: Path) -> None:
    word = uuid4().hex
    (tmp_path / "word").write_text(word)
    (tmp_path / "Dockerfile").write_text('FROM python:3.11-slim\nCOPY word /word\nCMD ["cat", "/word"]\n')
    cluster.rig("images", "build", "-t", f"{REGISTRY}/src-{word[:6]}/app:1", tmp_path)
    registry = registry_of(cluster)
    source = tmp_path / "pod.json"
    source.write_text(json.dumps({"image": f"{registry}/src-{word[:6]}/app:1"}))

    near = mirror(registry, str(source), f"{registry}/near-{word[:6]}")
    assert near.copied.moved == 0, "the registry has the layers: they are mounted"
    carried = mirror(registry, str(source), f"oci-archive:{tmp_path / 'images.tar'}")
    assert carried.copied.moved == carried.copied.size > 1_000_000
    again = mirror(registry, None, f"{registry}/far-{word[:6]}", archive=f"oci-archive:{tmp_path / 'images.tar'}")
    digests = {each.copied.image.digest for each in (near, carried, again)}
    assert len(digests) == 1

    cluster.rig("images", "import", tmp_path / "images.tar")
    assert run_once(cluster, f"{registry}/src-{word[:6]}/app:1") == word
