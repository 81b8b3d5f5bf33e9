"""dual schedule on Vertex: five fields and a time zone, once by name, paused and resumed."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from tests.kubeflow.fake_kfp import Answer, Request, as_json
from tests.vertex.conftest import STORE, Dual
from tests.vertex.fake_vertex import PARENT, FakeVertex

WHERE = ("--target", "vertex")


@pytest.fixture
def create(dual: Dual, package: object) -> Dual:
    """`dual schedule create weekly` with everything that the package needs."""
    needed = ("--package", package, "--data", "drawn", "--store", STORE)

    def run(*words: object, cron: str = "0 3 * * mon") -> object:
        return dual("schedule", "create", "weekly", *WHERE, *needed, *(("--cron", cron) if cron else ()), *words)

    return run  # type: ignore[return-value]


def only(vertex: FakeVertex) -> dict[str, object]:
    (found,) = vertex.schedules.values()
    return found


def test_a_schedule_says_zone_bounds_and_the_whole_run(create: Dual, vertex: FakeVertex) -> None:
    year = datetime.now(UTC).year + 1
    result = create("--timezone", "Europe/Berlin", "--start", f"{year}-01-31", "--max-concurrency", "2", "--catch-up")
    assert result.exit_code == 0, result.output
    made = only(vertex)
    assert (made["cron"], made["startTime"]) == ("TZ=Europe/Berlin 0 3 * * 1", f"{year}-01-30T23:00:00Z")
    assert (made["maxConcurrentRunCount"], made["maxConcurrentActiveRunCount"], made["allowQueueing"]) == ("2", "2", True)
    request = made["createPipelineJobRequest"]
    assert request["parent"] == PARENT  # type: ignore[index]
    assert request["pipelineJob"]["runtimeConfig"]["parameterValues"] == {"data": "drawn", "store": STORE}  # type: ignore[index]
    assert "(Europe/Berlin)" in result.output
    assert "03:00:00 CE" in result.output


def test_the_same_again_changes_nothing_and_another_is_refused(create: Dual, dual: Dual, vertex: FakeVertex) -> None:
    create("--param", "count=3")
    first = only(vertex)["name"]
    again = create("--param", "count=3")
    assert (again.exit_code, "unchanged" in again.output, only(vertex)["name"]) == (0, True, first), again.output
    other = create("--param", "count=4")
    assert (other.exit_code, "parameter count: 3.0 → 4.0" in other.output) == (5, True), other.output
    zone = create("--param", "count=3", "--timezone", "Europe/Berlin")
    assert "time zone: 'UTC' → 'Europe/Berlin'" in zone.output
    assert create("--param", "count=4", "--replace").exit_code == 0
    (listed,) = json.loads(dual("schedule", "list", *WHERE, "--json").output)
    assert (listed["parameters"]["count"], listed["enabled"], len(listed["next"])) == (4, True, 3)


@pytest.mark.parametrize("catch_up", [True, False])
def test_a_resumed_schedule_makes_up_for_what_it_was_made_to(create: Dual, dual: Dual, vertex: FakeVertex, catch_up: bool) -> None:
    assert create("--paused", *(["--catch-up"] if catch_up else [])).exit_code == 0
    assert only(vertex)["state"] == "PAUSED"
    assert "not while it is paused" in dual("schedule", "show", "weekly", *WHERE).output
    for _ in range(2):
        assert dual("schedule", "resume", "weekly", *WHERE).exit_code == 0
    assert (only(vertex)["state"], only(vertex)["catchUp"]) == ("ACTIVE", catch_up)
    assert dual("schedule", "pause", "weekly", *WHERE).exit_code == 0
    assert only(vertex)["state"] == "PAUSED"
    assert dual("schedule", "delete", "weekly", *WHERE).exit_code == 0
    assert vertex.schedules == {}


def test_a_schedule_that_is_over_is_not_resumed(create: Dual, dual: Dual, vertex: FakeVertex) -> None:
    create()
    only(vertex)["state"] = "COMPLETED"
    result = dual("schedule", "resume", "weekly", *WHERE)
    assert (result.exit_code, "the schedule is over" in result.output) == (2, True), result.output


def test_one_that_could_not_be_paused_does_not_stay(create: Dual, vertex: FakeVertex) -> None:
    def refuse(request: Request) -> Answer | None:
        return as_json({"error": {"code": 503, "message": "away"}}, 503) if request.path.endswith(":pause") else None

    vertex.guard = refuse
    assert create("--paused").exit_code == 1
    assert vertex.schedules == {}


@pytest.mark.parametrize(
    ("words", "cron", "said"),
    [
        (("--every", "6h"), "", "Vertex has no intervals"),
        (("--seconds-first",), "30 0 3 * * 1", "Vertex' schedules have no seconds"),
        (("--start", "2020-01-01"), "0 3 * * 1", "the start has passed"),
        (("--engine", "argo"), "0 3 * * 1", "Argo's schedules submit to Kubeflow"),
        (("--cron", "0 3 * * 8"), "", "'8' is no day of week"),
    ],
)
def test_what_vertex_has_no_words_for(create: Dual, vertex: FakeVertex, words: tuple[str, ...], cron: str, said: str) -> None:
    result = create(*words, cron=cron)
    assert (result.exit_code, said in result.output) == (2, True), result.output
    assert vertex.schedules == {}


def test_what_others_made_is_listed_and_all_pages_are_read(create: Dual, dual: Dual, vertex: FakeVertex) -> None:
    create()
    made = next(iter(vertex.schedules.values()))
    for number in range(120):
        time = f"{datetime.now(UTC) + timedelta(days=1, seconds=number):%Y-%m-%dT%H:%M:%SZ}"
        vertex.schedules[str(number)] = {
            **made,
            "name": f"x/schedules/{number}",
            "displayName": f"s{number}",
            "createTime": time,
            "cron": "@x",
        }
    listed = json.loads(dual("schedule", "list", *WHERE, "--json").output)
    assert (len(listed), listed[0]["name"], listed[-1]["name"]) == (121, "weekly", "s119")
    assert (listed[-1]["trigger"], listed[-1]["next"]) == ("'@x', which was not made by dual", [])
