from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from rh_prefect.errors import JournalError
from rh_prefect.flow_runs.append_only_log import encode
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.queries import has_records
from rh_prefect.prefect_api import ask, disconnect
from rh_prefect.works.journal.job_records import jobs_of
from tests.support.world.run_inputs import RUN, RunInputs, job_keys, logged, submitted
from tests.support.world.run_inputs import serve as serve_inputs
from tests.works.journal.journal_contract import PAGE, JournalContract, OpenJournal, listed, record

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]


@flow
def _nothing() -> None: ...


def new_flow_run() -> uuid.UUID:
    with get_client(sync_client=True) as client:
        return client.create_flow_run(_nothing).id


class TestFlowRunJournal(JournalContract):
    @pytest.fixture
    def open_journal(self) -> OpenJournal:
        runs: dict[str, uuid.UUID] = {}

        def open_(scope: str) -> FlowRunJournal:
            if scope not in runs:
                runs[scope] = new_flow_run()
            return FlowRunJournal(runs[scope])

        return open_


@pytest.fixture
def journal() -> FlowRunJournal:
    return FlowRunJournal(new_flow_run())


async def test_a_pause_input_of_prefect_is_no_record(journal: FlowRunJournal) -> None:
    async with get_client() as client:
        await client.create_flow_run_input(uuid.UUID(journal.scope), "pause-1-schema", "{}")
    assert await listed(journal) == []


async def test_a_deleted_flow_run_is_named(journal: FlowRunJournal) -> None:
    async with get_client() as client:
        await client.delete_flow_run(uuid.UUID(journal.scope))
    with pytest.raises(JournalError, match=f"{journal.scope}.*deleted") as error:
        await journal.create("abc-intent-1", record())
    assert "is kept" not in str(error.value)


@pytest.mark.parametrize("entry", ["[1", '{"log": 1, "by": "one-1"}\nabc-intent-1 {"token": "t"}'])
async def test_an_entry_of_another_version_or_program_is_refused(journal: FlowRunJournal, entry: str) -> None:
    async with get_client() as client:
        await client.create_flow_run_input(uuid.UUID(journal.scope), "rh-log-00000001", entry)
    with pytest.raises(JournalError, match=r"Entry 1 .*unknown format.*with the version of rh_prefect that started it"):
        await journal.job("abc")


async def test_no_api_is_an_error_that_says_where(closed_port: int) -> None:
    journal = FlowRunJournal(uuid.uuid4(), patience=0.1)
    api = f"http://127.0.0.1:{closed_port}/api"
    with temporary_settings({PREFECT_API_URL: api}), pytest.raises(JournalError, match=f"{api}.*no answer"):
        await journal.read("abc-intent-1")


