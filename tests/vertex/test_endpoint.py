"""Rollouts on an endpoint: good and bad releases of each kind, undo, what is sent, and what others do meanwhile."""

import json
from typing import Any

import pytest

from components.core.errors import RolloutError, UsageError
from components.publish_mobile.publication import publish_release
from components.publish_mobile.settings import PublishMobileSettings
from components.publish_mobile.start import start
from serving.rollout.endpoint import actions
from serving.rollout.endpoint.settings import EndpointSettings
from serving.rollout.endpoint.state import STATE, EndpointRollout
from tests.kubeflow.fake_kfp import Request
from tests.vertex.endpoint_site import ANALYSIS, IMAGE, Bucket, Ended, EndpointSite, right, settings_of, shares_seen, stop_when, wrong
from tests.vertex.fake_endpoints import Behaviour, FakeEndpoints
from tests.vertex.fake_vertex import PARENT, Refusal

LATER = {"scale_down_delay": 600.0}
"""The old model is still there when the pair is published: an undo then is a matter of the split."""


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
        (Behaviour(right().labels, seconds=0.6), "latency_p99_ms failed"),
        (Behaviour(right().labels, failing=0.7, names_itself=True), "error_rate failed"),
        (Behaviour(right().labels, failing=1.0, status=503), "no answer says which version failed"),
        (Behaviour(right().labels, seconds=1.2), "no answer within 0.8 s"),
    ],
    ids=["wrong", "slow", "erring", "crashing", "hanging"],
)
def test_a_bad_release_goes_back(site: EndpointSite, behaviour: Behaviour, said: str) -> None:
    first, second = site.release(), site.release()
    site.ship(first)
    site.fake.behaviours[second] = behaviour
    moves = shares_seen(site)
    impatient = {**ANALYSIS, "smoke": {**ANALYSIS["smoke"], "timeout": 0.8}, "latency_p99_ms": {"max": 500.0}}
    with pytest.raises(RolloutError) as caught:
        site.ship(second, plan={"analysis": impatient if behaviour.seconds else ANALYSIS})
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
    with pytest.raises(UsageError, match=r"roll_out_cloud\.vertex\.region"):
        site.ship(release, region="")
    site.store.uri = str(site.root)
    with pytest.raises(UsageError, match="Vertex AI loads models from Cloud Storage"):
        site.ship(release)
    assert site.fake.requests == []


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


def test_publishing_by_hand_is_refused_while_an_endpoint_serves_the_pair(site: EndpointSite) -> None:
    first, second = site.release(), site.release()
    site.ship(first)
    with pytest.raises(UsageError, match=r"dual rollout start .* --target vertex"):
        start(site.store, second, 10_000, run_id="me", limits=PublishMobileSettings.model_validate({}))
