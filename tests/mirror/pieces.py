"""Images for tests, of a few bytes."""

import json
from typing import Any

from pipelines.mirror.manifest import MANIFESTS, OCI_INDEX, OCI_MANIFEST
from tests.mirror.fake_registry import Stored

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def descriptor(media_type: str, digest: str, size: int, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size, **more}


def add_image(stored: Stored, repository: str, tag: str, layers: list[bytes], *, docker: bool = False) -> str:
    """An image of these layers; its digest."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "made": tag}).encode()
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFESTS[1] if docker else OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", stored.add_blob(repository, config), len(config)),
        "layers": [descriptor(LAYER, stored.add_blob(repository, layer), len(layer)) for layer in layers],
    }
    return stored.add_manifest(repository, tag, body["mediaType"], json.dumps(body).encode())


def add_index(stored: Stored, repository: str, tag: str, platforms: dict[str, bytes]) -> str:
    """An image for several platforms, each of one layer; the index's digest."""
    manifests = []
    for platform, layer in platforms.items():
        digest = add_image(stored, repository, f"{tag}-{platform.replace('/', '-')}", [layer])
        system, architecture = platform.split("/")
        size = len(stored.manifests[repository, digest][1])
        manifests.append(descriptor(OCI_MANIFEST, digest, size, platform={"os": system, "architecture": architecture}))
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    return stored.add_manifest(repository, tag, OCI_INDEX, json.dumps(body).encode())
