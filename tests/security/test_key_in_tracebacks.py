"""The key is in no frame of a traceback: error trackers and rich write the local variables of each."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from rh_prefect.client import Client
from rh_prefect.errors import ConfigError, ConnectFailed, RunningHubError
from tests.client import test_calls
from tests.client.conftest import KEY
from tests.support.servers.scripted_server import Step, WireServer, cut, raw, reply, stall

PARTS = ("workflows", "apps", "quick_create", "webhooks", "platform", "assets", "comfy", "comfy_plus")
GRAPH = {"1": {"class_type": "x", "inputs": {}}}

Call = Callable[[Client, Path], Awaitable[object]]


def _without_file(send: Callable[[Client], Awaitable[object]]) -> Call:
    return lambda client, _: send(client)


CALLS: dict[str, Call] = {
    **{name: _without_file(call.send) for name, call in test_calls.CALLS.items()},
    "apps.demo": lambda c, f: c.apps.demo("1"),
    "assets.wait": lambda c, f: c.assets.wait("1", timeout=0, pause=0),
    "comfy.cancel": lambda c, f: c.comfy.cancel("a"),
    "comfy.fetch": lambda c, f: c.comfy.fetch(f"{c.comfy.files}?filename=a.png", f.with_name("fetched")),
    "comfy.query": lambda c, f: c.comfy.query("a"),
    "comfy.submit": lambda c, f: c.comfy.submit({"prompt": GRAPH}),
    "comfy.upload": lambda c, f: c.comfy.upload(f, name="a.png", mime="image/png"),
    "download": lambda c, f: c.download(f"{c.comfy_plus.files}?filename=a.png", f.with_name("downloaded")),
    "query": lambda c, f: c.query("5"),
    "submit": lambda c, f: c.submit("a/b", {}),
    "submit of v1": lambda c, f: c.submit("/task/openapi/create", {"workflowId": "1"}),
    "upload": lambda c, f: c.upload(f, name="a.png", mime="image/png"),
    "upload_legacy": lambda c, f: c.upload_legacy(f, name="a.png", mime="image/png"),
    "upload_legacy of no file": lambda c, f: c.upload_legacy(f.with_name("none"), name="a.png", mime="image/png"),
    "upload_lora": lambda c, f: c.upload_lora(f, name="n"),
    "webhooks.detail": lambda c, f: c.webhooks.detail("1"),
    "workflows.json": lambda c, f: c.workflows.json("1"),
}

ECHO = f'{{"code": 412, "msg": "the key {KEY} in a message"}}'
SERVERS: dict[str, Callable[[], Step]] = {
    "refuses": lambda: reply({"code": 412, "msg": "TOKEN_INVALID"}, status=401),
    "tells the key": lambda: reply(ECHO, status=401),
    "answers no HTTP": lambda: raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "answers HTML": lambda: reply("<html>Bad gateway</html>", status=404),
    "cuts the connection": cut,
    "cuts the body": lambda: reply('{"code": 0', length=4000),
    "redirects to no address": lambda: reply("", status=307, headers={"Location": "http://[::1"}),
}


def _frames(error: BaseException | None, seen: set[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    trace = error.__traceback__
    while trace is not None:
        yield f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}", dict(trace.tb_frame.f_locals)
        trace = trace.tb_next
    for one in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())):
        yield from _frames(one, seen)


def _texts(value: object, depth: int = 5) -> Iterator[str]:
    with suppress(AttributeError):  # an object that is not complete yet
        yield repr(value)
    if depth and isinstance(value, dict):
        for name, one in value.items():
            yield from _texts(name, depth - 1)
            yield from _texts(one, depth - 1)
    elif depth and isinstance(value, list | tuple | set | frozenset):
        for one in value:
            yield from _texts(one, depth - 1)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, bytes | bytearray | memoryview):
        yield bytes(value).decode("latin-1")


def leaks(error: BaseException) -> list[str]:
    """Where in an error's frames the key stands."""
    # The server of these tests plays in this process; its own frames hold what it was sent.
    return [
        f"{where} {name}"
        for where, found in _frames(error, set())
        if "/tests/" not in where
        for name, value in found.items()
        if any(KEY in text for text in _texts(value))
    ]


async def _failure(call: Call, client: Client, file: Path) -> BaseException:
    try:
        await call(client, file)
    except RunningHubError as error:
        return error
    raise AssertionError("it did not fail")


def test_every_method_of_the_client_is_called() -> None:
    client = Client(KEY)
    owners = {"": client, "assets.groups.": client.assets.groups}
    owners |= {f"{name}.": getattr(client, name) for name in PARTS if name != "comfy_plus"}
    methods = {
        f"{prefix}{name}"
        for prefix, owner in owners.items()
        for name, found in inspect.getmembers(owner, inspect.iscoroutinefunction)
        if not name.startswith("_") and name != "aclose"
    }
    assert methods == {name for name in CALLS if " " not in name}


@pytest.mark.parametrize("server", SERVERS)
async def test_no_frame_of_a_failed_call_holds_the_key(server: str, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"x" * 3_000_000)
    wire = WireServer(always=SERVERS[server](), keep_bodies=False)
    async with wire, Client(KEY, base_url=wire.url) as client:
        errors = await asyncio.gather(*(_failure(call, client, file) for call in CALLS.values()))
    found = {name: leaks(error) for name, error in zip(CALLS, errors, strict=True)}
    assert {name: where for name, where in found.items() if where} == {}
    assert not any(KEY in str(error) for error in errors)


async def test_no_frame_of_a_call_that_never_left_holds_the_key(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"x")
    async with Client(KEY, base_url="http://127.0.0.1:9") as client:
        errors = await asyncio.gather(*(_failure(call, client, file) for call in CALLS.values()))
    assert {name: where for name, error in zip(CALLS, errors, strict=True) if (where := leaks(error))} == {}


async def test_no_frame_of_a_submit_without_an_answer_holds_the_key() -> None:
    async with WireServer(always=stall()) as wire, Client(KEY, base_url=wire.url, submit_timeout=0.3) as client:
        for name in ("submit", "submit of v1", "comfy.submit"):
            assert leaks(await _failure(CALLS[name], client, Path("none"))) == [], name


async def test_a_key_with_quotes_arrives_whole() -> None:
    odd = 'a"b\\c0123456789'
    async with WireServer(always=reply({"code": 412, "msg": ""})) as wire, Client(odd, base_url=wire.url) as client:
        await _failure(CALLS["account"], client, Path("none"))
    assert json.loads(wire.asked[0].body) == {"apikey": odd}


@pytest.mark.parametrize(("key", "url"), [(f"{KEY} x", "https://x"), (f"{KEY}é", "https://x"), (KEY, "ftp://x")])
def test_no_frame_of_a_client_that_cannot_be_made_holds_the_key(key: str, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Client(SecretStr(key), base_url=url)
    assert leaks(caught.value) == []


class Broken(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("broken")


async def test_what_the_caller_was_handling_before_keeps_its_frames() -> None:
    async with Client(KEY, transport=Broken()) as client:
        try:
            raise LookupError("mine")
        except LookupError as mine:
            with pytest.raises(ConnectFailed):
                await client.queue_status()
            assert mine.__traceback__ is not None
