"""validate_infra's pod as it is made on a real API server: of the template, admitted, of no Service, collected; and leftovers."""

import json
import time

import pytest
import yaml

from components.core.errors import UsageError
from components.validate_infra.pod import Check, check_labels, make_pod, owner_reference
from components.validate_infra.pod_life import remove_leftovers
from serving.rollout.cluster.names import Names
from tests.cluster.conftest import MANIFESTS, Json
from tests.cluster.infra_check.place import DIGEST, Place, wait_until

pytestmark = pytest.mark.cluster


def test_the_pod_is_the_templates_and_of_no_service(place: Place) -> None:
    template = place.template["spec"]["template"]
    pod = make_pod(place.template, place.names, Check(DIGEST, "run", seconds=90.5, store="gs://bucket/store"))
    (fetch,), (server, watch) = pod["spec"]["initContainers"], pod["spec"]["containers"]
    (applied,) = template["spec"]["containers"]
    for key in ("image", "args", "command", "resources", "securityContext", "readinessProbe", "volumeMounts", "ports"):
        assert server[key] == applied[key]
    assert "preStop" not in server.get("lifecycle", {})
    variables = {each["name"]: each.get("value") for each in fetch["env"]}
    assert variables == {"DUAL_MODEL_DIR": "/models/classifier", "DUAL_CANDIDATE": DIGEST, "DUAL_STORE": "gs://bucket/store"}
    assert watch["image"] == fetch["image"]
    assert watch["command"] == ["python", "-m", "serving.peak"]
    for key in ("volumes", "securityContext", "serviceAccountName", "automountServiceAccountToken"):
        assert pod["spec"][key] == template["spec"][key]
    assert (pod["spec"]["restartPolicy"], pod["spec"]["activeDeadlineSeconds"]) == ("Never", 91)
    assert pod["spec"]["shareProcessNamespace"] is True, "else the container beside the server sees only itself"
    labels = pod["metadata"]["labels"].items()
    for service in place.api.list("Service", ""):
        assert not (selector := service["spec"].get("selector")) or not selector.items() <= labels
    assert not place.names.labels.items() <= labels, "a rollout would take it for one of its pods"


def test_the_pods_own_store_is_the_templates_by_default(place: Place) -> None:
    before = place.template["spec"]["template"]["spec"]["initContainers"][0]["env"]
    after = make_pod(place.template, place.names, Check(DIGEST, "run", 900))["spec"]["initContainers"][0]["env"]
    assert [each for each in before if each["name"] == "DUAL_STORE"] == [each for each in after if each["name"] == "DUAL_STORE"]
    assert place.template["spec"]["template"]["spec"]["initContainers"][0]["env"] == before


def test_a_template_that_has_no_place_for_it_is_named(place: Place) -> None:
    template = place.template
    template["spec"]["template"]["spec"]["initContainers"][0]["env"] = []
    with pytest.raises(UsageError, match=r"/classifier: no container has the variable DUAL_RELEASE"):
        make_pod(template, place.names, Check(DIGEST, "run", 900))
    place.api.delete("Deployment", place.template, as_read=False)
    with pytest.raises(UsageError, match="the template is not there"):
        place.check()


def test_it_may_reach_what_the_servers_pods_may() -> None:
    labels = check_labels(Names(namespace="dual-deploy"))
    applied = [each for file in MANIFESTS.rglob("*.yaml") for each in yaml.safe_load_all(file.read_text()) if each]
    policies = [each for each in applied if each.get("kind") == "NetworkPolicy" and "Egress" in each["spec"]["policyTypes"]]
    # Not the follower's, which is no server, nor the holder's way to the API server, which a check does not ask.
    outward = [each["spec"] for each in policies if each["metadata"]["name"] in ("classifier", "classifier-store")]
    assert len(outward) == 4, "the base's, and those of the stores that are reached over the network"
    for selector in (each["podSelector"] for each in outward):
        assert selector["matchLabels"].items() <= labels.items()
        assert all(labels[each["key"]] in each["values"] for each in selector["matchExpressions"])


def test_pod_security_restricted_admits_it_without_a_warning(place: Place) -> None:
    pod = json.dumps(make_pod(place.template, place.names, Check(DIGEST, "run", 900)))
    done = place.cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=pod)
    assert "Warning" not in done.stderr
    spoilt = json.loads(pod)
    del spoilt["spec"]["containers"][1]["securityContext"]
    assert (
        "violates PodSecurity"
        in place.cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(spoilt), check=False).stderr
    )


def test_it_is_collected_with_the_pod_of_the_step(place: Place) -> None:
    step = place.make("other", "f" * 64)
    inside = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": step}
    assert owner_reference(place.api, {"HOSTNAME": step}) is None, "not in a cluster"
    assert owner_reference(place.api, inside | {"HOSTNAME": "laptop"}) is None
    assert owner_reference(place.api, inside | {"KFP_POD_NAME": step, "KFP_POD_UID": "another cluster's"}) is None
    owner = owner_reference(place.api, inside)
    assert owner is not None
    assert owner == owner_reference(place.api, inside | {"HOSTNAME": "x", "KFP_POD_NAME": step, "KFP_POD_UID": owner["uid"]})
    assert owner["blockOwnerDeletion"] is False
    made = place.make("run", owner=owner)
    place.api.delete("Pod", place.api.get("Pod", step), as_read=False)
    wait_until(lambda: place.api.find("Pod", made) is None, "the collection")


def test_leftovers_go_and_the_pods_of_living_steps_stay(place: Place) -> None:
    def running(name: str) -> Json:
        found = place.api.get("Pod", name)
        return {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": found["metadata"]["uid"], "blockOwnerDeletion": False}

    ended, living = (place.make("step", digit * 64) for digit in "de")
    left = [
        place.make("run", "1" * 64),
        place.make("other", "2" * 64, owner=running(ended)),
        place.make("other", "3" * 64, seconds=1),
    ]
    kept = [place.make("other", "4" * 64, owner=running(living)), place.make("other", "5" * 64)]
    place.api.patch("Pod", f"{ended}/status", [{"op": "add", "path": "/status", "value": {"phase": "Failed"}}])
    time.sleep(2.1)
    said: list[str] = []
    remove_leftovers(place.api, place.names, "run", said.append)
    assert set(place.pods()) == {living, *kept}
    assert len(said) == len([*left, ended])
