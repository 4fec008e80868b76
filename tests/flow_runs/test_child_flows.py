"""Child flows with equal arguments: each keeps the jobs of its own calls, whichever of them was recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from prefect import Flow

from rh_prefect import flow, generate, models, resume
from rh_prefect.emulator import Emulator
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
    """N1: on the resume Prefect serves the first child without running it; the second pays for its own job."""
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
    """A1: also one with other options, which is the same flow."""
    found = await run_until_done(at_once, places=["end"])
    assert len(set(found)) == 3
    assert {*found} == {paid.task_id for paid in rh.recorder.paid}
