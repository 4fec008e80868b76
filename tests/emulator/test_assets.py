"""Assets and groups, their use in a model's request, and the check for real people."""

from __future__ import annotations

from pathlib import Path

import pytest

from rh_prefect import catalog
from tests.emulator.conftest import Emulate
from tests.support.samples import media as samples
from tests.support.servers.caller import Caller, Json

CLIP = "bytedance/seedance-2.0-global/image-to-video"


def group(rh: Caller) -> str:
    return str(rh.asset("groups/create", name="people", description="of the film")["data"]["groupId"])


def asset(rh: Caller, link: str, *, kind: str = "Image", name: str = "Ada") -> str:
    made = rh.asset("create", groupId=group(rh), url=link, assetType=kind, name=name)
    assert made["data"]["status"] == "Processing"
    return str(made["data"]["assetId"])


def clip(link: str, **more: object) -> Json:
    model = next(model for model in catalog.models() if model.endpoint == CLIP)
    body = catalog.read_parameters(model, catalog.example(model)).sent
    media = {param.key for param in model.media_params}
    plain: Json = {key: value for key, value in body.items() if key not in media}
    return {**plain, "firstFrameUrl": link, **more}


def test_groups(rh: Caller) -> None:
    made = rh.asset("groups/create", name="people")
    assert (made["code"], made["msg"]) == (0, "success")
    group_id = made["data"]["groupId"]
    assert made["data"] == {"groupId": group_id, "name": "people", "description": ""}
    assert rh.asset("groups/query", groupId=group_id)["data"]["assetCount"] == 0
    assert rh.asset("groups/update", groupId=group_id, description="all")["data"]["description"] == "all"
    assert rh.asset("groups/update", groupId=group_id)["code"] == 1007
    for index in range(3):
        rh.asset("groups/create", name=f"more {index}")
    page = rh.asset("groups/list", pageNumber=2, pageSize=3)["data"]
    assert (len(page["items"]), page["totalCount"]) == (1, 4)
    assert rh.asset("groups/list", pageNumber=1, pageSize=9, name="more")["data"]["totalCount"] == 3
    assert rh.asset("groups/list", pageNumber=1, pageSize=101)["code"] == 1007
    assert rh.asset("groups/delete", groupId=group_id)["data"] is None
    assert rh.asset("groups/query", groupId=group_id)["code"] == 1004
    assert rh.other().asset("groups/list", pageNumber=1, pageSize=9)["data"] == {"items": [], "totalCount": 0}


def test_an_asset_is_processed_for_a_while_and_then_used(emulate: Emulate, tmp_path: Path) -> None:
    rh = emulate(clock="polls", polls=3)
    link = rh.link(samples.png(tmp_path / "a.png"))
    asset_id = asset(rh, link)
    assert rh.submit(CLIP, clip(f"asset://{asset_id}"))["errorCode"] == "1013"
    seen = [rh.asset("query", assetId=asset_id)["data"] for _ in range(4)]
    assert [data["status"] for data in seen] == ["Processing", "Processing", "Active", "Active"]
    assert (seen[0]["assetType"], seen[0]["previewUrl"]) == ("Image", link)
    accepted = rh.submit(CLIP, clip(f"asset://{asset_id}"))
    assert (accepted["errorCode"], len(accepted["taskId"])) == ("", 19)
    assert [rh.query(accepted["taskId"])["results"] is None for _ in range(3)] == [True, True, False]
    assert rh.other().submit(CLIP, clip(f"asset://{asset_id}"))["errorCode"] == "1013"


def test_a_bad_file_shows_in_the_status(rh: Caller, tmp_path: Path) -> None:
    sound = rh.link(samples.wav(tmp_path / "a.wav"))
    for link in (sound, "https://127.0.0.1:9/none.png"):
        asset_id = asset(rh, link)
        assert rh.asset("query", assetId=asset_id)["data"]["status"] == "Failed"
        assert rh.submit(CLIP, clip(f"asset://{asset_id}"))["errorCode"] == "1013"


def test_list_update_delete(rh: Caller, tmp_path: Path) -> None:
    def listed(**body: object) -> Json:
        return rh.asset("list", pageNumber=1, **body)

    link = rh.link(samples.png(tmp_path / "a.png"))
    first, second = asset(rh, link), asset(rh, link, name="Grace")
    page = listed(pageSize=1)["data"]
    assert (page["items"][0]["assetId"], page["totalCount"]) == (first, 2)
    assert listed(pageSize=9, name="Gra")["data"]["items"][0]["assetId"] == second
    assert listed(pageSize=9, status="FAILED")["data"]["totalCount"] == 0
    assert listed()["code"] == 1007
    renamed = {"assetId": first, "name": "Ada L.", "status": "Active"}
    assert rh.asset("update", assetId=first, name="Ada L.")["data"] == renamed
    assert rh.asset("delete", assetId=first)["data"] is None
    assert rh.asset("query", assetId=first)["code"] == 1004
    assert listed(pageSize=9)["data"]["totalCount"] == 1


@pytest.mark.parametrize("missing", ["groupId", "url", "assetType", "name"])
def test_what_an_asset_needs(rh: Caller, missing: str) -> None:
    body: Json = {"groupId": group(rh), "url": "https://x", "assetType": "Image", "name": "Ada"}
    for wrong in ({key: value for key, value in body.items() if key != missing}, {**body, missing: 5}):
        assert rh.asset("create", **wrong)["code"] == 1007


def test_real_people_need_assets_or_the_mode_for_them(rh: Caller, tmp_path: Path) -> None:
    rh.rh.options.real_people = True
    link = rh.link(samples.png(tmp_path / "a.png"))
    codes = [
        rh.submit(CLIP, clip(picture, realPersonMode=mode))["errorCode"]
        for picture, mode in ((link, False), (link, True), (f"asset://{asset(rh, link)}", False))
    ]
    assert codes == ["1505", "", ""]
    rh.rh.options.real_people = False
    assert rh.submit(CLIP, clip(link, realPersonMode=False))["errorCode"] == ""
