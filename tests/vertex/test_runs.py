"""dual submit and dual runs against a Vertex AI that speaks the documented REST."""

import json
import re
from pathlib import Path

import pytest

from tests.kubeflow.fake_kfp import Answer, Request, as_json
from tests.kubeflow.plays import Frame, Play
from tests.kubeflow.records import RELEASE, breaks, refuses
from tests.vertex.conftest import PACKAGE, STORE, Dual
from tests.vertex.fake_vertex import PARENT, FakeVertex, Refusal

FAST = ("--watch", "--every", "0.02")


def only_run(vertex: FakeVertex) -> str:
    (found,) = vertex.jobs
    return found


def test_a_run_is_sent_whole_and_watched_to_its_verdict_and_report(submit: Dual, vertex: FakeVertex, tmp_path: Path) -> None:
    result = submit(*FAST, "--service-account", "steps@my-project.iam.gserviceaccount.com", "--param", "count=3", "--name", "weekly")
    assert result.exit_code == 0, result.output
    run = only_run(vertex)
    assert re.fullmatch(r"dual-deploy-\d{14}-[0-9a-f]{6}", run)
    assert "SHIPPED" in result.output
    assert RELEASE in result.output
    link = f"https://console.cloud.google.com/vertex-ai/locations/europe-west4/pipelines/runs/{run}?project=my-project"
    assert link in result.output
    assert "train_cloud" in result.output
    assert (tmp_path / f"{run}.html").read_text() == "<h1>the report</h1>"
    job = vertex.jobs[run]
    assert job["runtimeConfig"] == {
        "gcsOutputDirectory": "gs://models/root",
        "parameterValues": {"count": 3, "data": "drawn", "store": STORE},
    }
    assert (job["displayName"], job["serviceAccount"]) == ("weekly", "steps@my-project.iam.gserviceaccount.com")
    assert job["labels"]["dual-experiment"] == "dual-deploy"
    dags = [job["pipelineSpec"]["root"], job["pipelineSpec"]["components"]["comp-exit-handler-1"]]
    assert all(task["cachingOptions"] == {"enableCache": False} for dag in dags for task in dag["dag"]["tasks"].values())


def test_network_and_labels_come_from_the_connections_file(submit: Dual, vertex: FakeVertex, tmp_path: Path) -> None:
    (file := tmp_path / "vertex.yaml").write_text("network: projects/123/global/networks/lab\nlabels: {team: plants}\n")
    assert submit("--connection", file).exit_code == 0
    job = vertex.jobs[only_run(vertex)]
    assert (job["network"], job["labels"]["team"]) == ("projects/123/global/networks/lab", "plants")
    file.write_text("labels: {Team: plants}\n")
    refused = submit("--connection", file)
    assert (refused.exit_code, "'Team' can be no label" in refused.output) == (2, True)


@pytest.mark.parametrize(("play", "exit_code", "said"), [(refuses, 3, "NOT SHIPPED"), (breaks, 1, "out of ideas")])
def test_the_store_says_how_a_run_ended(submit: Dual, vertex: FakeVertex, play: object, exit_code: int, said: str) -> None:
    vertex.play = play  # type: ignore[assignment]
    result = submit(*FAST)
    assert result.exit_code == exit_code, result.output
    assert said in result.output


def test_steps_only_and_their_states_in_our_words(submit: Dual, dual: Dual, vertex: FakeVertex) -> None:
    steps = {"ingest": "CACHED", "train_cloud": "RUNNING", "publish_mobile": "SKIPPED"}
    vertex.play = lambda _: Play([Frame("RUNNING", steps, error={"train_cloud": "no NVIDIA_L4 is free"})])
    submit()
    shown = json.loads(dual("runs", "show", only_run(vertex), "--target", "vertex", "--json").output)
    assert {task["name"]: task["state"] for task in shown["tasks"]} == {
        "ingest": "cached",
        "train_cloud": "running",
        "publish_mobile": "skipped",
    }
    assert [task["error"] for task in shown["tasks"] if task["name"] == "train_cloud"] == ["no NVIDIA_L4 is free"]


