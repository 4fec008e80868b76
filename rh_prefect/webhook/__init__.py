"""Receives RunningHub's webhooks, verifies each with a query, and notifies the waiting jobs."""

from __future__ import annotations

from rh_prefect.webhook.app import create_app
from rh_prefect.webhook.server import serve

__all__ = ["create_app", "serve"]
