"""A model in a bucket, copied to this machine before it is served.

That is what Vertex AI hands to a container: $(AIP_STORAGE_URI) is a folder at gs://, a copy of the Model's artifacts
(https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements#artifacts).
"""

import atexit
import logging
import shutil
import tempfile
from pathlib import Path

from components.core.errors import UsageError
from components.core.stores import open_store

_LOG = logging.getLogger("serving.server")


def brought(base_path: str) -> str:
    """A local folder as it is; what is in a bucket is copied into a temporary folder, whose path this is. It is not looked at again.

    `UsageError` if nothing is there.
    """
    if "://" not in base_path:
        return base_path
    parent, _, name = base_path.rstrip("/").rpartition("/")
    root = Path(tempfile.mkdtemp(prefix="model-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    open_store(parent).get_tree(name, root)
    if not any(root.iterdir()):
        raise UsageError("there is no model", where=base_path, fix="--model_base_path is the folder above the numbered versions")
    _LOG.info("copied %s to %s", base_path, root)
    return str(root)
