"""Workers as worker pools of a custom job, against a server that speaks the documented REST of Vertex AI."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import UsageError
from components.core.examples import read_examples
from components.core.record import Record, StepRecord
from components.core.stores import open_store
from components.training.distributed import pools
from components.training.distributed.coordinate import WorkersError
from components.training.distributed.pools import Pools
from components.training.distributed.worker import tell_tensorflow
from components.training.settings import MobileTrainSettings
from components.training.train import Job
from components.training.training import WeightsUsed
from tests.doctor.fake_google import fake_google
from tests.kubeflow.fake_kfp import Answer, Request, as_json, serving
from tests.store import fake_gcs
from tests.vertex.fake_vertex import REGION
from tests.workers.fake_custom_jobs import FakeCustomJobs

ORDER = "cache/train_mobile/orders/a.json"
IMAGE = "europe-west4-docker.pkg.dev/my-project/dual/dual-trainer@sha256:aa"


@pytest.fixture
def vertex(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCustomJobs]:
    fake = FakeCustomJobs()
    with fake_google(tmp_path, monkeypatch), serving(fake.answer) as url, fake_gcs.fake_gcs() as (bucket, _):
        monkeypatch.setenv("DUAL_VERTEX_HOST", url)
        monkeypatch.setenv("DUAL_VERTEX_PROJECT", "my-project")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket)
        monkeypatch.setattr(pools, "_WAIT", 0.01)
        yield fake


@pytest.fixture
def job(vertex: FakeCustomJobs, tiny_examples: Path) -> Callable[..., Job]:
    def make(store: str = "gs://models/dual", count: int = 3, **chosen: Any) -> Job:
        pool = {"region": REGION, "image": IMAGE, **chosen}
        workers = {"count": count, "target": "vertex", "restarts": 1, "vertex": pool}
        settings = MobileTrainSettings.model_validate({"workers": workers})
        record = StepRecord(open_store(store), "run-1", "train_mobile", Record(step="train_mobile"))
        return Job("mobile", record, tiny_examples, read_examples(tiny_examples), settings, 1, WeightsUsed(asked="none", used="none"))

    return make


def test_the_first_pool_is_the_chief_and_the_second_all_others(vertex: FakeCustomJobs, job: Callable[..., Job]) -> None:
    chosen = {"accelerator_type": "NVIDIA_L4", "accelerator_count": 2, "spot": True, "service_account": "a@b", "env": {"A": "b"}}
    with Pools(job(**chosen), ORDER) as crew:
        crew.look()
        assert "is PENDING" in crew.describe()
    (made,) = vertex.jobs.values()
    chief, others = made["jobSpec"]["workerPoolSpecs"]
    assert (chief["replicaCount"], others["replicaCount"]) == ("1", "2")
    assert chief["machineSpec"] == {"machineType": "n1-standard-8", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 2}
    container = others["containerSpec"]
    assert (container["imageUri"], container["args"]) == (IMAGE, ["gs://models/dual", ORDER])
    assert container["command"] == ["python", "-m", "components.training.distributed.worker"]
    assert container["env"] == [{"name": "A", "value": "b"}]
    scheduling = {"timeout": "86400s", "restartJobOnWorkerRestart": True, "strategy": "SPOT"}
    assert (made["jobSpec"]["scheduling"], made["jobSpec"]["serviceAccount"]) == (scheduling, "a@b")
    assert made["state"] == "JOB_STATE_CANCELLING", "the step that ends takes its workers along"


def test_a_failed_job_is_followed_by_another_as_often_as_allowed(vertex: FakeCustomJobs, job: Callable[..., Job]) -> None:
    vertex.course = lambda _: ["RUNNING", "FAILED"]
    with Pools(job(), ORDER) as crew:
        crew.look()
        crew.look()
        assert len(vertex.jobs) == 2
        assert "non-zero status of 75.): another was started (1 of 1)" in crew.restarts[0]
        crew.look()
        with pytest.raises(WorkersError, match=r"is FAILED.*non-zero status of 75"):
            crew.look()


def test_a_job_that_somebody_cancels_stays_so(vertex: FakeCustomJobs, job: Callable[..., Job]) -> None:
    vertex.course = lambda _: ["CANCELLED"]
    with Pools(job(), ORDER) as crew, pytest.raises(WorkersError, match="is CANCELLED"):
        crew.look()
    assert len(vertex.jobs) == 1


def test_an_earlier_attempt_is_over_before_another_begins(vertex: FakeCustomJobs, job: Callable[..., Job]) -> None:
    Pools(job(), ORDER).__enter__()
    Pools(job(count=2), ORDER).__enter__()
    with Pools(job(), ORDER):
        states = [each["state"] for each in vertex.jobs.values()]
    # The other training, of two workers, is left alone.
    assert states == ["JOB_STATE_CANCELLED", "JOB_STATE_QUEUED", "JOB_STATE_QUEUED"]


def test_a_lost_answer_makes_no_second_job(vertex: FakeCustomJobs, job: Callable[..., Job]) -> None:
    def lose(request: Request) -> Answer | None:
        if request.method == "POST" and request.path.endswith("/customJobs"):
            vertex.create(json.loads(request.body))
            return as_json({}, 503)
        return None

    vertex.guard = lose
    with Pools(job(), ORDER) as crew:
        crew.look()
    assert len(vertex.jobs) == 1


def test_a_service_that_is_away_for_a_moment_is_asked_again(vertex: FakeCustomJobs, job: Callable[..., Job]) -> None:
    with Pools(job(), ORDER) as crew:
        vertex.guard = lambda _: as_json({}, 503)
        crew.look()
        vertex.guard = lambda _: None
        crew.look()
        assert "is PENDING" in crew.describe()


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"image": ""}, r"workers\.vertex\.image"), ({"region": ""}, "no region"), ({"store": "local"}, "can't reach the store")],
)
def test_what_can_not_work_is_refused_before_anything_is_asked(
    vertex: FakeCustomJobs, job: Callable[..., Job], tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    if changes.get("store"):
        changes = {"store": str(tmp_path / "store")}
    with pytest.raises(UsageError, match=words):
        Pools(job(**changes), ORDER)
    assert vertex.requests == []


def test_vertex_own_description_of_the_cluster_is_understood() -> None:
    names = [f"cmle-training-workerpool{pool}-{number}:2222" for pool, number in ((0, 0), (1, 0), (1, 1))]
    cluster = {"chief": names[:1], "worker": names[1:]}
    found = []
    for kind, number in (("chief", 0), ("worker", 0), ("worker", 1)):
        environment = {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": number}, "environment": "cloud"})}
        tell_tensorflow(environment)
        told = json.loads(environment["TF_CONFIG"])
        assert told["cluster"]["worker"] == names
        found.append(told["task"])
    assert found == [{"type": "worker", "index": number} for number in range(3)]
