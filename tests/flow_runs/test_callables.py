"""Flows of callables that are no plain functions: they reach other processes, and each call keeps its own result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cloudpickle
import pytest
from prefect import Flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ProcessPoolTaskRunner

from rh_prefect import flow
from rh_prefect.flow_runs.call_positions import PlacedFlow
from rh_prefect.flow_runs.resume import create, rerun, resume

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]


@task(cache_policy=NO_CACHE)
def join(mood: str, row: str) -> str:
    return f"{mood} {row}"


def joined(mood: str, row: str) -> str:
    """The flow run's context, with the flow, is sent to the process of the task."""
    return join.submit(mood, row).result()


class Shot:
    """An object that can be called, as a whole or by a method."""

    def __init__(self, mood: str) -> None:
        self.mood = mood
        self.__name__ = f"shot-{mood}"

    def __call__(self, row: str) -> str:
        return joined(self.mood, row)

    def take(self, row: str) -> str:
        return joined(self.mood, row)

    async def later(self, row: str) -> str:
        return joined(self.mood, row)


def a_function(row: str) -> str:
    return joined("calm", row)


def a_partial(mood: str) -> Callable[..., str]:
    made: Any = partial(joined, mood)
    made.__name__ = "shot"
    return made  # type: ignore[no-any-return]  # with the name that Prefect needs


KINDS: dict[str, Callable[[], Callable[..., str]]] = {
    "function": lambda: a_function,
    "partial": lambda: a_partial("calm"),
    "object": lambda: Shot("calm"),
    "method": lambda: Shot("calm").take,
}


VALIDATED = ("function", "method")
"""Prefect resolves annotations that are texts, as in this file, only for these."""


def flow_of(kind: str, **options: Any) -> Flow[..., str]:
    made: Any = flow(name=kind, validate_parameters=kind in VALIDATED, **options)(KINDS[kind]())
    return made  # type: ignore[no-any-return]  # the decorator is typed for functions


def _process_pool() -> Any:
    return ProcessPoolTaskRunner(max_workers=1)


@pytest.mark.usefixtures("prefect_worker_processes")
@pytest.mark.parametrize("kind", KINDS)
def test_a_task_in_another_process_receives_the_flow_around_it(kind: str) -> None:
    child = flow_of(kind, task_runner=_process_pool())

    @flow
    def outer() -> list[str]:
        return [child("dawn"), child("noon")]

    assert outer() == ["calm dawn", "calm noon"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_flow_of_a_call_is_the_original_after_a_round_trip(kind: str) -> None:
    seen: list[bytes] = []
    child: Any = flow_of(kind)
    hooked: Any = child.with_options(on_running=[lambda flow, flow_run, state: seen.append(cloudpickle.dumps(flow))])

    @flow
    def outer() -> str:
        return str(hooked("dawn"))

    assert outer() == "calm dawn"
    back = cloudpickle.loads(seen[-1])
    assert (type(back), type(back.fn), back.fn.__name__) == (PlacedFlow, type(child.fn), child.fn.__name__)
    assert back("noon") == "calm noon"


each_attempt: list[Sequence[str]] = []
"""The rows of each attempt."""


class Broken(Exception):
    """The process breaks off here."""


@pytest.mark.parametrize("kind", KINDS)
async def test_a_persisted_result_goes_to_the_call_with_its_arguments(kind: str) -> None:
    child = flow_of(kind, persist_result=True)

    @flow
    def outer() -> list[str]:
        rows = each_attempt.pop(0)
        found = [child(row) for row in rows]
        if each_attempt:
            raise Broken
        return found

    each_attempt[:] = [["a", "b"], ["new", "b", "a"]]
    run_id = str(await create(outer, {}))
    with pytest.raises(Broken):
        await rerun(outer, run_id)
    assert resume(outer, run_id) == ["calm new", "calm b", "calm a"]


async def test_an_async_method_is_awaited() -> None:
    child: Any = flow(name="later", persist_result=True)(Shot("calm").later)

    @flow
    async def outer() -> list[str]:
        return [await child("dawn"), await child("noon")]

    assert await outer() == ["calm dawn", "calm noon"]


async def test_a_persisted_result_goes_to_the_callable_that_made_it() -> None:
    """Two flows of one name, whose calls have equal arguments."""
    shots = {
        mood: flow(name="shot", persist_result=True, validate_parameters=False)(a_partial(mood))
        for mood in ("calm", "wild")
    }

    @flow
    def outer() -> list[str]:
        moods = each_attempt.pop(0)
        found = [shots[mood]("dawn") for mood in moods]
        if each_attempt:
            raise Broken
        return found

    each_attempt[:] = [["calm", "wild"], ["wild", "calm"]]
    run_id = str(await create(outer, {}))
    with pytest.raises(Broken):
        await rerun(outer, run_id)
    assert resume(outer, run_id) == ["wild dawn", "calm dawn"]
