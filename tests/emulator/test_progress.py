"""Progress over WebSocket, which is offered and never to be relied on."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from rh_prefect.emulator import Fault
from tests.emulator.conftest import Emulate, lasting
from tests.support.servers.caller import Caller, Json, node


async def watch(url: str) -> tuple[list[Json], int, int | None]:
    """All frames, how many were binary, and the code of the close."""
    frames: list[Json] = []
    binary = 0
    async with connect(url) as socket:
        try:
            while True:
                message = await socket.recv()
                if isinstance(message, bytes):
                    binary += 1
                else:
                    frames.append(json.loads(message))
        except ConnectionClosed as closed:
            return frames, binary, closed.rcvd.code if closed.rcvd else None


def kinds(frames: list[Json]) -> set[str]:
    return {frame["type"] for frame in frames}


async def test_the_frames_of_a_run(rh: Caller) -> None:
    frames, binary, code = await watch(rh.create()["data"]["netWssUrl"])
    assert frames[0] == {"type": "execution_cached", "data": {"nodes": ["4"]}}
    assert kinds(frames) == {"execution_cached", "executing", "progress", "execution_success"}
    assert {"type": "progress", "data": {"node": "3", "value": 10, "max": 20}} in frames
    assert frames[-2:] == [{"type": "execution_success", "data": {}}, {"type": "executing", "data": {"node": None}}]
    assert (binary, code) == (4, 1000)


async def test_the_frames_go_with_the_clock(emulate: Emulate) -> None:
    rh = emulate(clock="real", factor=0, durations=lasting(1.0, 100.0))
    task_id = rh.started()
    rh.rh.clock.advance(2)
    url = rh.outputs(task_id)["data"]["netWssUrl"]
    async with connect(url) as socket:
        first = json.loads(await socket.recv())
        assert first["type"] == "execution_cached"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.recv(), 0.1)
        rh.rh.clock.advance(50)
        seen = [await socket.recv() for _ in range(4)]
        assert seen
        rh.rh.clock.advance(50)
        while json.loads(message if isinstance(message := await socket.recv(), str) else "{}") != {
            "type": "executing",
            "data": {"node": None},
        }:
            pass


async def test_failure_and_cancel(emulate: Emulate) -> None:
    rh = emulate(clock="real", factor=0, durations=lasting(0.0, 10.0))
    broken = rh.create(nodeInfoList=[node("3", "steps", 0)])["data"]["taskId"]
    cancelled = rh.started()
    urls = [rh.outputs(task_id)["data"]["netWssUrl"] for task_id in (broken, cancelled)]
    rh.cancel(cancelled)
    rh.rh.clock.advance(11)
    (failed, _, _), (stopped, _, _) = [await watch(url) for url in urls]
    assert (failed[-1]["type"], failed[-1]["data"]["node_id"]) == ("execution_error", "3")
    assert stopped[-1]["type"] == "execution_interrupted"


async def test_a_scripted_drop(rh: Caller) -> None:
    rh.rh.faults.add(Fault("progress", 1, "drop"))
    url = rh.create()["data"]["netWssUrl"]
    (dropped, _, first), (again, _, second) = [await watch(url) for _ in range(2)]
    assert (bool(dropped), "execution_success" in kinds(dropped), first) == (True, False, 1011)
    assert ("execution_success" in kinds(again), second) == (True, 1000)


async def test_the_ticket_is_checked(rh: Caller) -> None:
    url = rh.create()["data"]["netWssUrl"]
    for wrong in (url.replace("Rh-Comfy-Auth=", "Rh-Comfy-Auth=x"), url.split("?")[0]):
        with pytest.raises(InvalidStatus):
            await watch(wrong)
    rh.rh.clock.advance(4000)
    with pytest.raises(InvalidStatus):
        await watch(url)


async def test_an_emulator_ends_with_watchers(emulate: Emulate) -> None:
    rh = emulate(clock="real", factor=0, durations=lasting(0.0, 10.0))
    url = rh.outputs(rh.started())["data"]["netWssUrl"]
    async with connect(url) as socket:
        await socket.recv()
        await asyncio.to_thread(rh.rh.stop)
        with pytest.raises(ConnectionClosed):
            while True:
                await socket.recv()
