"""`rh-prefect run FILE`: runs a pipeline, and prints its results."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rh_prefect.cli.argument_checks import check_account, check_store, printable
from rh_prefect.cli.options import (
    GIVEN,
    PLACE,
    SELECTED,
    Budget,
    DryRun,
    File,
    Given,
    Json,
    More,
    Place,
    Quiet,
    Selected,
    with_reviewed,
    words_of,
)
from rh_prefect.cli.output import print_json
from rh_prefect.cli.pipelines import (
    PlanRequest,
    end_with_problems,
    show_dry_run,
    with_enough_budget,
)
from rh_prefect.cli.prefect_server import is_configured, refuse_blocks, staying_server
from rh_prefect.errors import PipelineIncomplete
from rh_prefect.pipelines.input_reader import Inputs
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.planned_steps import KnownWorks
from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan
from rh_prefect.pipelines.run.step_scheduler import listeners
from rh_prefect.pipelines.takes_file import Choices, add_choices, read_choices
from rh_prefect.settings import get_settings

if TYPE_CHECKING:
    from rh_prefect.cli.run_display import Watch
    from rh_prefect.pipelines.plan.plan import Plan
    from rh_prefect.pipelines.run.result import PipelineResult

_CHOICES = 30
"""Maximum number of reviews in one printed command."""


def run(
    file: File,
    /,
    *,
    given: Given = GIVEN,
    plan: Path | None = None,
    budget: Budget = None,
    selected: Selected = SELECTED,
    require_new: bool = False,
    place: Place = PLACE,
    dashboard: bool = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
    **more: More,
) -> None:
    """Run a pipeline. Results that exist cost nothing; run it again to continue after a failure.

    With PREFECT_API_URL or --dashboard, the run is a flow run; otherwise, no Prefect server is needed.

    Args:
        plan: A reviewed plan, written by `rh-prefect plan FILE --out p.json`: the run pays only for its steps.
        require_new: Fail if no new result needs to be made.
        dashboard: Run the pipeline as a flow; without PREFECT_API_URL, on a server that stays until Ctrl-C.
    """
    is_flow = is_configured() or dashboard
    asked = _read(file, given, more, plan, selected, place, is_flow=is_flow)
    request = asked.request
    if not dry_run:
        if request.pipeline.needs_account:
            check_account(request.credentials)
        check_store(request.storage)
    asked.refuse_changes()
    if dry_run:
        show_dry_run(asked.with_block().request, budget, asked.reviewed, as_json=as_json)
        return
    # Without --new and --retake: the takes are recorded, and another new take would be paid for.
    part = asdict(selected) | {"new": False, "retake": None, "sample": selected.sample or None}
    commands = _Commands(
        asked,
        file,
        inputs=[*given.words(request.pipeline, more), *words_of(plan=plan, **asdict(place))],
        part=words_of(budget=budget, **part, require_new=require_new),
    )
    from rh_prefect.cli.run_display import Watch

    quiet |= as_json
    out = "" if is_flow else printable(place.out or "")
    where = words_of(out=place.out, storage=request.storage)
    with staying_server(say=not quiet) if is_flow else contextlib.nullcontext():
        asked = asked.with_block()
        values = asked.values(budget=budget, require_new=require_new, credentials=place.credentials)
        with asked.recorded_takes(), Watch(command=commands.run, quiet=quiet, out=out, place=where) as watch:
            result, error = _make(asked, values, watch, is_flow=is_flow)
        _say_end(result, error, watch, commands, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The run that the command requests."""

    request: PlanRequest
    reviewed: ReviewedPlan | None
    selected: Selected
    found: Choices  # From the takes file

    def with_block(self) -> _Asked:
        """Returns the run with its takes, for which a storage block is loaded from the server, which has started."""
        return self if self.request.storage is None else self.again()

    def again(self) -> _Asked:
        """Returns the run with its takes."""
        return replace(self, request=self.request.again(self.selected, self.found))

    def values(self, **options: Any) -> dict[str, Any]:
        """Returns the parameters and the options of the run; see `RunOptions`."""
        chosen = {
            "takes": self.request.takes or None,
            "choices": dict(self.found.choices) or None,
            "new": self.request.new or None,
            "only": self.selected.only,
            "items": self.selected.items,
            "sample": self.selected.sample,
            "storage": self.request.storage or "",
        }
        return {**self.request.arguments, **chosen, **options}

    def refuse_changes(self) -> None:
        """Raises an error, before a server is started, if the plan differs from the reviewed one; the run checks again.

        If a block is used, only the run checks, because the block may be loaded from the server.
        """
        request = self.request
        if self.reviewed is None or request.storage is not None or request.credentials is not None:
            return
        known, _ = asyncio.run(request.known())
        plan = asyncio.run(request.pipeline.plan(request.arguments, takes=request.takes, **known))
        self.reviewed.refuse_changes(plan, request.pipeline.file.params)

    @contextlib.contextmanager
    def recorded_takes(self) -> Iterator[None]:
        """Records the takes of `--retake` and `--new` in the takes file during the run in the `with` block.

        A take is recorded before the run submits anything with this take, so that the next run continues with it.
        """
        file, recorded = self.request.pipeline.takes, dict[str, int]()

        def record(plan: Plan) -> None:
            nonlocal recorded
            before, recorded = recorded, {**self.request.takes, **plan.new_takes}
            # Takes that were recorded before are not written again: another command may have changed them since.
            new = dict(recorded.items() - before.items())
            is_added = new and file and add_choices(file, new, items=plan.items_by_number)
            if is_added and not before:
                print(
                    f"The numbers (takes) of the new results are recorded in {file}; delete a line to return to the "
                    "earlier result. To continue after an interruption, run again without --new and --retake: each "
                    "run with them pays for further results.",
                    file=sys.stderr,
                )

        listeners.append(record)
        try:
            yield
        finally:
            listeners.remove(record)


