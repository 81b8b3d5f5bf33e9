"""What any TF Serving answers, ours and the real one: paths, JSON, codes and texts (model_servers/, util/json_tensor.cc in its source)."""

import json
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_management_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving.client.remote import RemoteModel, images_body
from tests.serving.conftest import Target
from tests.serving.saved_model import expected_probabilities

AVAILABLE = 30


def ask(model: RemoteModel, document: Any, version: int | str | None = None) -> Any:
    response = model.post(document if isinstance(document, bytes) else json.dumps(document).encode(), version)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


def refused(model: RemoteModel, document: Any, status: int, text: str, version: int | str | None = None) -> None:
    response = model.post(document if isinstance(document, bytes) else json.dumps(document).encode(), version)
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    assert text in response.json()["error"]


def double(rows: Any) -> dict[str, Any]:
    return {"signature_name": "double", "instances": rows}


def test_row_format_drops_the_name_of_a_single_output(model: RemoteModel) -> None:
    assert ask(model, double([[1.0, 2.0], [3.0, 0.1]])) == {"predictions": [[2.0, 4.0], [6.0, 0.2]]}


def test_column_format_drops_the_name_of_a_single_output(model: RemoteModel) -> None:
    assert ask(model, {"signature_name": "double", "inputs": [[1.0, 2.0]]}) == {"outputs": [[2.0, 4.0]]}
    assert ask(model, {"signature_name": "double", "inputs": {"x": [[1.0, 2.0]]}}) == {"outputs": [[2.0, 4.0]]}


def test_row_format_takes_named_inputs(model: RemoteModel) -> None:
    assert ask(model, double([{"x": [1, 2]}])) == {"predictions": [[2.0, 4.0]]}


def test_outputs_that_end_in_bytes_come_back_as_base64(model: RemoteModel) -> None:
    rows = [{"text": "plain", "count": 1}, {"text": {"b64": b64encode(b"\xff\x00").decode()}, "count": 2}]
    answer = ask(model, {"signature_name": "echo", "instances": rows})
    assert [row["count"] for row in answer["predictions"]] == [1, 2]
    encoded = [b64encode(text).decode() for text in (b"plain", b"\xff\x00")]
    assert [row["text_bytes"] for row in answer["predictions"]] == [{"b64": text} for text in encoded]


def test_column_format_of_several_outputs(model: RemoteModel) -> None:
    answer = ask(model, {"signature_name": "echo", "inputs": {"text": ["a", "b"], "count": [3, 4]}})
    assert answer == {"outputs": {"text_bytes": [{"b64": "YQ=="}, {"b64": "Yg=="}], "count": [3, 4]}}


def test_not_a_number_and_infinity_pass(model: RemoteModel) -> None:
    response = model.post(b'{"signature_name": "double", "instances": [[NaN, Infinity], [-Infinity, 1.0]]}')
    assert response.status_code == 200
    rows = json.loads(response.text)["predictions"]
    assert np.isnan(rows[0][0])
    assert rows[0][1] == float("inf")
    assert rows[1][0] == float("-inf")


def test_an_image_is_classified_over_rest_and_grpc_alike(model: RemoteModel, photo: bytes) -> None:
    over_rest, over_grpc = model.classify_rest([photo, photo]), model.classify_grpc([photo, photo])
    assert [answer["label"] for answer in over_rest + over_grpc] == ["roses"] * 4
    assert np.allclose([a["probabilities"] for a in over_rest], [a["probabilities"] for a in over_grpc], atol=1e-6)
    assert over_rest[0]["score"] == pytest.approx(max(over_rest[0]["probabilities"]))


