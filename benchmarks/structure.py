"""The size of the package and the modules that one job passes.

    python -m benchmarks.structure

Counts modules, lines and functions from the source. Then two jobs run on an emulator under `sys.setprofile`, in a
separate process. The second one finds every import and cache warm and is counted: the modules of this package in
which it calls a function until its POST leaves, and until its file is published. Each job runs outside of flows and
inside of one. `--names` prints the modules.
"""

from __future__ import annotations

import ast
import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
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
OUTSIDE = ("emulator", "pipelines")
"""Packages that have separate figures and do not count as the product."""

LIMITS = {"modules": 130, "lines": 24_000, "median": 10, "p90": 30, "post": 22, "life": 35}
"""Aims, of which the report says whether they are reached."""


@dataclass(frozen=True, slots=True)
class Source:
    """One module's size.

    Attributes:
        package: The first two names of its path below the root.
        lines: All lines, comments and docstrings included.
        functions: The length of each function.
    """

    package: str
    lines: int
    functions: tuple[int, ...]


def sources() -> Iterator[Source]:
    """Reads each module of the package; generated stubs do not count."""
    for path in sorted(ROOT.rglob("*.py")):
        text = path.read_text()
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        lengths = [
            node.end_lineno - node.lineno + 1
            for node in ast.walk(ast.parse(text))
            if isinstance(node, kinds) and node.end_lineno
        ]
        folders = path.relative_to(ROOT).parts[:-1]
        yield Source("/".join(folders[:2]) or ".", text.count("\n"), tuple(lengths))


def cycle() -> list[str]:
    """Finds modules that import each other in a circle, if there are any."""
    graph = grimp.build_graph("rh_prefect", exclude_type_checking_imports=True)
    try:
        TopologicalSorter({one: graph.find_modules_directly_imported_by(one) for one in graph.modules}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@dataclass
class Trace:
    """The modules and functions of the package in which calls are made.

    Attributes:
        modules: Each module with the number of calls, in order of the first.
        functions: Each function once.
        at_post: How many modules there were when the submission left.
    """

    modules: dict[str, int] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)
    at_post: list[str] = field(default_factory=list)

    def profile(self, frame: FrameType, event: str, _: object) -> None:
        """Counts one call; `sys.setprofile` calls it."""
        if event != "call":
            return
        name = frame.f_code.co_filename
        if name.endswith("httpcore/_async/http11.py") and frame.f_code.co_name == "_send_request_headers":
            self._sent(frame)
        elif name.startswith(str(ROOT)) and not name.startswith(str(ROOT / "emulator")):
            module = name.removeprefix(f"{ROOT}/")
            self.modules[module] = self.modules.get(module, 0) + 1
            self.functions.add(f"{module}:{frame.f_code.co_qualname}")

    def _sent(self, frame: FrameType) -> None:
        request = frame.f_locals["request"]
        target = request.url.target.decode()
        if request.method == b"POST" and target.startswith("/openapi") and not target.endswith(("query", "status")):
            self.at_post = self.at_post or list(self.modules)


TRACE = Trace()


async def _job(seed: int) -> None:
    from rh_prefect import generate, models

    await generate(models.ZImageTurbo(prompt=f"a paper boat, {seed}"))


@flow
async def _in_flow(seed: int) -> None:
    await _job(seed)


def trace() -> None:
    """Runs two jobs of each kind and prints what the second one passed; a separate process."""
    threading.setprofile(TRACE.profile)
    found: dict[str, Any] = {}
    for name, run in (("outside of flows", _job), ("inside of a flow", _in_flow)):
        asyncio.run(run(1))
        TRACE.__init__()  # type: ignore[misc]  # the loop thread holds this very object
        sys.setprofile(TRACE.profile)
        asyncio.run(run(2))
        sys.setprofile(None)
        found[name] = {"post": TRACE.at_post, "life": list(TRACE.modules), "functions": len(TRACE.functions)}
    print(json.dumps(found))


def passed() -> dict[str, Any]:
    """Traces jobs on an emulator and a Prefect server; the modules that they passed."""
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
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Prints sizes, then paths."""
    found = list(sources())
    print(f"{'package':24}{'modules':>8}{'lines':>8}")
    for package in sorted({one.package for one in found}):
        here = [one for one in found if one.package == package]
        print(f"{package:24}{len(here):8}{sum(one.lines for one in here):8}")
    product = [one for one in found if not one.package.startswith(OUTSIDE)]
    lengths = [length for one in product for length in one.functions]
    figures = [
        Figure("modules of the product", len(product), LIMITS["modules"] + 1, ""),
        Figure("lines of the product", sum(one.lines for one in product), LIMITS["lines"] + 1, ""),
        Figure("lines of a function, median", median(lengths), LIMITS["median"], ""),
        Figure("lines of a function, 90 %", quantiles(lengths, n=10)[-1], LIMITS["p90"], ""),
        Figure("import cycles", float(bool(cycle())), 1, "", " -> ".join(cycle())),
    ]
    for name, path in passed().items():
        for what, until in (("post", "until the POST"), ("life", "of a job")):
            names = ", ".join(path[what]) if "--names" in sys.argv else ""
            figures.append(Figure(f"modules {until}, {name}", len(path[what]), LIMITS[what] + 1, "", names))
    show(f"without {' and '.join(OUTSIDE)}", figures)


if __name__ == "__main__":
    main()
