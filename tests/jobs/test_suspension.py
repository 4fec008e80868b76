"""A round of jobs: nothing is left while one of them is not in, and what has ended is not left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from rh_prefect.flow_runs.suspension import PendingTask, SuspendGroup, Verdict

ONE, TWO = (PendingTask(job=f"run/{name}", n=1, task_id=name) for name in ("one", "two"))


class Decider:
    """Says what it is told to say, and remembers what it was asked."""

    def __init__(self, verdict: Verdict = "leave", *, meanwhile: Callable[[], Awaitable[object]] | None = None) -> None:
        self.verdict = verdict
        self.asked: list[set[PendingTask]] = []
        self.meanwhile = meanwhile

    async def __call__(self, tasks: Sequence[PendingTask]) -> Verdict:
        self.asked.append(set(tasks))
        if self.meanwhile is not None:
            await self.meanwhile()
        return self.verdict


class Waiting:
    """A party that waits for a task in a round."""

    def __init__(self, together: SuspendGroup, task: PendingTask) -> None:
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.looks = 0
        self.over = asyncio.ensure_future(together.wait(task, self._ends(), look=self._look))

    async def _ends(self) -> str:
        return await self.end

    def _look(self) -> None:
        self.looks += 1


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_it_is_left_when_the_last_one_is_in() -> None:
    decider = Decider()
    together = SuspendGroup(decider)
    await together.expect(2)
    first = Waiting(together, ONE)
    await settle()
    assert not together.is_left
    second = Waiting(together, TWO)
    assert [await first.over, await second.over] == [None, None]
    assert together.is_left
    assert decider.asked == [{ONE, TWO}]


async def test_a_party_that_is_over_is_not_waited_for() -> None:
    together = SuspendGroup(Decider())
    await together.expect(2)
    first = Waiting(together, ONE)
    await settle()
    await together.end()
    assert await first.over is None


async def test_where_nothing_runs_there_is_nothing_to_leave() -> None:
    decider = Decider()
    together = SuspendGroup(decider)
    await together.expect(1)
    await together.end()
    await settle()
    assert not decider.asked
    assert not together.is_left


async def test_what_ends_before_the_last_one_is_in_is_returned() -> None:
    together = SuspendGroup(Decider())
    await together.expect(2)
    first = Waiting(together, ONE)
    first.end.set_result("done")
    assert await first.over == "done"
    second = Waiting(together, TWO)
    await settle()
    assert not second.over.done(), "the first party goes on, and may submit another job"
    await together.end()
    assert await second.over is None


async def test_a_failure_is_raised_as_ever() -> None:
    together = SuspendGroup(Decider())
    await together.expect(2)
    first = Waiting(together, ONE)
    first.end.set_exception(TimeoutError("too long"))
    with pytest.raises(TimeoutError, match="too long"):
        await first.over


@pytest.mark.parametrize("verdict", ["stay", "ended"])
async def test_who_may_not_leave_stays_until_the_end(verdict: Verdict) -> None:
    together = SuspendGroup(Decider(verdict))
    await together.expect(1)
    first = Waiting(together, ONE)
    await settle()
    assert not first.over.done()
    assert first.looks == (verdict == "ended")
    first.end.set_result("done")
    assert await first.over == "done"


async def test_who_cannot_find_out_stays(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(_: Sequence[PendingTask]) -> Verdict:
        raise OSError("no journal")

    together = SuspendGroup(fails)
    await together.expect(1)
    first = Waiting(together, ONE)
    await settle()
    assert not together.is_left
    assert "no journal" in caplog.text
    first.end.set_result("done")
    assert await first.over == "done"


async def test_what_ends_while_it_is_decided_is_not_left_and_it_is_decided_again() -> None:
    waiting: list[Waiting] = []

    async def ends() -> None:
        if not waiting[0].end.done():
            waiting[0].end.set_result("done")
            await settle()

    decider = Decider(meanwhile=ends)
    together = SuspendGroup(decider)
    await together.expect(2)
    waiting += [Waiting(together, ONE), Waiting(together, TWO)]
    assert await waiting[0].over == "done"
    await settle()
    assert not together.is_left
    await together.end()
    assert await waiting[1].over is None
    assert decider.asked == [{ONE, TWO}, {TWO}]


async def test_two_parties_that_wait_for_one_task_are_left_together() -> None:
    decider = Decider()
    together = SuspendGroup(decider)
    await together.expect(2)
    first = Waiting(together, ONE)
    await settle()
    second = Waiting(together, ONE)
    assert [await first.over, await second.over] == [None, None]
    assert decider.asked == [{ONE}]


async def test_whoever_stops_waiting_leaves_nothing_behind() -> None:
    together = SuspendGroup(Decider())
    await together.expect(2)
    first = Waiting(together, ONE)
    await settle()
    first.over.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first.over
    await settle()
    assert first.end.cancelled()
    assert asyncio.all_tasks() == {asyncio.current_task()}
