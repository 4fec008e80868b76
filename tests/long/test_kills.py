"""`kill -9` at twenty points of a film, spread over its run: what was paid for is never paid for again.

After each kill the same flow run is run again in a new process until it completes. Then the emulator's books are
looked at: as many tasks are paid for as there are jobs. Where the kill fell between a POST and its record, nobody can
know; the run says so, and what a person finds in RunningHub's call log settles it.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.emulator import Fault
from rh_prefect.emulator.faults import Route
from rh_prefect.media.media import Media
from tests.support.processes.film_run import JOBS, MOTION, PICTURE, SPEECH, UPSCALE, FilmRun, OpenStage
from tests.support.processes.flow_process import FlowProcess
from tests.support.samples import media as samples
from tests.support.servers.holding_proxy import Proxy
from tests.support.servers.s3 import S3Server
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.prefect]
CLIP = "tests.support.processes.composed_film:upscaled_clip"

CHANGES = 4 * sum(JOBS.values()) + 4
"""What an undisturbed film says: submitted, running, collecting, succeeded; and four uploads."""

OTHERS = {PICTURE: 5, MOTION: 6, UPSCALE: 7, SPEECH: 7}
"""How many jobs succeed while one of such a job is held: all but it and what waits for it."""

POLLED: dict[str, Any] = {"clock": "polls", "polls": 3}


@pytest.fixture
def stage(open_stage: OpenStage) -> FilmRun:
    return open_stage(**POLLED)


def hold(stage: FilmRun, on: Route, endpoint: str | None = None, *, succeeded: int | None = None) -> FlowProcess:
    """Begins a film of which one request is accepted and not answered, and waits until all else has come to rest."""
    stage.rh.faults.add(Fault(on, endpoint=endpoint, number=1, kind="hold", seconds=120))
    child = stage.begin()
    assert stage.rh.held.wait(seconds=300)
    child.wait_until_heard("job", succeeded or OTHERS[endpoint or ""], state="succeeded")
    return child


def then_hold(stage: FilmRun, child: FlowProcess, pattern: str, *, answer: bool = False) -> None:
    """Lets the held request of a film be answered, and waits until a request of Prefect's is held in its place."""
    held = stage.proxy.hold(f'"rh-log-[0-9]+".*[0-9a-f]-{pattern}', answer=answer)
    stage.rh.held.release()
    stage.until_held(held, child)


def finish(stage: FilmRun, child: FlowProcess, *, unknown: int | None = 0, machine_is_lost: bool = False) -> None:
    """Kills the film, and finishes it: so many jobs are unknown, None if that depends on chance."""
    found = stage.kill(child, machine_is_lost=machine_is_lost)
    assert unknown is None or len(found) == unknown
    stage.check(stage.finish(found))


@pytest.mark.parametrize("endpoint", [PICTURE, UPSCALE])
def test_after_a_post_was_accepted_and_before_its_answer(stage: FilmRun, endpoint: str) -> None:
    finish(stage, hold(stage, "submit", endpoint), unknown=1)


@pytest.mark.parametrize("machine_is_lost", [False, True])
def test_between_the_answer_and_its_record(stage: FilmRun, *, machine_is_lost: bool) -> None:
    # One entry of the log is written at a time, so all others must have been written.
    child = hold(stage, "submit", MOTION)
    then_hold(stage, child, "answer-")
    finish(stage, child, unknown=int(machine_is_lost), machine_is_lost=machine_is_lost)


def test_after_the_claim_and_before_the_post(stage: FilmRun) -> None:
    child = hold(stage, "query", MOTION)
    then_hold(stage, child, f"intent-.*{UPSCALE}", answer=True)
    assert len(stage.rh.recorder.paid) == 7
    finish(stage, child, unknown=1)


def test_before_the_claim_is_recorded(stage: FilmRun) -> None:
    child = hold(stage, "query", PICTURE)
    then_hold(stage, child, f"intent-.*{MOTION}")
    finish(stage, child)


def test_while_polling(stage: FilmRun) -> None:
    finish(stage, hold(stage, "query", UPSCALE))


def test_before_the_end_is_recorded(stage: FilmRun) -> None:
    held = stage.proxy.hold('"rh-log-[0-9]+".*[0-9a-f]-end-', number=3)
    child = stage.begin()
    stage.until_held(held, child)
    finish(stage, child, unknown=None)


def test_in_the_middle_of_a_download(stage: FilmRun) -> None:
    stage.rh.faults.add(Fault("download", endpoint=MOTION, number=1, kind="stall"))
    child = stage.begin()
    # The other shot's three, speech and music, and the picture.
    child.wait_until_heard("job", 6, state="succeeded")
    finish(stage, child)


