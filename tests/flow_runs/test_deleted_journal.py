"""A flow run whose inputs, which are its journal, somebody has deleted: nothing is paid, and the message is true."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client

from rh_prefect.emulator import DEFAULT, Emulator, Fault
from rh_prefect.errors import JournalError, PipelineIncomplete
from rh_prefect.flow_runs.append_only_log import encode
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.flow_runs.resume_or_rerun import create, rerun
from rh_prefect.flow_runs.run_queries_and_scopes import FlowScope, read_flow_run, recorded_scope
from rh_prefect.flows.pipeline import Pipeline, pipeline_flow
from rh_prefect.media.store import MediaStore
from rh_prefect.works.journal.scope import begin_attempt
from tests.support.processes import warm_process
from tests.support.samples.steps import PICTURE, steps
from tests.support.servers.emulator_env import environment
from tests.support.servers.prefect_server import PrefectServer, new_flow_run
from tests.support.world.resume_scenario import open_trial
from tests.support.world.run_inputs import RUN, RunInputs, job_keys, logged, prefect_api, submitted

pytestmark = pytest.mark.prefect

KEY, OTHER = job_keys(2)
GONE = r"Entry 2 of the journal of flow run {run} no longer exists, although .*Nothing was paid.*start this process"

TWO_PICTURES = (
    "name: two\nbudget: 0.08\n" + steps(a=PICTURE % "one", b=PICTURE % "two") + "outputs: {a: $(a), b: $(b)}\n"
)


async def begun(store: MediaStore) -> FlowScope:
    """A scope that this process has opened, and in which it has recorded a job."""
    scope = await recorded_scope(await read_flow_run(new_flow_run()))
    await begin_attempt(scope, store)
    await scope.journal.create(f"{KEY}-intent-1", {"token": "t"})
    return scope


async def delete(run: str, which: Callable[[str], bool] = lambda name: name.startswith("rh-")) -> None:
    async with get_client() as client:
        for one in await client.filter_flow_run_input(UUID(run), "", 200, set()):
            if which(one.key):
                await client.delete_flow_run_input(UUID(run), one.key)


async def refusal(scope: FlowScope, store: MediaStore, *, is_fresh: bool = False) -> str:
    """The error of a process that opens the scope again; a fresh one has read nothing of it before."""

    async def open_() -> None:
        await begin_attempt(scope, store)

    with pytest.raises(JournalError) as error:
        await (asyncio.to_thread(asyncio.run, open_()) if is_fresh else open_())
    return str(error.value)


@pytest.fixture
def store(tmp_path: Path) -> MediaStore:
    return MediaStore(str(tmp_path / "out"))


async def test_a_run_again_in_the_process_that_has_read_the_journal_pays_nothing(tmp_path: Path) -> None:
    async with open_trial(tmp_path) as trial:
        assert await trial.once() is not None
        paid = len((await trial.look()).paid)
        await delete(trial.run)
        assert await trial.once() is None
        assert len((await trial.look()).paid) == paid
        said = {one.message for one in trial.told}
    assert all("no longer exists, although this process has read it" in text for text in said), said


async def test_deleted_entries_are_named_by_the_process_that_has_read_them(store: MediaStore) -> None:
    scope = await begun(store)
    await delete(scope.journal.scope)
    for _ in range(2):
        said = await refusal(scope, store)
        assert re.search(GONE.format(run=scope.journal.scope), said), said
    said = await refusal(scope, store, is_fresh=True)
    assert re.search("its journal is empty: its records were deleted, or.*jobs recover", said), said


async def test_entries_of_another_process_in_place_of_the_deleted_ones_are_noticed(store: MediaStore) -> None:
    scope = await begun(store)
    await delete(scope.journal.scope, lambda name: name.startswith("rh-log-"))
    async with get_client() as client:
        for number in (1, 2):
            entry = encode(f"another-{number}", submitted(OTHER, number))
            await client.create_flow_run_input(UUID(scope.journal.scope), f"rh-log-{number:08}", entry)
    for _ in range(2):
        assert "no longer exists, although this process has read it" in await refusal(scope, store)
        await scope.journal.job(OTHER)


RUN_AGAIN = """
import asyncio
import sys
from rh_prefect import resume
from rh_prefect.flows.pipeline import Pipeline, pipeline_flow
asyncio.run(resume(pipeline_flow(Pipeline.from_file(sys.argv[1])), sys.argv[2]))
"""


async def test_a_pipeline_whose_records_were_deleted_pays_nothing_beyond_its_budget(
    prefect_server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(TWO_PICTURES)
    with Emulator(assumptions=replace(DEFAULT, refund_failed_models=False), long_side=48, fps=6) as rh:
        rh.faults.add(Fault("submit", prompt="one", kind="fail", code="1504", times=1))
        for name, value in (env := environment(rh, tmp_path)).items():
            monkeypatch.setenv(name, value)
        pipeline = pipeline_flow(Pipeline.from_file(file))
        run = str(await create(pipeline, {}))
        with pytest.raises(PipelineIncomplete):
            await rerun(pipeline, run)
        charged = rh.recorder.charged
        await delete(run)
        command = ["-c", RUN_AGAIN, str(file), run]
        done = await asyncio.to_thread(warm_process.run, command, env={**prefect_server.env, **env})
        assert rh.recorder.charged == charged == Decimal("0.08")
    assert "for a pipeline, start a new run" in done.stderr


@pytest.mark.parametrize("deleted", [range(1, 2), range(1, 150), range(1, 320), range(201, 202)])
async def test_deleted_entries_of_a_long_journal_are_noticed_by_a_fresh_process(deleted: range) -> None:
    """The first page that the API returns then lacks the first entries, which is not the same as an empty journal."""
    inputs = RunInputs(logged({name: text for key in job_keys(500) for name, text in submitted(key).items()}))
    for number in deleted:
        del inputs.values[f"rh-log-{number:08}"]
    async with prefect_api(always=inputs.answer):
        with pytest.raises(JournalError, match=rf"Entry {deleted.start} of the journal is missing, but entry"):
            await FlowRunJournal(RUN).job(KEY)
