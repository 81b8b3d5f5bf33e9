"""TF Serving's response messages, made from the catalog's state."""

from collections.abc import Sequence
from typing import Any

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from serving.server.catalog import Loaded, Version
from serving.server.servable import Signature
from serving.server.status import Code, Refusal, invalid

SIGNATURE_DEF = "signature_def"
_METHODS = {"classify": "tensorflow/serving/classify", "regress": "tensorflow/serving/regress"}
_NOUNS = {"classify": "classification", "regress": "regression"}


def status_response(versions: Sequence[Version]) -> Any:
    """GetModelStatusResponse of some versions, in their order."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in versions:
        entry = response.model_version_status.add(version=version.number, state=int(version.state))
        entry.status.error_code = int(version.code)
        entry.status.error_message = version.message
    return response


def signature_map(loaded: Loaded) -> Any:
    """SignatureDefMap of a loaded version."""
    result = get_model_metadata_pb2.SignatureDefMap()
    for name, proto in loaded.servable.signature_protos().items():
        result.signature_def[name].CopyFrom(proto)
    return result


def metadata_response(loaded: Loaded, signatures: Any) -> Any:
    """GetModelMetadataResponse of a loaded version."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    fill_spec(response.model_spec, loaded)
    response.metadata[SIGNATURE_DEF].Pack(signatures)
    return response


def fill_spec(spec: Any, loaded: Loaded, signature: str = "") -> None:
    """Write which model and version answered."""
    spec.name, spec.version.value, spec.signature_name = loaded.model, loaded.number, signature


def no_examples_api(method: str, signature: Signature | None) -> Refusal:
    """The refusal of classify and regress: TF Serving's own for a predict signature, UNIMPLEMENTED for a real one."""
    expected, noun = _METHODS[method], _NOUNS[method]
    if signature is None or signature.method != expected:
        was = signature.method if signature else ""
        return invalid(f"Expected {noun} signature method_name to be {expected}. Was: {was}")
    return Refusal(Code.UNIMPLEMENTED, f"this stand-in has no {method} on tf.Example; use predict, or TensorFlow Serving itself")