def test_pixels_give_the_answer_of_the_formula(model: RemoteModel) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    answer = model.predict({"pixels": pixels}, "from_pixels", version=2)
    assert np.allclose(answer["probabilities"], expected_probabilities(pixels, bias=1.0), atol=1e-5)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{not json", "JSON Parse error:"),
        (b"", "JSON Parse error: The document is empty"),
        (b"[1]", "Is not object"),
        ({"images": [1]}, "Missing 'inputs' or 'instances' key"),
        ({"instances": [1], "inputs": [1]}, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"instances": 3}, "to be an list/array"),
        ({"instances": [{"b64": "?"}]}, "Unable to base64 decode"),
        ({"signature_name": "nope", "instances": [1]}, 'Serving signature name: "nope" not found in signature def'),
        ({"signature_name": 3, "instances": [1]}, "'signature_name' key must be a string value."),
        (double([["a", "b"]]), "is not of expected type: float"),
        (double([[1.0, 2.0], [1.0]]), "Expecting tensor size: 2 but got: 1"),
        (double([{"y": [1.0, 2.0]}]), "does not have named input: y"),
        (double([{"x": [1.0, 2.0]}, [1.0, 2.0]]), "Expecting object but got list at item 1 of input list"),
        (double([[1.0, 2.0], {"x": [1.0, 2.0]}]), "Expecting value/list but got object at item 1 of input list"),
        ({"signature_name": "echo", "instances": ["a"]}, "instances is a plain list, but expecting list of objects"),
        ({"signature_name": "echo", "instances": [{"text": "a"}]}, "keys must be equal to: count,text"),
        ({"signature_name": "echo", "inputs": {"text": ["a"]}}, "Missing named input: count in 'inputs' object."),
        ({"signature_name": "echo", "instances": [{"text": "a", "count": 1.5}]}, "is not of expected type: int32"),
        ({"instances": [1.5]}, "is not of expected type: string"),
    ],
)
def test_a_malformed_body_is_400_with_tf_servings_text(model: RemoteModel, body: Any, text: str) -> None:
    refused(model, body, 400, text)


@pytest.mark.parametrize("bad", [b"no image", b"", b"\xff\xd8\xff\xe0 cut"])
def test_bytes_that_are_no_image_are_a_client_error(model: RemoteModel, photo: bytes, bad: bytes) -> None:
    response = model.post(images_body([photo, bad]))
    assert response.status_code == 400
    assert response.json()["error"]
    with pytest.raises(grpc.RpcError) as caught:
        model.classify_grpc([bad])
    assert code(caught.value) == "INVALID_ARGUMENT"
    assert model.classify_rest([photo])[0]["label"] == "roses"


def test_unknown_names_versions_and_labels(target: Target) -> None:
    other = target.other("foo")
    refused(other, double([[1, 2]]), 404, "Servable not found for request: Latest(foo)")
    refused(other, double([[1, 2]]), 404, "Servable not found for request: Specific(foo, 50)", version=50)
    refused(target.model, double([[1, 2]]), 404, "Servable not found for request: Specific(tiny, 50)", version=50)
    refused(target.model, double([[1, 2]]), 400, "Unrecognized servable version label: nowhere", version="nowhere")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/tiny:predict"),
        ("POST", "/v1/models/tiny"),
        ("GET", "/v1/models/tiny/versions/one"),
        ("PUT", "/v1/models/tiny:predict"),
        ("POST", "/v1/models/tiny:explain"),
        ("GET", "/v1/models/tiny/"),
    ],
)
def test_other_paths_are_malformed(model: RemoteModel, method: str, path: str) -> None:
    response = model.http.request(method, path, content=b"{}" if method != "GET" else None)
    assert response.status_code == 400
    assert response.json()["error"].startswith("Malformed request: ")


def test_outside_v1_there_is_nothing(model: RemoteModel) -> None:
    assert model.http.get("/v2/models/tiny").status_code == 404


def test_the_latest_version_answers_unless_one_is_named(model: RemoteModel) -> None:
    black = np.zeros((1, 32, 32, 3), np.uint8)
    for version, bias in ((None, 1.0), (2, 1.0), (1, 0.0), ("stable", 0.0)):
        answer = model.predict({"pixels": black}, "from_pixels", version)
        assert np.allclose(answer["probabilities"], expected_probabilities(black, bias), atol=1e-5), version


def test_a_response_names_the_version_that_answered(model: RemoteModel) -> None:
    response = model.prediction.Predict(model.request({"x": np.ones((1, 2), np.float32)}, "double", "stable"), timeout=30)
    assert (response.model_spec.name, response.model_spec.version.value, response.model_spec.signature_name) == ("tiny", 1, "double")


