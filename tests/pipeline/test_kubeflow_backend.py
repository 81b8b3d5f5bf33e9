"""The compiled Kubeflow package as the backend takes it: what the driver resolves, which pods come of it, and how its steps start."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.core.record import read_records
from components.core.stores import open_store
from components.report.story import ORDER, tell
from tests.kubeflow_backend import Backend, Refused, Run, open_folder
from tests.pipeline.compiled import text

GIVEN = {"data": "drawn", "store": "s3://bucket/dual"}
BLESSED = {"assemble-release": {"Output": "0123456789ab"}}
TRAINING = ("train-cloud", "train-mobile", "quantize-mobile")


def planned(tmp_path: Path, parameters: dict[str, Any] | None = None, answers: dict[str, Any] | None = None, **site: Any) -> Run:
    """A run in which no step is started: what the driver makes of it."""
    backend = Backend(text("kubeflow", **site), tmp_path, answers=BLESSED if answers is None else answers)
    return backend.run({**GIVEN, **(parameters or {})})


def test_every_step_gets_store_and_run_from_the_form_and_the_backend(tmp_path: Path) -> None:
    run = planned(tmp_path)
    assert {step.replace("-", "_") for step in run.inputs} == set(ORDER)
    assert {(inputs["store"], inputs["run_id"]) for inputs in run.inputs.values()} == {("s3://bucket/dual", run.id)}
    assert set(run.states.values()) == {"SUCCEEDED"}


def test_only_ingest_takes_the_fields_that_become_settings(tmp_path: Path) -> None:
    fields = {
        "spans": "3-7",
        "thresholds": "{}",
        "rollout_strategy": "canary",
        "rollout_steps": "[5]",
        "settings": "{}",
        "profile": "standard",
    }
    run = planned(tmp_path, fields, settings={"seed": 2})
    assert {name: run.inputs["ingest"][name] for name in fields} == fields
    assert run.inputs["ingest"]["site"] == '{"seed": 2}'
    others = {name for step, inputs in run.inputs.items() if step != "ingest" for name in inputs if "pipelinechannel" not in name}
    # Two that KFP adds where resources are fields of the form; a component does not see them.
    assert others == {"store", "run_id", "release", "status", "accelerator_type", "accelerator_count"}


def test_a_refused_release_skips_what_ships(tmp_path: Path) -> None:
    run = planned(tmp_path, answers={"assemble-release": {"Output": "NOT BLESSED"}})
    assert run.states["condition-2"] == "SKIPPED"
    assert not {"roll-out-cloud", "publish-mobile"} & set(run.states)
    assert run.states["report"] == "SUCCEEDED"


def test_by_default_pods_fit_any_cluster(tmp_path: Path) -> None:
    for step, pod in planned(tmp_path).pods.items():
        assert pod["nodeSelector"] == {}
        assert pod["tolerations"] == []
        assert float(pod["resources"]["requests"]["cpu"].replace("m", "e-3")) <= 1, step
        assert pod["resources"]["limits"].get("nvidia.com/gpu", "0") == "0"


def test_accelerators_and_nodes_are_chosen_for_one_run(tmp_path: Path) -> None:
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    chosen = {"accelerator_count": "2", "node_selector": {"gpu": "a100"}, "tolerations": tolerations}
    run = planned(tmp_path, chosen)
    for step in TRAINING:
        assert run.pods[step]["resources"]["limits"]["nvidia.com/gpu"] == "2"
        assert (run.pods[step]["nodeSelector"], run.pods[step]["tolerations"]) == ({"gpu": "a100"}, tolerations)
    assert "nvidia.com/gpu" not in run.pods["evaluate-cloud"]["resources"]["limits"]
    assert run.inputs["ingest"]["accelerator_count"] == "2"


def test_the_sites_accelerators_are_what_a_run_gets_that_says_nothing(tmp_path: Path) -> None:
    accelerators = {"count": 1, "type": "amd.com/gpu", "node_selector": {"gpu": "mi300"}}
    site: dict[str, Any] = {"accelerators": accelerators, "spot": {"enabled": True}}
    pod = planned(tmp_path, **site).pods["train-cloud"]
    assert pod["resources"]["limits"]["amd.com/gpu"] == "1"
    assert pod["nodeSelector"] == {"gpu": "mi300", "cloud.google.com/gke-spot": "true"}
    assert [toleration["key"] for toleration in pod["tolerations"]] == ["cloud.google.com/gke-spot"]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"data": None}, "data"),
        ({"accelerator_count": 1}, "accelerator_count.*expect STRING"),
        ({"node_selector": "a=b"}, "node_selector.*expect STRUCT"),
        ({"run_id": "x"}, "unknown parameters"),
        ({"node_selector": {"gpu": True}}, "failed to resolve node selector"),
    ],
)
def test_what_the_backend_refuses(parameters: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=words):
        planned(tmp_path, parameters)


def test_credentials_are_in_the_pods_and_not_in_the_package(tmp_path: Path) -> None:
    secret = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "s3cr3t", "AWS_ENDPOINT_URL": "http://minio:9000"}
    package = text("kubeflow")
    secrets = {"dual-store": secret, "dual-signing-key": {"signing-key": "PEM"}}
    run = Backend(package, tmp_path, answers=BLESSED, secrets=secrets).run(GIVEN)
    signing = {"DUAL_SIGNING_KEY": "PEM"}
    assert {step: pod["env"] for step, pod in run.pods.items()} == {
        step: {**secret, **(signing if step == "publish-mobile" else {})} for step in run.pods
    }
    assert "s3cr3t" not in package


def test_a_secret_that_must_be_there_is_missed(tmp_path: Path) -> None:
    site: dict[str, Any] = {"secrets": [{"name": "hook", "env": {"token": "HOOK"}}]}
    with pytest.raises(Refused, match="secret hook"):
        planned(tmp_path, **site)


@pytest.fixture
def store() -> Iterator[Path]:
    """A folder that a pod's user may write to."""
    with open_folder() as folder:
        yield folder


def started(store: Path, **parameters: Any) -> Run:
    """A run whose steps are processes of a nameless user, with a working folder that is read-only."""
    with open_folder() as pods:
        return Backend(text("kubeflow"), pods).run({"data": "/nowhere", "store": str(store), **parameters})


def test_a_form_that_is_refused_is_reported_by_the_exit_step(store: Path) -> None:
    run = started(store, settings='{"train_cloud": {"image_sise": 3}}')
    assert (run.states["ingest"], run.states["exit-handler-1"], run.states["report"]) == ("FAILED", "FAILED", "SUCCEEDED"), run.logs
    story = tell(read_records(open_store(str(store)), run.id))
    assert (story.outcome, story.exit_code, story.failed_step) == ("FAILED", 2, "ingest")
    assert "field settings" in story.why[0]
    assert "train_cloud.image_size" in (store / "runs" / run.id / "report" / "index.html").read_text()
    assert not (store / "runs" / run.id / "settings.json").exists()


def test_bad_data_is_reported_with_the_settings_that_the_form_came_to(store: Path) -> None:
    run = started(store, settings='{"report": {"currency": "EUR"}}', profile="standard", spans="all")
    assert run.states["report"] == "SUCCEEDED", run.logs
    story = tell(read_records(open_store(str(store)), run.id))
    assert (story.outcome, story.exit_code) == ("FAILED", 4)
    settings = json.loads((store / "runs" / run.id / "settings.json").read_text())
    assert (settings["profile"], settings["ingest"]["spans"], settings["report"]["currency"]) == ("standard", "all", "EUR")
