"""The Python function `batch`, which runs the same work for many rows and reports the result of each row."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePath
from typing import Any

from prefect.logging import get_run_logger

from rh_prefect.blocks.lookup import load_pool_context, load_storage
from rh_prefect.display_names import beginning_of_prompt
from rh_prefect.errors import ConfigError, InputError, StoreError
from rh_prefect.flow_runs import job_progress
from rh_prefect.flow_runs.flow_scope import FlowScope, current_scope, override_scope
from rh_prefect.flow_runs.job_progress import expect_jobs
from rh_prefect.flow_runs.queries import RecordedScope
from rh_prefect.flow_runs.suspension import SuspendGroup, open_suspend_group
from rh_prefect.flows.batch import report as reports
from rh_prefect.flows.batch.attempt_records import batch_id, enter, find_state_place, mark_of
from rh_prefect.flows.batch.batch_plan import ChainStep, InvalidRow, Plan, Stage, Work, make_plan
from rh_prefect.flows.batch.executor import Progress, RowExecutor
from rh_prefect.flows.batch.report import BatchReport, RowResult, filled_in
from rh_prefect.flows.batch.row_sources import RowInput, open_source
from rh_prefect.media.input_access_policy import allow_below
from rh_prefect.media.input_files import shown
from rh_prefect.media.store import MediaStore
from rh_prefect.table_files import Source
from rh_prefect.works.journal.budget import SpendTracker
from rh_prefect.works.journal.job_records import JobView
from rh_prefect.works.journal.repeated_calls import REQUESTED_KEYS
from rh_prefect.works.journal.scope import Scope
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.options import Options, Reuse, Wait
from rh_prefect.works.run_ledger import spending_of

_MAX_LISTED = 10
"""How many rows of one reason, and how many reasons, an error names."""

_JOBS_WITHOUT_ROW = (
    "%d job(s) that runs of this batch have paid for belong to no row of its report, since the row or a file of it was "
    "changed or removed, or this run has not reached it. They have cost %s, which is not in the sum of the rows: %s. "
    "What to do: `rh-prefect jobs collect %s` downloads their results at no cost"
)

_SUBJECT_SHOWN = 80
"""How many characters of a row's prompt its report shows."""

_SETTLE = 5.0
"""Seconds that the report of a run that is broken off waits for submits in flight."""

_CHECKS = 16
"""How many rows are looked at together: their files before a strict batch, their results before one that goes on."""


