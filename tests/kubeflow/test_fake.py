"""The fake is what the real SDK talks to without noticing, and it refuses what the real server refuses."""

from pathlib import Path
from typing import Any

import pytest
from kfp_server_api import ApiException

from tests.kubeflow.fake_kfp import FakeKfp

pytestmark = pytest.mark.filterwarnings("ignore:This client only works:FutureWarning")


@pytest.fixture
def client(kfp: FakeKfp) -> Any:
    """The client of kfp, as anybody would make it."""
    import kfp as sdk

    return sdk.Client(host=kfp.url)


def _started(client: Any, package: Path, **more: Any) -> Any:
    experiment = client.create_experiment("flowers")
    pipeline = client.pipelines.pipeline_service_create_pipeline({"display_name": "dual"})
    version = client.upload_pipeline_version(str(package), "v1", pipeline_id=pipeline.pipeline_id)
    return client.run_pipeline(
        experiment.experiment_id, "first", pipeline_id=pipeline.pipeline_id, version_id=version.pipeline_version_id, **more
    )


def test_the_sdk_starts_follows_and_archives_a_run(client: Any, package: Path, tmp_path: Path) -> None:
    run = _started(client, package, params={"data": "drawn", "store": str(tmp_path / "store")})
    done = client.wait_for_run_completion(run.run_id, timeout=60, sleep_duration=0.01)
    assert done.state == "SUCCEEDED"
    assert {task.display_name for task in done.run_details.task_details} >= {"root", "ingest-driver", "train-cloud", "executor"}
    client.archive_run(run.run_id)
    assert client.get_run(run.run_id).storage_state == "ARCHIVED"


def test_the_sdk_schedules_pauses_and_deletes(client: Any, package: Path, tmp_path: Path) -> None:
    run = _started(client, package, params={"store": str(tmp_path)})
    reference = run.pipeline_version_reference
    made = client.create_recurring_run(
        run.experiment_id,
        "weekly",
        cron_expression="0 0 3 * * 1",
        pipeline_id=reference.pipeline_id,
        version_id=reference.pipeline_version_id,
    )
    assert (made.status, made.trigger.cron_schedule.cron) == ("ENABLED", "0 0 3 * * 1")
    client.disable_recurring_run(made.recurring_run_id)
    assert client.list_recurring_runs().recurring_runs[0].status == "DISABLED"
    client.delete_recurring_run(made.recurring_run_id)
    assert client.list_recurring_runs().recurring_runs is None


def _status(act: Any) -> int:
    with pytest.raises(ApiException) as caught:
        act()
    return caught.value.status or 0


def test_it_refuses_names_that_are_taken(client: Any, package: Path, tmp_path: Path) -> None:
    run = _started(client, package, params={"store": str(tmp_path)})
    pipeline = run.pipeline_version_reference.pipeline_id
    assert _status(lambda: client.pipelines.pipeline_service_create_pipeline({"display_name": "dual"})) == 409
    assert _status(lambda: client.experiments.experiment_service_create_experiment({"display_name": "flowers"})) == 409
    assert _status(lambda: client.upload_pipeline_version(str(package), "v1", pipeline_id=pipeline)) == 409


def test_it_refuses_what_is_not_there(client: Any) -> None:
    assert _status(lambda: client.get_run("nothing")) == 404
    assert _status(lambda: client.get_recurring_run("nothing")) == 404
    assert _status(lambda: client.pipelines.pipeline_service_get_pipeline_by_name("nothing")) == 404
    assert _status(lambda: client.terminate_run("nothing")) == 404


def test_it_refuses_what_is_malformed(client: Any, package: Path, tmp_path: Path) -> None:
    run = _started(client, package, params={"store": str(tmp_path)})
    reference = run.pipeline_version_reference
    ids = {"pipeline_id": reference.pipeline_id, "version_id": reference.pipeline_version_id}

    def recurring(**more: Any) -> int:
        given = {"cron_expression": "0 0 3 * * 1", "max_concurrency": 1, **more}
        return _status(lambda: client.create_recurring_run(run.experiment_id, "x", **given, **ids))

    assert recurring(cron_expression="1 * *") == 400
    assert recurring(max_concurrency=11) == 400
    assert recurring(max_concurrency=0) == 400
    assert _status(lambda: client.list_runs(page_token="nonsense")) == 400
    assert _status(lambda: client.list_runs(sort_by="colour")) == 400
    assert _status(lambda: client.list_runs(filter="{")) == 400
    assert _status(lambda: client.list_runs(namespace="somebody")) == 400
    assert _status(lambda: client.runs.run_service_create_run({"display_name": "x", "colour": "red"})) == 400
    (tmp_path / "bad.yaml").write_text("a: 1")
    assert _status(lambda: client.upload_pipeline_version(str(tmp_path / "bad.yaml"), "v2", pipeline_id=reference.pipeline_id)) == 400


def test_runs_that_are_over_can_not_be_terminated_and_only_failed_ones_retried(client: Any, package: Path, tmp_path: Path) -> None:
    run = _started(client, package, params={"store": str(tmp_path)})
    assert _status(lambda: client.runs.run_service_retry_run(run.run_id)) == 400
    client.terminate_run(run.run_id)
    assert client.get_run(run.run_id).state == "CANCELING"
    assert client.get_run(run.run_id).state == "FAILED"
    assert _status(lambda: client.terminate_run(run.run_id)) == 400
    client.runs.run_service_retry_run(run.run_id)
    assert client.get_run(run.run_id).state == "PENDING"


def test_pages_hold_what_was_asked(client: Any, package: Path, tmp_path: Path) -> None:
    first = _started(client, package, params={"store": str(tmp_path)})
    reference = first.pipeline_version_reference
    for number in range(4):
        ids = {"pipeline_id": reference.pipeline_id, "version_id": reference.pipeline_version_id}
        client.run_pipeline(first.experiment_id, f"run-{number}", params={"store": str(tmp_path)}, **ids)
    page = client.list_runs(page_size=2, sort_by="created_at desc")
    assert [run.display_name for run in page.runs] == ["run-3", "run-2"]
    page = client.list_runs(page_size=2, page_token=page.next_page_token)
    assert [run.display_name for run in page.runs] == ["run-1", "run-0"]
    assert _status(lambda: client.list_runs(page_token=page.next_page_token, sort_by="created_at")) == 400
