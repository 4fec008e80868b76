"""What a call belongs to: its flow run, wherever in the process it is made, or a named scope and its attempts."""

from __future__ import annotations

import asyncio
import contextvars
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import prefect
import pytest

from rh_prefect import MediaStorage, models
from rh_prefect.cli.jobs import adopt_, cancel_, list_, mark_lost_, mark_refused_, show_
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import ConfigError, InputError, JobCancelled, SubmissionUnknown
from rh_prefect.flow_runs.charge_reader import charges_of
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.resume_or_rerun import create, rerun
from rh_prefect.flow_runs.run_queries_and_scopes import scope_named, works_of
from rh_prefect.flows.pipeline import Pipeline
from rh_prefect.settings import get_settings
from rh_prefect.tasks import generate
from rh_prefect.tasks.generate import scope_for
from rh_prefect.works.journal.scope import open_scope
from rh_prefect.works.journal.works_journal import default_works
from rh_prefect.works.result import Result
from rh_prefect.works.run_ledger import Notes
from tests.support.processes import warm_process
from tests.support.servers.emulator_env import StartEmulator
from tests.support.servers.s3 import S3Server
from tests.support.waiting import until
from tests.support.world.prefect_runs import cancel

PROMPT = "a lighthouse"


def pay(prompt: str, **options: Any) -> str:
    """A paid call on a separate event loop, as in a thread that somebody made."""
    return str(asyncio.run(generate.fn(models.ZImageTurbo(prompt=prompt), **options)).job)


@prefect.flow
def in_threads(prompts: list[str], *, with_context: bool) -> list[str]:
    with ThreadPoolExecutor(2) as pool:
        contexts = [contextvars.copy_context() if with_context else contextvars.Context() for _ in prompts]
        jobs = [pool.submit(context.run, pay, prompt) for context, prompt in zip(contexts, prompts, strict=True)]
        return [job.result() for job in jobs]


@pytest.mark.prefect
class TestThreadsOfAFlow:
    def test_one_without_its_context_is_refused_and_nothing_is_sent(self, rh: Emulator) -> None:
        with pytest.raises(ConfigError, match="copy_context"):
            in_threads(["a gull"], with_context=False)
        assert not rh.recorder.submissions

    def test_one_with_a_copy_of_it_belongs_to_the_flow_run(self, rh: Emulator) -> None:
        state = in_threads(["a gull", "a harbour"], with_context=True, return_state=True)
        assert {job.partition("/")[0] for job in state.result()} == {str(state.state_details.flow_run_id)}
        assert len(rh.recorder.paid) == 2

    def test_who_names_a_scope_has_said_where_it_belongs(self, rh: Emulator) -> None:
        @prefect.flow
        async def named() -> str:
            return await asyncio.to_thread(contextvars.Context().run, pay, "a gull", scope="mine")

        asyncio.run(named())
        assert default_works(get_settings()).scopes() == ["mine"]


async def test_the_scopes_of_a_service_share_the_records_of_their_works() -> None:
    one, other = await scope_for("order-1"), await scope_for("order-2")
    assert one.journal.scope != other.journal.scope
    assert await one.works() is await other.works(), "a service may open 100,000 scopes"


async def ask(scope: str) -> str:
    return str((await generate.fn(models.ZImageTurbo(prompt=PROMPT), scope=scope)).task_id)


ELSEWHERE = f"import asyncio; from {__name__} import ask; print(asyncio.run(ask('nightly')))"


async def test_a_cancelled_scope_is_open_to_processes_that_come_later(rh: Emulator) -> None:
    # Two processes have opened it and live: this one, and one that has submitted nothing yet.
    await scope_for("nightly")
    other = await open_scope(default_works(get_settings()), "nightly")
    await cancel("nightly")
    assert [await other.journal.read(f"cancel-{n}") is not None for n in (1, 2, 3)] == [True, True, False]
    with pytest.raises(JobCancelled):
        await ask("nightly")
    assert not rh.recorder.submissions
    done = await asyncio.to_thread(warm_process.run, ["-c", ELSEWHERE])
    assert done.stdout.split() == [rh.recorder.paid[0].task_id], done.stderr