def test_what_the_service_tries_to_overcome_is_told_while_watching(submit: Dual, vertex: FakeVertex) -> None:
    waiting = Frame("RUNNING", {"ingest": "SUCCEEDED", "train_cloud": "PENDING"}, error={"train_cloud": "no NVIDIA_L4 is free"})
    vertex.play = lambda _: Play([waiting, Frame("FAILED", {"ingest": "SUCCEEDED", "train_cloud": "FAILED"})])
    result = submit(*FAST)
    assert "warning: no NVIDIA_L4 is free" in result.output
    assert result.exit_code == 1


def test_a_lost_answer_is_no_second_run(submit: Dual, vertex: FakeVertex) -> None:
    def lose(request: Request) -> Answer | None:
        if request.method == "POST" and not vertex.jobs:
            vertex.create_job(request)
            return as_json({"error": {"code": 503, "message": "The service is currently unavailable."}}, 503)
        return None

    vertex.guard = lose
    assert submit().exit_code == 0
    assert only_run(vertex)
    assert len(vertex.calls("POST", "pipelineJobs$")) == 1


def test_runs_are_listed_filtered_and_paged_without_their_specs(submit: Dual, dual: Dual, vertex: FakeVertex) -> None:
    for name in ("red 1", "red 2", 'blue "x"'):
        submit("--name", name)
    vertex.jobs[next(iter(vertex.jobs))]["state"] = "PIPELINE_STATE_CANCELLED"
    listed = ("runs", "list", "--target", "vertex", "--json")

    def names(*words: str) -> list[str]:
        return [run["name"] for run in json.loads(dual(*listed, *words).output)["runs"]]

    assert names() == ['blue "x"', "red 2", "red 1"]
    assert names("--name", "red") == ["red 2", "red 1"]
    assert names("--name", 'e "x') == ['blue "x"']
    assert names("--state", "terminated") == ["red 1"]
    assert names("--experiment", "another") == []
    first = json.loads(dual(*listed, "--limit", "2").output)
    assert names("--limit", "2", "--page", first["following"]) == ["red 1"]
    assert first["runs"][0]["version"] == first["runs"][0]["pipeline"] + "-" + vertex.jobs[first["runs"][0]["id"]]["labels"]["dual-digest"]
    assert dual("runs", "list", "--target", "vertex").exit_code == 0
    assert "readMask" in vertex.calls("GET", "pipelineJobs$")[0].query


def test_a_version_is_found_in_the_runs_that_had_it(submit: Dual, dual: Dual, vertex: FakeVertex) -> None:
    submit()
    first = vertex.jobs[only_run(vertex)]
    version = f"dual-deploy-{first['labels']['dual-digest']}"
    again = dual("submit", "--target", "vertex", "--version", version, "--data", "drawn", "--store", STORE)
    assert again.exit_code == 0, again.output
    second = list(vertex.jobs.values())[-1]
    assert (second["labels"], len(vertex.jobs)) == (first["labels"], 2)
    assert second["pipelineSpec"]["components"] == first["pipelineSpec"]["components"]
    missing = dual("submit", "--target", "vertex", "--version", "dual-deploy-0000", "--data", "drawn", "--store", STORE)
    assert "no run here was of 'dual-deploy-0000'" in missing.output


