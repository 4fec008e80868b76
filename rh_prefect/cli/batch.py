"""`rh-prefect batch`: runs a model, or a short chain of models, on many rows."""

from __future__ import annotations

import asyncio
import shlex
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from rh_prefect.cli.argument_checks import batch_values, check_account, check_batch, check_store, printable
from rh_prefect.cli.options import PLACE, DryRun, Json, Place, Quiet, words_of
from rh_prefect.cli.output import print_json
from rh_prefect.cli.pipelines import show_plan
from rh_prefect.cli.prefect_server import is_configured, refuse_blocks
from rh_prefect.cli.run_pipeline import in_new_flow_run
from rh_prefect.errors import BatchIncomplete
from rh_prefect.pipelines.plan.options import site_of
from rh_prefect.works.options import Reuse

if TYPE_CHECKING:
    from rh_prefect.cli.run_display import Watch
    from rh_prefect.flows.batch import BatchReport, RowResult
    from rh_prefect.pipelines.plan import Plan

_ROWS_PER_REASON = 3
"""How many rows of one reason are printed one by one."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class _Options:
    """The options of the flow `batch`.

    Attributes:
        model: The model, by any of its names.
        set: NAME=VALUE for every row; may be repeated; repeat a name to pass a list. @PATH is a file; 2.NAME=VALUE
            is a parameter of the second model.
        chain: Additional models; each takes the output of the previous model.
        label_column: The column with the names of outputs.
        ignore_columns: Columns that are not parameters.
        budget: What the rows may cost together in all runs, in the account's currency; by default without a limit.
        strict: Stop before anything is paid if one row is invalid.
        attempts: Maximum number of tasks paid for one job in one run, failed ones included.
        reuse: `always` takes the results of identical earlier requests from the storage, at no cost.
        only: Steps to make, as in `rows.clip`.
        items: Rows to make, by their labels or numbers.
        sample: Make only the first rows.
    """

    model: str
    set: list[str] | None = None
    chain: list[str] | None = None
    label_column: str | None = None
    ignore_columns: list[str] | None = None
    budget: Annotated[float | None, Parameter(validator=validators.Number(gt=0))] = None
    strict: bool = False
    attempts: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 1
    reuse: Reuse = "never"
    only: list[str] | None = None
    items: list[str] | None = None
    sample: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0


def batch(
    rows: Annotated[str, Parameter(help="A table (.csv, .tsv, .jsonl, .parquet), a folder or a glob.")],
    *,
    options: _Options,
    place: Place = PLACE,
    print_: Annotated[bool, Parameter(name="--print", help="Print the pipeline that the batch runs, as YAML.")] = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a model, or a short chain of models, on many rows, and report every row.

    Run the same batch again to continue it: only missing rows are paid for.
    """
    credentials, storage = place.blocks("batch")
    check_batch(rows, [options.model, *(options.chain or ())])
    values = batch_values(options.set or ())
    given = {name: value for name, value in asdict(options).items() if name != "set"}
    parameters = {"rows": rows, "values": values, "credentials": credentials, "storage": storage, **given}
    if print_ or dry_run:
        _show_batch(parameters, as_plan=dry_run, as_json=as_json)
        return
    quiet |= as_json
    is_flow = is_configured()
    if not is_flow:
        refuse_blocks("batch", credentials, storage)
    check_account(credentials)
    check_store(storage)
    from rh_prefect.cli.run_display import Watch
    from rh_prefect.flows.batch.run import Batch

    words = shlex.join(["rh-prefect", "batch", *(printable(word) for word in sys.argv[2:])])
    there, at = "" if is_flow else printable(place.out or ""), words_of(out=place.out, storage=storage)
    with Watch(command=words, quiet=quiet, out=there, place=at) as watch:
        if is_flow:
            report = _run_as_flow(parameters, (credentials, storage), watch)
        else:
            given = {name: value for name, value in parameters.items() if value is not None}
            report = asyncio.run(Batch(**given).run_here(watch))
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        _say_report(report, watch, words, quiet=quiet)
    if not report.is_complete:
        sys.exit(1)


def _run_as_flow(parameters: dict[str, Any], blocks: tuple[str | None, str | None], watch: Watch) -> BatchReport:
    from rh_prefect import flows

    try:
        report: BatchReport = asyncio.run(in_new_flow_run(flows.batch, parameters, blocks, watch))
    except BatchIncomplete as error:
        report = error.report
    return report


def _show_batch(parameters: dict[str, Any], *, as_plan: bool, as_json: bool) -> None:
    """Prints the pipeline of a batch, or its plan; nothing is paid."""
    from rh_prefect.blocks.lookup import load_storage
    from rh_prefect.flows.batch.run import Batch
    from rh_prefect.pipelines.known_works import open_records
    from rh_prefect.settings import get_settings

    batch = Batch(**{name: value for name, value in parameters.items() if value is not None})

    async def make() -> Plan | None:
        settings, store = get_settings(), await load_storage(batch.storage)
        await batch.write(site_of(settings.base_url), store)
        return await batch.plan(open_records(store, settings)) if as_plan else None

    found = asyncio.run(make())
    if found is None:
        print(batch.file.text, end="")
        return
    show_plan(found, as_json=as_json)


def _say_report(report: BatchReport, watch: Watch, words: str, *, quiet: bool) -> None:
    if quiet:
        print(report.csv_uri)
        return
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
    watch.say(f"{report.batch}: {report}", style="bold")
    watch.say(f"each row: {report.csv_uri}")
    if report.not_started:
        watch.say(f"run what was not started, with a larger --budget: {words}")
    elif not report.is_complete:
        watch.say(f"run what is missing: {words}")
    if report.csv_uri and report.done:
        watch.say_how_to_open(report.csv_uri)
