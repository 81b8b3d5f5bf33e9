"""Workers as an Indexed Job on a real API server with its real Job controller; the test plays the kubelet."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from components.core.errors import UsageError
from components.core.examples import read_examples
from components.core.record import Record, StepRecord
from components.core.stores import open_store
from components.training.distributed.coordinate import WorkersError
from components.training.distributed.pods import Pods
from components.training.settings import MobileTrainSettings
from components.training.train import Job
from components.training.training import WeightsUsed
from serving.rollout.cluster.api import Api
from tests.cluster.conftest import Cluster, control_plane, make_namespace
from tests.conftest import ROOT

pytestmark = pytest.mark.cluster
Json = dict[str, Any]
IMAGE = "registry.example.com/dual-trainer:v1"
ORDER = "cache/train_mobile/orders/a.json"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # With a real controller-manager, which makes, ends and collects the pods of Jobs.
    with control_plane("--kwok", "--service-accounts") as found:
        yield found


@pytest.fixture
def namespace(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"training-{uuid4().hex[:8]}"
    make_namespace(cluster, name)
    wait_for(lambda: cluster.kubectl("-n", name, "get", "serviceaccount", "default", check=False).returncode == 0)
    monkeypatch.setenv("KUBECONFIG", cluster.environment["KUBECONFIG"])
    for variable in ("KUBERNETES_SERVICE_HOST", "KFP_POD_NAME", "KFP_POD_UID", "KFP_NAMESPACE", "HOSTNAME"):
        monkeypatch.delenv(variable, raising=False)
    return name


@pytest.fixture
def job(namespace: str, tiny_examples: Path, tmp_path: Path) -> Callable[..., Job]:
    def make(**kubernetes: Any) -> Job:
        # No node has this label: pods wait, and what a kubelet would say of them is said by the tests.
        pods = {"namespace": namespace, "image": IMAGE, "node_selector": {"pool": "gpu"}, **kubernetes}
        settings = MobileTrainSettings.model_validate({"workers": {"count": 2, "restarts": 1, "kubernetes": pods}})
        record = StepRecord(open_store(str(tmp_path / "store")), "run-1", "train_mobile", Record(step="train_mobile"))
        return Job("mobile", record, tiny_examples, read_examples(tiny_examples), settings, 1, WeightsUsed(asked="none", used="none"))

    return make


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


@pytest.fixture
def objects(cluster: Cluster, namespace: str) -> Callable[[str], list[Json]]:
    def of(kind: str) -> list[Json]:
        return json.loads(cluster.kubectl("-n", namespace, "get", kind, "-o", "json").stdout)["items"]

    return of


@pytest.fixture
def ends(cluster: Cluster, namespace: str, objects: Callable[[str], list[Json]]) -> Callable[..., None]:
    """What a kubelet would say of the pod of a worker."""

    def say(index: int, code: int, **status: Any) -> None:
        pod = wait_for(lambda: next((each for each in objects("pods") if _index(each) == index and _alive(each)), None))
        terminated = {"exitCode": code, "reason": "Error", "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}
        container = {
            "name": "worker",
            "image": IMAGE,
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": terminated},
        }
        patch = {"status": {"phase": "Failed", "containerStatuses": [container], **status}}
        name = pod["metadata"]["name"]
        cluster.kubectl("-n", namespace, "patch", "pod", name, "--subresource=status", "--type=merge", "-p", json.dumps(patch))

    return say


def _index(pod: Json) -> int:
    return int(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])


def _alive(pod: Json) -> bool:
    return pod["status"]["phase"] == "Pending" and "deletionTimestamp" not in pod["metadata"]


def looks_until(crew: Pods, condition: Callable[[], Any]) -> None:
    def look() -> Any:
        crew.look()
        return condition()

    wait_for(look)


def test_the_job_is_admitted_where_pods_are_restricted_and_leaves_nothing(
    job: Callable[..., Job], objects: Callable[[str], list[Json]], namespace: str
) -> None:
    with Pods(job(env={"A": "b"}, resources={"limits": {"nvidia.com/gpu": "1"}}), ORDER) as crew:
        pods = wait_for(lambda: found if len(found := objects("pods")) == 2 else None)
        (made,), (service,) = objects("jobs"), objects("services")
        name = made["metadata"]["name"]
        assert sorted(pod["spec"]["hostname"] for pod in pods) == [f"{name}-0", f"{name}-1"]
        for pod in pods:
            (container,) = pod["spec"]["containers"]
            variables = {each["name"]: each.get("value") for each in container["env"]}
            assert variables["DUAL_WORKERS"] == f"{name}-0.{name}:2222,{name}-1.{name}:2222"
            assert "JOB_COMPLETION_INDEX" in variables
            assert (variables["A"], pod["spec"]["subdomain"], pod["spec"]["nodeSelector"]) == ("b", name, {"pool": "gpu"})
            assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}
            assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
        crew.look()
        assert f"{name}" in crew.describe()
    wait_for(lambda: not [*objects("jobs"), *objects("services"), *objects("pods")])


def test_a_lost_worker_is_made_again_and_a_disrupted_one_as_often_as_it_takes(
    job: Callable[..., Job], objects: Callable[[str], list[Json]], ends: Callable[..., None]
) -> None:
    with Pods(job(), ORDER) as crew:
        disruption = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
        for _ in range(2):
            ends(0, 137, conditions=[disruption])
            looks_until(crew, lambda: any(_index(pod) == 0 and _alive(pod) for pod in objects("pods")))
        ends(1, 75)
        looks_until(crew, lambda: any(_index(pod) == 1 and _alive(pod) for pod in objects("pods")))
        looks_until(crew, lambda: len(crew.restarts) == 3)
        ends(1, 75)
        with pytest.raises(WorkersError, match=r"failed \((MaxFailedIndexesExceeded|FailedIndexes)\)"):
            looks_until(crew, lambda: False)


def test_what_is_refused_once_is_not_tried_again(job: Callable[..., Job], ends: Callable[..., None]) -> None:
    with Pods(job(), ORDER) as crew:
        ends(1, 2)
        with pytest.raises(WorkersError, match=r"failed \(PodFailurePolicy\).*ended with code 2"):
            looks_until(crew, lambda: False)


def test_an_image_that_can_not_be_pulled_ends_the_step(
    job: Callable[..., Job], cluster: Cluster, namespace: str, objects: Callable[[str], list[Json]]
) -> None:
    with Pods(job(), ORDER) as crew:
        name = wait_for(lambda: objects("pods"))[0]["metadata"]["name"]
        waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
        container = {"name": "worker", "image": IMAGE, "imageID": "", "ready": False, "restartCount": 0, "state": {"waiting": waiting}}
        patch = json.dumps({"status": {"phase": "Pending", "containerStatuses": [container]}})
        cluster.kubectl("-n", namespace, "patch", "pod", name, "--subresource=status", "--type=merge", "-p", patch)
        with pytest.raises(WorkersError, match="ImagePullBackOff"):
            looks_until(crew, lambda: False)


def test_a_job_that_somebody_deletes_is_told(job: Callable[..., Job], cluster: Cluster, namespace: str) -> None:
    with Pods(job(), ORDER) as crew:
        cluster.kubectl("-n", namespace, "delete", "job", "--all", "--wait=false")
        with pytest.raises(WorkersError, match="was deleted by somebody"):
            looks_until(crew, lambda: False)


def test_the_workers_of_a_killed_attempt_end_before_others_begin(
    job: Callable[..., Job], cluster: Cluster, namespace: str, objects: Callable[[str], list[Json]]
) -> None:
    first = Pods(job(), ORDER).__enter__()
    before = wait_for(lambda: found if len(found := objects("pods")) == 2 else None)
    with Pods(job(), ORDER):
        after = wait_for(lambda: found if len(found := objects("pods")) == 2 else None)
        assert not {pod["metadata"]["uid"] for pod in before} & {pod["metadata"]["uid"] for pod in after}
    assert first.restarts == []


def test_a_lost_answer_makes_nothing_twice(
    job: Callable[..., Job], objects: Callable[[str], list[Json]], monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Api.create

    def repeated(self: Api, kind: str, body: Json) -> Json:
        create(self, kind, body)
        return create(self, kind, body)

    monkeypatch.setattr(Api, "create", repeated)
    with Pods(job(), ORDER) as crew:
        crew.look()
        (made,), (service,) = objects("jobs"), objects("services")
        assert service["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]


def test_a_job_of_somebody_else_is_left_alone(job: Callable[..., Job], objects: Callable[[str], list[Json]]) -> None:
    with Pods(job(), ORDER), pytest.raises(UsageError, match="not of this training"):
        Pods(job(), "cache/train_mobile/orders/b.json").__enter__()


def test_they_go_with_the_pod_of_their_step(
    job: Callable[..., Job], cluster: Cluster, namespace: str, objects: Callable[[str], list[Json]], monkeypatch: pytest.MonkeyPatch
) -> None:
    container = {
        "name": "main",
        "image": "registry.example.com/dual-trainer@sha256:aa",
        "env": [{"name": "AWS_REGION", "value": "x"}, {"name": "KFP_POD_NAME", "value": "step"}],
        "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsUser": 10002},
        "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
    }
    spec = {
        "containers": [{**container, "name": "wait"}, container],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}}],
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    }
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "step", "namespace": namespace}, "spec": spec})
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KFP_POD_NAME", "step")
    Pods(job(image="", node_selector={}), ORDER).__enter__()
    pod = wait_for(lambda: next((each for each in objects("pods") if each["metadata"]["name"] != "step"), None))
    (worker,) = pod["spec"]["containers"]
    assert (worker["image"], worker["resources"]) == (container["image"], container["resources"])
    names = [each["name"] for each in worker["env"]]
    assert "AWS_REGION" in names
    assert "KFP_POD_NAME" not in names
    assert pod["spec"]["securityContext"]["runAsUser"] == 10002
    assert {"name": "cache", "mountPath": "/cache"} in worker["volumeMounts"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists"} in pod["spec"]["tolerations"]
    cluster.kubectl("-n", namespace, "delete", "pod", "step", "--grace-period=0", "--force")
    wait_for(lambda: not [*objects("jobs"), *objects("services")])


def test_the_role_of_the_page_is_enough(
    job: Callable[..., Job], cluster: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "distributed.md").read_text()
    role = next(yaml.safe_load(each) for each in re.findall(r"```yaml\n(.*?)```", page, re.S) if "kind: Role" in each)
    role["metadata"]["namespace"] = namespace
    subject = {"kind": "ServiceAccount", "name": "steps", "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["metadata"]["name"]}
    binding = {"apiVersion": role["apiVersion"], "kind": "RoleBinding", "metadata": {"name": "steps", "namespace": namespace}}
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "steps", "namespace": namespace}},
        role,
        {**binding, "roleRef": reference, "subjects": [subject]},
    )
    known = yaml.safe_load(Path(cluster.environment["KUBECONFIG"]).read_text())
    token = cluster.kubectl("-n", namespace, "create", "token", "steps").stdout.strip()
    known["users"] = [{"name": each["name"], "user": {"token": token}} for each in known["users"]]
    (path := tmp_path / "kubeconfig").write_text(yaml.safe_dump(known))
    monkeypatch.setenv("KUBECONFIG", str(path))
    with Pods(job(), ORDER) as crew:
        wait_for(lambda: "has no pods" not in crew.describe())
        crew.look()
    assert cluster.kubectl("-n", namespace, "get", "services", "-o", "name").stdout.split() == []


def test_outside_of_a_cluster_the_image_must_be_named(job: Callable[..., Job], objects: Callable[[str], list[Json]]) -> None:
    with pytest.raises(UsageError, match=r"workers\.kubernetes\.image"):
        Pods(job(image=""), ORDER).__enter__()
    assert objects("jobs") == []
