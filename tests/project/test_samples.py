"""The Python samples of the README and of docs/ pass `mypy --strict` and `pyright`, as they would for a user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.test_docs import BLOCK, PAGES, ROOT, blocks

SAMPLES = [page for page in PAGES if blocks(page, "python")]
WRONG_ON_PURPOSE = ("models.md", "Literal['7']")
"""A page that shows what a type checker finds, and how the checker names it."""

MYPY = f"""\
[mypy]
strict = true
cache_dir = {ROOT / ".mypy_cache" / "samples"}
[mypy-rh_prefect.*]
follow_imports = silent
"""
"""As where the package is installed: without its plugins, and its own modules are not reported."""


def module(page: Path) -> str:
    """The samples of a page as one module, in which each line has its number on the page.

    They are the body of an async function, since the page's own top level may await.
    """
    text = page.read_text(encoding="utf-8")
    lines = [""] * (text.count("\n") + 1)
    for match in BLOCK.finditer(text):
        if match[1] == "python":
            first, code = text.count("\n", 0, match.start(2)), match[2].splitlines()
            lines[first : first + len(code)] = code
    return "\n".join(["async def page() -> None:", textwrap.indent("\n".join(lines[1:]), "    ")])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("samples")
    (made / "mypy.ini").write_text(MYPY)
    settings = {"extraPaths": [str(ROOT)], "include": ["*.py"], "typeCheckingMode": "standard"}
    (made / "pyrightconfig.json").write_text(json.dumps(settings))
    for page in SAMPLES:
        (made / f"{page.stem.replace('-', '_')}.py").write_text(module(page), encoding="utf-8")
    return made


def unexpected(found: list[str]) -> list[str]:
    page, words = WRONG_ON_PURPOSE
    wanted = [one for one in found if one.startswith(page.removesuffix(".md")) and words in one.replace('"', "'")]
    assert len(wanted) == 1, "the page on models shows a mistake that a type checker finds"
    return [one for one in found if one not in wanted]


def test_the_samples_pass_mypy_strict(folder: Path) -> None:
    """C2: a future of `generate.submit` was one of a coroutine, and the README's own sample had errors."""
    files = [str(file) for file in sorted(folder.glob("*.py"))]
    env = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *files], cwd=folder, capture_output=True, text=True, env=env, check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert "\n".join(unexpected([line for line in lines if ": error:" in line])) == ""


def test_the_samples_pass_pyright(folder: Path) -> None:
    command = [str(Path(sys.executable).with_name("pyright")), "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = [
        f"{Path(one['file']).name}:{one['range']['start']['line'] + 1}: {one['message']}"
        for one in found
        if one["severity"] == "error"
    ]
    assert "\n".join(unexpected(errors)) == ""