def _read(
    file: Path,
    given: Given,
    more: Mapping[str, Sequence[str]],
    plan: Path | None,
    selected: Selected,
    place: Place,
    *,
    is_flow: bool,
) -> _Asked:
    """Reads the pipeline and the options of a run; raises an error, or exits, if one of them is not valid."""
    pipeline = Pipeline.open(file)
    account, storage = place.blocks(pipeline.name, pipeline.file)
    if not is_flow:
        refuse_blocks("run", account, storage)
    reviewed = ReviewedPlan.read(plan) if plan is not None else None
    arguments = with_reviewed("run", given.arguments(pipeline, more), reviewed)
    found = read_choices(pipeline.takes)
    selection = selected.steps if reviewed is None else reviewed.selected(selected.steps)
    # Without the records: wrong parameters are found before a server is started. Files that the pipeline has saved are
    # no inputs, so for a block that only this server has, the plan of the run finds the problems of listed files.
    own = _storage_url(storage)
    first = asyncio.run(pipeline.plan(arguments, known=KnownWorks(), inputs=Inputs(own=own)))
    if own or all(param.kind != "files" for param in pipeline.file.params.values()):
        end_with_problems(first.problems)
        first.refuse_unknown(selection)
    request = PlanRequest(pipeline, arguments, storage, account, selection=selection)
    asked = _Asked(request, reviewed, selected, found)
    return asked.again() if storage is None else asked


def _storage_url(storage: str | None) -> str:
    """Returns the URL of a storage block, by default RH_STORAGE_URL; empty if the block's server has not started."""
    from rh_prefect.blocks.lookup import load_storage

    if storage is None:
        return get_settings().storage_url
    return asyncio.run(load_storage(storage)).url if is_configured() else ""


@dataclass(frozen=True, slots=True)
class _Commands:
    """The commands that continue a run."""

    asked: _Asked
    file: Path
    inputs: Sequence[str]  # The options of each command
    part: Sequence[str]  # The further options of `run`

    @property
    def run(self) -> str:
        """Returns the command that runs the pipeline again."""
        return shlex.join(["rh-prefect", "run", str(self.file), *self.inputs, *self.part])

    def run_with_budget(self) -> str:
        """Returns the command that runs the pipeline again, with a budget for the rest of the pipeline."""
        request = self.asked.request
        rest = asyncio.run(replace(request, takes={}, new=()).plan())
        return with_enough_budget(self.run, rest, request.selection)

    def choose(self, reviews: Sequence[str]) -> str:
        """Returns the command that chooses the first candidate of each given review."""
        return shlex.join(["rh-prefect", "choose", str(self.file), *(f"{one}=1" for one in reviews), *self.inputs])


