"""TF Serving's ModelService in memory: it loads and unloads a step at a time, and refuses what the real one refuses.

server_core.cc, UpdateModelVersionLabelMap: a label may only be assigned to a version that is available. aspired_versions_manager.h with the
availability preserving policy: a version is unloaded when one that is aspired is available, or none is.
"""

import json
from collections.abc import Collection, Mapping, Sequence

from serving.rollout.reload import ReloadRefusedError

_UP = {"START": "LOADING", "LOADING": "AVAILABLE"}
_DOWN = {"AVAILABLE": "UNLOADING", "UNLOADING": "END"}


class FakeServer:
    """One server of one model; `step` lets a moment pass."""

    def __init__(self, broken: Collection[int] = ()) -> None:
        """No version is configured; those that are `broken` can't be loaded."""
        self.broken = set(broken)
        self.aspired: list[int] = []
        self.known: dict[int, tuple[str, str]] = {}
        self.labels: dict[str, int] = {}

    def states(self) -> dict[int, tuple[str, str]]:
        """Version → (state, why it could not be loaded)."""
        return dict(self.known)

    def label_version(self, label: str) -> int | None:
        """The version that a label selects."""
        return self.labels.get(label)

    def reload(self, versions: Sequence[int], labels: Mapping[str, int], timeout: float = 0.0) -> None:
        """Take a configuration over, whole or not at all."""
        del timeout
        for label, version in labels.items():
            if self.known.get(version, ("", ""))[0] != "AVAILABLE":
                raise ReloadRefusedError(f"Request to assign label {label} to version {version}, which is not currently available")
        self.aspired, self.labels = list(versions), dict(labels)

    def step(self) -> None:
        """Every load and unload under way comes one state further."""
        for version in self.aspired:
            self.known[version] = self._further(version)
        if not self.aspired or any(self.known[version][0] == "AVAILABLE" for version in self.aspired):
            for version in self.known.keys() - set(self.aspired):
                state, why = self.known[version]
                self.known[version] = (_DOWN.get(state, "END"), why)

    def _further(self, version: int) -> tuple[str, str]:
        state, why = self.known.get(version, ("END", ""))
        if state == "LOADING" and version in self.broken:
            return "END", "no graph in it"
        if why or state in ("AVAILABLE", "UNLOADING"):
            return (_DOWN[state], "") if state == "UNLOADING" else (state, why)
        return _UP.get(state, "START"), ""

    def stable(self) -> int | None:
        """What answers requests for the label `stable`; None if they fail."""
        version = self.labels.get("stable", 0)
        return version if self.known.get(version, ("", ""))[0] == "AVAILABLE" else None

    def page(self, label: str = "") -> tuple[int, str]:
        """Status and body of `GET /v1/models/NAME[/labels/LABEL]`."""
        if label and label not in self.labels:
            return 400, json.dumps({"error": f"Unrecognized servable version label: {label}"})
        numbers = [self.labels[label]] if label else sorted(self.known, reverse=True)
        if not numbers:
            return 404, json.dumps({"error": "Could not find any versions of model classifier"})
        return 200, json.dumps({"model_version_status": [self._status(number) for number in numbers]})

    def _status(self, number: int) -> dict[str, object]:
        state, why = self.known.get(number, ("END", ""))
        code = "UNKNOWN" if why else "OK"
        return {"version": str(number), "state": state, "status": {"error_code": code, "error_message": why}}
