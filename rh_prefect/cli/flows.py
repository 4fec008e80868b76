"""`rh-prefect run`: runs a flow in this process, shows what it does, and says how to go on when it breaks off."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, validators

from rh_prefect.cli.arguments import check_account, check_batch, check_blocks, check_call, check_store
from rh_prefect.cli.servers import prefect_api
from rh_prefect.errors import InputError

if TYPE_CHECKING:
    from prefect import Flow

    from rh_prefect.flows.batch import BatchReport

Out = Annotated[str | None, Parameter(help="Where files go: a folder or an fsspec URL such as s3://bucket/prefix.")]
Resume = Annotated[
    str | None, Parameter(help="Id of a flow run that broke off: goes on with it, paying for nothing twice.")
]
Budget = Annotated[
    float | None,
    Parameter(
        help="What the run may cost, in the account's currency; no job starts that would break it.",
        validator=validators.Number(gt=0),
    ),
]
MaxAttempts = Annotated[
    int,
    Parameter(
        help="Tasks that one job may pay for until the run is resumed, failed ones included.",
        validator=validators.Number(gte=1),
    ),
]
Shots = Annotated[int, Parameter(help="How many shots, 1 to 12.", validator=validators.Number(gte=1, lte=12))]
Storage = Annotated[str | None, Parameter(help="Name of a MediaStorage block, instead of --out.")]
Credentials = Annotated[
    str | None, Parameter(help="Name of the block of an account or of a pool, instead of RH_API_KEY.")
]


def _is_known(name: str) -> bool:
    """Whether the catalogue has a model of this name; if not, says that it is called as an endpoint."""
    from rh_prefect.catalog import get
    from rh_prefect.errors import UnknownModelError

    try:
        get(name)
    except UnknownModelError as error:
        print(
            f"The catalogue has no model {name!r}; the nearest are {', '.join(error.nearest)}. It is called as an "
            "endpoint: only its files are checked.",
            file=sys.stderr,
        )
        return False
    return True


_FLOWS = {"model": "any_model"}
"""The flow of a command, where it has another name."""


def model(
    name: Annotated[str | None, Parameter(help="Model name, or an endpoint.")] = None,
    *,
    set_: Annotated[
        list[str] | None,
        Parameter(
            name="--set",
            negative=(),
            help="NAME=VALUE; may be repeated; one name several times makes a list. VALUE is parsed as JSON if "
            "possible, except for text parameters; @PATH is a file.",
        ),
    ] = None,
    price: Annotated[
        float | None,
        Parameter(
            help="Price of one call of an unknown endpoint; used only for --budget.", validator=validators.Number(gt=0)
        ),
    ] = None,
    label: Annotated[str | None, Parameter(help="A name for the output.")] = None,
    budget: Budget = None,
    max_attempts: MaxAttempts = 3,
    out: Out = None,
    credentials: Credentials = None,
    storage: Storage = None,
    resume: Resume = None,
) -> None:
    """Run any model, or an endpoint that the catalogue does not know."""
    from rh_prefect.cli.arguments import files_in, read_assignments
    from rh_prefect.models import any_input

    if name is None and resume is None:
        raise InputError(
            "run model: no model is named. What to do: name one or an endpoint, or give `--resume RUN_ID`."
        )
    params = read_assignments(name, set_ or [])
    is_custom = name is not None and "/" in name and not _is_known(name)
    if name is not None:  # what is wrong is told before a server is started
        any_input(name, params, is_custom=is_custom, price=price)
        check_call("run model", {"set": files_in(params)}, files=("set",))
    parameters = {
        "model": name,
        "params": params,
        "is_custom": is_custom,
        "price": price,
        "label": label,
        "budget": budget,
        "max_attempts": max_attempts,
        "credentials": credentials,
        "storage": storage,
    }
    _run("model", parameters, needs=(), out=out, resume=resume)


def film(
    *,
    prompt: Annotated[str | None, Parameter(help="What the film shows.")] = None,
    shots: Shots = 3,
    image: Annotated[str | None, Parameter(help="Your own picture to start every shot from: a path or URI.")] = None,
    narration: Annotated[str | None, Parameter(help="What is spoken; by default the prompt.")] = None,
    music: Annotated[str | None, Parameter(help="What the music is like.")] = None,
    aspect: Annotated[Literal["16:9", "9:16", "1:1"], Parameter(help="Width to height.")] = "16:9",
    seconds: Annotated[Literal[5, 10], Parameter(help="Length of each shot.")] = 5,
    resolution: Annotated[Literal["720p", "1080p", "2k", "4k"], Parameter(help="After upscaling.")] = "1080p",
    budget: Budget = None,
    max_attempts: MaxAttempts = 3,
    out: Out = None,
    credentials: Credentials = None,
    storage: Storage = None,
    resume: Resume = None,
) -> None:
    """Make a short film from one sentence."""
    parameters = {
        "prompt": prompt,
        "shots": shots,
        "image": image,
        "narration": narration,
        "music": music,
        "aspect": aspect,
        "seconds": seconds,
        "resolution": resolution,
        "budget": budget,
        "max_attempts": max_attempts,
        "credentials": credentials,
        "storage": storage,
    }
    _run("film", parameters, needs=("prompt",), files=("image",), out=out, resume=resume)


def image_to_video(
    *,
    image: Annotated[str | None, Parameter(help="The picture: a path or URI.")] = None,
    prompt: Annotated[str | None, Parameter(help="What happens.")] = None,
    seconds: Annotated[Literal[5, 10], Parameter(help="Length of the video.")] = 5,
    resolution: Annotated[Literal["720p", "1080p", "2k", "4k"] | None, Parameter(help="After upscaling.")] = None,
    budget: Budget = None,
    max_attempts: MaxAttempts = 3,
    out: Out = None,
    credentials: Credentials = None,
    storage: Storage = None,
    resume: Resume = None,
) -> None:
    """Turn a picture into a video."""
    parameters = {
        "image": image,
        "prompt": prompt,
        "seconds": seconds,
        "resolution": resolution,
        "budget": budget,
        "max_attempts": max_attempts,
        "credentials": credentials,
        "storage": storage,
    }
    _run("image_to_video", parameters, needs=("image", "prompt"), files=("image",), out=out, resume=resume)


def upscale(
    *videos: str,
    resolution: Annotated[Literal["720p", "1080p", "2k", "4k"], Parameter(help="The size to reach.")] = "1080p",
    budget: Budget = None,
    max_attempts: MaxAttempts = 3,
    out: Out = None,
    credentials: Credentials = None,
    storage: Storage = None,
    resume: Resume = None,
) -> None:
    """Enlarge videos.

    Args:
        videos: Paths or URIs.
        resolution: The size to reach.
        budget: What the run may cost.
        max_attempts: Tasks that one job may pay for until the run is resumed.
        out: Where files go.
        credentials: Name of a RunningHubCredentials or RunningHubPool block.
        storage: Name of a MediaStorage block.
        resume: Id of a flow run that broke off.
    """
    parameters = {
        "videos": list(videos) or None,
        "resolution": resolution,
        "budget": budget,
        "max_attempts": max_attempts,
        "credentials": credentials,
        "storage": storage,
    }
    _run("upscale", parameters, needs=("videos",), files=("videos",), out=out, resume=resume)


def add_soundtrack(
    *,
    video: Annotated[str | None, Parameter(help="The video: a path or URI.")] = None,
    narration: Annotated[str | None, Parameter(help="What is spoken.")] = None,
    music: Annotated[str | None, Parameter(help="What the music is like.")] = None,
    budget: Budget = None,
    max_attempts: MaxAttempts = 3,
    out: Out = None,
    credentials: Credentials = None,
    storage: Storage = None,
    resume: Resume = None,
) -> None:
    """Give a video a voice and music."""
    parameters = {
        "video": video,
        "narration": narration,
        "music": music,
        "budget": budget,
        "max_attempts": max_attempts,
        "credentials": credentials,
        "storage": storage,
    }
    _run("add_soundtrack", parameters, needs=("video",), files=("video",), out=out, resume=resume)


def _run(
    name: str,
    parameters: dict[str, Any],
    *,
    needs: tuple[str, ...],
    files: tuple[str, ...] = (),
    out: str | None,
    resume: str | None,
) -> None:
    # All that can be found out without a server, which takes seconds to start.
    command = f"run {name.replace('_', '-')}"
    given = {**parameters, "out": out}
    check_call(command, given, needs=() if resume else needs, files=() if resume else files, resume=resume)
    if out is not None:
        os.environ["RH_STORAGE_URL"] = out
    if resume is None:
        check_account(command, parameters["credentials"])
        check_store(parameters["storage"])
    with prefect_api():
        run_flow(name, parameters, resume=resume, out=out)


def run_flow(  # returns what the flow returns
    name: str, parameters: dict[str, Any], *, resume: str | None = None, out: str | None = None
) -> Any:
    """Runs one of the package's flows in this process and shows what happens.

    Args:
        name: The flow's name in `rh_prefect.flows`, or that of its command.
        parameters: Its parameters.
        resume: Id of a flow run to go on with, instead of a new one.
        out: Where files go, if that was said on the command line: the way back must name it too.

    Returns:
        What the flow returns.
    """
    from rh_prefect import flows
    from rh_prefect.cli.console import Watch

    flow: Flow[..., Any] = getattr(flows, _FLOWS.get(name, name))
    with Watch(command=_command(name, out)) as watch:
        result = asyncio.run(_in_flow_run(flow, parameters, resume, watch))
    watch.summary(result)
    return result


def _command(name: str, out: str | None) -> str:
    from rh_prefect.media.urls import locate, without_user

    there = f" --out {shlex.quote(without_user(locate(out)))}" if out else ""
    return name.replace("_", "-") + there


async def _go_on_where_its_files_are(flow_run_id: str) -> None:
    """Unless this command names a place, the run's files belong where they were: what is there is not fetched again."""
    from rh_prefect.flow_runs.journal import FlowRunJournal
    from rh_prefect.jobs.journal.job_records import jobs_of

    if "RH_STORAGE_URL" in os.environ:
        return
    async for view in jobs_of(FlowRunJournal(flow_run_id)):
        if view.last is not None and view.last.intent.storage is None and view.last.intent.store:
            os.environ["RH_STORAGE_URL"] = view.last.intent.store
            return


