"""Prefect blocks for accounts of RunningHub and for storages. Prefect finds them through `prefect.collections`."""

from __future__ import annotations

from rh_prefect.blocks.credentials import RunningHubCredentials, RunningHubPool
from rh_prefect.blocks.storage import MediaStorage

__all__ = ["MediaStorage", "RunningHubCredentials", "RunningHubPool"]
