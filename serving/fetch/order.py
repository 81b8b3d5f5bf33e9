"""What the pod's template asks the container that fetches for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.core.errors import UsageError

_ID = re.compile(r"[0-9a-f]{12}")
_HOST = re.compile(r"labels-[0-9a-f]{6}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Order:
    """One release, or one candidate, from one store into one folder."""

    store: str
    release: str
    """Empty: a candidate."""
    sha256: str
    """Of release.json (empty: not checked), or of candidate.json."""
    model_dir: Path


@dataclass(frozen=True)
class HoldOrder:
    """The releases that the record says, from one store into one folder, and which server is to load them."""

    store: str
    host: str
    """The pod's key in the record; empty: the candidate alone."""
    candidate: Order | None
    model_dir: Path
    rest_port: int = 8501
    grpc_port: int = 8500

    @property
    def name(self) -> str:
        """The served model, and its Service."""
        return self.model_dir.name

    def of(self, release: str, sha256: str) -> Order:
        """The order for one of the releases."""
        return Order(self.store, release, sha256, self.model_dir)


def read_hold_order(environment: Mapping[str, str]) -> HoldOrder:
    """The order of a holder in the DUAL_* variables; `UsageError` as `read_order`."""
    if environment.get("DUAL_CANDIDATE", ""):
        candidate = read_order(environment)
        return HoldOrder(candidate.store, "", candidate, candidate.model_dir, *_ports(environment))
    host = environment.get("DUAL_HOST", "")
    if not _HOST.fullmatch(host):
        fix = "A rollout sets it (`dual rollout start`); the applied Deployment is only its template and stays at 0 replicas"
        raise UsageError(f"'{host}' is no host's revision (labels-, 6 hex digits)", where="DUAL_HOST", fix=fix)
    return HoldOrder(_store(environment), host, None, _model_dir(environment), *_ports(environment))


def read_order(environment: Mapping[str, str]) -> Order:
    """The order in the DUAL_* variables; `UsageError` names the variable that is missing or wrong, and where it is set."""
    store, model_dir = _store(environment), _model_dir(environment)
    if candidate := environment.get("DUAL_CANDIDATE", ""):
        return Order(store, "", _digest(candidate, "DUAL_CANDIDATE", "candidate.json's: validate_infra sets it"), model_dir)
    release, sha256 = environment.get("DUAL_RELEASE", ""), environment.get("DUAL_RELEASE_SHA256", "")
    if not _ID.fullmatch(release):
        fix = "A rollout sets it (`dual rollout start`); the applied Deployment is only its template and stays at 0 replicas"
        raise UsageError(f"'{release}' is no release id (12 hex digits)", where="DUAL_RELEASE", fix=fix)
    return Order(store, release, sha256 and _digest(sha256, "DUAL_RELEASE_SHA256", "release.json's, or nothing"), model_dir)


def _store(environment: Mapping[str, str]) -> str:
    store = environment.get("DUAL_STORE", "").strip()
    if not store:
        fix = "Set the key uri of the ConfigMap classifier-store (an overlay's configMapGenerator)"
        raise UsageError("is not set: nobody said where releases are", where="DUAL_STORE", fix=fix)
    return store


def _model_dir(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("DUAL_MODEL_DIR") or "/models/classifier")


def _ports(environment: Mapping[str, str]) -> tuple[int, int]:
    texts = [environment.get(name) or default for name, default in (("DUAL_REST_PORT", "8501"), ("DUAL_GRPC_PORT", "8500"))]
    if not all(text.isascii() and text.isdigit() for text in texts):
        raise UsageError(f"{' and '.join(texts)} are no two ports", where="DUAL_REST_PORT, DUAL_GRPC_PORT", fix="Give two numbers")
    return int(texts[0]), int(texts[1])


def _digest(text: str, where: str, whose: str) -> str:
    if not _SHA256.fullmatch(text):
        raise UsageError(f"'{text}' is no SHA-256", where=where, fix=f"Give the 64 hex digits of {whose}")
    return text
