"""The data schema: what the images must look like. Inferred once, kept in the store, edited by people, enforced on every later run."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from components.core.errors import DualError, UsageError
from components.core.examples import SPLITS, Split
from components.core.stores import Store
from components.validate_data.measure import STATISTICS, UNITS
from components.validate_data.scan import Scan, slice_values
from components.validate_data.settings import ValidateDataSettings

SCHEMA = "schema/data.yaml"
"""The schema's name in the store."""
_FIX = "Correct the file, or delete it and the next run infers a new one"
_MOST_VALUES = 50
_RATIOS = ("width", "height", "aspect")


class Schema(BaseModel):
    """The content of schema/data.yaml."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["dual.data-schema/v1"] = Field(alias="schema")
    labels: list[str] = Field(min_length=1)
    splits: list[Split] = Field(min_length=1)
    minimum_per_class: dict[Split, int]
    max_imbalance: float = Field(ge=1)
    slices: dict[str, list[str]] = {}
    ranges: dict[str, tuple[float, float]] = {}
    allowed_outside: float = Field(ge=0, le=1)
    reference: str = ""

    @field_validator("labels")
    @classmethod
    def _no_label_twice(cls, labels: list[str]) -> list[str]:
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        return labels

    @field_validator("minimum_per_class")
    @classmethod
    def _no_negative_minimum(cls, minimum: dict[Split, int]) -> dict[Split, int]:
        if any(count < 0 for count in minimum.values()):
            raise ValueError("a minimum can't be negative")
        return minimum

    @model_validator(mode="after")
    def _ranges_make_sense(self) -> Self:
        for name, (low, high) in self.ranges.items():
            if name not in STATISTICS:
                raise ValueError(f"ranges.{name}: no such statistic (there are {', '.join(STATISTICS)})")
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ValueError(f"ranges.{name}: [{low:g}, {high:g}] is not [lowest, highest]")
        return self


def infer_schema(scan: Scan, settings: ValidateDataSettings) -> Schema:
    """What is seen now, with room and without a reference.

    The room: half the lowest to double the highest size and aspect, a quarter of the span for other values, half the smallest class.
    """
    values = slice_values(scan.slices)
    return Schema(
        schema="dual.data-schema/v1",
        labels=sorted(scan.labels),
        splits=list(SPLITS),
        minimum_per_class={split: _minimum(scan, split, settings) for split in SPLITS},
        max_imbalance=settings.max_imbalance,
        slices={column: list(seen) if len(seen) <= _MOST_VALUES else [] for column, seen in values.items()},
        ranges=_ranges(scan),
        allowed_outside=settings.allowed_outside,
    )


def _minimum(scan: Scan, split: Split, settings: ValidateDataSettings) -> int:
    floor = settings.min_per_class if split == "train" else settings.min_held_out_per_class
    return max(floor, int(scan.label_counts(scan.rows(split)).min(initial=1 << 62)) // 2) if len(scan.rows(split)) else floor


def _ranges(scan: Scan) -> dict[str, tuple[float, float]]:
    return {name: _widened(name, *_seen(scan, name)) for name in STATISTICS} if len(scan) else {}


def _seen(scan: Scan, name: str) -> tuple[float, float]:
    column = scan.statistics[:, STATISTICS.index(name)]
    return float(column.min()), float(column.max())


def _widened(name: str, low: float, high: float) -> tuple[float, float]:
    if name in _RATIOS:
        digits = 2 if name == "aspect" else 0
        return round(low / 2, digits), round(high * 2, digits)
    room = (high - low) / 4
    top = 255.0 if name == "brightness" else math.inf
    return round(max(0.0, low - room), 2), round(min(top, high + room), 2)


def read_schema(store: Store) -> Schema | None:
    """The store's schema, or None before the first run.

    Raises `UsageError` that names the file, the key and what was found if people left it malformed.
    """
    found = store.find(SCHEMA)
    return parse_schema(found.data, where=f"{store.uri}/{SCHEMA}") if found else None


def parse_schema(data: bytes, where: str) -> Schema:
    """Parse the YAML of a schema; `UsageError` names `where`, the key and what was found."""
    try:
        content: Any = yaml.safe_load(data.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"the file is not UTF-8 (byte {error.start})", where=where, fix=_FIX) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"the file is not YAML: {getattr(error, 'problem', error)}", where=f"{where}{line}", fix=_FIX) from None
    try:
        return Schema.model_validate(content)
    except ValidationError as error:
        raise _explained(error, where) from None


def _explained(error: ValidationError, where: str) -> UsageError:
    first: Any = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    found = repr(first["input"])
    what = first["msg"] if isinstance(first["input"], dict) and first["type"] != "dict_type" else f"{first['msg']}, found {found[:80]}"
    return UsageError(what.removeprefix("Value error, "), where=f"{where}, key {key}" if key else where, fix=_FIX)


def keep_schema(store: Store, schema: Schema, scan: Scan, run_id: str) -> Schema:
    """Put a first schema into the store; if another run was faster, that one's schema is returned and counts."""
    seen = {name: _seen(scan, name) for name in STATISTICS} if len(scan) else {}
    if store.put_if_absent(SCHEMA, schema_yaml(schema, run_id, seen).encode()):
        return schema
    winner = read_schema(store)
    if winner is None:
        raise DualError("the schema appeared and vanished again", where=f"{store.uri}/{SCHEMA}", fix="Run again")
    return winner


