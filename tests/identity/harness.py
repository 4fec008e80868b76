"""Runs a shape: attempts of a program that break off, changes of its surroundings between them, and what was paid."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from rh_prefect.catalog import Model
from rh_prefect.emulator import Emulator
from rh_prefect.emulator.recorder import Submission
from tests.support.processes.forked_attempts import Attempt, Attempts
from tests.support.servers.emulator_env import environment

PROGRAMS: Final = Path(__file__).with_name("programs")
BREAKS: Final = ("exit", "raise", "")
"""How each attempt ends: killed, failed, completed."""

Form = Literal["sync", "async"]
Event = dict[str, Any]
Edit = tuple[str, str]


@dataclass(frozen=True)
class Shape:
    """One way to call for paid jobs.

    Attributes:
        name: What the table calls it.
        program: Its file below `programs`.
        wanted: How many distinct jobs it asks for.
        parameters: Of the program.
        branches: After how many branches an attempt breaks off inside the last one; 0 for at the very end.
        breaks: How each attempt ends.
        processes: How many processes run the first attempt at the same time.
        edits: What is replaced in the program's text before an attempt, by the attempt's number.
        change: What else changes before an attempt.
        env: The environment of all attempts, beside the usual one.
        refused: What the refusal says in an attempt that is refused in place of that, by the attempt's number.
        may_fail: Attempts that may end with an error: something is out of order in them.
    """

    name: str
    program: str
    wanted: int
    parameters: Mapping[str, object] = field(default_factory=dict)
    branches: int = 0
    breaks: tuple[str, ...] = BREAKS
    processes: int = 1
    edits: Mapping[int, tuple[Edit, ...]] = field(default_factory=dict)
    change: Callable[[Stage, int], None] | None = None
    env: Callable[[Stage], Mapping[str, str]] | None = None
    refused: Mapping[int, str] = field(default_factory=dict)
    may_fail: tuple[int, ...] = ()

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Outcome:
    """What came of a shape in one form; a row of the table."""

    shape: str
    form: str
    submits: int
    wanted: int
    exchanged: int
    happened: str
    failure: str

    @property
    def extra(self) -> int:
        """Payments beyond what was asked for."""
        return self.submits - self.wanted

    def check(self) -> None:
        """Fails where something was paid for twice, exchanged, lost, or refused where it must not be."""
        assert not self.failure, self.failure
        assert (self.extra, self.exchanged) == (0, 0), self


@dataclass
class World:
    """What all shapes share: the process that forks, the emulator, and the table."""

    attempts: Attempts
    rh: Emulator
    table: list[Outcome]

    def check(self, shape: Shape, form: Form, folder: Path) -> None:
        """Runs all attempts of a shape; its row is in the table and in its folder, even after a failure."""
        outcome = Stage(self, shape, form, folder).run()
        self.table.append(outcome)
        (folder / "outcome.txt").write_text("\n".join(lines_of([outcome])))
        outcome.check()


class Stage:
    """One shape in one form.

    Attributes:
        folder: Where all of it lies.
        files: What the program finds by `chain.file`.
        tag: A word that is in all its prompts.
        run_id: Its flow run, once there is one.
    """

    def __init__(self, world: World, shape: Shape, form: Form, folder: Path) -> None:
        self.world = world
        self.shape = shape
        self.form = form
        self.folder = folder
        self.files = folder / "files"
        self.files.mkdir()
        self.tag = re.sub(r"[^a-z0-9]+", "-", f"{shape.name} {form}".lower())
        self.run_id = ""
        self.report = folder / "report.jsonl"
        self._program = folder / "program.py"
        self._program.write_text((PROGRAMS / shape.program).read_text(encoding="utf-8"), encoding="utf-8")

    def run(self) -> Outcome:
        """Runs the attempts, until all are over or one does not end as it should."""
        failure, number = "", 0
        for number, breaking in enumerate(self.shape.breaks, 1):
            failure = self.attempt(number, breaking)
            if failure and number not in self.shape.may_fail:
                break
        happened = [f"refused in attempt {one}" for one in self.shape.refused if not failure]
        if number not in self.shape.refused:
            happened.append("failed" if failure else "paid" if number == 1 else "continued")
        return Outcome(
            shape=self.shape.name,
            form=self.form,
            submits=len(self.paid()),
            wanted=self.shape.wanted,
            exchanged=self.exchanged(),
            happened=", ".join(happened),
            failure=failure,
        )

    def attempt(self, number: int, breaking: str) -> str:
        """Runs one attempt.

        Args:
            number: Its number, from 1.
            breaking: How it is to end.

        Returns:
            What went wrong; empty where it ended as it should.
        """
        for before, after in self.shape.edits.get(number, ()):
            self.edit(before, after)
        if self.shape.change is not None:
            self.shape.change(self, number)
        together = self.shape.processes if number == 1 else 1
        if together > 1:
            self._start(number, breaking, only_create=True).wait()
            self.run_id = self.run_id or self._events("run")[0]["id"]
        started = [self._start(number, breaking) for _ in range(together)]
        for one in started:
            one.wait()
        runs = self._events("run")
        self.run_id = self.run_id or (runs[0]["id"] if runs else "")
        return self._failure(number, breaking, started)

    def edit(self, before: str, after: str) -> None:
        """Replaces a text of the program, as its author does in an editor."""
        text = self._program.read_text(encoding="utf-8")
        assert before in text, f"{before!r} is not in {self.shape.program}"
        self._program.write_text(text.replace(before, after), encoding="utf-8")

    def paid(self) -> list[Submission]:
        """The accepted submits of this shape."""
        return [one for one in self.world.rh.recorder.paid if self._is_mine(one)]

    def exchanged(self) -> int:
        """Counts the branches whose steps are not one chain, the same in each attempt."""
        chains = self._events("chain")
        paid = {one.task_id: one for one in self.paid()}
        branches: dict[str, set[str]] = defaultdict(set)
        owners: dict[str, set[str]] = defaultdict(set)
        wrong = set()
        for chain in chains:
            branches[chain["branch"]].add(json.dumps([chain["tasks"], chain["hashes"]]))
            owners[chain["tasks"][-1]].add(chain["branch"])
            if not _is_one_chain(chain, paid):
                wrong.add(chain["branch"])
        wrong |= {branch for branch, seen in branches.items() if len(seen) > 1}
        made = {chain["branch"]: chain["hashes"] for chain in chains}
        wrong |= {one["branch"] for one in self._events("returned") if one["hashes"] != made.get(one["branch"])}
        wrong |= {branch for sharing in owners.values() if len(sharing) > 1 for branch in sharing}
        return len(wrong)

    def _is_mine(self, submission: Submission) -> bool:
        return str(submission.payload.get("prompt", "")).startswith(f"{self.tag} ")

    def _start(self, number: int, breaking: str, *, only_create: bool = False) -> Attempt:
        env = {
            **environment(self.world.rh, self.folder),
            "RH_POLL_SECONDS": "0.1",
            "PROGRAM_TAG": self.tag,
            "PROGRAM_ATTEMPT": str(number),
            "PROGRAM_REPORT": str(self.report),
            "PROGRAM_FILES": str(self.files),
            "PROGRAM_BREAK": breaking,
            "PROGRAM_BREAK_AT": "both" if self.shape.branches else "end",
            "PROGRAM_BRANCHES": str(self.shape.branches),
            **(self.shape.env(self) if self.shape.env is not None else {}),
        }
        order = {
            "program": str(self._program),
            "form": self.form,
            "run": self.run_id,
            "parameters": dict(self.shape.parameters),
            "only_create": only_create,
            "env": env,
        }
        return self.world.attempts.start(order, report=self.report, log=self.folder / f"attempt-{number}.log")

    def _events(self, event: str, number: int | None = None) -> list[Event]:
        lines = self.report.read_text().splitlines() if self.report.exists() else []
        found = [one for one in map(json.loads, lines) if one["event"] == event]
        return [one for one in found if number in (None, one["attempt"])]

    def _failure(self, number: int, breaking: str, started: list[Attempt]) -> str:
        errors = [error for one in self._events("failed", number) for error in one["errors"]]
        others = [one for one in errors if "BrokenOff" not in one["kinds"]]
        if words := self.shape.refused.get(number):
            is_refused = any(words in one["message"] for one in others)
            return "" if is_refused else f"attempt {number} is not refused with {words!r}: {others}"
        if others:
            return f"attempt {number}: {others[0]['kinds'][0]}: {others[0]['message']}"
        ended = len(self._events("done", number)) + len(self._events("broken", number))
        if not ended or (not breaking and len(self._events("done", number)) < len(started)):
            return f"attempt {number} ended without a word: {started[0].errors()}"
        return ""


def _is_one_chain(chain: Event, paid: Mapping[str, Submission]) -> bool:
    """Whether each step was given what the one before made, as RunningHub received it."""
    given = [chain["source"], *chain["hashes"]]
    for task_id, before in zip(chain["tasks"], given, strict=False):
        if before and (task_id not in paid or paid[task_id].inputs.get("imageUrl") != (before,)):
            return False
    return True


def shuffled(drawn: random.Random) -> Callable[[Model, Mapping[str, object]], tuple[float, float]]:
    """Tasks whose times say nothing of their order."""

    def durations(model: Model, payload: Mapping[str, object]) -> tuple[float, float]:
        return drawn.uniform(0, 0.05), drawn.uniform(0.05, 0.6)

    return durations


HEAD: Final = f"{'shape':<44} {'form':<6} {'submits':>7} {'wanted':>6} {'extra':>5} {'exchanged':>9}  what happens"


def lines_of(table: list[Outcome]) -> Iterator[str]:
    """The table's rows, as a person reads them below its head."""
    for row in table:
        numbers = f"{row.submits:>7} {row.wanted:>6} {row.extra:>5} {row.exchanged:>9}"
        yield f"{row.shape:<44} {row.form:<6} {numbers}  {row.happened}"
