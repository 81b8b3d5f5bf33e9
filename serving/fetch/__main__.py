"""`python -m serving.fetch`: stage the model that the environment names, say what was done, leave with the error tree's exit codes.

DUAL_STORE           where releases are: a mounted folder, gs://bucket/prefix, s3://bucket/prefix, http(s)://host/path
DUAL_RELEASE         the release's id, 12 hex digits
DUAL_RELEASE_SHA256  the digest that its release.json must have (optional)
DUAL_CANDIDATE       instead of both: the digest of a candidate.json, for a check before there is a release
DUAL_MODEL_DIR       where the server looks for versions (/models/classifier); its name is the model's

With `--hold` it stays: beside a server in the same pod, which it lets load and label what the live Service says of the pod's host.

DUAL_HOST            which host's pod this is: the key in the Service's annotation dual.dev/holds
DUAL_REST_PORT       the server's ports on this machine (8501, 8500)
DUAL_GRPC_PORT
"""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from components.core.errors import DualError, UsageError
from components.core.meter import tell
from serving.fetch.order import read_hold_order, read_order
from serving.fetch.stage import Patience, stage


def main(arguments: Sequence[str] = ()) -> int:
    """Stage the model, or hold; the exit code. The last line is the reason of a failure: Kubernetes shows it as the container's message."""
    try:
        if _holds(arguments):
            from serving.fetch.hold import hold

            # As process 1 of its container it would not be ended by the signal otherwise.
            signal.signal(signal.SIGTERM, _leave)
            hold(read_hold_order(os.environ), tell)
        else:
            stage(read_order(os.environ), tell, Patience())
    except DualError as error:
        tell(f"error: {error}")
        return error.exit_code
    return 0


def _holds(arguments: Sequence[str]) -> bool:
    if tuple(arguments) not in ((), ("--hold",)):
        raise UsageError(f"{' '.join(arguments)} is not known", where="serving.fetch", fix="Give --hold, or nothing")
    return bool(arguments)


def _leave(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
