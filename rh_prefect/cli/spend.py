"""`rh-prefect spend`: what the jobs in a storage have cost, by their manifests."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from rh_prefect.errors import InputError

if TYPE_CHECKING:
    from rh_prefect.jobs.outputs.manifest import Manifest


def spend(
    *,
    storage: Annotated[str | None, Parameter(help="Name of a MediaStorage block; by default RH_OUT.")] = None,
    by: Annotated[Literal["model", "day", "run", "account"], Parameter(help="What to add up by.")] = "model",
    since: Annotated[str | None, Parameter(help="Only jobs that ended on this day (YYYY-MM-DD, UTC) or later.")] = None,
) -> None:
    """Add up what the jobs in a storage have cost."""
    if since is not None:
        since = _day(since)
    from rh_prefect.blocks.lookup import load_storage
    from rh_prefect.jobs.outputs import manifest

    store = asyncio.run(load_storage(storage))
    found = [one for one in manifest.everything(store) if since is None or one.ended_at >= since]
    if not found:
        print(f"no job has left a manifest in {store.url}" + (f" since {since}" if since else ""))
        return
    rows = _sums(found, by)
    width = max(len(name) for name, _, _, _ in rows)
    for name, jobs, cost, currency in rows:
        print(f"{name:{width}}  {jobs:6} job(s)  {cost:>12} {currency}")


def _day(given: str) -> str:
    try:
        return date.fromisoformat(given).isoformat()
    except ValueError:
        raise InputError(f"spend: --since {given!r} is no day. What to do: write it as YYYY-MM-DD.") from None


def _sums(found: Iterable[Manifest], by: str) -> list[tuple[str, int, Decimal, str]]:
    jobs: defaultdict[tuple[str, str], int] = defaultdict(int)
    costs: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for one in found:
        for name in (_name(one, by), "total"):
            jobs[name, one.currency or ""] += 1
            costs[name, one.currency or ""] += one.cost or Decimal(0)
    order = sorted(jobs, key=lambda key: (key[0] == "total", key))
    return [(name, jobs[name, currency], costs[name, currency], currency) for name, currency in order]


def _name(one: Manifest, by: str) -> str:
    match by:
        case "day":
            return one.ended_at[:10]
        case "run":
            return one.job.partition("/")[0]
        case "account":
            return one.account
        case _:
            return one.model
