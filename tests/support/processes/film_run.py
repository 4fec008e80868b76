"""A film that is generated, killed and resumed: the servers, the processes, and the expected records afterwards."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from rh_prefect.emulator import Emulator
from rh_prefect.flow_runs.journal import FlowRunJournal
from rh_prefect.media.store import MediaStore
from rh_prefect.works.journal.job_records_and_state import JobView, jobs_of
from rh_prefect.works.journal.journal import Journal
from rh_prefect.works.journal.spool import Spool
from rh_prefect.works.journal.works_journal import WorksJournal
from tests.support.processes.flow_process import FlowProcess, FlowProcesses, Said, flow_processes
from tests.support.samples.clip_samples import play
from tests.support.servers.emulator_env import environment
from tests.support.servers.holding_proxy import Hold, Proxy
from tests.support.servers.prefect_server import PrefectServer
from tests.support.waiting import wait_until
from tests.support.world.call_log import request_of, settle

FILM = "tests.support.processes.composed_film:film"
ASKED = {"prompt": "a lighthouse", "shots": 2, "narration": "A light."}
PICTURE, MOTION, UPSCALE, SPEECH, MUSIC = (
    "rhart-image/z-image/turbo",
    "kling-v2.6-pro/image-to-video",
    "rhart-video/video-upscaler",
    "rhart-audio/text-to-audio/speech-2.8-hd",
    "rhart-audio/suno-v5.5/single",
)
JOBS = {PICTURE: 2, MOTION: 2, UPSCALE: 2, SPEECH: 1, MUSIC: 1}
"""What a film of two shots pays for, by endpoint."""


@dataclass
class FilmRun:
    """One test's film."""

    rh: Emulator
    proxy: Proxy  # between the children and the Prefect server
    folder: Path
    flow_processes: FlowProcesses
    store: MediaStore  # where the films go
    run: str = ""
    is_shared: bool = False  # whether its jobs are works that runs share, as those of a batch
    published: frozenset[str] = frozenset()  # files that were in the store when the child was killed
    fetched: Mapping[str, int] | None = None  # downloads of each task by then

    @property
    def env(self) -> dict[str, str]:
        return self.flow_processes.env

    def begin(
        self, flow: str = FILM, parameters: Mapping[str, object] | None = None, *, spares: int = 2
    ) -> FlowProcess:
        """Starts the first child, and has others ready that will run the flow again."""
        self.flow_processes.spare(spares)
        child = self.flow_processes.run(flow, parameters=dict(ASKED if parameters is None else parameters))
        self.run = child.wait_for("run")["id"]
        return child

    def until_held(self, hold: Hold, child: FlowProcess) -> None:
        """Blocks until the proxy holds what it is to hold; fails at once where the child ends before."""
        wait_until(lambda: hold.held or not child.is_running, seconds=300)
        assert hold.held, f"{child.said[-3:]} {child.errors()}"

    def kill(self, child: FlowProcess, *, machine_is_lost: bool = False) -> set[str]:
        """Kills the child and looks around."""
        assert child.is_running, f"it ended before it was killed: {child.said[-1]}"
        child.kill()
        self.proxy.drop()
        self.rh.held.release()
        # What had left the dead process may still be under way to its server.
        time.sleep(0.3)
        self.published = frozenset(map(self.store.uri, self.store.list()))
        self.fetched = Counter(one.task_id for one in self.rh.recorder.downloads)
        if machine_is_lost:
            shutil.rmtree(self.env["RH_STATE_DIR"])
        spooled = {one.key for one in Spool(Path(self.env["RH_STATE_DIR"]) / "spool").entries()}
        run = self.journal.scope
        return {f"{run}/{view.key}" for view in self.jobs() if view.state == "open" and view.key not in spooled}

    @property
    def journal(self) -> Journal:
        return WorksJournal(self.store.url) if self.is_shared else FlowRunJournal(self.run)

    def report(self) -> list[dict[str, str]]:
        newest = max((Path(self.store.url) / "runs").glob("*/report.csv"), key=lambda file: file.stat().st_mtime)
        return list(csv.DictReader(io.StringIO(newest.read_text())))

    def jobs(self) -> list[JobView]:
        async def read() -> list[JobView]:
            return [view async for view in jobs_of(self.journal)]

        return asyncio.run(read())

    def again(self, flow: str = FILM) -> FlowProcess:
        return self.flow_processes.run(flow, run=self.run)

    def finish(self, unknown: set[str], flow: str = FILM) -> Said:
        """Runs it again until it completes, and settles what nobody can know as a person would."""
        child = self.again(flow)
        if unknown:
            assert child.ended() == 1
            errors = child.wait_for("failed")["errors"]
            assert {one["type"] for one in errors} == {"SubmissionUnknown"}
            assert {one["job"] for one in errors} == unknown
            assert all(f"jobs adopt {one['job']}" in one["message"] for one in errors)
            assert asyncio.run(settle(self.rh, self.journal)) == len(unknown)
            child = self.again(flow)
        assert child.ended() == 0, f"{child.heard('failed')} {child.errors()}"
        done: Said = child.wait_for("done")
        return done

    def check(self, done: Said, *, jobs: Mapping[str, int] = JOBS) -> None:
        """Looks at the books, the store and the film."""
        paid = self.rh.recorder.paid
        assert Counter(one.endpoint for one in paid) == Counter(jobs)
        twice = Counter(map(request_of, paid))
        assert set(twice.values()) == {1}, twice
        steps: list[dict[str, Any]] = done["result"]["steps"]
        assert {step["task_id"] for step in steps} == {one.task_id for one in paid}
        self._check_fetched_once(steps)
        self._check_film(done["result"])

    def _check_fetched_once(self, steps: list[dict[str, Any]]) -> None:
        now = Counter(one.task_id for one in self.rh.recorder.downloads)
        for step in steps:
            if step["record"] in self.published:
                before = (self.fetched or {}).get(step["task_id"], 0)
                assert now[step["task_id"]] == before, f"{step['label']} was stored and is fetched again"

    def _check_film(self, result: dict[str, Any]) -> None:
        played = play(self.local(result["film"]["uri"]))
        assert played.codecs == ("h264", "aac")
        assert 9.5 < played.seconds < 10.5
        assert len(played.frames) > 40
        assert self.local(result["contact_sheet"]["uri"]).read_bytes()[:2] == b"\xff\xd8"

    def local(self, uri: str) -> Path:
        name = self.store.name_of(uri)
        assert name is not None, f"{uri} is not in {self.store}"
        copy = self.folder / Path(name).name
        copy.write_bytes(self.store.read_bytes(name))
        return copy


