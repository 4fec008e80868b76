"""Flows of callables that are no plain functions: they reach other processes, and each call keeps its own result."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cloudpickle
import pytest
from prefect import Flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ProcessPoolTaskRunner

from rh_prefect import flow, generate, models
from rh_prefect.emulator import Emulator
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
@pytest.mark.parametrize(
    "kind",
    # Each call starts a process, which takes seconds.
    [pytest.param(kind, marks=[] if kind == "object" else [pytest.mark.long]) for kind in KINDS],
)
def test_a_task_in_another_process_receives_the_flow_around_it(kind: str) -> None:
    child = flow_of(kind, task_runner=_process_pool())

    rows = ("dawn", "noon") if kind == "function" else ("dawn",)  # each call starts a process

    @flow
    def outer() -> list[str]:
        return [child(row) for row in rows]

    assert outer() == [f"calm {row}" for row in rows]


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


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind == "partial" else [pytest.mark.long]) for kind in KINDS]
)
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


def painted(mood: str, row: str) -> str:
    return f"{mood} {row}"


def a_closure(mood: str) -> Callable[..., str]:
    def shot(row: str) -> str:
        return f"{mood} {row}"

    return shot


@dataclass
class Studio:
    mood: str

    def take(self, row: str) -> str:
        return f"{self.mood} {row}"

    @flow(persist_result=True, validate_parameters=False)
    def shoot(self, row: str) -> str:
        return f"{self.mood} {row}"


def _partial_of_another_function(mood: str) -> Callable[..., str]:
    made: Any = partial(joined if mood == "calm" else painted, mood)
    made.__name__ = "shot"
    return made  # type: ignore[no-any-return]  # with the name that Prefect needs


UNLIKE: dict[str, Callable[[str], Callable[..., str]]] = {
    "partials": a_partial,
    "partials of two functions": _partial_of_another_function,
    "objects": Shot,
    "methods": lambda mood: Shot(mood).take,
    "methods of data": lambda mood: Studio(mood).take,
    "closures": a_closure,
    "flows that are methods": lambda mood: Studio(mood).shoot,
}
"""Callables for each mood, whose calls have equal arguments."""


@pytest.mark.parametrize("name", ["one name", pytest.param("two names", marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", UNLIKE)
async def test_a_persisted_result_goes_to_the_callable_that_made_it(kind: str, name: str) -> None:
    def shot_of(mood: str) -> Callable[[str], str]:
        made = UNLIKE[kind](mood)
        if isinstance(made, Flow):
            return made
        named = "shot" if name == "one name" else f"shot-{mood}"
        options: Any = {"name": named, "persist_result": True, "validate_parameters": False}
        child: Any = flow(**options)(made)
        return child  # type: ignore[no-any-return]  # the decorator is typed for functions

    @flow
    def outer() -> list[str]:
        moods = each_attempt.pop(0)
        found = [shot_of(mood)("dawn") for mood in moods]
        if each_attempt:
            raise Broken
        return found

    each_attempt[:] = [["calm", "wild"], ["wild", "calm"]]
    run_id = str(await create(outer, {}))
    with pytest.raises(Broken):
        await rerun(outer, run_id)
    assert resume(outer, run_id) == ["wild dawn", "calm dawn"]


@dataclass
class Diary:
    shots: list[str] = field(default_factory=list)
    count: int = 0

    async def shot(self, subject: str) -> str:
        made = await generate(models.ZImageTurbo(prompt=subject))
        self.shots.append(subject)
        self.count += 1
        return str(made.task_id)


async def _noted(shots: list[str], subject: str) -> str:
    return await Diary(shots).shot(subject)


def _noting() -> Callable[..., Coroutine[Any, Any, str]]:
    made: Any = partial(_noted, [])
    made.__name__ = "shot"
    return made  # type: ignore[no-any-return]  # with the name that Prefect needs


@pytest.mark.parametrize("kind", [pytest.param("method", marks=pytest.mark.long), "partial"])
async def test_equal_calls_of_what_changes_during_the_run_are_found_again(rh: Emulator, kind: str) -> None:
    shot: Any = flow(name="shot", validate_parameters=False)(Diary().shot if kind == "method" else _noting())
    attempts: list[int] = []

    @flow(retries=1)
    async def outer() -> list[str]:
        attempts.append(1)
        both = [await shot("a lighthouse"), await shot("a lighthouse")]
        if len(attempts) == 1:
            raise Broken
        return both

    assert await outer() == [one.task_id for one in rh.recorder.paid]
    assert (len(attempts), len(rh.recorder.paid)) == (2, 2)
