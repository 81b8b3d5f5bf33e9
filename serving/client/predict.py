"""Ask the promoted pair from a machine that can reach the store: the cloud model, the mobile model, or both layered as on a device.

The mobile model comes the way that devices get it (`serving.client.device`): its channel verified with a keyring, the files checked, the
golden answers compared; what was there before answers while the store can't be reached.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from platformdirs import user_cache_path

from components.core.channel import STABLE, channel_name
from components.core.digest import sha256_bytes
from components.core.errors import DataError, UntrustedError, UpdateError, UsageError
from components.core.keyring import Keyring
from components.core.release import fetch_release, read_baseline
from components.core.stores import Store, open_store
from serving.client.cloud import Cloud, CloudAnswer, CloudService
from serving.client.device import Device
from serving.client.layered import TIMEOUT, LayeredModel
from serving.client.trust import Trust

_MAX_BYTES = 32 << 20


@dataclass(frozen=True)
class Answer:
    """The predicted label, its score in [0, 1], which model gave it, and why that one."""

    label: str
    score: float
    model: Literal["cloud", "mobile"]
    why: str
    release: str


class Predictor(Protocol):
    """Answers for one image file; `DataError` if it can't be read."""

    def predict(self, image: Path) -> Answer:
        """Classify the image."""
        ...


@dataclass(frozen=True)
class Ways:
    """How the pair is reached."""

    keyring: Keyring
    """Whose signatures on the channel count."""
    unsigned: bool = False
    """Accept a channel that nobody signed."""
    channel: str = STABLE
    """Where the mobile model comes from; the cloud model is always that of `stable`."""
    server: str = ""
    """Ask the cloud model of this server (`http://host:port`) instead of loading it into this process."""
    name: str = "classifier"
    """The model's name on that server."""
    timeout: float = TIMEOUT
    """Seconds that the server is given for an answer."""
    cache: Path | None = None
    """Where files are kept; default: the user's cache."""
    warn: Callable[[str], None] = lambda _: None

    def folder(self) -> Path:
        """Where files are kept."""
        return self.cache or user_cache_path("dual-deploy")


class SavedModelCloud:
    """The SavedModel by its serving signature, in this process; it is loaded on the first question."""

    def __init__(self, folder: Callable[[], Path]) -> None:
        """`folder` fetches the SavedModel when it is needed, and says where it is."""
        self._folder = folder

    @cached_property
    def _signature(self) -> Any:
        import tensorflow as tf

        self._model: Any = tf.saved_model.load(str(self._folder()))  # kept: the signature only borrows its variables
        return self._model.signatures["serving_default"]

    def ask(self, image: bytes, timeout: float) -> CloudAnswer:
        """Decoding, resizing and class names are in the graph; there is no network to wait for. `DataError` if it is no image."""
        import tensorflow as tf

        del timeout
        try:
            outputs = self._signature(image_bytes=tf.constant([image]))
        except tf.errors.InvalidArgumentError:
            raise DataError("is not a readable JPEG or PNG image", where="image", fix="Convert it, or leave it out") from None
        return CloudAnswer(outputs["label"].numpy()[0].decode(), float(outputs["score"].numpy()[0]))


class CloudPredictor:
    """The cloud model alone."""

    def __init__(self, cloud: Cloud, release: str, timeout: float) -> None:
        """Ask `cloud`, which serves `release`."""
        self._cloud, self._release, self._timeout = cloud, release, timeout

    def predict(self, image: Path) -> Answer:
        """The cloud's answer; `CloudError` if a server gives none."""
        found = self._cloud.ask(read_image(image), self._timeout)
        return Answer(found.label, found.score, "cloud", "it was asked for", self._release)


class DevicePredictor:
    """A device's model, with the cloud behind it or not to be asked."""

    def __init__(self, model: LayeredModel, ask: bool | None) -> None:
        """`ask` False: the mobile model alone; None: as the policy says."""
        self._model, self._ask = model, ask

    def predict(self, image: Path) -> Answer:
        """The decision of the layered policy, or the mobile model's answer."""
        decision = self._model.classify(read_image(image), ask=self._ask)
        why = "it was asked for" if self._ask is False else decision.why
        return Answer(decision.label, decision.score, decision.model, why, decision.release)