def schema_yaml(schema: Schema, run_id: str, seen: Mapping[str, tuple[float, float]]) -> str:
    """The schema as YAML that explains itself; `seen` are the extremes behind each range."""
    lines = [
        f"# What the images must look like: inferred from run {_one_line(run_id)}, yours to edit. Later runs are checked against it;",
        "# delete the file and the next run infers a new one. Every key is explained in docs/data.md.",
        f"schema: {schema.schema_}",
        "",
        "# Every class. Images of another class are an `unseen_label`, a class without images is a `label_missing`.",
        "labels:",
        *(f"- {_quoted(label)}" for label in schema.labels),
        "",
        "# Splits that must have images (`missing_split`).",
        f"splits: [{', '.join(schema.splits)}]",
        "",
        "# Fewest images of each class (`few_train_examples`, `few_held_out_examples`): half of the smallest class when this was made.",
        "minimum_per_class:",
        *(f"  {split}: {count}" for split, count in schema.minimum_per_class.items()),
        "",
        "# How many times larger than the smallest training class the largest may be (`class_imbalance`).",
        f"max_imbalance: {schema.max_imbalance:g}",
        "",
        "# Slice columns and their values (`missing_slice`, `unseen_slice`); an empty list allows any value.",
        *_mapping("slices", {_quoted(k): f"[{', '.join(map(_quoted, v))}]" for k, v in schema.slices.items()}),
        "",
        "# [lowest, highest] of each image (`value_out_of_range`); remove a line to allow all.",
        *_mapping("ranges", {name: _range_line(name, bounds, seen) for name, bounds in schema.ranges.items()}),
        "# Share of all images that may lie outside a range before it is reported.",
        f"allowed_outside: {schema.allowed_outside:g}",
        "",
        "# The sample of images that later runs are compared with for drift. A run that drifted names its own sample: put that here to",
        "# make the new data the new normal. Empty switches the comparison off.",
        f"reference: {_quoted(schema.reference)}",
        "",
    ]
    return "\n".join(lines)


def _mapping(name: str, entries: Mapping[str, str]) -> list[str]:
    return [f"{name}:", *(f"  {key}: {value}" for key, value in entries.items())] if entries else [f"{name}: {{}}"]


def _range_line(name: str, bounds: tuple[float, float], seen: Mapping[str, tuple[float, float]]) -> str:
    low, high = seen.get(name, bounds)
    return f"[{bounds[0]:g}, {bounds[1]:g}]  # {UNITS[name]}; seen {low:.4g} to {high:.4g}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _one_line(text: str) -> str:
    # A run id is a file name, but nothing else may end the comment that it stands in.
    return re.sub(r"[^\w.:-]", "_", text)
