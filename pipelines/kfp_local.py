"""The child process of a local run: traces the pipeline for this machine and lets KFP's local runner execute it.

A process of its own, because the runner keeps global state, indents stdout for good, and imports KFP (seconds).
Usage: python -m pipelines.kfp_local REQUEST.json
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any


def main(request_path: str) -> int:
    """Run the pipeline with the arguments in the request file; 0 if every task succeeded."""
    request = json.loads(Path(request_path).read_text())
    # The runner says of each setting that it ignores that it does; that is known and documented.
    warnings.filterwarnings("ignore", category=UserWarning, module="kfp")
    from kfp import local

    from pipelines.dual import trace
    from pipelines.targets import Local

    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=request["pipeline_root"],
        raise_on_error=False,
        enable_caching=False,
    )
    task: Any = trace(Local())(**request["arguments"])
    return 0 if task.state.name == "SUCCEEDED" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
