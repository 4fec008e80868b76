"""Receives RunningHub's webhooks, verifies each with a query, and notifies the waiting jobs."""

from __future__ import annotations

from rh_prefect.webhook.server import create_app, serve

__all__ = ["create_app", "serve"]
