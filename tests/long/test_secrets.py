"""Every secret is used, well and badly, under the loudest logs there are; afterwards it stands nowhere."""

from __future__ import annotations

import asyncio
import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from rh_prefect.blocks import MediaStorage, RunningHubCredentials, RunningHubPool
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.emulator.comfy.workflows import RESTYLE, TEXT_TO_IMAGE
from tests.long import secret_flows
from tests.long.secret_flows import MODULE
from tests.support.processes.film_run import FilmRun, staged
from tests.support.processes.flow_process import FlowProcess, command
from tests.support.samples import media as samples
from tests.support.servers.emulator_env import environment
from tests.support.servers.holding_proxy import Proxy
from tests.support.servers.prefect_server import PrefectServer
from tests.support.servers.s3 import ADMIN, S3Server
from tests.support.servers.webhook_receiver import receiver_process
from tests.support.waiting import wait_until
from tests.support.world.invariants import Evidence, broken
from tests.support.world.prefect_runs import deployed_run, state_of

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

LOUD = {  # all that those log who work with the server
    "PREFECT_LOGGING_LEVEL": "DEBUG",
    "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG",
    "PREFECT_LOGGING_SERVER_LEVEL": "DEBUG",
    "PREFECT_DEBUG_MODE": "true",
    # Not httpx's and httpcore's, too: Prefect's own log worker would send lines about its sending lines, without end.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "rh_prefect",
}
FAST, STILL = 50, 0
"""Of the emulator's clock: jobs take a moment, or never end."""


@dataclass(frozen=True)
class Secrets:
    main: str
    two: str
    wrong: str
    token: str
    password: str
    wrong_password: str
    s3: str = ADMIN[1]

    @classmethod
    def new(cls) -> Secrets:
        """Keys as RunningHub's are; passwords with what is written in another way in an address and in JSON."""
        keys = [secrets.token_hex(16) for _ in range(3)]
        password, wrong = (f'pass/"{secrets.token_hex(8)}&ü' for _ in range(2))
        return cls(keys[0], keys[1], keys[2], secrets.token_urlsafe(32), password, wrong)

    def all(self) -> tuple[str, ...]:
        return astuple(self)


@pytest.fixture
def hidden() -> Secrets:
    return Secrets.new()


@pytest.fixture
def rh(hidden: Secrets) -> Iterator[Emulator]:
    with Emulator(clock="real", factor=FAST, long_side=96, fps=6, key=hidden.main) as emulator:
        emulator.keys.add("two", limit=5, secret=hidden.two)
        yield emulator