async def batch(
    rows: RowInput,
    *,
    model: str,
    chain: Sequence[ChainStep] = (),
    values: Mapping[str, object] | None = None,
    label_column: str | None = None,
    ignore_columns: Iterable[str] = (),
    budget: float | None = None,
    strict: bool = False,
    attempts: int = 1,
    reuse: Reuse = "never",
    wait: Wait = "poll",
    credentials: str | None = None,
    storage: str | None = None,
) -> BatchReport:
    """Runs a model, or a short chain of models, on many rows, and returns a report; call it in a flow.

    A row that fails does not stop the others. Running the same batch again, in the same flow run or in a new one, does
    only what is missing; what failed is paid for again, unless the same request must fail again.

        report = await batch("s3://bucket/photos", model="kling-v2.6-pro-image-to-video",
                              values={"prompt": "waves"}, chain=["rhart-video/video-upscaler"], budget=25)

    Args:
        rows: A table (.csv, .tsv, .jsonl, .parquet), a folder or S3 prefix, a glob, or a list of parameters or
            files. A table's columns are parameters of the models, its relative paths start from its own folder.
        model: The model, by any of its names.
        chain: Further models, each a name or an object with `model` and parameters; each takes the output of the one
            before.
        values: Parameters for every row; a name is of the first model that has it, `2.name` is the second's.
        label_column: The column that names outputs.
        ignore_columns: Columns that are not parameters.
        budget: What all paid jobs of the flow run that began the batch may cost together: those of all runs of the
            batch, and what else that flow run has paid for.
        strict: Whether one bad row, or one bad file, stops the batch before anything is paid.
        attempts: Maximum number of tasks paid for one job in one run, failed ones included; the next run of the
            batch makes failed rows again.
        reuse: `always` serves identical earlier requests from the storage, at no cost.
        wait: How to wait: `suspend` suspends the run when every row's job is submitted, so that it holds no worker, and
            continues when these have ended; once for each step of a chain. See `generate_many`.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block; by default RH_API_KEY and RH_BASE_URL.
        storage: Name of a `MediaStorage` block; by default RH_STORAGE_URL.

    Returns:
        The sums; every item is in the files that it names.

    Raises:
        InputError: The rows cannot be read, or, where it is strict, one of them is bad.
        RunningHubError: The batch as a whole cannot be run; see `rh_prefect.errors`.
    """
    here = current_scope()
    if here is None:
        raise ConfigError("batch: called outside of a flow. What to do: call it in a flow, or: rh-prefect batch ROWS.")
    # Here, and not row by row: an invalid option is invalid for all rows.
    Options(budget=budget, attempts=attempts, reuse=reuse)
    plan = make_plan(model, chain=chain, values=values, label_column=label_column, ignored=ignore_columns)
    payer, store = await load_pool_context(credentials), await load_storage(storage)
    place = await find_state_place(store)
    source = await asyncio.to_thread(open_source, rows, store=store, fields={"flow": here.flow, "run": here.run})
    if source.root:
        allow_below(source.root)
    sorted_out = await asyncio.to_thread(_sort_out, plan, source)
    about = {"source": source.name, "models": [stage.model.name for stage in plan.stages], "place": store.url}
    name = batch_id([source.identity, plan.identity, payer.pool.site, store.url])
    known = await asyncio.to_thread(reports.earlier, name, store=store)
    if strict:
        done = await asyncio.to_thread(_done_earlier, sorted_out, known, store)
        _refuse_bad([row for row in sorted_out if row.number not in done])
    await asyncio.to_thread(_check, store)
    scope = await enter(name, place, here, about=about)
    options = {
        "budget": budget,
        "attempts": attempts,
        "reuse": reuse,
        "credentials": credentials,
        "storage": storage,
    }
    run = _Run(name, plan, store, here, scope, about, options, wait)
    if strict:
        await run.check([work for work in sorted_out if isinstance(work, Work)])
    return await run.whole(sorted_out, known)


def _check(store: MediaStore) -> None:
    try:
        store.check()
    except StoreError as error:
        raise StoreError(
            f"batch: it was not started, and this run has not paid for anything. {error.message}"
        ) from error


def _sort_out(plan: Plan, source: Source) -> list[Work | InvalidRow]:
    found = list(plan.works(source))
    if not found:
        raise InputError(
            f"batch: there are no rows in {source.name}. What to do: check its name, and whether its "
            "files have a type that the model accepts."
        )
    return found


def _refuse_bad(rows: Sequence[Work | InvalidRow]) -> None:
    reasons: dict[str, list[int]] = {}
    for row in rows:
        if isinstance(row, InvalidRow):
            reasons.setdefault(row.reason, []).append(row.number)
    bad = sum(map(len, reasons.values()))
    if bad:
        lines = [f"{_numbered(numbers)}: {reason}" for reason, numbers in reasons.items()]
        more = [f"… and {len(lines) - _MAX_LISTED} more reasons"] if len(lines) > _MAX_LISTED else []
        head = f"batch: {bad} of {len(rows)} rows are invalid and `strict` is set, so nothing was paid."
        raise InputError("\n".join([head, *lines[:_MAX_LISTED], *more]))


def _numbered(rows: Sequence[int]) -> str:
    named = ", ".join(map(str, rows[:_MAX_LISTED]))
    return f"row{'s' * (len(rows) > 1)} {named}" + (
        f" and {len(rows) - _MAX_LISTED} more" if len(rows) > _MAX_LISTED else ""
    )


