"""Each fault of the emulator at each step of a paid job's life: once, several times, and for as long as it lasts.

A cell of the matrix is a flow run of three jobs with one fault; then it is run again without. What must hold is looked
at after both, see `tests.support.world.invariants`: in the end everything is done, and as many tasks are paid for as
there are jobs, apart from submits of which nobody could know, which were reported as such. The cells come from the
registry of faults itself, so that a new fault is in the matrix by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

import pytest

from rh_prefect import catalog, models
from rh_prefect.emulator import DEFAULT, Fault
from rh_prefect.emulator.faults import Kind, Route
from rh_prefect.errors import CODES, InputError
from rh_prefect.works.job_options import Options
from tests.support.samples import media as samples
from tests.support.waiting import until
from tests.support.world.job_records import is_hopeless
from tests.support.world.matrix import all_hold, drawn
from tests.support.world.resume_scenario import Scenario, jobs, open_trial

pytestmark = [pytest.mark.long, pytest.mark.prefect, pytest.mark.usefixtures("without_tracebacks")]

STEPS: Final[tuple[Route, ...]] = ("upload", "price", "account", "queue", "submit", "query", "cancel", "download")
"""The requests that one job's life is made of."""

OUTSIDE: Final[dict[Route, str]] = {
    "status": "v1's way to ask, which no job takes",
    "outputs": "v1's way to ask, which no job takes",
    "legacy-upload": "not on the way of a job",
    "lora": "before a job: tests/client/test_uploads.py",
    "keys": "for people: tests/client/test_calls.py",
    "resources": "for people: tests/client/test_calls.py",
    "assets": "before a job: tests/client/test_assets.py",
    "workflow": "before a job: tests/client/test_workflows.py",
    "app": "before a job: tests/client/test_apps.py",
    "apps": "for people: tests/client/test_apps.py",
    "quick-create": "before a job: tests/client/test_apps.py",
    "event": "asked by the receiver: tests/webhook",
    "resend": "for people: tests/client/test_webhooks.py",
    "webhook": "nothing but time hangs on it: tests/works/accounts/test_poller.py",
    "progress": "for people: tests/client/test_progress.py",
}

Often = Literal["once", "several", "ever"]
AS_OFTEN: Final[dict[str, tuple[Often, ...]]] = {
    "price": ("once", "ever"),  # asked once by each job
    "account": ("once", "ever"),  # asked once by each account
    "queue": ("once", "ever"),
    "upload": ("once", "ever"),  # once for each input
    "cancel": ("once", "ever"),
    **dict.fromkeys(("500", "502", "504", "empty"), ("once",)),  # as 503 and html, which are all three
    "slow": ("once",),  # nothing goes wrong, it only takes longer
    "hold": ("once",),
    "short": ("once", "several"),  # what RunningHub never serves whole is kept as it is, since it was paid for
}
"""Where it is not all three."""

REFUSALS: Final[dict[Route, tuple[str, ...]]] = {
    "submit": ("421", "1003", "1005", "1501", "416", "802"),
    "query": ("1003", "1004", "1005", "802"),
}
"""Codes of each way to go on; elsewhere one for "wait" and one for "unknown"."""

FAILURES: Final = ("1504", "1015", "1501", "")
"""Codes with which a task fails: two after which a new one helps, one that is hopeless, and the emulator's own."""


@dataclass(frozen=True)
class Cell:
    fault: Fault
    often: Often

    def __str__(self) -> str:
        fault = self.fault
        return " ".join(filter(None, (fault.on, fault.kind, fault.code, fault.phase or "", self.often)))

    @property
    def faults(self) -> list[Fault]:
        chance, requests = drawn(self), 1 if self.fault.on in ("upload", "account", "queue", "price") else 3
        fault = replace(self.fault, at=chance.uniform(0.05, 0.95), seconds=_seconds(self.fault))
        before = []
        if fault.kind == "changed":
            # It means something only to a download that goes on with another one.
            before = [Fault("download", times=3, kind="cut", at=fault.at)]
        if self.often == "once" and before:
            fault = replace(fault, times=1)
        elif self.often == "once":
            fault = replace(fault, number=chance.randint(1, requests))
        elif self.often == "several":
            fault = replace(fault, times=chance.randint(2, 4))
        return [*before, fault]

    @property
    def is_endless(self) -> bool:
        """Whether a job waits as long as it lasts, so that the run has to be evicted."""
        fault = self.fault
        if self.often != "ever":
            return False
        if fault.on == "query":
            return fault.code not in ("1004", "802")
        return fault.on == "submit" and (
            fault.kind == "429" or (fault.code in CODES and CODES[fault.code].retry == "throttled")
        )


