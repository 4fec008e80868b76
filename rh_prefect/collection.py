"""All block types of this package; Prefect finds them here, through the entry point `prefect.collections`."""

from __future__ import annotations

from rh_prefect.blocks import MediaStorage, RunningHubCredentials, RunningHubPool
from rh_prefect.job_blocks import RunningHubApp, RunningHubModel, RunningHubWorkflow

__all__ = [
    "MediaStorage",
    "RunningHubApp",
    "RunningHubCredentials",
    "RunningHubModel",
    "RunningHubPool",
    "RunningHubWorkflow",
]
