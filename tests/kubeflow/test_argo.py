"""Argo: CronWorkflows as files, and a run's nodes and logs, from an argo-server or from the Kubernetes API."""

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.errors import UsageError
from pipelines.submission.argo.cron_workflow import ArgoSchedule, cron_workflow
from pipelines.submission.cron import read_cron
from pipelines.submission.trigger import Interval, Plan, read_time
from tests.kubeflow.conftest import Dual
from tests.kubeflow.fake_kfp import Answer, FakeKfp, Request, as_json, serving
from tests.kubeflow.fake_kubernetes import FakeKubernetes, kubernetes
from tests.kubeflow.plays import waiting
from tests.kubeflow.workflows import NAME, node, trains, workflow

IMAGE = "registry.example.com/dual-deployer@sha256:" + "0" * 64
POD = f"{NAME}-system-container-impl-7"


@pytest.fixture
def run(submit: Dual, kfp: FakeKfp) -> str:
    """A run that is under way."""
    kfp.state.play = lambda _: waiting()
    return json.loads(submit("--json").output)["run"]


@pytest.fixture
def cluster(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKubernetes]:
    """A cluster that has the run's Workflow and logs."""
    fake = FakeKubernetes({"workflows": [workflow(run)]})
    fake.logs[POD, "main"] = "".join(f"line {number}\n" for number in range(5))
    fake.logs[f"{NAME}-system-container-impl-5", "main"] = "ingested\n"
    fake.logs[f"{NAME}-system-container-impl-8", "main"] = ""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with kubernetes(fake, tmp_path / "kubeconfig"):
        yield fake


class ArgoServer:
    """The documented REST of an argo-server: lists of Workflows, and logs as a stream of JSON lines."""

    def __init__(self, workflows: list[dict[str, Any]]) -> None:
        self.workflows, self.token, self.asked = workflows, "", list[Request]()

    def answer(self, request: Request) -> Answer:
        self.asked.append(request)
        if self.token and request.headers.get("Authorization") != self.token:
            return as_json({"code": 16, "message": "token not valid", "details": []}, 401)
        if request.path == "/api/v1/workflows/kubeflow":
            label = request.query.get("listOptions.labelSelector", "")
            found = [each for each in self.workflows if f"pipeline/runid={each['metadata']['labels']['pipeline/runid']}" == label]
            # An empty list is null there.
            return as_json({"metadata": {"resourceVersion": "1"}, "items": found or None})
        if request.path == f"/api/v1/workflows/kubeflow/{NAME}/log":
            assert request.query["logOptions.container"] == "main"
            lines = [
                {"result": {"content": f"{request.query['podName']} says {number}", "podName": request.query["podName"]}}
                for number in (1, 2)
            ]
            return Answer(200, "\n".join(json.dumps(line) for line in lines).encode())
        return as_json({"code": 5, "message": "Not Found"}, 404)


@pytest.fixture
def server(run: str) -> Iterator[tuple[ArgoServer, dict[str, str]]]:
    """An argo-server and the variables that lead to it."""
    fake = ArgoServer([workflow(run)])
    with serving(fake.answer) as url:
        yield fake, {"ARGO_SERVER": url.removeprefix("http://"), "ARGO_SECURE": "false"}


def test_nodes_from_the_kubernetes_api(run: str, cluster: FakeKubernetes, dual: Dual) -> None:
    lines = [line.split() for line in dual("runs", "show", run, "--nodes").output.splitlines()]
    assert ["root.train-cloud.executor", "Pod", "Running", POD] in lines
    assert ["root.ingest", "DAG", "Succeeded"] in lines
    assert next(line for line in lines if line[0] == "root.train-mobile.executor")[4:6] == ["Unschedulable:", "0/3"]
    del cluster


def test_nodes_that_argo_has_packed(run: str, cluster: FakeKubernetes, dual: Dual) -> None:
    packed = workflow(run)
    nodes = packed["status"].pop("nodes")
    packed["status"]["compressedNodes"] = base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode()
    cluster.objects["workflows"] = [packed]
    assert "root.train-cloud.executor" in dual("runs", "show", run, "--nodes").output


def test_nodes_as_json(run: str, cluster: FakeKubernetes, dual: Dual) -> None:
    shown = json.loads(dual("runs", "show", run, "--nodes", "--json").output)
    (found,) = [each for each in shown["nodes"] if each["name"] == "root.train-cloud.executor"]
    assert (found["step"], found["phase"], found["started"], found["ended"]) == ("train_cloud", "Running", "2026-11-26T03:00:07Z", None)
    del cluster


