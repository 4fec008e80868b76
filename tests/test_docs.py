"""Words are tested: every code block of the README and of docs/ runs, every command that they name exists."""

from __future__ import annotations

import ast
import asyncio
import html
import inspect
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import pytest
from cyclopts import App
from prefect import Flow

from rh_prefect import errors
from rh_prefect.catalog import Param
from rh_prefect.cli import app
from rh_prefect.emulator import Emulator, faults
from rh_prefect.emulator.routes import control
from rh_prefect.pipelines.edits import EDITS
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.settings import Settings
from tests.support import doc_tables, guarantees, pipeline_pages
from tests.support.doc_pages import PAGES, ROOT, blocks
from tests.support.each_case import each_case
from tests.support.samples import media as samples


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in blocks(page, "sh"):
            yield from ((page.name, line.partition("#")[0].strip(" &")) for line in block.splitlines())


FIRST_PAGES = ("README.md", "getting-started.md", "never-pay-twice.md")
"""Pages that are run in the first stage: each page has runs of flows on Prefect's server."""


@pytest.mark.prefect
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=[] if page.name in FIRST_PAGES else [pytest.mark.long])
        for page in PAGES
        if blocks(page, "python")
    ],
)
def test_the_python_blocks_of_a_page_run(
    page: Path,
    rh: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """The blocks of a page run in order, in one module; its flows are called, see `call`.

    They find a `photo.jpg` where they run, the key of a second account, and a model that the catalogue lacks. A page
    that starts a separate emulator looks into its books itself.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECOND_KEY", rh.keys.add("second").secret)
    samples.jpg(tmp_path / "photo.jpg", size=(640, 480))
    pictures = Param(key="imageUrls", name="image_urls", type="image", multiple=True)
    rh.add_model(
        "luma/uni-9/image-edit", params=[Param(key="prompt", name="prompt", type="string"), pictures], price="0.30"
    )
    used = "\n".join(blocks(page, "python"))
    if "reconcile(" in used:
        request.getfixturevalue("no_earlier_flow_runs")
    _run_blocks(page, used)
    assert "generate(" not in used or "with Emulator(" in used or rh.recorder.paid


def _run_blocks(page: Path, used: str) -> None:
    names: dict[str, Any] = {"__name__": f"docs_{page.stem}"}
    for number, code in enumerate(blocks(page, "python"), 1):
        source = compile(code, f"{page.name}[{number}]", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        known = set(names)
        result = eval(source, names)  # the page's own code
        if inspect.iscoroutine(result):
            asyncio.run(result)
        for name in sorted(set(names) - known):
            if isinstance(names[name], Flow) and names[name].fn.__module__ == names["__name__"]:
                call(names[name], used.partition("if __name__")[0])


def call(flow: Flow[..., Any], page: str) -> None:
    """Calls a flow, unless it cannot be called without arguments or the page calls it by itself."""
    if len(re.findall(rf"\b{flow.fn.__name__}\(", page)) > 1:
        return
    if all(one.default is not one.empty for one in inspect.signature(flow.fn).parameters.values()):
        result = flow()
        if inspect.isawaitable(result):
            asyncio.run(_wait(result))


async def _wait(awaitable: Any) -> Any:
    return await awaitable


def test_a_command_of_the_docs_exists_and_takes_its_arguments() -> None:
    with each_case() as case:
        for page, line in commands():
            if line.startswith("rh-prefect "):
                with case(f"{page}: {line}"):
                    arguments = [one.replace("RUN_ID", "0" * 8) for one in shlex.split(line.rstrip("& "))[1:]]
                    app.parse_args([*arguments], exit_on_error=False, print_error=True)


def test_make_targets_of_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {line.split()[1] for _, line in commands() if line.startswith("make ")}
    assert named
    assert named <= targets


def test_links_of_the_docs_lead_somewhere() -> None:
    for page in PAGES:
        for target, part in re.findall(r"\]\(([^)#:]*)(#[^)]+)?\)", page.read_text(encoding="utf-8")):
            to = page.parent / target if target else page
            assert to.exists(), f"{page.name}: {target}"
            assert not part or part in anchors(to), f"{page.name}: {target}{part}"


def anchors(page: Path) -> set[str]:
    """The links to the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


async def test_the_picture_of_the_readme_shows_the_plan_of_its_pipeline() -> None:
    """`python -m website.terminal_picture` draws it again."""
    plan = await Pipeline.from_text(blocks(PAGES[0], "yaml")[0], name="product.yaml").plan(title="a blue mug")
    plan.records = "~/shop/rh-output"
    drawn = (ROOT / "docs" / "images" / "plan-run-nothing-new.svg").read_text(encoding="utf-8")
    texts = [" ".join(html.unescape(text).split()) for text in re.findall(r"<text[^>]*>([^<]*)<", drawn)]
    assert {" ".join(line.split()) for line in plan.table().splitlines()} <= set(texts)
    assert any(text.startswith("Nothing new") for text in texts)


def test_every_command_is_named_in_the_docs() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for name in _names(app, "rh-prefect"):
        assert name in text, name


def _names(commands: App, name: str) -> Iterator[str]:
    for each in commands:
        if not each.startswith("-"):
            below = list(_names(commands[each], f"{name} {each}"))
            yield from below or [f"{name} {each}"]


def test_every_page_is_in_the_index() -> None:
    linked = {page: page.read_text(encoding="utf-8") for page in (PAGES[0], ROOT / "docs" / "pipelines.md")}
    for page in PAGES[1:]:
        assert any(f"({page.relative_to(index.parent)})" in text for index, text in linked.items()), page.name


def test_every_setting_is_named_with_its_default() -> None:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(RH_\w+)` \|([^|]*)\|", text, re.MULTILINE))
    assert rows.keys() == {f"RH_{name.upper()}" for name in Settings.model_fields}
    for name in ("base_url", "storage_url", "poll_seconds", "submit_timeout"):
        assert rows[f"RH_{name.upper()}"].strip("` ") == f"{Settings.model_fields[name].default}".removesuffix(".0")


def test_every_edit_has_a_row_with_its_parameters() -> None:
    text = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8").partition("| Edit | Parameters")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", text.partition("\n## ")[0], re.MULTILINE))
    told = {name: set(re.findall(r"`(\w+)[*!]*`", params)) for name, params in rows.items()}
    assert told.keys() == EDITS.keys(), "docs/pipelines.md has one row for each edit"
    assert [(name, one.name) for name, edit in EDITS.items() for one in edit.params if one.name not in told[name]] == []


