"""The cloud model behind the TF-Serving-compatible server, in a process of its own."""

import json
from pathlib import Path

from components.validate_infra.asking import ASKING_ERRORS, Servable, ask_cloud, refusal, replayed_warmups
from components.validate_infra.child import Child, ChildError
from components.validate_infra.infra import Side
from components.validate_infra.settings import ValidateInfraSettings
from serving.client.remote import RemoteModel

SERVER = "serving.server (stand-in for TensorFlow Serving)"


def check_cloud(servable: Servable, work: Path, settings: ValidateInfraSettings) -> Side:
    """Load the SavedModel into the server and ask it; whatever goes wrong is in the returned `Side`.

    `work` is a scratch folder. The process is always ended.
    """
    (versions := work / "models").mkdir(parents=True)
    (versions / "1").symlink_to(servable.saved_model.resolve(), target_is_directory=True)
    ready = work / "ready.json"
    limit = settings.max_request_mb << 20
    arguments = [
        *("--model_name", servable.name, "--model_base_path", str(versions), "--port", "0", "--rest_api_port", "0"),
        *("--max_num_load_retries", "0", "--file_system_poll_wait_seconds", "0", "--max_request_bytes", str(limit)),
        *("--ready_file", str(ready), "--drain_seconds", "2"),
    ]
    side = Side()
    with Child("server", "serving.server", arguments, work / "server.log") as child:
        try:
            side.measurements["start_seconds"] = child.wait_for_file(ready, settings.start_timeout)
            ports = json.loads(ready.read_text())
            with RemoteModel(ports["host"], ports["rest_port"], ports["grpc_port"], servable.name, settings.request_timeout) as model:
                ask_cloud(side, model, servable.golden, servable.images, settings)
        except (ChildError, *ASKING_ERRORS) as error:
            side.failure = _reason(error, child)
        if child.is_alive():
            side.measurements["memory_mb"] = child.peak_memory_mb()
        side.warmup = (servable.warmups, replayed_warmups(child.log.read_text(errors="replace"), "", servable.warmups))
        side.log_tail = child.tail()
    return side


def _reason(error: Exception, child: Child) -> str:
    if isinstance(error, ChildError):
        return str(error)
    state = "still runs" if child.is_alive() else "has ended"
    return f"the server, which {state}, failed a golden image: {refusal(error)}. The end of its log: {child.tail(5)}"