def test_a_run_is_cancelled_and_then_deleted(submit: Dual, dual: Dual, vertex: FakeVertex) -> None:
    vertex.play = lambda _: Play([Frame("RUNNING", {"ingest": "RUNNING"})])
    submit()
    run = only_run(vertex)
    running = dual("runs", "delete", run, "--target", "vertex")
    assert (running.exit_code, f"dual runs terminate {run} --target vertex" in running.output) == (2, True)
    assert dual("runs", "terminate", run, "--target", "vertex").exit_code == 0
    watched = dual("runs", "watch", run, "--target", "vertex", "--every", "0.02")
    assert (watched.exit_code, "TERMINATED" in watched.output) == (1, True)
    over = dual("runs", "terminate", run, "--target", "vertex")
    assert (over.exit_code, "the run is over" in over.output) == (2, True)
    assert dual("runs", "delete", run, "--target", "vertex").exit_code == 0
    assert vertex.jobs == {}
    assert len(vertex.calls("GET", "operations")) == 2
    gone = dual("runs", "show", run, "--target", "vertex")
    assert (gone.exit_code, f"there is no run '{run}'" in gone.output) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("retry", "x"), "Vertex AI can't retry a run"),
        (("archive", "x"), "dual runs delete x --target vertex"),
        (("list", "--archived"), "Vertex archives no runs"),
        (("list", "--state", "skipped"), "'skipped' is no state of Vertex'"),
        (("show", "x", "--nodes"), "only Kubeflow's runs have a Workflow"),
        (("list", "--namespace", "x"), "Vertex AI has no setting 'namespace'"),
    ],
)
def test_what_vertex_does_not_offer_is_said(dual: Dual, submit: Dual, vertex: FakeVertex, words: tuple[str, ...], said: str) -> None:
    submit()
    words = tuple(only_run(vertex) if word == "x" and words[0] == "show" else word for word in words)
    result = dual("runs", *words, "--target", "vertex")
    assert (result.exit_code, said in result.output) == (2, True), result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--pipeline-root", "s3://x"), "Vertex needs a folder at gs://"),
        (("--store", "s3://models/x"), "steps on Vertex can't reach 's3://models/x'"),
        (("--experiment", "My Flowers"), "'My Flowers' can be no label"),
        (("--name", "x" * 129), "a name has 1 to 128 characters"),
        (("--upload-only",), "Vertex keeps no packages"),
    ],
)
def test_what_vertex_would_refuse_is_refused_before_it_is_asked(
    submit: Dual, vertex: FakeVertex, words: tuple[str, ...], said: str
) -> None:
    result = submit(*words)
    assert (result.exit_code, said in result.output) == (2, True), result.output
    assert vertex.requests == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("", "---\nplatforms: {kubernetes: {}}\n"), "a second document, for Kubernetes"),
        (
            ('registry/dual-trainer@sha256:aa"', 'r/t@sha256:aa", resources: {accelerator: {type: nvidia.com/gpu}}'),
            "NVIDIA_L4 and the like",
        ),
    ],
)
def test_a_package_for_kubeflow_is_refused(submit: Dual, package: Path, vertex: FakeVertex, change: tuple[str, str], said: str) -> None:
    package.write_text(PACKAGE.replace(*change) if change[0] else PACKAGE + change[1])
    result = submit()
    assert (result.exit_code, said in result.output, vertex.requests) == (2, True, []), result.output


def test_the_fake_refuses_what_the_service_documents(vertex: FakeVertex) -> None:
    job = {"pipelineSpec": {"schemaVersion": "2.1.0", "root": {}}, "runtimeConfig": {"gcsOutputDirectory": "gs://x"}}

    def create(body: object, identity: str = "a") -> dict[str, object]:
        return vertex.create_job(Request("POST", f"/v1/{PARENT}/pipelineJobs", {"pipelineJobId": identity}, {}, json.dumps(body).encode()))

    create(job)
    unknown = {**job, "runtimeConfig": {**job["runtimeConfig"], "parameterValues": {"x": 1}}}
    refused = [
        (job, "A"),
        (job, "a"),
        (job | {"x": 1}, "b"),
        (job | {"runtimeConfig": {}}, "b"),
        (unknown, "b"),
        (job | {"labels": {"A": ""}}, "b"),
    ]
    for body, identity in refused:
        with pytest.raises(Refusal):
            create(body, identity)


def test_the_turns_of_a_loop_are_one_task_that_is_over_with_the_last_of_them() -> None:
    from pipelines.submission.vertex.answers import _tasks

    spec = {
        "components": {"comp-a": {"executorLabel": "exec-a"}},
        "root": {"dag": {"tasks": {"ingest-shard": {"componentRef": {"name": "comp-a"}}}}},
    }

    def state(*turns: tuple[str, str]) -> str:
        details = [
            {"taskName": "ingest-shard", "parentTaskId": parent, "state": said, "startTime": f"2026-01-01T00:00:0{number}Z"}
            for number, (parent, said) in enumerate(turns)
        ]
        (task,) = _tasks({"pipelineSpec": spec, "jobDetail": {"taskDetails": details}})
        return task.state

    assert state(("1", "SUCCEEDED"), ("2", "RUNNING"), ("3", "SUCCEEDED")) == "running"
    assert state(("1", "FAILED"), ("2", "SUCCEEDED")) == "failed"
    assert state(("1", "FAILED"), ("1", "SUCCEEDED"), ("2", "SUCCEEDED")) == "succeeded"
