"""The child process of a local run: traces the pipeline for this machine and lets KFP's local runner execute it.

A process of its own, because the runner keeps global state, indents stdout for good, and imports KFP (seconds).
Usage: python -m pipelines.kfp_local REQUEST.json
"""

import json
import sys
import warnings
from pathlib import Path


def main(request_path: str) -> int:
    """Run the pipeline with the arguments in the request file; 0 if every task succeeded."""
    request = json.loads(Path(request_path).read_text())
    # The runner warns of each setting that it ignores and of images that it does not start; both are known and documented.
    for category in (UserWarning, RuntimeWarning):
        warnings.filterwarnings("ignore", category=category, module="kfp")
    from kfp import local

    from pipelines.dual import trace
    from pipelines.targets import Local

    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=request["pipeline_root"],
        enable_caching=False,
    )
    try:
        trace(Local())(**request["arguments"])
    except RuntimeError as error:
        # The runner's word for a failed task; the step's own error is in its record, its traceback above.
        sys.stdout.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
