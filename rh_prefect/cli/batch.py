"""`rh-prefect batch`: runs a model, or a short chain of models, on many rows."""

from __future__ import annotations

import asyncio
import shlex
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from rh_prefect.cli.argument_checks import batch_values, check_account, check_batch, check_store, printable
from rh_prefect.cli.options import PLACE, DryRun, Json, Place, Quiet, words_of
from rh_prefect.cli.output import print_json
from rh_prefect.cli.pipelines import selected_price, show_plan, with_enough_budget
from rh_prefect.cli.prefect_server import is_configured, refuse_blocks
from rh_prefect.cli.run_pipeline import in_new_flow_run
from rh_prefect.errors import BatchIncomplete, InputError
from rh_prefect.media.media import Media
from rh_prefect.pipelines.batch_pipeline import Batch, BatchFile, BatchOptions, write_batch
from rh_prefect.pipelines.plan.options import site_of
from rh_prefect.pipelines.plan.planned_steps import KnownWorks

if TYPE_CHECKING:
    from rh_prefect.cli.run_display import Watch
    from rh_prefect.flows.batch import BatchReport, RowResult
    from rh_prefect.pipelines.plan import Plan

_ROWS_PER_REASON = 3
"""Maximum number of rows that are printed for one reason."""


def batch(
    rows: str,
    *,
    options: Annotated[BatchOptions, Parameter(name="*")],
    values: Annotated[list[str] | None, Parameter(name="--set")] = None,
    chain: list[str] | None = None,
    place: Place = PLACE,
    print_: bool = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a model, or a short chain of models, on many rows, and report every row.

    Run the same batch again to continue it: only missing rows are paid for.

    Args:
        rows: A table (.csv, .tsv, .jsonl, .parquet), a folder or a glob.
        values: NAME=VALUE for every row; may be repeated; repeat a name to pass a list. @PATH is a file; 2.NAME=VALUE
            is a parameter of the second model.
        chain: Additional models; each takes the output of the previous model.
        print_: Print the pipeline that the batch runs, as YAML.
    """
    credentials, storage = place.blocks("batch")
    check_batch(rows, [options.model, *(chain or ())])
    given: dict[str, Any] = asdict(options) | {"credentials": credentials, "storage": storage}
    asked = Batch(rows, chain=chain or (), values=batch_values(values or ()), **given)
    if dry_run:
        plan = asyncio.run(_planned(asked))
        selected_price(plan, asked.selection)
        show_plan(plan, as_json=as_json)
        _refuse_invalid_rows(plan)
        return
    if print_:
        print(asyncio.run(_written(asked))[0].text, end="")
        return
    quiet |= as_json
    is_flow = is_configured()
    if not is_flow:
        refuse_blocks("batch", credentials, storage)
    check_account(credentials)
    check_store(storage)
    from rh_prefect.cli.run_display import Watch
    from rh_prefect.flows.batch.run import run_batch

    words = shlex.join(["rh-prefect", "batch", *(printable(word) for word in sys.argv[2:])])
    there, at = "" if is_flow else printable(place.out or ""), words_of(out=place.out, storage=storage)
    with Watch(command=words, quiet=quiet, out=there, place=at) as watch:
        report = _run_as_flow(asked, watch) if is_flow else asyncio.run(run_batch(asked, watch))
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        _say_report(report, watch, words, asked, quiet=quiet)
    if not report.is_complete:
        sys.exit(1)


def _run_as_flow(batch: Batch, watch: Watch) -> BatchReport:
    from rh_prefect import flows

    try:
        report: BatchReport = asyncio.run(
            in_new_flow_run(flows.batch, asdict(batch), (batch.credentials, batch.storage), watch)
        )
    except BatchIncomplete as error:
        report = error.report
    return report


def _refuse_invalid_rows(plan: Plan) -> None:
    """Raises an error if no row of a batch is valid, because a price of 0.00 would look like success."""
    rows = {one.item: one.problems for one in plan.instances if one.item}
    reasons = [problems[0] for problems in rows.values() if problems]
    if reasons and len(reasons) == len(rows):
        raise InputError(
            f"batch: {len(rows)} of {len(rows)} rows are invalid; the first reason: {reasons[0]}. Nothing was paid. "
            "What to do: correct the rows, or the options of the batch."
        )


async def _planned(batch: Batch) -> Plan:
    written, known = await _written(batch)
    return await written.plan(known)


async def _written(batch: Batch) -> tuple[BatchFile, KnownWorks]:
    """Returns the pipeline of a batch, and the works recorded in the batch's storage."""
    from rh_prefect.blocks.lookup import load_storage
    from rh_prefect.pipelines.known_works import open_records
    from rh_prefect.settings import get_settings

    settings, store = get_settings(), await load_storage(batch.storage)
    written = await write_batch(batch, site_of(settings.base_url), store)
    return written, open_records(store, settings)


def _say_report(report: BatchReport, watch: Watch, words: str, asked: Batch, *, quiet: bool) -> None:
    if quiet:
        print(f"{report.batch}: {report}\n{report.csv_uri}")
        return
    _say_missing_rows(report, watch)
    watch.say(f"{report.batch}: {report}", style="bold")
    watch.say(f"each row: {report.csv_uri}")
    if folders := {row.result.uri.rpartition("/")[0] for row in report.rows if isinstance(row.result, Media)}:
        watch.say(f"outputs: {', '.join(sorted(folders))}")
    if report.gallery:
        watch.say(f"gallery: {report.gallery}")
    if report.not_started:
        words = with_enough_budget(words, asyncio.run(_planned(asked)), asked.selection)
        watch.say_command("run what was not started, with a sufficient budget", words)
    elif not report.is_complete:
        watch.say_command("run what is missing", words)
    if report.csv_uri and report.done:
        watch.say_how_to_open(report.csv_uri)


def _say_missing_rows(report: BatchReport, watch: Watch) -> None:
    """Prints the rows without a result, the first few for each reason."""
    rows: dict[str, list[RowResult]] = {}
    for row in report.rows:
        if row.state != "done":
            rows.setdefault(f"{row.state}: {row.reason}", []).append(row)
    for reason, some in rows.items():
        for row in some[:_ROWS_PER_REASON]:
            label = f" ({row.label})" if row.label != str(row.row) else ""
            watch.say(f"row {row.row}{label}: {reason}")
        if len(some) > _ROWS_PER_REASON:
            watch.say(f"{len(some) - _ROWS_PER_REASON} more rows: {reason}")
