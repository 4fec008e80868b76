"""Scenes of one batch that is run again: killed, failed in part, or with inputs that its rows share.

What was paid for and what was sent is read from the emulator's records; the command is the one that a person types.
"""

from __future__ import annotations

import csv
import io
import random
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.emulator_process import EmulatorProcess
from benchmarks.harness import Bench
from benchmarks.report import Figure, show
from tests.support.samples import media as samples

PICTURE, EDIT = "z-image/turbo", "f-2-klein-4b/edit"
SHARES = (0.1, 0.5, 0.9)
FAILING = 5
"""Each so manieth row fails."""

NODE_FAILED = "1000"
"""RunningHub's code for a task in which a node raised something: it does not say that another task would help."""

SLOTS = 20
ANSWER_SECONDS = 0.5
"""How long RunningHub takes to answer a submit; a kill in that time leaves open whether it was accepted."""

Row = dict[str, str]


def kills(bench: Bench) -> None:
    """A batch is killed, and the same command is given again."""
    show("kill -9, and the same command again", [figure for share in SHARES for figure in _killed(bench, share)])


def failures(bench: Bench) -> None:
    """One row of five fails, whatever is done, until its cause is repaired."""
    rows = [_row(n, 6.0, what="doomed boat" if n % FAILING == 0 else "boat") for n in range(bench.jobs // 2)]
    doomed = Counter(row["prompt"] for row in rows if row["prompt"].startswith("doomed"))
    faults = [{"on": "submit", "kind": "fail", "prompt": "doomed", "code": NODE_FAILED}]
    with bench.emulator(limit=50, faults=faults) as emulator:
        work = Work.of(bench, emulator, rows, model=PICTURE)
        runs = [work.run()]
        runs.append(work.run())
        httpx.delete(f"{emulator.url}/_emulator/faults").raise_for_status()
        runs.append(work.run())
    first, second, repaired = runs
    note = f"{first.done}/{len(rows)} done, {len(first.paid)} tasks paid for"
    show(
        f"{sum(doomed.values())} of {len(rows)} fail",
        [
            Figure("submits beyond one a job", len(first.paid) - len(rows), 1, "", note),
            Figure("again: paid but for the failed", _off(second.prompts, doomed), 1, "", _said(second)),
            Figure("repaired: paid but for the failed", _off(repaired.prompts, doomed), 1, "", _said(repaired)),
            Figure("not done at the end", len(rows) - repaired.done, 1, ""),
        ],
    )


def inputs(bench: Bench) -> None:
    """Many rows share five pictures."""
    pictures = [samples.png(bench.folder / f"shared-{n}.png", text=str(n)) for n in range(5)]
    rows = [_row(n, 6.0) | {"image_url": str(pictures[n % 5])} for n in range(bench.jobs // 2)]
    with bench.emulator(limit=50) as emulator:
        run = Work.of(bench, emulator, rows, model=EDIT).run()
        uploads = len(emulator.recorded()["uploads"])
    figures = [Figure("uploads", uploads, 5.01, ""), Figure("not done at the end", len(rows) - run.done, 1, "")]
    show(f"{len(rows)} jobs, 5 inputs", figures)


@dataclass(frozen=True, slots=True)
class Done:
    """What one run of the command did.

    Attributes:
        items: The steps of the newest report.
        paid: The submits that were accepted meanwhile.
    """

    items: list[dict[str, str]]
    paid: list[dict[str, Any]]

    @property
    def done(self) -> int:
        """How many rows are done."""
        return sum(item["state"] in ("made", "reused") for item in self.items)

    @property
    def prompts(self) -> Counter[str]:
        """What was paid for."""
        return Counter(one["payload"]["prompt"] for one in self.paid)


@dataclass(slots=True)
class Work:
    """One batch: its rows, its place, and what has been paid for it."""

    bench: Bench
    emulator: EmulatorProcess
    rows: Sequence[Row]
    model: str
    folder: Path
    _seen: int = field(default=0)

    @classmethod
    def of(cls, bench: Bench, emulator: EmulatorProcess, rows: Sequence[Row], *, model: str) -> Work:
        """Writes the table."""
        folder = bench.new_folder("batch")
        with (folder / "rows.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return cls(bench, emulator, rows, model, folder)

    def start(self) -> subprocess.Popen[str]:
        """Gives the command."""
        return self._command("batch", str(self.folder / "rows.csv"), "--model", self.model)

    def run(self) -> Done:
        """Gives the command and waits."""
        with self.start() as process:
            process.communicate()
        return self.since()

    def since(self) -> Done:
        """What has happened since it was last asked."""
        paid = [one for one in self.emulator.recorded()["submissions"] if one["accepted"]]
        before, self._seen = self._seen, len(paid)
        reports = sorted((self.folder / "out").glob("runs/*/report.csv"), key=lambda file: file.stat().st_mtime)
        return Done(list(csv.DictReader(io.StringIO(reports[-1].read_text()))) if reports else [], paid[before:])

    def settle(self, items: Sequence[dict[str, str]]) -> None:
        """Looks for unknown submits in RunningHub's call log, as a person would, and says what became of them."""
        for item in items:
            asked = self.rows[int(item["number"]) - 1]["prompt"]
            tasks = [
                one["task_id"] for one in self.emulator.recorded()["submissions"] if one["payload"]["prompt"] == asked
            ]
            words = ("adopt", item["jobs"], tasks[0]) if tasks else ("mark-refused", item["jobs"])
            with self._command("jobs", *words) as process:
                process.communicate()

    def _command(self, *words: str) -> subprocess.Popen[str]:
        env = {"RH_STATE_DIR": str(self.folder / "state"), "RH_POLL_SECONDS": str(2.0 / self.bench.factor)}
        return self.bench.python("rh_prefect.cli", *words, emulator=self.emulator, out=self.folder / "out", env=env)


def _killed(bench: Bench, share: float) -> list[Figure]:
    lengths = random.Random(11)
    rows = [_row(n, lengths.choice([2.0, 6.0, 12.0])) for n in range(bench.jobs // 2)]
    faults = [{"on": "submit", "kind": "slow", "seconds": ANSWER_SECONDS / bench.factor}]
    with bench.emulator(limit=SLOTS, faults=faults) as emulator:
        work = Work.of(bench, emulator, rows, model=PICTURE)
        _kill(work, submits=int(share * len(rows)))
        # What was on its way to RunningHub arrives.
        time.sleep(2 * ANSWER_SECONDS / bench.factor)
        killed, again = work.since(), work.run()
        unknown = [item for item in again.items if item["error"] == "SubmissionUnknown"]
        known = {task for item in again.items for task in item["tasks"].split()}
        listed = {rows[int(item["number"]) - 1]["prompt"] for item in unknown}
        paid = [*killed.paid, *again.paid]
        unnamed = [one for one in paid if one["task_id"] not in known and one["payload"]["prompt"] not in listed]
        if unknown:
            work.settle(unknown)
            again = work.run()
            paid += again.paid
    twice = Counter(one["payload"]["prompt"] for one in paid).total() - len({one["payload"]["prompt"] for one in paid})
    name, note = f"{share:.0%}", f"after {len(killed.paid)} of {len(rows)}; {len(unknown)} submits in flight, listed"
    return [
        Figure(f"{name}: paid twice", twice, 1, "", note),
        Figure(f"{name}: paid and not named", len(unnamed), 1, ""),
        Figure(f"{name}: not done at the end", len(rows) - again.done, 1, ""),
    ]


def _kill(work: Work, *, submits: int) -> None:
    """Gives the command, and kills it once so many submits have been accepted."""
    with work.start() as process:
        while (
            sum(one["accepted"] for one in work.emulator.recorded()["submissions"]) < submits and process.poll() is None
        ):
            time.sleep(0.05)
        was_running = process.poll() is None
        process.kill()
        process.communicate()
    if not was_running:
        raise RuntimeError("the batch ended before it was killed")


def _row(number: int, seconds: float, *, what: str = "boat") -> Row:
    return {"prompt": f"{what} number {number}, {seconds:g} s"}


def _off(paid: Counter[str], meant: Counter[str]) -> int:
    return (paid - meant).total() + (meant - paid).total()


def _said(run: Done) -> str:
    return f"{len(run.paid)} tasks paid for, {run.done}/{len(run.items)} done"
