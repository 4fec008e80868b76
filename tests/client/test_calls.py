"""Calls that send one request: its address, its body and its key, and what is read from the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from rh_prefect.client import (
    Account,
    ApiKey,
    AppListing,
    Asset,
    AssetGroup,
    Client,
    PricePreview,
    QueueStatus,
    RemoteOutput,
    Resource,
    ResourceVersion,
    Style,
    StyleLora,
    TaskView,
    Usage,
)
from rh_prefect.client.wire.account_files_and_assets import AssetPage, GroupPage, ResourcePage
from rh_prefect.client.wire.apps import AppPage
from tests.client.conftest import KEY
from tests.support.servers.scripted_server import Step, WireServer, reply, said

TASK = "2031112223334445057"
APP = "2030000000000000002"
GROUP = "group-20260327004931-dvjbj"
ASSET = "asset-20260327004932-abcde"
EVENT = "2031112223334445099"
LINK = "https://bucket.example.net/input/a.png?q-signature=1"
OTHERS = "0123456789abcdef0123456789abcdef"
CURL = f"curl --location 'https://www.runninghub.cn/openapi/v2/run/ai-app/{APP}' -H 'Authorization: {OTHERS}'"
TOLD_GROUP = {"groupId": GROUP, "name": "cast", "description": "all of them", "assetCount": "3"}
WHOLE_GROUP = AssetGroup(group_id=GROUP, name="cast", description="all of them", assets=3)

LISTED = {
    "records": [
        {"title": "One", "description": "d", "cover": "https://img.example.net/c.png", "invokeExample": CURL},
        {"title": "Two", "invokeExample": r'curl -d "{\"webappId\": \"2030000000000000004\"}"'},
        {"title": "Three", "invokeExample": None, "webappId": 2030000000000000005},
        {"title": "without an id", "invokeExample": "curl"},
        None,
    ],
    "current": "2",
    "size": "10",
    "total": "70000",
    "pages": "7000",
    "hasNext": True,
}
APPS = (
    AppListing(webapp_id=APP, title="One", description="d", cover="https://img.example.net/c.png"),
    AppListing(webapp_id="2030000000000000004", title="Two"),
    AppListing(webapp_id="2030000000000000005", title="Three"),
)
STYLE = {
    "id": "1",
    "type": 2,
    "webappId": APP,
    "modelCategory": 1,
    "modelName": "Comic style",
    "modelKey": "input1",
    "modelPreviewUrl": "https://img.example.net/1.png",
    "content": "example prompt",
    "modelTrigger": "hand painting style",
    "modelLoar1FileName": "style_V1.safetensors",
    "modelLoar1Weight": 0.7,
    "modelLoar2FileName": None,
    "modelLoar2Weight": None,
}
READ_STYLE = Style(
    style_id="1",
    webapp_id=APP,
    kind=2,
    category=1,
    name="Comic style",
    key="input1",
    preview_url="https://img.example.net/1.png",
    prompt="example prompt",
    trigger="hand painting style",
    loras=(StyleLora(file_name="style_V1.safetensors", weight=Decimal("0.7")),),
)
VERSION = {"id": "1870000000000000002", "version": "2.0", "versionResourceName": "Sea XL 2", "posterInfos": []}
RESOURCE = {
    "id": 1870000000000000001,
    "resourceName": "Sea XL",
    "resourceType": "LORA",
    "createTime": "2026-01-02",
    "desc": "waves",
    "nodeModelName": "sea_xl_v2.safetensors",
    "posterUrl": "https://img.example.net/p.png",
    "owner": {"name": "ann", "avatar": "https://a"},
    "tags": [{"id": 7, "name": "sea"}, "water", None],
    "versions": [{**VERSION, "baseModel": "IL-XL", "triggerWords": "wave"}, None],
}
READ_RESOURCE = Resource(
    resource_id="1870000000000000001",
    name="Sea XL",
    kind="LORA",
    node_model_name="sea_xl_v2.safetensors",
    description="waves",
    owner="ann",
    tags=("sea", "water"),
    versions=(
        ResourceVersion(
            version_id=VERSION["id"], version="2.0", name="Sea XL 2", base_model="IL-XL", trigger_words="wave"
        ),
    ),
    cover="https://img.example.net/p.png",
)
KEYS = [
    {"key": "0123****cdef", "apiKeyName": "studio", "status": 1, "quotaUsed": 12.5, "createdAt": "2026-01-02 03:04:05"},
    {"key": OTHERS, "apiKeyName": None, "status": "0", "quotaLimit": "100", "expireAt": 1767225600000},
    {"key": KEY, "status": True, "quotaLimit": None, "expireAt": None, "expireInMinute": None, "visible": True},
    {"key": "short"},
    {},
]
READ_KEYS = (
    ApiKey(
        name="studio", masked="0123****cdef", enabled=True, quota_used=Decimal("12.5"), created_at="2026-01-02 03:04:05"
    ),
    ApiKey(masked="0123***cdef", quota_limit=Decimal(100), expires_at="1767225600000"),
    ApiKey(masked="***", enabled=True),
    ApiKey(masked="***"),
    ApiKey(),
)
FILE = {"fileType": "png", "taskCostTime": "83", "thirdPartyConsumeMoney": "0.14", "consumeMoney": "0.5"}


class Call(NamedTuple):
    """A call, its answer, the path and the body of its request, and what it returns; no slash: below /openapi/v2/."""

    send: Callable[[Client], Awaitable[object]]
    answer: Step
    path: str
    body: dict[str, Any] | None
    value: object


V1_TASK = {"apiKey": KEY, "taskId": TASK}
CALLS = {
    "assets.create": Call(
        lambda rh: rh.assets.create(LINK, group_id=GROUP, kind="Image", name="hero"),
        said({"assetId": ASSET, "status": "Processing"}),
        "assets/create",
        {"groupId": GROUP, "url": LINK, "assetType": "Image", "name": "hero"},
        Asset(asset_id=ASSET, status="Processing", kind="Image", name="hero", group_id=GROUP),
    ),
    "assets.query": Call(
        lambda rh: rh.assets.query(ASSET),
        said({"assetId": ASSET, "status": "Active", "previewUrl": "https://p", "assetType": "Video"}),
        "assets/query",
        {"assetId": ASSET},
        Asset(asset_id=ASSET, status="Active", kind="Video", preview_url="https://p"),
    ),
    "assets.list": Call(
        lambda rh: rh.assets.list(page=2, size=20, group_id=GROUP, status="Active", name="hero"),
        said(
            {"items": [{"assetId": ASSET, "name": "hero"}, {}, None, {"id": "2"}], "totalCount": "41", "hasNext": None}
        ),
        "assets/list",
        {"pageNumber": 2, "pageSize": 20, "groupId": GROUP, "status": "Active", "name": "hero"},
        AssetPage(items=(Asset(asset_id=ASSET, name="hero"), Asset(asset_id="2")), number=2, total=41, has_next=True),
    ),
    "assets.list, the last page": Call(
        lambda rh: rh.assets.list(page=3),
        said({"items": [], "totalCount": "41"}),
        "assets/list",
        {"pageNumber": 3, "pageSize": 20},
        AssetPage(number=3, total=41),
    ),
    "assets.update": Call(
        lambda rh: rh.assets.update(ASSET, name="villain"),
        said({"assetId": ASSET, "name": "villain", "status": "Active"}),
        "assets/update",
        {"assetId": ASSET, "name": "villain"},
        Asset(asset_id=ASSET, name="villain", status="Active"),
    ),
    "assets.update, without data": Call(
        lambda rh: rh.assets.update(ASSET, name="hero"),
        said(None),
        "assets/update",
        {"assetId": ASSET, "name": "hero"},
        Asset(asset_id=ASSET, name="hero"),
    ),
    "assets.delete": Call(lambda rh: rh.assets.delete(ASSET), said(None), "assets/delete", {"assetId": ASSET}, None),
    "assets.groups.create": Call(
        lambda rh: rh.assets.groups.create("cast", description="d"),
        said({"groupId": GROUP, "name": "cast"}),
        "assets/groups/create",
        {"name": "cast", "description": "d"},
        AssetGroup(group_id=GROUP, name="cast", description="d"),
    ),
    "assets.groups.list": Call(
        lambda rh: rh.assets.groups.list(size=100, name="cast"),
        said({"items": [TOLD_GROUP, {}], "totalCount": 1}),
        "assets/groups/list",
        {"pageNumber": 1, "pageSize": 100, "name": "cast"},
        GroupPage(items=(WHOLE_GROUP,), total=1),
    ),
    "assets.groups.query": Call(
        lambda rh: rh.assets.groups.query(GROUP),
        said(TOLD_GROUP),
        "assets/groups/query",
        {"groupId": GROUP},
        WHOLE_GROUP,
    ),
    "assets.groups.update": Call(
        lambda rh: rh.assets.groups.update(GROUP, description=""),
        said({"groupId": GROUP}),
        "assets/groups/update",
        {"groupId": GROUP, "description": ""},
        AssetGroup(group_id=GROUP),
    ),
    "assets.groups.delete": Call(
        lambda rh: rh.assets.groups.delete(GROUP), said(None), "assets/groups/delete", {"groupId": GROUP}, None
    ),
    "apps.list": Call(
        lambda rh: rh.apps.list(page=2, size=10, sort="HOTTEST", days=30),
        said(LISTED),
        "aiapp/list",
        {"current": 2, "size": 10, "sort": "HOTTEST", "days": 30},
        AppPage(items=APPS, number=2, total=70000, has_next=True),
    ),
    "apps.list, by date, which has no days": Call(
        lambda rh: rh.apps.list(sort="NEWEST", days=30),
        said({"records": None, "hasNext": "false"}),
        "aiapp/list",
        {"current": 1, "size": 50, "sort": "NEWEST"},
        AppPage(),
    ),
    "quick_create.params": Call(
        lambda rh: rh.quick_create.params(APP),
        said([STYLE]),
        "/api/fast/creation/model/params",
        {"type": 2, "webappId": APP, "apiKey": KEY},
        (READ_STYLE,),
    ),
    "quick_create.params, without styles": Call(
        lambda rh: rh.quick_create.params(APP, kind=3),
        said([]),
        "/api/fast/creation/model/params",
        {"type": 3, "webappId": APP, "apiKey": KEY},
        (),
    ),
    "platform.api_keys": Call(lambda rh: rh.platform.api_keys(), said(KEYS), "api-key/list", None, READ_KEYS),
    "platform.resources": Call(
        lambda rh: rh.platform.resources(
            "LORA", name="sea", base_models=["IL-XL"], tags=["1870000000000000009", "new"], page=3, size=20
        ),
        said({"records": [RESOURCE, {}], "size": 20, "current": 3, "total": 41, "pages": 3, "hasNext": False}),
        "resource/list",
        {
            "resourceType": "LORA",
            "resourceName": "sea",
            "baseModels": ["IL-XL"],
            "tags": [1870000000000000009, "new"],
            "current": 3,
            "size": 20,
        },
        ResourcePage(items=(READ_RESOURCE, Resource()), number=3, total=41),
    ),
    "platform.resources, without empty filters": Call(
        lambda rh: rh.platform.resources("UNET"),
        said({"records": [], "total": "0"}),
        "resource/list",
        {"resourceType": "UNET", "current": 1, "size": 50},
        ResourcePage(total=0),
    ),
    "queue_status": Call(
        lambda rh: rh.queue_status(),
        said({"apiKeyType": "SHARED", "concurrentLimit": 50, "runningCount": "7", "queuedCount": None}),
        "queue/status",
        None,
        QueueStatus(key_type="SHARED", limit=50, running=7, queued=0),
    ),
    "account": Call(
        lambda rh: rh.account(),
        said({"remainCoins": "76600", "currentTaskCounts": "2", "remainMoney": None, "apiType": "NORMAL"}),
        "/uc/openapi/accountStatus",
        {"apikey": KEY},
        Account(coins=Decimal(76600), money=None, currency=None, running=2, key_type="NORMAL"),
    ),
    "price_preview": Call(
        lambda rh: rh.price_preview("a/b", {"x": 1}),
        reply({"errorCode": "", "estimatedPrice": 0.28, "currency": "CNY", "isFreeThisCall": False}),
        "price-preview/a/b",
        {"x": 1},
        PricePreview(amount=Decimal("0.28"), currency="CNY", free=False),
    ),
    "cancel": Call(lambda rh: rh.cancel(TASK), said(None), "/task/openapi/cancel", V1_TASK, None),
    "workflows.status_v1": Call(
        lambda rh: rh.workflows.status_v1(TASK),
        said("QUEUED"),
        "/task/openapi/status",
        V1_TASK,
        TaskView(task_id=TASK, status="QUEUED"),
    ),
    "workflows.outputs_v1": Call(
        lambda rh: rh.workflows.outputs_v1(TASK),
        said([{**FILE, "fileUrl": "https://h/a.png", "nodeId": "12"}, {**FILE, "fileUrl": "https://h/b", "nodeId": 3}]),
        "/task/openapi/outputs",
        V1_TASK,
        TaskView(
            task_id=TASK,
            status="SUCCESS",
            outputs=(
                RemoteOutput(url="https://h/a.png", type="png", node_id="12"),
                RemoteOutput(url="https://h/b", type="png", node_id="3"),
            ),
            usage=Usage(money=Decimal("0.5"), third_party_money=Decimal("0.14"), seconds=83.0),
        ),
    ),
    "webhooks.resend": Call(
        lambda rh: rh.webhooks.resend(EVENT),
        said(None),
        "/task/openapi/retryWebhook",
        {"webhookId": EVENT, "apiKey": KEY},
        None,
    ),
    "webhooks.resend, to another address": Call(
        lambda rh: rh.webhooks.resend(EVENT, url="https://h.example/t"),
        said(None),
        "/task/openapi/retryWebhook",
        {"webhookId": EVENT, "webhookUrl": "https://h.example/t", "apiKey": KEY},
        None,
    ),
}
"""Calls by their methods; a name with a comma has another case of a method."""


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_is_one_request_and_its_answer_a_value(name: str, client: Client, wire: WireServer) -> None:
    call = CALLS[name]
    wire.plays(call.answer)
    assert await call.send(client) == call.value
    [asked] = wire.asked
    path = call.path if call.path.startswith("/") else f"/openapi/v2/{call.path}"
    assert (asked.method, asked.path) == ("GET" if call.body is None else "POST", path)
    assert call.body is None or asked.json == call.body
    assert asked.headers["authorization"] == f"Bearer {KEY}"
