"""Assets and their groups: made once, waited for, found again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from rh_prefect.client import Asset, AssetGroup, Client
from rh_prefect.errors import Busy, InputError, RequestRejected, ResponseLost
from tests.client.conftest import KEY
from tests.support.servers.scripted_server import Step, WireServer, cut, reply

GROUP = "group-20260327004931-dvjbj"
ASSET = "asset-20260327004932-abcde"
LINK = "https://bucket.example.net/input/a.png?q-signature=1"


def said(data: object = None, **more: object) -> Step:
    return reply({"code": 0, "msg": "success", "data": data, **more})


async def create(client: Client) -> Asset:
    return await client.assets.create(LINK, group_id=GROUP, kind="Image", name="hero")


async def test_create(client: Client, wire: WireServer) -> None:
    wire.plays(said({"assetId": ASSET, "status": "Processing"}))
    asset = await create(client)
    [asked] = wire.asked
    assert (asked.method, asked.path) == ("POST", "/openapi/v2/assets/create")
    assert asked.json == {"groupId": GROUP, "url": LINK, "assetType": "Image", "name": "hero"}
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asset == Asset(asset_id=ASSET, status="Processing", kind="Image", name="hero", group_id=GROUP)
    assert (asset.uri, asset.state) == (f"asset://{ASSET}", "pending")


@pytest.mark.parametrize("step", [cut(), reply("", status=502), reply("<html>"), said(None), said({"status": "x"})])
async def test_what_is_made_is_asked_for_once(step: Step, client: Client, wire: WireServer) -> None:
    wire.plays(step, step)
    with pytest.raises(ResponseLost, match="It may have been created"):
        await create(client)
    assert len(wire.asked) == 1
    with pytest.raises(ResponseLost, match="It may have been created"):
        await client.assets.groups.create("cast")
    assert len(wire.asked) == 2


async def test_each_making_has_a_connection_of_its_own(client: Client, wire: WireServer) -> None:
    wire.always = said({"assetId": ASSET, "groupId": GROUP})
    await create(client)
    await client.assets.groups.create("cast")
    assert [asked.connection for asked in wire.asked] == [1, 2]


async def test_query(client: Client, wire: WireServer) -> None:
    wire.plays(cut(), said({"assetId": ASSET, "status": "Active", "previewUrl": "https://p", "assetType": "Video"}))
    asset = await client.assets.query(ASSET)
    assert (wire.asked[1].path, wire.asked[1].json) == ("/openapi/v2/assets/query", {"assetId": ASSET})
    assert asset == Asset(asset_id=ASSET, status="Active", kind="Video", preview_url="https://p")
    assert asset.state == "ready"


STATES = [
    *[(word, "ready") for word in ("ACTIVE", "success", "Succeeded", "COMPLETED", "Done", "READY", "AVAILABLE")],
    *[(word, "failed") for word in ("FAILED", "Error", "CANCEL", "CANCELED", "CANCELLED")],
    *[(word, "pending") for word in ("", "Processing", "Creating", "whatever")],
]


@pytest.mark.parametrize(("word", "state"), STATES)
def test_states(word: str, state: str) -> None:
    assert Asset(asset_id="1", status=word).state == state


def clock() -> tuple[list[float], Callable[[float], Awaitable[None]]]:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    return slept, sleep


async def test_wait_until_it_is_ready(client: Client, wire: WireServer) -> None:
    slept, sleep = clock()
    wire.plays(*[said({"status": "Processing"})] * 3, said({"status": "Active"}))
    asset = await client.assets.wait(ASSET, sleep=sleep)
    assert (asset.asset_id, asset.state, slept) == (ASSET, "ready", [2.0, 2.0, 2.0])


@pytest.mark.parametrize(("kind", "seconds"), [("Image", 180), ("Audio", 180), ("Video", 300), ("", 300)])
async def test_how_long_it_waits(kind: str, seconds: int, client: Client, wire: WireServer) -> None:
    slept, sleep = clock()
    wire.always = said({"status": "Processing", "assetType": kind})
    with pytest.raises(
        ResponseLost, match=rf"waiting for asset {ASSET}: not ready after {seconds} s \(status Processing\)"
    ):
        await client.assets.wait(ASSET, pause=30, sleep=sleep)
    assert sum(slept) == seconds
    with pytest.raises(ResponseLost, match="not ready after 60 s"):
        await client.assets.wait(ASSET, timeout=60, pause=30, sleep=sleep)


async def test_a_failed_asset_is_refused(client: Client, wire: WireServer) -> None:
    wire.plays(said({"status": "Failed"}))
    with pytest.raises(RequestRejected, match=r"could not use the file \(status Failed\)") as caught:
        await client.assets.wait(ASSET)
    assert (caught.value.code, caught.value.retry) == ("Failed", "final")


async def test_waiting_bears_blips_but_not_too_many(client: Client, wire: WireServer) -> None:
    slept, sleep = clock()
    blip = reply({"code": 1003, "msg": "rate"})
    wire.plays(*[blip] * 4, said({"status": "Processing"}), *[blip] * 4, said({"status": "Active"}))
    assert (await client.assets.wait(ASSET, sleep=sleep)).state == "ready"
    wire.plays(*[blip] * 5)
    with pytest.raises(Busy):
        await client.assets.wait(ASSET, sleep=sleep)
    wire.plays(reply({"code": 301, "msg": "no such asset"}))
    with pytest.raises(RequestRejected):
        await client.assets.wait(ASSET, sleep=sleep)
    assert len(slept) == 13


async def test_list(client: Client, wire: WireServer) -> None:
    items = [{"assetId": ASSET, "name": "hero", "status": "Active", "groupId": GROUP}, {}, None, {"id": "2"}]
    wire.always = said({"items": items, "totalCount": "41"})
    page = await client.assets.list(page=2, size=20, group_id=GROUP, status="Active", name="hero")
    assert wire.asked[0].path == "/openapi/v2/assets/list"
    assert wire.asked[0].json == {"pageNumber": 2, "pageSize": 20, "groupId": GROUP, "status": "Active", "name": "hero"}
    assert [item.asset_id for item in page.items] == [ASSET, "2"]
    assert (page.items[0].group_id, page.number, page.total, page.has_next) == (GROUP, 2, 41, True)
    assert not (await client.assets.list(page=3)).has_next
    assert wire.asked[1].json == {"pageNumber": 3, "pageSize": 20}


async def test_update_and_delete(client: Client, wire: WireServer) -> None:
    wire.plays(said({"assetId": ASSET, "name": "villain", "status": "Active"}), said(), said())
    assert await client.assets.update(ASSET, name="villain") == Asset(asset_id=ASSET, name="villain", status="Active")
    assert await client.assets.update(ASSET, name="hero") == Asset(asset_id=ASSET, name="hero")
    await client.assets.delete(ASSET)
    assert [(asked.path, asked.json) for asked in wire.asked] == [
        ("/openapi/v2/assets/update", {"assetId": ASSET, "name": "villain"}),
        ("/openapi/v2/assets/update", {"assetId": ASSET, "name": "hero"}),
        ("/openapi/v2/assets/delete", {"assetId": ASSET}),
    ]


async def test_groups(client: Client, wire: WireServer) -> None:
    told = {"groupId": GROUP, "name": "cast", "description": "all of them", "assetCount": "3"}
    wire.plays(
        said({"groupId": GROUP, "name": "cast"}),
        said({"items": [told, {}], "totalCount": 1}),
        said(told),
        said({"groupId": GROUP}),
        said(),
    )
    groups = client.assets.groups
    whole = AssetGroup(group_id=GROUP, name="cast", description="all of them", assets=3)
    assert await groups.create("cast", description="d") == AssetGroup(group_id=GROUP, name="cast", description="d")
    page = await groups.list(size=100, name="cast")
    assert (page.items, page.total, page.has_next) == ((whole,), 1, False)
    assert await groups.query(GROUP) == whole
    assert await groups.update(GROUP, description="") == AssetGroup(group_id=GROUP)
    await groups.delete(GROUP)
    assert [(asked.path.removeprefix("/openapi/v2/assets/groups/"), asked.json) for asked in wire.asked] == [
        ("create", {"name": "cast", "description": "d"}),
        ("list", {"pageNumber": 1, "pageSize": 100, "name": "cast"}),
        ("query", {"groupId": GROUP}),
        ("update", {"groupId": GROUP, "description": ""}),
        ("delete", {"groupId": GROUP}),
    ]


async def test_what_makes_no_sense_is_not_sent(client: Client, wire: WireServer) -> None:
    calls = [
        client.assets.groups.update(GROUP),
        client.assets.groups.query("a b"),
        client.assets.groups.delete(""),
        client.assets.groups.list(size=101),
        client.assets.query("../x"),
        client.assets.delete("a/b"),
        client.assets.list(page=0),
        client.assets.list(group_id="a b"),
        client.assets.create(LINK, group_id="", kind="Image", name="x"),
    ]
    for call in calls:
        with pytest.raises(InputError):
            await call
    assert wire.asked == []
