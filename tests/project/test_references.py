"""Names of modules, classes and functions that docstrings refer to exist."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("rh_prefect", "tests", "benchmarks", "flows", "blocks")
NAME = re.compile(r"`(?:rh_prefect\.)?(?:[a-z_]\w*\.)*?([A-Za-z_]\w*)\.([A-Za-z_]\w*)(?:\(.*?\))?`")
OF_OTHERS = ("help_print", "map", "with_options", "py")
"""Methods of Cyclopts and Prefect, and the extension of files."""


@pytest.mark.long
# All is read in the test: the trees of all files, made at the import, cost every process that collects tests 6 s.
def test_names_in_docstrings_exist() -> None:
    """The last name of `module.name` stands in a module of that name, and that of `Class.name` beside that class."""
    sources, texts = defaultdict[str, list[str]](list), list[tuple[str, str]]()
    for file in (file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))):
        source = file.read_text(encoding="utf-8")
        sources[file.stem].append(source)
        for folder, inner in pairwise(file.relative_to(ROOT).with_suffix("").parts):
            sources[folder].append(inner)
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.ClassDef(name=name):
                    sources[name].append(source)
                case ast.Expr(value=ast.Constant(value=str(text))):
                    texts.append((f"{file.relative_to(ROOT)}:{node.lineno}", text))
    found = [
        f"{place}: {owner}.{name}"
        for place, text in texts
        for owner, name in NAME.findall(text)
        if owner in sources
        and name not in OF_OTHERS
        and not any(re.search(rf"\b{name}\b", one) for one in sources[owner])
    ]
    assert found == []
