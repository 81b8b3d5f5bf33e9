"""TF Serving's ModelService.HandleReloadConfigRequest without TensorFlow: a deployer needs grpcio and protobuf alone.

The generated classes of tensorflow-serving-api import TensorFlow (seconds, gigabytes), for five small messages. They are declared here
with the field numbers of tensorflow_serving/config/model_server_config.proto, file_system_storage_path_source.proto,
apis/model_management.proto and util/status.proto; only numbers and types are on the wire, so names and packages may be ours.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from components.core.errors import DualError, missing_extra

_METHOD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
_PACKAGE = "dual.reload"
# message → fields (name, number, type or message, repeated)
_MESSAGES: dict[str, list[tuple[str, int, str, bool]]] = {
    "Specific": [("versions", 1, "int64", True)],
    "VersionPolicy": [("specific", 102, "Specific", False)],
    "VersionLabel": [("key", 1, "string", False), ("value", 2, "int64", False)],
    "ModelConfig": [
        ("name", 1, "string", False),
        ("base_path", 2, "string", False),
        ("model_platform", 4, "string", False),
        ("model_version_policy", 7, "VersionPolicy", False),
        ("version_labels", 8, "VersionLabel", True),
    ],
    "ModelConfigList": [("config", 1, "ModelConfig", True)],
    "ModelServerConfig": [("model_config_list", 1, "ModelConfigList", False)],
    "ReloadConfigRequest": [("config", 1, "ModelServerConfig", False)],
    "Status": [("error_code", 1, "int32", False), ("error_message", 2, "string", False)],
    "ReloadConfigResponse": [("status", 1, "Status", False)],
}


class ReloadRefusedError(DualError):
    """The server answered, and refused the new configuration (for example a label for a version that is not AVAILABLE)."""


def reload_config(
    address: str, *, name: str, base_path: str, versions: Sequence[int], labels: Mapping[str, int], timeout: float = 30.0
) -> None:
    """Tell the server at `address` (host:port) to serve exactly `versions` of the model `name`, with these labels.

    Returns when the server accepted the configuration; loading goes on after that. Raises `ReloadRefusedError` if it refuses, and
    `DualError` if it can't be reached.
    """
    try:
        import grpc
    except ImportError:
        raise missing_extra("server", "grpcio") from None
    message = request(name=name, base_path=base_path, versions=versions, labels=labels)
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            _METHOD,
            request_serializer=type(message).SerializeToString,
            response_deserializer=message_class("ReloadConfigResponse").FromString,
        )
        try:
            status = call(message, timeout=timeout).status
        except grpc.RpcError as error:
            raise _failure(address, error) from None
    if status.error_code:
        raise ReloadRefusedError(f"refused the configuration: {status.error_message}", where=address, fix="See the server's log")


def request(*, name: str, base_path: str, versions: Sequence[int], labels: Mapping[str, int]) -> Any:
    """The ReloadConfigRequest message for one model."""
    message = message_class("ReloadConfigRequest")()
    config = message.config.model_config_list.config.add(name=name, base_path=base_path, model_platform="tensorflow")
    config.model_version_policy.specific.versions.extend(versions)
    for label, version in labels.items():
        config.version_labels.add(key=label, value=version)
    return message


@cache
def message_class(name: str) -> Any:
    """The protobuf class of one of the messages above."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))


@cache
def _pool() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool

    file = descriptor_pb2.FileDescriptorProto(name="dual/reload.proto", package=_PACKAGE, syntax="proto3")
    for message, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            _add_field(declared, name, number, kind, repeated)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _add_field(message: Any, name: str, number: int, kind: str, repeated: bool) -> None:
    field = message.field.add(name=name, number=number)
    field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
    if kind in _MESSAGES:
        field.type, field.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    else:
        field.type = {"int32": field.TYPE_INT32, "int64": field.TYPE_INT64, "string": field.TYPE_STRING}[kind]


def _failure(address: str, error: Any) -> DualError:
    code, details = error.code().name, error.details()
    if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"):
        return DualError(f"does not answer ({code}: {details})", where=address, fix="Is the server still running?")
    return ReloadRefusedError(f"refused the configuration ({code}: {details})", where=address, fix="See the server's log")
