"""Assets and their groups: made once, waited for, found again."""

from __future__ import annotations

import itertools

import pytest

from rh_prefect.client import Asset, Client
from rh_prefect.errors import InputError, RequestRejected, ResponseLost
from tests.client.conftest import Pauses
from tests.support.servers.scripted_server import Step, WireServer, cut, reply, said

GROUP = "group-20260327004931-dvjbj"
ASSET = "asset-20260327004932-abcde"
LINK = "https://bucket.example.net/input/a.png?q-signature=1"


async def create(client: Client) -> Asset:
    return await client.assets.create(LINK, group_id=GROUP, kind="Image", name="hero")


@pytest.mark.parametrize("step", [cut(), reply("", status=502), reply("<html>"), said(None), said({"status": "x"})])
async def test_what_is_made_is_asked_for_once(step: Step, client: Client, wire: WireServer) -> None:
    wire.plays(step, step)
    for call in (create(client), client.assets.groups.create("cast")):
        with pytest.raises(ResponseLost, match="The object may have been created"):
            await call
    assert len(wire.asked) == 2


async def test_each_making_has_a_connection_of_its_own(client: Client, wire: WireServer) -> None:
    wire.always = said({"assetId": ASSET, "groupId": GROUP})
    await create(client)
    await client.assets.groups.create("cast")
    assert [asked.connection for asked in wire.asked] == [1, 2]


def test_states() -> None:
    states = {
        "ready": ("ACTIVE", "success", "Succeeded", "COMPLETED", "Done", "READY", "AVAILABLE"),
        "failed": ("FAILED", "Error", "CANCEL", "CANCELED", "CANCELLED"),
        "pending": ("", "Processing", "Creating", "whatever"),
    }
    assert {state: [Asset(status=word).state for word in words] for state, words in states.items()} == {
        state: [state] * len(words) for state, words in states.items()
    }
    assert Asset(asset_id=ASSET).uri == f"asset://{ASSET}"


async def test_wait_until_it_is_ready(client: Client, wire: WireServer) -> None:
    pauses = Pauses()
    wire.plays(*[said({"status": "Processing"})] * 3, said({"status": "Active"}))
    asset = await client.assets.wait(ASSET, sleep=pauses.sleep, clock=pauses.clock)
    assert (asset.asset_id, asset.state, pauses) == (ASSET, "ready", [2.0, 2.0, 2.0])


@pytest.mark.parametrize(("kind", "seconds"), [("Image", 180), ("Audio", 180), ("Video", 300), ("", 300)])
async def test_how_long_it_waits(kind: str, seconds: int, client: Client, wire: WireServer) -> None:
    pauses = Pauses()
    wire.always = said({"status": "Processing", "assetType": kind})
    late = rf"waiting for asset {ASSET}: the asset is not ready after {seconds} s \(status Processing\)"
    with pytest.raises(ResponseLost, match=late):
        await client.assets.wait(ASSET, pause=30, sleep=pauses.sleep, clock=pauses.clock)
    assert sum(pauses) == seconds
    with pytest.raises(ResponseLost, match="not ready after 60 s"):
        await client.assets.wait(ASSET, timeout=60, pause=30, sleep=pauses.sleep, clock=pauses.clock)


async def test_the_time_of_slow_queries_counts(client: Client, wire: WireServer) -> None:
    ticks = itertools.count(0, 100)
    wire.always = said({"status": "Processing"})
    with pytest.raises(ResponseLost, match=r"not ready after 200 s .* do not register it again"):
        await client.assets.wait(ASSET, timeout=150, sleep=Pauses().sleep, clock=lambda: next(ticks))
    assert len(wire.asked) == 2


async def test_what_does_not_become_ready_is_refused(client: Client, wire: WireServer) -> None:
    wire.plays(said({"status": "Failed"}), reply({"code": 301, "msg": "no such asset"}))
    with pytest.raises(RequestRejected, match=r"could not use the file \(status Failed\)") as caught:
        await client.assets.wait(ASSET)
    assert (caught.value.code, caught.value.retry) == ("Failed", "final")
    with pytest.raises(RequestRejected, match="301"):
        await client.assets.wait(ASSET)


async def test_waiting_bears_blips_but_not_too_many(client: Client, wire: WireServer) -> None:
    pauses, blip = Pauses(), reply({"code": 1003, "msg": "rate"})
    wire.plays(*[blip] * 4, said({"status": "Processing"}), *[blip] * 4, said({"status": "Active"}))
    assert (await client.assets.wait(ASSET, sleep=pauses.sleep, clock=pauses.clock)).state == "ready"
    wire.plays(*[blip] * 5)
    with pytest.raises(ResponseLost, match=r"its state is not known: rate\. The asset exists"):
        await client.assets.wait(ASSET, sleep=pauses.sleep, clock=pauses.clock)
    assert len(pauses) == 13


async def test_waiting_without_a_connection_does_not_say_that_nothing_was_sent(closed_port: int) -> None:
    """`register_asset` is repeated after such an error, and made a second asset."""
    async with Client("key", base_url=f"http://127.0.0.1:{closed_port}") as client:
        with pytest.raises(ResponseLost, match=f"waiting for asset {ASSET}: .*What to do: query this asset"):
            await client.assets.wait(ASSET, sleep=Pauses().sleep)


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
