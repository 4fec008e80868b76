"""`rh-prefect run FILE` and `choose`: run a pipeline, and record choices at its reviews."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from rh_prefect.cli.argument_checks import check_account, check_store, printable, text_in
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
    words_of,
)
from rh_prefect.cli.output import print_json
from rh_prefect.cli.pipelines import (
    Source,
    check_retake,
    end_with_problems,
    made_again,
    show_dry_run,
    with_enough_budget,
)
from rh_prefect.cli.prefect_server import is_configured, refuse_blocks, staying_server
from rh_prefect.errors import InputError, PipelineIncomplete
from rh_prefect.pipelines.plan.planned_steps import KnownWorks, paid_steps
from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan
from rh_prefect.pipelines.run.step_scheduler import listeners
from rh_prefect.pipelines.takes_file import add_choices, read_choices

if TYPE_CHECKING:
    from rh_prefect.cli.run_display import Watch
    from rh_prefect.flows.pipeline import Pipeline
    from rh_prefect.pipelines.plan.plan import Plan
    from rh_prefect.pipelines.run.result import PipelineResult

_CHOICES = 30
"""Maximum number of reviews in one printed command."""

Reviewed = Annotated[
    Path | None,
    Parameter(
        name="--plan",
        help="A reviewed plan, written by `rh-prefect plan FILE --out p.json`: the run pays only for its steps.",
    ),
]
RequireNew = Annotated[bool, Parameter(help="Fail if no new result needs to be made.")]
Dashboard = Annotated[
    bool,
    Parameter(help="Run the pipeline as a flow; without PREFECT_API_URL on a Prefect server that stays until Ctrl-C."),
]


def run(
    file: File,
    /,
    *,
    given: Given = GIVEN,
    plan: Reviewed = None,
    budget: Budget = None,
    selected: Selected = SELECTED,
    require_new: RequireNew = False,
    place: Place = PLACE,
    dashboard: Dashboard = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
    **more: More,
) -> None:
    """Run a pipeline. Results that exist cost nothing; run it again to continue after a failure.

    With PREFECT_API_URL or --dashboard it is a flow run; else no Prefect server is needed.
    """
    is_flow = is_configured() or dashboard
    from rh_prefect.flows.pipeline import Pipeline

    pipeline = Pipeline.open(file)
    account, storage = place.blocks(pipeline.name, pipeline.file)
    if not is_flow:
        refuse_blocks("run", account, storage)
    reviewed = ReviewedPlan.read(plan) if plan is not None else None
    arguments = given.arguments(pipeline, more)
    if reviewed is not None:
        arguments = _with_reviewed("run", arguments, reviewed)
    found = read_choices(pipeline.takes)
    selection = selected.steps if reviewed is None else reviewed.selected(selected.steps)
    # Without the records: wrong parameters are found before a server is started.
    first = asyncio.run(pipeline.plan(arguments, known=KnownWorks()))
    end_with_problems(first.problems)
    first.refuse_unknown(selection)
    check_retake(first, selected.retake or (), selection)
    if not dry_run:
        check_account(account)
        check_store(storage)
    again = {**made_again(selected, found, first), "selection": selection}
    takes = again["takes"]
    source = Source(storage, account)
    if reviewed is not None and storage is None and account is None:
        # Before a server is started; the run checks again.
        known, _ = asyncio.run(source.known(pipeline))
        reviewed.refuse_changes(asyncio.run(pipeline.plan(arguments, takes=takes, **known)), pipeline.file.params)
    if dry_run:
        show_dry_run(source, pipeline, arguments, budget, as_json=as_json, **again)
        return
    options = {
        "budget": budget,
        "takes": takes or None,
        "choices": dict(found.choices) or None,
        "new": again["new"] or None,
        "only": selected.only,
        "items": selected.items,
        "sample": selected.sample,
        "require_new": require_new,
        "credentials": place.credentials,
        "storage": storage or "",
    }
    inputs = words_of(**more, **asdict(given), plan=plan, **asdict(place))
    # Without --new and --retake: the takes are recorded, and another new take would be paid for.
    part = asdict(selected) | {"new": False, "retake": None, "sample": selected.sample or None}
    words = words_of(budget=budget, **part, require_new=require_new)
    out = "" if is_flow else printable(place.out or "")
    where = words_of(out=place.out, storage=storage)

    def with_budget(command: str) -> str:
        rest = asyncio.run(source.plan(pipeline, arguments, selection=selection))
        return with_enough_budget(command, rest, selection)

    run_again = _Again(file, pipeline.takes, takes, inputs, words, out, where, with_budget)
    values = {**arguments, **options}
    quiet |= as_json
    with staying_server(say=not quiet) if is_flow else contextlib.nullcontext(), run_again.recording():
        if is_flow:
            call = partial(in_new_flow_run, pipeline.flow(reviewed), values, (account, storage))
        else:
            call = partial(_without_server, pipeline, values, reviewed)
        _run(run_again, call, quiet, as_json)


@dataclass
class _Again:
    """Creates the commands that continue a run, and records the takes of `--retake` and `--new` in the takes file.

    A take is recorded before the run submits anything with this take, so that the next run continues with it.
    """

    file: Path
    takes_file: Path | None
    takes: dict[str, int]  # Those of `--retake`
    inputs: Sequence[str]  # The options of each command
    part: Sequence[str]  # The further options of `run`
    out: str  # Where the records are, if not where the environment says
    place: Sequence[str]  # The options of the storage
    with_budget: Callable[[str], str]  # Adds a budget for the rest to a command
    _recorded: dict[str, int] = field(default_factory=dict)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Records the new takes of the run in the `with` block."""
        listeners.append(self._take_plan)
        try:
            yield
        finally:
            listeners.remove(self._take_plan)

    def _take_plan(self, plan: Plan) -> None:
        before, self._recorded = self._recorded, {**self.takes, **plan.new_takes}
        # Takes that were recorded before are not written again: another command may have changed them since.
        new = dict(self._recorded.items() - before.items())
        is_added = new and self.takes_file and add_choices(self.takes_file, new, items=plan.items_by_number)
        if is_added and not before:
            print(
                f"The numbers (takes) of the new results are recorded in {self.takes_file}; delete a line to return to "
                "the earlier result. To continue after an interruption, run again without --new and --retake: each "
                "run with them pays for further results.",
                file=sys.stderr,
            )

    @property
    def run(self) -> str:
        """Returns the command that runs the pipeline again."""
        return shlex.join(["rh-prefect", "run", str(self.file), *self.inputs, *self.part])

    def choose(self, reviews: Sequence[str]) -> str:
        """Returns the command that chooses the first candidate of reviews."""
        return shlex.join(["rh-prefect", "choose", str(self.file), *(f"{one}=1" for one in reviews), *self.inputs])


