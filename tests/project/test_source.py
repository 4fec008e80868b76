"""Rules for the text of the source: private names of Prefect, plain English, names in docstrings, and mutants."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import prefect
import pytest

from benchmarks.mutants import mutants_of
from benchmarks.mutation import MODULES, TESTS

ROOT = Path(__file__).parents[2]
PRIVATE = re.compile(
    r"(?<!self)\._token\b|prefect\.(flow_engine|task_engine|events\.worker|logging\.handlers|_internal)\b|"
    r"from prefect[.\w]* import .*FlowDecorator|empirical_policy|AwaitingRetry|\bgc\.get_objects\("
)


def test_only_one_module_uses_private_names() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "rh_prefect").rglob("*.py")
        if PRIVATE.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"rh_prefect/prefect_internals.py"}


def test_the_installed_version_is_one_that_is_allowed() -> None:
    assert prefect.__version__.startswith("3.9.")


AVOIDED = re.compile(
    r"\b(nobody|whoever|whatever|everybody|anew|for ever|mend(s|ed)?|strangers?|the very|br(ings?|ought) home"
    r"|also (if|when|where|though))\b|, too[.,;:]",
    re.IGNORECASE,
)
FILES = [
    *(file for folder in ("rh_prefect", "flows", "blocks") for file in sorted((ROOT / folder).rglob("*.py"))),
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile")),
]


def test_no_word_hides_the_subject() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in FILES
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if AVOIDED.search(line)
    ]
    assert found == [], "name the subject: the process, the caller; say `even if`; put `also` before the verb"


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


def test_its_tests_exist() -> None:
    assert [path for path in TESTS if not (ROOT / path).exists()] == []


def test_every_mutant_has_other_source() -> None:
    for module in MODULES:
        mutants = mutants_of(module)
        assert mutants, module
        assert all(one.source(ROOT) != (ROOT / one.path).read_bytes() for one in mutants)


def test_what_is_recorded_before_an_effect_is_tried_after_it() -> None:
    changed = [one.new for one in mutants_of("works/lifecycle")]
    assert any("note_claim(n)" in new and new.find(".claim(n)") < new.find("note_claim(n)") for new in changed)
