"""The compiled Kubeflow package, unchanged, with a store on S3: run as the backend runs it, by a nameless user on a read-only machine."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.core.record import read_records
from components.core.stores import Store, open_store
from components.publish_mobile.private_key import make_key
from components.report.story import ORDER, Story, tell
from pipelines.compile import compile_pipeline
from pipelines.settings import parse_overrides
from pipelines.targets import Site as SiteFile
from pipelines.targets import make_target
from tests.e2e.test_run import SMALL
from tests.kubeflow_backend import Backend, Run, open_folder
from tests.store.fake_s3 import fake_s3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@dataclass
class Site:
    """A backend, its store, and what was run there."""

    backend: Backend
    sharded: Backend
    """The same of a site that shares work out."""
    store: Store
    settings: str

    def run(self, **parameters: str) -> tuple[Run, Story]:
        """Start a run and tell how it ended."""
        run = self.backend.run({"data": "drawn", "store": self.store.uri, "settings": self.settings, **parameters})
        return run, tell(read_records(self.store, run.id))


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Kubeflow's backend with a Secret that says where the store is; nothing of it is in the package."""
    import json

    overrides = [f"{key}={value}" for key, value in SMALL.items()]
    with fake_s3() as (address, _), open_folder() as root, pytest.MonkeyPatch.context() as patch:
        secret = {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_REGION": "us-east-1"}
        for name, value in secret.items():
            patch.setenv(name, value)
        secrets = {"dual-store": secret, "dual-signing-key": {"signing-key": make_key().pem().decode()}}
        backend = Backend(compile_pipeline(make_target("kubeflow")).text, root, secrets=secrets)
        sharding = SiteFile.model_validate({"kubeflow": {"sharding": {"enabled": True}}})
        sharded = Backend(compile_pipeline(make_target("kubeflow", sharding)).text, root, secrets=secrets)
        yield Site(backend, sharded, open_store("s3://bucket/dual"), json.dumps(parse_overrides(overrides)))


@pytest.fixture(scope="module")
def shipped(site: Site) -> tuple[Run, Story]:
    return site.run()


def test_the_run_ships_a_pair_that_verifies(site: Site, shipped: tuple[Run, Story]) -> None:
    from components.publish_mobile.verify import verify_store

    run, story = shipped
    failed = [f"{step}:\n{run.logs.get(step, '')[-4000:]}" for step, state in run.states.items() if state == "FAILED"]
    assert set(run.states.values()) == {"SUCCEEDED"}, "\n".join(failed)
    assert (story.outcome, story.why) == ("SHIPPED", [])
    assert story.release == run.outputs["assemble-release"]["Output"]
    assert verify_store(site.store) == []


def test_every_step_left_its_record_and_the_report_its_page(site: Site, shipped: tuple[Run, Story]) -> None:
    run, _ = shipped
    assert set(read_records(site.store, run.id)) == set(ORDER)
    assert b"SHIPPED" in site.store.get(f"runs/{run.id}/report/index.html").data


def test_a_field_of_the_form_refuses_the_next_one(site: Site, shipped: tuple[Run, Story]) -> None:
    run, story = site.run(thresholds='{"evaluate_mobile": {"accuracy": {"min": 1.0}}}')
    assert (story.outcome, story.exit_code) == ("NOT SHIPPED", 3)
    assert any("evaluate_mobile: accuracy" in reason for reason in story.why)
    assert (run.states["condition-2"], run.states["report"]) == ("SKIPPED", "SUCCEEDED")
    records: dict[str, Any] = read_records(site.store, run.id)
    assert records["train_cloud"].cached, "results are kept in the store, whatever machine a pod ran on"


def test_credentials_are_in_no_object_of_the_store(site: Site, shipped: tuple[Run, Story]) -> None:
    names = [name for name in site.store.list("runs/") if name.endswith(".json")]
    assert names
    assert not [name for name in names if b"AWS_SECRET" in (data := site.store.get(name).data) or b"PRIVATE KEY" in data]


def test_the_package_is_the_one_in_the_repository() -> None:
    assert compile_pipeline(make_target("kubeflow")).text == (Path("pipelines") / "compiled" / "kubeflow.yaml").read_text()


def test_shards_give_the_same_examples_and_the_same_release(site: Site, shipped: tuple[Run, Story]) -> None:
    import json

    for name in list(site.store.list("cache/ingest/")):
        site.store.delete(name)
    settings = json.loads(site.settings) | {"sharding": {"images": 20, "most": 4}}
    run = site.sharded.run({"data": "drawn", "store": site.store.uri, "settings": json.dumps(settings)})
    failed = [f"{step}:\n{run.logs.get(step, '')[-4000:]}" for step, state in run.states.items() if state == "FAILED"]
    assert set(run.states.values()) == {"SUCCEEDED"}, "\n".join(failed)
    records: dict[str, Any] = read_records(site.store, run.id)
    assert [len(run.outputs["plan-shards"][what]) for what in ("ingest", "evaluation")] == [4, 2]
    shards = [f"ingest_shard-{n}-of-4" for n in range(1, 5)] + [f"evaluate_{k}_shard-{n}-of-2" for k in ("cloud", "mobile") for n in (1, 2)]
    assert set(records) == {*ORDER, "plan_shards", *shards}
    assert not records["ingest"].cached
    assert records["train_cloud"].cached, "the same digest of the examples"
    assert run.outputs["assemble-release"]["Output"] == shipped[1].release
    assert not [name for name in site.store.list("cache/") if "/pieces/" in name]
    page = site.store.get(f"runs/{run.id}/report/index.html").data.decode()
    assert "ingest_shard-4-of-4" in page
