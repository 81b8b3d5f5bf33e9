"""The steps roll_out_cloud and publish_mobile with target vertex, and real processes that are killed in them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import RolloutError
from components.core.stores import Store, open_store
from components.publish_mobile.publish import publish
from components.roll_out_cloud.roll_out import roll_out
from tests.conftest import ROOT
from tests.release_pieces import record_of
from tests.vertex.endpoint_site import IMAGE, PLAN, EndpointSite, wrong

PNG = b"\x89PNG"


def settings_text(**plan: Any) -> str:
    place = {"container": {"image": IMAGE}, "region": "europe-west4", "patience": 5, "plan": {**PLAN, **plan}}
    return json.dumps(
        {"name": "classifier", "roll_out_cloud": {"target": "vertex", "vertex": place}, "publish_mobile": {"signing": "unsigned"}}
    )


@pytest.fixture
def gcs_site(bucket: None, site: EndpointSite) -> EndpointSite:
    """With a store in a Cloud Storage of the test's."""
    site.store = open_store("gs://models/dual")
    return site


def steps(store: Store, release: str, settings: str, run: str) -> tuple[Any, Any]:
    """Both steps of a run; their records."""
    rolled, published = record_of(store, "roll_out_cloud", run), record_of(store, "publish_mobile", run)
    roll_out(rolled, release=release, settings=settings)
    publish(published, release=release, settings=settings)
    return rolled.record, published.record


def test_both_steps_bring_a_pair_home_and_the_record_shows_the_course(gcs_site: EndpointSite) -> None:
    site = gcs_site
    first, second = site.release(), site.release()
    steps(site.store, first, settings_text(), "run-a")
    rolled, published = steps(site.store, second, settings_text(), "run-b")
    assert site.is_settled(second)
    assert rolled.verdict.blessed
    tables = {table.name: table for table in rolled.tables}
    course = tables["Time line"].rows
    assert [row[1] for row in course if row[1] in ("canary", "promote", "drain")] == ["canary", "canary", "promote", "drain"]
    assert any(row[3] not in (None, row[2]) for row in course), "the share that was counted is beside the one asked for"
    assert {row[0] for row in tables["Analysis"].rows} >= {"golden_agreement", "latency_p99_vs_stable"}
    assert [picture.name for picture in rolled.pictures] == ["timeline"]
    assert published.data["release"] == second


def test_a_bad_candidate_fails_the_step_with_reasons_and_nothing_is_published(site: EndpointSite) -> None:
    first, second = site.release(), site.release()
    steps(site.store, first, settings_text(), "run-a")
    site.fake.behaviours[second] = wrong()
    record = record_of(site.store, "roll_out_cloud", "run-b")
    with pytest.raises(RolloutError, match="golden_agreement"):
        roll_out(record, release=second, settings=settings_text())
    assert record.record.verdict is not None
    assert not record.record.verdict.blessed
    assert site.is_settled(first)
    before = len(site.fake.requests)
    with pytest.raises(RolloutError, match=r"this run has tried it already.*golden_agreement"):
        # Vertex tries failed steps again: clients would see the bad version each time.
        roll_out(record_of(site.store, "roll_out_cloud", "run-b"), release=second, settings=settings_text())
    assert len(site.fake.requests) == before
    with pytest.raises(RolloutError, match="is not in force"):
        publish(record_of(site.store, "publish_mobile", "run-b"), release=second, settings=settings_text())
    assert site.channel() == first


def test_a_publication_that_fails_takes_the_traffic_back(site: EndpointSite) -> None:
    first, second = site.release(), site.release()
    steps(site.store, first, settings_text(), "run-a")
    roll_out(record_of(site.store, "roll_out_cloud", "run-b"), release=second, settings=settings_text())
    name = f"releases/{second}/mobile/model.tflite"
    site.store.put(name, b"damaged")
    with pytest.raises(Exception, match="damaged"):
        publish(record_of(site.store, "publish_mobile", "run-b"), release=second, settings=settings_text())
    assert site.is_settled(first)


SHIP = """
import sys
from pathlib import Path
from tests.vertex.endpoint_site import Bucket, settings_of
from serving.rollout.endpoint.actions import ship
ship(Bucket(Path(sys.argv[1])), sys.argv[2], "classifier", settings_of(), run_id=sys.argv[3], say=print)
"""


def process(site: EndpointSite, root: Path, release: str, run: str) -> subprocess.Popen[str]:
    """A process of its own that ships a release."""
    words = [sys.executable, "-c", SHIP, str(root), release, run]
    return subprocess.Popen(words, cwd=ROOT, env=os.environ.copy(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("moment", [":deployModel", "PATCH", ":undeployModel"])
def test_a_process_that_was_killed_is_followed_by_another(site: EndpointSite, moment: str) -> None:
    first, second = site.release(), site.release()
    site.ship(first)
    children: list[subprocess.Popen[str]] = []

    def kill(what: str) -> None:
        if children and moment in what and children[0].poll() is None:
            os.kill(children[0].pid, signal.SIGKILL)
            children[0].wait(20)

    site.fake.watch.append(kill)
    children.append(process(site, site.root / "bucket", second, "killed"))
    assert children[0].wait(60) == -signal.SIGKILL
    site.fake.watch.clear()
    again = process(site, site.root / "bucket", second, "again")
    said, _ = again.communicate(timeout=60)
    assert again.returncode == 0, said
    assert site.is_settled(second), said
