"""Prefect's job blocks: a workflow, an app or a model, saved with its defaults and started by name.

They are in a layer above the tasks, whose code they use to start jobs.
"""

from __future__ import annotations

from rh_prefect.job_blocks.blocks import RunningHubApp, RunningHubModel, RunningHubWorkflow
from rh_prefect.job_blocks.job_handle import RunningHubJobRun

__all__ = ["RunningHubApp", "RunningHubJobRun", "RunningHubModel", "RunningHubWorkflow"]
