"""`python -m serving.fetch`: stage the model that the environment names, say what was done, leave with the error tree's exit codes.

DUAL_STORE           where releases are: a mounted folder, gs://bucket/prefix, s3://bucket/prefix, http(s)://host/path
DUAL_RELEASE         the release's id, 12 hex digits
DUAL_RELEASE_SHA256  the digest that its release.json must have (optional)
DUAL_CANDIDATE       instead of both: the digest of a candidate.json, for a check before there is a release
DUAL_MODEL_DIR       where the server looks for versions (/models/classifier)
"""

import os
import sys

from components.core.errors import DualError
from components.core.meter import tell
from serving.fetch.order import read_order
from serving.fetch.stage import Patience, stage


def main() -> int:
    """Stage the model; the exit code. The last line is the reason of a failure: Kubernetes shows it as the container's message."""
    try:
        stage(read_order(os.environ), tell, Patience())
    except DualError as error:
        tell(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
