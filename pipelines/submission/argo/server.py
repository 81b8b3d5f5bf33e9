"""An argo-server, through the argo-workflows SDK; address and token are Argo's own variables (ARGO_SERVER, ARGO_TOKEN …)."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from components.core.errors import DualError, MissingError, UsageError, missing_extra
from pipelines.submission.argo.nodes import parse_log_stream
from pipelines.submission.kubeflow.cluster import RUN_LABEL, Json, unpacked
from pipelines.submission.kubeflow.faults import Asked, AuthError, server_message, transport_fault

_TIMEOUT = (5.0, 60.0)


class ArgoError(DualError):
    """The argo-server refuses."""


@dataclass(frozen=True)
class ServerSource:
    """Workflows and logs of one namespace, as an argo-server has them."""

    client: Any
    namespace: str
    name: str

    def workflow(self, run_id: str) -> Json:
        """The live Workflow of a run; an archived one if the live one is gone."""
        listed = self._asked(
            lambda: self._service().list_workflows(
                self.namespace,
                list_options_label_selector=f"{RUN_LABEL}={run_id}",
                # The SDK's types refuse a Workflow that still runs (`finished_at` is null): the answer is taken as it comes.
                _check_return_type=False,
                _preload_content=False,
                _request_timeout=_TIMEOUT,
            )
        )
        items = json.loads(listed.data).get("items") or []
        if not items:
            raise MissingError(f"there is no Workflow of the run '{run_id}'", where=self.name, fix="Check the id and --namespace")
        return unpacked(items[0])

    def log(self, workflow: str, pod: str, lines: int) -> str:
        """Of the container `main`."""
        answer = self._asked(
            lambda: self._service().workflow_logs(
                self.namespace,
                workflow,
                pod_name=pod,
                log_options_container="main",
                log_options_tail_lines=str(lines),
                _check_return_type=False,
                _preload_content=False,
                _request_timeout=_TIMEOUT,
            )
        )
        return parse_log_stream(answer.data.decode(errors="replace"))

    def _service(self) -> Any:
        from argo_workflows.api.workflow_service_api import WorkflowServiceApi

        return WorkflowServiceApi(self.client)

    def _asked(self, call: Callable[[], Any]) -> Any:
        from argo_workflows.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            answer = call()
        except ApiException as error:
            raise _refused(error.status or 0, str(error.body or error.reason or ""), self.name) from None
        except (HTTPError, OSError) as error:
            raise transport_fault(error, Asked(self.name, "ARGO_TOKEN", "Set ARGO_TOKEN")) from None
        return answer


def find_server(namespace: str) -> ServerSource | None:
    """The argo-server that ARGO_SERVER (host:port) names, or None; ARGO_SECURE=false for plain HTTP, ARGO_TOKEN as `argo auth token`."""
    if not (address := os.environ.get("ARGO_SERVER")):
        return None
    try:
        from argo_workflows.api_client import ApiClient
        from argo_workflows.configuration import Configuration
    except ImportError:
        raise missing_extra("argo", "argo-workflows") from None
    plain = os.environ.get("ARGO_SECURE", "true").lower() == "false"
    base = os.environ.get("ARGO_BASE_HREF", "").strip("/")
    host = f"{'http' if plain else 'https'}://{address}{'/' + base if base else ''}"
    configuration: Any = Configuration(host=host, ssl_ca_cert=os.environ.get("DUAL_ARGO_CA_FILE"))
    configuration.verify_ssl = os.environ.get("ARGO_INSECURE_SKIP_VERIFY", "false").lower() != "true"
    client: Any = ApiClient(configuration)
    if token := os.environ.get("ARGO_TOKEN"):
        client.set_default_header("Authorization", token if " " in token else f"Bearer {token}")
    return ServerSource(client, namespace, f"argo-server {host}")


def _refused(status: int, body: str, where: str) -> DualError:
    said = server_message(body)
    if status in (401, 403):
        return AuthError(
            f"{status}, the argo-server refuses this identity{said}", where=where, fix="Set ARGO_TOKEN to what `argo auth token` prints"
        )
    if status == 404:
        return UsageError(f"404, not found{said}", where=where, fix="Check ARGO_SERVER, ARGO_BASE_HREF and the namespace")
    return ArgoError(f"{status}, the argo-server can't answer{said}", where=where, fix="See its log")
