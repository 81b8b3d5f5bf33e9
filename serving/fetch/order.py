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
    """One release from one store into one folder."""

    store: str
    release: str
    sha256: str
    """Of release.json; empty: not checked."""
    model_dir: Path


def read_order(environment: Mapping[str, str]) -> Order:
    """The order in the DUAL_* variables; `UsageError` names the variable that is missing or wrong, and where it is set."""
    store, release = environment.get("DUAL_STORE", "").strip(), environment.get("DUAL_RELEASE", "")
    if not store:
        fix = "Set the key uri of the ConfigMap classifier-store (an overlay's configMapGenerator)"
        raise UsageError("is not set: nobody said where releases are", where="DUAL_STORE", fix=fix)
    if not _ID.fullmatch(release):
        fix = "A rollout sets it (`dual rollout start`); the applied Deployment is only its template and stays at 0 replicas"
        raise UsageError(f"'{release}' is no release id (12 hex digits)", where="DUAL_RELEASE", fix=fix)
    sha256 = environment.get("DUAL_RELEASE_SHA256", "")
    if sha256 and not _SHA256.fullmatch(sha256):
        raise UsageError(
            f"'{sha256}' is no SHA-256", where="DUAL_RELEASE_SHA256", fix="Give the 64 hex digits of release.json's, or nothing"
        )
    return Order(store, release, sha256, Path(environment.get("DUAL_MODEL_DIR") or "/models/classifier"))
