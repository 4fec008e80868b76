"""Graphs on ComfyUI's own API: paid for once, whatever happens, with their files in the store."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect.futures import PrefectConcurrentFuture

from rh_prefect import flow, generate, tasks
from rh_prefect.emulator import Emulator
from rh_prefect.emulator.comfy.workflows import RESTYLE, TEXT_TO_IMAGE
from rh_prefect.errors import InputError, JobCancelled
from rh_prefect.flow_runs import progress_observer
from rh_prefect.workflow_inputs import GraphInput
from rh_prefect.works.result import Result
from tests.support.samples import media as samples
from tests.support.waiting import until
from tests.support.world.as_task import make

FUTURE: PrefectConcurrentFuture[object] = PrefectConcurrentFuture(uuid4(), Future())
"""What `.submit` returns, before its task has run."""


def restyle(image: object) -> dict[str, Any]:
    """A graph that loads this picture."""
    graph: dict[str, Any] = copy.deepcopy(RESTYLE)
    graph["10"]["inputs"]["image"] = image
    return graph


async def run(graph: Mapping[str, Any] = TEXT_TO_IMAGE, nodes: Mapping[str, object] = {}, **options: Any) -> Result:
    return await make(GraphInput(graph=graph, nodes=nodes), **options)


@pytest.mark.prefect
async def test_a_graph_runs_as_a_task_of_a_flow(rh: Emulator) -> None:
    @flow
    async def draw() -> Result:
        return await generate(GraphInput(graph=TEXT_TO_IMAGE, nodes={"6.text": "a pier"}, seed=7), label="pier")

    result = await draw()
    assert result.first_output.kind == "image"
    assert Path(result.first_output.uri).name.startswith("pier-")
    assert result.task_id.startswith("proxy.")
    assert (result.model, result.endpoint, result.cost) == ("graph/proxy", "/proxy", None)
    [task] = rh.recorder.tasks
    assert (task.endpoint, task.charged > 0) == ("/proxy", True)


async def test_files_are_uploaded_to_the_machine(rh: Emulator, tmp_path: Path) -> None:
    photo = samples.png(tmp_path / "photo.png")
    first = await run(restyle(photo))
    second = await run(RESTYLE, {"10.image": first}, label="again")
    third = await run(restyle("no-such-file.png"), {"10.image": photo}, label="third")
    assert [one.first_output.kind for one in (first, second, third)] == ["image"] * 3
    sent = [request.path for request in rh.recorder.requests if "upload" in request.path]
    assert sent == ["/proxy/<main>/upload/image"] * 2  # one for each content


async def test_the_key_is_nowhere(rh: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    result = await run()
    assert rh.key not in repr(result)
    assert rh.key not in caplog.text
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert not any(rh.key.encode() in data for data in written)


@pytest.mark.parametrize(
    ("given", "nodes", "said"),
    [
        ({"nodes": [], "links": []}, {}, r"'nodes' is not a node in API format.*Export \(API\)"),
        ({"6": {"class_type": "X"}}, {}, "'6' is not a node in API format"),
        (TEXT_TO_IMAGE, {"66.text": "x"}, "the graph has no node '66'"),
        (restyle(FUTURE), {}, r"10.image.*whose result is not available yet.*`.result\(\)`"),
    ],
)
async def test_wrong_input_is_refused_before_anything_is_sent(
    rh: Emulator, given: Mapping[str, Any], nodes: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        await run(given, nodes)
    with pytest.raises(InputError, match="machine"):
        GraphInput(graph=TEXT_TO_IMAGE, machine="proxy-ultra")
    assert not rh.recorder.requests


async def test_a_graph_that_is_cancelled_on_the_machine_is_cancelled(rh: Emulator) -> None:
    rh.clock.mode, rh.clock.polls = "polls", 99
    told: list[str] = []
    progress_observer.listeners.append(take := lambda event: told.append(event.task_id or ""))
    waiting = asyncio.ensure_future(run())
    await until(lambda: any(told))
    task_id = next(filter(None, told))
    await until(lambda: sum("/history/" in request.path for request in rh.recorder.requests) > 3)
    assert (await tasks.query_task.fn(task_id)).status == "RUNNING"
    await tasks.cancel_task.fn(task_id)
    with pytest.raises(JobCancelled):
        await waiting
    progress_observer.listeners.remove(take)
    assert (await tasks.query_task.fn(task_id)).status == "CANCELLED"
    assert rh.recorder.tasks[0].status == "CANCELLED"
