"""`generate_many`: many paid jobs at once, in one process and on few threads."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, TypeAlias, Unpack, get_args

from prefect.client.schemas.objects import State

from rh_prefect.display_texts import counted
from rh_prefect.errors import BudgetExceeded, EqualRequest, InputError, RunningHubError, jobs_failed
from rh_prefect.flow_runs.suspend_for_jobs import SUSPEND_GROUP, PendingTask, SuspendGroup, open_suspend_group
from rh_prefect.tasks.generate import check_request, generate, prepare_call
from rh_prefect.tasks.task_or_call import refuse_unknown, within_flow
from rh_prefect.works.job_options import JobOptions, Options, Request, Wait
from rh_prefect.works.journal.costs_and_budget import CURRENCY, Money, amount_text
from rh_prefect.works.journal.scope import delivered_at_end
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.result import Result
from rh_prefect.works.run_ledger import spending_of
from rh_prefect.works.work_runner import WorkCall, WorkRunner

AT_ONCE = 50
"""Number of jobs that start at once; an account usually has about as many slots."""

WAVE = 10
"""Number of task runs that start together. A thousand would block the event loop for seconds, and Prefect's server for
longer: it records about 25 task runs a second.
"""

LOOKED_UP_AT_ONCE = 16
"""Number of jobs whose records are read at once, for a list with a budget."""

BETWEEN_WAVES = 0.2
"""Seconds between two waves, so that the first jobs are submitted before the last jobs are started."""

_Job: TypeAlias = tuple[Request, dict[str, Any]]
"""A request, and the other arguments of `generate` for it."""


def generate_many(
    requests: Iterable[Request],
    *,
    takes: int = 1,
    labels: Sequence[str] | None = None,
    wait: Wait = "poll",
    scope: str | None = None,
    **options: Unpack[JobOptions],
) -> Coroutine[Any, Any, list[Result]]:
    """Runs many jobs at once, and waits until all have ended or failed.

    Use this instead of `generate.map`, which gives each waiting job a separate thread and event loop.

        clips = await generate_many([models.KlingV26ProImageToVideo(image_url=photo, prompt="waves", duration="5")
                                     for photo in photos], wait="suspend")

    Args:
        requests: The inputs of the jobs. RunningHub's limit decides how many run at once. Equal requests are refused
            before anything is paid.
        takes: The number of results of each request.
        labels: A label for each request; `label` is shared by all requests.
        wait: With `suspend`, the run suspends when all jobs are submitted, and is resumed when they have ended.
            Meanwhile it occupies no worker. This needs a deployment and a webhook receiver. Without these, and
            with `poll`, the run waits in its process.
        scope: Your own idempotency key; see `generate`.
        **options: Passed on to each `generate`; with `take=4`, the takes of each request begin at 4.

    Returns:
        The results, in the order of the requests; results of one request in the order of their takes.

    Raises:
        InputError: `requests` is not a list of inputs, or an option is not valid; nothing was sent.
        EqualRequest: Two of the requests are equal; nothing was paid.
        BudgetExceeded: The jobs together cost more than `budget` has left, or a price is not known; no job was
            submitted.
        JobsFailed: An `ExceptionGroup` of the errors of failed jobs. Its `results` contains the result or the error of
            each job. If the same flow run is run again, it pays only for missing results.
    """
    all_requests = _checked(requests, takes, labels)
    refuse_unknown("generate_many", options, [*(generate_many.__kwdefaults__ or ()), *JobOptions.__annotations__])
    Options(**options)  # what is wrong is refused here, and not by each of the jobs
    if not (options.get("same") or scope or options.get("reuse") == "always"):
        _refuse_equal(all_requests)
    first, shared = options.pop("take", 1), {**options, "scope": scope}
    named = [shared] * len(all_requests) if labels is None else [{**shared, "label": label} for label in labels]
    each = zip(all_requests, named, strict=True)
    jobs = [(one, {**more, "take": first + number}) for one, more in each for number in range(takes)]
    return within_flow(_run_jobs(jobs, wait, shared), "generate_many", scope)


def _checked(requests: Iterable[Request], takes: int, labels: Sequence[str] | None) -> list[Request]:
    """Returns the requests as a list; raises `InputError` if one of the three arguments is not valid."""
    if isinstance(requests, get_args(Request)):
        raise InputError(
            f"generate_many takes a list of inputs, not one {type(requests).__name__}. Nothing was sent. What to do: "
            "put the input in a list, or use generate."
        )
    found = list(requests)
    for one in found:
        check_request(one)
    if isinstance(takes, bool) or not isinstance(takes, int) or takes < 1:
        raise InputError(
            f"`takes` cannot be {takes!r}: it is the number of results of each request. Nothing was sent. What to do: "
            "pass a whole number of 1 or more."
        )
    if labels is not None and len(labels) != len(found):
        raise InputError(
            f"generate_many got {len(found)} requests and {len(labels)} labels. Nothing was sent. "
            "What to do: give one label for each request."
        )
    for label in labels or ():
        Options(label=label)
    return found


def _refuse_equal(requests: Sequence[Request]) -> None:
    """Raises `EqualRequest` if two requests have equal values; equal files with different names are detected later."""
    seen: dict[str, int] = {}
    for number, one in enumerate(requests, 1):
        first = seen.setdefault(repr(one), number)
        if first != number:
            raise EqualRequest(
                f"generate_many: requests {first} and {number} are equal ({one.model}). Nothing was paid. What to do: "
                "for several results of each request, pass takes=2 or more; to use one result for both, pass same=True."
            )


async def _run_jobs(jobs: Sequence[_Job], wait: Wait, options: Mapping[str, Any]) -> list[Result]:
    if jobs and options.get("budget") is not None:
        await _refuse_over_budget(jobs, options.get("scope"))
    with delivered_at_end():
        group = await open_suspend_group(wait)
        done = await _run_all(jobs, group)
        pending = [number for number, one in enumerate(done) if isinstance(one, PendingTask)]
        if group is not None and pending:
            await group.suspend()
            # Prefect has refused to suspend the run: the same calls wait for their tasks in this process.
            again = [(request, {**more, "same": True}) for request, more in map(jobs.__getitem__, pending)]
            for number, one in zip(pending, await _run_all(again, None), strict=True):
                done[number] = one
        for one in done:
            if isinstance(one, BaseException) and not isinstance(one, Exception):
                raise one  # a cancellation or a signal, which is no result
        if failed := [one for one in done if isinstance(one, Exception)]:
            error = jobs_failed(failed, total=len(done), what="jobs")
            error.results = done
            raise error
        return done


async def _refuse_over_budget(jobs: Sequence[_Job], scope: str | None) -> None:
    """Raises `BudgetExceeded` if the jobs together cost more than the rest of the run's budget."""
    first, options = jobs[0]
    chosen = Options(**{name: value for name, value in options.items() if name != "scope"})
    runner, call = await prepare_call(first, chosen, scope=scope, is_in_task=False)
    calls = [replace(call, request=one, take=more["take"]) for one, more in jobs]
    budget = Decimal(str(chosen.budget))
    await LOOP.call(_check_prices(runner, calls, budget, what=f"generate_many of {len(jobs)} jobs"))