def test_a_large_download_is_taken_up_where_it_stopped(open_stage: OpenStage, tmp_path: Path) -> None:
    size, photo = 3_000_000, samples.png(tmp_path / "photo.png")
    stage = open_stage(least_bytes=size, **POLLED)
    stage.rh.faults.add(Fault("download", endpoint=UPSCALE, number=1, kind="stall", at=0.9))
    asked = {"image": str(photo), "prompt": "waves"}
    child = stage.begin(CLIP, asked, spares=1)
    task_id = child.wait_for("job", state="collecting", label="clip")["task_id"]
    parts = Path(stage.env["RH_STATE_DIR"]) / "parts"
    wait_until(lambda: any(part.stat().st_size > 0.6 * size for part in parts.glob(f"{task_id}-*.part")))
    assert not stage.kill(child)
    done = stage.finish(set(), CLIP)
    assert len(stage.rh.recorder.paid) == 2
    fetched = [one for one in stage.rh.recorder.downloads if one.status == 206]
    assert [one.task_id for one in fetched] == [task_id] == [done["result"]["task_id"]]
    assert stage.rh.recorder.served(task_id) < 1.5 * size
    assert Media.model_validate(done["result"]["outputs"][0]).seconds == pytest.approx(5, abs=0.2)


def test_between_a_published_file_and_its_result(open_stage: OpenStage, s3: S3Server) -> None:
    with Proxy(s3.endpoint) as s3_proxy:
        options = {**s3.options, "endpoint_url": s3_proxy.url}
        env = {"RH_STORAGE_URL": s3.url("films"), "RH_STORAGE_OPTIONS": json.dumps(options)}
        stage = open_stage(env=env, **POLLED)
        held = s3_proxy.hold("^PUT .*/results/", number=6)
        child = stage.begin()
        stage.until_held(held, child)
        child.wait_until_heard("job", 5, state="succeeded")
        before = {one.task_id for one in stage.rh.recorder.downloads}
        unknown = stage.kill(child)
        s3_proxy.drop()
        assert len(before) > 5
        stage.check(stage.finish(unknown))


def test_while_the_film_is_cut(stage: FilmRun) -> None:
    child = stage.begin()
    scratch = Path(stage.env["TMPDIR"])
    wait_until(lambda: list(scratch.glob("rh-edit-*/*")))
    assert len(stage.rh.recorder.paid) == sum(JOBS.values())
    finish(stage, child)


def test_during_an_upload(stage: FilmRun) -> None:
    finish(stage, hold(stage, "upload", succeeded=OTHERS[MOTION]))


def test_while_it_waits_for_a_slot(stage: FilmRun) -> None:
    stage.rh.faults.add(Fault("submit", endpoint=MOTION, times=4, kind="code", code="421"))
    child = stage.begin()
    child.wait_for("job", state="waiting")
    finish(stage, child, unknown=None)
    assert {one.code for one in stage.rh.recorder.submissions if not one.accepted} == {"421"}


def test_while_the_dead_process_holds_the_only_slot(open_stage: OpenStage) -> None:
    stage = open_stage(limit=1, **POLLED)
    child = stage.begin()
    child.wait_for("job", state="submitted")
    finish(stage, child, unknown=None)


def test_again_and_again(stage: FilmRun) -> None:
    faults = [Fault(on, endpoint=UPSCALE, number=1, kind="hold", seconds=120) for on in ("query", "download")]
    stage.rh.faults.add(Fault("upload", number=1, kind="hold", seconds=120))
    child = stage.begin(spares=3)
    for succeeded in (6, 7, 7):
        assert stage.rh.held.wait(seconds=300)
        child.wait_until_heard("job", succeeded, state="succeeded")
        assert not stage.kill(child)
        stage.rh.faults.clear()
        stage.rh.faults.add(*faults[:1])
        del faults[:1]
        child = stage.again()
    assert child.ended() == 0, child.errors()
    stage.check(child.wait_for("done"))


@pytest.mark.parametrize("seed", range(4))
def test_somewhere(stage: FilmRun, seed: int) -> None:
    drawn = random.Random(seed)
    # Measured in what the film has come to, not in seconds: a busy machine is killed at the same points.
    change, delay = drawn.randrange(seed * CHANGES // 4, (seed + 1) * CHANGES // 4), drawn.uniform(0, 0.05)
    child = stage.begin()
    child.wait_until_heard("job", change)
    time.sleep(delay)
    finish(stage, child, unknown=None)
