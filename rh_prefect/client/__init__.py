"""RunningHub's HTTP API: an async client with typed values and errors."""

from __future__ import annotations

from rh_prefect.client.client import DEFAULT_BASE_URL, Client, V1Submit
from rh_prefect.client.download import discard_partial
from rh_prefect.client.endpoint_groups import AppSort, ResourceKind
from rh_prefect.client.json_values import Page
from rh_prefect.client.native_comfyui import NativeSubmit
from rh_prefect.client.responses import read_delivery
from rh_prefect.client.wire.account_files_and_assets import (
    Account,
    ApiKey,
    Asset,
    AssetGroup,
    AssetKind,
    Download,
    PricePreview,
    QueueStatus,
    Resource,
    ResourceVersion,
    Upload,
)
from rh_prefect.client.wire.apps import (
    App,
    AppListing,
    AppNode,
    AppOption,
    Style,
    StyleLora,
)
from rh_prefect.client.wire.task import (
    Failure,
    RemoteOutput,
    TaskStatus,
    TaskView,
    Usage,
    WebhookDelivery,
    WebhookEvent,
    is_task_id,
)

__all__ = [
    "DEFAULT_BASE_URL",
    "Account",
    "ApiKey",
    "App",
    "AppListing",
    "AppNode",
    "AppOption",
    "AppSort",
    "Asset",
    "AssetGroup",
    "AssetKind",
    "Client",
    "Download",
    "Failure",
    "NativeSubmit",
    "Page",
    "PricePreview",
    "QueueStatus",
    "RemoteOutput",
    "Resource",
    "ResourceKind",
    "ResourceVersion",
    "Style",
    "StyleLora",
    "TaskStatus",
    "TaskView",
    "Upload",
    "Usage",
    "V1Submit",
    "WebhookDelivery",
    "WebhookEvent",
    "discard_partial",
    "is_task_id",
    "read_delivery",
]
