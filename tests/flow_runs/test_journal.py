from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Running, Scheduled

from rh_prefect.errors import ConfigError, JournalError
from rh_prefect.flow_runs.append_only_log import LARGEST_ENTRY, LINGER, encode
from rh_prefect.flow_runs.charge_reader import _Reader
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.run_queries_and_scopes import latest_runs, paid_jobs, read_flow_run
from rh_prefect.prefect_api import ask, disconnect
from rh_prefect.works.journal.job_records_and_state import jobs_of
from tests.support.processes.warm_process import WarmProcess
from tests.support.servers.postgres import PROGRAMS, WHY_NOT, postgres
from tests.support.servers.prefect_server import PrefectServer, empty, free_port, new_flow_run
from tests.support.servers.scripted_server import Asked, Step, reply
from tests.support.world.prefect_runs import set_states
from tests.support.world.run_inputs import RUN, RunInputs, job_keys, logged, prefect_api, submitted
from tests.works.journal.journal_contract import PAGE, JournalContract, OpenJournal, listed, record

pytestmark = pytest.mark.prefect


class TestFlowRunJournal(JournalContract):
    @pytest.fixture
    def open_journal(self) -> OpenJournal:
        runs: defaultdict[str, UUID] = defaultdict(new_flow_run)
        return lambda scope: FlowRunJournal(runs[scope])


@pytest.fixture(scope="module")
def prefect_on_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    home = tmp_path_factory.mktemp("prefect-on-postgres")
    with postgres(free_port()) as database, PrefectServer(home, database=database) as server:
        yield server


@pytest.mark.long
@pytest.mark.skipif(not PROGRAMS, reason=WHY_NOT)
class TestFlowRunJournalOnPostgres(JournalContract):
    @pytest.fixture
    def open_journal(self, prefect_on_postgres: PrefectServer) -> Iterator[OpenJournal]:
        runs: defaultdict[str, UUID] = defaultdict(new_flow_run)
        with temporary_settings({PREFECT_API_URL: prefect_on_postgres.api}):
            yield lambda scope: FlowRunJournal(runs[scope])


@pytest.fixture
def journal() -> FlowRunJournal:
    return FlowRunJournal(new_flow_run())


async def test_what_a_used_journal_has_read_is_kept_when_other_runs_are_read() -> None:
    async with prefect_api(always=reply(b"[]")):
        used = FlowRunJournal(uuid4())
        assert await used.job("abc") == {}
        for _ in range(100):
            assert not FlowRunJournal(uuid4()).is_absent("abc-intent-1", max_age=60)
        assert used.is_absent("abc-intent-1", max_age=60)


async def test_a_pause_input_of_prefect_is_no_record(journal: FlowRunJournal) -> None:
    await ask(lambda api: api.create_flow_run_input(UUID(journal.scope), "pause-1-schema", "{}"))
    assert await listed(journal) == []


async def test_a_deleted_flow_run_is_named(journal: FlowRunJournal) -> None:
    await ask(lambda api: api.delete_flow_run(UUID(journal.scope)))
    with pytest.raises(JournalError, match=f"{journal.scope}.*deleted") as error:
        await journal.create("abc-intent-1", record())
    assert "is kept" not in str(error.value)


@pytest.mark.parametrize("entry", ["[1", '{"log": 1, "by": "one-1"}\nabc-intent-1 {"token": "t"}'])
async def test_an_entry_of_another_version_or_program_is_refused(journal: FlowRunJournal, entry: str) -> None:
    await ask(lambda api: api.create_flow_run_input(UUID(journal.scope), "rh-log-00000001", entry))
    with pytest.raises(JournalError, match=r"Entry 1 .*unknown format.*with the version of rh_prefect that started it"):
        await journal.job("abc")


