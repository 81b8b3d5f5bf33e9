"""The models being served: their versions, states and labels, and the thread that loads and unloads them.

Semantics follow TF Serving (server_core.cc, aspired_versions_manager.h): a version goes START → LOADING → AVAILABLE → UNLOADING → END; a
new version is AVAILABLE before an old one is unloaded; a label may move only to an AVAILABLE version.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from serving.server.batching import Batcher
from serving.server.metrics import Metrics
from serving.server.options import Options
from serving.server.servable import Servable
from serving.server.status import Code, Refusal, from_tensorflow, invalid, not_found
from serving.server.versions import Policy, policy_from_proto, present_versions
from serving.server.warmup import replay_warmup

_LOG = logging.getLogger("serving.server")
_RELEASE_SECONDS = 60.0
_STOP_SECONDS = 30.0


class State(IntEnum):
    """A version's state, numbered as in ModelVersionStatus."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class Loaded:
    """An AVAILABLE version as a request uses it."""

    model: str
    number: int
    servable: Servable
    batcher: Batcher


@dataclass
class Version:
    """One version of one model, and why it failed to load if it did."""

    model: str
    number: int
    path: Path
    state: State = State.START
    code: Code = Code.OK
    message: str = ""
    loaded: Loaded | None = None
    """Set while the version is AVAILABLE."""
    users: int = 0
    """Requests that hold the version now; it is unloaded when there are none."""


@dataclass
class _Model:
    name: str
    base: Path
    policy: Policy
    labels: dict[str, int]
    versions: dict[int, Version] = field(default_factory=dict)


