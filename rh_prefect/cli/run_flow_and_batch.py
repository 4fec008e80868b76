"""`rh-prefect run` and `rh-prefect batch`: run a flow in this process, and show its jobs and how to resume it.

The options of a command are the parameters of its flow.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from rh_prefect.cli.argument_checks import (
    batch_values,
    check_account,
    check_batch,
    check_call,
    check_store,
    printable,
)
from rh_prefect.cli.commands_from_flows import FlowSignature, as_command, composed_flows, flow_signature, options
from rh_prefect.cli.pipelines import words_of
from rh_prefect.cli.prefect_server import is_configured, prefect_api, refuse_blocks
from rh_prefect.cli.run_pipeline import DryRun, in_new_flow_run, run_to_end
from rh_prefect.cli.run_pipeline import run as run_pipeline
from rh_prefect.errors import BatchIncomplete, InputError
from rh_prefect.pipelines.pipeline import site_of

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun

    from rh_prefect.cli.run_display import Watch
    from rh_prefect.flows.batch import BatchReport, RowResult
    from rh_prefect.pipelines.plan import Plan

Out = Annotated[
    str | None, Parameter(help="Where files go: a folder or an fsspec URL; by default RH_STORAGE_URL.", negative=())
]
Resume = Annotated[str | None, Parameter(help="Id of a flow run to resume; nothing is paid for twice.", negative=())]
Quiet = Annotated[bool, Parameter(help="Print the results only, without progress.", negative=())]
Assignments = Annotated[
    list[str] | None,
    Parameter(
        name="--set",
        negative=(),
        help="NAME=VALUE; may be repeated; repeat a name to pass a list. VALUE is parsed as JSON if possible, "
        "except for text parameters; @PATH is a file. In a batch, 2.NAME=VALUE sets a parameter of the "
        "second model.",
    ),
]
Print = Annotated[bool, Parameter(name="--print", help="Print the pipeline that the batch runs, as YAML.", negative=())]
_ROWS_PER_REASON = 3
"""How many rows of one reason are printed one by one."""

_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_OUT = inspect.Parameter("out", _KEYWORD, default=None, annotation=Out)
_RESUME = inspect.Parameter("resume", _KEYWORD, default=None, annotation=Resume)
_QUIET = inspect.Parameter("quiet", _KEYWORD, default=False, annotation=Quiet)
_PRINT = inspect.Parameter("print_", _KEYWORD, default=False, annotation=Print)
_DRY_RUN = inspect.Parameter("dry_run", _KEYWORD, default=False, annotation=DryRun)
_SET = inspect.Parameter("set_", _KEYWORD, default=None, annotation=Assignments)
_FILES = ("image", "video", "videos")
"""Parameters of flows that are files."""

run_app = App(name="run", help="Run a pipeline's file or a flow in this process; `--resume` resumes a flow's run.")


def _flow_command(flow: FlowSignature) -> Callable[..., None]:
    """Builds the command of a composed flow; a required list is given as positional arguments."""
    listed = [name for name in flow.required if "list[str]" in str(flow.parameters[name].annotation)]

    def run(
        *values: str, out: str | None = None, resume: str | None = None, quiet: bool = False, **parameters: Any
    ) -> None:
        if values or resume is None:
            parameters |= {name: list(values) for name in listed}
        files = tuple(name for name in _FILES if name in parameters)
        needs = tuple(flow.required)
        _run(flow.function, parameters, needs=needs, files=files, out=out, resume=resume, quiet=quiet)

    rest = [inspect.Parameter(name, inspect.Parameter.VAR_POSITIONAL, annotation=str) for name in listed]
    return as_command(run, flow, [*rest, *options(flow, without=listed), _OUT, _RESUME, _QUIET])


def _model_command() -> Callable[..., None]:
    flow = flow_signature("models", "any_model")
    model = inspect.Parameter("model", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=str | None)
    own = options(flow, without=("model", "params", "is_custom"))
    return as_command(_run_model, flow, [model, _SET, *own, _OUT, _RESUME, _DRY_RUN, _QUIET])


def _run_model(
    model: str | None = None,
    *,
    set_: list[str] | None = None,
    out: str | None = None,
    resume: str | None = None,
    dry_run: bool = False,
    quiet: bool = False,
    **more: Any,
) -> None:
    from rh_prefect.cli.argument_checks import files_in, read_assignments
    from rh_prefect.models import ModelInput, any_input

    if model is None and resume is None:
        raise InputError(
            "run model: no model is given. What to do: pass a model or endpoint, or pass `--resume RUN_ID`."
        )
    params = read_assignments(model, set_ or [])
    own: dict[str, Any] = {"model": model, "params": params}
    if resume is not None:
        own = {name: value for name, value in own.items() if value}
    elif model is not None:  # errors are reported before a server is started
        own["is_custom"] = is_custom = "/" in model and not _is_known(model)
        request = any_input(model, params, is_custom=is_custom, price=more["price"])
        check_call("run model", {"set": files_in(params)}, files=("set",))
        if dry_run:
            price = request.estimate() if isinstance(request, ModelInput) else request.price
            print(f"{request.model}: {price or 'its price is not known'}. Nothing was sent.")
            return
    _run("model", own | more, needs=(), out=out, resume=resume, quiet=quiet)


def _batch_command() -> Callable[..., None]:
    flow = flow_signature("batch/flow", "batch")
    rows = inspect.Parameter("rows", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=str)
    model = inspect.Parameter("model", _KEYWORD, annotation=str)
    own = options(flow, without=("rows", "model", "values"), types={"chain": list[str] | None})
    return as_command(_run_batch, flow, [rows, model, _SET, *own, _OUT, _PRINT, _DRY_RUN, _QUIET])


def _run_batch(
    rows: str,
    *,
    model: str,
    set_: list[str] | None,
    out: str | None,
    print_: bool = False,
    dry_run: bool = False,
    quiet: bool,
    **more: Any,
) -> None:
    check_batch(rows, [model, *(more["chain"] or ())], out=out, storage=more["storage"])
    parameters = {"rows": rows, "model": model, "values": batch_values(set_ or ()), **more}
    if out is not None:
        os.environ["RH_STORAGE_URL"] = out
    if print_ or dry_run:
        _show_batch(parameters, as_plan=dry_run)
        return
    blocks = more["credentials"], more["storage"]
    is_flow = is_configured()
    if not is_flow:
        refuse_blocks("batch", *blocks)
    check_account("batch", blocks[0])
    check_store(blocks[1])
    from rh_prefect.cli.run_display import TerminalPages, Watch
    from rh_prefect.flows.batch.run import Batch

    words = shlex.join(["batch", *(printable(word) for word in sys.argv[2:])])
    there, place = "" if is_flow else printable(out or ""), words_of(out=out, storage=more["storage"])
    with Watch(command=words, is_resumable=False, quiet=quiet, out=there, place=place) as watch:
        if is_flow:
            report = _run_as_flow(parameters, blocks, watch, say=not quiet)
        else:
            given = {name: value for name, value in parameters.items() if value is not None}
            report = asyncio.run(Batch(**given).run_here(TerminalPages(watch)))
    _say_report(report, watch, words, quiet=quiet)
    if not report.is_complete:
        sys.exit(1)


def _run_as_flow(
    parameters: dict[str, Any], blocks: tuple[str | None, str | None], watch: Watch, *, say: bool
) -> BatchReport:
    from rh_prefect import flows

    with prefect_api(say=say):
        try:
            report: BatchReport = asyncio.run(in_new_flow_run(flows.batch, parameters, blocks, watch))
        except BatchIncomplete as error:
            report = error.report
    return report


def _show_batch(parameters: dict[str, Any], *, as_plan: bool) -> None:
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
    elif found.problems:
        print("\n".join(map(str, found.problems)), file=sys.stderr)
        sys.exit(1)
    else:
        print(found.table())


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
        watch.say(f"run what was not started, with a larger --budget: rh-prefect {words}")
    elif not report.is_complete:
        watch.say(f"run what is missing: rh-prefect {words}")
    if report.csv_uri and report.done:
        watch.say_how_to_open(report.csv_uri)


def _is_known(name: str) -> bool:
    """Returns whether the catalogue has a model of this name; if not, prints that the name is used as an endpoint."""
    from rh_prefect.catalog import get
    from rh_prefect.errors import UnknownModelError

    try:
        get(name)
    except UnknownModelError as error:
        print(
            f"The catalogue has no model {name!r}; the nearest are {', '.join(error.nearest)}. The name "
            "is used as an endpoint, and only its file parameters are checked.",
            file=sys.stderr,
        )
        return False
    return True


def _run(
    name: str,
    parameters: dict[str, Any],
    *,
    needs: tuple[str, ...],
    files: tuple[str, ...] = (),
    out: str | None,
    resume: str | None,
    quiet: bool = False,
) -> None:
    # All checks that do not need a server, which takes seconds to start.
    command = f"run {name.replace('_', '-')}"
    values = {**parameters, "out": out}
    check_call(command, values, needs=() if resume else needs, files=() if resume else files, resume=resume)
    if out is not None:
        os.environ["RH_STORAGE_URL"] = out
    if resume is None:
        check_account(command, parameters["credentials"])
        check_store(parameters["storage"])
    with prefect_api(say=not quiet):
        from rh_prefect import flows
        from rh_prefect.cli.run_display import Watch

        flow: Flow[..., Any] = getattr(flows, "any_model" if name == "model" else name)
        place = words_of(out=out, storage=parameters.get("storage"))
        with Watch(command=f"run {_command(name, out)}", quiet=quiet, place=place) as watch:
            result = asyncio.run(_in_flow_run(flow, parameters, resume, watch))
        watch.summary(result)


def _command(name: str, out: str | None) -> str:
    """Returns the words after `rh-prefect run` that run a flow again, with the location of its files."""
    from rh_prefect.media.urls import locate

    there = f" --out {shlex.quote(printable(locate(out)))}" if out else ""
    return name.replace("_", "-") + there


async def _go_on_where_its_files_are(flow_run_id: str) -> None:
    """Uses the run's recorded storage if the command names none, so that existing files are not downloaded again."""
    from rh_prefect.flow_runs.journal import FlowRunJournal
    from rh_prefect.works.journal.job_records import jobs_of

    if "RH_STORAGE_URL" in os.environ:
        return
    async for view in jobs_of(FlowRunJournal(flow_run_id)):
        if view.last is not None and view.last.intent.storage is None and view.last.intent.store:
            os.environ["RH_STORAGE_URL"] = view.last.intent.store
            return