def test_every_route_of_the_emulators_own_is_named() -> None:
    text = (ROOT / "docs" / "emulator.md").read_text(encoding="utf-8")
    for route in control.ROUTES:
        (method,) = (route.methods or set()) - {"HEAD"}
        assert re.search(rf"^\| .*`?{method}\b[^|]* ?{route.path}`", text, re.MULTILINE), f"{method} {route.path}"


def test_every_fault_of_the_emulator_is_named_with_what_it_happens_to() -> None:
    text = (ROOT / "docs" / "emulator.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]*`) \|[^|]*\| ([^|]*) \|$", text.split("| `kind` |", 1)[1], re.MULTILINE)
    told = {kind: to for kinds, to in rows for kind in re.findall(r"`([^`]+)`", kinds)}
    assert told == {kind: _happens_to(kind) for kind in get_args(faults.Kind)}
    named = text.split("\nThe kinds of requests are ", 1)[1].partition("see `Route`")[0]
    assert set(re.findall(r"`([^`]+)`", named)) == set(get_args(faults.Route))


def _happens_to(kind: faults.Kind) -> str:
    possible = []
    for on in get_args(faults.Route):
        with suppress(errors.InputError):
            possible.append(faults.Fault(on, kind=kind, code="1003").on)
    left_out = [on for on in get_args(faults.Route) if on not in (*possible, "webhook", "progress")]
    if len(possible) == 1:
        return f"`{possible[0]}`"
    return f"any request{''.join(f' but `{on}`' for on in left_out)}"


RENDERED = ("dub", "formats", "six-languages")
"""Pages of examples whose inputs are videos, each rendered in seconds of CPU."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name in RENDERED else []) for name in doc_tables.PARTS]
)
def test_what_is_made_from_code_is_in_step(name: str) -> None:
    page, make = doc_tables.PARTS[name]
    found = doc_tables.part(name).search((ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert found is not None
    assert found["body"].strip() == make(), "run `python -m tests.support.doc_tables`"
    if name in pipeline_pages.SHIPPED:
        picture = ROOT / "docs" / "images" / "pipelines" / f"{name}.svg"
        assert picture.read_text(encoding="utf-8") == pipeline_pages.picture(name)


def test_every_error_that_the_page_names_exists() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    section = text.split("## What was paid", 1)[1].split("\n##", 1)[0]
    named = re.findall(
        r"`([A-Z]\w+)`", "\n".join(line.split("|")[1] for line in section.splitlines() if line[:1] == "|")
    )
    assert named
    assert [name for name in named if not hasattr(errors, name)] == []
    jobs = {kind.__name__ for kind in errors.JobError.__subclasses__()}
    assert jobs <= set(named)


def test_every_promise_has_tests_of_which_one_is_in_the_first_stage() -> None:
    with each_case() as case:
        for promise, tests in {**guarantees.MONEY, **guarantees.SECURITY}.items():
            with case(promise):
                stages = {test: guarantees.is_in_first_stage(test) for test in tests}
                assert [test for test, stage in stages.items() if stage is None] == []
                assert any(stages.values()), "each of its tests is `long`"


def test_every_row_about_scopes_and_programs_has_its_tests_in_the_first_stage() -> None:
    page = (ROOT / "docs" / "never-pay-twice.md").read_text(encoding="utf-8")
    rows = [
        re.findall(rf"^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)[0]
        for head in ("scope of a call", "your program")
    ]
    cells = [row[2:].partition(" | ")[0] for row in "".join(rows).splitlines()]
    assert cells == list(guarantees.PROGRAMS)
    with each_case() as case:
        for row, tests in guarantees.PROGRAMS.items():
            with case(row):
                assert [test for test in tests if not guarantees.is_in_first_stage(test)] == []


def test_every_other_rule_about_money_has_its_test_in_the_first_stage() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8").partition("<!-- money:")[0]
    slow = ("test_kills.py", "test_pipeline_kills.py", "test_outages.py", "test_faults.py")
    with each_case() as case:
        for row in re.findall(r"^\|.*`tests/[\w/]+\.py::\w+`.*$", text, re.MULTILINE):
            with case(row):
                tests = re.findall(r"`(tests/[\w/]+\.py::\w+)`", row)
                stages = [guarantees.is_in_first_stage(test) for test in tests]
                assert None not in stages, "a test does not exist"
                assert any(stages) or any(one in test for test in tests for one in slow)