def _make(
    asked: _Asked, values: dict[str, Any], watch: Watch, *, is_flow: bool
) -> tuple[PipelineResult, PipelineIncomplete | None]:
    """Runs the pipeline; returns its result, and an error if results are missing."""
    from rh_prefect.flows.pipeline import local_result, pipeline_flow

    if is_flow:
        blocks = asked.request.credentials, asked.request.storage
        running = in_new_flow_run(pipeline_flow(asked.request.pipeline, reviewed=asked.reviewed), values, blocks, watch)
    else:
        running = local_result(asked.request.pipeline, values, asked.reviewed, pages=watch)
    try:
        return asyncio.run(running), None
    except PipelineIncomplete as incomplete:
        return incomplete.result, incomplete


def _say_end(
    result: PipelineResult, error: PipelineIncomplete | None, watch: Watch, commands: _Commands, *, as_json: bool
) -> None:
    """Prints the end of a run; exits with 1 if results are missing."""
    if error is not None:
        print(f"rh-prefect: {error}", file=sys.stderr)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        _say_result(result, watch, commands, is_failed=error is not None)
    if error is not None:
        sys.exit(1)


def _say_result(result: PipelineResult, watch: Watch, commands: _Commands, *, is_failed: bool) -> None:
    """Prints the results of a run, and the commands that open them and continue the run."""
    from rh_prefect.pipelines.run.result import summary

    waiting = [one.step for one in result.steps if one.model == "review" and one.state == "waits for review"]
    if not is_failed:  # else the error says it
        why = "the results exist already" if result.has_reused else "there was nothing to make"
        exists = watch.waited or ("" if result.new or waiting else f"Nothing new: {why}. ")
        print(f"{exists}{summary(result)}")
    for name, value in result.outputs.items():
        for number, one in enumerate(value if isinstance(value, list) else [value]):
            if one is not None:
                watch.say_output(f"{name}[{number + 1}]" if isinstance(value, list) else name, one)
    print(f"report: {result.report}")
    if result.gallery:
        print(f"gallery: {result.gallery}")
    _say_next(result, waiting, watch, commands, is_failed=is_failed)
    if result.report and result.outputs:
        watch.say_how_to_open(result.report)


def _say_next(
    result: PipelineResult, waiting: Sequence[str], watch: Watch, commands: _Commands, *, is_failed: bool
) -> None:
    """Prints the commands that continue a run that has failed or is waiting for reviews."""
    command = commands.run
    if is_failed and any(one.error == "BudgetExceeded" for one in result.steps):
        command = commands.run_with_budget()
        print(f"Run what was not started, with a sufficient budget: {command}", file=sys.stderr)
    elif is_failed:
        print(f"After a correction, pay only for what is missing: {command}", file=sys.stderr)
    if waiting:
        more = f", and for the {len(waiting) - _CHOICES} others" if len(waiting) > _CHOICES else ""
        print(
            f"Waiting for review. {watch.candidates_in}. Next: "
            f"`{commands.choose(waiting[:_CHOICES])}` with the numbers that you choose{more}, then `{command}`."
        )


async def in_new_flow_run(
    flow: Any, parameters: dict[str, Any], blocks: tuple[str | None, str | None], watch: Any
) -> Any:
    """Checks the account's and the storage's blocks, runs a flow in a new flow run, and returns its result."""
    from rh_prefect.blocks.lookup import load_pool_context, load_storage
    from rh_prefect.flow_runs.resume_or_rerun import create, rerun
    from rh_prefect.prefect_internals import drain

    credentials, storage = blocks
    if credentials is not None:
        await load_pool_context(credentials)
    if storage is not None:
        await asyncio.to_thread((await load_storage(storage)).check)
    flow_run_id = str(await create(flow, parameters))
    watch.started(flow_run_id)
    try:
        return await rerun(flow, flow_run_id)
    finally:
        await drain()  # events and logs that are not sent yet
