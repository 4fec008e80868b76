"""A plan as a table, a tree, a Mermaid graph and JSON."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

from rh_prefect.pipelines.document import visible
from rh_prefect.pipelines.plan.changes import by_items, shown_change
from rh_prefect.pipelines.plan.planned_steps import SIGNS, STATES, Instance, Money, State

if TYPE_CHECKING:
    from rh_prefect.pipelines.plan.plan import Plan

_ALWAYS = ("=", "+", ">", "x")
_MOST_REASONS = 20


def amount(value: Decimal, *, is_open: bool = False) -> str:
    """Formats an amount of money with two digits, with `>=` if it can be more."""
    text = f"{value.quantize(Decimal('0.01'), ROUND_HALF_UP):.2f}"
    return f">= {text}" if is_open else text


def prices(money: Money) -> tuple[str, str, str]:
    """Formats the minimum, the expected and the maximum price."""
    open_ = money.is_open
    return amount(money.least), amount(money.expected, is_open=open_), amount(money.most, is_open=open_)


def head(plan: Plan) -> str:
    """Returns the first line: the pipeline and its size, the compared run, and the location of the records."""
    parts = [f"{plan.pipeline}: {_size(plan)}"]
    parts.extend([f"compared with {plan.compared_with}"] if plan.compared_with else [])
    parts.extend([f"records in {plan.records}"] if plan.records else [])
    return "; ".join(parts)


def _size(plan: Plan) -> str:
    tops = {one.path.partition(".")[0]: set[str]() for one in plan.instances if "." in one.path and one.item}
    for one in plan.instances:
        top = one.path.partition(".")[0]
        if top in tops:
            tops[top].add(one.item.partition("/")[0])
    items = [f"{len(ids)} items in {name}" for name, ids in tops.items()]
    return ", ".join(items) or f"{len(plan.steps)} steps"


def table(plan: Plan) -> str:
    """Formats a plan as a table."""
    counts = plan.counts
    states: list[State] = [state for state in STATES if state in _ALWAYS or counts[state]]
    rows = [("step", "model or edit", *states, "expected", "most")]
    for path, items in plan.steps.items():
        rows.append((path, _models(items), *_counted(items, states), *_priced(plan, items)))
    lines = list(_columns(rows))
    title = head(plan)
    width = max(len(line) for line in lines)
    lines.insert(0, f"{title}{plan.currency:>{max(len(plan.currency) + 2, width - len(title))}}")
    return "\n".join([*lines, f"  {_sum(plan)}", f"  {_signs(states)}", *_reasons(plan), *_more(plan)])


def _signs(states: Sequence[State]) -> str:
    return f"signs: {', '.join(f'{state} {SIGNS[state]}' for state in states)}"


def _models(items: Sequence[Instance]) -> str:
    names = list(dict.fromkeys(one.model for one in items if one.model))
    return visible(names[0] if len(names) == 1 else f"{len(names)} models" if names else "")


def _counted(items: Sequence[Instance], states: Sequence[State]) -> Iterator[str]:
    counts = Counter(one.state for one in items)
    yield from (str(counts[state]) if counts[state] else "." for state in states)


def _priced(plan: Plan, items: Sequence[Instance]) -> tuple[str, str]:
    if not any(one.is_paid for one in items):
        return "free", ""
    _, expected, most = prices(plan.price_of(items))
    return expected, most


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) if n < 2 else cell.rjust(width) for n, (cell, width) in enumerate(zip(row, widths))]
        yield f"  {'  '.join(cells)}".rstrip()


def _sum(plan: Plan) -> str:
    least, expected, most = prices(plan.price)
    budget = f" of a budget of {plan.budget.amount:g}" if plan.budget is not None else ""
    return f"least {least}, expected {expected}, most {most}{budget}"


def _reasons(plan: Plan) -> Iterator[str]:
    yield from (f"changed: {shown_change(one)}" for one in plan.changes)
    changed = [one for one in plan.instances if one.why]
    for one in changed[:_MOST_REASONS]:
        for why in one.why:
            source = f"   {visible(why['from'])}" if why.get("from") else ""
            yield f"~ {visible(one.address)}  {shown_change({'what': why['param'], **why})}{source}"
    if len(changed) > _MOST_REASONS:
        yield f"~ and {len(changed) - _MOST_REASONS} further steps"
    there = [one.address for one in plan.instances]
    added = set(plan.added)
    yield from _listed("+", by_items(plan.added, (one for one in there if one not in added)), "not in the last run")
    yield from _listed("-", by_items(plan.removed, there), "no longer in the file or the table")


def _listed(sign: str, addresses: Sequence[str], words: str) -> Iterator[str]:
    yield from (f"{sign} {visible(address)}  {words}" for address in addresses[:_MOST_REASONS])
    if len(addresses) > _MOST_REASONS:
        yield f"{sign} and {len(addresses) - _MOST_REASONS} further ones"


def _more(plan: Plan) -> Iterator[str]:
    yield from (f"note: {visible(note)}" for note in plan.notes)
    counts = plan.counts
    yield from (f"{state}  {counts[state]} steps: {STATES[state]}" for state in ("…", "?", "!", "r") if counts[state])


def tree(plan: Plan) -> str:
    """Formats a plan as a tree of groups and steps."""
    lines, shown = [plan.pipeline], set[str]()
    for path, items in plan.steps.items():
        parts = path.split(".")
        for depth in range(1, len(parts)):
            group = ".".join(parts[:depth])
            if group not in shown:
                shown.add(group)
                lines.append(f"{'  ' * depth}{parts[depth - 1]}/")
        lines.append(f"{'  ' * len(parts)}{parts[-1]}  {_line(plan, items)}")
    return "\n".join(lines)


def _line(plan: Plan, items: Sequence[Instance]) -> str:
    counts = Counter(one.state for one in items)
    states = " ".join(f"{state}{counts[state]}" for state in STATES if counts[state])
    price = prices(plan.price_of(items))[1] if any(one.is_paid for one in items) else "free"
    return f"{_models(items)}  {states}  {price}"


def mermaid(plan: Plan) -> str:
    """Formats a plan as a Mermaid graph: one box for each step, with its number of items and its expected price."""
    lines = ["graph TD"]
    names = {path: f"n{number}" for number, path in enumerate(plan.steps)}
    for path, items in plan.steps.items():
        lines.append(f'  {names[path]}["{"<br/>".join(map(_escaped, _box(plan, path, items)))}"]')
    edges = dict.fromkeys(
        (names[need.path], names[path])
        for path, items in plan.steps.items()
        for one in items
        for need in one.needs
        if need.path in names and need.path != path
    )
    lines.extend(f"  {one} --> {other}" for one, other in edges)
    return "\n".join(lines)


def _box(plan: Plan, path: str, items: Sequence[Instance]) -> tuple[str, ...]:
    """Returns the lines of a box, without signs such as `>`, which would appear encoded in Prefect's older UI."""
    counts = Counter(one.state for one in items)
    states = ", ".join(f"{counts[state]} {SIGNS[state]}" for state in STATES if counts[state])
    price = prices(plan.price_of(items))[1] if any(one.is_paid for one in items) else "free"
    return tuple(line for line in (path, _models(items), states, price.replace(">= ", "at least ")) if line)


