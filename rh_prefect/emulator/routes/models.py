"""Standard models: submit and price preview."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from rh_prefect.emulator import acceptance, answers, auth, views
from rh_prefect.emulator.answers import Refused
from rh_prefect.emulator.model_submits import take_order
from rh_prefect.emulator.serving import Call, Endpoint


async def submit(call: Call) -> Response:
    """Accepts a task and charges for it."""
    _check_path(call)
    order = await asyncio.to_thread(take_order, call.state, call.key, call.endpoint, call.body)
    task = acceptance.accept(call, order)
    status = await acceptance.first_status(call, task)
    return JSONResponse(views.submitted(call.state.assumptions, task, status, tips=acceptance.tips(call)))


def _check_path(call: Call) -> None:
    """Refuses a POST to a path that is only read, such as `queue/status`: it would pass for an endpoint."""
    found = (route.matches(call.request.scope)[0] for route in call.request.app.routes)
    if Match.PARTIAL in found:
        raise Refused("1009")


async def preview(call: Call) -> Response:
    """Prices a request without making a task of it."""
    order = await asyncio.to_thread(take_order, call.state, call.key, call.endpoint, call.body)
    return answers.priced(call.state.assumptions, order.charge.wallet)


ENDPOINTS: Final = (
    Endpoint("/openapi/v2/price-preview/{endpoint:path}", preview, auth.bearer, answers.price, on="price"),
    # This one catches every path under /openapi/v2 that no other route takes: it must stay the last of all.
    Endpoint(
        "/openapi/v2/{endpoint:path}",
        submit,
        auth.bearer,
        answers.v2,
        on="submit",
        on_refusal=acceptance.book_refusal,
    ),
)
"""The routes of this family."""