async def _in_flow_run(flow: Flow[..., Any], parameters: dict[str, Any], resume: str | None, watch: Any) -> Any:
    from rh_prefect.flow_runs.prefect_internals import drain
    from rh_prefect.flow_runs.resume import create, find, rerun

    if resume is None:
        await check_blocks(parameters.get("credentials"), parameters.get("storage"))
    flow_run_id = resume or str(await create(flow, parameters))
    if resume is not None:
        await find(flow, resume)
        await _go_on_where_its_files_are(resume)
    watch.started(flow_run_id, is_resumed=resume is not None)
    try:
        return await rerun(flow, flow_run_id)
    finally:
        await drain()


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
        os.environ["RH_STORAGE_URL"] = out
    check_account("batch", credentials)
    check_store(storage)
    with prefect_api():
        report = _run_batch(parameters, sys.argv[1:])
    if not report.is_complete:
        sys.exit(1)


def _pair(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not (name and equals):
        raise InputError(f"batch: --set {given!r} is no NAME=VALUE. What to do: as in --set duration=5.")
    return name, value


def _run_batch(parameters: dict[str, Any], words: Sequence[str]) -> BatchReport:
    from rh_prefect.cli.console import BatchConsole
    from rh_prefect.errors import BatchIncomplete

    with BatchConsole(words) as watch:
        try:
            report: BatchReport = asyncio.run(_in_batch_run(parameters, watch))
        except BatchIncomplete as error:
            report = error.report
    watch.summary(report)
    return report


async def _in_batch_run(parameters: dict[str, Any], watch: Any) -> BatchReport:
    from rh_prefect import flows
    from rh_prefect.flow_runs.prefect_internals import drain
    from rh_prefect.flow_runs.resume import create, rerun

    flow: Flow[..., Any] = flows.batch
    await check_blocks(parameters["credentials"], parameters["storage"])
    flow_run_id = str(await create(flow, parameters))
    watch.started(flow_run_id)
    try:
        report: BatchReport = await rerun(flow, flow_run_id)
    finally:
        await drain()
    return report
