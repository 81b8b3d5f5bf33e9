"""The house rules that a machine can check; CONTRIBUTING.md says why they exist."""

import ast
import statistics
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("components", "pipelines", "serving")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
EVERYTHING = sorted([*MODULES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])
COMPONENTS = sorted((ROOT / "components").glob("*/component.py"))
VAGUE = {"util", "utils", "helper", "helpers", "manager", "managers", "common", "misc"}
STEPS = {
    *("ingest", "validate_data", "train_cloud", "train_mobile", "quantize_mobile", "evaluate_cloud", "evaluate_mobile", "compare_pair"),
    *("validate_infra", "assemble_release", "roll_out_cloud", "publish_mobile", "report"),
    *("plan_shards", "ingest_shard", "evaluate_cloud_shard", "evaluate_mobile_shard", "plan_predictions", "predict_shard", "predict"),
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(parsed(path)) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Lines from the first statement after the docstring to the end."""
    body = function.body[1:] if ast.get_docstring(function) and len(function.body) > 1 else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1


def imports(nodes: list[ast.stmt]) -> set[str]:
    """Dotted names that these statements, and what is inside them, import."""
    found = [node for statement in nodes for node in ast.walk(statement)]
    plain = {alias.name for node in found if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "." for node in found if isinstance(node, ast.ImportFrom)}


def test_every_step_is_a_component() -> None:
    assert {path.parent.name for path in COMPONENTS} == STEPS


@pytest.mark.parametrize("path", COMPONENTS, ids=lambda path: path.parent.name)
def test_folder_function_and_kfp_name_are_one_word(path: Path) -> None:
    folder = path.parent.name
    assert [function.name for function in functions(path)] == [folder]
    made = getattr(import_module(f"components.{folder}.component"), folder)
    assert made.component_spec.name.replace("-", "_") == folder


@pytest.mark.parametrize("path", COMPONENTS, ids=lambda path: path.parent.name)
def test_a_component_is_thin(path: Path) -> None:
    (function,) = functions(path)
    assert body_lines(function) <= 25
    assert ast.get_docstring(function), "the docstring is what the KFP UI shows"
    assert "packages_to_install" not in path.read_text()
    at_module_scope = imports([node for node in parsed(path).body if node is not function])
    allowed = {*sys.stdlib_module_names, "kfp"} - {"__future__"}
    assert not {module for module in at_module_scope if module.split(".")[0] not in allowed} - {"components.core.step"}


def test_modules_are_short() -> None:
    assert {name(path): lines for path in EVERYTHING if (lines := len(path.read_text().splitlines())) >= 400} == {}


def test_modules_say_what_they_are() -> None:
    assert [name(path) for path in EVERYTHING if path.read_text() and not ast.get_docstring(parsed(path))] == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [name(path) for path in EVERYTHING if {path.stem, path.parent.name} & VAGUE] == []


def test_functions_are_short() -> None:
    lengths = {f"{name(path)}:{function.name}": body_lines(function) for path in EVERYTHING for function in functions(path)}
    assert {function: lines for function, lines in lengths.items() if lines > 60} == {}


def test_functions_are_mostly_very_short() -> None:
    lengths = [body_lines(function) for path in MODULES for function in functions(path)]
    assert statistics.median(lengths) <= 8
    assert sum(lines > 25 for lines in lengths) / len(lengths) < 0.05


def test_public_functions_say_what_they_promise() -> None:
    assert [silent for path in MODULES for silent in undocumented(path)] == []


def undocumented(path: Path) -> Iterator[str]:
    """Public functions, and public methods of public classes, that have no docstring."""
    classes = [node for node in parsed(path).body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    for scope in (parsed(path), *classes):
        for node in scope.body:
            if isinstance(node, Function) and not node.name.startswith("_") and not ast.get_docstring(node):
                yield f"{name(path)}:{node.name}"


def test_dunder_all_is_sorted() -> None:
    for path in MODULES:
        for node in parsed(path).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
                exported = ast.literal_eval(node.value)
                assert exported == sorted(exported), name(path)


def test_steps_know_nothing_of_the_pipeline_around_them() -> None:
    steps = [path for path in MODULES if name(path).startswith("components/")]
    assert {name(path): found for path in steps if (found := {i for i in imports(parsed(path).body) if i.startswith("pipelines")})} == {}


def test_nothing_is_unpickled() -> None:
    unsafe = {"pickle", "joblib", "dill", "cloudpickle", "marshal", "shelve"}
    assert [name(path) for path in MODULES if imports(parsed(path).body) & unsafe] == []
    assert [name(path) for path in MODULES if "allow_pickle=True" in path.read_text()] == []


def test_no_folder_looks_like_an_optional_package() -> None:
    """A folder of the checkout is a namespace package to what starts in it: with `docker/`, KFP's local runner believes it has Docker."""
    optional = {"docker", "google", "kubernetes", "prometheus_client", "torch", "jax", "wandb"}
    assert {path.name for path in ROOT.iterdir() if path.is_dir()} & optional == set()
