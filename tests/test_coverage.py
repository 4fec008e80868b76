"""`docs/coverage.md` is true: whatever it names exists, and nothing that there is is missing in it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prefect import Task
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute

import rh_prefect.tasks
from rh_prefect import catalog
from rh_prefect.client import Client, progress
from rh_prefect.emulator.asgi_app import api_app
from rh_prefect.emulator.file_host import file_app
from rh_prefect.tasks import model_tasks, platform_calls
from tests.support.each_case import each_case

if TYPE_CHECKING:
    from rh_prefect.emulator.state import State

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
CODE = re.compile(r"`([^`]+)`")

MENU = """Log of Update; Instructions for Use; About nodeInfoList; About Enterprise ComfyUI API;
Native ComfyUI API Integration Guide; API Error Code Reference; About Quick Create Invocation; Quick Create: parameter
data; Quick Create: initiate; Integration Example: AI app, complete; Integration Example: AI app, advanced;
Integration Example: task progress; Integration Example: workflow, complete; Check Task Status; Check Task Output;
Webhook detail; Resend webhook; V2 query; Start ComfyUI Task 1 (basic); Start ComfyUI Task 2 (advanced);
Get Workflow JSON; Cancel; AI App start; AI App call examples; Upload (new); Upload Resource (legacy); Upload Lora;
Get Account Information; Schemas"""
"""The entries of RunningHub's documentation."""

DOCUMENTED_MODELS = 221


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


ENDPOINTS = rows("Endpoints")
PAGES = rows("Documentation pages without an endpoint")
OPEN = rows("Unpublished behaviour")


def named(table: list[list[str]], column: int) -> list[str]:
    return [name for row in table for name in CODE.findall(row[column])]


def methods() -> Iterator[str]:
    """Every public coroutine of the client and of what hangs on it, as the page names it."""

    def walk(thing: object, path: str) -> Iterator[str]:
        for name, value in inspect.getmembers(thing):
            if name.startswith("_") or name == "aclose":
                continue
            if inspect.iscoroutinefunction(value):
                yield f"{path}.{name}"
            elif type(value).__module__.startswith("rh_prefect.client") and not inspect.isroutine(value):
                yield from walk(value, f"{path}.{name}")

    yield from walk(Client("0" * 32), "client")


def routes() -> Iterator[str]:
    """Every route of the emulator that stands for one of RunningHub's."""
    nothing = cast("State", None)
    for app in (api_app(nothing), file_app(nothing)):
        assert isinstance(app, Starlette)
        for route in app.routes:
            if isinstance(route, Route) and not route.path.startswith("/_emulator"):
                yield from (f"{method} {_plain(route.path)}" for method in (route.methods or ()) if method != "HEAD")
            elif isinstance(route, WebSocketRoute):
                yield f"WS {_plain(route.path)}"


def _plain(path: str) -> str:
    # The larger machine has the same routes as the smaller one.
    return path.replace(":path}", "}").replace("/proxy-plus/", "/proxy/")


def test_every_entry_of_the_documentation_has_a_row() -> None:
    there = [row[0] for row in (*ENDPOINTS, *PAGES)]
    for entry in (" ".join(each.split()) for each in MENU.split(";")):
        assert there.count(entry) == 1, entry


def test_every_model_of_the_documentation_has_a_task() -> None:
    found = [model for model in catalog.models() if model.in_docs]
    assert len(found) >= DOCUMENTED_MODELS
    assert all(isinstance(getattr(model_tasks, model.snake_name), Task) for model in found[:3])


def test_client_methods_are_named_and_none_is_left_out() -> None:
    here = set(named(ENDPOINTS, 1))
    assert hasattr(progress, "watch_progress")
    # The larger machine has the same methods as the smaller one.
    there = {method for method in methods() if not method.startswith("client.comfy_plus.")}
    assert there | {"client.progress.watch_progress", "client.comfy_plus.submit"} == here


def test_tasks_are_named_and_none_is_left_out() -> None:
    here = set(named(ENDPOINTS, 2))
    assert {name for name, value in vars(platform_calls).items() if isinstance(value, Task)} <= here
    for name in here:
        found = (
            model_tasks
            if name.startswith("model_tasks.")
            else platform_calls
            if hasattr(platform_calls, name)
            else rh_prefect.tasks
        )
        assert isinstance(getattr(found, name.removeprefix("model_tasks.")), Task), name


def test_routes_are_named_and_none_is_left_out() -> None:
    assert set(named(ENDPOINTS, 3)) == set(routes())


def test_every_test_exists() -> None:
    with each_case() as case:
        for test in sorted({*named(ENDPOINTS, 4), *named(PAGES, 2)}):
            with case(test):
                path, _, name = test.partition("::")
                assert re.search(
                    rf"^(async )?def {name}\(", (ROOT / "tests" / path).read_text(encoding="utf-8"), re.MULTILINE
                )


def test_every_row_names_a_test_or_a_place_in_the_code() -> None:
    assert [row[0] for row in ENDPOINTS if not CODE.search(row[4])] == []
    assert [row[0] for row in (*PAGES, *OPEN) if not CODE.search(row[2])] == []


def test_every_place_in_the_code_exists() -> None:
    with each_case() as case:
        for place in sorted({*named(OPEN, 2), *named(PAGES, 1)}):
            with case(place):
                resolve(place)


def resolve(place: str) -> object:
    """Finds `module.name` below the package; a key in brackets is looked up, a class's annotation counts as there."""
    dotted, _, key = place.removesuffix('"]').partition('["')
    found: Any = import_module("rh_prefect")
    path = "rh_prefect"
    for name in dotted.split("."):
        path = f"{path}.{name}"
        try:
            found = getattr(found, name)
        except AttributeError:
            found = import_module(path)
    return found[key] if key else found
