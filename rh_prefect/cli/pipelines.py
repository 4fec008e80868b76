"""`rh-prefect check`, `plan` and `schema`: inspect a pipeline without payment."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_UP, Decimal
from pathlib import Path
from typing import Any

from rh_prefect.cli.argument_checks import text_in
from rh_prefect.cli.options import GIVEN, SELECTED, Budget, Credentials, File, Given, Json, More, Selected, Storage
from rh_prefect.cli.output import print_json, terminal_width
from rh_prefect.cli.plan_to_compare import earlier_plan
from rh_prefect.cli.prefect_server import refuse_blocks
from rh_prefect.display_texts import counted
from rh_prefect.errors import InputError, RunningHubError
from rh_prefect.local_files import overwrite
from rh_prefect.pipelines.check.file import notes_of
from rh_prefect.pipelines.input_reader import Inputs
from rh_prefect.pipelines.last_run import open_last_runs, since
from rh_prefect.pipelines.parsed_document import PipelineError, Problem, nearest_sentence, visible
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import changes
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import PriceRange, Selection
from rh_prefect.pipelines.plan.render import prices
from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan
from rh_prefect.pipelines.rounds_across_runs import COMMAND_LINE
from rh_prefect.pipelines.run.run_budget import run_limit
from rh_prefect.pipelines.schema import models_in, schema
from rh_prefect.pipelines.site_graphs import ids_in
from rh_prefect.pipelines.takes_file import Choices, read_choices, step_of
from rh_prefect.pipelines.yaml_reader import read
from rh_prefect.settings import get_settings

_SOMETHING_TO_PAY = 2


def check(*files: Path, as_json: Json = False) -> None:
    """Check pipelines without data and without a network: for CI and pre-commit.

    Args:
        files: The files or names of pipelines.
    """
    if not files:
        raise InputError("check: no file was given. What to do: pass one or more, as in `rh-prefect check film.yaml`.")
    notes: list[str] = []
    found = [problem for file in files for problem in _problems(file, notes)]
    if as_json:
        print_json([problem.as_json() for problem in found])
    else:
        print("\n".join(map(str, found)) or f"{counted(len(files), 'file')} checked: no problems")
        print("".join(f"note: {visible(one)}\n" for one in notes), end="")
    if found:
        sys.exit(1)


def _problems(file: Path, notes: list[str]) -> Sequence[Problem]:
    try:
        notes += notes_of(Pipeline.open(file).checked)
    except PipelineError as error:
        return error.found
    except InputError as error:  # the file cannot be read
        return [Problem(str(file), 1, 1, error.message)]
    return ()


def plan(
    file: File,
    /,
    *,
    given: Given = GIVEN,
    selected: Selected = SELECTED,
    out: Path | None = None,
    compare: str | None = None,
    deployment: str = COMMAND_LINE,
    svg: bool = False,
    markdown: bool = False,
    as_json: Json = False,
    quote: bool = False,
    exit_code: bool = False,
    budget: Budget = None,
    allow: list[str] | None = None,
    storage: Storage = None,
    credentials: Credentials = None,
    **more: More,
) -> None:
    """Check a pipeline, and show the steps of a run with their prices. Nothing is paid.

    Args:
        out: Write the plan as JSON to this file; only its owner can read it.
        compare: Compare price and steps with another plan: the JSON of an earlier plan, or a git revision such as main,
            whose version of the file is planned with the same options. The default is the last run.
        deployment: Plan a run of this deployment, and compare it with the last run of the deployment.
        svg: Print a picture of the steps, as SVG.
        markdown: Print Markdown, for a comment on a pull request.
        quote: Ask RunningHub for the prices of new requests whose inputs exist; RunningHub also checks their
            parameters. The files of these requests are uploaded. Nothing is paid.
        exit_code: Exit with 2 if the run would cost something.
        allow: An additional folder from which rows may use files; may be repeated.
    """
    refuse_blocks("plan", storage, credentials)
    pipeline = read_pipeline(file, as_json=as_json)
    arguments, found = given.arguments(pipeline, more), read_choices(pipeline.takes)
    request = PlanRequest(pipeline, arguments, storage, credentials, deployment, allow or (), selection=selected.steps)
    request = request.again(selected, found)
    current = asyncio.run(request.plan())
    if quote and not current.problems:
        asyncio.run(request.ask_for_prices(current))
    price = selected_price(current, request.selection)
    check_retake(current, selected.retake or (), selected.steps)
    if compare is None:
        asyncio.run(request.compare(current))
    elif not current.problems:
        current.earlier, current.compared_with = earlier_plan(compare, file, request.plan_of)
        if current.earlier["steps"]:
            changes.compare(current, current.earlier, pipeline.file.params)
    if out is not None and not current.problems:
        _write_private(out, current.to_json())
    show_plan(current, as_json=as_json, svg=svg, markdown=markdown)
    if budget is not None:
        _refuse_short(current, price, budget)
    if exit_code and (price.most > 0 or price.is_open):
        sys.exit(_SOMETHING_TO_PAY)


def show_dry_run(
    request: PlanRequest, budget: float | None, reviewed: ReviewedPlan | None = None, *, as_json: bool
) -> None:
    """Prints the plan of a run with these options; exits with 1 if the run would be refused."""
    current = asyncio.run(request.plan())
    asyncio.run(request.compare(current))
    price = selected_price(current, request.selection)
    show_plan(current, as_json=as_json)
    _refuse_short(current, price, budget, reviewed)


def _refuse_short(plan: Plan, price: PriceRange, budget: float | None, reviewed: ReviewedPlan | None = None) -> None:
    """Raises an error if a new run would be refused for its budget; a retry also counts what its flow run has spent."""
    run_limit(plan, price, budget=budget, counted=Decimal(0), reviewed=reviewed, earlier=plan.paid_before())


def with_enough_budget(command: str, rest: Plan, selection: Selection) -> str:
    """Returns a command with a budget that covers the maximum price of the remaining plan, if that is known.

    If the file's budget is for all runs, the budget also includes the payments of earlier runs.
    """
    most = rest.price_of(rest.instances, selection).most
    before = rest.paid_before() if rest.budget is not None and rest.budget.all_runs else Decimal(0)
    each = (rest.price_of([one], selection) for one in rest.instances)
    is_unknown = any(price.is_open and not price.most for price in each)  # with neither a price nor an assumed one
    amount = "AMOUNT" if is_unknown else str((before + most).quantize(Decimal("0.01"), ROUND_UP))
    words = iter(shlex.split(command))
    kept = [one for one in words if not (one.startswith("--budget=") or (one == "--budget" and next(words, "")))]
    return shlex.join([*kept, "--budget", amount])


def selected_price(plan: Plan, selection: Selection) -> PriceRange:
    """Returns the price of the selected steps, and adds it to the plan's notes if only some steps are selected."""
    if plan.problems:
        return plan.price
    plan.refuse_unknown(selection)
    price = plan.price_of(plan.instances, selection)
    if selection != Selection():
        least, expected, most = prices(price)
        notes = [f"Price of the selected steps: least {least}, expected {expected}, most {most} {plan.currency}."]
        if missing := plan.out_of_reach(selection):
            (one, need), *more = missing
            others = f" For the same reason, {len(more)} more fail." if more else ""
            notes += [f"{one.address} fails: it needs {need.address}, which has no result and is not selected.{others}"]
        plan.notes = [*plan.notes, *notes]
    return price


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """A pipeline with its parameters, where its plan finds earlier results and the site's graphs, and what is new."""

    pipeline: Pipeline
    arguments: dict[str, Any]
    storage: str | None = None
    credentials: str | None = None
    deployment: str = COMMAND_LINE
    allow: Sequence[str] = ()
    takes: Mapping[str, int] = field(default_factory=dict)  # Of `--retake`
    new: Sequence[str] = ()  # Steps for which results are made again
    selection: Selection = field(default_factory=Selection)

    async def known(self) -> tuple[dict[str, Any], str]:
        """Returns arguments for a plan (works, inputs and graphs), and notes about graphs that could not be read."""
        from rh_prefect.blocks.lookup import load_pool_context, load_storage
        from rh_prefect.pipelines.known_works import open_records

        store = await load_storage(self.storage)
        known = open_records(store, get_settings(), deployment=self.deployment)
        found = {"known": known, "inputs": Inputs(self.allow, own=store.url)}
        if next(ids_in(self.pipeline.checked), None) is None:
            return {**found, "saved_graphs": {}}, ""
        try:
            shared = await load_pool_context(self.credentials)
            graphs = await open_last_runs(store, get_settings()).graphs(self.pipeline, shared.pool, self.deployment)
        except RunningHubError as error:
            unread = f"The graphs of workflows and apps were not read: {error.message}"
            return {**found, "saved_graphs": None}, unread
        return {**found, "saved_graphs": graphs}, ""

    async def plan(self) -> Plan:
        """Returns a plan, with notes about data that could not be read."""
        known, unread = await self.known()
        chosen = {"takes": self.takes, "new": self.new, "selection": self.selection}
        plan = await self.pipeline.plan(self.arguments, **known, **chosen)
        plan.notes = [*plan.notes, *([unread] if unread else [])]
        plan.records = known["known"].url
        named = self.pipeline.file.storage
        if named is not None and self.storage is None:
            note = f"Results in the storage block {named} are not looked up; to look them up, pass --storage {named}."
            plan.notes = [*plan.notes, note]
        return plan

    def again(self, selected: Selected, found: Choices) -> PlanRequest:
        """Returns the request with what `--retake` and `--new` make again; loads the storage block, if one is named."""
        first = Plan(self.pipeline.name)
        if selected.retake:
            from rh_prefect.blocks.lookup import load_storage

            # The numbers of items depend on the storage: files that the pipeline has saved there are no inputs.
            inputs = Inputs(self.allow, own=asyncio.run(load_storage(self.storage)).url)
            first = asyncio.run(self.pipeline.plan(self.arguments, inputs=inputs))
            check_retake(first, selected.retake, self.selection)
        takes, new = _made_again(selected, found, first)
        return replace(self, takes=takes, new=new)

    def plan_of(self, other: Pipeline) -> Plan:
        """Returns the plan of another version of the pipeline, with those of the parameters that it has."""
        arguments = {name: value for name, value in self.arguments.items() if name in other.file.params}
        return asyncio.run(replace(self, pipeline=other, arguments=arguments).plan())

    async def compare(self, plan: Plan) -> None:
        """Compares a plan with the last run in the records."""
        from rh_prefect.blocks.lookup import load_storage

        runs = open_last_runs(await load_storage(self.storage), get_settings())
        last = await runs.read(plan.pipeline, self.deployment)
        if last is not None:
            since(plan, last, self.pipeline.file.params)

    async def ask_for_prices(self, plan: Plan) -> None:
        """Asks RunningHub for the prices of a plan's new requests."""
        from rh_prefect.blocks.lookup import load_pool_context, load_storage
        from rh_prefect.pipelines.plan.price_quotes import quote
        from rh_prefect.works.loop_thread import LOOP

        shared, store = await load_pool_context(self.credentials), await load_storage(self.storage)
        await LOOP.call(quote(plan, self.pipeline.checked, shared.pool, store))


