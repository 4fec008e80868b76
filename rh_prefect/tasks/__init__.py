"""Prefect tasks: one paid job, many, the platform's endpoints, and the cutting of a film."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rh_prefect.tasks.assemble import Film, assemble
from rh_prefect.tasks.concurrent import generate_many
from rh_prefect.tasks.generate import generate

if TYPE_CHECKING:
    from rh_prefect.tasks.platform import (
        account_status,
        app_call_example,
        cancel_task,
        create_asset_group,
        delete_asset,
        delete_asset_group,
        list_api_keys,
        list_apps,
        list_asset_groups,
        list_assets,
        list_resources,
        price_preview,
        query_asset,
        query_asset_group,
        query_task,
        queue_status,
        quick_create,
        quick_create_styles,
        register_asset,
        resend_webhook,
        run_app,
        run_graph,
        run_workflow,
        task_outputs_v1,
        task_status_v1,
        update_asset,
        update_asset_group,
        upload_file,
        upload_file_legacy,
        upload_lora,
        webhook_detail,
        workflow_json,
    )

__all__ = [
    "Film",
    "account_status",
    "app_call_example",
    "assemble",
    "cancel_task",
    "create_asset_group",
    "delete_asset",
    "delete_asset_group",
    "generate",
    "generate_many",
    "list_api_keys",
    "list_apps",
    "list_asset_groups",
    "list_assets",
    "list_resources",
    "price_preview",
    "query_asset",
    "query_asset_group",
    "query_task",
    "queue_status",
    "quick_create",
    "quick_create_styles",
    "register_asset",
    "resend_webhook",
    "run_app",
    "run_graph",
    "run_workflow",
    "task_outputs_v1",
    "task_status_v1",
    "update_asset",
    "update_asset_group",
    "upload_file",
    "upload_file_legacy",
    "upload_lora",
    "webhook_detail",
    "workflow_json",
]


if not TYPE_CHECKING:  # a type checker reads the imports above, and would take any name for known otherwise

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module("rh_prefect.tasks.platform"), name)
        return value


def __dir__() -> list[str]:
    return __all__
