"""RunningHub's platform as tasks: what lives on its site is run, and whatever can be asked of it is asked."""

from rh_prefect.tasks.platform.account import account_status, list_api_keys, list_resources, queue_status
from rh_prefect.tasks.platform.assets import (
    create_asset_group,
    delete_asset,
    delete_asset_group,
    list_asset_groups,
    list_assets,
    query_asset,
    query_asset_group,
    register_asset,
    update_asset,
    update_asset_group,
)
from rh_prefect.tasks.platform.comfyui import run_graph
from rh_prefect.tasks.platform.prices import price_preview
from rh_prefect.tasks.platform.runs import JobOptions, quick_create, run_app, run_workflow
from rh_prefect.tasks.platform.task_status import cancel_task, query_task, task_outputs_v1, task_status_v1
from rh_prefect.tasks.platform.uploads import upload_file, upload_file_legacy, upload_lora
from rh_prefect.tasks.platform.webhooks import resend_webhook, webhook_detail
from rh_prefect.tasks.platform.workflows import app_call_example, list_apps, quick_create_styles, workflow_json

__all__ = [
    "JobOptions",
    "account_status",
    "app_call_example",
    "cancel_task",
    "create_asset_group",
    "delete_asset",
    "delete_asset_group",
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
