"""`rh-prefect spend`: reports the cost of tasks from the journals of all runs and the results in a storage."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from cyclopts import Parameter, Token

from rh_prefect.cli.options import Json, Storage
from rh_prefect.cli.output import print_json, terminal_width
from rh_prefect.cli.prefect_server import is_configured
from rh_prefect.display_texts import counted, cut_middle
from rh_prefect.errors import JournalError
from rh_prefect.flow_runs.spend_sums import Sum, bars, sums_of
from rh_prefect.pipelines.parsed_document import visible
from rh_prefect.works.journal.costs_and_budget import amount_text

if TYPE_CHECKING:
    from rh_prefect.flow_runs.charge_reader import TaskCharge


By: TypeAlias = Literal["model", "day", "week", "month", "flow", "run", "account", "pipeline", "step", "item", "label"]


def _day(_type: type, tokens: Sequence[Token]) -> date:
    text, today = tokens[0].value, datetime.now(UTC).date()
    near = {"today": today, "yesterday": today - timedelta(days=1)}
    try:
        return near.get(text) or date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a day; write YYYY-MM-DD, today or yesterday") from None


def spend(
    *,
    storage: Storage = None,
    by: By = "model",
    since: Annotated[date | None, Parameter(converter=_day)] = None,
    until: Annotated[date | None, Parameter(converter=_day)] = None,
    json_: Json = False,
    csv_: bool = False,
    plot: bool = False,
) -> None:
    """Add up the cost of all tasks of the jobs in a storage, including failed, cancelled and lost tasks.

    Args:
        by: How to group the sums.
        since: Only tasks that ended on this day (YYYY-MM-DD, today or yesterday, in UTC) or after.
        until: Only tasks that ended before this day, in the same form.
        csv_: Print the sums as CSV.
        plot: Draw the sums as bars.
    """
    from rh_prefect.flow_runs.charge_reader import charges_of

    store, found = asyncio.run(charges_of(storage, with_prefect=is_configured()))
    if not is_configured():
        _note("for flow runs, only jobs with a stored result are counted; set PREFECT_API_URL to count all tasks")
    first, end = since.isoformat() if since else "", until.isoformat() if until else "a"  # after all digits
    here = [one for one in found.tasks if one.store == store.url and first <= one.at < end]
    when = (f" since {since}" if since else "") + (f" until {until}" if until else "")
    if plot:
        drawn = list(chart(bars(here, by), by=by, width=terminal_width() or 80))
        print("\n".join(drawn) or "no cost is recorded")
    elif json_:
        print_json(records(here, by, unread=found.unread))
    elif csv_:
        _print_csv(records(here, by, unread=found.unread))
    else:
        nothing = f"no task is recorded for {store.url}{when}"
        print("\n".join(table(here, by, is_complete=not found.unread)) or nothing)
        if found.unread:
            places = counted(len(found.unread), "place")
            print(f"incomplete: {places} could not be read; the cost of the tasks recorded there is missing")
    others = sum(1 for one in found.tasks if one.store != store.url)
    if others:
        _note(
            f"{others} task(s) of other storages are also recorded; select a storage with --storage, or set "
            "RH_STORAGE_URL"
        )
    if found.unread:
        listed = "".join(f"\n  {place}: {why}" for place, why in sorted(found.unread.items()))
        raise JournalError(
            f"spend: the sums are incomplete, because the records in these places cannot be read:{listed}\nWhat to "
            "do: repair these records, and run again."
        )


def chart(found: Mapping[str, Sequence[tuple[str, Decimal]]], *, by: str, width: int) -> Iterator[str]:
    """Yields the lines of a chart that fits a terminal; see `spend_sums.bars`."""
    for unit, rows in found.items():
        amounts = [amount_text(amount, unit) for _, amount in rows]
        right, names = max(map(len, amounts)), max(len(visible(name)) for name, _ in rows)
        left = min(names, max(12, width // 2))
        longest = max(width - left - right - 4, 8)
        most = max(amount for _, amount in rows) or Decimal(1)
        yield f"{unit} by {by}"
        for (name, amount), text in zip(rows, amounts, strict=True):
            size = max(1, round(longest * amount / most)) if amount else 0
            yield f"{cut_middle(visible(name), left):{left}}  {text:>{right}}  {'█' * size}".rstrip()


def _note(line: str) -> None:
    """Prints a note to stderr, because another program may read stdout."""
    print(line, file=sys.stderr)


def _print_csv(rows: Sequence[Mapping[str, object]]) -> None:
    from rh_prefect.table_files import csv_text

    columns = ["name", "unit", "tasks", "amount", "estimated", "complete"]
    words = [{**row, "complete": str(row["complete"]).lower()} for row in rows]
    print(csv_text(columns, words).replace("\r\n", "\n"), end="")


_NUMBERS, _LEAST_NAME = 36, 16
"""Number of columns for the numbers of a line, and minimum columns for its name."""


def table(found: Iterable[TaskCharge], by: str, *, is_complete: bool = True) -> list[str]:
    """Returns the sums as lines: one for each name and unit, and one for each name's tasks whose cost is unknown."""
    total = "total" if is_complete else "total, incomplete"
    sums, totals = sums_of(found, by), defaultdict[tuple[str, str], Sum](Sum)
    for (_, unit), row in sums.items():
        totals[total, unit].add(row)
    rows = [(*key, one[key]) for one in (sums, totals) for key in sorted(one, key=_order)]
    width = max((len(visible(name)) for name, *_ in rows), default=0)
    if columns := terminal_width():
        width = min(width, max(columns - _NUMBERS, _LEAST_NAME))
    return [f"{cut_middle(visible(name), width):{width}}  {_line(unit, row)}" for name, unit, row in rows]


def _order(key: tuple[str, str]) -> tuple[str, bool, str]:
    name, unit = key
    return name, not unit, unit  # unknown costs last


def records(found: Iterable[TaskCharge], by: str, *, unread: Iterable[str] = ()) -> list[dict[str, object]]:
    """Returns the sums as data, without a total: a row for each name and unit; rows without a unit have unknown cost.

    If a location could not be read, a row without numbers names it, and no row is complete.
    """
    missing = [f"not read: {place}" for place in sorted(unread)]
    sums: list[dict[str, object]] = [
        {
            "name": name,
            "unit": unit or None,
            "tasks": row.tasks,
            "amount": str(row.amount) if unit else None,
            "estimated": str(row.estimated) if unit else None,
            "complete": not missing,
        }
        for (name, unit), row in sorted(sums_of(found, by).items())
    ]
    numbers = dict.fromkeys(("unit", "tasks", "amount", "estimated"))
    return [*sums, *({"name": name, **numbers, "complete": False} for name in missing)]


def _line(unit: str, row: Sum) -> str:
    if not unit:
        return f"{row.tasks:6} task(s)  {'unknown cost':>12}"
    estimated = f"  ({amount_text(row.estimated, unit)} of this is estimated)" if row.estimated else ""
    return f"{row.tasks:6} task(s)  {amount_text(row.amount, unit):>12} {unit}{estimated}"
