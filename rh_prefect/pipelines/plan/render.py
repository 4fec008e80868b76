"""Formats a plan as a table, a picture, Markdown and JSON."""

from __future__ import annotations

import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from rh_prefect.display_texts import counted, cut_middle, shortened
from rh_prefect.pipelines.parsed_document import visible
from rh_prefect.pipelines.plan.changes import by_items, shown_change
from rh_prefect.pipelines.plan.planned_steps import HINTS, SIGNS, PlannedStep, PriceRange, State

if TYPE_CHECKING:
    from rh_prefect.pipelines.plan.plan import Plan

_ALWAYS, _NARROW = ("=", "+", ">", "x"), ("=", "+")
"""States that have a column even if no step has them: at any width, and in a narrow terminal."""

_MOST_REASONS = 20
_LEAST_MODEL, _LEAST_STEP = 10, 12
"""Minimum lengths of a model's and of a step's name in a narrow terminal, in characters."""


def amount(value: Decimal, *, is_open: bool = False) -> str:
    """Formats an amount of money with two decimals, after `>=` if the price can be higher."""
    text = f"{value.quantize(Decimal('0.01'), ROUND_HALF_UP):.2f}"
    return f">= {text}" if is_open else text


def prices(money: PriceRange) -> tuple[str, str, str]:
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
    tops: dict[str, set[str]] = defaultdict(set)
    for one in plan.instances:
        if "." in one.path and one.item:
            tops[one.path.partition(".")[0]].add(one.top_item)
    items = [f"{counted(len(ids), 'item')} in {name}" for name, ids in tops.items()]
    return ", ".join(items) or counted(len(plan.steps), "step")


def table(plan: Plan, width: int = 0) -> str:
    """Formats a plan as a table of at most `width` columns; 0 for any width."""
    counts = plan.counts
    states: list[State] = [state for state in SIGNS if counts[state] or state in (_NARROW if width else _ALWAYS)]
    rows = [("step", "model or edit", *states, "expected", "most")]
    for path, items in plan.steps.items():
        rows.append((path, _models(items), *_counted(items, states), *_priced(plan, items)))
    lines = list(_columns(rows, width))
    title = head(plan)
    table_width = max(len(line) for line in lines)
    lines.insert(0, f"{title}{plan.currency:>{max(len(plan.currency) + 2, table_width - len(title))}}")
    lines += [f"  {_sum(plan)}", *_difference(plan), f"  {_signs(states)}", *_reasons(plan), *_more(plan)]
    return "\n".join(lines if not width else [line for one in lines for line in _wrapped(one, width)])


def _wrapped(line: str, width: int) -> list[str]:
    indent = "  " if line.startswith("  ") else ""
    wrapper = textwrap.TextWrapper(width, indent, f"{indent}  ", break_on_hyphens=False)
    return [line] if len(line) <= width else wrapper.wrap(line.strip())


def _signs(states: Sequence[State]) -> str:
    return f"signs: {', '.join(f'{state} {SIGNS[state]}' for state in states)}"


def _models(items: Sequence[PlannedStep]) -> str:
    names = list(dict.fromkeys(one.model for one in items if one.model))
    return visible(names[0] if len(names) == 1 else f"{len(names)} models" if names else "")


def _states(items: Sequence[PlannedStep]) -> str:
    counts = Counter(one.state for one in items)
    return ", ".join(f"{counts[state]} {SIGNS[state]}" for state in SIGNS if counts[state])


def _counted(items: Sequence[PlannedStep], states: Sequence[State]) -> Iterator[str]:
    counts = Counter(one.state for one in items)
    yield from (str(counts[state]) if counts[state] else "." for state in states)


def _priced(plan: Plan, items: Sequence[PlannedStep]) -> tuple[str, str]:
    if not any(one.is_paid for one in items):
        return "free", ""
    _, expected, most = prices(plan.price_of(items))
    return expected, most


