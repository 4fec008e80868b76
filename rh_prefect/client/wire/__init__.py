"""What RunningHub's answers hold, as frozen values, and the readers that make them from JSON.

The readers are total: a field that is missing, null or of another type than documented becomes an empty value, never an
exception. Whether an answer stands for an error is decided in `rh_prefect.client.answers`. "api.md" is the fact sheet
on the API, `shared/runninghub/api.md`.
"""

from __future__ import annotations

from rh_prefect.client.wire.account import (
    Account,
    Download,
    PricePreview,
    QueueStatus,
    Upload,
    read_account,
    read_price,
    read_queue_status,
    read_upload,
)
from rh_prefect.client.wire.apps import (
    App,
    AppListing,
    AppNode,
    AppOption,
    Style,
    StyleLora,
    read_app,
    read_app_page,
    read_styles,
)
from rh_prefect.client.wire.assets import (
    Asset,
    AssetGroup,
    AssetKind,
    read_asset,
    read_asset_page,
    read_group,
    read_group_page,
)
from rh_prefect.client.wire.comfy import (
    ComfyFile,
    ComfyPrompt,
    ComfyQueue,
    ComfyRun,
    read_comfy_file,
    read_comfy_prompt,
    read_comfy_queue,
    read_comfy_run,
)
from rh_prefect.client.wire.events import WebhookDelivery, WebhookEvent, read_webhook_event
from rh_prefect.client.wire.platform import ApiKey, Resource, ResourceVersion, read_api_keys, read_resource_page
from rh_prefect.client.wire.task import (
    Failure,
    RemoteOutput,
    TaskStatus,
    TaskView,
    Usage,
    read_failure,
    read_item_usage,
    read_node_errors,
    read_outputs,
    read_progress_url,
    read_status,
    read_task,
    read_task_id,
    read_usage,
)
from rh_prefect.client.wire.value import Page, Value

__all__ = [
    "Account",
    "ApiKey",
    "App",
    "AppListing",
    "AppNode",
    "AppOption",
    "Asset",
    "AssetGroup",
    "AssetKind",
    "ComfyFile",
    "ComfyPrompt",
    "ComfyQueue",
    "ComfyRun",
    "Download",
    "Failure",
    "Page",
    "PricePreview",
    "QueueStatus",
    "RemoteOutput",
    "Resource",
    "ResourceVersion",
    "Style",
    "StyleLora",
    "TaskStatus",
    "TaskView",
    "Upload",
    "Usage",
    "Value",
    "WebhookDelivery",
    "WebhookEvent",
    "read_account",
    "read_api_keys",
    "read_app",
    "read_app_page",
    "read_asset",
    "read_asset_page",
    "read_comfy_file",
    "read_comfy_prompt",
    "read_comfy_queue",
    "read_comfy_run",
    "read_failure",
    "read_group",
    "read_group_page",
    "read_item_usage",
    "read_node_errors",
    "read_outputs",
    "read_price",
    "read_progress_url",
    "read_queue_status",
    "read_resource_page",
    "read_status",
    "read_styles",
    "read_task",
    "read_task_id",
    "read_upload",
    "read_usage",
    "read_webhook_event",
]
