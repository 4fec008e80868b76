"""The size of the package, and the own frames on the stack when a job's POST leaves.

    python -m benchmarks.structure

Counts the whole product: all modules but the emulator's; stubs and tests have figures of their own. Then one job
outside of flows and one inside of a flow run on an emulator, in a separate process. When the POST leaves, the frames of
this package are counted, in all tasks that wait for it, on the loop thread and in the caller's thread. `--names` prints
them.
"""

from __future__ import annotations

import ast
import asyncio
import io
import json
import re
import subprocess
import sys
import threading
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import grimp
from prefect import flow

import rh_prefect
from benchmarks.report import Figure, show
from rh_prefect.emulator import Emulator
from tests.support.servers.prefect_server import PrefectServer

ROOT = Path(rh_prefect.__file__).parent
PAYS = ("works",)
"""The packages that pay."""

_PRIVATE = re.compile(r"prefect(?:\.\w+)*\._\w+|\b(?!self|cls)\w+\._[a-z]\w*|\.co_name\b|\.__class__ = ")
"""Private names, functions that are recognised by their names, and swapped classes."""


@dataclass(frozen=True, slots=True)
class Source:
    """One module's size.

    Attributes:
        package: The first name of its path below the root; `.` for the root.
        lines: All lines.
        code: Lines with code, without docstrings, comments and blank lines.
        imports: Those of them that import.
        docstrings: Lines of docstrings.
        comments: Lines with nothing but a comment.
        functions: The length of each function.
        private: Uses of private parts, if the module imports Prefect.
    """

    package: str
    lines: int
    code: int
    imports: int
    docstrings: int
    comments: int
    functions: tuple[int, ...]
    private: int


def sources() -> Iterator[Source]:
    """Reads each module of the package; generated stubs do not count."""
    for path in sorted(ROOT.rglob("*.py")):
        folders = path.relative_to(ROOT).parts[:-1]
        yield source(path.read_text(), package=folders[0] if folders else ".")


def source(text: str, *, package: str) -> Source:
    """Counts the lines of a module by kind.

    Args:
        text: The module.
        package: Its package.
    """
    tree = ast.parse(text)
    docstrings: set[int] = set()
    imports: set[int] = set()
    lengths: list[int] = []
    for node in ast.walk(tree):
        lines = set(range(node.lineno, (node.end_lineno or 0) + 1)) if isinstance(node, ast.stmt) else set()
        match node:
            case ast.Expr(value=ast.Constant(value=str())):  # those of attributes, too
                docstrings |= lines
            case ast.Import() | ast.ImportFrom():
                imports |= lines
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                lengths.append(len(lines))
    code, comments = set[int](), set[int]()
    ignored = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in ignored:
            code.update(range(token.start[0], token.end[0] + 1))
    code -= docstrings
    return Source(
        package,
        text.count("\n"),
        len(code),
        len(imports & code),
        len(docstrings),
        len(comments - code - docstrings),
        tuple(lengths),
        len(_PRIVATE.findall(text)) if re.search(r"^(?:from|import) prefect\b", text, re.MULTILINE) else 0,
    )


