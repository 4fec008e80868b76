"""Prefect blocks: accounts of RunningHub, and a place for files. Prefect finds them through `prefect.collections`."""

from __future__ import annotations

from rh_prefect.blocks.credentials import RunningHubCredentials, RunningHubPool
from rh_prefect.blocks.storage import MediaStorage

__all__ = ["MediaStorage", "RunningHubCredentials", "RunningHubPool"]
