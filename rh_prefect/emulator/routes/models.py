"""Standard models: submit and price preview."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Final

from starlette.responses import JSONResponse, Response

from rh_prefect.emulator import answers, auth, views
from rh_prefect.emulator.assumptions import FAILED_CODE
from rh_prefect.emulator.books import Submission
from rh_prefect.emulator.faults import Fault
from rh_prefect.emulator.orders import take_order
from rh_prefect.emulator.serving import Call, Endpoint
from rh_prefect.emulator.tasks import Breakdown, Order, Status, Task


async def submit(call: Call) -> Response:
    """Accepts a task and charges for it."""
    order = await asyncio.to_thread(take_order, call.state, call.key, _endpoint(call), call.body)
    task = _accept(call, order)
    call.state.workshop.begin(task)
    if task.hurried:
        await call.state.workshop.settle(task)
    status = call.state.tasks.status(task) if task.hurried else _first_status(call)
    tips = views.prompt_tips(call.fault if _has(call.fault, "node-errors") else None)
    return JSONResponse(views.submitted(task, status, tips=tips))


def _first_status(call: Call) -> Status:
    return "RUNNING" if call.state.clock.mode == "instant" else "QUEUED"


def _accept(call: Call, order: Order) -> Task:
    state = call.state
    queued, running = state.durations(order.model, order.payload)
    with state.lock:
        task = state.tasks.accept(order, queued=queued, running=running, breakdown=_breakdown(call.fault))
        task.hurried = _has(call.fault, "at-once")
        state.books.submitted(_entry(call, task_id=task.id, charged=order.price))
    return task


def _breakdown(fault: Fault | None) -> Breakdown | None:
    if fault is None or fault.kind not in ("fail", "node-errors"):
        return None
    return views.breakdown(fault, code=FAILED_CODE)


def _has(fault: Fault | None, kind: str) -> bool:
    return fault is not None and fault.kind == kind


def _endpoint(call: Call) -> str:
    return str(call.request.path_params["endpoint"])


def _entry(call: Call, *, task_id: str = "", charged: Decimal = Decimal(0), code: str = "") -> Submission:
    now, accepted = call.state.clock.now(), bool(task_id)
    return Submission(0, task_id, _endpoint(call), call.body, call.key.name, accepted, charged, now, code)


def _book_refusal(call: Call, code: str) -> None:
    accepted = call.fault is not None and call.fault.kind == "code" and not call.fault.is_early
    if not accepted:  # a code that is told after acceptance: the submit is in the books already
        call.state.books.submitted(_entry(call, code=code))


async def preview(call: Call) -> Response:
    """Prices a request without making a task of it."""
    order = await asyncio.to_thread(take_order, call.state, call.key, _endpoint(call), call.body)
    return answers.priced(float(order.price))


ENDPOINTS: Final = (
    Endpoint("/openapi/v2/price-preview/{endpoint:path}", preview, auth.bearer, answers.price, on="price"),
    # This one catches every path under /openapi/v2 that no other route takes: it must stay the last of all.
    Endpoint("/openapi/v2/{endpoint:path}", submit, auth.bearer, answers.v2, on="submit", on_refusal=_book_refusal),
)
"""The routes of this family."""