async def test_no_api_is_an_error_that_says_where(closed_port: int) -> None:
    journal = FlowRunJournal(uuid4(), patience=0.1)
    api = f"http://127.0.0.1:{closed_port}/api"
    with temporary_settings({PREFECT_API_URL: api}), pytest.raises(JournalError, match=f"{api}.*no answer"):
        await journal.read("abc-intent-1")


def one_entry(records: dict[str, str]) -> Step:
    """The answer to a filter of inputs that finds one entry of a log."""
    return reply([{"flow_run_id": str(RUN), "key": name, "value": text} for name, text in logged(records).items()])


LOCKED, BROKEN = reply("database is locked", status=500), reply("broken", status=500)
NO_ENTRY = reply([])
LOGIN = reply("<html>Log in", headers={"Content-Type": "text/html"})
TO_LOGIN = reply(status=302, headers={"Location": "/login"})


async def test_a_creation_whose_answer_was_lost_is_mine() -> None:
    mine = record()
    there = one_entry({"abc-intent-1": json.dumps(mine)})
    async with prefect_api(
        NO_ENTRY, reply("but it was written", status=500), reply("exists", status=409), there
    ) as api:
        assert await FlowRunJournal(uuid4()).create("abc-intent-1", mine) is True
    assert len(api.asked) == 4


async def test_a_record_that_was_queued_during_a_slow_append_does_not_wait_again() -> None:
    inputs, (one, two) = RunInputs(), job_keys(2)
    times: list[tuple[float, float]] = []

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> bool:
        began = time.monotonic()
        if is_append := asked.path.endswith("/input"):
            await asyncio.sleep(2 * LINGER)
        is_open = await inputs.answer(reader, writer, asked)
        if is_append:
            times.append((began, time.monotonic()))
        return is_open

    async with prefect_api(always=slowly):
        journal = FlowRunJournal(RUN)
        await asyncio.gather(*(journal.create(f"{key}-intent-1", record()) for key in (one, two)))
        first = asyncio.ensure_future(journal.create(f"{one}-answer-1", record()))
        await asyncio.sleep(1.5 * LINGER)  # its append is in progress
        await journal.create(f"{two}-answer-1", record())
        assert await first
    assert times[-1][0] - times[-2][1] < LINGER


async def test_a_claim_that_was_read_after_its_shared_entry_was_refused_is_not_won_again() -> None:
    inputs, (one, two) = RunInputs(), job_keys(2)
    sent, refused = asyncio.Event(), asyncio.Event()

    async def refuse_two_records(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> bool:
        if asked.path.endswith("/input") and json.loads(asked.body)["value"].count("\n") > 1:
            sent.set()
            await refused.wait()
            return await reply("too long", status=413)(reader, writer, asked)
        return await inputs.answer(reader, writer, asked)

    async with prefect_api(always=refuse_two_records):
        journal = FlowRunJournal(RUN)
        claims = [asyncio.ensure_future(journal.create(f"{key}-intent-1", record())) for key in (one, two)]
        await sent.wait()
        inputs.values["rh-log-00000001"] = encode("another-1", {f"{two}-intent-1": json.dumps(record())})
        assert await journal.job(two)  # for another job of this process
        refused.set()
        assert await asyncio.gather(*claims) == [True, False]
    assert [two in text for text in inputs.values.values()] == [True, False]


async def test_a_server_that_is_too_busy_is_not_sent_the_records_of_an_entry_one_by_one() -> None:
    inputs, sent = RunInputs(), list[int]()

    async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> bool:
        if not asked.path.endswith("/input"):
            return await inputs.answer(reader, writer, asked)
        sent.append(json.loads(asked.body)["value"].count("\n"))
        return await reply("busy", status=429, headers={"Retry-After": "0"})(reader, writer, asked)

    async with prefect_api(always=busy):
        journal = FlowRunJournal(RUN, patience=0.3)
        claims = (journal.create(f"{key}-intent-1", record()) for key in job_keys(2))
        ended = await asyncio.gather(*claims, return_exceptions=True)
    assert all(isinstance(one, JournalError) and "HTTP 429 busy" in str(one) for one in ended), ended
    assert set(sent) == {2}


async def test_a_server_that_stays_away_is_asked_again_and_named_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async with prefect_api(*[LOCKED] * 3, BROKEN, one_entry({"abc-intent-1": '{"token": "t"}'})) as api:
        assert await FlowRunJournal(uuid4()).read("abc-intent-1") == {"token": "t"}
    assert len(api.asked) == 5
    (line,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert re.search(f"{api.url}/api.*database is locked.*repeated for up to 60 s", line), line


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([BROKEN] * 20, "HTTP 500 broken"),
        ([reply("no", status=401)], "PREFECT_API_KEY"),
        ([reply('{"cut')], "What to do: "),
        ([reply('[{"key": 1}]')], "What to do: "),
        ([TO_LOGIN] * 30, "What to do: "),
    ],
    ids=["an error that stays", "no right", "half of an answer", "another answer", "redirections"],
)
async def test_an_api_that_cannot_be_read_is_an_error_of_the_journal(answers: list[Step], words: str) -> None:
    async with prefect_api(*answers):
        with pytest.raises(JournalError, match=words):
            await FlowRunJournal(uuid4(), patience=0.3).read("abc-intent-1")


