"""What `mypy --strict` and `pyright` say of a user's programs: of the samples in the README and docs/, and of mistakes.

Each of the two runs once over all of them, for half a minute.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.doc_pages import BLOCK, PAGES, ROOT, blocks

pytestmark = pytest.mark.long

SAMPLES = [page for page in PAGES if blocks(page, "python")]
WRONG_ON_PURPOSE = ("models", "Literal['7']")
"""A page that shows what a type checker finds, and how the checker names it."""

MYPY = f"""\
[mypy]
strict = true
cache_dir = {ROOT / ".mypy_cache" / "samples"}
[mypy-rh_prefect.*]
follow_imports = silent
"""
"""As where the package is installed: without its plugins, and its own modules are not reported."""

ENDPOINTS = """\
from rh_prefect.tasks import model_tasks, generate_many
async def use() -> None:
    photo = await model_tasks.z_image_turbo(prompt='a', aspect_ratio='16:9', take=2, same=True, attempts=1)
    kling = model_tasks.kling_v2_6_pro_image_to_video
    await kling(image_url=photo, prompt='a', duration='7')
    kling.submit(image_url=photo, prompt='a', duration='7')
    await kling(prompt='a')
    print(model_tasks.kling_v9)
    reveal_type(kling.submit(image_url=photo.first_output, prompt='a').result())
    reveal_type(await kling.with_options(retries=1)(image_url='a.png', prompt='a', reuse='always'))
    kling.submit(image_url=photo, prompt='a', wait_for=[photo])
    await model_tasks.z_image_turbo(prompt='a', promt='b')
    await generate_many([], lable='b')
"""
"""Lines 5 to 8, 12 and 13 are wrong, each in one way."""

INPUTS = """\
from rh_prefect import models
clip = models.KlingV26ProImageToVideo(image_url='a.png', prompt='x', duration='10')
models.KlingV26ProImageToVideo(image_url='a.png', prompt='x', duration='7')
models.ZImageTurbo()
models.ZImageTurbo(prompt='x', promt='y')
print(models.Nothing)
models.KlingV26ProImageToVideo(image_url=5, prompt='x')
clip.duration = '5'
reveal_type(clip.duration)
reveal_type(clip.image_url)
"""
"""Lines 3 to 8 are wrong, each in one way."""


@dataclass(frozen=True)
class Diagnostic:
    """What a type checker says of a line; `module` is the file's name without its extension."""

    module: str
    line: int
    severity: str
    message: str


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
    (made / "use_endpoints.py").write_text(ENDPOINTS)
    (made / "use_inputs.py").write_text(INPUTS)
    for page in SAMPLES:
        (made / f"{page.stem.replace('-', '_')}.py").write_text(module(page), encoding="utf-8")
    return made


@pytest.fixture(scope="module", params=["mypy", "pyright"])
def diagnostics(folder: Path, request: pytest.FixtureRequest) -> list[Diagnostic]:
    return {"mypy": mypy, "pyright": pyright}[request.param](folder)


def mypy(folder: Path) -> list[Diagnostic]:
    files = [file.name for file in sorted(folder.glob("*.py"))]
    command = [sys.executable, "-m", "mypy", "--output", "json", *files]
    env = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 1, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    return [Diagnostic(Path(one["file"]).stem, one["line"], one["severity"], one["message"]) for one in said]


def pyright(folder: Path) -> list[Diagnostic]:
    command = [str(Path(sys.executable).with_name("pyright")), "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)["generalDiagnostics"]
    return [
        Diagnostic(Path(one["file"]).stem, one["range"]["start"]["line"] + 1, one["severity"], one["message"])
        for one in said
    ]


def of(diagnostics: list[Diagnostic], module: str) -> tuple[list[Diagnostic], list[str]]:
    """The errors of a module, and what its `reveal_type` says."""
    mine = [one for one in diagnostics if one.module == module]
    errors = [one for one in mine if one.severity == "error"]
    return errors, [
        one.message for one in mine if one not in errors and one.message.startswith(("Revealed", "Type of"))
    ]


def test_the_samples_are_without_an_error(diagnostics: list[Diagnostic]) -> None:
    name, words = WRONG_ON_PURPOSE
    found = [one for one in diagnostics if one.severity == "error" and not one.module.startswith("use_")]
    wanted = [one for one in found if one.module == name and words in one.message.replace('"', "'")]
    assert len(wanted) == 1, "the page on models shows a mistake that a type checker finds"
    assert [one for one in found if one not in wanted] == []


def test_a_mistake_in_a_call_of_an_endpoint_is_one_error(diagnostics: list[Diagnostic]) -> None:
    errors, revealed = of(diagnostics, "use_endpoints")
    assert [one.line for one in errors] == [5, 6, 7, 8, 12, 13], errors
    assert "promt" in errors[-2].message and "lable" in errors[-1].message
    assert len(revealed) == 2
    assert all(re.search(r'is "(rh_prefect\.works\.result\.)?Result"$', message) for message in revealed)


def test_a_mistake_in_an_input_is_one_error(diagnostics: list[Diagnostic]) -> None:
    errors, revealed = of(diagnostics, "use_inputs")
    assert [one.line for one in errors] == [3, 4, 5, 6, 7, 8], errors
    assert "Literal['5', '10']" in errors[0].message.replace('"', "'")
    duration, image = revealed
    assert "Literal['5'" in duration.replace('"', "'")
    assert re.search(r'is "(rh_prefect\.media\.media\.)?Media \| (builtins\.)?str"$', image)
