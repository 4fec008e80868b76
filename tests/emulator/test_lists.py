"""The list of keys, the library of models, and the emulator's own switches over HTTP."""

from __future__ import annotations

import pytest

from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from rh_prefect.emulator.faults import fault_from_json
from tests.support.servers.caller import IMAGE_PRICE, Caller, Json, node


def test_the_keys_of_the_account_are_listed_without_their_values(rh: Caller) -> None:
    sibling = rh.rh.keys.add("sibling", account="main")
    rh.rh.keys.add("other")
    rh.submit()
    answer = rh.http.get("/openapi/v2/api-key/list", headers=rh.bearer()).json()
    assert answer["code"] == 0
    first, second = answer["data"]
    assert (first["apiKeyName"], first["status"], first["quotaUsed"]) == ("main", 1, float(IMAGE_PRICE))
    assert second["apiKeyName"] == "sibling"
    assert first["key"].startswith(rh.key[:4])
    assert rh.key not in str(answer)
    assert sibling.secret not in str(answer)


def resources(rh: Caller, **body: object) -> Json:
    answer: Json = rh.post("/openapi/v2/resource/list", body).json()
    return answer


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


def test_steering_from_another_process(rh: Caller) -> None:
    post = rh.http.post
    workflow = post("/_emulator/workflows", json={"graph": TEXT_TO_IMAGE, "name": "mine"}).json()["id"]
    assert rh.create("mine")["code"] == 0
    app = post("/_emulator/apps", json={"graph": TEXT_TO_IMAGE, "fields": [["6", "text", "STRING"]]}).json()["id"]
    assert rh.v1("/task/openapi/ai-app/run", webappId=app, nodeInfoList=[])["code"] == 0
    about = rh.http.get("/_emulator").json()
    assert {"id": workflow, "name": "mine"} in about["workflows"]
    assert app in [listed["id"] for listed in about["apps"]]
    assert post("/_emulator/options", json={"webhook_spacing": 2.5}).json()["webhook_spacing"] == 2.5
    assert rh.http.get("/_emulator/webhooks").json() == []
    for path, body in (("workflows", {}), ("workflows", {"graph": 1}), ("apps", []), ("options", {"no": 1})):
        assert post(f"/_emulator/{path}", json=body).status_code == 400


STARTS = ("/task/openapi/create", "/task/openapi/ai-app/run", "/task/openapi/quick-ai-app/run")
V1 = {
    "/task/openapi/status": "status",
    "/task/openapi/outputs": "outputs",
    "/task/openapi/upload": "legacy-upload",
    "/api/openapi/getLoraUploadUrl": "lora",
    "/api/openapi/getJsonApiFormat": "workflow",
    "/api/fast/creation/model/params": "quick-create",
    "/task/openapi/getWebhookDetail": "event",
    "/task/openapi/retryWebhook": "resend",
    **dict.fromkeys(STARTS, "submit"),
}


@pytest.mark.parametrize(("path", "route"), V1.items())
def test_every_v1_route_can_go_wrong(rh: Caller, path: str, route: str) -> None:
    rh.rh.faults.add(fault_from_json({"on": route, "number": 1, "kind": "code", "code": "500"}))
    rh.rh.faults.add(fault_from_json({"on": route, "number": 1, "kind": "502"}))
    answer = rh.v1(path)
    assert answer == {"code": 500, "msg": "UNKNOWN_ERROR", "errorMessages": None, "data": None}
    assert [entry.code for entry in rh.rh.recorder.submissions] == (["500"] if path in STARTS else [])
