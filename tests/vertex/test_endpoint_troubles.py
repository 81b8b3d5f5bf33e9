"""Troubles around a rollout on an endpoint: operators, others, operations that fail, lost answers, a service that is away."""

import random
from typing import Any

import pytest

from components.core.errors import DualError, RolloutError, UsageError
from serving.rollout.endpoint import actions
from serving.rollout.endpoint.state import Book
from tests.kubeflow.fake_kfp import Answer, Request, as_json
from tests.vertex.endpoint_site import Ended, EndpointSite, right, shares_seen, stop_when
from tests.vertex.fake_vertex import PARENT


def test_a_split_that_an_operator_moved_is_left_so_until_somebody_decides(site: EndpointSite) -> None:
    first, second = site.release(), site.release()
    site.ship(first)
    ids: dict[str, str] = {}

    def operator(what: str) -> None:
        if "PATCH" in what and site.fake.shares().get(second) == 20 and not ids:
            endpoint = site.fake.only()
            ids.update({each["displayName"].rpartition("-")[2]: each["id"] for each in endpoint["deployedModels"]})
            endpoint["trafficSplit"] = {ids[first]: 95, ids[second]: 5}
            endpoint["etag"] = "an operator's"

    site.fake.watch.append(operator)
    with pytest.raises(Ended):
        stop_when(site, "somebody changed the traffic split", lambda: site.ship(second))
    text = site.state().events[-1].text
    assert "endpoint 'classifier' (dual-classifier-" in text
    assert f"{first}: 95 %, {second}: 5 %" in text
    assert "resume sets the step's weight again" in text
    assert site.fake.shares() == {first: 95, second: 5}
    Book(site.store).ask("resume", site.state().epoch)
    assert actions.go_on(site.store, run_id="me", say=site.said.append).phase == "promoted"
    assert site.is_settled(second)


def test_others_on_the_endpoint_keep_their_share(site: EndpointSite) -> None:
    first, second = site.release(), site.release()
    site.ship(first)
    endpoint = site.fake.only()
    (mine,) = endpoint["trafficSplit"]
    endpoint["deployedModels"].append({"id": "77", "model": f"{PARENT}/models/foreign", "displayName": "theirs-0", "modelVersionId": "1"})
    endpoint["trafficSplit"] = {mine: 60, "77": 40}
    site.fake.behaviours["0"] = right()
    moves = shares_seen(site)
    site.ship(second)
    assert moves() == [{first: 48, second: 12, "0": 40}, {first: 30, second: 30, "0": 40}, {second: 60, "0": 40}]
    assert site.fake.deployed() == ["0", second]


@pytest.mark.parametrize(
    ("method", "error", "said"),
    [
        ("deployModel", {"code": 8, "message": "Quota custom_model_serving_cpus exceeded."}, "a quota is used up"),
        ("deployModel", {"code": 8, "message": "Machine type temporarily unavailable, out of stock."}, "no machine of that kind is free"),
        ("deployModel", {"code": 9, "message": "Model server never became ready."}, "the container never served"),
        ("upload", {"code": 7, "message": "The service agent lacks storage.objects.get."}, "somebody lacks a permission"),
        ("upload", {"code": 3, "message": "Image not found in the registry."}, "the image can't be used"),
    ],
)
def test_an_operation_that_fails_says_why_and_nothing_moves(site: EndpointSite, method: str, error: dict[str, Any], said: str) -> None:
    first, second = site.release(), site.release()
    site.ship(first)
    site.fake.fails[method] = error
    with pytest.raises(RolloutError) as caught:
        site.ship(second)
    assert said in str(caught.value)
    assert error["message"].rstrip(".") in str(caught.value)
    assert (site.fake.shares(), site.channel()) == ({first: 100}, first)
    site.fake.fails.clear()
    site.ship(second)
    assert site.is_settled(second)


@pytest.mark.parametrize("lost", ["models:upload", ":deployModel", "endpoints", "PATCH", ":undeployModel"])
def test_a_lost_answer_is_no_second_request(site: EndpointSite, lost: str) -> None:
    first, second = site.release(), site.release()
    if lost != "endpoints":
        site.ship(first)
    once = iter([True])

    def lose(request: Request) -> Answer | None:
        fits = request.method == "PATCH" if lost == "PATCH" else request.method == "POST" and request.path.endswith(lost)
        if fits and next(once, False):
            with site.fake.lock:
                site.fake._route(request)
            return as_json({"error": {"code": 503, "message": "The service is currently unavailable."}}, 503)
        return None

    site.fake.guard = lose
    site.ship(second)
    assert site.is_settled(second)
    versions = site.fake.models["dual-classifier"]
    assert len(versions) == (1 if lost == "endpoints" else 2)