async def _keep_parameters(flow: Flow[..., Any], flow_run: FlowRun, parameters: dict[str, Any]) -> None:
    """Rejects changed parameters of a resumed run, except the budget, which replaces the earlier one.

    `parameters` are those that the command gives: one that equals its default may differ from the run's, too.
    """
    from rh_prefect.flow_runs.resume import set_budget

    known = inspect.signature(flow.fn).parameters
    original = {name: flow_run.parameters.get(name, parameter.default) for name, parameter in known.items()}
    changed = {name: value for name, value in parameters.items() if name in known and value != original[name]}
    budget = changed.pop("budget", None)
    if changed:
        name, value = next(iter(changed.items()))
        option = {"params": "set"}.get(name, name).replace("_", "-")
        raise InputError(
            f"run {_command(flow.name, None)}: --{option} {value} is not what flow run {flow_run.id} began with "
            f"({original[name]}); a resumed run keeps its parameters. Nothing was sent. What to do: "
            f"leave --{option} out, or begin a new run without --resume."
        )
    if budget is not None:
        await set_budget(flow_run, budget)


async def _in_flow_run(flow: Flow[..., Any], parameters: dict[str, Any], resume: str | None, watch: Any) -> Any:
    from rh_prefect.flow_runs.resume import find

    if resume is None:
        return await in_new_flow_run(
            flow, parameters, (parameters.get("credentials"), parameters.get("storage")), watch
        )
    await _keep_parameters(flow, await find(flow, resume), parameters)
    await _go_on_where_its_files_are(resume)
    watch.started(resume, is_resumed=True)
    return await run_to_end(flow, resume)


batch = _batch_command()
run_app.default(run_pipeline)
run_app.command(_model_command(), name="model")
for _flow in composed_flows():
    run_app.command(_flow_command(_flow), name=_flow.function.replace("_", "-"))