@pytest.mark.prefect
async def test_a_task_that_another_run_waits_for_continues_and_the_command_says_so(
    start_rh: StartEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    slow, waiting = start_rh(clock="real", durations=lambda *_: (0.0, 600.0)), asyncio.Event()

    @prefect.flow
    async def other() -> str:
        waiting.set()
        result = await generate(models.ZImageTurbo(prompt=PROMPT), scope="nightly")
        return str(result.task_id)

    mine = asyncio.create_task(ask("nightly"))
    await asyncio.to_thread(slow.recorder.wait, lambda recorder: len(recorder.paid) == 1)
    theirs, (task,) = asyncio.create_task(other()), slow.recorder.paid
    await waiting.wait()
    works = default_works(get_settings())
    (work,) = {name.partition("-")[0] async for name in works.names()}
    await until(lambda: works.has_other_waiter(work, "nightly"))
    await cancel_("nightly")
    assert f"continues: task {task.task_id}, because another run waits for it" in capsys.readouterr().out
    slow.clock.advance(3600)
    assert [await mine, await theirs] == [task.task_id] * 2


@pytest.mark.prefect
async def test_a_second_place_of_records_in_a_flow_run_is_refused_before_it_pays(
    rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @prefect.flow
    async def in_places() -> None:
        for place in ("one", "two"):
            monkeypatch.setenv("RH_RECORDS", str(tmp_path / place))
            await generate(models.ZImageTurbo(prompt=PROMPT), scope="order")

    with pytest.raises(ConfigError, match=r"set RH_RECORDS to .*one .and RH_STORAGE_OPTIONS, .*, which all calls"):
        await in_places()
    assert len(rh.recorder.paid) == 1


@pytest.mark.prefect
async def test_records_are_in_the_storage_of_the_call_if_no_variable_names_a_place(
    rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were in the current folder: from another folder, the call paid again and overwrote the file."""
    await MediaStorage(url=str(tmp_path / "films")).asave("films", overwrite=True)
    monkeypatch.delenv("RH_STORAGE_URL")
    request, runs = models.ZImageTurbo(prompt=PROMPT), list[str]()

    @prefect.flow
    async def ordered() -> Result:
        runs.append(str(prefect.runtime.flow_run.id))
        return await generate(request, scope="order-17", storage="films")

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        await (ordered() if name == "two" else generate.fn(request, scope="order-17", storage="films"))
    assert len(rh.recorder.paid) == 1
    works = await works_of(FlowRunJournal(runs[0]))
    assert works is not None and works.url == str(tmp_path / "films")


@pytest.mark.long
@pytest.mark.prefect
@pytest.mark.parametrize("is_storage_set", [True, False])
async def test_all_readers_open_rh_records_with_the_storage_options(
    rh: Emulator, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_storage_set: bool
) -> None:
    """The call paid with them, but its budget, the hook that cancels its tasks and pipelines had no key."""
    await MediaStorage(url=str(tmp_path / "films")).asave("films", overwrite=True)
    monkeypatch.setenv("RH_RECORDS", s3.url("records"))
    monkeypatch.setenv("RH_STORAGE_OPTIONS", json.dumps(s3.options))
    if not is_storage_set:
        monkeypatch.delenv("RH_STORAGE_URL")
    pipeline = Pipeline.from_text("name: waves\nsteps:\n  a: {model: z-image/turbo, with: {prompt: waves}}\n")

    @prefect.flow
    async def illustrated() -> str:
        for prompt in ("a gull", "a harbour"):
            await generate(models.ZImageTurbo(prompt=prompt), scope="order-17", storage="films", budget=1)
        await pipeline.run(storage="films")
        return str(prefect.runtime.flow_run.id)

    run = await illustrated()
    assert len([view async for view in (await Notes.of(await scope_named(run))).jobs()]) == 3
    _, found = await charges_of("films", with_prefect=True)
    assert [one.run for one in found.tasks].count(run) == 3


@pytest.mark.prefect
@pytest.mark.parametrize("how", [pytest.param({"reuse": "always"}, marks=pytest.mark.long), {"scope": "order-17"}])
async def test_no_order_of_calls_with_two_storages_pays_twice(
    rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    """Which call is the first one decided where the records were, so that a run in another order did not find them."""
    for name in ("films", "stills"):
        await MediaStorage(url=str(tmp_path / name)).asave(name, overwrite=True)
    monkeypatch.delenv("RH_STORAGE_URL")

    @prefect.flow
    async def illustrated(order: list[str]) -> None:
        calls = [generate(models.ZImageTurbo(prompt=one), storage=one, **how) for one in order]
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert any(isinstance(one, Result) for one in done)
        for error in done:
            assert isinstance(error, Result) or "Nothing was sent. What to do: set RH_RECORDS to" in str(error)

    both = ["films", "stills"]
    for order in (both, both[::-1], both[::-1], both, both[:1], both[1:]):
        await illustrated(order)
    assert len(rh.recorder.paid) == 2


@pytest.mark.prefect
async def test_a_run_with_two_storages_continues_with_the_place_that_its_error_names(
    rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("films", "stills"):
        await MediaStorage(url=str(tmp_path / name)).asave(name, overwrite=True)
    monkeypatch.delenv("RH_STORAGE_URL")

    @prefect.flow
    async def illustrated() -> list[Result]:
        how: dict[str, Any] = {"scope": "order-17"}
        return [await generate(models.ZImageTurbo(prompt=one), storage=one, **how) for one in ("films", "stills")]

    again: prefect.Flow[..., Any] = illustrated
    flow_run = await create(again, {})
    with pytest.raises(ConfigError, match=f"set RH_RECORDS to {tmp_path / 'films'} "):
        await rerun(again, flow_run)
    monkeypatch.setenv("RH_RECORDS", str(tmp_path / "films"))
    for made, name in zip(await rerun(again, flow_run), ("films", "stills"), strict=True):
        assert Path(made.first_output.uri).is_relative_to(tmp_path / name)
    assert len(rh.recorder.paid) == 2


@pytest.mark.prefect
async def test_commands_find_a_scope_in_the_block_that_they_ask_for(
    rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await MediaStorage(url=str(tmp_path / "films")).asave("films", overwrite=True)
    monkeypatch.delenv("RH_STORAGE_URL")
    monkeypatch.chdir(tmp_path)
    rh.faults.add(Fault("submit", kind="cut", phase="after"))
    with pytest.raises(SubmissionUnknown) as lost:
        await generate.fn(models.ZImageTurbo(prompt=PROMPT), scope="order-17", storage="films")
    job, task = lost.value.job, rh.recorder.paid[0].task_id
    for command in (list_("order-17"), show_(job), adopt_(job, task), mark_refused_(job), mark_lost_(job)):
        with pytest.raises(InputError, match="pass --storage BLOCK"):
            await command
    capsys.readouterr()
    await list_("order-17", storage="films")
    await show_(job, storage="films")
    await list_(storage="films")
    said = capsys.readouterr().out
    assert "unknown" in said and "submit 1: unknown" in said and f"in {tmp_path / 'films'}:\n  order-17" in said
    await adopt_(job, task, storage="films")
    await cancel_("order-17", storage="films")
    assert f"task {task}" in capsys.readouterr().out


@pytest.mark.prefect
@pytest.mark.parametrize("name", ["", "../elsewhere", "order 17", "x" * 201, str(UUID(int=17)), UUID(int=17).hex])
async def test_a_scope_that_is_no_name_is_refused(rh: Emulator, name: str) -> None:
    """In a flow it was not checked, and an empty name shared the result with all runs.

    A name in the form of a flow run's id was taken for a flow run: by commands, by webhooks, and by other runs.
    """

    @prefect.flow
    async def named() -> None:
        await generate(models.ZImageTurbo(prompt=PROMPT), scope=name)

    with pytest.raises(InputError, match=r"not a valid scope name|form of a flow run's id"):
        await generate.fn(models.ZImageTurbo(prompt=PROMPT), scope=name)
    with pytest.raises(InputError, match=r"not a valid scope name|form of a flow run's id"):
        await named()
    assert not rh.recorder.submissions
