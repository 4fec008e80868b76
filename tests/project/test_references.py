"""Names of modules, classes and functions that docstrings refer to exist."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("rh_prefect", "tests", "benchmarks", "flows", "blocks")
NAME = re.compile(r"`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?:\(.*?\))?`")
FILES = {file: file.read_text(encoding="utf-8") for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")}
STEPS = {"each"}
"""First words of the addresses of steps in examples."""
PATHS = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py") if ".venv" not in path.parts]


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


MODULES: defaultdict[str, set[str]] = defaultdict(set)
"""What modules of a name define; of a folder also its modules and folders."""
CLASSES: defaultdict[str, set[str]] = defaultdict(set)
"""The members of classes of a name."""
DEFINED: set[str] = set()
"""What the modules of the package define."""
TREES = {file: ast.parse(text) for file, text in FILES.items()}
for file, tree in TREES.items():
    parts = file.relative_to(ROOT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    MODULES[parts[-1]].update(bound(tree.body))
    for folder, inner in pairwise(parts):
        MODULES[folder].add(inner)
    if parts[0] == "rh_prefect":
        DEFINED.update(bound(tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            CLASSES[node.name].update(members(node))
MEMBERS = set().union(*CLASSES.values())


def is_stale(name: str) -> bool:
    """Whether a dotted name refers to something of this project that does not exist."""
    first, *others = name.split(".")
    last, owner = others[-1], (first, *others)[-2]
    if last == "py":
        return not any(f"/{path}".endswith(f"/{owner}.py") for path in PATHS)
    if owner in MODULES and (last in MODULES[owner] or "__getattr__" in MODULES[owner]):
        return False
    if first in sys.stdlib_module_names or (first not in FOLDERS and find_spec(first) is not None):
        return False
    if first in STEPS:
        return False
    if last[0].isupper():
        return last not in CLASSES[owner]
    if first in MODULES or first in CLASSES:
        return others[0] not in MODULES[first] | MEMBERS
    return last in DEFINED and last not in MEMBERS


def test_names_in_docstrings_exist() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{text.lineno}: {name}"
        for file, tree in TREES.items()
        for text in docstrings(tree)
        for name in NAME.findall(str(text.value))
        if is_stale(name)
    ]
    assert found == []