def _seconds(fault: Fault) -> float | None:
    if fault.kind == "stall" and fault.on == "submit":
        return None  # longer than a submit may take
    return 0.3 if fault.kind in ("stall", "hold", "slow") else None


def cells() -> Iterator[Cell]:
    """The whole matrix, from what the emulator says that it can do."""
    for on in STEPS:
        for kind in get_args(Kind):
            for fault in _faults(on, kind):
                often = AS_OFTEN.get(kind) or AS_OFTEN.get(on) or get_args(Often)
                yield from (Cell(fault, one) for one in (often if fault.phase is None else ("once",)))


def _faults(on: Route, kind: Kind) -> Iterable[Fault]:
    codes = {"code": REFUSALS.get(on, ("1003", "1005")), "fail": FAILURES}.get(kind, ("",))
    try:
        found = [Fault(on, kind=kind, code=code) for code in codes]
    except InputError:  # the emulator does not know this fault of this request
        return
    yield from found
    if (
        on in ("submit", "cancel")
        and not found[0].is_early
        and kind not in ("fail", "node-errors", "at-once", "slow", "hold")
    ):
        yield replace(found[0], phase="before")


def test_every_fault_has_a_cell() -> None:
    assert set(STEPS) | set(OUTSIDE) == set(get_args(Route)), "a new request: is it on the way of a job?"
    assert not set(STEPS) & set(OUTSIDE)
    there = {(cell.fault.on, cell.fault.kind) for cell in cells()}
    possible = {(on, kind) for on in STEPS for kind in get_args(Kind) if any(True for _ in _faults(on, kind))}
    assert there == possible
    elsewhere = set(get_args(Kind)) - {kind for _, kind in there}
    assert elsewhere == {"lost", "late", "doubled", "forged", "drop"}, "a new fault: at which step does it happen?"


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("on", STEPS)
async def test_a_fault(on: Route, tmp_path: Path) -> None:
    chosen = [cell for cell in cells() if cell.fault.on == on]
    # The long ones first, so that none is left alone at the end.
    chosen.sort(key=lambda cell: cell.often, reverse=True)
    await all_hold(chosen, tmp_path, _problems)


async def _problems(cell: Cell, folder: Path) -> list[str]:
    async with open_trial(folder, **_setting(cell, folder)) as trial:
        trial.rh.faults.add(*cell.faults)
        wrong = await (_cancelled if cell.fault.on == "cancel" else _run)(trial, cell)
        await trial.settle()
        done = await trial.once()
        wrong += await trial.problems(is_over=True)
        hopeless = cell.fault.kind == "node-errors" or (cell.fault.kind == "fail" and is_hopeless(cell.fault.code))
        if (done is None) != hopeless:
            wrong.append(f"the second run ended with {done or trial.told[-3:]}")
        return wrong


def _setting(cell: Cell, folder: Path) -> dict[str, Any]:
    """What a cell needs: its step is on the way of each trial, but for prices and cancellations."""
    asked = jobs(str(samples.png(folder / "photo.png", text=str(drawn(cell).random()))))
    if cell.fault.on == "price":
        # The catalogue has no price for it, so RunningHub is asked for one.
        given: dict[str, Any] = catalog.example(models.SkyreelsV4TextToVideoFast.entry)
        unpriced = models.SkyreelsV4TextToVideoFast(**given)
        quoting = {"assumptions": replace(DEFAULT, preview_unpriced=None)}
        return {"asked": [*asked[:2], unpriced], "options": Options(budget=1000), "emulator": quoting}
    return {"asked": asked, "emulator": {"clock": "real", "factor": 0} if cell.fault.on == "cancel" else {}}


async def _run(trial: Scenario, cell: Cell) -> list[str]:
    def has_happened_enough() -> bool:
        return cell.is_endless and _fired(trial) >= 3

    await trial.once(evicted=has_happened_enough)
    return await _after(trial, cell)


async def _after(trial: Scenario, cell: Cell, **more: Any) -> list[str]:
    wrong = [] if _fired(trial) else ["the fault did not happen"]
    trial.rh.held.release()
    trial.rh.faults.clear()
    return wrong + await trial.problems(**more)


def _fired(trial: Scenario) -> int:
    return trial.rh.faults.fired()[-1][1]


async def _cancelled(trial: Scenario, cell: Cell) -> list[str]:
    """The run is cancelled while its tasks run, and once more when cancelling works again."""
    running = asyncio.ensure_future(trial.once())
    await until(lambda: sum(event.state == "submitted" for event in trial.said) == len(trial.asked))
    await trial.cancel()
    wrong = await _after(trial, cell, was_cancelled=True)
    await trial.cancel()
    trial.told.clear()
    await running
    wrong += await trial.problems(was_cancelled=True)
    trial.rh.clock.factor = 1000
    return wrong
