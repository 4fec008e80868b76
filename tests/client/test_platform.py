"""The account's keys and the public model library."""

from __future__ import annotations

from decimal import Decimal

from rh_prefect.client import ApiKey, Client, ResourceVersion
from tests.client.conftest import KEY
from tests.support.servers.scripted_server import WireServer, cut, reply

OTHER = "0123456789abcdef0123456789abcdef"
KEYS = [
    {
        "key": "0123****cdef",
        "apiKeyName": "studio",
        "status": 1,
        "quotaLimit": None,
        "quotaUsed": 12.5,
        "visible": True,
        "expireAt": None,
        "expireInMinute": None,
        "createdAt": "2026-01-02 03:04:05",
    },
    {"key": OTHER, "apiKeyName": None, "status": "0", "quotaLimit": "100", "expireAt": 1767225600000},
    {"key": KEY, "status": True},
    {"key": "short"},
    {},
]


async def test_api_keys_are_masked(client: Client, wire: WireServer) -> None:
    wire.plays(cut(), reply({"code": 0, "msg": "success", "data": KEYS}))
    keys = await client.platform.api_keys()
    assert (wire.asked[1].method, wire.asked[1].path) == ("GET", "/openapi/v2/api-key/list")
    assert wire.asked[1].headers["authorization"] == f"Bearer {KEY}"
    assert keys[0] == ApiKey(
        name="studio",
        masked="0123****cdef",
        enabled=True,
        quota_used=Decimal("12.5"),
        created_at="2026-01-02 03:04:05",
    )
    assert [key.masked for key in keys] == ["0123****cdef", "0123***cdef", "***", "***", ""]
    assert [key.enabled for key in keys] == [True, False, True, False, False]
    assert (keys[1].quota_limit, keys[1].expires_at) == (Decimal(100), "1767225600000")
    assert OTHER not in repr(keys)


RECORD = {
    "id": 1870000000000000001,
    "resourceName": "Sea XL",
    "resourceType": "LORA",
    "createTime": "2026-01-02",
    "desc": "waves",
    "nodeModelName": "sea_xl_v2.safetensors",
    "posterUrl": "https://img.example.net/p.png",
    "owner": {"name": "ann", "avatar": "https://a"},
    "tags": [{"id": 7, "name": "sea"}, "water", None],
    "versions": [
        {
            "id": "1870000000000000002",
            "version": "2.0",
            "versionResourceName": "Sea XL 2",
            "baseModel": "IL-XL",
            "triggerWords": "wave",
            "posterInfos": [],
        },
        None,
    ],
}


async def test_resources(client: Client, wire: WireServer) -> None:
    data = {"records": [RECORD, {}], "size": 20, "current": 3, "total": 41, "pages": 3, "hasNext": False}
    wire.plays(reply({"code": 0, "msg": "success", "data": data}))
    page = await client.platform.resources(
        "LORA", name="sea", base_models=["IL-XL"], tags=["1870000000000000009", "new"], page=3, size=20
    )
    [asked] = wire.asked
    assert (asked.method, asked.path) == ("POST", "/openapi/v2/resource/list")
    assert asked.json == {
        "resourceType": "LORA",
        "resourceName": "sea",
        "baseModels": ["IL-XL"],
        "tags": [1870000000000000009, "new"],
        "current": 3,
        "size": 20,
    }
    assert (page.number, page.total, page.has_next, len(page.items)) == (3, 41, False, 2)
    sea = page.items[0]
    assert (sea.resource_id, sea.name, sea.kind) == ("1870000000000000001", "Sea XL", "LORA")
    assert (sea.node_model_name, sea.owner, sea.tags) == ("sea_xl_v2.safetensors", "ann", ("sea", "water"))
    assert sea.versions == (
        ResourceVersion(
            version_id="1870000000000000002",
            version="2.0",
            name="Sea XL 2",
            base_model="IL-XL",
            trigger_words="wave",
        ),
    )


async def test_a_search_for_all_sends_no_empty_filters(client: Client, wire: WireServer) -> None:
    wire.plays(reply({"code": 0, "msg": "success", "data": {"records": [], "total": "0"}}))
    page = await client.platform.resources("UNET")
    assert wire.asked[0].json == {"resourceType": "UNET", "current": 1, "size": 50}
    assert (page.items, page.number, page.total, page.has_next) == ((), 1, 0, False)
