"""How every task asks RunningHub for something: with whose key, on which thread, and whether it may ask again."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeAlias, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from rh_prefect.blocks.lookup import load_engine
from rh_prefect.client import Client
from rh_prefect.errors import ConnectFailed, InputError, TransportError
from rh_prefect.flow_runs.call_positions import PaidTask
from rh_prefect.jobs.loop_thread import LOOP
from rh_prefect.jobs.outputs.result import Result
from rh_prefect.tasks.generate import paid_task

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Body: TypeAlias = Callable[P, Coroutine[Any, Any, R]]
CanHelp: TypeAlias = Callable[[Task[..., Any], TaskRun, State[Any]], Coroutine[Any, Any, bool]]


async def ask(
    question: Callable[[Client], Coroutine[Any, Any, T]], credentials: str | None, *, of_task: str | None = None
) -> T:
    """Asks on the package's loop thread, over the connections that its jobs use.

    Args:
        question: What to ask of the account's client.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block; by default RH_API_KEY and RH_BASE_URL.
        of_task: The task that it is about: of several accounts the one that has it is asked, else the first.

    Returns:
        The answer.
    """
    payer = await load_engine(credentials)

    async def asked() -> T:
        pool = payer.pool
        member = pool.members[0] if pool.is_one or of_task is None else await pool.having(of_task)
        return await question(member.client)

    return await LOOP.call(asked())


def repeatable(name: str | Callable[[], str]) -> Callable[[Body[P, R]], Task[P, Coroutine[Any, Any, R]]]:
    """Makes a task of what may be asked again where no answer came: a question, an upload.

    Args:
        name: What its runs are called, with its parameters in braces; or what says so.
    """
    return _task(name, unanswered)


def once(name: str) -> Callable[[Body[P, R]], Task[P, Coroutine[Any, Any, R]]]:
    """Makes a task of what is asked again only where it never left this machine, since it makes or ends something.

    Args:
        name: What its runs are called, with its parameters in braces.
    """
    return _task(name, undelivered)


def paid(name: str) -> Callable[[Body[P, Result]], PaidTask[P]]:
    """Makes a task of a paid job, retried as `generate` is: the journal keeps every retry from paying twice.

    Args:
        name: What its runs are called, with its parameters in braces.
    """
    return paid_task(name=None, run_name=name)


def _task(name: str | Callable[[], str], may_help: CanHelp) -> Callable[[Body[P, R]], Task[P, Coroutine[Any, Any, R]]]:
    def made(body: Body[P, R]) -> Task[P, Coroutine[Any, Any, R]]:
        wrap = task(
            task_run_name=name,
            # What was true a moment ago is not what was asked for.
            cache_policy=NO_CACHE,
            retries=2,
            retry_delay_seconds=[2, 10],
            retry_jitter_factor=0.5,
            retry_condition_fn=may_help,
        )
        return wrap(body)

    return made


async def unanswered(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001, Prefect's signature
    """Tells whether RunningHub gave no usable answer: asked again, it may."""
    return isinstance(await state.aresult(raise_on_failure=False), TransportError)


async def undelivered(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001, Prefect's signature
    """Tells whether the request never left this machine."""
    return isinstance(await state.aresult(raise_on_failure=False), ConnectFailed)


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Checks a word before anything is sent.

    Args:
        name: The parameter.
        value: What was given.
        allowed: What it may be.

    Raises:
        InputError: It is none of these.
    """
    if value not in allowed:
        raise InputError(f"{name} cannot be {value!r}; it can be {', '.join(allowed)}. Nothing was sent.")


def words(name: str, value: object) -> str:
    """Checks a text that must say something before anything is sent.

    Args:
        name: The parameter.
        value: What was given.

    Returns:
        The text.

    Raises:
        InputError: It is empty, or no text.
    """
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{name} must be a text that says something, not {value!r}. Nothing was sent.")
    return value
