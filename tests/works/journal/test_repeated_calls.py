"""The rule that tells a repeated call for a work from a second one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest

from rh_prefect.errors import EqualRequest, InputError
from rh_prefect.works.journal.scope import Calls, Chain, delivered_at_end, is_repeat
from rh_prefect.works.loop_thread import LOOP

FLOW, AGAIN = ("flow", 1), ("flow", 2)


@pytest.mark.parametrize(
    ("call", "earlier", "repeats"),
    [
        pytest.param((FLOW, ("job", 2)), (FLOW, ("job", 1)), True, id="a retry of the job's own task"),
        pytest.param((FLOW, ("step", 3), ("job2", 4)), (FLOW, ("step", 1), ("job", 2)), True, id="a retry of a task"),
        pytest.param(
            (FLOW, ("step", 5), ("child2", 6), ("job2", 7)),
            (FLOW, ("step", 1), ("child", 2), ("job", 3)),
            True,
            id="a child flow in a retried task",
        ),
        pytest.param((FLOW, ("child", 4), ("job2", 5)), (FLOW, ("child", 2), ("job", 3)), True, id="a child's retry"),
        pytest.param((AGAIN, ("job2", 2)), (FLOW, ("job", 1)), True, id="a retry of the flow"),
        pytest.param((FLOW, ("job2", 2)), (FLOW, ("job", 1)), False, id="a second call in the flow"),
        pytest.param((FLOW, ("b", 3), ("job2", 4)), (FLOW, ("a", 1), ("job", 2)), False, id="a call in another task"),
        pytest.param((FLOW, ("a", 1), ("job2", 4)), (FLOW, ("a", 1), ("job", 2)), False, id="a second call in a task"),
        pytest.param((FLOW, ("job2", 3)), (FLOW, ("a", 1), ("job", 2)), False, id="a call in the flow after its task"),
        pytest.param((FLOW,), (FLOW,), False, id="equal chains: a coroutine or thread of the caller"),
        pytest.param((FLOW,), (FLOW, ("job", 1)), False, id="a call without a task run, inside"),
        pytest.param((), (), False, id="no run at all"),
    ],
)
def test_a_call_is_repeated_where_the_outermost_other_run_was_executed_again(
    call: Chain, earlier: Chain, *, repeats: bool
) -> None:
    assert is_repeat(call, earlier) is repeats


def job(name: str, number: int = 1) -> Chain:
    return (FLOW, (name, number))


@contextmanager
def refused() -> Iterator[None]:
    """A second call, which is an error of the input and leaves the table as it is."""
    with pytest.raises(EqualRequest, match=r"run/work: an earlier call .*take=2.*same=True") as caught:
        yield
    assert isinstance(caught.value, InputError)


def ask(calls: Calls, chain: Chain, *, error: type[BaseException] | None = None, work: str = "work") -> None:
    """A call that gets its result, or ends with an error."""
    try:
        with calls.asking(work, chain, job="run/work"):
            if error is not None:
                raise error
    except (KeyError, asyncio.CancelledError):
        assert error is not None


@pytest.mark.parametrize("is_over", [False, True])
def test_a_second_call_is_refused_while_the_first_waits_and_after_it(*, is_over: bool) -> None:
    calls = Calls()
    with calls.asking("work", job("a"), job="run/work"):
        if not is_over:
            with refused():
                ask(calls, job("b"))
    for _ in range(2):
        with refused():
            ask(calls, job("b"))
    ask(calls, job("b"), work="another")
    ask(calls, job("a", 2))


@pytest.mark.parametrize("error", [KeyError, asyncio.CancelledError])
def test_after_an_error_or_a_cancellation_another_call_may_ask(error: type[BaseException]) -> None:
    calls = Calls()
    ask(calls, job("a"), error=error)
    ask(calls, job("b"))
    with refused():
        ask(calls, job("c"))


async def test_a_call_that_is_being_cancelled_refuses_no_other_one() -> None:
    """Its caller goes on at once, and may call again before the cancelled call has left the table."""
    calls, is_over = Calls(), asyncio.Event()

    async def first() -> None:
        with calls.asking("work", job("a"), job="run/work", task=asyncio.current_task()):
            await is_over.wait()

    running = asyncio.ensure_future(first())
    await asyncio.sleep(0)
    with refused():
        ask(calls, job("b"))
    running.cancel()
    ask(calls, job("b"))
    await asyncio.wait([running])
    with refused():
        ask(calls, job("c"))


@pytest.mark.parametrize(
    ("ends", "is_refused"),
    [
        pytest.param("begin 1, end 1, begin 2, fail 2", True, id="a repeat that fails restores the call before it"),
        pytest.param("begin 1, begin 2, fail 2, fail 1", False, id="but not if that one fails too"),
        pytest.param("begin 1, begin 2, fail 1, fail 2", False, id="or has failed before"),
        pytest.param("begin 1, begin 2, end 2, fail 1", True, id="a call that fails leaves its repeat in the table"),
    ],
)
def test_a_call_is_refused_while_one_before_it_has_not_failed(ends: str, *, is_refused: bool) -> None:
    """The first try of a task may run on in its thread when Prefect has begun the second."""
    calls = Calls()
    tries = {number: calls.asking("work", job("a", int(number)), job="run/work") for number in "12"}
    for what, number in (one.split() for one in ends.split(", ")):
        if what == "begin":
            tries[number].__enter__()
        else:
            error = (KeyError, KeyError(), None) if what == "fail" else (None, None, None)
            assert not tries[number].__exit__(*error), "the error goes on"
    with refused() if is_refused else nullcontext():
        ask(calls, job("b"))


async def test_calls_that_deliver_together_leave_the_table_together() -> None:
    calls = Calls()
    ask(calls, job("a"))
    with pytest.raises(KeyError), delivered_at_end():
        with delivered_at_end():
            ask(calls, job("a", 2))
        ask(calls, job("b"), work="another")
        raise KeyError
    await LOOP.call(asyncio.sleep(0))
    with refused():
        ask(calls, job("c"))
    with delivered_at_end():
        ask(calls, job("c"), work="another")
    with refused():
        ask(calls, job("d"), work="another")