def _columns(rows: Sequence[tuple[str, ...]], width: int) -> Iterator[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    spare = sum(widths) + 2 * len(widths) - width if width else 0
    for n, least in ((1, _LEAST_MODEL), (0, _LEAST_STEP)):  # the name of a step is the last to be cut
        widths[n] = max(min(least, widths[n]), widths[n] - max(0, spare))
        spare = sum(widths) + 2 * len(widths) - width if width else 0
    for row in rows:
        names = [cut_middle(cell, size).ljust(size) for cell, size in zip(row[:2], widths[:2], strict=True)]
        figures = [cell.rjust(size) for cell, size in zip(row[2:], widths[2:], strict=True)]
        yield f"  {'  '.join([*names, *figures])}".rstrip()


def _sum(plan: Plan) -> str:
    least, expected, most = prices(plan.price)
    return f"least {least}, expected {expected}, most {most}{_budget(plan)}"


def _budget(plan: Plan) -> str:
    if plan.budget is None:
        return ""
    text = f" of a budget of {plan.budget.amount:.12g}"
    paid = f", of which {amount(plan.paid_before())} was paid for these results by earlier runs"
    return text + (paid if plan.budget.all_runs else "")


def _difference(plan: Plan) -> Iterator[str]:
    """Yields a line with the difference in price from the compared plan, and the number of changed steps."""
    if not plan.earlier:
        return
    differences = _differences(_money_of(plan.earlier["price"]), _selected_price(plan))
    changes = ", ".join(f"{name} {one}" for name, one in zip(_AMOUNTS, differences, strict=True))
    changed = sum(1 for one in plan.instances if one.why)
    steps = f"{len(plan.added)} added, {changed} changed, {len(plan.removed)} removed"
    steps = steps if plan.earlier["steps"] else "all are new"
    yield f"  difference: {changes} {plan.currency}; steps: {steps}"


_AMOUNTS = ("least", "expected", "most")


def _differences(was: PriceRange, now: PriceRange) -> list[str]:
    found = (getattr(now, name) - getattr(was, name) for name in _AMOUNTS)
    return [f"{one.quantize(Decimal('0.01'), ROUND_HALF_UP):+.2f}" for one in found]


def _money_of(data: Mapping[str, Any]) -> PriceRange:
    least, expected, most = (Decimal(str(data[name])) for name in _AMOUNTS)
    return PriceRange(least, expected, most, bool(data.get("open")))


def _selected_price(plan: Plan) -> PriceRange:
    return plan.price_of(plan.instances, plan.selection)


def markdown(plan: Plan) -> str:
    """Formats a plan as Markdown, for a comment on a pull request."""
    price = _selected_price(plan)
    lines = [f"### {_markdown(plan.pipeline)}: {prices(price)[1]} {plan.currency}", "", _markdown(head(plan)), ""]
    lines += [f"| {_row(*_AMOUNTS)}", "|---|--:|--:|--:|", _row("this plan", *prices(price))]
    if plan.earlier:
        was = _money_of(plan.earlier["price"])
        lines += [_row(_markdown(plan.compared_with), *prices(was)), _row("difference", *_differences(was, price))]
    lines += ["", *_step_rows(plan), ""]
    if plan.budget:
        lines.append(f"Budget: {plan.budget.amount:.12g} {plan.currency}{_budget(plan).partition(',')[2]}.")
    if details := [f"- {_markdown(line)}" for line in (*_reasons(plan), *_more(plan))]:
        lines += ["", "<details><summary>Changes and notes</summary>", "", *details, "", "</details>"]
    return "\n".join(lines).rstrip() + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _step_rows(plan: Plan) -> Iterator[str]:
    """Yields the table of the steps, with the prices in the compared plan."""
    earlier = {path: _money_of(money) for path, money in plan.earlier.get("step_prices", {}).items()}
    yield _row("step", "model or edit", "states", "expected", *(["was"] if plan.earlier else []))
    yield f"|---|---|---|--:|{'--:|' if plan.earlier else ''}"
    for path, items in plan.steps.items():
        before = [prices(earlier[path])[1] if path in earlier else "new"] if plan.earlier else []
        cells = (f"`{visible(path)}`", _markdown(_models(items)), _states(items), _priced(plan, items)[0])
        yield _row(*cells, *before)
    for path in earlier:
        if path not in plan.steps:
            yield f"| ~~`{visible(path)}`~~ | | removed | | {prices(earlier[path])[1]} |"


def _markdown(text: str) -> str:
    """Escapes Markdown and HTML in prompts and names."""
    return re.sub(r"([\\`*_\[\]|<>#~])", r"\\\1", visible(text))


def _reasons(plan: Plan) -> Iterator[str]:
    yield from (f"changed: {shown_change(one['what'], one['was'], one['is'])}" for one in plan.changes)
    changed = [one for one in plan.instances if one.why]
    for one in changed[:_MOST_REASONS]:
        for why in one.why:
            source = f"   {visible(why['from'])}" if why.get("from") else ""
            yield f"~ {visible(one.address)}  {shown_change(why['param'], why['was'], why['is'])}{source}"
    if len(changed) > _MOST_REASONS:
        yield f"~ and {len(changed) - _MOST_REASONS} further steps"
    there, other = [one.address for one in plan.instances], "other plan" if plan.earlier else "last run"
    added = set(plan.added)
    yield from _listed("+", by_items(plan.added, (one for one in there if one not in added)), f"not in the {other}")
    yield from _listed("-", by_items(plan.removed, there), f"only in the {other}")


def _listed(sign: str, addresses: Sequence[str], words: str) -> Iterator[str]:
    yield from (f"{sign} {visible(address)}  {words}" for address in addresses[:_MOST_REASONS])
    if len(addresses) > _MOST_REASONS:
        yield f"{sign} and {len(addresses) - _MOST_REASONS} further ones"


def _more(plan: Plan) -> Iterator[str]:
    yield from (f"note: {visible(note)}" for note in plan.notes)
    counts = plan.counts
    yield from (f"{state}  {counts[state]} steps: {hint}" for state, hint in HINTS.items() if counts[state])


_BOX_WIDTH, _LINE, _GAP = 280, 17, 40
"""Sizes in a graph's picture, in pixels: the width of a box, the height of a line, the space between boxes."""


def svg(plan: Plan) -> str:
    """Draws a plan as a picture: a box for each step with its number of items and its expected price.

    Steps whose items are all absent are left out.
    """
    steps = {path: items for path, items in plan.steps.items() if any(one.state != "x" for one in items)} or plan.steps
    needs = {path: {need.path for one in items for need in one.needs} - {path} for path, items in steps.items()}
    depth = dict[str, int]()
    for path in steps:
        depth[path] = max((depth[need] + 1 for need in needs[path] if need in depth), default=0)
    rows = [[path for path in depth if depth[path] == level] for level in range(max(depth.values(), default=0) + 1)]
    boxes = {path: _box(plan, path, items) for path, items in steps.items()}
    height = _LINE * max(map(len, boxes.values()), default=1) + 14
    width = max(map(len, rows)) * (_BOX_WIDTH + _GAP)
    at = {
        path: (round(width * (n + 0.5) / len(row)), _GAP // 2 + level * (height + _GAP))
        for level, row in enumerate(rows)
        for n, path in enumerate(row)
    }
    lines = [
        f'<path d="M{x} {y}V{y - _GAP // 4}L{at[need][0]} {at[need][1] + height}" fill="none" stroke="#788"/>'
        for path, (x, y) in at.items()
        for need in sorted(needs[path] & at.keys())
    ]
    for path, (x, y) in at.items():
        left = x - _BOX_WIDTH // 2
        lines.append(f'<rect x="{left}" y="{y}" width="{_BOX_WIDTH}" height="{height}" rx="6" fill="#eef3fb"/>')
        for n, line in enumerate(boxes[path]):
            weight = "normal" if n else "bold"
            words, down = escape(shortened(visible(line), 44)), y + 20 + n * _LINE
            lines.append(f'<text x="{left + 10}" y="{down}" font-weight="{weight}">{words}</text>')
    size = f'width="{width}" height="{len(rows) * (height + _GAP)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *lines, "</svg>"])


def _box(plan: Plan, path: str, items: Sequence[PlannedStep]) -> tuple[str, ...]:
    """Returns the lines in a step's box: its path, models, states and expected price."""
    price = prices(plan.price_of(items))[1] if any(one.is_paid for one in items) else "free"
    return tuple(line for line in (path, _models(items), _states(items), price) if line)


def as_json(plan: Plan) -> dict[str, Any]:
    """Converts a plan to plain JSON data."""
    step_prices = {path: _money(plan.price_of(items)) for path, items in plan.steps.items()}
    steps = [step_as_json(one) for one in plan.instances]
    return {**head_as_json(plan), "step_prices": step_prices, "steps": steps}


def head_as_json(plan: Plan) -> dict[str, Any]:
    """Converts a plan without its steps to plain JSON data."""
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
        "price": _money(_selected_price(plan)),
        "selection": plan.selection.as_json(),
        "budget": budget,
        "since": dict(plan.since) or None,
        "changes": list(plan.changes),
        "added": list(plan.added),
        "removed": list(plan.removed),
        "problems": [problem.as_json() for problem in plan.problems],
        "notes": list(plan.notes),
    }


def _money(money: PriceRange) -> dict[str, Any]:
    return {name: float(round(getattr(money, name), 5)) for name in _AMOUNTS} | {"open": money.is_open}


def step_as_json(one: PlannedStep) -> dict[str, Any]:
    """Converts a step to plain JSON data."""
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
        "works": [each.key for each in one.works] if len(one.works) > 1 and one.works[0].is_settled else None,
        "in_progress": [each.key for each in one.works if each.state == "…"],
        "request": one.request,
        "nodes": dict(one.nodes),
        "why": list(one.why),
        "price": _money(sum((work.price for work in paid), PriceRange())),
        "quoted": one.is_quoted or None,
        "seconds": round(one.seconds, 3) if one.seconds is not None else None,
        "needs": [need.address for need in one.needs],
        "save_as": one.save_as or None,
        "record": known.record or None if known is not None else None,
        "task_id": known.task_id or None if known is not None else None,
    }
    return {name: value for name, value in found.items() if value not in (None, [], {})}