def read_pipeline(file: Path, *, as_json: bool = False) -> Pipeline:
    """Reads a file; if the file has problems, prints the problems and exits with 1."""
    try:
        return Pipeline.open(file)
    except PipelineError as error:
        if as_json:
            print_json({"problems": [one.as_json() for one in error.found]})
            sys.exit(1)
        end_with_problems(error.found)
        raise


def end_with_problems(problems: Sequence[Problem]) -> None:
    """If there are problems, prints them and exits with 1."""
    if problems:
        print("\n".join(map(str, problems)), file=sys.stderr)
        sys.exit(1)


def _made_again(selected: Selected, found: Choices, plan: Plan) -> tuple[dict[str, int], list[str]]:
    """Returns the takes for `--retake`, and the steps for which results are made again.

    If a step's `reuse` is not `always`, its next take may already exist from an earlier day; the step is therefore run
    again as with `--new`. The argument `plan` can be made without the records of earlier runs.
    """
    takes, new = dict[str, int](), list[str]()
    paid = [one for one in plan.instances if one.is_paid]
    # If items with equal requests have separate results, the next take may belong to another item.
    chosen_by_plan = {one.path for one in paid if one.reuse != "always" or one.step.get("same") == "separate"}
    for address in selected.retake or ():
        if step_of(address) in chosen_by_plan:
            new.append(address)
            continue
        takes[address] = found.take_of(address, plan.items_by_number.get(address, "")) + 1
        # In the takes file, the entry of an item has priority over the entry of its step.
        for one in plan.instances:
            if one.path == address and (take := found.take_of(one.address, one.item_meaning)) != found.take_of(address):
                takes[one.address] = take + 1
    return takes, ["*"] if selected.new else new


