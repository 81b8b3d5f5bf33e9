"""Which cluster, and as whom: a kubeconfig, or the ServiceAccount of the pod that this process runs in."""

import os
from pathlib import Path
from typing import Any

from components.core.errors import UsageError


def load_context(config: Any, configuration: Any, context: str, kubeconfig: Path | None) -> str:
    """Fill the client's `configuration` (kubernetes.client.Configuration) by `config` (kubernetes.config); the namespace that goes with it.

    Raises `UsageError` if there is no way to a cluster.
    """
    # Read now: the client's own default is the environment of the moment when it was imported.
    file = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG")
    try:
        config.load_kube_config(file, context=context or None, client_configuration=configuration)
        contexts, active = config.list_kube_config_contexts(file)
        chosen = next((each for each in contexts if each["name"] == context), active)
        return str(chosen["context"].get("namespace", "default"))
    except config.ConfigException as error:
        return _load_in_cluster(config, configuration, context, str(error))


def _load_in_cluster(config: Any, configuration: Any, context: str, why: str) -> str:
    try:
        if context:
            raise config.ConfigException(f"no context {context}")
        config.load_incluster_config(client_configuration=configuration)
        return Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text().strip()
    except (config.ConfigException, OSError):
        fix = "Set KUBECONFIG or --context; `kubectl config get-contexts` lists what there is"
        raise UsageError(f"there is no way to a cluster ({why})", where="kubeconfig", fix=fix) from None
