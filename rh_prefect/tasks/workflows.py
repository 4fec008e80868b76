"""Paid runs of workflows, AI apps, modules of quick create and whole graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack

from pydantic import SecretStr

from rh_prefect.tasks.generate import paid_task, run_job
from rh_prefect.workflows import AppInput, GraphInput, InstanceType, QuickCreateInput, WorkflowInput
from rh_prefect.works.options import JobOptions, Options
from rh_prefect.works.outputs.result import Result


@paid_task(run_name="workflow {workflow_id}")
async def run_workflow(
    workflow_id: str,
    nodes: Mapping[str, Any] | None = None,
    *,
    seed: int | None = None,
    instance_type: InstanceType = "default",
    retain_seconds: int | None = None,
    use_personal_queue: bool = False,
    workflow: dict[str, Any] | None = None,
    add_metadata: bool = True,
    access_password: str | None = None,
    scope: str | None = None,
    **options: Unpack[JobOptions],
) -> Result:
    """Runs a saved ComfyUI workflow, pays for it once, and saves its outputs in your storage.

    Args:
        workflow_id: RunningHub's id of the workflow.
        nodes: `<node id>.<field>` -> value, as in `{"6.text": "a lighthouse", "10.image": photo}`; each is checked
            against the saved graph before anything is sent.
        seed: Sets every seed that `nodes` does not set.
        instance_type: `default` (24 GB), `plus` (48 GB) or `ultra`.
        retain_seconds: How long the machine is kept warm, 10 to 180; it costs.
        use_personal_queue: Queue when the account's own machines are busy.
        workflow: A whole API-format graph to run in place of the saved one.
        add_metadata: Whether pictures carry the graph in their metadata.
        access_password: Of an encrypted workflow; it reaches no record of ours.
        scope: Outside of flows: the name under which the job is remembered.
        **options: As of `generate`.

    Returns:
        The outputs of all save nodes, in the storage.

    Raises:
        InputError: A node or field does not exist, or is fed by another node; nothing was sent.
        JobFailed: The workflow failed; names the node and its exception.
        RunningHubError: Everything else; see `rh_prefect.errors`.
    """
    request = WorkflowInput(
        id=workflow_id,
        nodes=dict(nodes or {}),
        seed=seed,
        instance_type=instance_type,
        retain_seconds=retain_seconds,
        use_personal_queue=use_personal_queue,
        workflow=workflow,
        add_metadata=add_metadata,
        access_password=None if access_password is None else SecretStr(access_password),
    )
    return await run_job(request, Options(**options), scope=scope)


@paid_task(run_name="app {webapp_id}")
async def run_app(
    webapp_id: str,
    nodes: Mapping[str, Any] | None = None,
    *,
    seed: int | None = None,
    instance_type: InstanceType = "default",
    retain_seconds: int | None = None,
    use_personal_queue: bool = False,
    access_password: str | None = None,
    scope: str | None = None,
    **options: Unpack[JobOptions],
) -> Result:
    """Runs an AI app, pays for it once, and saves its outputs in your storage.

    Args:
        webapp_id: RunningHub's id of the app.
        nodes: `<node id>.<field>` -> value; `app_call_example` lists what an app takes.
        seed: Sets every seed that the app shows and `nodes` does not set.
        instance_type: `default` (24 GB), `plus` (48 GB) or `ultra`.
        retain_seconds: How long the machine is kept warm, 10 to 180; it costs.
        use_personal_queue: Queue when the account's own machines are busy.
        access_password: Of an encrypted app; it reaches no record of ours.
        scope: Outside of flows: the name under which the job is remembered.
        **options: As of `generate`.

    Returns:
        The outputs, in the storage.

    Raises:
        InputError: A field does not exist, or its value is none of its options; nothing was sent.
        RunningHubError: Everything else; see `rh_prefect.errors`.
    """
    request = AppInput(
        id=webapp_id,
        nodes=dict(nodes or {}),
        seed=seed,
        instance_type=instance_type,
        retain_seconds=retain_seconds,
        use_personal_queue=use_personal_queue,
        access_password=None if access_password is None else SecretStr(access_password),
    )
    return await run_job(request, Options(**options), scope=scope)


@paid_task(run_name="quick create {webapp_id}/{code}")
async def quick_create(
    webapp_id: str,
    code: str,
    nodes: Sequence[Mapping[str, Any]],
    *,
    scope: str | None = None,
    **options: Unpack[JobOptions],
) -> Result:
    """Runs a module of the site's quick create, pays for it once, and saves its outputs in your storage.

    Args:
        webapp_id: The module's id.
        code: Its `quickCreateCode`, as its page shows it.
        nodes: Its `nodeInfoList`, as its page shows it.
        scope: Outside of flows: the name under which the job is remembered.
        **options: As of `generate`.

    Returns:
        The outputs, in the storage.
    """
    request = QuickCreateInput(id=webapp_id, code=code, nodes=tuple(dict(node) for node in nodes))
    return await run_job(request, Options(**options), scope=scope)


@paid_task(run_name="graph on {machine}")
async def run_graph(
    graph: Mapping[str, Any],
    nodes: Mapping[str, Any] | None = None,
    *,
    seed: int | None = None,
    machine: Literal["proxy", "proxy-plus"] = "proxy",
    scope: str | None = None,
    **options: Unpack[JobOptions],
) -> Result:
    """Runs a graph as on your own ComfyUI, pays for it once, and saves its files in your storage.

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
        InputError: This is not a graph in API format, or a node or field does not exist; nothing was sent.
        RequestRejected: ComfyUI says that the graph is not valid; the message names the nodes.
        SubmissionUnknown: The answer to the submit was lost. There is no call log of these runs: look at ComfyUI's own
            history on the machine.
        RunningHubError: Everything else; see `rh_prefect.errors`.
    """
    request = GraphInput(graph=dict(graph), nodes=dict(nodes or {}), seed=seed, machine=machine)
    return await run_job(request, Options(**options), scope=scope)