def _escaped(text: str) -> str:
    """Escapes a text within a box of Mermaid: every special character becomes its number.

    Parentheses have none within quotes.
    """
    return re.sub(r"[^\w .,/+=…:$()-]", lambda match: f"#{ord(match.group())};", visible(text))


def as_json(plan: Plan) -> dict[str, Any]:
    """Converts a plan to plain JSON data."""
    money = plan.price_of(plan.instances, plan.selection)
    budget = plan.budget.model_dump(exclude_none=True) if plan.budget is not None else None
    return {
        "version": 1,
        "pipeline": plan.pipeline,
        "spec_sha256": plan.spec_sha256,
        "catalogue": plan.catalogue,
        "params": dict(plan.params),
        "hidden_params": list(plan.hidden_params),
        "inputs": list(plan.inputs),
        "currency": plan.currency,
        "price": _money(money),
        "selection": plan.selection.as_json(),
        "budget": budget,
        "steps": [_step(one) for one in plan.instances],
        "since": dict(plan.since) or None,
        "changes": list(plan.changes),
        "added": list(plan.added),
        "removed": list(plan.removed),
        "problems": [problem.as_json() for problem in plan.problems],
        "notes": list(plan.notes),
    }


def _money(money: Money) -> dict[str, Any]:
    least, expected, most = (str(value.quantize(Decimal("0.00001")).normalize()) for value in _amounts(money))
    return {"least": _plain(least), "expected": _plain(expected), "most": _plain(most), "open": money.is_open}


def _amounts(money: Money) -> tuple[Decimal, Decimal, Decimal]:
    return money.least, money.expected, money.most


def _plain(text: str) -> float:
    return float(text)


def _step(one: Instance) -> dict[str, Any]:
    work = one.works[0] if one.works else None
    known = work.known if work is not None else None
    paid = [work for work in one.works if work.is_paid]
    found = {
        "path": one.path,
        "item": one.item,
        "address": one.address,
        "model": one.model,
        "endpoint": one.endpoint or None,
        "state": one.state,
        "work": work.key if work is not None and work.is_settled and not one.is_unread else None,
        "take": work.take if work is not None else None,
        "takes": len(one.works),
        "round": work.scope or None if work is not None else None,
        "works": [each.key for each in one.works]
        if len(one.works) > 1 and work is not None and work.is_settled
        else None,
        "in_progress": [each.key for each in one.works if each.state == "…"],
        "request": one.request,
        "nodes": dict(one.nodes),
        "why": one.why,
        "price": _money(sum((work.price for work in paid), Money())),
        "quoted": one.is_quoted or None,
        "seconds": round(one.seconds, 3) if one.seconds is not None else None,
        "needs": [need.address for need in one.needs],
        "save_as": one.save_as or None,
        "record": known.record or None if known is not None else None,
        "task_id": known.task_id or None if known is not None else None,
    }
    return {name: value for name, value in found.items() if value not in (None, [], {})}
