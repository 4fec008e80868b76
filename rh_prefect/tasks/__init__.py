"""Prefect tasks: paid jobs, one or many, the calls of RunningHub's platform, and the editing of a film."""

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
        list_api_keys,
        list_apps,
        list_resources,
        query_task,
        queue_status,
        quick_create_styles,
        resend_webhook,
        task_outputs_v1,
        task_status_v1,
        webhook_detail,
        workflow_json,
    )
    from rh_prefect.tasks.uploads_and_assets import (
        create_asset_group,
        delete_asset,
        delete_asset_group,
        list_asset_groups,
        list_assets,
        price_preview,
        query_asset,
        query_asset_group,
        register_asset,
        update_asset,
        update_asset_group,
        upload_file,
        upload_file_legacy,
        upload_lora,
    )
    from rh_prefect.tasks.workflows import (
        quick_create,
        run_app,
        run_graph,
        run_workflow,
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
        homes = ("platform", "uploads_and_assets", "workflows")
        modules = (import_module(f"rh_prefect.tasks.{home}") for home in homes)
        value = globals()[name] = next(getattr(module, name) for module in modules if hasattr(module, name))
        return value


def __dir__() -> list[str]:
    return __all__