async def _check_prices(runner: WorkRunner, calls: Sequence[WorkCall], budget: Decimal, *, what: str) -> None:
    """Raises `BudgetExceeded` if jobs together cost more than the rest of a budget; nothing is paid.

    Jobs with a result cost nothing. If the task of a job is in progress, the jobs are not refused, so that this task's
    result is downloaded; in that case, each job is checked before its own submission.
    """
    await runner.shared.pool.check_currency()
    at_once, prices = asyncio.Semaphore(LOOKED_UP_AT_ONCE), dict[str, Money | None]()

    async def look_up(call: WorkCall) -> bool:
        async with at_once:
            try:
                found = await runner.look_up(call)
                if not found.is_done and not found.is_in_progress:
                    prices[found.work] = await runner.shared.price(found.request, runner.store)
            except RunningHubError:
                return False  # the job itself fails with this error, and the others are made
            return found.is_in_progress

    is_begun = any(await asyncio.gather(*map(look_up, calls)))
    if prices and not is_begun:
        await _compare(runner, list(prices.values()), budget, what=what)


async def _compare(runner: WorkRunner, prices: Sequence[Money | None], budget: Decimal, *, what: str) -> None:
    spending = spending_of(runner.scope)
    await spending.complete()
    known = [one for one in prices if one is not None]
    currency = next((one.currency for one in known if one.currency), CURRENCY)
    cost = sum((one.amount for one in known), Decimal(0))
    spent, reserved = spending.spent(currency), spending.reserved(currency)
    unknown = len(prices) - len(known)
    if not unknown and spent + reserved + cost <= budget:
        return
    jobs = f"{counted(len(prices), 'job')} to be made"
    reason = f"cost {amount_text(cost)} {currency} together"
    advice = f"set a budget of at least {amount_text(spent + reserved + cost)}, or ask for fewer jobs"
    if unknown:
        reason = f"include {unknown} whose price neither the catalogue nor RunningHub's price preview has"
        advice = "run these without a budget"
    raise BudgetExceeded(
        f"{what}: the {jobs} {reason}; of the budget of {amount_text(budget)} {currency}, {amount_text(spent)} is spent"
        f" and {amount_text(reserved)} reserved by other jobs of this run. Nothing was submitted or paid. What to do: "
        f"{advice}; existing results cost nothing.",
        job=what,
        price=None if unknown else cost,
        currency=currency,
        budget=budget,
        spent=spent,
        reserved=reserved,
    )


async def _run_all(jobs: Sequence[_Job], group: SuspendGroup | None) -> list[Any]:
    runs: list[asyncio.Task[Result | PendingTask]] = []

    def end(_: object = None) -> None:
        if group is not None:
            LOOP.submit(group.end())

    if group is not None:
        LOOP.submit(group.expect(len(jobs)))
    try:
        for number, (one, options) in enumerate(jobs):
            if number and number % WAVE == 0:
                await asyncio.sleep(0 if number < AT_ONCE else BETWEEN_WAVES)
            runs.append(run := asyncio.ensure_future(_run(one, options, group)))
            run.add_done_callback(end)  # even if it is cancelled before it starts
        return list(await asyncio.gather(*runs, return_exceptions=True))
    finally:  # cancelled between two waves, it leaves no job running
        for _ in jobs[len(runs) :]:
            end()
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)


async def _run(request: Request, options: dict[str, Any], group: SuspendGroup | None) -> Result | PendingTask:
    SUSPEND_GROUP.set(group)  # in the context of this job's asyncio task
    # In a group, `generate` returns the state of its task run as soon as all jobs are submitted.
    done: Any = await generate(request, **options)
    outcome: Result | PendingTask = await done.aresult() if isinstance(done, State) else done
    return outcome
