"""Whether the caller runs in a deployment, where inputs are restricted."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from rh_prefect.flow_runs.prefect_internals import is_deployed
from rh_prefect.media.input_access_policy import current_access


def context_of(flow_run: FlowRun) -> FlowRunContext:
    context: Any = FlowRunContext
    made: FlowRunContext = context.model_construct(flow_run=flow_run)
    return made


def test_a_flow_run_of_a_deployment_restricts_its_inputs_and_those_of_its_children() -> None:
    """A deployment's run, and each child flow in it, reads restricted inputs."""
    deployed = FlowRun(flow_id=uuid4(), deployment_id=uuid4())
    child = FlowRun(flow_id=uuid4(), parent_task_run_id=uuid4())
    assert not current_access().is_restricted
    with context_of(deployed):
        assert current_access().is_restricted
        with context_of(child):
            assert is_deployed()
    with context_of(child):
        assert not is_deployed()


def test_a_process_that_a_runner_has_started_restricts_its_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in a process of a worker, whatever its context says."""
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(uuid4()))
    assert current_access().is_restricted
