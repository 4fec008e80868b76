"""`rh-prefect spend`: reports the cost of tasks from the journals of all runs and the results in a storage."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from cyclopts import Parameter

from rh_prefect.cli.prefect_server import api_of_earlier_runs, is_configured
from rh_prefect.errors import InputError, JournalError
from rh_prefect.pipelines.document import visible
from rh_prefect.pipelines.takes_file import step_of
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.costs import amount_text
from rh_prefect.works.journal.record_types import is_fingerprint

if TYPE_CHECKING:
    from rh_prefect.flow_runs.spend_report import Charges, TaskCharge
    from rh_prefect.media.store import MediaStore


By: TypeAlias = Literal["model", "day", "run", "account", "pipeline", "step", "item"]


def spend(
    *,
    storage: Annotated[str | None, Parameter(help="Name of a MediaStorage block; by default RH_STORAGE_URL.")] = None,
    by: Annotated[By, Parameter(help="How to group the sums.")] = "model",
    since: Annotated[
        str | None, Parameter(help="Only tasks that ended on this day (YYYY-MM-DD, UTC) or after.")
    ] = None,
    json_: Annotated[bool, Parameter(name="--json", help="Print the sums as JSON.", negative="")] = False,
    csv_: Annotated[bool, Parameter(name="--csv", help="Print the sums as CSV.", negative="")] = False,
) -> None:
    """Add up the cost of all tasks of a storage's jobs, including failed, cancelled and lost ones."""
    if since is not None:
        since = _day(since)
    with api_of_earlier_runs():
        store, found = asyncio.run(_charges(storage))
        if not is_configured():
            _note("flow runs are not included, because PREFECT_API_URL is not set")
    here = [one for one in found.tasks if one.store == store.url and (since is None or one.at >= since)]
    if json_:
        print(json.dumps(records(here, by, unread=found.unread), indent=2))
    elif csv_:
        _print_csv(records(here, by, unread=found.unread))
    else:
        nothing = f"no task of {store.url} is recorded" + (f" since {since}" if since else "")
        print("\n".join([*(table(here, by, is_complete=not found.unread) or [nothing]), *_incomplete(found.unread)]))
    others = sum(1 for one in found.tasks if one.store != store.url)
    if others:
        _note(
            f"{others} task(s) of other storages are recorded too; select a storage with --storage, or set "
            "RH_STORAGE_URL"
        )
    if found.unread:
        listed = "".join(f"\n  {place}: {why}" for place, why in sorted(found.unread.items()))
        raise JournalError(
            f"spend: the sums are incomplete, because the records of these places cannot be read:{listed}"
        )


def _incomplete(unread: Mapping[str, str]) -> list[str]:
    if not unread:
        return []
    places = "1 place" if len(unread) == 1 else f"{len(unread)} places"
    return [f"incomplete: {places} could not be read; the cost of the tasks recorded there is missing"]


def _note(line: str) -> None:
    """Prints a note to stderr, because another program may read the data on stdout."""
    print(line, file=sys.stderr)


def _print_csv(rows: Sequence[Mapping[str, object]]) -> None:
    from rh_prefect.table_files import csv_text

    columns = ["name", "unit", "tasks", "amount", "estimated", "complete"]
    words = [{**row, "complete": str(row["complete"]).lower()} for row in rows]
    print(csv_text(columns, words).replace("\r\n", "\n"), end="")


async def _charges(storage: str | None) -> tuple[MediaStore, Charges]:
    from rh_prefect.blocks.lookup import load_storage
    from rh_prefect.flow_runs.spend_report import charges
    from rh_prefect.works.journal.works_journal import default_works

    store = await load_storage(storage)
    settings = get_settings()
    default = None if settings.records else default_works(settings)
    found = await charges(store, with_prefect=is_configured(), default=default, records=settings.records)
    return store, found


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise InputError(f"spend: --since {text!r} is not a date. What to do: write it as YYYY-MM-DD.") from None


@dataclass(slots=True)
class _Sum:
    """One row: the tasks of one name whose cost is in one unit, or unknown."""

    tasks: int = 0
    amount: Decimal = Decimal(0)
    estimated: Decimal = Decimal(0)


def table(found: Iterable[TaskCharge], by: str, *, is_complete: bool = True) -> list[str]:
    """Writes the sums: a line for each name and unit, and one for the tasks of a name whose cost is not known."""
    total = "total" if is_complete else "total, incomplete"
    sums = _sums(found, by, total=total)
    width = max((len(visible(name)) for name, _ in sums), default=0)
    order = sorted(sums, key=lambda key: (key[0] == total, key[0], not key[1], key[1]))
    return [f"{visible(name):{width}}  {_line(unit, sums[name, unit])}" for name, unit in order]


def records(found: Iterable[TaskCharge], by: str, *, unread: Iterable[str] = ()) -> list[dict[str, object]]:
    """Returns the sums as data, without a total: a row for each name and unit; rows without a unit have unknown cost.

    A row without numbers names each place that could not be read; then no row is complete.
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
        for (name, unit), row in sorted(_sums(found, by).items())
    ]
    numbers = dict.fromkeys(("unit", "tasks", "amount", "estimated"))
    return [*sums, *({"name": name, **numbers, "complete": False} for name in missing)]


def _sums(found: Iterable[TaskCharge], by: str, *, total: str = "") -> defaultdict[tuple[str, str], _Sum]:
    sums: defaultdict[tuple[str, str], _Sum] = defaultdict(_Sum)
    for one in found:
        for name in (_name(one, by), *([total] if total else [])):
            for unit, amount in one.charge.costs.amounts.items():
                row = sums[name, unit]
                row.tasks += 1
                row.amount += amount
                row.estimated += amount if one.charge.is_estimate else 0
            if one.charge.costs.unknown:
                sums[name, ""].tasks += 1
    return sums


def _line(unit: str, row: _Sum) -> str:
    if not unit:
        return f"{row.tasks:6} task(s)  {'unknown cost':>12}"
    estimated = f"  ({amount_text(row.estimated, unit)} of this is estimated)" if row.estimated else ""
    return f"{row.tasks:6} task(s)  {amount_text(row.amount, unit):>12} {unit}{estimated}"


def _name(one: TaskCharge, by: str) -> str:
    match by:
        case "day":
            return one.at[:10]
        case "run":
            return one.run
        case "account":
            # Of an account without a name, records have the fingerprint of the key, which `doctor` shows, too.
            return f"key fingerprint {one.account}" if is_fingerprint(one.account) else one.account
        case "pipeline" | "step" | "item":
            return _part_of_pipeline(one, by)
        case _:
            return one.model


def _part_of_pipeline(one: TaskCharge, by: str) -> str:
    """Returns the pipeline, its step `each.clip`, or its item `each[A-17]`."""
    if not one.pipeline:
        return "no pipeline"
    before, sign, _ = one.step.rpartition("]")  # an id may contain brackets, a step's name does not
    item = f"{before}{sign}" if sign else "no item"
    part = {"step": step_of(one.step), "item": item}.get(by, "")
    return f"{one.pipeline}: {part}" if part else one.pipeline
