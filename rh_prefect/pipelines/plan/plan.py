"""`Plan`: the steps of a run with their states and prices; it can be shown, written as JSON and compared."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from html import escape
from typing import Any

from rh_prefect.errors import InputError
from rh_prefect.pipelines.check.checked_file import Checked
from rh_prefect.pipelines.check.file import notes_of
from rh_prefect.pipelines.file_model import Budget, GroupStep, UseStep
from rh_prefect.pipelines.parsed_document import Problem, Problems, nearest_sentence, visible
from rh_prefect.pipelines.plan import render
from rh_prefect.pipelines.plan.fan_out import mark_chosen
from rh_prefect.pipelines.plan.incremental_planner import Planner
from rh_prefect.pipelines.plan.planned_steps import FREE, PlannedStep, PriceRange, Selection, Work, grouped, own_works
from rh_prefect.pipelines.plan.planning import Planning
from rh_prefect.pipelines.takes_file import Choices, step_of
from rh_prefect.works.journal.costs_and_budget import COINS


@dataclass(repr=False)
class Plan:
    """What a run would make and pay for: each step with its state and price, and the problems of the file.

    Attributes:
        pipeline: The pipeline's name.
        spec_sha256: The hash of the file's text.
        catalogue: The version of the catalogue.
        params: The parameters' values, as they were given.
        hidden_params: Parameters whose values are not shown in full, such as signed links.
        inputs: The location and the content's hash of each input file, and the declared columns of a table.
        currency: The currency of all prices.
        budget: The file's budget; None if the file has no budget, or an unlimited budget.
        is_unlimited: Whether the file says that a run has no budget.
        instances: Every step of every item.
        problems: The plan's errors; a plan with problems is not run.
        notes: Hints that do not prevent a run.
        removed: Addresses that only the last run had.
        added: Addresses of steps without a result that were not in the last run.
        changes: Differences from the last run outside of steps: `{what, was, is}`.
        compared_with: The run or plan with which the plan is compared, in words.
        since: The last run, as plain JSON data.
        earlier: The plan to compare prices with, as plain JSON data.
        records: The location of the records, in words.
        new_takes: The chosen take of each step that is made again, by address.
        paths: The names of all steps of the file and of the files that it uses, as in `each.picture`.
        selection: The part of the pipeline that a run of the plan makes.
        open_fan_outs: The fan-outs whose items are not all known yet, each mapped to whether it is outermost.
        planner: The planner, which plans parts again when steps have results.
    """

    pipeline: str
    spec_sha256: str = ""
    catalogue: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    hidden_params: Sequence[str] = ()
    inputs: Sequence[Mapping[str, Any]] = ()
    currency: str = "CNY"
    budget: Budget | None = None
    is_unlimited: bool = False
    instances: Sequence[PlannedStep] = ()
    problems: Sequence[Problem] = ()
    notes: Sequence[str] = ()
    removed: Sequence[str] = ()
    added: Sequence[str] = ()
    changes: Sequence[Mapping[str, Any]] = ()
    compared_with: str = ""
    since: Mapping[str, str] = field(default_factory=dict)
    earlier: Mapping[str, Any] = field(default_factory=dict)
    records: str = ""
    outputs: Mapping[str, Any] = field(default_factory=dict)
    new_takes: Mapping[str, int] = field(default_factory=dict)
    paths: Collection[str] = ()
    selection: Selection = field(default_factory=Selection)
    open_fan_outs: Mapping[str, bool] = field(default_factory=dict)
    planner: Planner | None = None

    def __repr__(self) -> str:
        """Returns a short description without the steps, because these refer to each other."""
        return f"<Plan of {self.pipeline}: {len(self.instances)} steps, {len(self.problems)} problems>"

    def _repr_html_(self) -> str:
        """Shows the table, or the problems, in a notebook."""
        return f"<pre>{escape(chr(10).join(map(str, self.problems)) or self.table())}</pre>"

    @property
    def price(self) -> PriceRange:
        """The cost of a run: minimum, expected and maximum."""
        return self.price_of(self.instances)

    @property
    def works(self) -> list[Work]:
        """Every work (a request with one take), each once."""
        return list(dict.fromkeys(work for one in self.instances for work in one.works))

    @property
    def steps(self) -> dict[str, list[PlannedStep]]:
        """The steps of all items by path, as in `each.clip`."""
        return grouped(self.instances)

    def price_of(self, instances: Sequence[PlannedStep], selection: Selection | None = None) -> PriceRange:
        """Returns the price of some steps; a shared work counts once.

        Args:
            instances: The steps.
            selection: If given, only selected steps count. Selected items count even if a `limit` may leave them out.
        """
        selected = [one for one in instances if selection is None or selection.has(one)]
        is_part = selection is not None and selection != Selection()
        return _price((work for one in selected for work in one.works), with_spare=is_part)

    @property
    def items_by_number(self) -> dict[str, str]:
        """The hash of each item that has a number in place of an id, by addresses of its steps; see `Frame.meaning`."""
        return {one.address: one.item_meaning for one in self.instances if one.item_meaning}

    def may_have(self, address: str) -> bool:
        """Returns whether an address exists, or may exist when the items of its fan-out are known.

        Args:
            address: An address, as in `each.picture` or `each[A-17].picture`.
        """
        path = step_of(address)
        is_possible = path == address or any(path.startswith(f"{group}.") for group in self.open_fan_outs)
        return (is_possible and path in self.paths) or any(one.address == address for one in self.instances)

    def refuse_unknown(self, selection: Selection, *, new: Collection[str] = ()) -> None:
        """Raises an error if selected steps or items do not exist, because a run would make nothing for them.

        Args:
            selection: The selection.
            new: Names of steps that are to be made again; `*` for all.

        Raises:
            InputError: There is no such step or item.
        """
        for name in sorted(selection.steps | (set(new) - {"*"})):
            if not self.may_have(name):
                _refuse("step", name, self.paths if step_of(name) == name else [one.address for one in self.instances])
        items = dict.fromkeys(one.top_item for one in self.instances if one.item)
        for name in sorted(selection.top_items - items.keys()):
            if not any(self.open_fan_outs.values()):
                _refuse("item", name, items)

    def out_of_reach(self, selection: Selection) -> list[tuple[PlannedStep, PlannedStep]]:
        """Returns the selected steps that need an unselected step without a result, each with that step.

        If only items are selected, steps outside of fan-outs are left out, because these usually need all items.

        Args:
            selection: The selection.
        """
        causes, found = dict[str, PlannedStep](), list[tuple[PlannedStep, PlannedStep]]()
        for one in self.instances:
            if one.state in "=x" or not one.is_needed:
                continue
            needs = [need for need in (*one.needs, *one.waits_for) if need.state not in "=x"]
            lacks = (
                need if not selection.has(need) and need.state != "r" else causes.get(need.address) for need in needs
            )
            cause = next(filter(None, lacks), None)
            if cause is None:
                continue
            causes[one.address] = cause
            if selection.has(one) and (one.item or selection.steps):
                found.append((one, cause))
        return found

    def keep_problems_of(self, without_results: Plan) -> None:
        """Converts problems caused by existing results to notes: they concern some items, and the others can be made.

        A run fails the steps with such problems, except equal requests, which share one result.

        Args:
            without_results: The same plan without any existing result.
        """
        places = {(one.file, one.line, one.column) for one in without_results.problems}
        kept = [one for one in self.problems if (one.file, one.line, one.column) in places]
        notes = (f"{one.head}; the cause is an earlier result." for one in self.problems if one not in kept)
        self.notes, self.problems = [*self.notes, *notes], kept

    def paid_before(self, counts: Callable[[str], bool] = lambda _: True) -> Decimal:
        """Returns the cost of the plan's works so far, which counts toward a budget for all runs.

        Args:
            counts: Returns whether a work counts, by its key; by default, all works count.
        """
        works = {work.key: work for one in self.instances for work in one.works if counts(work.key)}
        return sum(map(_cost_of, works.values()), Decimal(0))

    @property
    def counts(self) -> Counter[str]:
        """The number of steps in each state."""
        return Counter(one.state for one in self.instances)

    def as_json(self) -> dict[str, Any]:
        """Returns the plan as plain JSON data; `rh_prefect/pipelines/plan/schema.json` describes it."""
        return render.as_json(self)

    def to_json(self) -> str:
        """Returns the plan as JSON text."""
        return json.dumps(self.as_json(), ensure_ascii=False, indent=2)

    def table(self, width: int = 0) -> str:
        """Returns the plan as a table of steps with states and prices, of at most `width` columns; 0 for any width."""
        return render.table(self, width)

    def markdown(self) -> str:
        """Returns the plan as Markdown for a comment, with the difference from the compared plan."""
        return render.markdown(self)

    def svg(self) -> str:
        """Returns the steps as an SVG picture, with counts and prices."""
        return render.svg(self)


def _cost_of(work: Work) -> Decimal:
    known = work.known
    if known is None:
        return Decimal(0)
    # As in the budget of a run, the price counts in place of coins, and of a cost that RunningHub did not report.
    return work.price.expected if known.cost is None or known.currency == COINS else known.cost


def _price(works: Iterable[Work], *, with_spare: bool = False) -> PriceRange:
    """Returns the price of works; each request and take counts once, even if steps parse the answer differently.

    The minimum does not include works that may be skipped.
    """
    paid, sure = dict[str, PriceRange](), set[str]()
    for work in works:
        if work.is_paid and (with_spare or not work.is_spare):
            paid[work.key] = work.price
            sure |= {work.key} if work.is_sure else set()
    return sum((one if key in sure else replace(one, least=Decimal(0)) for key, one in paid.items()), FREE)


def _refuse(what: str, name: str, known: Iterable[str]) -> None:
    near = nearest_sentence(name, known, none="the plan has none")
    raise InputError(
        f"The selected {what} {visible(name)} does not exist; {near} Nothing was sent. What to do: correct the name."
    )


async def finished(planning: Planning, params: Mapping[str, Any], plan: Plan) -> Plan:
    """Plans all parts and adds them to `plan`, which has no steps yet."""
    planner = Planner(planning, params)
    await planner.plan()
    # In a thread, like all that takes long for many rows: the event loop is not blocked.
    return await asyncio.to_thread(finish, planner, plan)


def finish(planner: Planner, plan: Plan) -> Plan:
    """Completes a plan from its parts, and reports equal requests and equal file names."""
    checked, problems, instances = planner.planning.checked, Problems(), planner.instances
    selection, findings = planner.planning.options.selection, planner.report(problems)
    notes = findings.notes
    planner.count()
    mark_chosen(findings.chosen, instances)
    _refuse_equal(instances, checked, problems)
    for one in instances:
        for problem, advice in planner.clashes.problems_of(one):
            problems.add(checked.document, one.used_at or (*one.at, "save_as"), f"{problem}; {advice}")
    _note_repeated(planner.planning.options.equal.repeated, notes)
    _note_unused_takes(instances, notes, checked)
    _note_unknown_addresses(instances, notes, planner.planning.choices)
    _refuse_bare_numbers(instances, planner.planning.choices, checked, problems)
    plan.instances, plan.planner, plan.selection = instances, planner, selection
    _note_budget(plan, notes)
    _refuse_item_budget(plan, selection, checked, problems)
    plan.notes = [*notes_of(checked), *notes]
    plan.problems = list(problems)
    plan.outputs, plan.new_takes = planner.outputs, findings.new_takes
    plan.paths = [path for path, step in checked.walk() if not isinstance(step, GroupStep | UseStep)]
    plan.open_fan_outs = findings.open_fan_outs
    return plan


def _refuse_equal(instances: Sequence[PlannedStep], checked: Checked, problems: Problems) -> None:
    """Reports equal requests of one fan-out, which would share one result."""
    for path, items in grouped(instances).items():
        largest = _equal(items)
        if len(largest) < 2 or _allows_same_works(items[0], checked):
            continue
        count = len(largest)
        which = "" if count == len(items) else f" ({', '.join(visible(one.item) for one in largest[:3])}"
        which += "" if not which else ", …)" if count > 3 else ")"
        message = (
            f"{count} items of {path}{which} have the same request and would share one result; for one result, write "
            f"same: true; for {count} results, write same: separate, or use $(item…) in the request"
        )
        at = items[0].used_at or items[0].at
        problems.add(checked.document, (*at, "use" if items[0].used_at else items[0].step.action), message)


def _equal(items: Sequence[PlannedStep]) -> list[PlannedStep]:
    if len(items) < 2 or not items[0].is_paid:
        return []
    sets: dict[str, list[PlannedStep]] = {}
    for one in items:
        for work in one.works:  # a takes file may give an item only some takes of another one
            sets.setdefault(work.key, []).append(one)
    return max(sets.values(), key=len, default=[])


def _allows_same_works(one: PlannedStep, checked: Checked) -> bool:
    user = next((step for path, step in checked.file.walk() if path == one.used_at), None)
    return any(step is not None and step.get("same") for step in (one.step, user))


def _note_repeated(repeated: Mapping[str, Collection[str]], notes: dict[str, None]) -> None:
    """Adds a note about items of `same: separate` with equal requests, each of which is paid for separately."""
    for path, items in repeated.items():
        has, more = ("has", "") if len(items) == 1 else ("have", f" and {len(items) - 1} more")
        first = visible(next(iter(items)))
        notes[f"{path}: {first}{more} {has} the same request as an earlier item; each is paid for separately."] = None


def _note_unused_takes(instances: Sequence[PlannedStep], notes: dict[str, None], checked: Checked) -> None:
    text = _text_of(checked)
    reviewed = {id(need) for one in instances if one.model == "review" for need in one.needs}
    for one in instances:
        is_unused = one.is_paid and len(one.works) > 1 and id(one) not in reviewed
        if is_unused and f"{one.path.rpartition('.')[2]}.takes" not in text:
            notes[f"{one.path}: {len(one.works)} takes are made, but only the first is used."] = None


def _text_of(checked: Checked) -> str:
    return "\n".join([*checked.document.lines, *map(_text_of, checked.uses.values())])


def _note_unknown_addresses(instances: Sequence[PlannedStep], notes: dict[str, None], choices: Choices) -> None:
    known = {name for one in instances for name in (one.address, one.path)}
    for address in (*choices.takes, *choices.choices):
        if address not in known:
            notes[f"{visible(address)} has a take or a choice, but there is no such step or item."] = None


def _refuse_bare_numbers(
    instances: Sequence[PlannedStep], choices: Choices, checked: Checked, problems: Problems
) -> None:
    """Reports takes in the takes file that name an item only by its number, which changes with the list."""
    bare = choices.bare
    for one in instances if bare else ():
        if one.item_meaning and one.address in bare:
            take, name = choices.takes[one.address], visible(one.address)
            message = (
                f"the takes file: {name}: {take} names an item by its number, which changes with the list; for the "
                f"current item, write {name}: {{take: {take}, of: '{one.item_meaning}'}}; or give the group an id"
            )
            problems.add(checked.document, one.used_at or one.at, message)


def _note_budget(plan: Plan, notes: dict[str, None]) -> None:
    if plan.budget is None:
        return
    price, amount = plan.price_of(plan.instances, plan.selection), Decimal(f"{plan.budget.amount:.12g}")
    before = plan.paid_before() if plan.budget.all_runs else Decimal(0)
    if price.least and price.least + before > amount:
        left = f", of which {max(Decimal(0), amount - before):f} is left," if before else ""
        effect = "some results will not be made" if plan.budget.whole_items else "a run needs a higher budget"
        notes[f"The budget of {amount}{left} is below the minimum price; {effect}."] = None
    if plan.budget.whole_items and not plan.budget.amount:
        notes["The budget is 0: only existing results are used."] = None


def _refuse_item_budget(plan: Plan, selection: Selection, checked: Checked, problems: Problems) -> None:
    """Reports a `budget.item` that is too small to finish a selected item."""
    if plan.budget is None or plan.budget.item is None:
        return
    budget, own = Decimal(str(plan.budget.item)), {key for keys in own_works(plan.instances).values() for key in keys}
    least: dict[str, dict[str, Decimal]] = {}
    for one in plan.instances:
        if one.item and selection.has(one):
            sure = {work.key: work.price.least for work in one.works if work.is_paid and work.is_sure}
            least.setdefault(one.top_item, {}).update({key: sure[key] for key in sure.keys() & own})
    prices = {item: sum(works.values(), Decimal(0)) for item, works in least.items()}
    dear = {item: price for item, price in prices.items() if price > budget}
    if dear:
        item, price = max(dear.items(), key=lambda each: each[1])
        others = f" ({len(dear)} items cost more than this)" if len(dear) > 1 else ""
        message = (
            f"item {visible(item)} costs at least {price.normalize():f} {plan.currency} and would not be finished: the "
            f"budget of an item is {plan.budget.item:.12g}{others}; raise `budget.item`, or select other items"
        )
        problems.add(checked.document, ("budget", "item"), message)
