"""Child flows with equal arguments: each keeps the jobs of its own calls, whichever of them was recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextvars import ContextVar
from typing import Any

import prefect
import pytest
from prefect import Flow

from rh_prefect import flow, generate, models, resume
from rh_prefect.emulator import Emulator
from rh_prefect.errors import EqualRequest
from rh_prefect.flow_runs.resume import create, rerun

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]


class Broken(Exception):
    """The process breaks off here."""


breaks: list[str] = []
"""Where the next attempts break off."""


def maybe_break(place: str) -> None:
    if breaks and breaks[0] == place:
        breaks.pop(0)
        raise Broken(place)


@flow(persist_result=True)
async def kept(subject: str) -> str:
    return (await generate(models.ZImageTurbo(prompt=subject))).task_id


@flow
async def one_after_the_other() -> list[str]:
    first = await kept("a lighthouse")
    maybe_break("between")
    return [first, await kept("a lighthouse")]


async def run_until_done(of: Flow[[], Coroutine[Any, Any, list[str]]], *, places: list[str]) -> list[str]:
    breaks[:] = places
    flow_run_id = str(await create(of, {}))
    for _ in places:
        with pytest.raises(Broken):
            await rerun(of, flow_run_id)
    return await resume(of, flow_run_id)


async def test_a_served_child_leaves_its_jobs_to_itself(rh: Emulator) -> None:
    """On the resume Prefect serves the first child without running it; the second pays for its own job."""
    first, second = await run_until_done(one_after_the_other, places=["between"])
    assert first != second
    assert {first, second} == {paid.task_id for paid in rh.recorder.paid}


@flow
async def at_once() -> list[str]:
    children = (kept, kept, kept.with_options(description="the same"))
    found = await asyncio.gather(*(child("a lighthouse") for child in children))
    maybe_break("end")
    return list(found)


async def test_children_that_are_called_at_once_are_told_apart(rh: Emulator) -> None:
    """Also one with other options, which is the same flow."""
    found = await run_until_done(at_once, places=["end"])
    assert len(set(found)) == 3
    assert {*found} == {paid.task_id for paid in rh.recorder.paid}


subject_of_branch: ContextVar[str] = ContextVar("subject_of_branch")
turns: list[tuple[str, ...]] = []
"""For each attempt the order in which the branches reach their child flows."""


async def paid() -> str:
    return (await generate(models.ZImageTurbo(prompt=subject_of_branch.get()))).task_id


shot = flow(name="shot")(paid)
plain_shot = prefect.flow(name="plain-shot")(paid)


async def branch(
    child: Flow[[], Coroutine[Any, Any, str]], subject: str, order: tuple[str, ...], reached: dict[str, asyncio.Event]
) -> Any:
    subject_of_branch.set(subject)
    for before in order[: order.index(subject)]:
        await reached[before].wait()
    first = await child()
    if child is shot:
        reached[subject].set()
    second = await child()
    reached[subject].set()
    return [first, second]


async def branches(child: Flow[[], Coroutine[Any, Any, str]]) -> list[str]:
    order = turns.pop(0)
    reached = {subject: asyncio.Event() for subject in order}
    found = await asyncio.gather(*(branch(child, subject, order, reached) for subject in sorted(order)))
    maybe_break("end")
    return [task_id for both in found for task_id in both]


@flow
async def branches_that_take_turns() -> list[str]:
    return await branches(shot)


@flow
async def branches_of_plain_flows() -> list[str]:
    return await branches(plain_shot)


@pytest.mark.long
async def test_children_of_branches_keep_their_jobs_when_the_branches_take_turns(rh: Emulator) -> None:
    turns[:] = [("left", "right"), ("right", "left"), ("left", "right")]
    found = await run_until_done(branches_that_take_turns, places=["end", "end"])
    assert len(rh.recorder.paid) == 4
    of_left, of_right = (
        [paid.task_id for paid in rh.recorder.paid if paid.payload["prompt"] == subject]
        for subject in ("left", "right")
    )
    assert found == of_left + of_right


async def test_children_that_only_prefect_numbers_are_refused_rather_than_paid_again(rh: Emulator) -> None:
    turns[:] = [("left", "right"), ("right", "left")]
    with pytest.raises(EqualRequest):
        await run_until_done(branches_of_plain_flows, places=["end"])
    assert len(rh.recorder.paid) == 4


@flow(persist_result=True)
async def of_row(row: str) -> str:
    return (await generate(models.ZImageTurbo(prompt=row))).task_id


async def rows_in_order(rows: Sequence[str]) -> dict[str, str]:
    return {row: await of_row(row) for row in rows}


async def rows_at_once(rows: Sequence[str]) -> dict[str, str]:
    """In asyncio tasks of the caller, each of which begins when the one before it has its result."""
    reached = {row: asyncio.Event() for row in rows}

    async def one(number: int, row: str) -> str:
        if number:
            await reached[rows[number - 1]].wait()
        found = await of_row(row)
        reached[row].set()
        return found

    return dict(zip(rows, await asyncio.gather(*(one(*row) for row in enumerate(rows))), strict=True))


each_attempt: list[Sequence[str]] = []
"""The rows of each attempt."""


@flow
async def rows_that_change(how: str) -> list[str]:
    rows = each_attempt.pop(0)
    found = await {"in order": rows_in_order, "at once": rows_at_once}[how](rows)
    maybe_break("end")
    return [found[row] for row in rows]


@pytest.mark.parametrize("how", ["in order", "at once"])
@pytest.mark.parametrize("then", ["new a b", "b a"])
async def test_a_persisted_result_goes_to_the_call_with_its_arguments(rh: Emulator, how: str, then: str) -> None:
    each_attempt[:] = [["a", "b"], then.split()]
    breaks[:] = ["end"]
    run_id = str(await create(rows_that_change, {"how": how}))
    with pytest.raises(Broken):
        await rerun(rows_that_change, run_id)
    found = await resume(rows_that_change, run_id)
    made_of = {paid.task_id: paid.payload["prompt"] for paid in rh.recorder.paid}
    assert [made_of[task_id] for task_id in found] == then.split()
    assert len(made_of) == len({"a", "b", *then.split()})
