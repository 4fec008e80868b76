"""What is special to RunningHub: an account, and the machines of its native proxy."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from rh_prefect.client import Client, TaskView
from rh_prefect.settings import Settings
from rh_prefect.works.accounts.account import Account, _accounts, account_of
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.pool_services import PoolServices, _contexts, pool_services
from rh_prefect.works.runninghub.provider import RunningHub
from tests.support.processes.in_fork import in_fork


@pytest.fixture
async def provider() -> AsyncIterator[RunningHub]:
    async with Client("0" * 32, base_url="http://127.0.0.1:9") as client:
        yield RunningHub(client)


@pytest.mark.parametrize(
    ("endpoint", "place", "form"),
    [
        ("some/model", "RunningHub's call log", "TASK_ID"),
        ("/proxy", ".* at /proxy/<key>/history and /proxy/<key>/queue .*", r"proxy\.PROMPT_ID"),
        ("/proxy-plus", ".* at /proxy-plus/<key>/history .*", r"proxy-plus\.PROMPT_ID"),
    ],
)
async def test_a_lost_task_is_looked_for_in_the_list_that_has_its_kind(
    provider: RunningHub, tmp_path: Path, endpoint: str, place: str, form: str
) -> None:
    found = Account.open(provider, settings=Settings(state_dir=tmp_path)).at(endpoint).provider.task_list
    assert all(map(re.fullmatch, (place, form), found)), found


async def test_a_machine_has_its_own_slots_and_none_of_the_account_s_services(
    provider: RunningHub, tmp_path: Path
) -> None:
    account = Account.open(provider, settings=Settings(state_dir=tmp_path))
    machine = account.at("/proxy")
    assert account.at("some/model") is account
    assert account.at("/proxy") == machine
    assert machine not in (account, account.at("/proxy-plus"))
    assert (account.provider.is_bare, machine.provider.is_bare) == (False, True)
    assert machine.limiter is account.at("/proxy").limiter is not account.limiter
    assert machine.provider.file_seconds == 600, "the machine may be replaced"
    assert await machine.provider.slots() == (1, None)


async def test_what_an_account_and_its_machine_tell_of_slots_and_files(tmp_path: Path) -> None:
    counted = asyncio.Event()

    async def queue_status() -> Any:
        counted.set()
        return SimpleNamespace(limit=5, running=2, queued=1)

    async def query(task_id: str) -> TaskView:
        return TaskView(task_id=task_id, status="RUNNING")

    async def upload(path: Path, *, name: str, mime: str) -> Any:
        return path, name, mime

    calls: dict[str, Any] = dict.fromkeys(("submit", "cancel", "download", "upload", "price_preview", "comfy_plus"))
    calls |= {"queue_status": queue_status, "query": query, "comfy": SimpleNamespace(upload=upload)}
    client: Any = SimpleNamespace(site="s", account_id="a", **calls)
    account = Account.open(RunningHub(client), settings=Settings(state_dir=tmp_path, poll_seconds=0.02))
    machine = account.at("/proxy")
    machine.limiter.occupy()
    for one in (account, machine):
        await one.limiter.refresh()
    assert (account.limiter.load, machine.limiter.load) == (3 / 5, 1)
    sent: Any = await machine.provider.upload(Path("a.png"), name="b.png", mime="image/png")
    assert sent == (Path("a.png"), "b.png", "image/png"), "it goes to the machine"
    counted.clear()
    waits = [asyncio.create_task(account.poller.wait(task_id)) for task_id in "12"]
    await asyncio.wait_for(counted.wait(), 60)
    for wait in waits:
        wait.cancel()


async def test_accounts_with_one_key_share_slots_and_differ_by_their_names(tmp_path: Path) -> None:
    async def all_of_them() -> list[Account]:
        key, settings = SecretStr("0" * 32), Settings(state_dir=tmp_path)
        return [
            account_of(key, base_url="http://127.0.0.1:9", settings=settings, name=name, block=name)
            for name in ("day", "night", None)
        ]

    day, night, unnamed = await LOOP.call(all_of_them())
    assert day != night
    assert (day.name, unnamed.name) == ("day", unnamed.provider.account_id)
    assert day.limiter is night.limiter
    assert day.at("/proxy").limiter is night.at("/proxy").limiter
    assert (await LOOP.call(all_of_them()))[0] == day
    assert LOOP._closers.count(day.provider.client.aclose) == 1, "its connections are closed with the process"


def test_a_forked_process_opens_its_own_connections(tmp_path: Path) -> None:
    async def opened() -> PoolServices:
        settings = Settings(state_dir=tmp_path)
        account = account_of(SecretStr("0" * 32), base_url="http://127.0.0.1:9", settings=settings)
        return pool_services([account], settings=settings)

    LOOP.call_sync(opened())
    assert _accounts and _contexts
    assert in_fork(lambda: (len(_accounts), len(_contexts))) == (0, 0)
