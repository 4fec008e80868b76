"""AI apps: what they can be given, and that no key comes along."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from rh_prefect.client import App, AppOption, Client
from rh_prefect.errors import InputError
from tests.client.conftest import KEY
from tests.support.servers.scripted_server import WireServer, cut, reply, said

APP = "2030000000000000002"


def node(**more: object) -> dict[str, object]:
    return {"nodeId": "39", "nodeName": "LoadImage", "fieldName": "image", "fieldValue": "a.png", **more}


DEMO = {
    "curl": f"curl --location 'https://www.runninghub.cn/openapi/v2/run/ai-app/{APP}' -H 'Authorization: {KEY}'",
    "accessEncrypted": False,
    "webappName": "Portrait restyle",
    "statisticsInfo": {"likeCount": "12", "useCount": "3400"},
    "nodeInfoList": [
        node(
            fieldData=json.dumps([["a.png", "b.png"], {"image_upload": True}]),
            fieldType="IMAGE",
            description="上传",
            descriptionEn="Upload image",
        ),
        node(
            nodeId=37,
            nodeName="SomeModelNode",
            fieldName="model",
            fieldValue="base",
            fieldType="LIST",
            fieldData='[{"name": "Base", "index": "base", "description": "quick"}, {"name": "Big", "index": "big", '
            '"description": null}, {"default": "base", "description": "..."}]',
        ),
    ],
    "covers": [{"id": "2030000000000000009", "url": "https://img.example.net/x.png", "thumbnailUri": "https://t"}],
    "tags": [{"id": "1870000000000000001", "name": "人像", "nameEn": "Portrait", "labels": None}, {"name": "风格"}],
}


async def demo(client: Client, wire: WireServer, **more: object) -> App:
    wire.plays(said({**DEMO, **more}))
    return await client.apps.demo(APP)


async def test_a_call_example_is_read_completely(client: Client, wire: WireServer) -> None:
    app = await demo(client, wire)
    [asked] = wire.asked
    assert (asked.method, asked.path) == ("GET", f"/api/webapp/apiCallDemo?apiKey={KEY}&webappId={APP}")
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert (app.webapp_id, app.name, app.encrypted, app.uses) == (APP, "Portrait restyle", False, 3400)
    assert (app.covers, app.tags) == (("https://img.example.net/x.png",), ("Portrait", "风格"))
    image, model = app.nodes
    assert (image.node_id, image.node_name) == ("39", "LoadImage")
    assert (image.field_name, image.field_value) == ("image", "a.png")
    assert (image.media, image.description, image.description_en) == ("image", "上传", "Upload image")
    assert [option.value for option in image.options] == ["a.png", "b.png"]
    assert (model.node_id, model.media, model.default) == ("37", None, "base")
    quick = AppOption(value="base", name="Base", description="quick")
    assert model.options == (quick, AppOption(value="big", name="Big"))
    assert App.model_validate_json(app.model_dump_json()) == app


FIELDS: list[tuple[object, object, list[str], str | None]] = [
    (None, "x", [], None),
    ("", "x", [], None),
    ("not JSON", "x", [], None),
    ([["a", "b"], {"default": "b"}], "a", ["a", "b"], "b"),
    ('["INT", {"default": 20, "min": 1, "max": 100, "step": 0.5}]', 20, [], "20"),
    ('["BOOLEAN", {"default": true}]', True, [], "true"),
    ('["COMBO", {"options": ["x", "y"], "default": "y"}]', "x", ["x", "y"], "y"),
    ("[[1, 2, true], {}]", 1, ["1", "2", "true"], None),
    ([{"name": "2K", "index": 1}, {"name": "4K", "index": 2}], "2", ["1", "2"], None),
    ([{"name": "2K", "index": 1}, {"name": "4K", "index": 2}], "4K", ["2K", "4K"], None),
    ([{"name": "only a name"}], "", ["only a name"], None),
]


@pytest.mark.parametrize(("data", "value", "options", "default"), FIELDS)
async def test_field_data_in_every_form(
    data: object, value: object, options: list[str], default: str | None, client: Client, wire: WireServer
) -> None:
    app = await demo(client, wire, nodeInfoList=[node(fieldData=data, fieldValue=value, fieldType="int")])
    [only] = app.nodes
    assert [option.value for option in only.options] == options
    assert (only.default, only.field_type) == (default, "INT")
    assert only.field_value == (str(value).lower() if isinstance(value, bool) else str(value))


async def test_an_app_that_was_never_run_has_no_nodes(client: Client, wire: WireServer) -> None:
    empty: tuple[Any, ...] = ([], None, [{}], [{"nodeId": "1"}], "?")
    for nodes in empty:
        assert (await demo(client, wire, nodeInfoList=nodes)).nodes == ()
    assert (await demo(client, wire, accessEncrypted="true")).encrypted


async def test_the_key_in_the_address_is_logged_nowhere(
    client: Client, wire: WireServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wire.plays(cut(), reply("", status=502))
    app = await demo(client, wire)
    assert len(wire.asked) == 3
    assert "apiCallDemo" in caplog.text
    assert KEY not in caplog.text + repr(app) + app.model_dump_json()
    assert all(KEY not in repr(vars(record)) for record in caplog.records)


@pytest.mark.parametrize(("page", "size"), [(0, 10), (1, 0), (1, 51), (-1, 10)])
async def test_a_page_that_cannot_be_is_not_asked_for(page: int, size: int, client: Client, wire: WireServer) -> None:
    for call in (client.apps.list(page=page, size=size), client.platform.resources("LORA", page=page, size=size)):
        with pytest.raises(InputError, match="is not valid: page numbers start"):
            await call
    assert wire.asked == []