def _with_reviewed(command: str, arguments: dict[str, Any], reviewed: ReviewedPlan) -> dict[str, Any]:
    """Returns the parameters of the command, completed by the parameters of the reviewed plan."""
    missing = [name for name in reviewed.hidden_params if name not in arguments]
    if missing:
        raise InputError(
            f"{command}: {reviewed.name} does not contain the whole value of {missing[0]}, a link with a signature or "
            f"a password. Nothing was paid. What to do: give the value with --set {missing[0]}=…."
        )
    return {**reviewed.params, **arguments}


async def _without_server(
    pipeline: Pipeline, values: dict[str, Any], reviewed: ReviewedPlan | None, watch: Watch
) -> PipelineResult:
    from rh_prefect.flows.local_pipeline import run_locally

    end = await run_locally(pipeline, values, reviewed=reviewed, pages=watch)
    if end.is_failed:
        raise end.error
    return end.result


def _run(
    again: _Again, run: Callable[[Watch], Coroutine[Any, Any, PipelineResult]], quiet: bool, as_json: bool
) -> None:
    from rh_prefect.cli.run_display import Watch

    with Watch(command=again.run, quiet=quiet, out=again.out, place=again.place) as watch:
        try:
            result, error = asyncio.run(run(watch)), None
        except PipelineIncomplete as incomplete:
            result, error = incomplete.result, incomplete
    if error is not None:
        print(f"rh-prefect: {error}", file=sys.stderr)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        _say_result(result, watch, again, is_failed=error is not None)
    if error is not None:
        sys.exit(1)


def _say_result(result: PipelineResult, watch: Watch, again: _Again, *, is_failed: bool) -> None:
    """Prints the results of a run, and the commands that open them and continue the run."""
    from rh_prefect.pipelines.run.result import NOTHING_NEW, summary

    waiting = [one.step for one in result.steps if one.model == "review" and one.state == "waits for review"]
    if not is_failed:  # else the error says it
        exists = "" if result.new or waiting else f"{NOTHING_NEW}: the results exist already. "
        print(f"{exists}{summary(result)}")
    for name, value in result.outputs.items():
        for number, one in enumerate(value if isinstance(value, list) else [value]):
            if one is not None:
                watch.say_output(f"{name}[{number + 1}]" if isinstance(value, list) else name, one)
    print(f"report: {result.report}")
    if result.gallery:
        print(f"gallery: {result.gallery}")
    command = again.run
    if is_failed and any(one.error == "BudgetExceeded" for one in result.steps):
        command = again.with_budget(command)
        print(f"Run what was not started, with a budget that suffices: {command}", file=sys.stderr)
    elif is_failed:
        print(f"After a correction, pay only for what is missing: {command}", file=sys.stderr)
    if waiting:
        more = f", and for the {len(waiting) - _CHOICES} others" if len(waiting) > _CHOICES else ""
        print(
            f"Waiting for review. {watch.candidates_in}. Next: "
            f"`{again.choose(waiting[:_CHOICES])}` with the numbers that you choose{more}, then `{command}`."
        )
    if result.report and result.outputs:
        watch.say_how_to_open(result.report)


