"""Real releases for devices: a full-int8 .tflite that LiteRT runs, golden images with its answers, and keys."""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.core.envelope import seal
from components.core.keyring import Keyring
from components.core.release import Release
from components.core.stores import Store, open_store
from components.publish_mobile.private_key import PrivateKey, make_key
from components.publish_mobile.publication import publish_release
from components.publish_mobile.signing import Signing
from serving.client.device import Device
from serving.client.trust import Trust
from tests.conftest import tiny_jpeg
from tests.release_pieces import CHANNEL, LABELS, SIDE, GoldenImage, make_release, manifest_of, write_tiny_tflite


@dataclass
class Site:
    """A store with releases, and who signs its channel."""

    store: Store
    releases: list[Release]
    key: PrivateKey

    @property
    def signing(self) -> Signing:
        """The site's key."""
        return Signing((self.key,), Keyring(keys=[self.key.public]), "")

    @property
    def trust(self) -> Trust:
        """What an app of this site is built to accept."""
        return Trust(Keyring(keys=[self.key.public]), model="classifier")

    def publish(self, number: int, basis_points: int = 10_000) -> None:
        """Publish the release of that number."""
        publish_release(self.store, self.releases[number].id, basis_points=basis_points, signing=self.signing)

    def device(self, folder: Path, store: Store | None = None, **options: object) -> Device:
        """A device that follows this site."""
        return Device(folder, store or self.store, self.trust, **options)  # type: ignore[arg-type]


def make_site(root: Path, count: int) -> Site:
    """Releases that differ by a comment in the .tflite, and answer alike."""
    model = write_tiny_tflite(root / "model.tflite")
    golden = golden_images(model)
    store = open_store(str(root / "store"))
    releases = []
    for seed in range(count):
        path = root / f"model-{seed}.tflite"
        path.write_bytes(model.read_bytes())
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("seed.txt", str(seed))
        releases.append(make_release(store, root, seed, tflite=path, golden=golden))
    return Site(store, releases, make_key())


def golden_images(model: Path) -> list[GoldenImage]:
    """Two pictures a class with the model's answers."""
    from components.quantize_mobile.interpreter import Classifier

    classifier, images = Classifier(model), []
    for number in range(2 * len(LABELS)):
        label = number % len(LABELS)
        image = tiny_jpeg(label, seed=number, side=SIDE)
        pixels = np.asarray(Image.open(io.BytesIO(image)))
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        answer = [int(step) for step in classifier.predict_raw(pixels)]
        images.append(GoldenImage(f"{number:02}-{LABELS[label]}.jpg", image, LABELS[label], [1 / 3] * 3, buffer.getvalue(), answer))
    return images


def serves(device: Device, site: Site, number: int) -> bool:
    """Whether the device answers with that release, rightly."""
    model = device.open()
    return model.installed.release == site.releases[number].id and model.classify(tiny_jpeg(1, 5)).label == LABELS[1]


def change_manifest(site: Site, change: Callable[[dict[str, Any]], object], *, key: Any = None) -> None:
    """Change the published manifest, and sign what comes out of it."""
    manifest = manifest_of(site.store)
    change(manifest)
    site.store.put(CHANNEL, seal(json.dumps(manifest).encode(), [key or site.key]).to_json())


def next_sequence(manifest: dict[str, Any]) -> None:
    """Let the manifest be newer."""
    manifest["sequence"] += 1
