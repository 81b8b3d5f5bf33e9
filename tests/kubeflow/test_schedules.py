"""dual schedule on Kubeflow's scheduler."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.kubeflow.conftest import PACKAGE, Dual
from tests.kubeflow.fake_kfp import FakeKfp


@pytest.fixture
def create(dual: Dual, package: Path, tmp_path: Path) -> Dual:
    """`dual schedule create weekly` with everything that the package needs."""
    needed = ("--package", package, "--data", "drawn", "--store", tmp_path / "store")

    def run(*words: object, name: str = "weekly", **environment: str) -> Any:
        return dual("schedule", "create", name, *needed, *words, **environment)

    return run


def _only(kfp: FakeKfp) -> dict[str, Any]:
    (found,) = kfp.state.recurring.values()
    return found


def test_a_cron_gets_its_second_and_is_pinned_to_the_version(create: Dual, kfp: FakeKfp, tmp_path: Path) -> None:
    result = create("--cron", "0 3 * * 1", "--service-account", "trainer", "--param", "accelerator_count=2")
    assert result.exit_code == 0, result.output
    made, (version,) = _only(kfp), kfp.state.versions.values()
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * 1"}}
    assert made["pipeline_version_reference"] == {key: version[key] for key in ("pipeline_id", "pipeline_version_id")}
    assert (made["no_catchup"], made["max_concurrency"], made["mode"], made["service_account"]) == (True, "1", "ENABLE", "trainer")
    assert made["runtime_config"]["parameters"] == {"data": "drawn", "store": str(tmp_path / "store"), "accelerator_count": 2}
    assert result.output.count("next") == 3
    assert "03:00:00 UTC" in result.output


def test_an_interval_with_a_beginning_an_end_and_catch_up(create: Dual, kfp: FakeKfp) -> None:
    words = ("--every", "12h", "--start", "2027-01-01", "--end", "2027-02-01T00:00:00+01:00", "--catch-up", "--max-concurrency", 3)
    result = create(*words)
    assert result.exit_code == 0, result.output
    made = _only(kfp)
    assert made["trigger"]["periodic_schedule"] == {
        "interval_second": 43200,
        "start_time": "2027-01-01T00:00:00+00:00",
        "end_time": "2027-01-31T23:00:00+00:00",
    }
    assert (made.get("no_catchup"), made["max_concurrency"]) == (False, "3")
    assert "next      Fri 2027-01-01 12:00:00 UTC" in result.output


def test_times_are_those_of_the_installations_zone(create: Dual) -> None:
    result = create("--cron", "0 3 * * 1", DUAL_KFP_CRON_TIMEZONE="Asia/Tokyo")
    assert "03:00:00 JST  (here Sun" in result.output


def test_the_same_again_changes_nothing(create: Dual, kfp: FakeKfp) -> None:
    create("--cron", "0 3 * * 1", "--param", "accelerator_count=2")
    first = dict(_only(kfp))
    result = create("--cron", "0  3 * * 1", "--param", "accelerator_count=2")
    assert (result.exit_code, result.output.startswith("unchanged: ")) == (0, True), result.output
    assert _only(kfp) == first
    kfp.requests.clear()
    create("--cron", "0 3 * * 1", "--param", "accelerator_count=2", "--replace")
    assert [request for request in kfp.requests if request.method != "GET"] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cron", "0 4 * * 1"), "trigger: '0 0 3 * * 1' → '0 0 4 * * 1'"),
        (("--every", "1d"), "trigger: '0 0 3 * * 1' → 'every 86400 s'"),
        (("--cron", "0 3 * * 1", "--max-concurrency", 2), "max-concurrency: 1 → 2"),
        (("--cron", "0 3 * * 1", "--catch-up"), "catch-up: False → True"),
        (("--cron", "0 3 * * 1", "--param", "accelerator_count=2"), "parameter accelerator_count: None → 2.0"),
        (("--cron", "0 3 * * 1", "--end", "2030-01-01"), "end: '' → '2030-01-01T00:00:00+00:00'"),
    ],
)
def test_another_content_under_the_name_is_refused_or_replaced(create: Dual, kfp: FakeKfp, words: tuple[object, ...], said: str) -> None:
    create("--cron", "0 3 * * 1")
    first = _only(kfp)["recurring_run_id"]
    result = create(*words)
    assert (result.exit_code, said in result.output, "--replace" in result.output) == (5, True, True), result.output
    assert _only(kfp)["recurring_run_id"] == first
    kfp.requests.clear()
    result = create(*words, "--replace")
    assert (result.exit_code, result.output.startswith("replaced: "), said in result.output) == (0, True, True)
    assert _only(kfp)["recurring_run_id"] != first
    changes = [request.method for request in kfp.requests if "recurringruns" in request.path and request.method != "GET"]
    assert changes == ["POST", "DELETE"], "the new one exists before the old one is deleted"


def test_a_changed_pipeline_is_a_changed_schedule(create: Dual, package: Path) -> None:
    create("--cron", "0 3 * * 1")
    package.write_text(PACKAGE.replace("Where the images are", "Images"))
    result = create("--cron", "0 3 * * 1")
    assert (result.exit_code, "version: " in result.output) == (5, True)


def test_several_of_one_name_become_one_only_by_replace(create: Dual, dual: Dual, kfp: FakeKfp) -> None:
    create("--cron", "0 3 * * 1")
    twin = {**_only(kfp), "recurring_run_id": "twin", "_number": 99}
    kfp.state.recurring["twin"] = twin
    result = create("--cron", "0 3 * * 1")
    assert (result.exit_code, "further schedules 'weekly' exist: twin" in result.output) == (5, True), result.output
    assert "there are 2 schedules 'weekly'" in dual("schedule", "pause", "weekly").output
    assert create("--cron", "0 3 * * 1", "--replace").exit_code == 0
    assert len(kfp.state.recurring) == 1


def test_pause_resume_show_list_and_delete(create: Dual, dual: Dual, kfp: FakeKfp) -> None:
    create("--cron", "0 3 * * 1", "--paused")
    assert "paused  weekly: cron '0 3 * * 1' (UTC)" in dual("schedule", "list").output
    assert "not while it is paused" in dual("schedule", "show", "weekly").output
    assert dual("schedule", "resume", "weekly").output == "weekly resumed\n"
    shown = json.loads(dual("schedule", "show", "weekly", "--json").output)
    assert (shown["enabled"], shown["trigger"], len(shown["next"]), shown["parameters"]["data"]) == (
        True,
        "cron '0 3 * * 1' (UTC)",
        3,
        "drawn",
    )
    assert json.loads(dual("schedule", "pause", shown["id"], "--json").output) == {"schedule": shown["id"], "done": "paused"}
    assert _only(kfp)["status"] == "DISABLED"
    assert json.loads(dual("schedule", "list", "--json").output)[0]["next"] == []
    dual("schedule", "delete", "weekly")
    assert kfp.state.recurring == {}
    assert "there is no schedule 'weekly'" in dual("schedule", "delete", "weekly").output


def test_a_paused_schedule_stays_paused_if_it_is_asked_for_again(create: Dual, dual: Dual, kfp: FakeKfp) -> None:
    create("--cron", "0 3 * * 1")
    dual("schedule", "pause", "weekly")
    create("--cron", "0 3 * * 1")
    assert _only(kfp)["status"] == "DISABLED"


def test_all_pages_of_schedules_are_read(create: Dual, kfp: FakeKfp, dual: Dual) -> None:
    create("--cron", "0 3 * * 1")
    first = _only(kfp)
    for number in range(250):
        kfp.state.recurring[f"r{number}"] = {
            **first,
            "recurring_run_id": f"r{number}",
            "display_name": f"s{number}",
            "_number": 100 + number,
        }
    assert len(json.loads(dual("schedule", "list", "--json").output)) == 251


def test_what_somebody_else_made_is_shown_as_it_is_read_there(create: Dual, dual: Dual, kfp: FakeKfp) -> None:
    create("--cron", "0 3 * * 1")
    _only(kfp)["trigger"] = {"cron_schedule": {"cron": "0 3 * * 1"}}
    assert "cron '3 * * 1 *' (UTC)" in dual("schedule", "list").output
    _only(kfp)["trigger"] = {"cron_schedule": {"cron": "@every 1h"}}
    assert "'@every 1h', which was not made by dual" in dual("schedule", "list").output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cron", "0 0 3 * * 1"), "has six fields, and these can be read in two ways"),
        (("--cron", "0 3 * * 9"), "'9' is no day of week"),
        (("--cron", "0 3 * * 1", "--max-concurrency", 11), "11 runs at once are not possible"),
        (("--cron", "0 3 * * 1", "--param", "nope=1"), "there is no 'nope'"),
        ((), "give either --cron or --every"),
        (("--cron", "0 3 * * 1", "--no-wait"), "--no-wait: belong to --engine argo"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_sent(create: Dual, kfp: FakeKfp, words: tuple[object, ...], said: str) -> None:
    result = create(*words)
    assert (result.exit_code, said in result.output) == (2, True), result.output
    assert kfp.requests == []


def test_seconds_first_where_somebody_means_it(create: Dual, kfp: FakeKfp) -> None:
    assert create("--cron", "30 0 3 * * 1", "--seconds-first").exit_code == 0
    assert _only(kfp)["trigger"] == {"cron_schedule": {"cron": "30 0 3 * * 1"}}