class Answers:
    """A Prefect API that answers one request after another as told, and counts them."""

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        self._answers = list(answers)
        self.requests: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next((int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length")), 0)
        await reader.readexactly(length)
        path = head.split(" ")[1]
        status, body = (422, b"CSRF protection is disabled.") if "csrf-token" in path else self._next(path)
        kind = b"text/html" if body.startswith(b"<html>") else b"application/json"
        more = b"Content-Type: %b\r\nLocation: /login\r\nConnection: close" % kind
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n%b\r\n\r\n%b" % (status, len(body), more, body))
        await writer.drain()
        writer.close()

    def _next(self, path: str) -> tuple[int, bytes]:
        self.requests.append(path)
        return self._answers.pop(0)


def one_entry(records: dict[str, str]) -> bytes:
    """The answer to a filter of inputs that finds one entry of a log."""
    found = [{"flow_run_id": str(RUN), "key": name, "value": text} for name, text in logged(records).items()]
    return json.dumps(found).encode()


Serve = Callable[..., Awaitable[tuple[Answers, str]]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers = []

    async def start(*answers: tuple[int, bytes]) -> tuple[Answers, str]:
        api = Answers(*answers)
        server = await asyncio.start_server(api, "127.0.0.1", 0)
        servers.append(server)
        return api, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api"

    yield start
    for server in servers:
        server.close()


async def test_a_server_error_is_asked_again(serve: Serve) -> None:
    api, url = await serve(
        (500, b"database is locked"), (500, b""), (200, one_entry({"abc-intent-1": '{"token": "t"}'}))
    )
    with temporary_settings({PREFECT_API_URL: url}):
        assert await FlowRunJournal(uuid.uuid4()).read("abc-intent-1") == {"token": "t"}
    assert len(api.requests) == 3


async def test_a_creation_whose_answer_was_lost_is_mine(serve: Serve) -> None:
    mine = record()
    there = one_entry({"abc-intent-1": json.dumps(mine)})
    api, url = await serve((200, b"[]"), (500, b"but it was written"), (409, b"exists"), (200, there))
    with temporary_settings({PREFECT_API_URL: url}):
        assert await FlowRunJournal(uuid.uuid4()).create("abc-intent-1", mine) is True
    assert len(api.requests) == 4


async def test_a_server_that_stays_away_is_named_in_one_line(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    _, url = await serve(*[(500, b"database is locked")] * 4, (200, b"[]"))
    with temporary_settings({PREFECT_API_URL: url}):
        assert await FlowRunJournal(uuid.uuid4()).job("abc") == {}
    (line,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert re.search(f"{url}.*database is locked.*repeated for up to 60 s", line), line


async def test_patience_ends(serve: Serve) -> None:
    _, url = await serve(*[(500, b"broken")] * 20)
    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(JournalError, match="HTTP 500 broken"):
        await FlowRunJournal(uuid.uuid4(), patience=0.3).read("abc-intent-1")


async def test_access_denied_says_which_setting(serve: Serve) -> None:
    _, url = await serve((401, b"no"))
    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(JournalError, match="PREFECT_API_KEY"):
        await FlowRunJournal(uuid.uuid4()).read("abc-intent-1")


@pytest.mark.parametrize("answers", [[(200, b"<html>Log in")], [(302, b""), (200, b"<html>Log in")]])
async def test_the_login_page_of_a_proxy_is_no_creation(serve: Serve, answers: list[tuple[int, bytes]]) -> None:
    _, url = await serve((200, b"[]"), *answers)
    with (
        temporary_settings({PREFECT_API_URL: url}),
        pytest.raises(JournalError, match=r"the answer is a web page \(http.* is a web page\)"),
    ):
        await FlowRunJournal(uuid.uuid4()).create("abc-intent-1", record())


@pytest.mark.parametrize("answers", [[(200, b'{"cut')], [(200, b'[{"key": 1}]')], [(302, b"")] * 30])
async def test_an_answer_that_nobody_understands_is_an_error_of_the_journal(
    serve: Serve, answers: list[tuple[int, bytes]]
) -> None:
    """Records that waited for the same request, of other jobs, were cancelled without a word."""
    _, url = await serve(*answers)
    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(JournalError, match="What to do: "):
        await FlowRunJournal(uuid.uuid4()).read("abc-intent-1")


async def test_many_jobs_are_read_in_pages_and_their_number_does_not_lengthen_the_requests() -> None:
    """All jobs of a run are read in pages, not one by one."""
    inputs, keys = RunInputs(), job_keys(2500)
    records = {name: text for key in keys for name, text in submitted(key).items()}
    inputs.values |= logged(records | {"cancel-1": "{}", **{f"media-{key}-1": "{}" for key in keys[:300]}})
    async with serve_inputs(inputs) as url:
        with temporary_settings({PREFECT_API_URL: url}):
            views = [view async for view in jobs_of(FlowRunJournal(RUN))]
            assert len(inputs.requests) < 2 * len(inputs.values) / PAGE + 10
            assert sorted(await listed(FlowRunJournal(RUN))) == sorted(keys)
            await disconnect()
    assert sorted(view.key for view in views) == sorted(keys)
    assert {view.state for view in views} == {"ticket"}
    assert inputs.longest < 100_000


async def test_a_job_with_many_records_is_whole() -> None:
    inputs, (one, *others) = RunInputs(), job_keys(20)
    records = {name: text for n in range(1, 1300) for name, text in submitted(one, n).items()}
    for key in others:
        records |= submitted(key)
    inputs.values |= logged(records)
    async with serve_inputs(inputs) as url:
        with temporary_settings({PREFECT_API_URL: url}):
            views = {view.key: view async for view in jobs_of(FlowRunJournal(RUN))}
            await disconnect()
    assert views.keys() == {one, *others}
    assert len(views[one].submits) == 1299
    assert views[one].state == "ticket"


async def test_what_was_read_is_not_read_again_and_what_is_new_takes_one_request() -> None:
    inputs, (*keys, new) = RunInputs(), job_keys(400)
    inputs.values |= logged({name: text for key in keys for name, text in submitted(key).items()})
    async with serve_inputs(inputs) as url:
        with temporary_settings({PREFECT_API_URL: url}):
            assert await has_records(FlowRunJournal(RUN))
            inputs.requests.clear()
            entry = encode("another-1", submitted(new))
            inputs.values[f"rh-log-{len(inputs.values) + 1:08}"] = entry
            assert len(await FlowRunJournal(RUN).job(new)) == 2
            assert await FlowRunJournal(RUN).read(f"{keys[0]}-intent-1") is not None
            assert FlowRunJournal(RUN).is_absent("cancel-1", max_age=60.0)
            await disconnect()
    assert len(inputs.requests) == 1


async def test_notes_of_a_pipeline_run_are_no_jobs(journal: FlowRunJournal) -> None:
    base, work, other = job_keys(3)
    await journal.create(f"{base}-take-1", record())
    await journal.create(f"{other}-wait1-1", record())
    assert not await has_records(journal)
    await journal.create(f"{work}-claim-1", record())
    assert await has_records(journal)
    assert await journal.jobs_with("intent", "claim") == [work]


async def test_a_client_whose_start_failed_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a client that was never started would serve each later request of the loop."""
    starts: list[PrefectClient] = []
    start = PrefectClient.__aenter__

    async def fail_once(client: PrefectClient) -> PrefectClient:
        starts.append(client)
        if len(starts) == 1:
            raise OSError("no more files can be opened")
        return await start(client)

    await disconnect()
    monkeypatch.setattr(PrefectClient, "__aenter__", fail_once)
    with pytest.raises(OSError, match="no more files"):
        await ask(lambda api: api.hello())
    assert (await ask(lambda api: api.hello())).is_success
    assert len(starts) == 2
