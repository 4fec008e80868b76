"""AI apps, quick create, keys and the library: call example, lists, starts by v1 and v2."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from rh_prefect.emulator import AppField, Fault
from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from rh_prefect.errors import InputError
from tests.support.servers.caller import IMAGE_PRICE, Caller, Json, node, read

RESTYLE = "Portrait restyle"


def demo(rh: Caller, app_id: str) -> Json:
    return read(rh.http.get("/api/webapp/apiCallDemo", params={"apiKey": rh.key, "webappId": app_id}))


def run(rh: Caller, app_id: object, items: object, **more: object) -> Json:
    return rh.v1("/task/openapi/ai-app/run", webappId=app_id, nodeInfoList=items, **more)


def test_the_call_example_lists_typed_fields(rh: Caller) -> None:
    answer = demo(rh, rh.rh.apps.id_of(RESTYLE))
    assert (answer["code"], answer["msg"]) == (0, "success")
    data = answer["data"]
    assert (data["webappName"], data["accessEncrypted"]) == (RESTYLE, False)
    fields = {(item["nodeId"], item["fieldName"]): item for item in data["nodeInfoList"]}
    assert [item["fieldType"] for item in fields.values()] == ["IMAGE", "STRING", "LIST", "LIST", "FLOAT", "INT"]
    listed = json.loads(fields["4", "ckpt_name"]["fieldData"])
    assert [item["index"] for item in listed[:-1]] == ["sd_xl_base_1.0.safetensors", "flux1-dev-fp8.safetensors"]
    assert listed[-1]["default"] == "sd_xl_base_1.0.safetensors"
    assert json.loads(fields["3", "sampler_name"]["fieldData"])[0][:2] == ["euler", "euler_ancestral"]
    assert json.loads(fields["10", "image"]["fieldData"])[1] == {"image_upload": True}
    assert all(isinstance(value, str) for item in fields.values() for value in item.values())
    assert rh.key in data["curl"]  # which is why clients must not show it
    assert all(isinstance(value, str) for value in data["statisticsInfo"].values())
    assert rh.rh.recorder.requests[-1].path == "/api/webapp/apiCallDemo"


def test_the_whole_list_can_be_sent_back_and_results_carry_no_graph(rh: Caller) -> None:
    for app in rh.rh.apps:
        items = demo(rh, app.id)["data"]["nodeInfoList"]
        started = run(rh, int(app.id), items)
        assert json.loads(started["data"]["promptTips"])["node_errors"] == {}
        (first, *_) = rh.outputs(started["data"]["taskId"])["data"]
        assert b"tEXtprompt" not in httpx.get(first["fileUrl"]).content


def test_v2_starts(rh: Caller) -> None:
    app_id = rh.rh.apps.id_of("Still to clip")
    submitted = rh.submit(f"run/ai-app/{app_id}", {"nodeInfoList": [node("50", "length", "9")]})
    assert rh.query(submitted["taskId"])["results"][0]["outputType"] == "mp4"
    assert rh.submit("run/ai-app/5", {})["errorCode"] == "901"
    assert rh.submit(f"run/ai-app/{app_id}", {"nodeInfoList": [node("50", "width", 9)]})["errorCode"] == "1101"


def test_refusals(rh: Caller) -> None:
    app_id = rh.rh.apps.id_of(RESTYLE)
    assert run(rh, "5", [])["code"] == 901
    assert demo(rh, "5")["code"] == 901
    assert demo(rh, "")["code"] == 301
    assert rh.http.get("/api/webapp/apiCallDemo", params={"webappId": app_id}).json()["code"] == 301
    assert rh.http.get("/api/webapp/apiCallDemo", params={"webappId": app_id, "apiKey": "no"}).json()["code"] == 802
    assert rh.v1("/task/openapi/ai-app/run", webappId=app_id)["msg"] == "nodeInfoList must not be blank"
    assert rh.v1("/task/openapi/ai-app/run", nodeInfoList=[])["msg"] == "webappId must not be blank"
    refused = run(rh, app_id, [node("3", "steps", 5)])
    assert refused["code"] == 803
    assert refused["msg"].endswith("the app has no field steps of node 3")
    assert "node_not_found_in_workflow, nodeId 77" in run(rh, app_id, [node("77", "steps", 5)])["msg"]
    bad = run(rh, app_id, [node("3", "sampler_name", "no")])
    assert json.loads(bad["data"]["promptTips"])["result"] is False


def test_apps_of_a_test(rh: Caller) -> None:
    apps = rh.rh.apps
    locked = apps.add(TEXT_TO_IMAGE, [AppField("6", "text", "STRING", "Prompt")], name="Locked", password="x")
    never = apps.add(TEXT_TO_IMAGE, name="Never run", ran=False)
    assert demo(rh, locked)["data"]["accessEncrypted"] is True
    assert run(rh, locked, [])["code"] == 301
    assert run(rh, locked, [], accessPassword="x")["code"] == 0
    assert demo(rh, never)["data"]["nodeInfoList"] == []
    every = apps.add(TEXT_TO_IMAGE)
    types = {item["fieldName"]: item["fieldType"] for item in demo(rh, every)["data"]["nodeInfoList"]}
    assert (types["seed"], types["cfg"], types["scheduler"], types["text"]) == ("INT", "FLOAT", "LIST", "STRING")
    with pytest.raises(InputError, match="no node 6 with a field words"):
        apps.add(TEXT_TO_IMAGE, [AppField("6", "words", "STRING")])


def test_the_list_names_ids_only_inside_its_example_calls(rh: Caller) -> None:
    def browse(**body: object) -> Json:
        return read(rh.post("/openapi/v2/aiapp/list", body))

    page = browse(current=1, size=2, sort="HOTTEST", days=7)["data"]
    assert (page["current"], page["size"], page["total"], page["pages"], page["hasNext"]) == ("1", "2", "3", "2", True)
    first = page["records"][0]
    assert "webappId" not in first
    assert re.findall(r"/run/ai-app/(\d+)", first["invokeExample"]) == [rh.rh.apps.id_of(RESTYLE)]
    assert rh.key not in json.dumps(page)
    assert browse(current=2, size=2)["data"]["hasNext"] is False
    assert browse(size=500)["data"]["size"] == "50"
    assert [browse(**wrong)["code"] for wrong in ({"sort": "BEST"}, {"current": 0}, {"current": -1})] == [301, 0, 301]


def test_quick_create(rh: Caller) -> None:
    app_id = rh.rh.apps.id_of("Quick picture")
    styles = rh.http.post("/api/fast/creation/model/params", json={"type": 2, "webappId": app_id}).json()["data"]
    assert (styles[0]["modelLoar1Weight"], styles[0]["modelLoar2FileName"], styles[0]["type"]) == (0.7, None, 2)
    assert rh.http.post("/api/fast/creation/model/params", json={"webappId": app_id}).json()["code"] == 301
    items = [node("5", "batch_size", "2"), node("20", "Input", "2"), node("20", "text2", "a harbour")]
    body = {"webappId": app_id, "nodeInfoList": items}
    started = rh.v1("/task/openapi/quick-ai-app/run", quickCreateCode="002", **body)
    assert len(rh.outputs(started["data"]["taskId"])["data"]) == 2
    assert rh.v1("/task/openapi/quick-ai-app/run", quickCreateCode="003", **body)["code"] == 301
    assert rh.v1("/task/openapi/quick-ai-app/run", **body)["msg"] == "quickCreateCode must not be blank"
    assert [entry.endpoint for entry in rh.rh.recorder.paid] == ["/task/openapi/quick-ai-app/run"]


def test_the_keys_of_the_account_are_listed_without_their_values(rh: Caller) -> None:
    sibling = rh.rh.keys.add("sibling", account="main")
    rh.rh.keys.add("other")
    rh.submit()
    rh.rh.faults.add(Fault("submit", 1, "fail"))
    rh.query(rh.submit()["taskId"])  # paid back
    answer = rh.http.get("/openapi/v2/api-key/list", headers=rh.bearer()).json()
    assert answer["code"] == 0
    first, second = answer["data"]
    assert (first["apiKeyName"], first["status"], first["quotaUsed"]) == ("main", 1, float(IMAGE_PRICE))
    assert second["apiKeyName"] == "sibling"
    assert first["key"].startswith(rh.key[:4])
    assert rh.key not in str(answer)
    assert sibling.secret not in str(answer)


def resources(rh: Caller, **body: object) -> Json:
    return read(rh.post("/openapi/v2/resource/list", body))


def test_the_library_is_paged(rh: Caller) -> None:
    page = resources(rh, resourceType="LORA", current=2, size=25)["data"]
    counted = {"current": "2", "size": "25", "total": "60", "pages": "3", "hasNext": True, "hasPrevious": True}
    assert (page, len(page["records"])) == ({**page, **counted}, 25)
    last = resources(rh, resourceType="LORA", current=3, size=25)["data"]
    assert (len(last["records"]), last["hasNext"]) == (10, False)
    past = resources(rh, resourceType="LORA", size=51, current=9)["data"]
    assert (past["size"], past["records"]) == ("50", [])
    loaded = resources(rh, resourceType="CHECKPOINT")["data"]["records"][0]["nodeModelName"]
    assert '"result": true' in rh.create(nodeInfoList=[node("4", "ckpt_name", loaded)])["data"]["promptTips"]


def test_the_library_is_searched(rh: Caller) -> None:
    found = resources(rh, resourceType="LORA", resourceName="ink", baseModels=["FLUX.1"], tags=[12])["data"]["records"]
    assert [record["nodeModelName"] for record in found] == ["Ink_FLUX.1_v1.safetensors"]
    assert found[0]["versions"][0]["baseModel"] == "FLUX.1"
    assert resources(rh, resourceType="LORA", tags=[99])["data"]["records"] == []
    wrong: tuple[Json, ...] = ({"resourceType": "VAE"}, {}, {"resourceType": "GGUF", "tags": "x"})
    assert [resources(rh, **body)["code"] for body in wrong] == [301] * 3