@pytest.fixture
def server(tmp_path: Path, prefect_template: Path) -> Iterator[PrefectServer]:
    home = tmp_path / "prefect"
    loud = {**LOUD, "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(home / "results")}
    with (
        PrefectServer(home, template=prefect_template, settings=loud) as made,
        temporary_settings({PREFECT_API_URL: made.api}),
    ):
        yield made


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.url("secrets")


@pytest.fixture
def stage(server: PrefectServer, rh: Emulator, hidden: Secrets, tmp_path: Path) -> Iterator[FilmRun]:
    """FlowProcess processes that are told of ends by a receiver in a separate process."""
    token = {"RH_WEBHOOK_TOKEN": hidden.token}
    passwords = {"ACCESS_PASSWORD": hidden.password, "WRONG_PASSWORD": hidden.wrong_password}
    receiving = {**server.env, **environment(rh, tmp_path), **token}
    with (
        Proxy(server.url) as proxy,
        receiver_process(receiving, log=tmp_path / "receiver.log") as told,
        staged(server, proxy, rh, tmp_path, RH_WEBHOOK_URL=told["RH_WEBHOOK_URL"], **token, **passwords) as made,
    ):
        yield made


@dataclass
class Show:
    """All that is done before it is looked."""

    stage: FilmRun
    locked: str  # the workflow that wants a password
    graphs: dict[str, Any]  # what flows take
    said: str = ""  # what the commands have shown

    @property
    def rh(self) -> Emulator:
        return self.stage.rh

    def run(self, name: str, *, run: UUID | None = None, **parameters: object) -> FlowProcess:
        order: dict[str, object] = {"parameters": parameters} if run is None else {"run": str(run)}
        return self.stage.flow_processes.run(name if ":" in name else f"{MODULE}:{name}", **order)

    def everything(self, photo: str) -> FlowProcess:
        restyle = json.loads(json.dumps(RESTYLE))
        return self.run("everything", photo=photo, restyle=restyle, **self.graphs)

    def crash(self, how: str) -> FlowProcess:
        return self.run("crashing", how=how, **self.graphs)

    def batch(self) -> FlowProcess:
        rows = [{"prompt": f"row {number}"} for number in range(3)] + [{"prompt": "this one fails"}, {"prmpt": "x"}]
        asked: dict[str, Any] = {"rows": rows, "model": "z-image/turbo", "credentials": "night", "storage": "bucket"}
        return self.run("rh_prefect.flows.batch:batch", **asked)

    def cancel(self) -> None:
        """Starts what never ends, and cancels it as the dashboard does."""
        self.rh.clock.factor = STILL
        child = self.run("endless", **self.graphs)
        run = child.wait_for("run")["id"]
        child.wait_until_heard("job", 4, state="submitted")
        assert self.stage.flow_processes.cancel(f"{MODULE}:endless", run).ended() == 0
        child.kill()
        self.rh.clock.factor = FAST

    def rest(self) -> None:
        """A run that suspends itself, and is woken by its webhooks."""
        self.rh.clock.factor = STILL
        run = asyncio.run(deployed_run(secret_flows.resting))  # no other can be suspended
        self.run("resting", run=run).ended()
        assert asyncio.run(state_of(run)) == "Suspended"
        self.rh.clock.factor = FAST
        wait_until(lambda: asyncio.run(state_of(run)) == "Resuming", seconds=500)
        assert self.run("resting", run=run).ended() == 0

    def spool(self) -> str:
        """Leaves a ticket on this machine, whose journal never got it; its task."""
        held = self.stage.proxy.hold('"rh-log-[0-9]+".*[0-9a-f]-answer-')
        child = self.stage.begin(f"{MODULE}:one", {}, spares=0)
        self.stage.until_held(held, child)
        assert not self.stage.kill(child), "the ticket is in the spool"
        return self.rh.recorder.paid[-1].task_id

    def look(self, job: str) -> None:
        """Asks on the command line, also with a wrong key."""
        run = job.partition("/")[0]
        wrong = {**self.stage.env, "RH_API_KEY": self.stage.env["WRONG_PASSWORD"]}
        asked = [(self.stage.env, words) for words in (("jobs", "list", run), ("jobs", "show", job), ("doctor",))]
        asked += [(self.stage.env, ("spend",)), (wrong, ("doctor",))]
        with ThreadPoolExecutor(2) as pool:
            done = list(pool.map(lambda one: command(one[0], *one[1]), asked))
        assert [one.returncode for one in done[:2]] == [0, 0]
        self.said += "".join(one.stdout + one.stderr for one in done)


async def save_blocks(rh: Emulator, hidden: Secrets, bucket: str, s3: S3Server) -> None:
    for name, key in {"main": hidden.main, "two": hidden.two, "wrong": hidden.wrong}.items():
        await RunningHubCredentials(api_key=key, base_url=rh.url).save(name)
    await RunningHubPool(credentials=["main", "two"]).save("night")
    await MediaStorage(url=bucket, options=s3.options).save("bucket")


def script(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", prompt="this one fails", kind="fail", code="805"))
    rh.faults.add(Fault("submit", prompt="this one's answer is lost", kind="502"))
    rh.faults.add(Fault("submit", endpoint="/proxy-plus", kind="502"))
    rh.faults.add(Fault("query", number=2, kind="html"))
    rh.faults.add(Fault("download", number=1, kind="cut"))
    rh.faults.add(Fault("upload", number=1, kind="503"))
    rh.faults.add(Fault("webhook", number=1, kind="forged"))


def test_no_secret_is_found_anywhere(
    stage: FilmRun, server: PrefectServer, hidden: Secrets, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    script(stage.rh)
    asyncio.run(save_blocks(stage.rh, hidden, bucket, s3))
    locked = stage.rh.workflows.add(TEXT_TO_IMAGE, password=hidden.password)
    show = Show(stage, locked, {"locked": locked, "graph": json.loads(json.dumps(TEXT_TO_IMAGE))})
    stage.flow_processes.spare(2)

    everything = show.everything(str(samples.png(tmp_path / "photo.png")))
    batch = show.batch()
    told = told_by(everything)
    assert (batch.ended(), batch.wait_for("failed")["errors"][0]["type"]) == (1, "BatchIncomplete")
    crashed = {how: show.crash(how) for how in ("key", "password", "graph")}
    errors = {how: child.wait_for("failed")["errors"][0]["type"] for how, child in crashed.items()}
    assert errors == {"key": "KeyRejected", "password": "RequestRejected", "graph": "SubmissionUnknown"}
    show.cancel()
    show.rest()
    waiting = show.spool()
    show.look(told["lost"].split()[1].rstrip(":"))

    said = json.dumps([child.said for child in stage.flow_processes.children]) + show.said
    found = words_in(tmp_path) | objects_in(bucket, s3) | {"what was said": said.encode()}
    assert not broken(Evidence(words=found), secrets=hidden.all())
    # The same look finds what must be there, so it would have found a secret.
    for where, marker in {
        "what was said": "SubmissionUnknown",
        "logs/": "httpcore",
        "/prefect/results/": "/results/",
        "/prefect/server.log": "GET",
        "/prefect/prefect.db as text": "-intent-1",
        "/out/results/": "behind a password",
        "/state/spool/": waiting,
        f"{bucket}/runs/": "failed",
    }.items():
        assert stands(found, where, marker), f"{marker} should be in {where}"
    for marker in (
        "HTTP Request: POST",
        "/proxy/***/prompt",
        "Traceback",
        "KeyRejected",
        "suspend-1",
        "block_document",
    ):
        assert stands(found, "", marker), f"{marker} should be somewhere"


def told_by(child: FlowProcess) -> dict[str, str]:
    assert child.ended() == 0, child.errors()
    told: dict[str, str] = child.wait_for("done")["result"]
    assert {name: one.partition(":")[0] for name, one in told.items()} == {
        **dict.fromkeys(("uploaded", "bucket", "pooled", "workflow", "graph", "restyled"), "Result"),
        **dict.fromkeys(("lost", "lost-graph"), "SubmissionUnknown"),
        "failing": "JobFailed",
        "rejected": "KeyRejected",
        "locked": "RequestRejected",
        "broken": "RequestRejected",
    }
    return told


def words_in(folder: Path) -> dict[str, bytes]:
    """All files of a folder as they are; databases as text, too, since a long value is cut into pages there."""
    found = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for path in folder.rglob("*.db"):
        with closing(sqlite3.connect(path)) as database:
            found[f"{path} as text"] = "\n".join(database.iterdump()).encode()
    return found


def objects_in(bucket: str, s3: S3Server) -> dict[str, bytes]:
    fs = s3.filesystem()
    return {f"s3://{name}": fs.cat_file(name) for name in fs.find(bucket)}


def stands(found: Mapping[str, bytes], where: str, marker: str) -> bool:
    return any(marker.encode() in words for name, words in found.items() if where in name)
