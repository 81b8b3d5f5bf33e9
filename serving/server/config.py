"""TF Serving's configuration files: models, monitoring, batching; all in protobuf's text format.

The wheel `tensorflow-serving-api` has no monitoring_config or session_bundle_config, so these two small messages are described here.
"""

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

from components.core.errors import UsageError
from serving.server.options import METRICS_PATH, Batching

_PACKAGE = "dual.serving"
_INT64 = f".{wrappers_pb2.Int64Value.DESCRIPTOR.full_name}"
_BATCHING_FIELDS = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")


def single_model(name: str, base_path: str) -> Any:
    """The ModelServerConfig of --model_name and --model_base_path."""
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform="tensorflow")
    return config


def read_models(path: Path) -> Any:
    """The ModelServerConfig in a --model_config_file; `UsageError` names the line that is wrong."""
    return _parse(path, model_server_config_pb2.ModelServerConfig(), "--model_config_file")


def read_monitoring(path: Path) -> str | None:
    """The metrics path of a --monitoring_config_file; None if it does not enable Prometheus."""
    config = _parse(path, _message("MonitoringConfig"), "--monitoring_config_file").prometheus_config
    return (config.path or METRICS_PATH) if config.enable else None


def read_batching(path: Path) -> Batching:
    """The limits of a --batching_parameters_file; what it does not set keeps our default."""
    message = _parse(path, _message("BatchingParameters"), "--batching_parameters_file")
    given = {name: getattr(message, name).value for name in _BATCHING_FIELDS if message.HasField(name)}
    defaults = Batching()
    return Batching(
        max_batch_size=given.get("max_batch_size", defaults.max_batch_size),
        timeout_micros=given.get("batch_timeout_micros", defaults.timeout_micros),
        max_enqueued_batches=given.get("max_enqueued_batches", defaults.max_enqueued_batches),
    )


def _parse(path: Path, message: Any, flag: str) -> Any:
    try:
        return text_format.Parse(path.read_text(), message)
    except OSError as error:
        raise UsageError(f"can't be read ({error.strerror})", where=f"{flag} {path}", fix="Check the path") from None
    except text_format.ParseError as error:
        raise UsageError(f"is not a valid text-format file: {error}", where=f"{flag} {path}", fix="Correct that line") from None


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))()


def _pool() -> descriptor_pool.DescriptorPool:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="dual/serving.proto", package=_PACKAGE, syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    prometheus = file.message_type.add(name="PrometheusConfig")
    prometheus.field.add(name="enable", number=1, type=kinds.TYPE_BOOL, label=kinds.LABEL_OPTIONAL)
    prometheus.field.add(name="path", number=2, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    inner = f".{_PACKAGE}.PrometheusConfig"
    monitoring = file.message_type.add(name="MonitoringConfig")
    monitoring.field.add(name="prometheus_config", number=1, type=kinds.TYPE_MESSAGE, type_name=inner, label=kinds.LABEL_OPTIONAL)
    batching = file.message_type.add(name="BatchingParameters")
    for number, name in enumerate(_BATCHING_FIELDS, start=1):
        batching.field.add(name=name, number=number, type=kinds.TYPE_MESSAGE, type_name=_INT64, label=kinds.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return pool


_POOL = _pool()
