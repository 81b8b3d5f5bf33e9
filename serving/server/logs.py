"""The server's log: one line for each thing that happened, to standard error."""

import logging
import sys

_QUIET = ("uvicorn", "tensorflow", "httpx")


def configure_logging() -> None:
    """Write the server's own lines; of its libraries only warnings (the follower's requests to itself are no news)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(name)s] %(message)s"))
    logger = logging.getLogger("serving")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING if name != "tensorflow" else logging.ERROR)