def test_logs_from_the_pods(run: str, cluster: FakeKubernetes, dual: Dual) -> None:
    assert dual("runs", "logs", run, "train_cloud", "--lines", 2).output == f"==> {POD} <==\nline 3\nline 4\n"
    everything = dual("runs", "logs", run).output
    assert "ingested" in everything
    assert "driver" not in everything
    result = dual("runs", "logs", run, "report")
    assert (result.exit_code, "Steps with pods: ingest, train_cloud, train_mobile" in result.output) == (2, True), result.output
    del cluster


def test_logs_of_a_pod_that_is_gone(run: str, cluster: FakeKubernetes, dual: Dual) -> None:
    cluster.logs.clear()
    result = dual("runs", "logs", run, "train_cloud")
    assert (result.exit_code, f'pods "{POD}" not found' in result.output) == (1, True), result.output


def test_a_workflow_that_is_gone(run: str, cluster: FakeKubernetes, dual: Dual) -> None:
    cluster.objects["workflows"] = []
    result = dual("runs", "logs", run)
    assert (result.exit_code, "there is no Workflow of the run" in result.output) == (2, True)


def test_nodes_and_logs_from_an_argo_server(run: str, server: tuple[ArgoServer, dict[str, str]], dual: Dual) -> None:
    _, environment = server
    assert "root.train-cloud.executor" in dual("runs", "show", run, "--nodes", **environment).output
    assert dual("runs", "logs", run, "train-cloud", **environment).output == f"==> {POD} <==\n{POD} says 1\n{POD} says 2\n"


def test_an_argo_server_wants_a_token(run: str, server: tuple[ArgoServer, dict[str, str]], dual: Dual) -> None:
    fake, environment = server
    fake.token = "Bearer v2:abc"
    result = dual("runs", "logs", run, **environment)
    assert (result.exit_code, "the argo-server refuses this identity: token not valid" in result.output) == (1, True), result.output
    assert "argo auth token" in result.output
    assert dual("runs", "logs", run, "ingest", **environment, ARGO_TOKEN="Bearer v2:abc").exit_code == 0
    assert dual("runs", "logs", run, "ingest", **environment, ARGO_TOKEN="v2:abc").exit_code == 0


def test_an_argo_server_that_is_not_there_or_knows_nothing(run: str, server: tuple[ArgoServer, dict[str, str]], dual: Dual) -> None:
    fake, environment = server
    fake.workflows = []
    assert "there is no Workflow of the run" in dual("runs", "logs", run, **environment).output
    result = dual("runs", "logs", run, **{**environment, "ARGO_SERVER": "127.0.0.1:1"})
    assert (result.exit_code, "the connection was refused" in result.output) == (1, True), result.output
    result = dual("runs", "logs", run, **{**environment, "ARGO_BASE_HREF": "/argo/"})
    assert "404, not found: Not Found" in result.output


# CronWorkflows


@pytest.fixture
def create(dual: Dual, package: Path, tmp_path: Path) -> Dual:
    """`dual schedule create weekly --engine argo -o schedule.yaml`."""
    needed = ("--package", package, "--data", "drawn", "--store", "gs://bucket/store", "-o", tmp_path / "schedule.yaml")

    def run(*words: object, **environment: str) -> Any:
        return dual("schedule", "create", "weekly", "--engine", "argo", *needed, *words, **environment)

    return run


def _written(tmp_path: Path) -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in yaml.safe_load_all((tmp_path / "schedule.yaml").read_text())}