@dataclass(frozen=True)
class _Run:
    """One run of a batch."""

    name: str
    plan: Plan
    store: MediaStore
    here: FlowScope
    scope: RecordedScope
    about: dict[str, Any]
    options: Mapping[str, Any]
    wait: Wait

    async def check(self, works: Sequence[Work]) -> None:
        """Checks all files before anything is paid."""
        rows: list[Work | InvalidRow] = []
        for start in range(0, len(works), _CHECKS):
            rows += await asyncio.gather(*(self._check(work) for work in works[start : start + _CHECKS]))
        _refuse_bad(rows)

    async def _check(self, work: Work) -> Work | InvalidRow:
        payer = await load_pool_context(self.options["credentials"])
        request = self.plan.stages[0].build_request(work.params[0])
        try:
            await LOOP.call(payer.check(request, scope=self.scope, store=self.store, label=work.label))
        except InputError as error:
            return InvalidRow(work.number, error.message, work.label)
        return work

    async def whole(self, rows: Sequence[Work | InvalidRow], known: Mapping[str, RowResult]) -> BatchReport:
        """Runs the rows that are not done yet, and always returns the report; `known` are those of an earlier one."""
        items = await asyncio.to_thread(_items, rows, self.plan, self.store)
        budget = self.options["budget"]
        limit = None if budget is None else Decimal(str(budget))
        progress = Progress(self.name, len(rows), self.scope.journal.scope, budget=limit)
        ledger = await LOOP.call(_ledger(self.scope))
        executor = RowExecutor(self.name, self.plan, self.options, self.scope, self.store, ledger, progress, items)
        for item in known.values():
            executor.know(item)
        missing = await self._take_earlier(rows, executor, known)
        expect_jobs(len(missing) * len(self.plan.stages))
        progress.start([item for item in items.values() if item.state != "unfinished"])
        together = await open_suspend_group(self.wait)
        done, missing = await self._run(executor, self._turns(missing, known, together), together)
        if together is not None and missing:
            await together.suspend()
            done, missing = await self._run(executor, [missing], None)
        return done

    def _turns(
        self, works: Sequence[Work], known: Mapping[str, RowResult], together: SuspendGroup | None
    ) -> list[Sequence[Work]]:
        """Splits the rows into turns: within a budget, rows that were never tried come before rows that have failed."""
        failed = [work for work in works if work.id in known and known[work.id].state == "failed"]
        again = {work.number for work in failed}
        if self.options["budget"] is None or together is not None or not failed:
            return [works]
        return [[work for work in works if work.number not in again], failed]

    async def _run(
        self, executor: RowExecutor, turns: Sequence[Sequence[Work]], together: SuspendGroup | None
    ) -> tuple[BatchReport, list[Work]]:
        """Runs rows in turns; returns the report, and the rows to run again when their tasks have ended."""
        job_progress.listeners.append(executor.progress.take_event)
        try:
            with override_scope(self.scope):
                remaining = [work for works in turns for work in await executor.run(works, together)]
        except BaseException:
            # The task of a submit in flight is not known yet, and it may be paid for.
            await asyncio.shield(LOOP.call(LOOP.settle(_SETTLE)))
            raise
        finally:
            job_progress.listeners.remove(executor.progress.take_event)
            # Also after an interruption: the results so far are useful to the user.
            done = await asyncio.shield(self._account(executor))
        return done, remaining

    async def _take_earlier(
        self, rows: Sequence[Work | InvalidRow], executor: RowExecutor, known: Mapping[str, RowResult]
    ) -> list[Work]:
        """Takes over the results of an earlier run that still exist; returns the rows that are left to run.

        A row that is done stays so without its input files: nothing is to be made from them.
        """

        def is_same(row: Work | InvalidRow) -> bool:
            files = executor.items[row.number].files
            return row.id in known and (isinstance(row, InvalidRow) or known[row.id].files == files)

        unchanged = list(filter(is_same, rows))
        done = await asyncio.to_thread(_done_earlier, unchanged, known, self.store)
        for row in unchanged:
            if row.number in done:
                executor.items[row.number] = known[row.id].model_copy(
                    update={"row": row.number, "label": row.label, "subject": executor.items[row.number].subject}
                )
                executor.keep(row)
                REQUESTED_KEYS[executor.scope.journal.scope].update(executor.keys(row.id))
        return [row for row in rows if isinstance(row, Work) and row.number not in done]

    async def _account(self, executor: RowExecutor) -> BatchReport:
        items, scope = [executor.items[number] for number in sorted(executor.items)], self.scope.journal.scope
        found = await LOOP.call(reports.recorded_jobs(self.scope.journal))
        items = await LOOP.call(_filled_in(items, executor, found))
        keys = {key for item in items for key in executor.keys(item.id)}
        jobs_without_row = reports.left_out(found.values(), keys, attempt=self.scope.attempt)
        report = reports.summarise(
            self.name,
            items,
            store=self.store,
            counted=lambda unit: executor.ledger.spent(unit) + executor.ledger.reserved(unit),
            left_out={f"{scope}/{key}": costs for key, costs in jobs_without_row.items()},
        )
        about = {**self.about, "flow_run": self.here.journal.scope, "scope": scope}
        try:
            await asyncio.to_thread(reports.write, report, items, store=self.store, about=about)
        finally:
            await reports.show(report, items)
        self._warn_of_jobs_without_row(report)
        return report

    def _warn_of_jobs_without_row(self, report: BatchReport) -> None:
        jobs, scope = report.left_out, self.scope.journal.scope
        if jobs:
            more = f" and {len(jobs) - _MAX_LISTED} more" if len(jobs) > _MAX_LISTED else ""
            named = ", ".join(jobs[:_MAX_LISTED]) + more
            get_run_logger().warning(_JOBS_WITHOUT_ROW, len(jobs), report.left_out_costs, named, scope)


