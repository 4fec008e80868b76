"""Receives RunningHub's webhooks, believes none of them, and notifies the jobs that wait for what a query confirms."""

from __future__ import annotations

from rh_prefect.webhook.app import create_app
from rh_prefect.webhook.server import serve

__all__ = ["create_app", "serve"]
