"""Tasks of the package without a run around them and without a Prefect API: plain calls, for which no server starts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prefect.cache_policies import NO_CACHE

from rh_prefect import generate, generate_many, models
from rh_prefect.emulator import Emulator
from rh_prefect.errors import EqualRequest, InputError, StoreError, TransportError
from rh_prefect.tasks import account_status
from rh_prefect.tasks.endpoints import z_image_turbo
from rh_prefect.tasks.generate import can_help
from rh_prefect.tasks.plain_task import PlainTask

LAMP = models.ZImageTurbo(prompt="a lamp")


async def test_calls_of_a_script_are_paid_for_once_in_their_scope(rh: Emulator) -> None:
    first = await generate(LAMP, scope="order-17")
    again = await z_image_turbo(prompt="a lamp", scope="order-17")
    assert (again.job, again.outputs) == (first.job, first.outputs)
    many = await generate_many([LAMP, models.ZImageTurbo(prompt="a mug")], scope="order-17")
    assert many[0].job == first.job
    assert len(rh.recorder.paid) == 2
    assert (await account_status()).currency == "CNY"


async def test_equal_calls_of_a_process_are_refused_as_in_a_run(rh: Emulator) -> None:
    with pytest.warns(UserWarning, match="without `scope`"):
        await generate(LAMP)
    with pytest.raises(EqualRequest), pytest.warns(UserWarning, match="without `scope`"):
        await generate(LAMP)
    assert len(rh.recorder.paid) == 1


async def test_an_argument_that_the_task_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        await z_image_turbo(prompt="a lamp", colour="red")  # type: ignore[call-overload]


def failing(*errors: Exception) -> tuple[PlainTask[[], str], Callable[[], int]]:
    """A task that fails once with each error, then succeeds; and how often it was called."""
    left, calls = list(errors), list[None]()

    async def body() -> str:
        calls.append(None)
        if left:
            raise left.pop(0)
        return "made"

    task = PlainTask(body, cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[0, 0], retry_condition_fn=can_help)
    return task, lambda: len(calls)


async def test_a_plain_call_has_the_retries_of_its_task() -> None:
    task, calls = failing(TransportError("no answer"), StoreError("no answer"))
    assert await task() == "made"
    task, calls = failing(*[TransportError("no answer")] * 3)
    with pytest.raises(TransportError):
        await task()
    assert calls() == 3
    for hopeless in (InputError("wrong"), StoreError("no right", is_permanent=True)):
        task, calls = failing(hopeless)
        with pytest.raises(type(hopeless)):
            await task()
        assert calls() == 1
