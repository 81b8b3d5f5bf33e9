"""The gRPC API: PredictionService, ModelService and grpc.health.v1 over grpc.aio."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import tensorflow as tf
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.server import messages
from serving.server.servable import require_signature
from serving.server.service import Service, Target, product
from serving.server.status import Code, Refusal, invalid

_RELOAD_SECONDS = 600.0
Context = Any


def make_server(service: Service) -> tuple[Any, Any]:
    """A grpc.aio server with every servicer (no port yet), and its health servicer."""
    options = [
        ("grpc.max_receive_message_length", service.options.max_request_bytes),
        ("grpc.max_send_message_length", -1),
        # Two servers on one port would answer in turns.
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(service), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(service), server)
    checks = health.aio.HealthServicer()
    if service.options.health:
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    return server, checks


async def set_serving(checks: Any, serving: bool) -> None:
    """Report SERVING or NOT_SERVING on grpc.health.v1, for the server and for its services."""
    status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    for name in ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"):
        await checks.set(name, status)


async def _answered(context: Context, work: Awaitable[Any]) -> Any:
    context.set_trailing_metadata((("server", product()),))
    try:
        return await work
    except Refusal as refusal:
        await context.abort(grpc.StatusCode[refusal.code.name], refusal.message)


def _target(spec: Any) -> Target:
    version = spec.version.value if spec.HasField("version") else None
    return Target(spec.name, version, spec.version_label)


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, service: Service) -> None:
        self._service = service

    async def Predict(self, request: Any, context: Context) -> Any:
        return await _answered(context, self._counted(request, self._predict, "Predict"))

    async def Classify(self, request: Any, context: Context) -> Any:
        return await _answered(context, self._counted(request, lambda r: self._no_examples(r, "classify"), "Classify"))

    async def Regress(self, request: Any, context: Context) -> Any:
        return await _answered(context, self._counted(request, lambda r: self._no_examples(r, "regress"), "Regress"))

    async def MultiInference(self, request: Any, context: Context) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this stand-in has no MultiInference; use Predict")

    async def GetModelMetadata(self, request: Any, context: Context) -> Any:
        return await _answered(context, self._metadata(request))

    async def _counted(self, request: Any, work: Callable[[Any], Awaitable[Any]], api: str) -> Any:
        began, code = time.perf_counter(), Code.OK
        try:
            with self._service.admitted():
                return await work(request)
        except Refusal as refusal:
            code = refusal.code
            raise
        except asyncio.CancelledError:
            code = Code.CANCELLED
            raise
        finally:
            took = time.perf_counter() - began
            self._service.metrics.requested(request.model_spec.name, code, api=api, entrypoint="GRPC", seconds=took)

    async def _predict(self, request: Any) -> Any:
        target = _target(request.model_spec)
        with self._service.catalog.use(target.name, target.version, target.label) as loaded:
            signature = require_signature(loaded.servable, request.model_spec.signature_name)
            inputs = {name: _array(name, proto) for name, proto in request.inputs.items()}
            outputs = await self._service.predict(loaded, signature, inputs, list(request.output_filter))
            response = predict_pb2.PredictResponse()
            messages.fill_spec(response.model_spec, loaded, signature.name)
            for name, value in outputs.items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return response

    async def _no_examples(self, request: Any, method: str) -> Any:
        target = _target(request.model_spec)
        with self._service.catalog.use(target.name, target.version, target.label) as loaded:
            raise messages.no_examples_api(method, loaded.servable.signature(request.model_spec.signature_name))

    async def _metadata(self, request: Any) -> Any:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for name in request.metadata_field:
            if name != messages.SIGNATURE_DEF:
                raise invalid(f"Metadata field {name} is not supported")
        target = _target(request.model_spec)
        with self._service.catalog.use(target.name, target.version, target.label) as loaded:
            return messages.metadata_response(loaded, messages.signature_map(loaded))


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, service: Service) -> None:
        self._service = service

    async def GetModelStatus(self, request: Any, context: Context) -> Any:
        return await _answered(context, self._status(request))

    async def HandleReloadConfigRequest(self, request: Any, context: Context) -> Any:
        return await _answered(context, self._reload(request))

    async def _status(self, request: Any) -> Any:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        target = _target(request.model_spec)
        return messages.status_response(self._service.catalog.statuses(target.name, target.version, target.label))

    async def _reload(self, request: Any) -> Any:
        catalog = self._service.catalog
        before = catalog.names()
        response = model_management_pb2.ReloadConfigResponse()
        try:
            catalog.configure(request.config)
            # Like TF Serving: the answer waits for models that are new, not for new versions of known ones.
            await asyncio.to_thread(catalog.await_models, catalog.names() - before, _RELOAD_SECONDS)
        except Refusal as refusal:
            response.status.error_code, response.status.error_message = int(refusal.code), refusal.message
        return response


def _array(name: str, proto: Any) -> Any:
    try:
        return tf.make_ndarray(proto)
    except (TypeError, ValueError):
        raise invalid(f"tensor parsing error: {name}") from None