@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_is_away_for_a_moment_is_asked_again(site: EndpointSite, status: int) -> None:
    first, second = site.release(), site.release()
    site.ship(first)
    chance = random.Random(3)  # noqa: S311

    def away(request: Request) -> Answer | None:
        if not request.path.endswith(":predict") and chance.random() < 0.3:
            return as_json({"error": {"code": status, "message": "away"}}, status)
        return None

    site.fake.guard = away
    site.ship(second)
    assert site.is_settled(second)


def test_a_service_that_stays_away_leaves_the_rollout_where_it_is(site: EndpointSite) -> None:
    first, second = site.release(), site.release()
    site.ship(first)
    site.fake.guard = lambda request: as_json({"error": {"code": 503, "message": "away"}}, 503) if "operations" in request.path else None
    with pytest.raises(DualError, match="503"):
        site.ship(second, patience=0.3)
    assert site.state().phase == "prepare"
    site.fake.guard = lambda _: None
    site.ship(second)
    assert site.is_settled(second)


def test_forbidden_is_said_with_the_permission(site: EndpointSite) -> None:
    release = site.release()
    denied = {"error": {"code": 403, "message": "Permission 'aiplatform.models.upload' denied on resource"}}
    site.fake.guard = lambda request: as_json(denied, 403) if request.path.endswith("models:upload") else None
    with pytest.raises(RolloutError, match=r"lacks aiplatform.models.upload.*roles/aiplatform.user"):
        site.ship(release)
    assert site.channel() == ""


def test_an_endpoint_of_somebody_else_is_not_taken(site: EndpointSite) -> None:
    release = site.release()
    site.fake.endpoints["9"] = {"name": f"{PARENT}/endpoints/9", "displayName": "classifier", "etag": "x", "deployedModels": []}
    with pytest.raises(UsageError, match="--update-labels=dual-name=classifier"):
        site.ship(release)
    assert site.fake.writes() == []


def test_an_abort_while_it_is_deployed_leaves_nothing_that_costs(site: EndpointSite) -> None:
    first, second = site.release(), site.release()
    site.ship(first)
    site.fake.polls = 40

    def ask(what: str) -> None:
        if what.endswith(":deployModel"):
            Book(site.store).ask("abort", site.state().epoch)

    site.fake.watch.append(ask)
    with pytest.raises(RolloutError, match="abort was asked for by an operator"):
        site.ship(second)
    assert all(each["done"] for each in site.fake.operations.values())
    assert site.is_settled(first)


def test_an_endpoint_that_was_deleted_ends_the_rollout_and_the_next_one_makes_another(site: EndpointSite) -> None:
    first, second = site.release(), site.release()
    site.ship(first)

    def delete(what: str) -> None:
        if what.startswith("PATCH") and site.fake.shares().get(second) == 50:
            site.fake.endpoints.clear()

    site.fake.watch.append(delete)
    with pytest.raises(RolloutError, match="was deleted by somebody"):
        site.ship(second)
    assert (site.state().phase, site.channel()) == ("aborted", first)
    site.fake.watch.clear()
    site.ship(second)
    assert site.is_settled(second)


def test_somebody_else_who_changes_the_endpoint_at_the_same_moment_costs_only_a_repetition(site: EndpointSite) -> None:
    first, second = site.release(), site.release()
    site.ship(first)

    def touch(request: Request) -> None:
        if request.method == "PATCH" and len([each for each in site.fake.requests if each.method == "PATCH"]) % 2:
            endpoint = site.fake.only()
            endpoint["labels"]["team"] = str(site.fake.number)
            site.fake._touch(endpoint)

    site.fake.guard = touch
    site.ship(second)
    assert site.is_settled(second)
    assert site.fake.only()["labels"]["team"], "what others wrote stays"
    assert "looked at again" in " ".join(site.said)


def test_an_answer_that_is_waited_for_too_long_is_named(site: EndpointSite) -> None:
    first, second = site.release(), site.release()
    site.ship(first)
    site.fake.polls = 10_000
    with pytest.raises(RolloutError, match=r"is not done in time; .*operations/\d+ goes on"):
        site.ship(second, plan={"progress_deadline": 0.2})
    assert site.channel() == first
