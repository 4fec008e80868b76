"""What the scenes of the speed benchmark share: the servers, the contenders, and what the emulator has recorded."""

from __future__ import annotations

import heapq
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks import emulator_process
from benchmarks.contenders import SLOTS
from benchmarks.emulator_process import EmulatorProcess
from benchmarks.report import Figure
from tests.support.servers.prefect_server import PrefectServer

OPERATIONS = 8
"""How many operations of journal and store a job may take where all goes well."""

_NUMBERS = count(1)


@dataclass(frozen=True, slots=True)
class Bench:
    """What the scenes have in common.

    Attributes:
        folder: Theirs to write to.
        server: Prefect's server.
        factor: How many times faster every clock runs.
        jobs: How many jobs a scene has.
    """

    folder: Path
    server: PrefectServer
    factor: float
    jobs: int

    @contextmanager
    def emulator(self, **options: Any) -> Iterator[EmulatorProcess]:
        """Runs an emulator at this benchmark's pace."""
        with emulator_process.started(factor=self.factor, **options) as made:
            yield made

    def new_folder(self, name: str) -> Path:
        """Makes a folder with a new name."""
        folder = self.folder / f"{name}-{next(_NUMBERS)}"
        folder.mkdir()
        return folder

    def start(
        self,
        contender: str,
        seconds: Sequence[float],
        emulator: EmulatorProcess,
        *,
        out: str = "",
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Starts a contender; `out` names the folder of its files, `env` adds to its environment."""
        given = json.dumps({"seconds": list(seconds), "factor": self.factor})
        folder = self.folder / (out or f"{contender}-{next(_NUMBERS)}")
        return self.python("benchmarks.contenders", contender, given, emulator=emulator, out=folder, env=env)

    def python(
        self, module: str, *given: str, emulator: EmulatorProcess, out: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Runs a module that works with the emulator and Prefect's server, in a separate process."""
        state = self.folder / f"state-{next(_NUMBERS)}"
        places = {"RH_STORAGE_URL": str(out), "RH_STATE_DIR": str(state)}
        with (self.folder / "contenders.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, *given],
                env={**self.server.env, **emulator.env, **places, **(env or {})},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def run(self, contender: str, seconds: Sequence[float], **options: Any) -> Run:
        """Runs a contender on a separate emulator."""
        with self.emulator(**options) as emulator:
            measured = finish(self.start(contender, seconds, emulator))
            return Run(contender, list(seconds), measured, emulator.recorded(), self.factor)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Waits for a contender; what it measured."""
    out, _ = process.communicate()
    lines = out.splitlines()
    if process.returncode or not lines:
        raise RuntimeError(f"a contender ended with {process.returncode}: {out[-500:]}")
    measured: dict[str, Any] = json.loads(lines[-1])
    return measured


@dataclass(frozen=True, slots=True)
class Run:
    """One contender's run through a scene, with what the emulator has recorded."""

    contender: str
    seconds: list[float]
    measured: dict[str, Any]
    recorded: dict[str, Any]
    factor: float

    @property
    def ratio(self) -> float:
        """The makespan, as a multiple of the ideal one."""
        return float(self.measured["seconds"]) * self.factor / ideal(self.seconds)

    @property
    def is_all_done(self) -> bool:
        """Whether every job was done; without that no other figure says anything."""
        return bool(self.measured["done"] == len(self.seconds))

    def as_aim(self, measured: float) -> float:
        """A figure of this run as an aim of others: none where jobs were lost."""
        return measured if self.is_all_done else math.inf

    def figure(self, what: str, measured: float, limit: float, unit: str = "") -> Figure:
        """A figure of this run, which is none where jobs were lost."""
        if not self.is_all_done:
            what, measured = f"{what}: NOT ALL DONE", math.inf
        return Figure(what, measured, limit, unit, self.note)

    @property
    def cpu(self) -> float:
        """Milliseconds of CPU of the client per job."""
        return 1000 * float(self.measured["cpu"]) / len(self.seconds)

    @property
    def api_calls(self) -> float:
        """HTTP calls per job to RunningHub's API."""
        return len(self.recorded["requests"]) / len(self.seconds)

    @property
    def calls(self) -> float:
        """HTTP calls per job, downloads included."""
        return self.api_calls + len(self.recorded["downloads"]) / len(self.seconds)

    @property
    def refusals(self) -> float:
        """Refused submits per job."""
        return sum(not one["accepted"] for one in self.recorded["submissions"]) / len(self.seconds)

    @property
    def operations(self) -> float:
        """Operations of journal and store per job."""
        operations: dict[str, int] = self.measured["operations"]
        return sum(operations.values()) / len(self.seconds)

    @property
    def listings(self) -> int:
        """Those of all jobs together that list something, until the last job was done."""
        return int(self.measured["listings"])

    def operations_figure(self, what: str = "journal and store, operations a job") -> Figure:
        """What the journal and the store cost, against its aim."""
        each = {name: count / len(self.seconds) for name, count in sorted(self.measured["operations"].items())}
        note = ", ".join(f"{name} {count:.2f}" for name, count in each.items())
        return Figure(what, self.operations, OPERATIONS + 0.01, "", note)

    @property
    def note(self) -> str:
        """What else there is to say."""
        asked = self._asked()
        return (
            f"{self.measured['done']}/{len(self.seconds)} done in {self.measured['seconds'] * self.factor:.1f} s; "
            f"CPU {self.measured['cpu']:.0f} s; {self.calls:.2f} calls a job "
            f"({asked}); {self.measured.get('prefect', 0) / len(self.seconds):.1f} requests to Prefect a job"
            + (f"; {self.measured['errors'][0]}" if self.measured.get("errors") else "")
        )

    def _asked(self) -> str:
        paths = [one["path"] for one in self.recorded["requests"]]
        looks, counts = (sum(path.endswith(end) for path in paths) for end in ("/query", "/queue/status"))
        return f"{looks / len(self.seconds):.2f} looks, {counts / len(self.seconds):.2f} counts"


def ideal(seconds: Sequence[float], *, slots: int = SLOTS) -> float:
    """The makespan of the list schedule in the given order: each job begins where a slot is free first."""
    ends = [0.0] * slots
    for one in seconds:
        heapq.heappush(ends, heapq.heappop(ends) + one)
    return max(ends)