def open_predictor(store_uri: str, model: str, ways: Ways) -> Predictor:
    """A predictor over the store's promoted pair, fetched and checked file by file into the user's cache.

    `model` is cloud, mobile or layered. Raises `UsageError` if nothing is promoted, an `UpdateError` if the mobile model can't be taken and
    none is here from before, `DataError` if a digest differs.
    """
    store = open_store(store_uri)
    if model == "cloud":
        return _cloud_predictor(store, ways)
    installed = _up_to_date(store, ways).open()
    cloud = None if model == "mobile" else _cloud(store, _live(store, installed.installed.release, ways), ways)
    return DevicePredictor(LayeredModel(installed, cloud, ways.timeout), False if model == "mobile" else None)


def _live(store: Store, release: str, ways: Ways) -> str:
    """The release whose cloud model answers for a device that has `release`."""
    live = None if ways.channel == STABLE or ways.server else read_baseline(store)
    return live.id if live else release


def _cloud_predictor(store: Store, ways: Ways) -> Predictor:
    release = read_baseline(store)
    if release is None:
        raise _nothing_promoted(store)
    return CloudPredictor(_cloud(store, release.id, ways), release.id, ways.timeout)


def _cloud(store: Store, release_id: str, ways: Ways) -> Cloud:
    if ways.server:
        return CloudService(ways.server, ways.name)

    def fetch() -> Path:
        folder = ways.folder() / "releases" / release_id
        release = fetch_release(store, release_id, folder)
        return folder / release.models.cloud.path

    return SavedModelCloud(fetch)


def _up_to_date(store: Store, ways: Ways) -> Device:
    # A machine of ours is no sample of anybody's devices: it takes the candidate, whatever the percentage.
    followed = store.uri if ways.channel == STABLE else f"{store.uri}#{ways.channel}"
    folder = ways.folder() / "devices" / sha256_bytes(followed.encode())[:16]
    device = Device(folder, store, Trust(ways.keyring, ways.channel, unsigned=ways.unsigned), tester=True)
    try:
        device.update()
    except UpdateError as error:
        if device.state().current is None:
            raise _first_time(error, store, ways.channel) from None
        ways.warn(f"{error} Answering with the release of before.")
    return device


def _first_time(error: UpdateError, store: Store, channel: str) -> Exception:
    if "nothing is published" in error.what:
        return _nothing_promoted(store, channel)
    if isinstance(error, UntrustedError):
        fix = "Give the publisher's public keyring with --keys (dual keys list --json), or accept it unverified with --unsigned"
        return UntrustedError(error.what, where=f"{store.uri}/{channel_name(channel)}", fix=fix)
    return error


def _nothing_promoted(store: Store, channel: str = STABLE) -> UsageError:
    if channel != STABLE:
        fix = f"Publish there with: dual publish start --channel {channel}"
        return UsageError(f"nothing is published in the channel {channel} yet", where=store.uri, fix=fix)
    return UsageError("nothing is promoted yet", where=store.uri, fix="Ship a release with: dual run --data SOURCE --store STORE")


def read_image(path: Path) -> bytes:
    """The file's bytes, size and format checked before anything decodes them; `DataError` names the file."""
    from io import BytesIO

    from PIL import Image, UnidentifiedImageError

    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"is larger than {_MAX_BYTES >> 20} MiB", where=str(path), fix="Send a smaller image")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"can't be read ({error.strerror})", where=str(path), fix="Check the path") from None
    try:
        with Image.open(BytesIO(data), formats=("JPEG", "PNG")) as image:
            image.verify()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError):
        raise DataError("is not a readable JPEG or PNG image", where=str(path), fix="Convert it, or leave it out") from None
    return data