@pytest.mark.parametrize("answers", [[LOGIN], [TO_LOGIN, LOGIN]])
async def test_the_login_page_of_a_proxy_is_no_creation(answers: list[Step]) -> None:
    async with prefect_api(NO_ENTRY, *answers):
        with pytest.raises(JournalError, match=r"the answer is a web page \(http.* is a web page\)"):
            await FlowRunJournal(uuid4()).create("abc-intent-1", record())


async def test_many_jobs_are_read_in_pages_and_their_number_does_not_lengthen_the_requests() -> None:
    inputs, keys = RunInputs(), job_keys(2500)
    records = {name: text for key in keys for name, text in submitted(key).items()}
    inputs.values |= logged(records | {"cancel-1": "{}", **{f"media-{key}-1": "{}" for key in keys[:300]}})
    async with prefect_api(always=inputs.answer):
        views = [view async for view in jobs_of(FlowRunJournal(RUN))]
        assert len(inputs.requests) < 2 * len(inputs.values) / PAGE + 10
        assert sorted(await listed(FlowRunJournal(RUN))) == sorted(keys)
    assert sorted(view.key for view in views) == sorted(keys)
    assert {view.state for view in views} == {"ticket"}
    assert inputs.longest < 100_000


async def test_a_job_with_many_records_is_whole() -> None:
    inputs, (one, *others) = RunInputs(), job_keys(20)
    records = {name: text for n in range(1, 1300) for name, text in submitted(one, n).items()}
    for key in others:
        records |= submitted(key)
    inputs.values |= logged(records)
    async with prefect_api(always=inputs.answer):
        views = {view.key: view async for view in jobs_of(FlowRunJournal(RUN))}
    assert views.keys() == {one, *others}
    assert len(views[one].submits) == 1299
    assert views[one].state == "ticket"


async def test_what_was_read_is_not_read_again_and_what_is_new_takes_one_request() -> None:
    inputs, (*keys, new) = RunInputs(), job_keys(400)
    inputs.values |= logged({name: text for key in keys for name, text in submitted(key).items()})
    async with prefect_api(always=inputs.answer):
        assert await paid_jobs(FlowRunJournal(RUN))
        inputs.requests.clear()
        entry = encode("another-1", submitted(new))
        inputs.values[f"rh-log-{len(inputs.values) + 1:08}"] = entry
        assert len(await FlowRunJournal(RUN).job(new)) == 2
        assert await FlowRunJournal(RUN).read(f"{keys[0]}-intent-1") is not None
        assert FlowRunJournal(RUN).is_absent("cancel-1", max_age=60.0)
    assert len(inputs.requests) == 1


