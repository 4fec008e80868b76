"""What RunningHub does not accept for now is sent again, whatever HTTP status says so; a submit never is."""

from __future__ import annotations

import ast
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

import rh_prefect
from rh_prefect.client import Client
from rh_prefect.client.responses import ApiResponse
from rh_prefect.client.session import Backoff
from rh_prefect.errors import Busy
from tests.client.conftest import KEY
from tests.support.servers.scripted_server import Step, WireServer, reply, task

UPLOADED = {"code": 0, "message": "success", "data": {"download_url": "https://h/a.png", "fileName": "a.png"}}
GRAPH = {"code": 0, "msg": "SUCCESS", "data": {"prompt": '{"3": {"class_type": "KSampler", "inputs": {}}}'}}
GROUP = {"code": 0, "msg": "success", "data": {"groupId": "2", "name": "cast"}}
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


async def upload(client: Client, folder: Path) -> object:
    (folder / "a.png").write_bytes(b"x")
    return await client.upload(folder / "a.png", name="a.png", mime="image/png")


async def graph(client: Client, _: Path) -> object:
    return await client.workflows.json("2030000000000000001")


async def cancel(client: Client, _: Path) -> None:
    await client.cancel("2031112223334445057")


async def query(client: Client, _: Path) -> object:
    return await client.query("2031112223334445057")


async def make(client: Client, _: Path) -> object:
    return await client.assets.groups.create("cast")


CALLS: list[tuple[Callable[[Client, Path], Awaitable[object]], object]] = [
    (upload, UPLOADED),
    (graph, GRAPH),
    (cancel, {"code": 0, "msg": "success", "data": None}),
    (query, task()),
    (make, GROUP),
]


@pytest.mark.parametrize("busy", BUSY)
@pytest.mark.parametrize(("call", "good"), CALLS)
async def test_every_call_but_a_submit_waits_out_a_limit(
    call: Callable[[Client, Path], Awaitable[object]],
    good: dict[str, object],
    busy: Step,
    patient: Client,
    wire: WireServer,
    tmp_path: Path,
) -> None:
    """A code that means "wait" is waited out also where it comes with HTTP 200."""
    wire.plays(busy, reply(good))
    await call(patient, tmp_path)
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
        await make(patient, Path())
    assert len(wire.asked) == 1


async def test_a_task_that_failed_with_such_a_code_is_not_a_limit(patient: Client, wire: WireServer) -> None:
    wire.plays(reply(task(status="FAILED", errorCode="1011", errorMessage="busy")))
    view = await patient.query("2031112223334445057")
    assert (view.status, view.code) == ("FAILED", "1011")


@pytest.mark.parametrize("kind", ["answer", "error"])
async def test_the_time_is_bounded_and_the_pauses_grow(kind: str) -> None:
    """After a minute the caller is told."""
    now, slept = 0.0, list[float]()

    async def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    async def once() -> ApiResponse:
        if kind == "error":
            raise Busy("too many requests", code="429")
        return ApiResponse({}, "1003", "rate")

    pace = Backoff(60.0, sleep=sleep, clock=lambda: now, draw=lambda: 1.0)
    if kind == "error":
        with pytest.raises(Busy):
            await pace.send(once)
    else:
        assert (await pace.send(once)).code == "1003"
    assert slept[:5] == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert 50 < now <= 60


async def test_a_pause_does_not_change_the_random_numbers_of_the_process(patient: Client, wire: WireServer) -> None:
    """Pauses run in a thread of their own, at any moment of a program that has called `random.seed`."""

    async def changes_them() -> bool:
        wire.plays(BUSY[0], reply(task()))
        before = random.getstate()
        await patient.query("2031112223334445057")
        return random.getstate() != before

    # Threads of other libraries draw numbers now and then; a pause that drew one would do so every time.
    assert not all([await changes_them() for _ in range(5)])


def test_no_module_uses_the_random_numbers_of_the_process() -> None:
    found: list[str] = []
    for path in Path(rh_prefect.__file__).parent.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        if any(isinstance(node, ast.Import) and node.names[0].name == "random" for node in nodes):
            found += [
                f"{path.name}: random.{node.attr}"
                for node in nodes
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random"
                if node.attr not in ("Random", "SystemRandom")
            ]
    assert found == []
