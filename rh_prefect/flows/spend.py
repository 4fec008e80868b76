"""The flow `spend`, which can run on a schedule: shows what the tasks of a month have cost."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from io import BytesIO
from typing import Annotated, Any

from PIL import Image, ImageDraw, ImageFont
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_UI_URL
from prefect.states import Completed, Failed
from pydantic import Field

from rh_prefect import artifacts
from rh_prefect.display_texts import cut_middle
from rh_prefect.flow_runs.charge_reader import TaskCharge, charges_of
from rh_prefect.flow_runs.flow import run_name
from rh_prefect.flow_runs.report_artifact import escaped, table
from rh_prefect.flow_runs.run_queries_and_scopes import is_flow_run
from rh_prefect.flow_runs.spend_sums import bars
from rh_prefect.pipelines.parsed_document import visible
from rh_prefect.works.journal.costs_and_budget import CURRENCY, Costs, amount_text
from rh_prefect.works.loop_thread import LOOP

_DEAREST = 10
"""Number of the most expensive runs in the report."""

_WIDTH, _ROW, _NAME, _BAR = 960, 26, 300, 520
"""Pixels: the picture's width, the height of a bar with its space, the width of the names and of the longest bar."""
_COLOUR = "#3569c4"

Month = Annotated[str, Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]


@flow(name="spend", flow_run_name=run_name)
async def spend(month: Month | None = None, budget: float | None = None, storage: str | None = None) -> State[Any]:
    """Shows what the tasks of a month have cost by day and by model, the rest of a budget, and the most expensive runs.

    Args:
        month: The month, as in `2026-11`, in UTC. Empty for the current one.
        budget: The budget of the month in CNY, for display: it does not stop any run.
        storage: Name of a MediaStorage block; by default RH_STORAGE_URL.
    """
    month = month or f"{datetime.now(UTC):%Y-%m}"
    store, found = await LOOP.call(charges_of(storage, with_prefect=True))
    tasks = [one for one in found.tasks if one.store == store.url and one.at.startswith(month)]
    head = f"{month}: {Costs.total(one.charge.costs for one in tasks)} for {len(tasks)} task(s){_left(tasks, budget)}."
    text = await asyncio.to_thread(_text, tasks, f"Spent in {month}")
    unread = [f"- {escaped(place)}: {escaped(why)}" for place, why in sorted(found.unread.items())]
    parts = [*(["### Incomplete: these places could not be read", "\n".join(unread)] if unread else []), text]
    await artifacts.markdown("\n\n".join(parts), what="report", description=head)
    return Failed(message=f"{head} Incomplete: {'; '.join(found.unread)}") if unread else Completed(message=head)


def _left(tasks: Sequence[TaskCharge], budget: float | None) -> str:
    if budget is None:
        return ""
    spent = sum((one.charge.costs.amounts.get(CURRENCY, Decimal(0)) for one in tasks), Decimal(0))
    left = Decimal(str(budget)) - spent
    words = "left of" if left >= 0 else "more than"
    return f"; {amount_text(abs(left))} {CURRENCY} {words} the budget of {amount_text(Decimal(str(budget)))}"


def _text(tasks: Sequence[TaskCharge], title: str) -> str:
    days = bars(tasks, "day")
    if not days:
        return "No cost is recorded."
    png = BytesIO()
    picture(days, by="day", title=title).save(png, "PNG", optimize=True)
    shown = f"![by day](data:image/png;base64,{base64.b64encode(png.getvalue()).decode()})"
    runs = {unit: rows[:_DEAREST] for unit, rows in bars(tasks, "run").items()}
    flows = {one.run: one.flow for one in tasks}
    parts = [_sums("model", bars(tasks, "model")), _sums("day", days), _sums("most expensive run", runs, flows)]
    return "\n\n".join([shown, *parts])


def picture(found: Mapping[str, Sequence[tuple[str, Decimal]]], *, by: str, title: str) -> Image.Image:
    """Draws the sums of each unit as a bar chart; see `spend_sums.bars`."""
    rows = sum(len(one) + 2 for one in found.values())
    page = Image.new("RGB", (_WIDTH, _ROW * (rows + 2)), "white")
    draw, font, y = ImageDraw.Draw(page), ImageFont.load_default(15), _ROW // 2
    draw.text((16, y), title, fill="black", font=ImageFont.load_default(20))
    for unit, one in found.items():
        y += 2 * _ROW
        draw.text((16, y), f"{unit} by {by}", fill="black", font=font)
        most = max(amount for _, amount in one) or Decimal(1)
        for name, amount in one:
            y += _ROW
            end = 16 + _NAME + round(_BAR * amount / most)
            draw.text((16, y), cut_middle(visible(name), 38), fill="black", font=font)
            draw.rectangle((16 + _NAME, y + 2, end, y + 18), fill=_COLOUR)
            draw.text((end + 8, y), amount_text(amount, unit), fill="black", font=font)
    return page


def _sums(what: str, found: Mapping[str, Sequence[tuple[str, Decimal]]], flows: Mapping[str, str] | None = None) -> str:
    rows = [
        (_named(name, flows), f"{amount_text(amount, unit)} {unit}")
        for unit, sums in found.items()
        for name, amount in sums
        if amount
    ]
    return table((what, "cost"), rows)


def _named(name: str, flows: Mapping[str, str] | None) -> str:
    if flows is None or not is_flow_run(name):
        return escaped(name)
    return f"{escaped(flows[name])} [{name[-12:]}](<{PREFECT_UI_URL.value() or ''}/runs/flow-run/{name}>)"
