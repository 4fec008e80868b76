"""Prefect tasks: paid jobs, one or many, the calls of RunningHub's platform, and the editing of a film."""

from __future__ import annotations

from rh_prefect.tasks.account_and_apps import (
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
from rh_prefect.tasks.assemble import Film, assemble
from rh_prefect.tasks.concurrent import generate_many
from rh_prefect.tasks.generate import generate
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
    "quick_create_styles",
    "register_asset",
    "resend_webhook",
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
