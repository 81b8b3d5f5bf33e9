"""What a person sees of rollouts by labels: `dual rollout plan` and `status` as they are typed."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pipelines.cli import cli
from serving.rollout.analysis.held import Held, ask_held
from serving.rollout.analysis.pods import PodTarget
from serving.rollout.cluster.proxy import ProxyAccess
from tests.crash.cluster_site import RELEASES
from tests.crash.labels.stage import LabelStage
from tests.crash.stage import Scene

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def kubeconfig_of_labels(label_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(label_kubeconfig))


def plan(stage: LabelStage, folder: Path, **plan: object) -> str:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump({"strategy": "labels", **plan}))
    done = CliRunner().invoke(cli, ["rollout", "plan", "--namespace", stage.api.namespace, "--plan", str(path)])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_plan_says_whether_pods_are_made_anew_and_whether_that_leaves_a_gap(
    label_stage: LabelStage, empty_label_stage: LabelStage, tmp_path: Path
) -> None:
    within = plan(label_stage, tmp_path, gate=True)
    assert "each of the 3 pod(s) loads the candidate beside the stable version; the label stable does not move" in within
    assert "3 round(s): both versions are asked by their numbers, and compared; no live traffic" in within
    assert "until somebody promotes" in within
    assert "the version of before stays loaded 30 s" in within
    assert "3 pod(s) are made anew" in plan(empty_label_stage, tmp_path)
    label_stage.edit("Deployment", "classifier", ("spec", "template", "spec", "containers", "0", "image"), "server:2")
    assert "3 pod(s) are made anew" in plan(label_stage, tmp_path)
    assert "the 3 pod(s) of before end, then 3 start: a gap in service (make_room)" in plan(label_stage, tmp_path, make_room=True)


def test_the_status_says_what_pods_hold(label_stage: LabelStage) -> None:
    machine = label_stage.machine("b", Scene())
    machine.objects.claim()
    while machine.state.phase != "analyze":
        getattr(machine, f"_{machine.state.phase}")()
    done = CliRunner().invoke(cli, ["rollout", "status", "--namespace", label_stage.api.namespace])
    assert done.exit_code == 0, done.output
    assert f"holds         {RELEASES['a']} (stable), {RELEASES['b']} (canary)" in done.output
    assert f"pods          {label_stage.host}: 3 of 3 ready" in done.output


def test_through_the_api_server_too_what_nobody_says_is_not_taken_for_an_error(label_stage: LabelStage) -> None:
    target = PodTarget("no-such-pod", "", 8501, 8500, label_stage.host)
    assert ask_held(ProxyAccess(label_stage.api, target, "classifier"), "classifier", ("stable",)) == Held()
