"""Prefect blocks for RunningHub accounts and for storage. Prefect finds these blocks through `prefect.collections`."""

from __future__ import annotations

from rh_prefect.blocks.credentials import RunningHubCredentials, RunningHubPool
from rh_prefect.blocks.storage import MediaStorage

__all__ = ["MediaStorage", "RunningHubCredentials", "RunningHubPool"]