def test_status_lists_versions_newest_first(model: RemoteModel) -> None:
    entries = model.http.get(model.path()).json()["model_version_status"]
    fine = {"error_code": "OK", "error_message": ""}
    loaded = [entry for entry in entries if entry["state"] == "AVAILABLE"]
    assert loaded == [{"version": version, "state": "AVAILABLE", "status": fine} for version in ("2", "1")]


def test_status_of_one_version_and_of_a_label(model: RemoteModel) -> None:
    for version in (1, "stable"):
        entries = model.http.get(model.path(version)).json()["model_version_status"]
        assert [entry["version"] for entry in entries] == ["1"]


def test_status_of_what_is_not_there_is_404(target: Target) -> None:
    response = target.model.http.get("/v1/models/foo")
    assert (response.status_code, response.json()) == (404, {"error": "Could not find any versions of model foo"})
    response = target.model.http.get("/v1/models/tiny/versions/50")
    assert (response.status_code, response.json()) == (404, {"error": "Could not find version 50 of model tiny"})


def test_metadata_over_rest(model: RemoteModel) -> None:
    document = model.http.get(f"{model.path()}/metadata").json()
    assert document["model_spec"]["name"] == "tiny"
    signatures = document["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) >= {"serving_default", "from_pixels", "transform", "double", "echo"}
    assert signatures["double"]["method_name"] == "tensorflow/serving/predict"
    assert signatures["serving_default"]["inputs"]["image_bytes"]["dtype"] == "DT_STRING"
    assert [d["size"] for d in signatures["from_pixels"]["inputs"]["pixels"]["tensor_shape"]["dim"]][-1] == "3"


def test_metadata_is_404_for_what_is_not_loaded(model: RemoteModel) -> None:
    assert model.http.get("/v1/models/foo/metadata").status_code == 404


def test_metadata_over_grpc(model: RemoteModel) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "tiny"
    response = model.prediction.GetModelMetadata(request, timeout=30)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["double"].inputs["x"].tensor_shape.dim[1].size == 2


def code(error: Any) -> str:
    return error.code().name


@pytest.mark.parametrize(
    ("call", "expected", "text"),
    [
        (lambda m: m.predict({"x": np.ones((1, 2), np.float32)}, "nope"), "FAILED_PRECONDITION", "nope"),
        (
            lambda m: m.predict({"z": np.ones((1, 2), np.float32)}, "double"),
            "INVALID_ARGUMENT",
            "input tensor alias not found in signature: z",
        ),
        (lambda m: m.predict({}, "double"), "INVALID_ARGUMENT", "input size does not match signature: 0!=1"),
        (lambda m: m.predict({"x": np.ones((1, 2), np.int32)}, "double"), "INVALID_ARGUMENT", "float"),
        (lambda m: m.predict({"x": np.ones((1, 3), np.float32)}, "double"), "INVALID_ARGUMENT", ""),
        (lambda m: m.predict({"x": np.ones((1, 2), np.float32)}, "double", 50), "NOT_FOUND", "Specific(tiny, 50)"),
        (lambda m: m.predict({"x": np.ones((1, 2), np.float32)}, "double", "no"), "INVALID_ARGUMENT", "label: no"),
    ],
)
def test_a_malformed_grpc_request_has_tf_servings_code(
    model: RemoteModel, call: Callable[[RemoteModel], Any], expected: str, text: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(model)
    assert code(caught.value) == expected
    failure: Any = caught.value
    assert text in failure.details()


def test_an_output_filter_is_kept(model: RemoteModel) -> None:
    request = model.request({"pixels": np.zeros((1, 32, 32, 3), np.uint8)}, "from_pixels")
    request.output_filter.append("score")
    assert list(model.prediction.Predict(request, timeout=30).outputs) == ["score"]
    request.output_filter.append("nothing")
    with pytest.raises(grpc.RpcError) as caught:
        model.prediction.Predict(request, timeout=30)
    assert code(caught.value) == "INVALID_ARGUMENT"


def test_classify_of_a_predict_signature_is_refused(model: RemoteModel) -> None:
    response = model.http.post(f"{model.path()}:classify", json={"examples": [{"x": 1.0}]})
    assert response.status_code == 400
    assert "Expected classification signature method_name to be tensorflow/serving/classify" in response.json()["error"]


def test_model_status_over_grpc(model: RemoteModel) -> None:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "tiny"
    found = {e.version: e.state for e in model.models.GetModelStatus(request, timeout=30).model_version_status}
    assert found[1] == found[2] == AVAILABLE


def config(target: Target, versions: list[int], labels: dict[str, int]) -> Any:
    request = model_management_pb2.ReloadConfigRequest()
    entry = request.config.model_config_list.config.add(name="tiny", base_path=f"{target.base}/tiny", model_platform="tensorflow")
    entry.model_version_policy.specific.versions.extend(versions)
    for label, version in labels.items():
        entry.version_labels[label] = version
    return request


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def state(model: RemoteModel, version: int) -> str:
    response = model.http.get(model.path(version))
    return response.json()["model_version_status"][0]["state"] if response.status_code == 200 else ""


def test_labels_move_only_to_available_versions(target: Target) -> None:
    model, reload = target.model, target.model.models.HandleReloadConfigRequest
    answer = reload(config(target, [1, 2], {"stable": 3}), timeout=60).status
    assert answer.error_code == 9
    assert "Request to assign label to version 3 of model tiny, which is not currently available for inference" in answer.error_message
    assert reload(config(target, [1, 2, 3], {"stable": 1}), timeout=60).status.error_code == 0
    until(lambda: state(model, 3) == "AVAILABLE")
    assert reload(config(target, [1, 2, 3], {"stable": 3}), timeout=60).status.error_code == 0
    black = np.zeros((1, 32, 32, 3), np.uint8)
    assert np.allclose(
        model.predict({"pixels": black}, "from_pixels", "stable")["probabilities"], expected_probabilities(black, 2.0), atol=1e-5
    )
    assert reload(config(target, [1, 2, 3], {"stable": 1}), timeout=60).status.error_code == 0
    assert reload(config(target, [1, 2], {"stable": 1}), timeout=60).status.error_code == 0
    until(lambda: state(model, 3) == "END")
    refused(model, double([[1, 2]]), 404, "Servable not found for request: Specific(tiny, 3)", version=3)


def test_a_config_of_another_kind_is_refused(target: Target) -> None:
    request = model_management_pb2.ReloadConfigRequest(config=model_server_config_pb2.ModelServerConfig())
    request.config.custom_model_config.type_url = "type.googleapis.com/nothing"
    assert target.model.models.HandleReloadConfigRequest(request, timeout=60).status.error_code == 9


def test_metrics_have_tf_servings_names(model: RemoteModel) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    def read() -> dict[tuple[str, str], float]:
        page = model.http.get("/monitoring/prometheus/metrics").text
        samples = [s for family in text_string_to_metric_families(page) for s in family.samples if s.labels.get("model_name") == "tiny"]
        # The parser calls every counter `…_total`; the page does not.
        return {
            (s.name.removesuffix("_total"), s.labels.get("status", s.labels.get("entrypoint", ""))): s.value
            for s in samples
            if "bucket" not in s.name
        }

    before = read()
    assert ':tensorflow:serving:request_count{model_name="tiny",status="OK"} ' in model.http.get("/monitoring/prometheus/metrics").text
    ask(model, double([[1.0, 2.0]]))
    refused(model, b"{", 400, "JSON Parse error")
    after = read()
    counted = ":tensorflow:serving:request_count"
    assert after[counted, "OK"] == before[counted, "OK"] + 1
    assert after[counted, "INVALID_ARGUMENT"] == before.get((counted, "INVALID_ARGUMENT"), 0) + 1
    latency = (":tensorflow:serving:request_latency_count", "REST")
    # Recorded for OK only, in microseconds.
    assert after[latency] == before[latency] + 1
    spent = after[":tensorflow:serving:request_latency_sum", "REST"] - before[":tensorflow:serving:request_latency_sum", "REST"]
    assert 50 < spent < 30e6
