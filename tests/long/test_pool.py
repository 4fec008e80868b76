"""A batch on a pool of three keys of different size: killed, robbed of a key, and run again.

What is looked at afterwards are the emulator's books and the journal: each picture is paid for once, and by the account
that its record names.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from rh_prefect.blocks import RunningHubCredentials, RunningHubPool
from rh_prefect.emulator import Emulator
from tests.support.processes import warm_process
from tests.support.processes.film_run import FilmRun, OpenStage
from tests.support.processes.flow_process import FlowProcess, Said
from tests.support.samples import media as samples
from tests.support.waiting import wait_until
from tests.support.world import call_log

pytestmark = [pytest.mark.long, pytest.mark.prefect]

BATCH, ROWS = "rh_prefect.flows:batch", 40
LIMITS = {"main": 2, "middle": 3, "wide": 5}
MOST_REFUSALS = 1
"""How many submits a job may lose to a full account before it is a storm; how few there are is measured by the
benchmarks."""


@dataclass
class Night:
    stage: FilmRun
    mark: str  # sets the blocks of this test apart
    busiest: Counter[str]  # how many tasks of each key were seen at once

    @property
    def rh(self) -> Emulator:
        return self.stage.rh

    def block(self, key: str) -> str:
        return f"{key}-{self.mark}"

    def save(self, *keys: str) -> None:
        for key in keys:
            block = RunningHubCredentials(api_key=self.rh.keys[key].secret, base_url=self.rh.url, account=f"the {key}")
            block.save(self.block(key), overwrite=True)

    def pool(self, *keys: str) -> str:
        name = self.block("night")
        RunningHubPool(credentials=[self.block(key) for key in keys]).save(name, overwrite=True)
        return name

    def begin(self) -> FlowProcess:
        parameters = {
            "rows": [{"prompt": f"picture {number}"} for number in range(ROWS)],
            "model": "z-image/turbo",
            "credentials": self.pool(*LIMITS),
        }
        return self.stage.begin(BATCH, parameters, spares=1)

    def again(self, *, well: bool = True) -> None:
        self.ended(self.stage.again(BATCH), well=well)

    def ended(self, child: FlowProcess, *, well: bool = True) -> None:
        """Waits for the batch, looking at the accounts all the time; it ends well where no picture is missing."""
        while child.is_running:
            self.busiest |= self.at_work
            time.sleep(0.02)
        assert child.ended() == (0 if well else 1), f"{child.heard('failed')} {child.errors()}"

    def rest(self) -> None:
        """Lets no task end any more, and waits until every account that takes tasks is full."""
        self.rh.clock.factor = 0
        wait_until(lambda: self.at_work == LIMITS)
        # Killed only now, nothing is on its way.
        wait_until(lambda: {one.task_id for one in self.rh.recorder.paid} == self.recorded)

    @property
    def at_work(self) -> Counter[str]:
        running = [one.task_id for one in self.rh.recorder.tasks if one.status in ("QUEUED", "RUNNING")]
        owners = self.owners
        # One that has just been made is in the books a moment later.
        return Counter(owners[task_id] for task_id in running if task_id in owners)

    @property
    def owners(self) -> dict[str, str]:
        return {one.task_id: one.key_name for one in self.rh.recorder.paid}

    @property
    def recorded(self) -> set[str]:
        return {submit.task_id for view in self.stage.jobs() for submit in view.submits if submit.task_id}

    @property
    def refused(self) -> Counter[str]:
        return Counter(one.code for one in self.rh.recorder.submissions if not one.accepted)

    def check(self) -> None:
        """Every picture is there, paid for once, by the account that its record and its stored result name."""
        assert {item["state"] for item in self.stage.report()} <= {"made", "reused"}
        assert len(self.stage.report()) == ROWS
        prompts = Counter(one.payload["prompt"] for one in self.rh.recorder.paid)
        assert prompts == Counter(f"picture {number}" for number in range(ROWS))
        owners = self.owners
        last = [view.last for view in self.stage.jobs()]
        said = {one.task_id: one.intent for one in last if one is not None and one.task_id}
        assert {task: (one.account, one.credentials) for task, one in said.items()} == {
            task: (f"the {key}", self.block(key)) for task, key in owners.items()
        }
        assert {item["tasks"]: self.account(item) for item in self.stage.report()} == {
            task: f"the {key}" for task, key in owners.items()
        }
        assert self.refused["421"] <= MOST_REFUSALS * ROWS, self.refused

    def account(self, item: Mapping[str, str]) -> str:
        (stored,) = (Path(self.stage.store.url) / "results").glob(f"*/{item['tasks']}.json")
        return str(json.loads(stored.read_text())["account"])


@pytest.fixture
def night(open_stage: OpenStage) -> Iterator[Night]:
    """A task takes half a second; the pool stands alone, without a key in the environment."""
    with Emulator(clock="real", factor=20, limit=LIMITS["main"], long_side=48, fps=2) as rh:
        for name in ("middle", "wide"):
            rh.keys.add(name, limit=LIMITS[name])
        stage = open_stage(rh)
        del stage.env["RH_API_KEY"]
        stage.is_shared = True
        made = Night(stage, uuid.uuid4().hex[:8], Counter())
        made.save(*LIMITS)
        yield made


def test_every_account_works_and_none_beyond_its_limit(night: Night) -> None:
    night.ended(night.begin())
    night.check()
    paid = Counter(night.owners.values())
    assert all(paid[key] >= limit for key, limit in LIMITS.items()), paid
    assert all(night.busiest[key] <= limit for key, limit in LIMITS.items()), night.busiest
    assert set(night.refused) <= {"421"}
    spent = warm_process.run([*warm_process.RH, "spend", "--by", "account"], env=night.stage.env).stdout
    lines = {tuple(line.split()[:3]) for line in spent.splitlines()}
    assert {("the", key, str(count)) for key, count in paid.items()} <= lines, spent


def settle(stage: FilmRun, unknown: set[str]) -> None:
    """Settles jobs which the report names as unknown, and no others."""
    assert {item["jobs"] for item in stage.report() if item["error"] == "SubmissionUnknown"} == unknown
    assert asyncio.run(call_log.settle(stage.rh, stage.journal)) == len(unknown)


def test_after_a_kill_each_job_is_finished_on_the_account_that_paid_it(night: Night) -> None:
    child = night.begin()
    child.wait_until_heard("job", ROWS // 2, state="succeeded")
    unknown = night.stage.kill(child)
    before = night.owners
    night.again(well=not unknown)
    if unknown:
        settle(night.stage, unknown)
        night.again()
    night.check()
    assert before.items() <= night.owners.items()


@pytest.fixture
def stage(open_stage: OpenStage) -> FilmRun:
    stage = open_stage(clock="polls", polls=3, limit=8)
    stage.is_shared = True
    return stage


@pytest.mark.parametrize("done", [4, ROWS - 4])
def test_a_batch_that_was_killed_is_finished_by_a_new_run(stage: FilmRun, done: int) -> None:
    photo = str(samples.png(stage.folder / "photo.png"))
    rows = [{"image_url": photo, "prompt": f"waves {n}"} for n in range(ROWS)]
    parameters: dict[str, object] = {
        "rows": rows,
        "model": "kling-v2.6-pro-image-to-video",
        "values": {"sound": "false"},
    }
    child = stage.begin(BATCH, parameters)
    child.wait_until_heard("job", done, state="succeeded")
    unknown = stage.kill(child)
    ended, processes = again(stage, parameters), 2
    if unknown:
        settle(stage, unknown)
        ended, processes = again(stage, parameters), 3
    assert ended["event"] == "done", ended
    assert [row["state"] for row in ended["result"]["rows"]] == ["done"] * ROWS
    assert len(stage.rh.recorder.uploads) <= processes, "the shared picture"
    paid = Counter(one.payload["prompt"] for one in stage.rh.recorder.paid)
    assert paid == Counter(row["prompt"] for row in rows)
    assert {step["tasks"] for step in stage.report()} == {one.task_id for one in stage.rh.recorder.paid}


def again(stage: FilmRun, parameters: dict[str, object]) -> Said:
    child = stage.flow_processes.run(BATCH, parameters=parameters)
    child.ended()
    return child.said[-1]
