"""Assets and groups, their use in a model's request, and the check for real people."""

from __future__ import annotations

from pathlib import Path

import pytest

from rh_prefect import catalog
from tests.emulator.conftest import Emulate
from tests.support.samples import media as samples
from tests.support.servers.caller import Caller, Json

CLIP = "bytedance/seedance-2.0-global/image-to-video"


def ask(rh: Caller, path: str, **body: object) -> Json:
    answer: Json = rh.post(f"/openapi/v2/assets/{path}", body).json()
    return answer


def group(rh: Caller) -> str:
    return str(ask(rh, "groups/create", name="people", description="of the film")["data"]["groupId"])


def asset(rh: Caller, link: str, *, kind: str = "Image", name: str = "Ada") -> str:
    made = ask(rh, "create", groupId=group(rh), url=link, assetType=kind, name=name)
    assert made["data"]["status"] == "Processing"
    return str(made["data"]["assetId"])


def clip(link: str, **more: object) -> Json:
    model = next(model for model in catalog.models() if model.endpoint == CLIP)
    body = catalog.validate(model, catalog.example(model))
    media = {param.key for param in model.media_params}
    plain: Json = {key: value for key, value in body.items() if key not in media}
    return {**plain, "firstFrameUrl": link, **more}


def test_groups(rh: Caller) -> None:
    made = ask(rh, "groups/create", name="people")
    assert (made["code"], made["msg"]) == (0, "success")
    group_id = made["data"]["groupId"]
    assert made["data"] == {"groupId": group_id, "name": "people", "description": ""}
    assert ask(rh, "groups/query", groupId=group_id)["data"]["assetCount"] == 0
    assert ask(rh, "groups/update", groupId=group_id, description="all")["data"]["description"] == "all"
    assert ask(rh, "groups/update", groupId=group_id)["code"] == 1007
    for index in range(3):
        ask(rh, "groups/create", name=f"more {index}")
    page = ask(rh, "groups/list", pageNumber=2, pageSize=3)["data"]
    assert (len(page["items"]), page["totalCount"]) == (1, 4)
    assert ask(rh, "groups/list", pageNumber=1, pageSize=9, name="more")["data"]["totalCount"] == 3
    assert ask(rh, "groups/list", pageNumber=1, pageSize=101)["code"] == 1007
    assert ask(rh, "groups/delete", groupId=group_id)["data"] is None
    assert ask(rh, "groups/query", groupId=group_id)["code"] == 1004
    other = Caller(rh.rh, rh.rh.keys.add("other").secret)
    assert ask(other, "groups/list", pageNumber=1, pageSize=9)["data"] == {"items": [], "totalCount": 0}


def test_an_asset_is_processed_for_a_while(emulate: Emulate, tmp_path: Path) -> None:
    rh = emulate(clock="polls", polls=3)
    link = rh.link(samples.png(tmp_path / "a.png"))
    asset_id = asset(rh, link)
    assert rh.submit(CLIP, clip(f"asset://{asset_id}"))["errorCode"] == "1013"
    seen = [ask(rh, "query", assetId=asset_id)["data"] for _ in range(4)]
    assert [data["status"] for data in seen] == ["Processing", "Processing", "Active", "Active"]
    assert (seen[0]["assetType"], seen[0]["previewUrl"]) == ("Image", link)
    accepted = rh.submit(CLIP, clip(f"asset://{asset_id}"))
    assert (accepted["errorCode"], len(accepted["taskId"])) == ("", 19)


def test_an_asset_is_really_used(rh: Caller, tmp_path: Path) -> None:
    asset_id = asset(rh, rh.link(samples.png(tmp_path / "a.png")))
    done = rh.query(rh.submit(CLIP, clip(f"asset://{asset_id}"))["taskId"])
    assert done["results"][0]["outputType"] == "mp4"
    other = Caller(rh.rh, rh.rh.keys.add("other").secret)
    assert other.submit(CLIP, clip(f"asset://{asset_id}"))["errorCode"] == "1013"
    assert rh.submit(CLIP, clip("asset://unknown"))["errorCode"] == "1013"


def test_a_bad_file_shows_in_the_status(rh: Caller, tmp_path: Path) -> None:
    sound = rh.link(samples.wav(tmp_path / "a.wav"))
    for link in (sound, "https://127.0.0.1:9/none.png"):
        asset_id = asset(rh, link)
        assert ask(rh, "query", assetId=asset_id)["data"]["status"] == "Failed"
        assert rh.submit(CLIP, clip(f"asset://{asset_id}"))["errorCode"] == "1013"


def test_list_update_delete(rh: Caller, tmp_path: Path) -> None:
    link = rh.link(samples.png(tmp_path / "a.png"))
    first, second = asset(rh, link), asset(rh, link, name="Grace")
    page = ask(rh, "list", pageNumber=1, pageSize=1)["data"]
    assert (page["items"][0]["assetId"], page["totalCount"]) == (first, 2)
    assert ask(rh, "list", pageNumber=1, pageSize=9, name="Gra")["data"]["items"][0]["assetId"] == second
    assert ask(rh, "list", pageNumber=1, pageSize=9, status="FAILED")["data"]["totalCount"] == 0
    assert ask(rh, "list", pageNumber=1)["code"] == 1007
    assert ask(rh, "update", assetId=first, name="Ada L.")["data"] == {
        "assetId": first,
        "name": "Ada L.",
        "status": "Active",
    }
    assert ask(rh, "delete", assetId=first)["data"] is None
    assert ask(rh, "query", assetId=first)["code"] == 1004
    assert ask(rh, "list", pageNumber=1, pageSize=9)["data"]["totalCount"] == 1


@pytest.mark.parametrize("missing", ["groupId", "url", "assetType", "name"])
def test_what_an_asset_needs(rh: Caller, missing: str) -> None:
    body = {"groupId": group(rh), "url": "https://x", "assetType": "Image", "name": "Ada"}
    del body[missing]
    assert ask(rh, "create", **body)["code"] == 1007
    assert ask(rh, "create", **{**body, missing: 5})["code"] == 1007


def test_real_people_need_assets_or_the_mode_for_them(rh: Caller, tmp_path: Path) -> None:
    rh.rh.options.real_people = True
    link = rh.link(samples.png(tmp_path / "a.png"))
    refused = rh.submit(CLIP, clip(link, realPersonMode=False))
    assert refused["errorCode"] == "1505"
    assert rh.submit(CLIP, clip(link, realPersonMode=True))["errorCode"] == ""
    assert rh.submit(CLIP, clip(f"asset://{asset(rh, link)}", realPersonMode=False))["errorCode"] == ""
    rh.rh.options.real_people = False
    assert rh.submit(CLIP, clip(link, realPersonMode=False))["errorCode"] == ""
