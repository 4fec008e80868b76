"""A suspend group: no member is suspended before all wait, and a member whose task has ended is not suspended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from rh_prefect.flow_runs.suspend_for_jobs import PendingTask, SuspendGroup, Verdict

ONE, TWO = (PendingTask(job=f"run/{name}", n=1, task_id=name) for name in ("one", "two"))


class Decider:
    """Returns a given verdict and records its calls."""

    def __init__(self, verdict: Verdict = "leave", *, meanwhile: Callable[[], Awaitable[object]] | None = None) -> None:
        self.verdict = verdict
        self.calls: list[set[PendingTask]] = []
        self.meanwhile = meanwhile

    async def __call__(self, tasks: Sequence[PendingTask]) -> Verdict:
        self.calls.append(set(tasks))
        if self.meanwhile is not None:
            await self.meanwhile()
        return self.verdict


class Waiting:
    """A member of the group that waits for a task."""

    def __init__(self, group: SuspendGroup, task: PendingTask) -> None:
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.polls = 0
        self.over = asyncio.ensure_future(group.wait(task, self._ends(), poll_now=self._look))

    async def _ends(self) -> str:
        return await self.end

    def _look(self) -> None:
        self.polls += 1


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_run_is_suspended_when_the_last_member_waits() -> None:
    decider = Decider()
    group = SuspendGroup(decider)
    await group.expect(2)
    first = Waiting(group, ONE)
    await settle()
    assert not group.is_suspended
    second = Waiting(group, TWO)
    assert [await first.over, await second.over] == [None, None]
    assert group.is_suspended
    assert decider.calls == [{ONE, TWO}]


async def test_a_member_that_has_ended_does_not_delay_the_suspension() -> None:
    group = SuspendGroup(Decider())
    await group.expect(2)
    first = Waiting(group, ONE)
    await settle()
    await group.end()
    assert await first.over is None


async def test_a_group_without_waiting_members_is_not_suspended() -> None:
    decider = Decider()
    group = SuspendGroup(decider)
    await group.expect(1)
    await group.end()
    await settle()
    assert not decider.calls
    assert not group.is_suspended


async def test_a_task_that_ends_before_the_last_member_waits_returns_its_result() -> None:
    group = SuspendGroup(Decider())
    await group.expect(2)
    first = Waiting(group, ONE)
    first.end.set_result("done")
    assert await first.over == "done"
    second = Waiting(group, TWO)
    await settle()
    assert not second.over.done(), "the first member continues and may submit another job"
    await group.end()
    assert await second.over is None


async def test_an_error_of_a_member_is_raised() -> None:
    group = SuspendGroup(Decider())
    await group.expect(2)
    first = Waiting(group, ONE)
    first.end.set_exception(TimeoutError("too long"))
    with pytest.raises(TimeoutError, match="too long"):
        await first.over


@pytest.mark.parametrize("verdict", ["stay", "ended"])
async def test_a_member_that_must_not_be_suspended_waits_for_the_end(verdict: Verdict) -> None:
    group = SuspendGroup(Decider(verdict))
    await group.expect(1)
    first = Waiting(group, ONE)
    await settle()
    assert not first.over.done()
    assert first.polls == (verdict == "ended")
    first.end.set_result("done")
    assert await first.over == "done"


async def test_a_member_waits_if_the_decision_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(_: Sequence[PendingTask]) -> Verdict:
        raise OSError("no journal")

    group = SuspendGroup(fails)
    await group.expect(1)
    first = Waiting(group, ONE)
    await settle()
    assert not group.is_suspended
    assert "no journal" in caplog.text
    first.end.set_result("done")
    assert await first.over == "done"


async def test_an_end_during_the_decision_causes_a_new_decision() -> None:
    waiting: list[Waiting] = []

    async def ends() -> None:
        if not waiting[0].end.done():
            waiting[0].end.set_result("done")
            await settle()

    decider = Decider(meanwhile=ends)
    group = SuspendGroup(decider)
    await group.expect(2)
    waiting += [Waiting(group, ONE), Waiting(group, TWO)]
    assert await waiting[0].over == "done"
    await settle()
    assert not group.is_suspended
    await group.end()
    assert await waiting[1].over is None
    assert decider.calls == [{ONE, TWO}, {TWO}]


async def test_two_members_that_wait_for_one_task_are_suspended_together() -> None:
    decider = Decider()
    group = SuspendGroup(decider)
    await group.expect(2)
    first = Waiting(group, ONE)
    await settle()
    second = Waiting(group, ONE)
    assert [await first.over, await second.over] == [None, None]
    assert decider.calls == [{ONE}]


async def test_a_cancelled_member_leaves_no_asyncio_task() -> None:
    group = SuspendGroup(Decider())
    await group.expect(2)
    first = Waiting(group, ONE)
    await settle()
    first.over.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first.over
    await settle()
    assert first.end.cancelled()
    assert asyncio.all_tasks() == {asyncio.current_task()}
