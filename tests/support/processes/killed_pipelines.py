"""Flow runs of one pipeline that are killed: the servers, the processes, and what must be true in the end.

All runs share the records and files in one store on a real S3 server. Each run is a new flow run in a new process, on
the other of two Prefect servers, and on a machine that has kept nothing where `keeps_machine` says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from rh_prefect.emulator import Emulator
from rh_prefect.emulator.recorder import Submission
from rh_prefect.flows.pipeline import pipeline_flow
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.known_works import StoredWorks
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.pipelines.rounds_across_runs import COMMAND_LINE, Rounds
from rh_prefect.pipelines.stored_edits import EditResults
from rh_prefect.works.journal.spool import Spool
from rh_prefect.works.journal.works_journal import WorksJournal
from tests.support.processes.flow_process import FlowProcess, FlowProcesses, Said
from tests.support.servers.holding_proxy import Proxy
from tests.support.waiting import wait_until
from tests.support.world.call_log import request_of, settle
from tests.support.world.invariants import paid_tasks

FILM = """
name: killed
steps:
  words:
    model: rhart-text-g-3-flash-preview/text-to-text
    with: {prompt: Describe a harbour}
    parse: {text: {max: 9000}}
  each:
    foreach: [mug, cup, mug]
    steps:
      picture: {model: z-image/turbo, with: {prompt: A $(item)}, same: true}
      clip: {model: kling-v2.6-pro-image-to-video, from: $(picture), with: {prompt: waves, duration: 5}, same: true}
      end: {edit: frame, with: {video: $(clip), at: last}, save_as: ends/$(number).jpg}
  views: {model: z-image/turbo, takes: 2, with: {prompt: "A harbour: $(words)"}}
  sheet: {edit: contact_sheet, with: {of: $(views.takes)}, save_as: sheet.jpg}
