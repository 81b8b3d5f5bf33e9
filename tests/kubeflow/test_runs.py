"""dual runs: list, show, watch, retry, terminate, archive."""

import json
import re
from pathlib import Path

import pytest

from tests.kubeflow.conftest import Dual
from tests.kubeflow.fake_kfp import FakeKfp
from tests.kubeflow.plays import Frame, Play, waiting
from tests.kubeflow.records import RELEASE, breaks


def _started(submit: Dual, *words: str) -> str:
    return json.loads(submit("--json", *words).output)["run"]


def _ended(submit: Dual, dual: Dual) -> str:
    run = _started(submit)
    dual("runs", "watch", run, "--every", "0.02")
    return run


def test_lists_are_newest_first_and_go_on_page_by_page(submit: Dual, dual: Dual) -> None:
    runs = [_started(submit, "--name", f"run-{number}") for number in range(5)]
    _started(submit, "--name", "another")
    # The page's token holds the filter: the next command need not repeat it.
    result = dual("runs", "list", "--limit", 2, "--name", "run-")
    assert [line.split()[0] for line in result.stdout.splitlines()] == [runs[4], runs[3]]
    words = re.search(r"more: dual (.*)", result.stderr)
    assert words is not None
    following = dual(*words[1].split())
    assert [line.split()[0] for line in following.stdout.splitlines()] == [runs[2], runs[1]]


def test_lists_are_filtered_by_the_server(submit: Dual, dual: Dual, kfp: FakeKfp) -> None:
    kfp.state.play = lambda _: waiting()
    tuesday = _started(submit, "--name", "tuesday", "--experiment", "flowers")
    monday = _started(submit, "--name", "monday")
    dual("runs", "show", tuesday)

    def listed(*words: str) -> list[str]:
        return [run["id"] for run in json.loads(dual("runs", "list", "--json", *words).stdout)["runs"]]

    assert listed("--name", "tues") == [tuesday]
    assert listed("--experiment", "flowers") == [tuesday]
    assert listed("--state", "running") == [tuesday]
    assert listed("--state", "pending") == [monday]
    assert listed() == [monday, tuesday]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--state", "happy"], "'happy' is no state"),
        (["--experiment", "none"], "there is no experiment 'none'"),
        (["--page", "nonsense"], "400, the server refuses the request: Invalid package token."),
    ],
)
def test_lists_that_can_not_be(dual: Dual, words: list[str], said: str) -> None:
    result = dual("runs", "list", *words)
    assert (result.exit_code, said in result.output) == (2, True), result.output


def test_archived_runs_are_in_a_list_of_their_own(submit: Dual, dual: Dual) -> None:
    run = _started(submit)
    assert f"{run} is archived" in dual("runs", "archive", run).output
    assert dual("runs", "list").stdout == ""
    assert run in dual("runs", "list", "--archived").stdout
    dual("runs", "unarchive", run)
    assert run in dual("runs", "list").stdout


def test_runs_are_archived_and_not_deleted(submit: Dual, dual: Dual) -> None:
    run = _started(submit)
    refused = dual("runs", "delete", run)
    assert (refused.exit_code, f"dual runs archive {run}" in refused.output) == (2, True)
    assert run in dual("runs", "list").stdout


def test_a_run_is_shown_step_by_step_with_its_errors(submit: Dual, dual: Dual, kfp: FakeKfp) -> None:
    kfp.state.play = breaks
    run = _ended(submit, dual)
    result = dual("runs", "show", run)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["ingest", "cached"] in [line[:2] for line in lines]
    failed = next(line for line in lines if line[:2] == ["train_cloud", "failed"])
    assert " ".join(failed[3:]) == "RuntimeError: out of ideas"
    assert ["report", "succeeded"] in [line[:2] for line in lines]
    assert {line[0] for line in lines[2:]} == {"ingest", "train_cloud", "report"}, "groups and drivers are no steps"
    assert f"{kfp.url}/#/runs/details/{run}" in result.stdout


def test_a_run_as_json(submit: Dual, dual: Dual, kfp: FakeKfp, tmp_path: Path) -> None:
    kfp.state.play = breaks
    run = _ended(submit, dual)
    shown = json.loads(dual("runs", "show", run, "--json").stdout)
    assert (shown["state"], shown["parameters"]["data"]) == ("failed", "drawn")
    assert shown["step_errors"] == {"train_cloud": "RuntimeError: out of ideas"}
    (task,) = [each for each in shown["tasks"] if each["name"] == "train_cloud"]
    assert (task["state"], task["pods"], task["seconds"] > 0) == ("failed", ["dual-deploy-x7k2p-system-container-impl-202"], True)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", shown["created"])


def test_a_run_that_is_not_there(dual: Dual) -> None:
    for words in (["show"], ["watch"], ["retry"], ["terminate"], ["archive"], ["logs"]):
        result = dual("runs", *words, "0000")
        assert result.exit_code == 2, result.output
    assert "there is no run '0000'" in dual("runs", "show", "0000").output


def test_watching_takes_the_store_from_the_run(submit: Dual, dual: Dual, tmp_path: Path) -> None:
    run = _started(submit)
    result = dual("runs", "watch", run, "--every", "0.02", "--report", tmp_path / "page.html")
    assert (result.exit_code, RELEASE in result.output, (tmp_path / "page.html").is_file()) == (0, True, True)
    assert dual("runs", "watch", run, "--every", "0.02").exit_code == 0


def test_a_terminated_run_is_called_so_while_somebody_saw_it(submit: Dual, dual: Dual, kfp: FakeKfp) -> None:
    kfp.state.play = lambda _: waiting()
    run = _started(submit)
    assert "is being terminated" in dual("runs", "terminate", run).output
    assert kfp.state.runs[run]["state"] == "CANCELING"
    result = dual("runs", "watch", run, "--every", "0.02")
    assert (result.exit_code, bool(re.search("^TERMINATED", result.output, re.MULTILINE))) == (1, True), result.output


def test_what_is_over_can_not_be_terminated(submit: Dual, dual: Dual, kfp: FakeKfp) -> None:
    kfp.state.play = lambda _: Play([Frame("SUCCEEDED")])
    result = dual("runs", "terminate", _started(submit))
    assert (result.exit_code, "the run is over: it succeeded" in result.output) == (2, True)


def test_only_failed_runs_are_retried(submit: Dual, dual: Dual, kfp: FakeKfp) -> None:
    kfp.state.play = lambda _: Play([Frame("FAILED")])
    run = _started(submit)
    kfp.state.play = lambda _: waiting()
    assert "is retried" in dual("runs", "retry", run).output
    assert kfp.state.runs[run]["state"] == "PENDING"
    result = dual("runs", "retry", run)
    assert (result.exit_code, "only failed runs can be retried" in result.output) == (2, True)
    assert json.loads(dual("runs", "archive", run, "--json").stdout) == {"run": run, "done": "is archived"}