def test_a_file_holds_the_schedule_and_its_account(create: Dual, kfp: FakeKfp, tmp_path: Path) -> None:
    result = create("--image", IMAGE, "--cron", "0 3 * * 1", "--timezone", "Asia/Tokyo", "--set", "seed=3", "--param", "ratio=0.5")
    assert result.exit_code == 0, result.output
    assert "03:00:00 JST" in result.output
    assert kfp.requests == []
    found = _written(tmp_path)
    assert set(found) == {"ServiceAccount", "Role", "RoleBinding", "CronWorkflow"}
    assert found["Role"]["rules"] == [{"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}]
    spec = found["CronWorkflow"]["spec"]
    assert (spec["schedules"], spec["timezone"], spec["concurrencyPolicy"], "schedule" in spec) == (
        ["0 3 * * 1"],
        "Asia/Tokyo",
        "Forbid",
        False,
    )
    container = spec["workflowSpec"]["templates"][0]["container"]
    assert container["image"] == IMAGE
    args = container["args"]
    assert args[:3] == ["submit", "--pipeline", "dual-deploy"]
    assert [args[args.index(flag) + 1] for flag in ("--data", "--store", "--set", "--param")] == [
        "drawn",
        "gs://bucket/store",
        "seed=3",
        "ratio=0.5",
    ]
    assert "--watch" in args


def test_the_workflow_of_the_file_submits(create: Dual, dual: Dual, submit: Dual, kfp: FakeKfp, tmp_path: Path) -> None:
    """What the container would do, done here: the version is uploaded, and the arguments are given to dual."""
    create("--image", IMAGE, "--cron", "0 3 * * 1", "--no-wait", "--set", "seed=3")
    args = _written(tmp_path)["CronWorkflow"]["spec"]["workflowSpec"]["templates"][0]["container"]["args"]
    assert "has no version" in dual(*args).output or "there is no pipeline" in dual(*args).output
    submit("--upload-only")
    result = dual(*args)
    assert result.exit_code == 0, result.output
    (started,) = kfp.state.runs.values()
    assert json.loads(started["runtime_config"]["parameters"]["settings"]) == {"seed": 3}


def test_the_pod_is_restricted_and_holds_a_token_for_kubeflow(create: Dual, tmp_path: Path) -> None:
    create("--image", IMAGE, "--cron", "0 3 * * 1", "--host", "http://ml-pipeline.kfp:8888", "-n", "alice")
    found = _written(tmp_path)
    spec = found["CronWorkflow"]["spec"]["workflowSpec"]
    container = spec["templates"][0]["container"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    (source,) = next(volume["projected"]["sources"] for volume in spec["volumes"] if "projected" in volume)
    assert source["serviceAccountToken"]["audience"] == "pipelines.kubeflow.org"
    assert {each["metadata"]["namespace"] for each in found.values()} == {"alice"}
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert environment == {"DUAL_KFP_HOST": "http://ml-pipeline.kfp:8888", "DUAL_KFP_NAMESPACE": "alice"}


def test_no_secret_of_this_machine_gets_into_the_file(create: Dual, tmp_path: Path) -> None:
    create("--image", IMAGE, "--cron", "0 3 * * 1", DUAL_KFP_TOKEN="my-secret", DUAL_KFP_PASSWORD="my-secret", DUAL_KFP_USERNAME="me")
    assert "my-secret" not in (tmp_path / "schedule.yaml").read_text()


def test_the_image_comes_from_the_build_or_the_registry(create: Dual, tmp_path: Path) -> None:
    build = {"builds": [{"imageName": "dual-deployer", "tag": IMAGE}]}
    (tmp_path / "build.json").write_text(json.dumps(build))
    create("--images", tmp_path / "build.json", "--cron", "0 3 * * 1")
    assert IMAGE in (tmp_path / "schedule.yaml").read_text()
    create("--registry", "registry.example.com/dual", "--tag", "v1", "--cron", "0 3 * * 1")
    assert "registry.example.com/dual/dual-deployer:v1" in (tmp_path / "schedule.yaml").read_text()
    assert "which image is dual-deployer?" in create("--cron", "0 3 * * 1").output


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (Plan(trigger=Interval(60)), "Argo knows no intervals"),
        (Plan(trigger=read_cron("0 3 * * 1"), max_concurrency=3), "Argo can't count to 3"),
        (Plan(trigger=read_cron("0 3 * * 1"), end=read_time("2030-01-01T00:00:00Z", None, "")), "no beginning and no end"),  # type: ignore[arg-type]
        (Plan(trigger=read_cron("9 0 3 * * 1", seconds_first=True)), "have no seconds"),
    ],
)
def test_plans_that_argo_can_not_keep(plan: Plan, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        cron_workflow(ArgoSchedule(name="x", namespace="n", plan=plan, image=IMAGE, arguments=()))
    assert said in str(caught.value)


def test_nodes_without_a_beginning_come_last() -> None:
    from pipelines.submission.argo.nodes import nodes_of

    late = {**node(9, "root.report.executor", "Pending"), "startedAt": None}
    assert [each.step for each in nodes_of(workflow("r", [late, *trains()]))][-1] == "report"
