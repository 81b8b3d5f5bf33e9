"""Five layers of settings, each stronger than the one before."""

from pathlib import Path

import pytest

from components.core.errors import UsageError
from pipelines import settings as module
from pipelines.settings import load_settings, parse_overrides, profile_names


def test_precedence_config_over_profile(tmp_path: Path) -> None:
    profile, config = tmp_path / "mine.yaml", tmp_path / "config.yaml"
    profile.write_text("seed: 2\nname: flowers\n")
    config.write_text("seed: 3\n")
    assert load_settings(str(profile)).seed == 2
    merged = load_settings(str(profile), config)
    assert (merged.seed, merged.name) == (3, "flowers")


def test_precedence_environment_over_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("seed: 3\nreport: {currency: EUR}\n")
    monkeypatch.setenv("DUAL_SEED", "4")
    monkeypatch.setenv("DUAL_REPORT__PRICE_PER_HOUR", "2.5")
    merged = load_settings("quick", config)
    assert (merged.seed, merged.report.price_per_hour, merged.report.currency) == (4, 2.5, "EUR")


def test_precedence_flag_over_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUAL_SEED", "4")
    assert load_settings("quick", overrides=["seed=5"]).seed == 5


def test_precedence_profile_over_defaults() -> None:
    assert load_settings("quick").profile == "quick"


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_is_valid(name: str) -> None:
    assert load_settings(name).profile == name


def test_there_are_the_three_profiles() -> None:
    assert profile_names() == ["quick", "standard", "thorough"]


def test_overrides_nest_and_parse_yaml() -> None:
    assert parse_overrides(["a.b=3", "a.c=[1, 2]", "d=true"]) == {"a": {"b": 3, "c": [1, 2]}, "d": True}


def test_an_error_names_key_layer_and_what_was_found(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("report:\n  price_per_hour: cheap\n")
    with pytest.raises(UsageError) as caught:
        load_settings("quick", config)
    message = str(caught.value)
    assert all(word in message for word in [str(config), "report.price_per_hour", "'cheap'"])


def test_an_unknown_key_gets_a_hint() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'report\.currency'"):
        load_settings("quick", overrides=["report.currensy=EUR"])


@pytest.mark.parametrize(
    ("text", "words"),
    [("- a\n- b\n", "holds a list"), ("a: [", "is not YAML"), ("\x00", "is not YAML")],
)
def test_a_malformed_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    config = tmp_path / "broken.yaml"
    config.write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        load_settings("quick", config)
    assert str(config) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yaml"):
        load_settings("quick", tmp_path / "nowhere.yaml")


def test_the_reference_is_up_to_date() -> None:
    from pipelines.docs import CONFIGURATION, configuration

    assert CONFIGURATION.read_text() == configuration(), "run `make docs`"


def test_an_empty_config_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert load_settings("quick", tmp_path / "empty.yaml") == load_settings("quick")
    assert module.PROFILES.is_dir()
