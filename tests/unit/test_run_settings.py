"""A run's settings are resolved once, from the form, and read from the run's record by every step."""

import json
from pathlib import Path

import pytest

from components.configuration.form import RunForm, begin_run, resolve_form
from components.core.errors import AlreadyExistsError, DataError, UsageError
from components.core.record import open_step
from components.core.run_settings import read_settings, write_settings
from components.core.stores import open_store


def test_fields_win_over_settings_over_the_site_over_the_profile() -> None:
    site = {"seed": 2, "name": "site", "report": {"currency": "EUR"}, "ingest": {"spans": "all"}}
    settings = {"seed": 3, "ingest": {"spans": "latest:2"}}
    form = RunForm(profile="quick", site=json.dumps(site), settings=json.dumps(settings), spans="5-7")
    resolved = resolve_form(form)
    assert (resolved.profile, resolved.train_cloud.image_size) == ("quick", 160)
    assert (resolved.name, resolved.report.currency) == ("site", "EUR")
    assert (resolved.seed, resolved.ingest.spans) == (3, "5-7")


def test_an_empty_form_is_the_defaults() -> None:
    from components.configuration.model import Settings

    assert resolve_form(RunForm()) == Settings.model_validate({})


def test_a_whole_set_of_settings_has_no_profile_below() -> None:
    """What `dual run` passes on: thresholds that its profile does not have must not come back from another one."""
    mine = resolve_form(RunForm(settings='{"evaluate_cloud": {"gate": {"thresholds": {"macro_f1": {"min": 0.5}}}}}'))
    again = resolve_form(RunForm(profile="", settings=mine.model_dump_json()))
    assert again == mine
    assert set(again.evaluate_cloud.gate.thresholds) == {"macro_f1"}


def test_thresholds_are_laid_over_the_profile() -> None:
    resolved = resolve_form(RunForm(profile="standard", thresholds='{"evaluate_cloud": {"accuracy": {"min": 0.99}}}'))
    assert resolved.evaluate_cloud.gate.thresholds["accuracy"].min == 0.99
    assert resolved.evaluate_cloud.gate.thresholds["accuracy"].max_drop == 0.02
    assert "macro_f1" in resolved.evaluate_cloud.gate.thresholds


@pytest.mark.parametrize("steps", ["[10, 50]", '[{"weight": 10}, {"weight": 50}]', "[10, {weight: 50}]"])
def test_a_rollout_is_given_by_strategy_and_weights(steps: str) -> None:
    plan = resolve_form(RunForm(rollout_strategy="canary", rollout_steps=steps)).roll_out_cloud.kubernetes.plan
    assert plan is not None
    assert (plan.strategy, [step.weight for step in plan.steps]) == ("canary", [10, 50])


def test_without_a_word_on_the_rollout_the_cluster_keeps_its_plan() -> None:
    assert resolve_form(RunForm(profile="quick")).roll_out_cloud.kubernetes.plan is None


def test_the_environment_of_a_step_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUAL_SEED", "9")
    assert resolve_form(RunForm(profile="quick")).seed == 1


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (RunForm(profile="fast"), ["field profile", "'fast'", "quick"]),
        (RunForm(profile="/etc/passwd.yaml"), ["field profile", "/etc/passwd.yaml"]),
        (RunForm(settings='{"seed": "x"}'), ["field settings", "seed", "'x'"]),
        (RunForm(settings='{"train_cloud": {"image_sise": 3}}'), ["field settings", "train_cloud.image_size"]),
        (RunForm(settings="[1]"), ["field settings", "list"]),
        (RunForm(settings="{"), ["field settings", "not YAML"]),
        (RunForm(site='{"seed": -1}'), ["the site's settings", "seed", "-1"]),
        (RunForm(spans="yesterday"), ["field spans", "ingest.spans", "'yesterday'"]),
        (RunForm(thresholds='{"accuracy": {"min": 0.9}}'), ["field thresholds", "no gate 'accuracy'", "evaluate_mobile"]),
        (RunForm(thresholds='{"evaluate_cloud": 0.9}'), ["field thresholds", "0.9"]),
        (RunForm(thresholds='{"evaluate_cloud": {"accuracy": {"minimum": 1}}}'), ["field thresholds", "minimum"]),
        (RunForm(rollout_strategy="yolo"), ["field rollout_strategy", "'yolo'"]),
        (RunForm(rollout_steps="[0, 120]"), ["field rollout_steps", "weight"]),
        (RunForm(rollout_steps="ten"), ["field rollout_steps", "'ten'"]),
        (RunForm(accelerator_type="NVIDIA_L4"), ["field accelerator_type", "NVIDIA_L4", "nvidia.com/gpu"]),
        (RunForm(accelerator_count="two"), ["field accelerator_count", "two"]),
    ],
)
def test_an_error_names_the_field_and_what_was_found(form: RunForm, words: list[str], tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with pytest.raises(UsageError) as caught:
        begin_run(store, "r", form)
    assert all(word in str(caught.value) for word in words), caught.value
    assert list(store.list("runs/")) == [], "a refused form leaves no settings"


def test_the_first_step_keeps_the_settings_and_every_step_reads_them(tmp_path: Path) -> None:
    begin_run(open_store(str(tmp_path)), "r", RunForm(profile="quick", settings="seed: 5"))
    with open_step("train_cloud", store=str(tmp_path), run_id="r") as record:
        assert json.loads(record.settings)["seed"] == 5


def test_a_repeated_first_step_passes(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for _ in range(2):
        begin_run(store, "r", RunForm(profile="quick"))


def test_other_settings_under_the_same_name_are_a_conflict_that_names_them(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_settings(store, "r", '{"seed": 1, "ingest": {"spans": "all", "min_side": 16}}')
    with pytest.raises(AlreadyExistsError, match=r"other settings \(ingest.spans, seed\)"):
        write_settings(store, "r", '{"seed": 2, "ingest": {"spans": "latest", "min_side": 16}}')
    assert json.loads(read_settings(store, "r"))["seed"] == 1


def test_missing_settings_are_said_or_replaced(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with pytest.raises(DataError, match="the run has no settings"):
        read_settings(store, "r")
    assert read_settings(store, "r", default="{}") == "{}"


def test_runs_are_listed_by_time_whatever_they_are_called(tmp_path: Path) -> None:
    from components.core.record import Record, record_name, run_ids

    store = open_store(str(tmp_path))
    begun = {
        "f0000000-kubeflow": "2026-01-02T00:00:00+00:00",
        "20260103-000000-aaaa": "2026-01-03T00:00:00+00:00",
        "00000000-kubeflow": "2026-01-04T00:00:00+00:00",
    }
    for run, started in begun.items():
        body = Record(step="ingest", started=started).model_dump_json(by_alias=True)
        store.put(record_name(run, "ingest", "record.json"), body.encode())
    assert run_ids(store) == list(begun)
