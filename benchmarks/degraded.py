"""Scenes in which the account is shared or changes, or answers are broken: everything is done all the same."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from benchmarks.contenders import ENDPOINT, SLOTS
from benchmarks.emulator_process import EmulatorProcess
from benchmarks.harness import Bench, Run, finish
from benchmarks.processes import together
from benchmarks.report import Figure, show

REFUSALS = 0.2
FOREIGN_SECONDS = 30.0
PADDED = 200_000
"""Bytes of a result, so that a download can be cut in the middle."""


def shared(bench: Bench) -> None:
    """The limit goes from 50 to 20 and back, another program holds 10 slots, two processes work on one key."""
    random.seed(7)
    seconds = [random.choice([6.0, 12.0, 20.0]) for _ in range(bench.jobs)]
    with bench.emulator(limit=SLOTS) as emulator:
        timers = [_later(15 / bench.factor, emulator.limit, 20), _later(45 / bench.factor, emulator.limit, SLOTS)]
        changing = Run(
            "ours", seconds, finish(bench.start("ours", seconds, emulator)), emulator.recorded(), bench.factor
        )
        for timer in timers:
            timer.cancel()
    with bench.emulator(limit=SLOTS) as emulator, _foreign(emulator, 10, bench.factor):
        measured = finish(bench.start("ours", seconds, emulator))
        foreign = Run("ours", seconds, measured, _without_foreign(emulator), bench.factor)
    figures = [changing.operations_figure("50, 20, 50 slots: journal and store, operations a job")]
    two = together(bench, seconds, 2)
    runs = {"50, 20, 50 slots": changing, "10 held by others": foreign, "two processes": two}
    show(
        "Refusals a job, everything done",
        [run.figure(what, run.refusals, REFUSALS) for what, run in runs.items()] + figures,
    )


def broken(bench: Bench) -> None:
    """1 % and 5 % of polls broken, 5 % of downloads cut."""
    seconds = [6.0, 20.0] * (bench.jobs // 2)
    figures = []
    for percent in (1, 5):
        kinds = [{"kind": "502"}, {"kind": "html"}, {"kind": "code", "code": "1003"}]
        # Different periods: of two faults that are due at the same poll, only the first applies.
        faults = [{"on": "query", "every": 300 // percent + n, **kind} for n, kind in enumerate(kinds, -1)]
        faults.append({"on": "download", "every": 20, "kind": "cut"})
        with bench.emulator(limit=SLOTS, least_bytes=PADDED, faults=faults) as emulator:
            measured = finish(bench.start("ours", seconds, emulator, out=f"broken-{percent}"))
            run = Run("ours", seconds, measured, emulator.recorded(), bench.factor)
        lost = len(seconds) - min(measured["done"], _whole(bench.folder / f"broken-{percent}"))
        figures += [
            Figure(f"{percent} %: jobs lost or files truncated", lost, 1, "", run.note),
            Figure(f"{percent} %: cut downloads started again", _started_again(run), 1, "", _cuts(run)),
        ]
    show("Broken polls and downloads", figures)


def _later(seconds: float, call: Callable[[int], None], slots: int) -> threading.Timer:
    timer = threading.Timer(seconds, call, (slots,))
    timer.start()
    return timer


@contextmanager
def _foreign(emulator: EmulatorProcess, slots: int, factor: float) -> Iterator[None]:
    """Another program on the same key, which keeps so many tasks running."""
    over = threading.Event()
    headers = {"Authorization": f"Bearer {emulator.key}"}

    def keep_one() -> None:
        with httpx.Client(base_url=emulator.url, headers=headers, timeout=60) as client:
            while not over.is_set():
                body = {"prompt": f"an unrelated boat, {FOREIGN_SECONDS:g} s", "aspectRatio": "9:16"}
                accepted = client.post(f"/openapi/v2/{ENDPOINT}", json=body).json().get("taskId")
                over.wait(FOREIGN_SECONDS / factor + 0.5 if accepted else 1.0)

    threads = [threading.Thread(target=keep_one, daemon=True) for _ in range(slots)]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _without_foreign(emulator: EmulatorProcess) -> dict[str, Any]:
    recorded = emulator.recorded()
    own = [one for one in recorded["submissions"] if "unrelated" not in one["payload"].get("prompt", "")]
    submits, others = list[Any](), list[Any]()
    for one in recorded["requests"]:
        (submits if one["path"].endswith(ENDPOINT) else others).append(one)
    # A request does not say whose it is; each submission is one request.
    return recorded | {"submissions": own, "requests": [*others, *submits[: len(own)]]}


def _whole(folder: Path) -> int:
    """Counts the pictures that are whole; Pillow reads them to their end."""
    whole = 0
    for path in folder.rglob("*"):
        with suppress(OSError), Image.open(path) as picture:
            picture.load()
            whole += path.stat().st_size >= PADDED
    return whole


def _started_again(run: Run) -> int:
    """Counts the downloads that were cut, and of which more than the missing part was asked for again."""
    whole = Counter(one["task_id"] for one in run.recorded["downloads"] if one["status"] == httpx.codes.OK)
    return sum(count - 1 for count in whole.values())


def _cuts(run: Run) -> str:
    resumed = sum(one["status"] == httpx.codes.PARTIAL_CONTENT for one in run.recorded["downloads"])
    twice = sum(one["sent"] for one in run.recorded["downloads"]) / (PADDED * len(run.seconds)) - 1
    return f"{resumed} cut in the middle and resumed; {twice:.1%} of all bytes sent twice, lost on their way at the cut"
