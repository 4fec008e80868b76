"""A whole graph on ComfyUI's own API: no saved workflow, and no record of what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Unpack

from rh_prefect.jobs.options import Options
from rh_prefect.jobs.outputs.result import Result
from rh_prefect.tasks.generate import run_job
from rh_prefect.tasks.platform.base import paid
from rh_prefect.tasks.platform.runs import JobOptions
from rh_prefect.workflows import GraphInput


@paid("graph on {machine}")
async def run_graph(
    graph: Mapping[str, Any],
    nodes: Mapping[str, Any] | None = None,
    *,
    seed: int | None = None,
    machine: Literal["proxy", "proxy-plus"] = "proxy",
    scope: str | None = None,
    **options: Unpack[JobOptions],
) -> Result:
    """Runs a graph as on a ComfyUI of one's own, pays for it once, and brings its files into your storage.

    RunningHub tells no price of such runs, before or after: the result has no cost, and a budget refuses them.

    Args:
        graph: In ComfyUI's API format; a value in it may be a `Media`, a `Path` or the result of another job.
        nodes: `<node id>.<field>` -> value, set in the graph; files are uploaded to the machine.
        seed: Sets every seed of the graph that `nodes` does not set; by default they stay as they are.
        machine: `proxy` has a 24 GB card, `proxy-plus` 48 GB.
        scope: Outside of flows: the name under which the job is remembered.
        **options: As of `generate`.

    Returns:
        What the graph's nodes saved, in the storage.

    Raises:
        InputError: This is no graph in API format, or a node or field does not exist; nothing was sent.
        RequestRejected: ComfyUI says that the graph is not valid; the message names the nodes.
        SubmissionUnknown: The answer to the submit was lost. There is no call log of these runs: look at ComfyUI's own
            history on the machine.
        RunningHubError: Everything else; see `rh_prefect.errors`.
    """
    asked = GraphInput(graph=dict(graph), nodes=dict(nodes or {}), seed=seed, machine=machine)
    return await run_job(asked, Options(**options), scope=scope)
