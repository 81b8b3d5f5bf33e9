"""The warm-up file: requests inside the SavedModel that are replayed before a version becomes AVAILABLE.

Format: a TFRecord of PredictionLog messages, at most 1000, in `assets.extra/tf_serving_warmup_requests`; TF Serving reads the same.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from serving.server.servable import Servable, check_inputs, pick_outputs, require_signature
from serving.server.status import Refusal, from_tensorflow, invalid

WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000


def write_warmup(saved_model: Path, requests: Sequence[Any]) -> Path:
    """Write PredictRequest messages as the warm-up file of the SavedModel; its path is returned.

    Raises ValueError for more than 1000 requests: TF Serving would refuse to load the model.
    """
    if len(requests) > MAX_RECORDS:
        raise ValueError(f"{len(requests)} warm-up requests, at most {MAX_RECORDS}")
    path = saved_model / WARMUP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    with tf.io.TFRecordWriter(str(temporary)) as writer:
        for request in requests:
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())
    return temporary.replace(path)


def predict_request(model: str, inputs: dict[str, Any], signature: str = "serving_default") -> Any:
    """A PredictRequest for numpy arrays (or lists of bytes) by input name."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def replay_warmup(servable: Servable) -> int:
    """Run every request of the servable's warm-up file; how many there were (0 without a file).

    Raises a `Refusal` that names the first request that fails, as TF Serving fails the load.
    """
    path = servable.path / WARMUP_FILE
    if not path.is_file():
        return 0
    count = 0
    for count, log in enumerate(_logs(path), start=1):
        if count > MAX_RECORDS:
            raise invalid(f"Number of warmup records exceeeds the maximum ({MAX_RECORDS}) at {path}")
        _replay(servable, log, count)
    return count


def _logs(path: Path) -> Iterator[Any]:
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        yield prediction_log_pb2.PredictionLog.FromString(record)


def _replay(servable: Servable, log: Any, number: int) -> None:
    if not log.HasField("predict_log"):
        raise invalid(f"warm-up request {number} is not a predict_log; this server replays Predict only")
    request = log.predict_log.request
    try:
        signature = require_signature(servable, request.model_spec.signature_name)
        inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        check_inputs(signature, inputs)
        servable.run(signature, inputs, pick_outputs(signature, list(request.output_filter)))
    except Refusal:
        raise
    except Exception as error:
        refusal = from_tensorflow(error)
        raise Refusal(refusal.code, f"warm-up request {number} failed: {refusal.message}") from error
