"""What KFP's launcher does inside of a step's container: artifacts in, the component, artifacts out. The standard library only.

`python3 launcher.py INPUT.json REPORT COMMAND...`: INPUT.json is the executor input, REPORT the gs:// address of what is told afterwards.
The launcher's own source is backend/src/v2/component/launcher_v2.go in kubeflow/pipelines. Storage is asked as its emulator is.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

_SCRATCH = ("/tmp", "/gcs", "/dev", "/proc", "/sys", "/minio", "/s3", "/.local", "/.cache", "/.config")  # noqa: S108
_PLACES = ("/", "/opt/code", "/opt/dual", "/etc", "/var/tmp", "/usr/local", "/home", "/root")  # noqa: S108


def local_path(uri: str) -> Path:
    """Where KFP's executor looks for an artifact."""
    return Path("/gcs") / uri.removeprefix("gs://")


def ask(path: str, data: bytes | None = None) -> bytes:
    """One request to the store."""
    address = f"{os.environ['STORAGE_EMULATOR_HOST']}{path}"
    request = Request(address, data=data, headers={"Content-Type": "application/octet-stream"})  # noqa: S310 - the test's own server
    with urlopen(request, timeout=60) as answer:  # noqa: S310
        return answer.read()


def names_below(uri: str) -> Iterator[tuple[str, str]]:
    """Bucket and name of each object at or below an address."""
    bucket, _, prefix = uri.removeprefix("gs://").partition("/")
    page = ""
    while True:
        found = json.loads(ask(f"/storage/v1/b/{bucket}/o?prefix={quote(prefix, safe='')}&pageToken={page}"))
        for item in found.get("items", []):
            if item["name"] == prefix or item["name"].startswith(f"{prefix}/"):
                yield bucket, item["name"]
        if not (page := found.get("nextPageToken", "")):
            return


def download(uri: str) -> None:
    """Bring an artifact, a file or a folder, to its local path."""
    for bucket, name in names_below(uri):
        path = local_path(f"gs://{bucket}/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(ask(f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media"))


def upload(uri: str) -> None:
    """Send an artifact from its local path, if the step wrote any."""
    root = local_path(uri)
    for path in [root] if root.is_file() else sorted(each for each in root.rglob("*") if each.is_file()):
        put(f"gs://{path.relative_to('/gcs')}", path.read_bytes())


def put(uri: str, data: bytes) -> None:
    """Write one object."""
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    ask(f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe='')}", data)


def artifacts(side: dict[str, Any]) -> Iterator[str]:
    """The addresses of all artifacts of the input's `inputs` or `outputs`."""
    for each in side.get("artifacts", {}).values():
        yield from (artifact["uri"] for artifact in each["artifacts"])


def writable() -> list[str]:
    """Which places outside of the scratch volumes can be written to: none should."""
    found = []
    for place in _PLACES:
        try:
            probe = Path(place) / ".probe"
            probe.touch()
            probe.unlink()
            found.append(place)
        except OSError:
            continue
    return found


def mounts() -> list[str]:
    """Mount points that are not read-only, besides the scratch volumes."""
    lines = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [point for _, point, _, options, *_ in lines if "ro" not in options.split(",") and not point.startswith(_SCRATCH)]


def main(input_file: str, report: str, command: list[str]) -> int:
    """Run the step; its exit code."""
    executor_input = json.loads(Path(input_file).read_text())
    inputs, outputs = executor_input["inputs"], executor_input["outputs"]
    for uri in artifacts(inputs):
        download(uri)
    for uri in artifacts(outputs):
        local_path(uri).parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    code = subprocess.call([json.dumps(executor_input) if word == "{{$}}" else word for word in command])
    seconds = time.monotonic() - began
    for uri in artifacts(outputs):
        upload(uri)
    written = Path(outputs["outputFile"])
    told = {
        "code": code,
        "seconds": round(seconds, 1),
        "output": json.loads(written.read_text()) if written.is_file() else {},
        "user": [os.getuid(), os.getgid()],
        "writable": writable(),
        "mounts": mounts(),
    }
    put(report, json.dumps(told).encode())
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
