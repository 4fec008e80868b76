"""`rh-prefect batch`: the same work on many rows, with a line that says how far it is and an account of every row."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, validators

from rh_prefect.cli.api import prefect_api
from rh_prefect.cli.argument_checks import check_batch
from rh_prefect.cli.run import Budget, Credentials, Out, Storage
from rh_prefect.errors import InputError

if TYPE_CHECKING:
    from prefect import Flow

    from rh_prefect.flows.batch import BatchReport

_Many = Parameter(negative="")


def batch(
    rows: str,
    *,
    model: Annotated[str, Parameter(help="The model, by any of its names.")],
    chain: Annotated[
        list[str] | None,
        _Many,
        Parameter(help="A further model, which takes the output of the one before; repeatable."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        _Many,
        Parameter(name="--set", help="NAME=VALUE: a parameter for every row; 2.NAME=VALUE is the second model's."),
    ] = None,
    label_column: Annotated[str | None, Parameter(help="The column that names outputs.")] = None,
    ignore_column: Annotated[list[str] | None, _Many, Parameter(help="A column that is no parameter.")] = None,
    out: Out = None,
    budget: Budget = None,
    strict: Annotated[bool, Parameter(help="One bad row stops it before anything is paid.", negative="")] = False,
    max_attempts: Annotated[
        int, Parameter(help="Tasks that one job may pay for, failed ones included.", validator=validators.Number(gte=1))
    ] = 3,
    reuse: Annotated[
        Literal["never", "always"], Parameter(help="Whether what lies in the place already is served at no cost.")
    ] = "never",
    credentials: Credentials = None,
    storage: Storage = None,
) -> None:
    """Run a model on every row of a manifest or every file of a folder; run again, it does only what is missing.

    Args:
        rows: A manifest (.csv, .tsv, .jsonl, .parquet), a folder, an S3 prefix, or a glob in quotes.
        model: The model, by any of its names.
        chain: A further model.
        set_: A parameter for every row.
        label_column: The column that names outputs.
        ignore_column: A column that is no parameter.
        out: Where files go.
        budget: What the batch may cost in all.
        strict: Whether one bad row stops it.
        max_attempts: Tasks that one job may pay for.
        reuse: Whether to serve what lies in the place already.
        credentials: Name of a RunningHubCredentials or RunningHubPool block.
        storage: Name of a MediaStorage block.
    """
    check_batch(rows, [model, *(chain or ())], out=out, storage=storage)
    parameters = {
        "rows": rows,
        "model": model,
        "chain": chain,
        "values": dict(map(_pair, set_ or ())),
        "label_column": label_column,
        "ignore_columns": ignore_column,
        "budget": budget,
        "strict": strict,
        "max_attempts": max_attempts,
        "reuse": reuse,
        "credentials": credentials,
        "storage": storage,
    }
    if out is not None:
        os.environ["RH_OUT"] = out
    with prefect_api():
        account = _run(parameters, sys.argv[1:])
    if not account.is_complete:
        sys.exit(1)


def _pair(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not (name and equals):
        raise InputError(f"batch: --set {given!r} is no NAME=VALUE. What to do: as in --set duration=5.")
    return name, value


def _run(parameters: dict[str, Any], words: Sequence[str]) -> BatchReport:
    from rh_prefect.cli.batch_console import BatchConsole
    from rh_prefect.errors import BatchIncomplete

    with BatchConsole(words) as watch:
        try:
            account: BatchReport = asyncio.run(_in_flow_run(parameters, watch))
        except BatchIncomplete as error:
            account = error.account
    watch.summary(account)
    return account


async def _in_flow_run(parameters: dict[str, Any], watch: Any) -> BatchReport:
    from rh_prefect import flows
    from rh_prefect.flow_runs.prefect_internals import drain
    from rh_prefect.flow_runs.resume import create, rerun

    flow: Flow[..., Any] = flows.batch
    flow_run_id = str(await create(flow, parameters))
    watch.started(flow_run_id)
    try:
        account: BatchReport = await rerun(flow, flow_run_id)
    finally:
        await drain()
    return account
