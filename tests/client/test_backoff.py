"""What RunningHub does not accept for now is sent again, whatever HTTP status says so; a submit never is."""

from __future__ import annotations

import ast
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

import rh_prefect
from rh_prefect.client import Client
from rh_prefect.client.request_sender import Backoff
from rh_prefect.client.responses import ApiResponse, RequestInfo
from rh_prefect.errors import Busy
from tests.client import test_calls
from tests.client.conftest import KEY, Pauses
from tests.support.servers.scripted_server import Step, WireServer, reply, said, task

TASK = "2031112223334445057"
BUSY = [
    reply({"code": 1003, "msg": "rate"}),
    reply({"code": 808, "msg": "APIKEY_UPLOAD_FAILED", "data": None}),
    reply({"errorCode": "1011", "errorMessage": "busy"}),
    reply({"code": 421, "msg": "TASK_QUEUE_MAXED", "data": None}),
    reply({"msg": "TASK_CREATE_TOO_FAST"}),
    reply({"code": 1003, "msg": "rate"}, status=400),
]


@pytest.fixture
async def patient(wire: WireServer) -> AsyncIterator[Client]:
    """A client as it is used: it waits out limits."""
    async with Client(KEY, base_url=wire.url) as made:
        yield made


CALLS: dict[str, tuple[Callable[[Client], Awaitable[object]], Step]] = {
    "upload": (
        lambda client: client.upload(Path(__file__), name="a.png", mime="image/png"),
        said({"download_url": "https://h/a.png", "fileName": "a.png"}),
    ),
    "query": (lambda client: client.query(TASK), reply(task())),
    **{
        name: (test_calls.CALLS[name].send, test_calls.CALLS[name].answer)
        for name in ("cancel", "quick_create.params", "assets.query", "assets.groups.create")
    },
}


@pytest.mark.parametrize("busy", BUSY)
@pytest.mark.parametrize("name", CALLS)
async def test_every_call_but_a_submit_waits_out_a_limit(
    name: str, busy: Step, patient: Client, wire: WireServer
) -> None:
    """A code that means "wait" is waited out also where it comes with HTTP 200."""
    call, good = CALLS[name]
    wire.plays(busy, good)
    await call(patient)
    assert len(wire.asked) == 2


@pytest.mark.parametrize("busy", BUSY)
async def test_a_submit_is_sent_once(busy: Step, patient: Client, wire: WireServer) -> None:
    wire.plays(busy)
    with pytest.raises(Busy):
        await patient.submit("some/model", {})
    assert len(wire.asked) == 1


async def test_what_may_have_been_made_is_not_made_again(patient: Client, wire: WireServer) -> None:
    wire.plays(reply({"code": 1011, "msg": "busy"}, status=502))
    with pytest.raises(Busy):
        await patient.assets.groups.create("cast")
    assert len(wire.asked) == 1


async def test_a_task_that_failed_with_such_a_code_is_not_a_limit(patient: Client, wire: WireServer) -> None:
    wire.plays(reply(task(status="FAILED", errorCode="1011", errorMessage="busy")))
    view = await patient.query(TASK)
    assert (view.status, view.code) == ("FAILED", "1011")


@pytest.mark.parametrize("kind", ["answer", "error"])
async def test_the_time_is_bounded_and_the_pauses_grow(kind: str) -> None:
    async def once() -> ApiResponse:
        if kind == "error":
            raise Busy("too many requests", code="429")
        return ApiResponse(RequestInfo("a query"), {}, "1003", "rate")

    pauses = Pauses()
    pace = Backoff(60.0, sleep=pauses.sleep, clock=pauses.clock, draw=lambda: 1.0)
    with pytest.raises(Busy) if kind == "error" else nullcontext():
        assert (await pace.send(once)).code == "1003"
    assert pauses[:5] == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert 50 < sum(pauses) <= 60


def test_no_module_uses_the_random_numbers_of_the_process() -> None:
    found: list[str] = []
    for path in Path(rh_prefect.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "import random" not in text:
            continue
        nodes = list(ast.walk(ast.parse(text)))
        if any(isinstance(node, ast.Import) and node.names[0].name == "random" for node in nodes):
            found += [
                f"{path.name}: random.{node.attr}"
                for node in nodes
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random"
                if node.attr not in ("Random", "SystemRandom")
            ]
    assert found == []