async def test_notes_of_a_pipeline_run_are_no_jobs(journal: FlowRunJournal) -> None:
    base, work, other = job_keys(3)
    await journal.create(f"{base}-take-1", record())
    await journal.create(f"{other}-wait1-1", record())
    assert not await paid_jobs(journal)
    await journal.create(f"{work}-claim-1", record())
    assert await paid_jobs(journal) == [work]


async def test_runs_that_have_not_started_are_not_among_the_latest(journal: FlowRunJournal) -> None:
    await journal.create(f"{job_keys(1)[0]}-intent-1", record())
    await set_states(journal.scope, Running())
    later: State[Any] = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1))
    async with get_client() as client:
        scheduled = [(await client.create_flow_run(empty, state=later)).id for _ in range(30)]
    found = [str(flow_run.id) async for flow_run, _, _ in latest_runs()]
    async with get_client() as client:
        for one in scheduled:
            await client.delete_flow_run(one)
    assert journal.scope in found


async def test_an_unreadable_answer_about_runs_is_no_absent_run() -> None:
    reader = _Reader()
    async with prefect_api(always=reply('{"cut')):
        with pytest.raises(ConfigError, match=r"cannot be read: the Prefect API at .*: the answer is not from"):
            await read_flow_run(RUN)
        await reader.read_flow_runs()
    (place,) = reader.unread
    assert place.startswith("flow runs of the Prefect API at ")


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


async def test_if_no_client_can_start_each_waiting_record_fails_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: PrefectClient) -> PrefectClient:
        raise OSError("no more files can be opened")

    journal = FlowRunJournal(new_flow_run())
    await disconnect()
    monkeypatch.setattr(PrefectClient, "__aenter__", fail)
    large = "x" * LARGEST_ENTRY  # so that each record is an entry
    records = (journal.create(f"{number:016x}-intent-1", {"token": large}) for number in range(3))
    ended = await asyncio.gather(*records, return_exceptions=True)
    assert [type(one) for one in ended] == [OSError] * 3


CLAIM = """
import asyncio, json, random, sys, time
from rh_prefect.flow_runs.journal import FlowRunJournal

async def main(run, name):
    journal = FlowRunJournal(run)
    await journal.read("cancel-1")
    print("ready", flush=True)
    begin = float(sys.stdin.readline())
    order = list(range(300))
    random.Random(name).shuffle(order)

    async def claim(place, n):
        await asyncio.sleep(begin - time.time() + place * 0.005)
        token = f"{name}-{n}"
        is_mine = await journal.create(f"{n:016x}-intent-1", {"token": token, "by": name, "text": "x" * 1000})
        return n, is_mine

    print(json.dumps(await asyncio.gather(*(claim(place, n) for place, n in enumerate(order)))))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.long
def test_of_two_processes_with_300_equal_keys_each_key_has_one_winner(prefect_server: PrefectServer) -> None:
    run = str(new_flow_run())
    processes = [WarmProcess(["-c", CLAIM, run, name], env=prefect_server.env) for name in ("one", "two")]
    assert [process.stdout.readline() for process in processes] == ["ready\n", "ready\n"]
    begin = f"{time.time() + 0.5}\n"
    for process in processes:
        process.stdin.write(begin)
        process.stdin.flush()
    claims = [sorted(json.loads(process.communicate(timeout=600)[0])) for process in processes]

    async def recorded() -> Counter[str]:
        journal = FlowRunJournal(run)
        found = [journal.decode(*one) async for _, texts in journal.jobs() for one in texts.items()]
        return Counter([one["by"] for one in found])

    by = asyncio.run(recorded())
    won = [sum(is_mine for _, is_mine in one) for one in claims]
    assert [one[1] != two[1] for one, two in zip(*claims, strict=True)] == [True] * 300
    assert by == Counter(one=won[0], two=won[1])