class Catalog:
    """All models of one server. Every public method may be called from any thread."""

    def __init__(self, options: Options, metrics: Metrics) -> None:
        """Make an empty catalog; `configure` fills it, `start` starts the loading thread."""
        self._options, self._metrics = options, metrics
        self._models: dict[str, _Model] = {}
        self._changed = threading.Condition()
        self._poke = threading.Event()
        self._stopping = False
        self._retired: list[_Model] = []
        self._thread = threading.Thread(target=self._work, name="load", daemon=True)

    def start(self) -> None:
        """Start loading."""
        self._thread.start()

    def stop(self) -> None:
        """Stop loading and unload everything; requests in progress have to be done by now."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._poke.set()
        self._thread.join(_STOP_SECONDS)
        if self._thread.is_alive():
            _LOG.warning("a model is still loading; it is left to the end of the process")
            return
        for model in [*self._models.values(), *self._retired]:
            self._unload_all(model, set(model.versions))

    def configure(self, config: Any) -> None:
        """Take over a ModelServerConfig, whole or not at all; loading goes on in the background.

        Raises a `Refusal` for a config that TF Serving refuses, and for a label to a version that is not AVAILABLE.
        """
        if config.WhichOneof("config") is None:
            _LOG.info("Taking no action for empty config.")
            return
        if config.WhichOneof("config") != "model_config_list":
            raise Refusal(
                Code.FAILED_PRECONDITION,
                "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to another.",
            )
        wanted = [_checked(model) for model in config.model_config_list.config]
        if len({model.name for model in wanted}) != len(wanted):
            raise invalid("Illegal to list model name multiple times in config list")
        with self._changed:
            for model in wanted:
                self._check_labels(model)
            self._adopt(wanted)
        self._poke.set()

    def await_models(self, names: set[str], timeout: float | None = None) -> None:
        """Wait until each named model has an AVAILABLE version.

        Raises a `Refusal` (UNKNOWN) when all present versions of one failed to load, or DEADLINE_EXCEEDED after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while missing := [name for name in sorted(names) if not self._available(name)]:
                self._raise_if_failed(missing)
                left = None if deadline is None else deadline - time.monotonic()
                if self._stopping or (left is not None and left <= 0):
                    raise Refusal(Code.DEADLINE_EXCEEDED, f"{len(missing)} model(s) did not become available: {missing}")
                self._changed.wait(left)

    @contextmanager
    def use(self, name: str, version: int | None = None, label: str = "") -> Iterator[Loaded]:
        """Hold an AVAILABLE version (the latest by default) while a request runs on it.

        Raises TF Serving's refusals: NOT_FOUND for what is not loaded, INVALID_ARGUMENT for an unknown label.
        """
        with self._changed:
            found, loaded = self._find(name, version, label)
            found.users += 1
        try:
            yield loaded
        finally:
            with self._changed:
                found.users -= 1
                self._changed.notify_all()

    def statuses(self, name: str, version: int | None = None, label: str = "") -> list[Version]:
        """The versions of a model and their states, newest first; a `Refusal` (NOT_FOUND) if there are none."""
        with self._changed:
            versions = self._models[name].versions if name in self._models else {}
            number = self._resolve(name, label) if label else version
            if number is not None:
                if number not in versions:
                    raise not_found(f"Could not find version {number} of model {name}")
                return [versions[number]]
            if not versions:
                raise not_found(f"Could not find any versions of model {name}")
            return [versions[key] for key in sorted(versions, reverse=True)]

    def is_serving(self) -> bool:
        """Whether every configured model has an AVAILABLE version (and there is one)."""
        with self._changed:
            return bool(self._models) and all(self._available(name) for name in self._models)

    def names(self) -> set[str]:
        """The configured models."""
        with self._changed:
            return set(self._models)

    def _check_labels(self, wanted: _Model) -> None:
        current = self._models.get(wanted.name)
        for label, number in wanted.labels.items():
            # TF Serving's flag covers a label that is new or stays where it is, never a move.
            moved = current is not None and current.labels.get(label, number) != number
            if self._options.allow_labels_for_unavailable and not moved:
                continue
            version = current.versions.get(number) if current else None
            if version is None or version.state is not State.AVAILABLE:
                raise Refusal(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label to version {number} of model {wanted.name}, which is not currently available for inference",
                )

    def _adopt(self, wanted: list[_Model]) -> None:
        names = {model.name for model in wanted}
        self._retired += [model for name, model in self._models.items() if name not in names]
        kept = {name: model for name, model in self._models.items() if name in names}
        for model in wanted:
            _LOG.info("(Re-)adding model: %s", model.name)
            if model.name in kept:
                model.versions = kept[model.name].versions
            kept[model.name] = model
        self._models = kept

    def _available(self, name: str) -> bool:
        model = self._models.get(name)
        return model is not None and any(version.state is State.AVAILABLE for version in model.versions.values())

    def _raise_if_failed(self, names: list[str]) -> None:
        failed = [version for name in names if name in self._models for version in self._models[name].versions.values()]
        if failed and all(version.state is State.END and version.code is not Code.OK for version in failed):
            texts = ", ".join(f"{{{{name: {v.model} version: {v.number}}} due to error: {v.code.name}: {v.message}}}" for v in failed)
            raise Refusal(Code.UNKNOWN, f"{len(failed)} model(s) did not become available: {{{texts}}}")

    def _find(self, name: str, number: int | None, label: str) -> tuple[Version, Loaded]:
        if not name:
            raise invalid("ModelSpec has no name specified.")
        versions: Mapping[int, Version] = self._models[name].versions if name in self._models else {}
        if label:
            number = self._resolve(name, label)
        if number is not None:
            version = versions.get(number)
            if version is None or version.loaded is None or version.state is not State.AVAILABLE:
                raise not_found(f"Servable not found for request: Specific({name}, {number})")
            return version, version.loaded
        available = [(key, v, v.loaded) for key, v in versions.items() if v.loaded and v.state is State.AVAILABLE]
        if not available:
            raise not_found(f"Servable not found for request: Latest({name})")
        return max(available, key=lambda found: found[0])[1:]

    def _resolve(self, name: str, label: str) -> int:
        labels = self._models[name].labels if name in self._models else {}
        if label not in labels:
            raise invalid(f"Unrecognized servable version label: {label}")
        return labels[label]

    def _work(self) -> None:
        while not self._stopping:
            self._poke.clear()
            self._reconcile()
            self._poke.wait(self._options.poll_seconds or None)

    def _reconcile(self) -> None:
        with self._changed:
            models = list(self._models.values())
            retired, self._retired = self._retired, []
        for model in retired:
            self._unload_all(model, set(model.versions))
        for model in models:
            present = present_versions(model.base)
            aspired = model.policy.choose(set(present))
            for number in sorted(aspired, reverse=True):
                self._load_if_new(model, number, present[number])
            # Availability first: the old version goes only when an aspired one serves, or none is aspired any more.
            if not aspired or any(model.versions[n].state is State.AVAILABLE for n in aspired if n in model.versions):
                self._unload_all(model, set(model.versions) - aspired)

    def _unload_all(self, model: _Model, numbers: set[int]) -> None:
        for number in sorted(numbers):
            if model.versions[number].state is not State.END:
                self._unload(model.versions[number])

    def _load_if_new(self, model: _Model, number: int, path: Path) -> None:
        version = model.versions.get(number)
        ended_well = version is not None and version.state is State.END and version.code is Code.OK
        if (version is not None and not ended_well) or self._stopping:
            return
        version = Version(model.name, number, path)
        with self._changed:
            model.versions[number] = version
        for attempt in range(self._options.max_load_retries + 1):
            if attempt and self._pause(self._options.load_retry_seconds):
                return
            if self._load(version, last=attempt == self._options.max_load_retries):
                return

    def _pause(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < deadline:
            time.sleep(min(0.1, seconds))
        return self._stopping

    def _load(self, version: Version, *, last: bool) -> bool:
        self._set(version, State.LOADING)
        began = time.monotonic()
        _LOG.info("Loading servable version {name: %s version: %d} from %s", version.model, version.number, version.path)
        try:
            servable = Servable(version.path)
            self._metrics.loaded(str(version.path), time.monotonic() - began)
            self._warm(version, servable)
        except Exception as error:
            refusal = error if isinstance(error, Refusal) else from_tensorflow(error)
            _LOG.error("Loading servable: {name: %s version: %d} failed: %s: %s", version.model, version.number, *_text(refusal))
            version.code, version.message = refusal.code, refusal.message
            if last:
                self._set(version, State.END)
            return False
        batcher = Batcher(servable, self._options.batching, self._metrics, version.model)
        version.loaded = Loaded(version.model, version.number, servable, batcher)
        version.code, version.message = Code.OK, ""
        self._set(version, State.AVAILABLE)
        took = time.monotonic() - began
        _LOG.info("Successfully loaded servable version {name: %s version: %d} in %.2f s", version.model, version.number, took)
        return True

    def _warm(self, version: Version, servable: Servable) -> None:
        began = time.monotonic()
        try:
            count = replay_warmup(servable)
        except Exception:
            servable.close()
            raise
        if count:
            took = time.monotonic() - began
            self._metrics.warmed(str(version.path), took)
            _LOG.info(
                "Finished reading warmup data for model at %s. Number of warmup records read: %d. Elapsed time (microseconds): %d.",
                version.path,
                count,
                took * 1e6,
            )
        else:
            _LOG.info("No warmup data file found at %s", version.path)

    def _unload(self, version: Version) -> None:
        self._set(version, State.UNLOADING)
        with self._changed:
            self._changed.wait_for(lambda: version.users == 0, timeout=_RELEASE_SECONDS)
        if version.loaded:
            version.loaded.batcher.close()
            version.loaded.servable.close()
        version.loaded = None
        self._set(version, State.END)
        _LOG.info("Done unloading servable version {name: %s version: %d}", version.model, version.number)

    def _set(self, version: Version, state: State) -> None:
        with self._changed:
            version.state = state
            self._changed.notify_all()


def _checked(proto: Any) -> _Model:
    if not proto.name:
        raise invalid("Model config has no name")
    if not proto.base_path:
        raise invalid(f"Expected model {proto.name} to have a base_path")
    if proto.model_platform not in ("", "tensorflow"):
        raise invalid(f"Model {proto.name} requests unsupported platform {proto.model_platform}")
    labels = {str(label): int(number) for label, number in proto.version_labels.items()}
    return _Model(proto.name, Path(proto.base_path), policy_from_proto(proto.model_version_policy), labels)


def _text(refusal: Refusal) -> tuple[str, str]:
    return refusal.code.name, refusal.message
