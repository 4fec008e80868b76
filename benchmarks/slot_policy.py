"""How well the slots of one key are used, in virtual time: what the limiter and the poller lose, without the machine.

    python -m benchmarks.slot_policy

The real limiter and poller work on a simulated account, in a simulated time in which nothing but its requests takes
time. So the figures are those of the policy alone, and the same on each machine. The other scenes of
`benchmarks.speed` measure the policy together with the CPU that a job costs.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from benchmarks.contenders import SLOTS
from benchmarks.harness import ideal
from benchmarks.report import Figure, show
from rh_prefect.client import TaskView
from rh_prefect.client.wire.task import RemoteOutput
from rh_prefect.works.accounts.limiter import Limiter, first_free, pause_seconds
from rh_prefect.works.accounts.poller import Poller
from rh_prefect.works.lifecycle_steps import LIMITER_PAUSES
from tests.support.world.virtual_time import VirtualLoop, now

LATENCY = 0.01
"""Mean seconds of one way of a request; each one takes 0.5 to 1.5 times as long."""

CLAIM = 0.05
"""Mean seconds from a slot to its submission, in which the claim is recorded."""

START = 0.3
"""Seconds within which all processes start."""

AIMS = {(6.0, 1): 1.05, (6.0, 2): 1.1, (6.0, 8): 1.1, (60.0, 1): 1.01, (60.0, 2): 1.02, (60.0, 8): 1.02}
"""The highest makespan, as a multiple of the ideal one, by the duration of a job and the number of processes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one simulation has shown.

    Attributes:
        makespan: Seconds until the last end that a process has noticed; all processes start in the first `START` ones.
        refusals: The number of refused submissions.
        calls: The number of requests to the account.
    """

    makespan: float
    refusals: int
    calls: int


class _Account:
    """An account that refuses tasks beyond its limit."""

    def __init__(self, randomness: random.Random) -> None:
        self._random = randomness
        self._ends: dict[str, float] = {}
        self.refusals = self.calls = 0

    async def submit(self, seconds: float) -> str | None:
        await self._way()
        accepted = self._running() < SLOTS
        task_id = str(len(self._ends) + 1)
        if accepted:
            self._ends[task_id] = now() + seconds
        await self._answer()
        self.refusals += not accepted
        return task_id if accepted else None

    async def query(self, task_id: str) -> TaskView:
        await self._way()
        status = "SUCCESS" if self._ends[task_id] <= now() else "RUNNING"
        await self._answer()
        return TaskView(task_id=task_id, status=status, outputs=(RemoteOutput(url="https://example.net/a.png"),))

    async def count(self) -> tuple[int | None, int]:
        await self._way()
        running = self._running()
        await self._answer()
        return SLOTS, running

    def _running(self) -> int:
        return sum(end > now() for end in self._ends.values())

    async def _answer(self) -> None:
        self.calls += 1
        await self._way()

    async def _way(self) -> None:
        await asyncio.sleep(LATENCY * (0.5 + self._random.random()))


class _Process:
    """One process that shares the key with others."""

    def __init__(self, account: _Account, randomness: random.Random) -> None:
        self._account, self._random = account, randomness
        self._limiter = Limiter(account.count, clock=now, jitter=randomness.random)
        self._poller = Poller(account.query, clock=now, shortest=2.0, grace=300.0, count=self._limiter.count)

    async def run(self, seconds: Sequence[float]) -> None:
        await asyncio.sleep(START * self._random.random())
        await asyncio.gather(*map(self._job, seconds))

    async def _job(self, seconds: float) -> None:
        refusals = 0
        while True:
            await first_free([self._limiter])
            await asyncio.sleep(CLAIM * (0.5 + self._random.random()))
            task_id = await self._account.submit(seconds)
            if task_id is not None:
                break
            self._limiter.release(full=True)
            self._limiter.submit_finished()
            refusals += 1
            if refusals > LIMITER_PAUSES:
                await asyncio.sleep(pause_seconds(refusals - LIMITER_PAUSES, jitter=self._random.random()))
        self._limiter.submit_finished()
        await self._poller.wait(task_id)
        self._limiter.release()


def simulate(seconds: Sequence[float], *, processes: int, seed: int) -> Outcome:
    """Simulates jobs that are divided among processes on one key.

    Args:
        seconds: The duration of each job.
        processes: The number of processes.
        seed: Determines all random durations.
    """

    async def whole() -> Outcome:
        randomness = random.Random(seed)
        account = _Account(randomness)
        parts = [seconds[n::processes] for n in range(processes)]
        await asyncio.gather(*(_Process(account, randomness).run(part) for part in parts))
        return Outcome(now(), account.refusals, account.calls)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(whole())


def main() -> None:
    """Prints a table of each duration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for duration in dict.fromkeys(duration for duration, _ in AIMS):
        jobs, figures = [duration] * options.jobs, []
        for processes in (number for known, number in AIMS if known == duration):
            found = [simulate(jobs, processes=processes, seed=seed) for seed in range(options.seeds)]
            ratio = mean(one.makespan for one in found) / ideal(jobs)
            calls, refusals = (
                mean(numbers) / len(jobs) for numbers in zip(*((one.calls, one.refusals) for one in found), strict=True)
            )
            note = f"{calls:.1f} calls and {refusals:.2f} refusals a job"
            name = f"{processes} processes: makespan / ideal"
            figures.append(Figure(name, ratio, AIMS[duration, processes], "x", note))
        show(f"{options.jobs} jobs of {duration:g} s on one key, {SLOTS} slots, in virtual time", figures)


if __name__ == "__main__":
    main()
