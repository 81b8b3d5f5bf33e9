"""Rollouts on an endpoint: good and bad releases of each kind, undo, what is sent, and what others do meanwhile."""

import json
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from components.core.errors import DualError, RolloutError, UsageError
from components.publish_mobile.publication import publish_release
from serving.rollout.endpoint import actions
from serving.rollout.endpoint.settings import EndpointSettings
from serving.rollout.endpoint.state import STATE, Book, EndpointRollout
from tests.kubeflow.fake_kfp import Answer, Request, as_json
from tests.vertex.endpoint_site import IMAGE, Bucket, Ended, EndpointSite, right, settings_of, stop_when, wrong
from tests.vertex.fake_endpoints import Behaviour, FakeEndpoints
from tests.vertex.fake_vertex import PARENT, Refusal

LATER = {"scale_down_delay": 600.0}
"""The old model is still there when the pair is published: an undo then is a matter of the split."""


def shares_seen(site: EndpointSite) -> Callable[[], list[dict[str, int]]]:
    """What the split was, each time that it changed from now on."""
    seen: list[dict[str, int]] = [site.fake.shares()]
    site.fake.watch.append(lambda _: seen.append(site.fake.shares()))
    return lambda: [each for before, each in pairwise(seen) if each != before]


def published_in_drain(site: EndpointSite, release: str) -> None:
    """Rolled out and published by a step that then died: the old model is still deployed."""
    state = site.roll_out(release, plan=LATER)
    publish_release(site.store, release, run_id="run", after=state.sequence)


def test_the_first_release_takes_all_traffic_and_is_checked(site: EndpointSite) -> None:
    first = site.release()
    state = site.ship(first)
    assert (state.phase, state.achieved) == ("promoted", 100.0)
    assert site.is_settled(first)
    bad = EndpointSite(site.fake, Bucket(site.root / "other"), site.root / "other")
    refused = bad.release()
    site.fake.behaviours[refused] = wrong()
    with pytest.raises(RolloutError, match="after the switch failed"):
        bad.ship(refused, endpoint="another")
    other = next(each for each in site.fake.endpoints.values() if each["displayName"] == "another")
    assert (other["trafficSplit"], other["deployedModels"], bad.channel()) == ({}, [], "")


def test_a_good_release_grows_by_steps_and_the_old_one_goes(site: EndpointSite) -> None:
    first, second = site.release(), site.release()
    site.ship(first)
    moves = shares_seen(site)
    state = site.ship(second)
    assert state.phase == "promoted"
    assert site.is_settled(second)
    assert moves() == [{first: 80, second: 20}, {first: 50, second: 50}, {second: 100}]
    steps = [(each.asked, each.achieved) for each in state.events if each.phase == "analyze"]
    assert [asked for asked, _ in steps] == [20.0, 20.0, 50.0, 50.0]
    (first_share, second_share), nothing = [share or 0.0 for _, share in steps[1::2]], [share for _, share in steps[::2]]
    assert nothing == [None, None], "before anything was counted"
    assert 0 < first_share < 60
    assert (first_share, second_share) != (20.0, 50.0), "what is told is counted, not what was asked for"
    assert {each.metric for each in state.measurements} >= {"error_rate", "golden_agreement", "latency_p99_vs_stable"}
    assert any(each.baseline is not None for each in state.measurements)


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (wrong(), "golden_agreement failed"),
        (Behaviour(right().labels, seconds=0.8), "latency_p99_ms failed"),
        (Behaviour(right().labels, failing=0.7, names_itself=True), "error_rate failed"),
        (Behaviour(right().labels, failing=1.0, status=503), "no answer says which version failed"),
        (Behaviour(right().labels, seconds=1.6), "no answer within 1 s"),
    ],
    ids=["wrong", "slow", "erring", "crashing", "hanging"],
)
def test_a_bad_release_goes_back(site: EndpointSite, behaviour: Behaviour, said: str) -> None:
    first, second = site.release(), site.release()
    site.ship(first)
    site.fake.behaviours[second] = behaviour
    moves = shares_seen(site)
    with pytest.raises(RolloutError) as caught:
        site.ship(second)
    assert said in str(caught.value)
    assert (site.state().phase, site.is_settled(first)) == ("aborted", True)
    assert moves() == [{first: 80, second: 20}, {first: 100}]


