"""What the pod's template asks the init container for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.core.errors import UsageError

_ID = re.compile(r"[0-9a-f]{12}")
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


def read_order(environment: Mapping[str, str]) -> Order:
    """The order in the DUAL_* variables; `UsageError` names the variable that is missing or wrong, and where it is set."""
    store = environment.get("DUAL_STORE", "").strip()
    if not store:
        fix = "Set the key uri of the ConfigMap classifier-store (an overlay's configMapGenerator)"
        raise UsageError("is not set: nobody said where releases are", where="DUAL_STORE", fix=fix)
    model_dir = Path(environment.get("DUAL_MODEL_DIR") or "/models/classifier")
    if candidate := environment.get("DUAL_CANDIDATE", ""):
        return Order(store, "", _digest(candidate, "DUAL_CANDIDATE", "candidate.json's: validate_infra sets it"), model_dir)
    release, sha256 = environment.get("DUAL_RELEASE", ""), environment.get("DUAL_RELEASE_SHA256", "")
    if not _ID.fullmatch(release):
        fix = "A rollout sets it (`dual rollout start`); the applied Deployment is only its template and stays at 0 replicas"
        raise UsageError(f"'{release}' is no release id (12 hex digits)", where="DUAL_RELEASE", fix=fix)
    return Order(store, release, sha256 and _digest(sha256, "DUAL_RELEASE_SHA256", "release.json's, or nothing"), model_dir)


def _digest(text: str, where: str, whose: str) -> str:
    if not _SHA256.fullmatch(text):
        raise UsageError(f"'{text}' is no SHA-256", where=where, fix=f"Give the 64 hex digits of {whose}")
    return text
