"""`kill -9` in the middle of a batch, and the same batch again in a new flow run: no row is paid for twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from rh_prefect.emulator import Emulator
from tests.support.processes.film_run import FilmRun, staged
from tests.support.processes.flow_process import Said
from tests.support.samples import media as samples
from tests.support.servers.holding_proxy import Proxy
from tests.support.servers.prefect_server import PrefectServer

pytestmark = [pytest.mark.long, pytest.mark.prefect]

BATCH, ROWS = "rh_prefect.flows:batch", 40


@pytest.fixture
def stage(prefect_server: PrefectServer, prefect_proxy: Proxy, tmp_path: Path) -> Iterator[FilmRun]:
    with (
        Emulator(clock="polls", polls=3, limit=8, long_side=96, fps=6) as rh,
        staged(prefect_server, prefect_proxy, rh, tmp_path) as made,
    ):
        made.is_shared = True
        yield made


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
        assert {step["jobs"] for step in stage.report() if step["error"] == "SubmissionUnknown"} == unknown
        stage.settle(unknown)
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