def test_no_data_is_no_success(site: EndpointSite) -> None:
    first, second = site.release(), site.release()
    site.ship(first)
    few = {"steps": [{"weight": 1}], "analysis": {**settings_of().plan.analysis.model_dump(), "min_requests": 5, "count": 1}}
    few["analysis"]["smoke"] |= {"requests": 6, "most": 6}
    with pytest.raises(Ended):
        # Nobody is there to resume: it would wait for good.
        stop_when(site, "inconclusive", lambda: site.ship(second, plan=few))
    assert site.state().phase == "paused"
    assert site.channel() == first
    assert actions.abort(site.store, run_id="me", reason="enough", say=site.said.append) is not None
    assert site.is_settled(first)


def test_the_same_again_writes_nothing(site: EndpointSite) -> None:
    first = site.release()
    site.ship(first)
    before, files = len(site.fake.writes()), {name: site.store.get(name).generation for name in site.store.list("")}
    assert site.ship(first, run="again").phase == "promoted"
    assert site.roll_out(first, run="again").phase == "promoted"
    assert len(site.fake.writes()) == before
    assert {name: site.store.get(name).generation for name in site.store.list("")} == files


def test_an_undo_in_time_only_moves_the_split(site: EndpointSite) -> None:
    first, second = site.release(), site.release()
    site.ship(first)
    published_in_drain(site, second)
    assert site.fake.deployed() == [first, second]
    before, moves = len(site.fake.writes()), shares_seen(site)
    undone = undo_at_once(site)
    assert (undone.phase, site.channel()) == ("rolled_back", first)
    sent = [f"{each.method} {each.path.rpartition(':')[2] if ':' in each.path else ''}".strip() for each in site.fake.writes()[before:]]
    assert sent == ["PATCH", "PATCH", "POST undeployModel"], "the claim, the split, and in the end the left model goes"
    assert moves() == [{first: 100}]
    assert site.is_settled(first)


def undo_at_once(site: EndpointSite) -> EndpointRollout:
    """The plan that the store remembers waits for ten minutes; here nobody does."""
    state = site.state()
    site.store.put(STATE, state.model_copy(update={"plan": settings_of().plan}).model_dump_json(by_alias=True).encode())
    undone = site.undo()
    assert undone is not None
    return undone


def test_a_late_undo_deploys_the_old_version_again_and_then_moves(site: EndpointSite) -> None:
    first, second = site.release(), site.release()
    site.ship(first)
    site.ship(second)
    uploads = len([each for each in site.fake.writes() if each.path.endswith(":upload")])
    undone = site.undo()
    assert undone is not None
    assert (undone.phase, site.is_settled(first)) == ("rolled_back", True)
    assert len([each for each in site.fake.writes() if each.path.endswith(":upload")]) == uploads
    with pytest.raises(UsageError, match="no release before"):
        site.undo()


def test_a_newer_release_supersedes_one_that_is_not_published(site: EndpointSite) -> None:
    first, second, third = site.release(), site.release(), site.release()
    site.ship(first)
    site.roll_out(second, plan=LATER)
    site.ship(third)
    assert site.is_settled(third)
    assert [each.outcome for each in site.state().history] == ["promoted", "superseded", "promoted"]


def test_a_pair_that_is_not_published_in_time_goes_back(site: EndpointSite) -> None:
    first, second = site.release(), site.release()
    site.ship(first)
    site.roll_out(second, plan={"publish_within": 0.01})
    with pytest.raises(RolloutError, match="was not published within"):
        actions.finish(site.store, second, run_id="run", say=site.said.append)
    assert site.is_settled(first)


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


@pytest.mark.parametrize("status", [429, 500, 502, 503])
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


def test_what_is_sent_follows_the_containers_contract(site: EndpointSite) -> None:
    release = site.release()
    machines = {"machine_type": "g2-standard-8", "accelerator_type": "NVIDIA_L4", "accelerator_count": 1, "max_replicas": 3}
    site.ship(release, machines=machines, service_account="serve@my-project.iam.gserviceaccount.com", dedicated=True)
    (upload,) = [json.loads(each.body) for each in site.fake.writes() if each.path.endswith(":upload")]
    version = site.releases[0].version
    assert upload["model"]["artifactUri"] == f"gs://models/dual/releases/{release}/cloud"
    assert site.store.exists(f"releases/{release}/cloud/{version}/saved_model.pb")
    spec = upload["model"]["containerSpec"]
    assert (spec["imageUri"], spec["ports"]) == (IMAGE, [{"containerPort": 8501}])
    assert (spec["predictRoute"], spec["healthRoute"]) == ("/v1/models/classifier:predict", "/v1/models/classifier/metadata")
    assert "--model_base_path=$(AIP_STORAGE_URI)" in spec["args"]
    assert "--rest_api_port=$(AIP_HTTP_PORT)" in spec["args"]
    (deploy,) = [json.loads(each.body) for each in site.fake.writes() if each.path.endswith(":deployModel")]
    assert "trafficSplit" not in deploy, "it would be written without comparing"
    assert deploy["deployedModel"]["dedicatedResources"] == {
        "machineSpec": {"machineType": "g2-standard-8", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 1},
        "minReplicaCount": 1,
        "maxReplicaCount": 3,
    }
    assert deploy["deployedModel"]["serviceAccount"].startswith("serve@")
    for patch in [each for each in site.fake.writes() if each.method == "PATCH"]:
        assert (json.loads(patch.body)["etag"], "," in patch.query["updateMask"]) != ("", True)


