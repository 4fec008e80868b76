"""The guarantees since version 0.1.0 and the rows of a page, in `guarantees.yaml`: each has tests that prove it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import yaml

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
_ALL = yaml.safe_load(Path(__file__).with_name("guarantees.yaml").read_text(encoding="utf-8"))

MONEY: dict[str, list[str]] = {one["promise"]: one["tests"] for one in _ALL["money"]}
"""What is promised about money and results, and the tests that prove it, as `tests/….py::name`."""

SECURITY: dict[str, list[str]] = {one["promise"]: one["tests"] for one in _ALL["security"]}
"""What is promised about security, and the tests that prove it."""

PROGRAMS: dict[str, list[str]] = {one["row"]: one["tests"] for one in _ALL["programs"]}
"""The rows of `docs/never-pay-twice.md` about scopes and programs, by their first cells, and their tests."""


def is_in_first_stage(test: str) -> bool | None:
    """Whether `make test` runs a test; None if there is no such test."""
    path, _, name = test.rstrip("]").partition("::")
    name, _, case = name.partition("[")
    marks = _marks(ROOT / path)
    if name not in marks or (case and f'"{case}"' not in (ROOT / path).read_text(encoding="utf-8")):
        return None
    is_long = "long" in marks[name] or path.startswith("tests/long/")
    return not is_long and case not in _cases_of_the_second_stage(ROOT / path)


@cache
def _marks(file: Path) -> dict[str, set[str]]:
    """The marks of a file's tests, by their names, as far as they are written there."""
    if not file.exists():
        return {}
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            found[node.name] = {mark for decorator in node.decorator_list for mark in _named(decorator)}
    of_all = [node.value for node in _assignments(tree) if ast.unparse(node.targets[0]) == "pytestmark"]
    return {name: marks.union(*map(_named, of_all)) for name, marks in found.items()}


@cache
def _cases_of_the_second_stage(file: Path) -> tuple[str, ...]:
    """What `SECOND_STAGE` of a file has."""
    for node in _assignments(ast.parse(file.read_text(encoding="utf-8"))):
        if ast.unparse(node.targets[0]) == "SECOND_STAGE":
            return tuple(ast.literal_eval(node.value))
    return ()


def _assignments(tree: ast.Module) -> list[ast.Assign]:
    return [node for node in tree.body if isinstance(node, ast.Assign)]


def _named(decorator: ast.expr) -> set[str]:
    """The marks `pytest.mark.…` in an expression, but for those of single parameters."""
    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.parametrize":
        return set()
    return {
        node.attr
        for node in ast.walk(decorator)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pytest.mark"
    }
