"""`python -m serving.server`: the server with tensorflow_model_server's flags.

Differences from TF Serving: batching is on by default, --port 0 and --rest_api_port 0 mean any free port, and the ports open before the
models are loaded (GetModelStatus shows the progress; metadata and predict answer 404 until then).
"""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.core.errors import DualError, UsageError
from serving.server.logs import configure_logging
from serving.server.options import METRICS_PATH, Options

_IGNORED = (
    "rest_api_num_threads",
    "tensorflow_session_parallelism",
    "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
    "grpc_channel_arguments",
    "grpc_max_threads",
    "num_load_threads",
    "num_unload_threads",
    "flush_filesystem_caches",
    "per_process_gpu_memory_fraction",
    "enable_model_warmup",
    "prefer_tflite_model",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; the exit code."""
    parsed = _parser().parse_args(arguments)
    configure_logging()
    for name in _IGNORED:
        if getattr(parsed, name) is not None:
            logging.getLogger("serving.server").warning("--%s has no effect in this stand-in", name)
    try:
        _serve(parsed)
    except DualError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def _serve(parsed: argparse.Namespace) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from serving.server.process import ModelServer

    options, config = _options(parsed), _models(parsed)

    async def run() -> None:
        await ModelServer(options).run(config)

    asyncio.run(run())


def _models(parsed: argparse.Namespace) -> Any:
    from serving.server.bucket import brought
    from serving.server.config import read_models, single_model

    if parsed.model_config_file:
        return read_models(parsed.model_config_file)
    if not parsed.model_base_path:
        raise UsageError("neither --model_base_path nor --model_config_file is given", fix="Give one of them; see --help")
    return single_model(parsed.model_name, brought(parsed.model_base_path))


def _options(parsed: argparse.Namespace) -> Options:
    from dataclasses import replace

    from serving.server.config import read_batching, read_monitoring
    from serving.server.options import Batching

    batching = read_batching(parsed.batching_parameters_file) if parsed.batching_parameters_file else Batching()
    return Options(
        host=parsed.host,
        rest_port=parsed.rest_api_port,
        grpc_port=parsed.port,
        poll_seconds=parsed.file_system_poll_wait_seconds,
        max_load_retries=parsed.max_num_load_retries,
        load_retry_seconds=parsed.load_retry_interval_micros / 1e6,
        allow_labels_for_unavailable=parsed.allow_version_labels_for_unavailable_models,
        metrics_path=read_monitoring(parsed.monitoring_config_file) if parsed.monitoring_config_file else METRICS_PATH,
        health=parsed.enable_grpc_healthcheck_service,
        rest_timeout_seconds=parsed.rest_api_timeout_in_ms / 1e3,
        max_request_bytes=parsed.max_request_bytes,
        max_in_flight=parsed.max_in_flight,
        drain_seconds=parsed.drain_seconds,
        batching=replace(batching, merge=parsed.enable_batching),
        ready_file=parsed.ready_file,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving.server", description=__doc__, allow_abbrev=False)
    for name, kind, default, text in _FLAGS:
        nargs = "?" if kind is _boolean else None
        parser.add_argument(f"--{name}", type=kind, default=default, nargs=nargs, const=True if nargs else None, help=text)
    for name in _IGNORED:
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    return parser


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")


_FLAGS: list[tuple[str, Any, Any, str]] = [
    ("port", int, 8500, "gRPC port; 0 is any free one"),
    ("rest_api_port", int, 8501, "REST port; 0 is any free one"),
    ("host", str, "127.0.0.1", "address to listen at (TF Serving listens at 0.0.0.0)"),
    ("model_name", str, "default", "name of the single model"),
    ("model_base_path", str, "", "folder whose numbered subfolders are the model's versions; what is at gs:// or s3:// is copied once"),
    ("model_config_file", Path, None, "ModelServerConfig in text format, instead of the two above"),
    ("file_system_poll_wait_seconds", float, 1.0, "seconds between looks for new versions; 0 never looks again"),
    ("monitoring_config_file", Path, None, "MonitoringConfig in text format; without it metrics are at " + METRICS_PATH),
    ("batching_parameters_file", Path, None, "BatchingParameters in text format"),
    ("enable_batching", _boolean, True, "merge requests that wait at the same time"),
    ("max_num_load_retries", int, 5, "how often a failed load is tried again"),
    ("load_retry_interval_micros", int, 60_000_000, "pause between these tries"),
    ("allow_version_labels_for_unavailable_models", _boolean, False, "let a new label point to a version that is still loading"),
    ("enable_grpc_healthcheck_service", _boolean, True, "serve grpc.health.v1"),
    ("rest_api_timeout_in_ms", int, 30_000, "longest time for a REST request"),
    ("max_request_bytes", int, 64 << 20, "largest request; beyond it 413 or RESOURCE_EXHAUSTED (ours)"),
    ("max_in_flight", int, 256, "most requests in progress; beyond it 429 or RESOURCE_EXHAUSTED (ours)"),
    ("drain_seconds", float, 20.0, "how long requests may take to finish after SIGTERM (ours)"),
    ("ready_file", Path, None, "JSON with pid and ports, written when the models are AVAILABLE (ours)"),
]


if __name__ == "__main__":
    sys.exit(main())