outputs: {clips: $(each.clip), sheet: $(sheet)}
"""

PAYMENTS = 7
"""A text, two pictures and two clips, and two takes: the first and the third item are one work each."""

killed = pipeline_flow(Pipeline.from_text(FILM))


@dataclass(frozen=True)
class Point:
    """Where a run is killed: at a request to one of the servers that it talks to."""

    where: str  # `s3`, `rh` or `prefect`
    pattern: str  # see `Hold`
    number: int = 1  # which such request of the run, from 1
    after: bool = False  # whether the server has acted and the run does not know it

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.where} {self.pattern} #{self.number}"


@dataclass
class KilledRuns:
    rh: Emulator
    folder: Path  # where the machines lie
    url: str  # of the store
    options: Mapping[str, Any]  # its options, without a proxy
    proxies: Mapping[str, Proxy]  # in front of each server
    processes: Sequence[FlowProcesses]  # what starts runs, one for each Prefect server
    env: Mapping[str, str]  # of all runs
    keeps_machine: bool = True
    log: list[str] = field(default_factory=list)
    count: int = 0

    @property
    def store(self) -> MediaStore:
        return MediaStore(self.url, options=dict(self.options))

    @property
    def works(self) -> WorksJournal:
        return WorksJournal(self.url, options=self.options)

    @property
    def state(self) -> Path:
        return self.folder / f"state-{1 if self.keeps_machine else self.count}"

    def start(self) -> FlowProcess:
        """Starts a new flow run on the next Prefect server."""
        self.count += 1
        processes = self.processes[self.count % len(self.processes)]
        env = {**self.env, "RH_STATE_DIR": str(self.state)}
        return processes.run(f"{__name__}:killed", parameters={"budget": 20}, env=env)

    def finish(self) -> dict[str, Any]:
        """Runs until all is made; what a run names as unknown is settled before the next one."""
        ended = end_of(self.start())
        if "is not known whether RunningHub accepted it" in str(ended):
            # Its claim had left the dead process, and reached the store after the look at the records.
            assert asyncio.run(self._settle()), f"{ended}\n{self.log}"
            ended = end_of(self.start())
        assert ended["event"] == "done", f"{ended}\n{self.log}"
        result: dict[str, Any] = ended["result"]
        return result

    def kill_at(self, point: Point) -> None:
        """Starts a run, kills it at a point, and settles what can then not be known."""
        started: Future[FlowProcess] = Future()

        def stop() -> None:  # else the branches beside this request would go on until the kill
            os.kill(started.result().pid, signal.SIGSTOP)

        holds = [
            proxy.hold(point.pattern, number=point.number, answer=point.after, when_held=stop)
            for name, proxy in self.proxies.items()
            if name.startswith(point.where)
        ]
        started.set_result(run := self.start())
        wait_until(lambda: any(hold.held for hold in holds) or not run.is_running)
        assert any(hold.held for hold in holds), f"{point} was not reached; {self.log}; {run.errors()}"
        run.kill()
        for proxy in self.proxies.values():
            proxy.drop()
        # What had left the dead process may still be under way to its server.
        time.sleep(0.3)
        self.log.append(f"{point}: {len(self.rh.recorder.paid)} paid, {asyncio.run(self._settle())} unknown")

    async def _settle(self) -> int:
        """Settles the submissions that were never answered, as a person would."""
        return await settle(self.rh, self.works, Spool(self.state / "spool").entries() if self.keeps_machine else ())

    async def plan(self) -> list[PlannedStep]:
        edits = EditResults(self.url, self.store, options=self.options)
        known = StoredWorks(self.works, edits, self.store, rounds=Rounds(self.works.rounds, deployment=COMMAND_LINE))
        plan = await Pipeline.from_text(FILM).plan(known=known, site="127.0.0.1")
        assert not plan.problems, plan.problems
        return list(plan.instances)

    async def check(self, *, payments: int) -> None:
        """Looks at the books and at every file: paid once, whole, and each with its own request."""
        paid, log = self.rh.recorder.paid, "\n".join(self.log)
        requests = Counter(request_of(one) for one in paid)
        assert len(paid) == payments, f"{requests}\n{log}"
        assert self.rh.recorder.charged == sum((one.charged for one in paid), Decimal(0))
        served = {one.task_id: one.outputs for one in await paid_tasks(self.rh)}
        books = {one.task_id: one for one in paid}
        tasks: dict[str, str] = {}
        for instance in await self.plan():
            assert instance.state == "=", f"{instance.address} is {instance.state}\n{log}"
            for work in instance.works:
                assert work.known is not None
                for file in work.known.outputs:
                    content = self.store.read_bytes(self.store.name_of(file.uri) or "")
                    assert hashlib.sha256(content).hexdigest() == file.sha256, f"{file.uri} is damaged\n{log}"
                if instance.is_paid:
                    self._check_task(instance, books[work.known.task_id])
                    hashes = tuple(file.sha256 for file in work.known.outputs)
                    assert served[work.known.task_id] == hashes, f"{instance.address} has another result\n{log}"
                    assert tasks.setdefault(work.key, work.known.task_id) == work.known.task_id
            if instance.save_as:
                content = self.store.read_bytes(instance.save_as)
                hashes = tuple(file.sha256 for work in instance.works for file in _files(work))
                assert hashes == (hashlib.sha256(content).hexdigest(),), instance.save_as
        assert sorted(tasks.values()) == sorted(books), f"a paid task is no work's result\n{log}"

    def _check_task(self, instance: PlannedStep, task: Submission) -> None:
        """The task of a step was asked for with what the step takes: no result was exchanged."""
        takes = [file.sha256 for need in instance.needs for work in need.works[:1] for file in _files(work)]
        if task.inputs:
            assert [sha for hashes in task.inputs.values() for sha in hashes] == takes, instance.address
        if "prompt" in instance.values:
            assert task.payload["prompt"] == instance.values["prompt"], instance.address


def _files(work: Any) -> Sequence[Any]:
    return work.known.outputs if work.known is not None else ()


def end_of(run: FlowProcess) -> Said:
    """Waits for the end of a run, and returns what it has reported last: its result, or its errors."""
    run.ended()
    ended = run.heard("done") + run.heard("failed")
    assert ended, run.errors()
    return ended[0]
