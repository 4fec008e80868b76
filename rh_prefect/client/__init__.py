"""Talks to RunningHub over HTTP: one async client, frozen values, and only our own errors."""

from __future__ import annotations

from rh_prefect.client.api import DEFAULT_BASE_URL, Client
from rh_prefect.client.download import discard_partial
from rh_prefect.client.wire import (
    Account,
    Download,
    Failure,
    PricePreview,
    QueueStatus,
    RemoteOutput,
    TaskStatus,
    TaskView,
    Upload,
    Usage,
)

__all__ = [
    "DEFAULT_BASE_URL",
    "Account",
    "Client",
    "Download",
    "Failure",
    "PricePreview",
    "QueueStatus",
    "RemoteOutput",
    "TaskStatus",
    "TaskView",
    "Upload",
    "Usage",
    "discard_partial",
]