async def in_new_flow_run(
    flow: Any, parameters: dict[str, Any], blocks: tuple[str | None, str | None], watch: Any
) -> Any:
    """Checks the account's and the storage's blocks, runs a flow in a new flow run, and returns its result."""
    from rh_prefect.blocks.lookup import load_pool_context, load_storage
    from rh_prefect.flow_runs.prefect_internals import drain
    from rh_prefect.flow_runs.rerun import create, rerun

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


def choose(
    file: File,
    /,
    *choices: Annotated[
        str, Parameter(help="REVIEW=NUMBER: the number of the chosen candidate, or `again` for new candidates.")
    ],
    text: Annotated[
        list[str] | None, Parameter(help="REVIEW=PATH: a file with the corrected text; repeatable.")
    ] = None,
    given: Given = GIVEN,
    plan: Annotated[Path | None, Parameter(help="The reviewed plan of the run: use its parameters.")] = None,
    place: Place = PLACE,
    **more: More,
) -> None:
    """Record choices at a pipeline's reviews; the next run of the file continues with them."""
    from rh_prefect.flows.pipeline import Pipeline

    pipeline = Pipeline.open(file)
    account, storage = place.blocks(pipeline.name, pipeline.file)
    refuse_blocks("choose", account, storage)
    check_store(storage)
    arguments = given.arguments(pipeline, more)
    if plan is not None:
        arguments = _with_reviewed("choose", arguments, ReviewedPlan.read(plan))
    known, unread = asyncio.run(Source(storage, account).known(pipeline))
    if unread:
        raise InputError(f"choose: {unread} No choice was recorded.")
    current = asyncio.run(pipeline.plan(arguments, **known))
    end_with_problems(current.problems)
    takes, decided = _decisions(file, current, choices, text or ())
    chosen = asyncio.run(pipeline.plan(arguments, **known, choices=decided))
    for one in chosen.instances:
        if one.address in decided and one.state == "r" and one.note:
            raise InputError(f"choose: {one.address}: {one.note}. No choice was recorded.")
    assert pipeline.takes is not None  # noqa: S101 - `open` sets it
    add_choices(pipeline.takes, takes, decided, items=current.items_by_number)
    again = shlex.join(["rh-prefect", "run", str(file), *words_of(**more, **asdict(given), plan=plan, **asdict(place))])
    print(f"The choices are saved in {pipeline.takes}. Next: `{again}`.")


def _decisions(
    file: Path, plan: Plan, choices: Sequence[str], texts: Sequence[str]
) -> tuple[dict[str, int], dict[str, dict[str, Any]]]:
    """Reads the arguments of `choose`: returns the next takes for `again`, and the other choices by review address."""
    takes, decided = dict[str, int](), dict[str, dict[str, Any]]()
    reviews = {one.address: one for one in plan.instances if one.model == "review"}
    if not choices and not texts:
        raise InputError(
            f"choose: no choice was given. The reviews of {file} are: {', '.join(reviews) or 'none'}. Nothing was "
            "recorded. What to do: write REVIEW=NUMBER, with the number of a candidate."
        )
    seen = set[str]()
    for number, words in enumerate((*choices, *texts)):
        # The id of an item may also have a sign of equality.
        address = max((one for one in reviews if words.startswith(f"{one}=")), key=len, default="")
        if not address:
            there = ", ".join(reviews) or "none"
            raise InputError(
                f"choose: {words!r} is not a choice at a review of {file}. No choice was recorded. What to do: write "
                f"REVIEW=NUMBER. The reviews are: {there}."
            )
        if address in seen:
            raise InputError(
                f"choose: {address} is given twice. No choice was recorded. What to do: give one choice for this "
                "review."
            )
        seen.add(address)
        review, chosen = reviews[address], words[len(address) + 1 :]
        if number >= len(choices):
            replacement = text_in("choose --text", Path(chosen))
            if review.shows_files:
                raise InputError(
                    f"choose: {address} shows files, which a text cannot replace. No choice was recorded. What to do: "
                    f"choose a candidate by its number, as in {address}=1."
                )
            decided[address] = {"of": review.request["of"], "text": replacement}
        elif chosen == "again":
            paid = {one.address: one for one in paid_steps(review.needs)}
            if not paid:
                raise InputError(
                    f"choose: {address} cannot get new candidates, because no paid step makes its candidates. No "
                    "choice was recorded. What to do: choose a candidate by its number."
                )
            takes |= {one.address: one.works[-1].take + 1 for one in paid.values() if one.works}
        elif chosen.isdecimal() and int(chosen) >= 1:
            if int(chosen) > len(review.candidates):
                raise InputError(
                    f"choose: {address}: {review.no_candidate(int(chosen))}. No choice was recorded. What to do: give "
                    "the number of a candidate."
                )
            decided[address] = {"of": review.request["of"], "take": int(chosen)}
        else:
            raise InputError(
                f"choose: {chosen!r} is not a choice. No choice was recorded. What to do: give a number from 1, or "
                "`again`."
            )
    return takes, decided
