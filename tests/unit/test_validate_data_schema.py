"""The schema file: what is inferred can be read again, and whatever people break in it is named."""

from pathlib import Path

import pytest

from components.core.errors import UsageError
from components.core.stores import open_store
from components.validate_data.schema import SCHEMA, Schema, keep_schema, parse_schema, read_schema, schema_yaml

WHERE = "/store/schema/data.yaml"
GOOD = Schema(
    schema="dual.data-schema/v1",
    labels=["daisy", "roses"],
    splits=["train", "validation", "test"],
    minimum_per_class={"train": 5, "validation": 1, "test": 1},
    max_imbalance=10,
    slices={"source": ["phone", "web"]},
    ranges={"width": (16, 2048), "aspect": (0.25, 4)},
    allowed_outside=0.01,
    reference="schema/reference-0.npz",
)
TEXT = schema_yaml(GOOD, "run-1", {})


def test_what_is_written_is_read_again() -> None:
    assert parse_schema(TEXT.encode(), WHERE) == GOOD


@pytest.mark.parametrize(
    "label", ["yes", "null", "1", "a: b", "# no comment", 'quo"te', "naïve", "日本", "two\nlines", " space ", "-", "[x]"]
)
def test_any_class_name_survives_yaml(label: str) -> None:
    schema = GOOD.model_copy(update={"labels": [label], "slices": {label: [label]}})
    assert parse_schema(schema_yaml(schema, "run", {}).encode(), WHERE) == schema


def test_a_run_id_cannot_leave_its_comment() -> None:
    assert parse_schema(schema_yaml(GOOD, "x\nlabels: []", {}).encode(), WHERE) == GOOD


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("max_imbalance: 10", "max_imbalance: many", ["key max_imbalance", "'many'"]),
        ("max_imbalance: 10", "max_imbalance: 0.5", ["key max_imbalance", "0.5"]),
        ("max_imbalance: 10", "", ["key max_imbalance", "required"]),
        ("max_imbalance: 10", "max_imbalance: 10\nmax_imbalence: 3", ["key max_imbalence", "3"]),
        ('- "daisy"', "- 7", ["key labels.0", "7"]),
        ('- "daisy"', '- "roses"', ["key labels", "named twice: roses"]),
        ('labels:\n- "daisy"\n- "roses"', "labels: []", ["key labels"]),
        ("splits: [train, validation, test]", "splits: [train, dev]", ["key splits.1", "'dev'"]),
        ("  train: 5", "  train: -5", ["key minimum_per_class", "negative"]),
        ("  train: 5", "  train: few", ["key minimum_per_class.train", "'few'"]),
        ("[16, 2048]", "[2048, 16]", ["ranges.width", "[2048, 16]"]),
        ("[16, 2048]", "[16, .nan]", ["ranges.width", "nan"]),
        ("[16, 2048]", "[16]", ["key ranges.width", "found"]),
        ("  width:", "  weight:", ["ranges.weight", "no such statistic"]),
        ("allowed_outside: 0.01", "allowed_outside: 1%", ["key allowed_outside", "'1%'"]),
        ("schema: dual.data-schema/v1", "schema: dual.data-schema/v9", ["key schema", "'dual.data-schema/v9'"]),
        ("splits: [", "splits: [[", ["line ", "not YAML"]),
    ],
)
def test_a_broken_schema_names_file_key_and_what_was_found(old: str, new: str, named: list[str]) -> None:
    assert old in TEXT
    with pytest.raises(UsageError) as error:
        parse_schema(TEXT.replace(old, new).encode(), WHERE)
    for part in [WHERE, *named]:
        assert part in str(error.value)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("data", [b"", b"- a\n- b\n", b"text", b"\xff\xfe\x00"])
def test_what_is_no_mapping_is_named(data: bytes) -> None:
    with pytest.raises(UsageError, match=r"data\.yaml"):
        parse_schema(data, WHERE)


def test_the_first_schema_stays(tmp_path: Path) -> None:
    from components.core.examples import read_examples
    from components.validate_data.scan import scan_examples
    from tests.unit.data_examples import items, write_examples

    root = write_examples(tmp_path / "examples", items(2, 1))
    scan, store = scan_examples(root, read_examples(root)), open_store(str(tmp_path / "store"))
    assert read_schema(store) is None
    keep_schema(store, GOOD, scan, "one")
    later = keep_schema(store, GOOD.model_copy(update={"labels": ["other"]}), scan, "two")
    assert later == GOOD
    assert "run one" in store.get(SCHEMA).data.decode()
