"""Routes for standard models: submit and price preview."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from rh_prefect.emulator import auth, model_submits, responses, task_formats
from rh_prefect.emulator.endpoint import Call, Endpoint
from rh_prefect.emulator.model_submits import check_submit
from rh_prefect.emulator.responses import Refused


async def submit(call: Call) -> Response:
    """Accepts a task and charges for it."""
    _check_path(call)
    checked = await asyncio.to_thread(check_submit, call)
    failure = model_submits.content_failure(call.state, checked.payload)
    task = model_submits.accept(call, await asyncio.to_thread(checked.spec), failure=failure)
    status = await model_submits.first_status(call, task)
    return JSONResponse(task_formats.submitted(call.state.assumptions, task, status, tips=model_submits.tips(call)))


def _check_path(call: Call) -> None:
    """Refuses a POST to a path for GET, such as `queue/status`, which would otherwise count as a model's endpoint."""
    found = (route.matches(call.request.scope)[0] for route in call.request.app.routes)
    if Match.PARTIAL in found:
        raise Refused("1009")


async def preview(call: Call) -> Response:
    """Prices a request without creating a task."""
    try:
        checked = await asyncio.to_thread(check_submit, call)
    except Refused as refused:
        bare = call.state.assumptions.preview_bare_refusal
        if refused.code != "1007" or bare is None:
            raise
        raise Refused(*bare, envelope=responses.bare) from refused
    return responses.priced(call.state.assumptions, await asyncio.to_thread(checked.quote))


ENDPOINTS: Final = (
    Endpoint("/openapi/v2/price-preview/{endpoint:path}", preview, auth.bearer, responses.price, on="price"),
    # This route matches every path under /openapi/v2 that no other route matches, so it must stay the last one.
    Endpoint(
        "/openapi/v2/{endpoint:path}",
        submit,
        auth.bearer,
        responses.v2,
        on="submit",
        on_refusal=model_submits.record_refusal,
    ),
)
"""The routes of this family."""