def test_a_store_elsewhere_or_no_image_is_refused_before_anything_is_asked(site: EndpointSite) -> None:
    release = site.release()
    with pytest.raises(UsageError, match=r"roll_out_cloud\.vertex\.container\.image"):
        site.ship(release, container={})
    site.store.uri = str(site.root)
    with pytest.raises(UsageError, match="Vertex AI loads models from Cloud Storage"):
        site.ship(release)
    assert site.fake.requests == []


def test_an_endpoint_of_somebody_else_is_not_taken(site: EndpointSite) -> None:
    release = site.release()
    site.fake.endpoints["9"] = {"name": f"{PARENT}/endpoints/9", "displayName": "classifier", "etag": "x", "deployedModels": []}
    with pytest.raises(UsageError, match="--update-labels=dual-name=classifier"):
        site.ship(release)
    assert site.fake.writes() == []


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"plan": {"steps": [{"weight": 50}, {"weight": 20}]}}, "weights must rise"),
        ({"plan": {"steps": [{"weight": 100}]}}, "less than or equal to 99"),
        ({"machines": {"accelerator_type": "NVIDIA_L4"}}, "belong together"),
        ({"machines": {"min_replicas": 3}}, "max_replicas 1 is below"),
        ({"container": {"server": "custom"}}, "needs predict_route and health_route"),
        ({"endpoint": "x" * 129}, "at most 128"),
        ({"region": "Europe"}, "pattern"),
    ],
)
def test_settings_that_google_would_refuse_are_refused(values: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=key):
        EndpointSettings.model_validate(values)


def test_the_fake_refuses_what_the_service_documents(site: EndpointSite) -> None:
    first, second = site.release(), site.release()
    site.ship(first)
    site.roll_out(second, plan=LATER)
    endpoint = site.fake.only()
    identity = endpoint["name"].rpartition("/")[2]
    one, two = endpoint["trafficSplit"]

    def ask(method: str, path: str, body: Any, **query: str) -> None:
        site.fake._route(Request(method, f"/v1/{PARENT}/{path}", query, {}, json.dumps(body).encode()))

    refused: list[tuple[str, str, Any, dict[str, str]]] = [
        ("PATCH", f"endpoints/{identity}", {"trafficSplit": {one: 50, two: 49}}, {"updateMask": "trafficSplit"}),
        ("PATCH", f"endpoints/{identity}", {"trafficSplit": {"1": 100}}, {"updateMask": "trafficSplit"}),
        ("PATCH", f"endpoints/{identity}", {"trafficSplit": {one: 100}}, {}),
        ("PATCH", f"endpoints/{identity}", {"trafficSplit": {one: 100}, "etag": "old"}, {"updateMask": "trafficSplit"}),
        ("PATCH", f"endpoints/{identity}", {"etag": "x"}, {"updateMask": "deployedModels"}),
        ("POST", f"endpoints/{identity}:undeployModel", {"deployedModelId": two}, {}),
        ("POST", f"endpoints/{identity}:undeployModel", {"deployedModelId": "1"}, {}),
        ("POST", f"endpoints/{identity}:deployModel", {"deployedModel": {**endpoint["deployedModels"][0], "modelVersionId": "1"}}, {}),
        ("POST", "endpoints", {"displayName": "x" * 129}, {"endpointId": "a"}),
        ("POST", "endpoints", {"displayName": "x", "labels": {"A": "b"}}, {"endpointId": "a"}),
        ("POST", "models:upload", {"model": {"displayName": "x"}, "modelId": "x"}, {}),
        ("GET", "endpoints/none", None, {}),
        ("GET", "models/none", None, {}),
    ]
    for method, path, body, query in refused:
        with pytest.raises(Refusal):
            ask(method, path, body, **query)
    assert isinstance(site.fake, FakeEndpoints)