@contextmanager
def staged(server: PrefectServer, proxy: Proxy, rh: Emulator, folder: Path, **env: str) -> Iterator[FilmRun]:
    """Sets up a stage: a folder, an environment, and no processes yet."""
    scratch = folder / "tmp"
    scratch.mkdir(parents=True)
    own = {**environment(rh, folder), "TMPDIR": str(scratch), "PREFECT_API_URL": f"{proxy.url}/api"}
    with flow_processes({**server.env, **own, **env}, folder / "logs") as children:
        options = json.loads(children.env.get("RH_STORAGE_OPTIONS", "{}"))
        try:
            yield FilmRun(rh, proxy, folder, children, MediaStore(children.env["RH_STORAGE_URL"], options=options))
        finally:
            proxy.drop()


@pytest.fixture(scope="session")
def prefect_proxy(prefect_server: PrefectServer) -> Iterator[Proxy]:
    """Stands between child processes and the session's Prefect server."""
    with Proxy(prefect_server.url) as proxy:
        yield proxy


OpenStage: TypeAlias = Callable[..., FilmRun]


@pytest.fixture
def open_stage(prefect_server: PrefectServer, prefect_proxy: Proxy, tmp_path: Path) -> Iterator[OpenStage]:
    """Opens the test's stage for an emulator, or with the options of a new one; `env` adds to the environment."""
    with ExitStack() as stack:

        def make(rh: Emulator | None = None, *, env: Mapping[str, str] | None = None, **options: Any) -> FilmRun:
            rh = rh or stack.enter_context(Emulator(**{"long_side": 96, "fps": 6, **options}))
            return stack.enter_context(staged(prefect_server, prefect_proxy, rh, tmp_path, **env or {}))

        yield make
