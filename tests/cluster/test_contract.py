"""What the manifests and the rest of the project agree on: names, variables, flags, metrics, settings."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.validate_infra.pod import Check, make_pod
from serving.fetch.order import read_hold_order, read_order
from serving.rollout.cluster.names import (
    ACTION,
    COMPONENT,
    DIGEST_VARIABLE,
    EPOCH,
    FETCHER,
    HOLDS,
    NAME,
    RELEASE_VARIABLE,
    REVISION,
    SERVER,
    STABLE,
    Names,
)
from serving.rollout.cluster.revision import makes_hosts, render, replicas_of, revision_of
from serving.rollout.cluster.settings import SETTINGS_KEY
from serving.rollout.cluster.site import parse_plan
from serving.server.__main__ import _parser
from serving.server.config import read_models, read_monitoring
from serving.server.metrics import Metrics
from serving.server.options import METRICS_PATH
from serving.server.status import Code
from tests.cluster.conftest import MANIFESTS, Cluster, Json
from tests.cluster.test_manifests import FOLDERS, title

pytestmark = pytest.mark.cluster
NAMES = Names(namespace="dual-deploy")
PARTS = (("containers", "server"), ("initContainers", FETCHER))


@pytest.fixture(scope="module", params=FOLDERS, ids=title)
def built(request: pytest.FixtureRequest, cluster: Cluster) -> dict[tuple[str, str], Json]:
    """The objects of one overlay or combination by kind and name."""
    return {(each["kind"], each["metadata"]["name"]): each for each in cluster.build(request.param)}


def test_the_template_is_what_a_rollout_copies(built: dict[tuple[str, str], Json]) -> None:
    template = built["Deployment", NAMES.template]
    assert template["spec"]["replicas"] == 0
    assert replicas_of(template, NAMES) == 2
    assert (
        template["spec"]["template"]["metadata"]["labels"].items() >= {NAME: "classifier", COMPONENT: SERVER, REVISION: "template"}.items()
    )
    assert template["spec"]["selector"]["matchLabels"].items() >= {REVISION: "template"}.items()
    revision = revision_of("0123456789ab", "d" * 64, template)
    assert revision.revision.startswith("labels-" if makes_hosts(template) else "0123456789ab-")
    made = render(template, revision, NAMES, 3)
    pod = made["spec"]["template"]["spec"]
    assert [each["name"] for each in pod["containers"]] == ["server"]
    # The developers' overlay has another init container beside it.
    fetch = next(each for each in pod["initContainers"] if each["name"] == FETCHER)
    variables = {each["name"]: each.get("value", "") for each in fetch["env"]} | {"DUAL_STORE": "/store"}
    if makes_hosts(template):
        assert (variables[RELEASE_VARIABLE], variables[DIGEST_VARIABLE]) == ("", ""), "a release in here would restart the pods"
        order = read_hold_order(variables)
        assert (order.host, order.name, order.model_dir) == (revision.revision, NAMES.service, Path("/models/classifier"))
        assert fetch["command"] == ["python", "-m", "serving.fetch", "--hold"]
        assert fetch["restartPolicy"] == "Always"
    else:
        assert (variables[RELEASE_VARIABLE], variables[DIGEST_VARIABLE]) == (revision.release, revision.digest)
        assert read_order(variables).model_dir == Path("/models/classifier")
        assert fetch["command"] == ["python", "-m", "serving.fetch"]
        assert "restartPolicy" not in fetch
    assert "template" not in set(leaves(made))


def test_only_the_holder_gets_a_token(built: dict[tuple[str, str], Json]) -> None:
    spec = built["Deployment", NAMES.template]["spec"]["template"]["spec"]
    tokens = {
        each["name"]
        for each in spec["volumes"]
        if any("serviceAccountToken" in source for source in each.get("projected", {}).get("sources", []))
    }
    assert bool(tokens) == makes_hosts(built["Deployment", NAMES.template])
    assert spec["automountServiceAccountToken"] is False
    server, fetch = (next(each for each in spec[key] if each["name"] == name) for key, name in PARTS)
    assert not tokens & {each["name"] for each in server["volumeMounts"]}
    assert tokens <= {each["name"] for each in fetch["volumeMounts"] if each.get("readOnly")}


def test_a_check_of_a_candidate_is_made_of_it_too(built: dict[tuple[str, str], Json]) -> None:
    template = built["Deployment", NAMES.template]
    pod = make_pod(template, NAMES, Check("d" * 64, "run", 60.0))
    fetch = next(each for each in pod["spec"]["initContainers"] if each["name"] == FETCHER)
    variables = {each["name"]: each.get("value", "") for each in fetch["env"]} | {"DUAL_STORE": "/store"}
    found = read_hold_order(variables).candidate if makes_hosts(template) else read_order(variables)
    assert found is not None
    assert (found.release, found.sha256) == ("", "d" * 64)


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from leaves(each)
    else:
        yield value


def test_nothing_that_a_rollout_owns_is_applied(built: dict[tuple[str, str], Json]) -> None:
    for name in (NAMES.service, NAMES.preview):
        service = built["Service", name]
        assert "selector" not in service["spec"]
        assert {port["name"]: port["port"] for port in service["spec"]["ports"]} == {"rest": 8501, "grpc": 8500}
    if route := built.get(("HTTPRoute", NAMES.route)):
        assert "rules" not in route["spec"]
    if scaler := built.get(("HorizontalPodAutoscaler", NAMES.autoscaler)):
        assert scaler["spec"]["scaleTargetRef"]["name"] == NAMES.template
    assert ("ConfigMap", NAMES.state) not in built
    for each in built.values():
        annotations = each["metadata"].get("annotations") or {}
        assert not annotations.keys() & {EPOCH, ACTION, STABLE, HOLDS}
        assert each["kind"] in ("Namespace", "PersistentVolume") or each["metadata"]["namespace"] == NAMES.namespace


def test_the_settings_are_a_plan(built: dict[tuple[str, str], Json]) -> None:
    text = built["ConfigMap", f"{NAMES.name}-rollout-settings"]["data"][SETTINGS_KEY]
    strategy = parse_plan(text, "here").strategy
    assert strategy in ("canary", "blue-green", "labels")
    assert (strategy == "labels") == makes_hosts(built["Deployment", NAMES.template])


def test_the_server_gets_flags_that_both_servers_know(built: dict[tuple[str, str], Json], tmp_path: Path) -> None:
    (server,) = built["Deployment", NAMES.template]["spec"]["template"]["spec"]["containers"]
    parsed = _parser().parse_args(server["args"])
    assert (parsed.rest_api_port, parsed.port, parsed.max_num_load_retries) == (8501, 8500, 0)
    hosts = makes_hosts(built["Deployment", NAMES.template])
    if hosts:
        assert parsed.file_system_poll_wait_seconds > 0, "TensorFlow Serving would never look for what a later configuration names"
        assert parsed.model_config_file.parent.as_posix() in {each["mountPath"] for each in server["volumeMounts"]}
        config = tmp_path / "models.config"
        config.write_text(built["ConfigMap", "classifier-models"]["data"][parsed.model_config_file.name])
        assert read_models(config).WhichOneof("config") == "model_config_list", "an empty file is another thing, and a trap"
    else:
        assert (parsed.model_name, parsed.file_system_poll_wait_seconds) == ("classifier", 0)
    if server["command"][0] == "sh":
        # The developers' overlay watches the code, and starts the same with the same flags.
        assert server["image"].startswith("dual-server")
        assert '"python -m serving.server --host=0.0.0.0 $*"' in server["command"][2]
    elif server["image"].startswith("dual-server"):
        assert server["command"] == ["python", "-m", "serving.server", "--host=0.0.0.0"]
        assert _parser().parse_args(server["command"][3:]).host == "0.0.0.0"
    else:
        assert re.fullmatch(r"tensorflow/serving:2\.\d+\.\d+(-gpu)?", server["image"])
        assert server["command"] == ["/usr/bin/tensorflow_model_server"]
        # Every flag is TensorFlow Serving's: this server's own ones (drain, limits) would stop it.
        assert not [flag for flag in server["args"] if re.match(r"--(host|max_request_bytes|max_in_flight|drain_seconds|ready_file)", flag)]
    mounted = {each["mountPath"]: each["name"] for each in server["volumeMounts"]}
    assert parsed.monitoring_config_file.parent.as_posix() in mounted
    config = tmp_path / "monitoring.config"
    config.write_text(built["ConfigMap", "classifier-monitoring"]["data"][parsed.monitoring_config_file.name])
    assert read_monitoring(config) == METRICS_PATH
    asked = "/v1/models/classifier/labels/stable/metadata" if hosts else "/v1/models/classifier/metadata"
    assert server["readinessProbe"]["httpGet"] == {"path": asked, "port": "rest"}
    assert "startupProbe" not in server, "a restart of the kubelet would make every pod of its node unready"


def test_every_container_has_its_bounds(built: dict[tuple[str, str], Json]) -> None:
    spec = built["Deployment", NAMES.template]["spec"]["template"]["spec"]
    for container in [*spec["initContainers"], *spec["containers"]]:
        for bound in ("requests", "limits"):
            assert container["resources"][bound].keys() >= {"cpu", "memory", "ephemeral-storage"}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["image"].partition(":")[2] not in ("", "latest")
    assert spec["terminationGracePeriodSeconds"] > spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] + 30
    assert all(each["emptyDir"].get("sizeLimit") for each in spec["volumes"] if "emptyDir" in each)


def test_both_monitoring_components_have_the_same_alerts() -> None:
    one, other = (yaml.safe_load((MANIFESTS / "components" / name / "rules.yaml").read_text()) for name in ("monitoring", "monitoring-gmp"))
    assert one["spec"] == other["spec"]


def test_alerts_and_dashboard_ask_for_metrics_that_the_servers_have() -> None:
    metrics = Metrics()
    metrics.requested("classifier", Code.OK, api="predict", entrypoint="REST", seconds=0.1)
    metrics.ran("classifier", 0.1)
    metrics.loaded("/models", 1.0)
    metrics.warmed("/models", 1.0)
    known = set(re.findall(r"^(:[a-z_:]+)", metrics.page(), re.MULTILINE))
    folder = MANIFESTS / "components" / "monitoring"
    rules = yaml.safe_load((folder / "rules.yaml").read_text())["spec"]["groups"]
    dashboard = json.loads((folder / "dashboard" / "classifier.json").read_text())
    asked = [rule["expr"] for group in rules for rule in group["rules"]]
    asked += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert set(re.findall(r"(:tensorflow:[a-z_:]+)", " ".join(asked))) <= known
    statuses = set(re.findall(r"[A-Z_]{2,}", " ".join(re.findall(r'status!~"([^"]+)"', " ".join(asked)))))
    assert statuses <= {code.name for code in Code}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