def check_retake(plan: Plan, retake: Sequence[str], selection: Selection | None = None) -> None:
    """Raises an `InputError` if `--retake` names no paid step, or an unselected step."""
    selection = selection or Selection()
    for address in retake if not plan.problems else ():
        steps = [one for one in plan.instances if one.is_paid and address in (one.path, one.address)]
        if not steps:
            if plan.may_have(address) and any(one.is_paid and one.path == step_of(address) for one in plan.instances):
                continue  # of an item that a model has yet to name
            paid = {name for one in plan.instances if one.is_paid for name in (one.path, one.address)}
            near = nearest_sentence(address, paid, none="the plan has none")
            raise InputError(
                f"--retake: there is no paid step {address}; {near} Nothing was sent. What to do: name a paid step."
            )
        other = next((one for one in steps if not selection.has(one)), None)
        if other is not None:
            raise InputError(
                f"--retake: {other.address} is not selected by --only, --items or --sample. Nothing was sent. What to "
                "do: retake steps of selected items only, as in --retake 'each[A-17].picture', or select more."
            )


def _write_private(to: Path, text: str) -> None:
    """Writes a file that only its owner can read, because a plan contains inputs and prompts."""
    try:
        with overwrite(to) as file:
            file.write(text.encode())
    except OSError as error:
        raise InputError(
            f"plan --out: the file {to} cannot be written: {error.strerror or error}. Nothing was paid. What to do: "
            "give a file in an existing folder that you may write to."
        ) from None


def show_plan(plan: Plan, *, as_json: bool = False, svg: bool = False, markdown: bool = False) -> None:
    """Prints a plan; if the plan has problems, prints the problems and exits with 1."""
    if as_json:
        print(plan.to_json())
        if plan.problems:
            sys.exit(1)
        return
    end_with_problems(plan.problems)
    if svg:
        print(plan.svg())
    elif markdown:
        print(plan.markdown(), end="")
    else:
        print(plan.table(terminal_width()))


def schema_(*files: Path) -> None:
    """Print the JSON schema of pipelines, for completion and errors in an editor.

    Args:
        files: Files whose models' parameters are in the schema.
    """
    found = [read(text_in("schema", file), str(file)).data for file in files]
    print_json(schema(name for data in found for name in models_in(data)))
