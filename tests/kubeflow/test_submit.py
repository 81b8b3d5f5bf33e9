"""dual submit against a Kubeflow Pipelines that refuses what the real one refuses."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kubeflow.conftest import PACKAGE, Dual
from tests.kubeflow.fake_kfp import FakeKfp
from tests.kubeflow.plays import Frame, Play, course, waiting
from tests.kubeflow.records import REFUSAL, RELEASE, breaks, leaves, leaves_nothing, refuses, ships_and_fails

WATCH = ("--watch", "--every", "0.02")


def _run(kfp: FakeKfp) -> dict[str, object]:
    return next(iter(kfp.state.runs.values()))


def test_the_same_package_twice_makes_one_version_and_two_runs(kfp: FakeKfp, submit: Dual) -> None:
    first, second = submit("--json"), submit("--json")
    said = [json.loads(each.output) for each in (first, second)]
    assert [each["created"] for each in said] == [True, False]
    assert said[0]["version"] == said[1]["version"]
    assert (len(kfp.state.pipelines), len(kfp.state.versions), len(kfp.state.experiments), len(kfp.state.runs)) == (1, 1, 1, 2)


def test_another_layout_is_the_same_version_and_another_content_is_not(submit: Dual, package: Path, kfp: FakeKfp) -> None:
    submit()
    package.write_text(f"# a comment\n{PACKAGE}")
    assert "there already" in submit().output
    package.write_text(PACKAGE.replace("Where the images are", "Images"))
    assert "(new)" in submit().output
    assert len(kfp.state.versions) == 2


def test_a_package_of_two_documents_arrives_whole(submit: Dual, kfp: FakeKfp) -> None:
    submit()
    (version,) = kfp.state.versions.values()
    assert set(version["pipeline_spec"]) == {"pipeline_spec", "platform_spec"}
    assert re.fullmatch(r"dual-deploy-[0-9a-f]{12}", version["name"])


def test_the_run_has_its_version_parameters_account_and_root(submit: Dual, kfp: FakeKfp, tmp_path: Path) -> None:
    words = ("--name", "tuesday", "--experiment", "flowers", "--service-account", "trainer", "--pipeline-root", "gs://b/root")
    result = submit(*words, "--param", "accelerator_count=2", "--param", "node_selector={pool: gpu}", "--param", "tolerations=[{key: gpu}]")
    assert result.exit_code == 0, result.output
    run = _run(kfp)
    (version,) = kfp.state.versions.values()
    assert run["pipeline_version_reference"] == {key: version[key] for key in ("pipeline_id", "pipeline_version_id")}
    assert (run["display_name"], run["service_account"]) == ("tuesday", "trainer")
    assert run["runtime_config"] == {
        "pipeline_root": "gs://b/root",
        "parameters": {
            "data": "drawn",
            "store": str(tmp_path / "store"),
            "accelerator_count": 2,
            "node_selector": {"pool": "gpu"},
            "tolerations": [{"key": "gpu"}],
        },
    }
    assert [each["display_name"] for each in kfp.state.experiments.values()] == ["flowers"]


def test_the_link_is_the_page_that_shows_the_run(submit: Dual, kfp: FakeKfp) -> None:
    result = submit()
    assert f"{kfp.url}/#/runs/details/{_run(kfp)['run_id']}" in result.output
    assert "https://kf.example.com/_/pipeline/#/runs/details/" in submit(DUAL_KFP_UI="https://kf.example.com/_/pipeline").output


def test_settings_travel_as_profile_and_what_lies_over_it(submit: Dual, kfp: FakeKfp, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("train_mobile: {image_size: 64}\n")
    submit("--profile", "standard", "--config", tmp_path / "mine.yaml", "--set", "seed=7")
    parameters = _run(kfp)["runtime_config"]["parameters"]  # type: ignore[index]
    assert parameters["profile"] == "standard"
    assert json.loads(parameters["settings"]) == {"seed": 7, "train_mobile": {"image_size": 64}}


def test_what_nobody_said_keeps_the_pipelines_defaults(submit: Dual, kfp: FakeKfp) -> None:
    submit()
    assert set(_run(kfp)["runtime_config"]["parameters"]) == {"data", "store"}  # type: ignore[index]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--param", "acclerator_count=1"], "there is no 'acclerator_count' (did you mean 'accelerator_count'?)"),
        (["--param", "accelerator_count=two"], "accelerator_count must be a whole number, found 'two'"),
        (["--param", "accelerator_count=1.5"], "accelerator_count must be a whole number, found '1.5'"),
        (["--param", "accelerator_count=true"], "accelerator_count must be a whole number, found 'true'"),
        (["--param", "ratio=.nan"], "ratio must be a number, found '.nan'"),
        (["--param", "eager=maybe"], "eager must be true or false, found 'maybe'"),
        (["--param", "node_selector=[gpu]"], "node_selector must be a mapping"),
        (["--param", "tolerations={key: gpu}"], "tolerations must be a list"),
        (["--param", "tolerations=[2027-01-01]"], "tolerations must be a list"),
        (["--param", "nonsense"], "'nonsense' is not name=value"),
        (["--param", "ratio=1", "--param", "ratio=2"], "'ratio' is given twice"),
        (["--param", "store=gs://other/store"], "given twice: store"),
        (["--set", "train_cloud.image_sise=3"], "train_cloud.image_sise"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_sent(submit: Dual, kfp: FakeKfp, words: list[str], said: str) -> None:
    result = submit(*words)
    assert result.exit_code == 2
    assert said in result.output
    assert kfp.requests == []


def test_all_that_is_wrong_is_said_at_once(dual: Dual, package: Path) -> None:
    result = dual("submit", "--package", package, "--param", "ratio=x", "--param", "nope=1")
    assert "data is missing (Where the images are.)" in result.output
    assert "store is missing" in result.output
    assert "there is no 'nope'" in result.output
    assert "ratio must be a number" in result.output
    assert "It has: data, store, profile" in result.output


def test_a_folder_of_this_machine_is_no_store_for_pods(dual: Dual, package: Path) -> None:
    result = dual("submit", "--package", package, "--data", "drawn", "--store", "dual-store")
    assert (result.exit_code, "the steps can't reach it" in result.output) == (2, True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "can't be read (No such file or directory)"),
        ("a: [", "is not YAML"),
        ("", "holds no pipeline"),
        ("[1]", "holds no pipeline"),
        ("a: 1", "is no compiled pipeline"),
    ],
)
def test_what_is_no_package_is_refused(dual: Dual, tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "other.yaml").write_text(content)
    result = dual("submit", "--package", tmp_path / "other.yaml", "--data", "x", "--store", "/s")
    assert (result.exit_code, said in result.output, "dual compile" in result.output) == (2, True, True)


def test_images_that_no_cluster_can_pull_are_refused(submit: Dual, package: Path) -> None:
    package.write_text(PACKAGE.replace("registry/dual-trainer@sha256:aa", "dual-trainer"))
    result = submit()
    assert (result.exit_code, "no cluster can pull dual-trainer" in result.output) == (2, True)
    assert submit("--allow-unpinned").exit_code == 0


def test_the_real_pipeline_is_compiled_in_memory_and_takes_its_own_parameters(dual: Dual, kfp: FakeKfp, tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("kubeflow: {profile: standard}\n")
    images = ("--registry", "registry.example.com/dual", "--tag", "v1", "--site", tmp_path / "site.yaml")
    result = dual("submit", *images, "--data", "drawn", "--store", "gs://bucket/store", "--param", "accelerator_count=1")
    assert result.exit_code == 0, result.output
    spec = next(iter(kfp.state.versions.values()))["pipeline_spec"]["pipeline_spec"]
    assert spec["root"]["inputDefinitions"]["parameters"]["profile"]["defaultValue"] == "standard"
    assert "registry.example.com/dual/dual-trainer:v1" in json.dumps(spec)
    assert _run(kfp)["runtime_config"]["parameters"]["accelerator_count"] == "1"  # type: ignore[index]


def test_a_version_that_is_there_runs_without_a_package(submit: Dual, dual: Dual, kfp: FakeKfp) -> None:
    name = json.loads(submit("--upload-only", "--json").output)["version"]
    assert kfp.state.runs == {}
    assert dual("submit", "--version", name, "--data", "drawn", "--store", "/mnt/store").exit_code == 0
    assert len(kfp.state.runs) == 1
    assert "there is no 'seed'" in dual("submit", "--version", name, "--data", "x", "--store", "/s", "--param", "seed=1").output


def test_versions_and_pipelines_that_are_not_there(submit: Dual, dual: Dual) -> None:
    assert "there is no pipeline 'dual-deploy'" in dual("submit", "--version", "v1", "--data", "x", "--store", "/s").output
    submit("--upload-only")
    assert "has no version 'v1'" in dual("submit", "--version", "v1", "--data", "x", "--store", "/s").output
    assert "a version is compiled already" in submit("--version", "v1").output


def test_an_archived_experiment_takes_no_runs(submit: Dual, kfp: FakeKfp) -> None:
    submit()
    next(iter(kfp.state.experiments.values()))["storage_state"] = "ARCHIVED"
    result = submit()
    assert (result.exit_code, "the experiment 'dual-deploy' is archived" in result.output) == (2, True)


def test_a_shipped_run_ends_with_0_and_its_report(submit: Dual, kfp: FakeKfp, tmp_path: Path) -> None:
    result = submit(*WATCH)
    assert result.exit_code == 0, result.output
    run_id = _run(kfp)["run_id"]
    assert re.search(rf"SHIPPED\s+run {run_id}", result.output)
    assert f"release  {RELEASE}" in result.output
    assert (tmp_path / f"{run_id}.html").read_text() == "<h1>the report</h1>"


def test_progress_is_a_line_for_each_change(submit: Dual) -> None:
    lines = [re.sub(r"^\[.*?\] ", "", line) for line in submit(*WATCH).output.splitlines()]
    assert "train_cloud: running" in lines
    assert any(re.fullmatch(r"evaluate_mobile: finished in \d+ s: BLESSED \(2 checks\)", line) for line in lines)
    assert lines.index("train_cloud: running") < next(n for n, line in enumerate(lines) if line.startswith("train_cloud: finished"))
    assert sum(line.startswith("train_cloud: running") for line in lines) == 1


def test_a_terminal_gets_a_list_that_is_redrawn(submit: Dual, kfp: FakeKfp) -> None:
    import io

    from rich.console import Console

    from components.report.story import ORDER
    from pipelines.progress import make_progress
    from pipelines.submission.backend import open_backend
    from pipelines.submission.watching import Watcher

    run_id = json.loads(submit("--json").output)["run"]
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    backend, progress = open_backend("kubeflow", host=kfp.url), make_progress(ORDER, console)
    with progress:
        progress.note("warning: no answer")
        Watcher(backend, progress).follow(backend.run(run_id), 0.02)
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    assert "✓ publish_mobile" in drawn
    assert "warning: no answer" in drawn


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, dual: Dual) -> None:
    monkeypatch.setitem(sys.modules, "kfp_server_api", None)
    for name in [*sys.modules]:
        if name.startswith("pipelines.submission.kubeflow"):
            monkeypatch.delitem(sys.modules, name)
    result = dual("runs", "list")
    assert (result.exit_code, "uv sync --extra pipeline" in result.output) == (2, True), result.output


def test_a_refused_run_ends_with_3_though_kubeflow_calls_it_succeeded(submit: Dual, kfp: FakeKfp) -> None:
    kfp.state.play = refuses
    result = submit(*WATCH)
    assert (result.exit_code, "NOT SHIPPED" in result.output, REFUSAL in result.output) == (3, True, True)
    assert "roll_out_cloud: finished: skipped" in result.output


def test_a_shipped_run_is_shipped_though_kubeflow_calls_it_failed(submit: Dual, kfp: FakeKfp) -> None:
    kfp.state.play = ships_and_fails
    result = submit(*WATCH)
    assert (result.exit_code, bool(re.search(r"^SHIPPED", result.output, re.MULTILINE))) == (0, True)


def test_a_failed_run_says_which_step_and_why(submit: Dual, kfp: FakeKfp) -> None:
    kfp.state.play = breaks
    result = submit(*WATCH)
    assert result.exit_code == 1
    assert re.search(r"^FAILED", result.output, re.MULTILINE)
    assert "train_cloud: RuntimeError: out of ideas" in result.output
    assert "ingest: waits for its pod" in result.output
    assert "ingest: finished: from the cache" in result.output


def test_a_step_that_never_wrote_a_record_is_named_too(submit: Dual, kfp: FakeKfp) -> None:
    kfp.state.play = lambda _: Play([Frame("RUNNING", {"ingest": "PENDING"}), Frame("FAILED", {"ingest": "FAILED"})])
    result = submit(*WATCH)
    assert (result.exit_code, "ingest failed" in result.output) == (1, True)


def test_a_run_without_records_has_no_known_outcome(submit: Dual, kfp: FakeKfp) -> None:
    kfp.state.play = leaves_nothing
    result = submit(*WATCH)
    assert (result.exit_code, "UNKNOWN" in result.output, "has no record of it" in result.output) == (1, True, True)


def test_a_store_that_can_not_be_read_from_here_is_said(dual: Dual, package: Path, kfp: FakeKfp) -> None:
    kfp.state.play = leaves_nothing
    result = dual("submit", "--package", package, "--data", "x", "--store", "ftp://host/x", *WATCH)
    assert (result.exit_code, "its records can't be read from here" in result.output) == (1, True)


def test_the_store_may_be_the_sites_default(dual: Dual, package: Path, kfp: FakeKfp, tmp_path: Path) -> None:
    default = f"store: {{parameterType: STRING, isOptional: true, defaultValue: {tmp_path}/store}}"
    package.write_text(PACKAGE.replace("store: {parameterType: STRING}", default))
    kfp.state.play = leaves_nothing
    result = dual("submit", "--package", package, "--data", "x", *WATCH)
    assert (result.exit_code, f"{tmp_path}/store has no record of it" in result.output) == (1, True), result.output
    assert f"{tmp_path}/store has no record of it" in dual("runs", "watch", str(_run(kfp)["run_id"]), "--every", "0.02").output


def test_a_pipeline_without_a_store_is_not_started_to_be_watched(dual: Dual, package: Path, kfp: FakeKfp) -> None:
    package.write_text(PACKAGE.replace("      store: {parameterType: STRING}\n", ""))
    result = dual("submit", "--package", package, "--data", "x", *WATCH)
    assert (result.exit_code, "the parameters name no store" in result.output, kfp.state.runs) == (2, True, {}), result.output
    assert dual("submit", "--package", package, "--data", "x").exit_code == 0


def test_a_blessed_release_that_was_not_published_is_a_failure(submit: Dual, kfp: FakeKfp) -> None:
    """The pods of the rollout never came: it left no record, and Kubeflow says which step failed."""
    done = {"assemble_release": leaves("assemble_release", accuracy=0.9)}
    kfp.state.play = lambda _: course(done, "FAILED", {"roll_out_cloud": "FAILED"})
    result = submit(*WATCH)
    assert result.exit_code == 1
    assert "the release was blessed, and the run ended before it was published; roll_out_cloud failed" in result.output


def test_json_is_one_object_with_the_verdict(submit: Dual, kfp: FakeKfp, tmp_path: Path) -> None:
    result = submit(*WATCH, "--json", "--report", tmp_path / "out" / "page.html")
    said = json.loads(result.stdout)
    assert (said["outcome"], said["release"], said["state"], said["exit_code"]) == ("SHIPPED", RELEASE, "succeeded", 0)
    assert said["report"] == str(tmp_path / "out" / "page.html")


def test_a_server_that_is_away_for_a_moment_does_not_end_the_watching(submit: Dual, kfp: FakeKfp) -> None:
    from tests.kubeflow.fake_kfp import as_json

    troubles = iter([None, None, 503, 502, 503])

    def guard(request: object) -> object:
        status = next(troubles, None) if "/runs/" in request.path else None  # type: ignore[attr-defined]
        return as_json({"message": "upstream connect error"}, status) if status else None

    kfp.guard = guard  # type: ignore[assignment]
    result = submit(*WATCH)
    assert result.exit_code == 0
    assert "warning: no answer, still trying: 503, the server can't answer now: upstream connect error" in result.output


def test_an_interrupt_ends_the_watching_and_not_the_run(kfp: FakeKfp, package: Path, tmp_path: Path) -> None:
    kfp.state.play = lambda _: waiting()
    words = ["submit", "--package", str(package), "--data", "x", "--store", str(tmp_path / "store"), "--host", kfp.url, *WATCH]
    command = [sys.executable, "-m", "pipelines.cli", *words]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert child.stdout is not None
    while "waits for its pod" not in child.stdout.readline():
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    run = _run(kfp)
    assert (child.returncode, run["state"]) == (130, "RUNNING")
    assert f"the run {run['run_id']} goes on" in said
    assert f"dual runs watch {run['run_id']} --host {kfp.url}" in said
    assert f"dual runs terminate {run['run_id']} --host {kfp.url}" in said
    assert "Traceback" not in said