def _done_earlier(rows: Sequence[Work | InvalidRow], known: Mapping[str, RowResult], store: MediaStore) -> set[int]:
    """Returns the numbers of the rows that an earlier run has done, and whose results still exist."""

    def is_there(row: Work | InvalidRow) -> bool:
        # The stored result decides: outputs that a person has moved away are not made again.
        name = store.name_of(known[row.id].record)
        return name is not None and store.exists(name)

    done = [row for row in rows if row.id in known and known[row.id].state == "done"]
    with ThreadPoolExecutor(_CHECKS) as pool:
        return {row.number for row, found in zip(done, pool.map(is_there, done)) if found}


async def _filled_in(
    items: Sequence[RowResult], executor: RowExecutor, found: Mapping[str, JobView]
) -> list[RowResult]:
    scope = executor.scope.journal.scope
    return filled_in(items, executor.keys, scope=scope, found=found, ledger=executor.ledger, known=executor.known)


def _items(rows: Sequence[Work | InvalidRow], plan: Plan, store: MediaStore) -> dict[int, RowResult]:
    with ThreadPoolExecutor(_CHECKS) as pool:
        return {row.number: item for row, item in zip(rows, pool.map(lambda row: _item(row, plan, store), rows))}


def _item(row: Work | InvalidRow, plan: Plan, store: MediaStore) -> RowResult:
    if isinstance(row, InvalidRow):
        reason = f"{reports.BAD_INPUT}{row.reason}"
        return RowResult(row=row.number, id=row.id, label=row.label, state="failed", reason=reason)
    reason = "the run stopped before it was complete; run it again"
    mark = mark_of(plan.stages, row.params, options_for=store.options_for)
    subject = _subject(row, plan.stages[0])
    return RowResult(row=row.number, id=row.id, label=row.label, subject=subject, reason=reason, files=mark)


def _subject(row: Work, first: Stage) -> str:
    """Returns what a person recognises a row by that has no label: the beginning of its prompt, or its file's name."""
    values = row.params[0]
    given = next(filter(None, (values.get(param.name) for param in first.model.file_params)), "")
    file = given[0] if isinstance(given, list) else given
    return beginning_of_prompt(values, _SUBJECT_SHOWN) or PurePath(shown(str(getattr(file, "uri", file)))).name


async def _ledger(scope: Scope) -> SpendTracker:
    return spending_of(scope)