def cycle() -> list[str]:
    """Finds modules that import each other in a circle, if there are any."""
    graph = grimp.build_graph("rh_prefect", exclude_type_checking_imports=True)
    try:
        TopologicalSorter({one: graph.find_modules_directly_imported_by(one) for one in graph.modules}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


BESIDE = {"_watch", "_write", "SharedTasks.run"}
"""The tasks that run beside a job and do not wait for its POST: the watch for a cancellation, and the signs of life."""

POSTED: list[list[str]] = []
CALLER: list[asyncio.AbstractEventLoop] = []


def look(frame: FrameType, event: str, _: object) -> None:
    """Notes the own frames when a submission leaves; `sys.setprofile` calls it."""
    code = frame.f_code
    if event != "call" or code.co_name != "_send_request_headers" or not code.co_filename.endswith("http11.py"):
        return
    request = frame.f_locals["request"]
    target = request.url.target.decode()
    if request.method != b"POST" or not target.startswith("/openapi") or target.endswith(("query", "status")):
        return
    tasks = {*asyncio.all_tasks(), *(task for loop in CALLER for task in asyncio.all_tasks(loop))}
    others: list[Any] = [task.get_coro() for task in tasks if task is not asyncio.current_task()]
    waiting = [name for one in others if one.__qualname__ not in BESIDE for name in frames_of(one)]
    own = []
    at: FrameType | None = frame
    while at is not None:
        own.append(own_name(at))
        at = at.f_back
    POSTED.append([*filter(None, own), *waiting])


def frames_of(awaited: Any) -> Iterator[str]:
    """Returns the own frames of a coroutine that waits, the outermost first."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None and own_name(frame):
            yield own_name(frame)
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)


def own_name(frame: FrameType) -> str:
    """Returns module and function of a frame of this package; empty for others."""
    name = frame.f_code.co_filename
    is_own = name.startswith(str(ROOT)) and not name.startswith(str(ROOT / "emulator"))
    return f"{name.removeprefix(f'{ROOT}/')}:{frame.f_code.co_qualname}" if is_own else ""


async def _job(seed: int) -> None:
    from rh_prefect import generate, models

    CALLER[:] = [asyncio.get_running_loop()]
    await generate(models.ZImageTurbo(prompt=f"a paper boat, {seed}"))


@flow
async def _in_flow(seed: int) -> None:
    await _job(seed)


def trace() -> None:
    """Runs two jobs of each kind and prints the frames of the second one; a separate process."""
    threading.setprofile(look)
    found: dict[str, list[str]] = {}
    for name, run in (("outside of flows", _job), ("inside of a flow", _in_flow)):
        for seed in (1, 2):
            asyncio.run(run(seed))
        found[name] = POSTED[-1]
    print(json.dumps(found))


def posted() -> dict[str, list[str]]:
    """Runs jobs on an emulator and a Prefect server; returns the own frames at their POST."""
    with TemporaryDirectory() as folder, PrefectServer(Path(folder) / "prefect") as server, Emulator() as rh:
        env = {
            **server.env,
            "RH_BASE_URL": rh.url,
            "RH_API_KEY": rh.key,
            "RH_STORAGE_URL": f"{folder}/out",
            "RH_STATE_DIR": f"{folder}/state",
        }
        run = [sys.executable, "-c", "from benchmarks.structure import trace; trace()"]
        done = subprocess.run(run, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    result: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Prints sizes, then frames."""
    found = list(sources())
    print(f"{'package':16}{'modules':>8}{'lines':>8}{'code':>8}{'imports':>8}")
    for package in sorted({one.package for one in found}):
        here = [one for one in found if one.package == package]
        code, imports = sum(one.code for one in here), sum(one.imports for one in here)
        print(f"{package:16}{len(here):8}{sum(one.lines for one in here):8}{code:8}{imports:8}")
    product = [one for one in found if one.package != "emulator"]
    pays = [one for one in product if one.package in PAYS]
    lengths = [length for one in product for length in one.functions]
    lines, code = sum(one.lines for one in product), sum(one.code for one in product)
    imports = sum(one.imports for one in product)
    stubs = sum(path.stat().st_size for path in ROOT.rglob("*.pyi"))
    tests = sum(path.read_text().count("\n") for path in (ROOT.parent / "tests").rglob("*.py"))
    figures = [
        Figure("code without imports", code - imports, 25_001, ""),
        Figure("lines", lines, 42_001, ""),
        Figure("modules that pay", len(pays), 27, ""),
        Figure("code that pays", sum(one.code for one in pays), 4_501, ""),
        Figure("docstrings, % of lines", 100 * sum(one.docstrings for one in product) / lines, 12, ""),
        Figure("comments, % of lines", 100 * sum(one.comments for one in product) / lines, 4, ""),
        Figure("imports, % of code", 100 * imports / code, 7, ""),
        Figure("private parts of Prefect", sum(one.private for one in product), 4, ""),
        Figure("stubs, MB", stubs / 1e6, 0.6, ""),
        Figure("lines of tests and their support", tests, 45_001, ""),
        Figure("lines of a function, median", median(lengths), 10, ""),
        Figure("lines of a function, 90 %", quantiles(lengths, n=10)[-1], 30, ""),
        Figure("import cycles", float(bool(cycle())), 1, "", " -> ".join(cycle())),
    ]
    for name, frames in posted().items():
        names = ", ".join(frames) if "--names" in sys.argv else ""
        figures.append(Figure(f"own frames at the POST, {name}", len(frames), 13, "", names))
    show("the whole product", figures)


if __name__ == "__main__":
    main()
