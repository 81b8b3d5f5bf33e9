"""Parameters of a run, checked against what the pipeline declares: Kubeflow takes anything and fails, or ignores, later."""

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from components.core.errors import UsageError
from pipelines.submission.package import Input, Inputs, Kind

_WORDS: dict[str, str] = {
    "STRING": "a text",
    "NUMBER_INTEGER": "a whole number",
    "NUMBER_DOUBLE": "a number",
    "BOOLEAN": "true or false",
    "LIST": "a list, as in [1, 2]",
    "STRUCT": "a mapping, as in {a: 1}",
}


def parse_pairs(pairs: Sequence[str]) -> dict[str, str]:
    """`["epochs=3"]` → `{"epochs": "3"}`; `UsageError` for what is no pair, or given twice."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or not name:
            raise UsageError(f"'{pair}' is not name=value", where="--param", fix="Write for example --param accelerator=nvidia.com/gpu")
        if name in found:
            raise UsageError(f"'{name}' is given twice", where="--param", fix="Give it once")
        found[name] = text
    return found


def check(given: Mapping[str, Any], inputs: Inputs, pipeline: str) -> dict[str, Any]:
    """The parameters as JSON values of the declared types; texts are read as the type asks (`"3"` → 3).

    Raises one `UsageError` that lists everything that is wrong: unknown names, wrong types, what is missing.
    """
    problems = [_unknown(name, inputs) for name in given if name not in inputs]
    problems += [f"{name} is missing{_described(each)}" for name, each in inputs.items() if each.required and name not in given]
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in inputs:
            try:
                values[name] = convert(value, inputs[name].kind)
            except ValueError:
                problems.append(f"{name} must be {_WORDS[inputs[name].kind]}, found {_shown(value)}")
    if problems:
        what = f"the pipeline '{pipeline}' does not take these parameters: {'; '.join(problems)}"
        raise UsageError(what, where="parameters", fix=f"It has: {', '.join(inputs) or 'none'}")
    return values


def convert(value: Any, kind: Kind) -> Any:
    """`value` as the type asks; a text is read as YAML where the type is no text. Raises ValueError where that is not possible."""
    if kind == "STRING":
        return _text(value)
    read = _read(value) if isinstance(value, str) else value
    if kind == "BOOLEAN":
        return _expect(read, isinstance(read, bool))
    if kind == "NUMBER_INTEGER":
        whole = isinstance(read, float) and read.is_integer()
        return int(_expect(read, _is_number(read) and (isinstance(read, int) or whole)))
    if kind == "NUMBER_DOUBLE":
        return float(_expect(read, _is_number(read) and math.isfinite(read)))
    return _expect(_plain(read), isinstance(read, list if kind == "LIST" else dict))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    raise ValueError


def _read(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError from None


def _plain(value: Any) -> Any:
    """Only what JSON can say: YAML's dates and the like are refused."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except TypeError:
        raise ValueError from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _expect(value: Any, fits: bool) -> Any:
    if not fits:
        raise ValueError
    return value


def _unknown(name: str, inputs: Inputs) -> str:
    near = difflib.get_close_matches(name, inputs, n=1)
    return f"there is no '{name}'" + (f" (did you mean '{near[0]}'?)" if near else "")


def _described(each: Input) -> str:
    first = each.description.partition("\n")[0].strip()
    return f" ({first})" if first else ""


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return f"'{text[:60]}{'…' if len(text) > 60 else ''}'"
