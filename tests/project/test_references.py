"""Names of modules, classes and functions that docstrings refer to exist."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("rh_prefect", "tests", "benchmarks", "flows", "blocks")
NAME = re.compile(r"`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?:\(.*?\))?`")
STEPS = {"each"}
"""First words of the addresses of steps in examples."""


def docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Strings that are statements: docstrings, also those of constants."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str()) as text):
                yield text


def bound(statements: list[ast.stmt]) -> Iterator[str]:
    """Names that statements define, imports included."""
    for one in (node for statement in statements for node in own_nodes(statement)):
        match one:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.alias(name=name, asname=asname):
                yield asname or name.partition(".")[0]


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """A statement with its parts, without the bodies of functions and classes."""
    yield node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        for child in ast.iter_child_nodes(node):
            yield from own_nodes(child)


def members(node: ast.ClassDef) -> Iterator[str]:
    """Attributes and methods of a class, without those of its bases."""
    yield from bound(node.body)
    for one in ast.walk(node):
        match one:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


@dataclass
class Known:
    """What the project's files define."""

    modules: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """What modules of a name define; of a folder also its modules and folders."""
    classes: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The members of classes of a name."""
    package: set[str] = field(default_factory=set)
    """What the modules of the package define."""

    def add(self, file: Path, tree: ast.Module) -> None:
        """Takes what a file defines.

        Args:
            file: Relative to the project's folder.
            tree: What stands in it.
        """
        parts = file.with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        self.modules[parts[-1]].update(bound(tree.body))
        for folder, inner in pairwise(parts):
            self.modules[folder].add(inner)
        if parts[0] == "rh_prefect":
            self.package.update(bound(tree.body))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                self.classes[node.name].update(members(node))


def is_stale(name: str, known: Known, paths: list[str], all_members: set[str]) -> bool:
    """Whether a dotted name refers to something of this project that does not exist."""
    first, *others = name.split(".")
    last, owner = others[-1], (first, *others)[-2]
    if last == "py":
        return not any(f"/{path}".endswith(f"/{owner}.py") for path in paths)
    if owner in known.modules and (last in known.modules[owner] or "__getattr__" in known.modules[owner]):
        return False
    if first in sys.stdlib_module_names or (first not in FOLDERS and find_spec(first) is not None):
        return False
    if first in STEPS:
        return False
    if last[0].isupper():
        return last not in known.classes[owner]
    if first in known.modules or first in known.classes:
        return others[0] not in known.modules[first] | all_members
    return last in known.package and last not in all_members


@pytest.mark.long
# All is read in the test: the trees of all files, made at the import, cost every process that collects tests 6 s.
def test_names_in_docstrings_exist() -> None:
    known = Known()
    texts: list[tuple[str, str]] = []
    for file in sorted(file.relative_to(ROOT) for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")):
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        known.add(file, tree)
        texts += [(f"{file}:{text.lineno}", str(text.value)) for text in docstrings(tree)]
    paths = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py") if ".venv" not in path.parts]
    all_members = set().union(*known.classes.values())
    found = [
        f"{place}: {name}"
        for place, text in texts
        for name in NAME.findall(text)
        if is_stale(name, known, paths, all_members)
    ]
    assert found == []
