"""ComfyUI workflows: v1 and v2 starts, their options, their results, their price."""

from __future__ import annotations

import copy
import io
import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from rh_prefect.emulator import DEFAULT, Fault
from rh_prefect.emulator.accounts import Tier
from rh_prefect.emulator.comfy.workflows import RESTYLE, TEXT_TO_IMAGE
from rh_prefect.media.probe import probe
from tests.emulator.conftest import Emulate, lasting
from tests.support.samples import media as samples
from tests.support.servers.caller import Caller, Json, node


def download(url: str, to: Path) -> Path:
    to.write_bytes(httpx.get(url).content)
    return to


def tips(answer: Json) -> Json:
    read: Json = json.loads(answer["data"]["promptTips"])
    return read


def test_the_basic_start_by_v1(rh: Caller) -> None:
    answer = rh.create()
    assert (answer["code"], answer["msg"], answer["errorMessages"]) == (0, "success", None)
    data = answer["data"]
    assert data["netWssUrl"].startswith(rh.rh.url.replace("http", "ws"))
    assert f"clientId={data['clientId']}" in data["netWssUrl"]
    assert (len(data["taskId"]), data["taskStatus"]) == (19, "RUNNING")
    assert tips(answer) == {"result": True, "error": None, "outputs_to_execute": ["9"], "node_errors": {}}
    (entry,) = rh.rh.recorder.paid
    assert (entry.endpoint, entry.task_id) == ("/task/openapi/create", data["taskId"])
    assert entry.payload == {"workflowId": rh.rh.workflows.id_of("text-to-image")}


@pytest.mark.parametrize(
    ("name", "kind", "extension", "nodes"),
    [
        ("text-to-image", "image", "png", ["9"]),
        ("restyle", "image", "png", ["9", "14"]),
        ("image-to-video", "video", "mp4", ["60"]),
        ("music", "audio", "mp3", ["19"]),
    ],
)
def test_every_graph_makes_real_media_one_file_for_each_saving_node(
    rh: Caller, tmp_path: Path, name: str, kind: str, extension: str, nodes: list[str]
) -> None:
    answer = rh.outputs(rh.started(name))
    assert (answer["code"], answer["msg"]) == (0, "success")
    assert [(item["nodeId"], item["fileType"]) for item in answer["data"]] == [(node, extension) for node in nodes]
    for item in answer["data"]:
        assert probe(download(item["fileUrl"], tmp_path / f"x.{extension}")).kind == kind


def test_v2_starts_and_the_v2_query(rh: Caller) -> None:
    workflow = rh.rh.workflows.id_of("restyle")
    submitted = rh.submit(f"run/workflow/{workflow}", {"nodeInfoList": [], "usePersonalQueue": "false"})
    assert (submitted["status"], submitted["errorCode"], submitted["results"]) == ("RUNNING", "", None)
    assert json.loads(submitted["promptTips"])["outputs_to_execute"] == ["9", "14"]
    assert rh.rh.recorder.paid[0].endpoint == f"run/workflow/{workflow}"
    done = rh.query(submitted["taskId"])
    assert [result["nodeId"] for result in done["results"]] == ["9", "14"]
    assert done["usage"]["consumeMoney"] == str(rh.rh.recorder.charged)
    assert int(done["usage"]["taskCostTime"]) > 0


@pytest.mark.parametrize(
    ("tier", "paid"), [("SHARED", ("0.083", None)), ("NORMAL", (None, "17")), ("EXCLUSIVE", (None, None))]
)
def test_run_time_is_paid_for_by_tier(emulate: Emulate, tier: Tier, paid: tuple[str | None, str | None]) -> None:
    rh = emulate(durations=lasting(10.0, 82.4))
    mine = rh.other("mine", tier=tier, coins=20, money=1)
    task_id = mine.started("restyle")
    first, second = mine.outputs(task_id)["data"]
    assert (first["consumeMoney"], first["consumeCoins"]) == paid
    assert (first["taskCostTime"], first["thirdPartyConsumeMoney"]) == ("83", None)
    assert second["consumeCoins"] == first["consumeCoins"]  # of the task, not of the file
    account = mine.rh.keys["mine"].account
    assert (account.money, account.coins) == (1 - Decimal(paid[0] or 0), 20 - int(paid[1] or 0))
    assert (rh.rh.recorder.charged, rh.rh.recorder.coins) == (Decimal(paid[0] or 0), int(paid[1] or 0))


def test_larger_cards_and_kept_machines_cost_more(emulate: Emulate) -> None:
    rh = emulate(durations=lasting(10.0, 82.4))
    for more in ({"instanceType": "plus"}, {"retainSeconds": 17}, {"instanceType": "ultra"}):
        assert rh.create(**more)["code"] == 0
    assert [entry.charged for entry in rh.rh.recorder.paid] == [Decimal("0.166"), Decimal("0.1"), Decimal("0.332")]


def test_the_billing_gate_stands_before_the_lookup_and_the_graph(rh: Caller) -> None:
    poor, rich = rh.other("poor", tier="NORMAL", coins=0), rh.other("rich", tier="NORMAL")
    workflow = rh.rh.workflows.id_of("music")
    bodies: tuple[Json, ...] = (
        {"workflowId": ""},
        {"workflowId": workflow, "retainSeconds": 5},  # parameters come first
        {"workflowId": "1"},
        {"workflowId": workflow, "workflow": "{"},
    )
    assert [poor.v1("/task/openapi/create", **body)["code"] for body in bodies] == [301, 301, 414, 414]
    assert [rich.v1("/task/openapi/create", **body)["code"] for body in bodies] == [301, 301, 380, 433]
    assert [poor.submit(f"run/{kind}/1", {})["errorCode"] for kind in ("workflow", "ai-app")] == ["414", "414"]


def test_who_and_what_is_refused(rh: Caller) -> None:
    create = "/task/openapi/create"
    unsaved = rh.rh.workflows.add({}, saved=False)
    assert rh.v1(create, workflowId=unsaved)["code"] == 810
    assert rh.http.post(create, json={"workflowId": "1"}).json()["msg"] == "apiKey must not be blank"
    assert rh.http.post(create, json={"apiKey": "no", "workflowId": "1"}).json()["code"] == 802
    assert rh.submit("run/workflow/1", {})["errorCode"] == "380"
    rh.rh.workflows.add(TEXT_TO_IMAGE, name="locked", password="open sesame")
    assert [rh.create("locked", accessPassword=one)["code"] for one in ("no", "open sesame")] == [301, 0]
    assert "open sesame" not in repr(list(rh.rh.workflows))


@pytest.mark.parametrize(
    "wrong",
    [
        {"instanceType": 48},
        {"retainSeconds": 5},
        {"retainSeconds": "30"},
        {"usePersonalQueue": "yes"},
        {"webhookUrl": "ftp://x"},
        {"addMetadata": 1},
    ],
)
def test_options_are_checked(rh: Caller, wrong: Json) -> None:
    assert rh.create(**wrong)["code"] == 301
    workflow = rh.rh.workflows.id_of("music")
    assert rh.submit(f"run/workflow/{workflow}", wrong)["errorCode"] == "1007"


def test_the_workflow_json_is_text_inside_the_answer(rh: Caller) -> None:
    workflow = rh.rh.workflows.id_of("image-to-video")
    answer = rh.v1("/api/openapi/getJsonApiFormat", workflowId=workflow)
    assert (answer["code"], answer["msg"]) == (0, "SUCCESS")
    graph = json.loads(answer["data"]["prompt"])
    assert graph["60"]["class_type"] == "VHS_VideoCombine"
    asked: tuple[Json, ...] = ({"workflowId": int(workflow)}, {"workflowId": "7"}, {})
    assert [rh.v1("/api/openapi/getJsonApiFormat", **body)["code"] for body in asked] == [0, 380, 301]


def test_a_node_list_changes_the_picture(rh: Caller, tmp_path: Path) -> None:
    size = [node(5, "width", "512"), node("5", "height", 256), node("5", "batch_size", "2")]
    items = [node("6", "text", "a red barn"), *size, node("3", "seed", 1)]
    urls = [item["fileUrl"] for item in rh.outputs(rh.started(nodeInfoList=items))["data"]]
    assert len(urls) == 2
    facts = probe(download(urls[0], tmp_path / "a.png"))
    assert facts.width == 2 * (facts.height or 0)


def picture(rh: Caller, **body: Any) -> bytes:
    return httpx.get(rh.outputs(rh.started(**body))["data"][0]["fileUrl"]).content


def test_a_graph_that_comes_along_replaces_the_saved_one(rh: Caller) -> None:
    graph = copy.deepcopy(TEXT_TO_IMAGE)
    graph["99"] = graph.pop("9")
    text = json.dumps(graph)
    task_id = rh.started(workflow=text, nodeInfoList=[node("6", "text", "a barn")])  # it fits the saved graph
    assert [item["nodeId"] for item in rh.outputs(task_id)["data"]] == ["99"]
    assert len({picture(rh, workflow=text, addMetadata=False) for _ in range(2)}) == 1  # its seeds are kept
    assert rh.v1("/task/openapi/create", workflow=text)["code"] == 301
    graphs: tuple[Any, ...] = ("{", "[]", "{}", '{"1": 2}', {"1": {}})
    assert [rh.create(workflow=broken)["code"] for broken in graphs] == [433, 433, 433, 433, 433]


def test_metadata_is_in_the_picture_unless_it_is_not_wanted(rh: Caller) -> None:
    stamped, plain = picture(rh), picture(rh, addMetadata=False)
    for mark in (b"tEXtprompt\0", b"KSampler"):
        assert (mark in stamped, mark in plain) == (True, False)
    words = picture(rh, nodeInfoList=[node("6", "text", "a café, 海 😀")])
    graph = json.loads(Image.open(io.BytesIO(words)).info["prompt"])
    assert graph["6"]["inputs"]["text"] == "a café, 海 😀"


def test_a_dead_link_and_a_wrong_file_fail_the_node(rh: Caller, tmp_path: Path) -> None:
    sound = rh.upload(samples.wav(tmp_path / "a.wav"))["data"]["fileName"]
    for value in (sound, f"{rh.rh.files_url}/input/openapi/none.png?q-sign-time=1"):
        task_id = rh.started("restyle", nodeInfoList=[node("10", "image", value)])
        failed = rh.outputs(task_id)
        assert (failed["code"], failed["msg"]) == (805, "APIKEY_TASK_STATUS_ERROR")
        assert failed["data"]["failedReason"]["node_name"] == "LoadImage"
    assert rh.rh.recorder.charged > 0  # a failed graph is billed by its seconds


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([node("66", "text", "x")], "node_not_found_in_workflow, nodeId 66"),
        ([node("6", "txt", "x")], "no field 'txt'"),
        ([node("6", "clip", "x")], "clip is a link"),
        ([node("6", "text", None)], "fieldValue of text is missing"),
        ([{"nodeId": "6", "fieldName": "text"}], "fieldValue of text is missing"),
        (["6"], "must be an object"),
        ("6", "must be an array"),
        ({}, "must be an array"),
        ([{}], "node_not_found_in_workflow, nodeId (none)"),
    ],
)
def test_a_node_list_that_does_not_fit(rh: Caller, items: object, said: str) -> None:
    v1 = rh.create(nodeInfoList=items)
    v2 = rh.submit(f"run/workflow/{rh.rh.workflows.id_of('text-to-image')}", {"nodeInfoList": items})
    assert (v1["code"], v2["errorCode"]) == (803, "1101")
    assert said in v1["msg"] and said in v2["errorMessage"]
    assert rh.rh.recorder.paid == []


def test_bad_nodes_are_accepted_and_then_fail(rh: Caller) -> None:
    started = rh.create(nodeInfoList=[node("3", "sampler_name", "dreams")])
    told = tips(started)
    assert (started["code"], told["result"]) == (0, False)
    error = told["node_errors"]["3"]
    assert (error["errors"][0]["type"], error["class_type"]) == ("value_not_in_list", "KSampler")
    assert error["dependent_outputs"] == ["9"]
    failed = rh.outputs(started["data"]["taskId"])
    reason = failed["data"]["failedReason"]
    assert (failed["code"], reason["node_id"], isinstance(reason["traceback"], str)) == (805, "3", True)
    answer = rh.query(started["data"]["taskId"])
    assert (answer["status"], answer["errorCode"]) == ("FAILED", "1000")
    assert answer["failedReason"]["node_name"] == "KSampler"
    assert int(answer["usage"]["taskCostTime"]) > 0  # and billed


def test_a_graph_of_which_a_part_is_good_runs_in_part(rh: Caller) -> None:
    graph: dict[str, Any] = copy.deepcopy(RESTYLE)
    del graph["13"]["inputs"]["image"]
    rh.rh.workflows.add(graph, name="half")
    started = rh.create("half")
    told = tips(started)
    assert (told["result"], told["outputs_to_execute"], list(told["node_errors"])) == (True, ["9"], ["13"])
    assert [item["nodeId"] for item in rh.outputs(started["data"]["taskId"])["data"]] == ["9"]


def test_a_graph_with_nodes_of_its_own(rh: Caller) -> None:
    graph: dict[str, Any] = {
        "1": {"class_type": "MyLoader", "inputs": {"prompt": "a barn"}},
        "2": {"class_type": "MySaveVideo", "inputs": {"frames": ["1", 0]}},
    }
    rh.rh.workflows.add(json.dumps(graph), name="mine")
    (item,) = rh.outputs(rh.started("mine"))["data"]
    assert (item["nodeId"], item["fileType"]) == ("2", "mp4")
    graph["1"]["inputs"] |= {"length": "medium", "frame_rate": "8", "width": "wide"}
    assert rh.outputs(rh.started(workflow=json.dumps(graph)))["code"] == 0
    other = rh.create("text-to-image", workflow=json.dumps({"1": {"class_type": "NoSuch", "inputs": {}}}))
    assert other["code"] == 433
    assert "NoSuch does not exist" in other["msg"]


def test_limits_and_faults_are_those_of_every_submit(emulate: Emulate) -> None:
    rh = emulate(clock="polls", polls=9, limit=2)
    rh.rh.faults.add(Fault("submit", 1, "502", endpoint="/task/openapi/*"))
    with pytest.raises(ValueError, match="Expecting value"):
        rh.create()
    rh.rh.faults.add(Fault("submit", 1, "fail", message="out of memory"))
    failing = rh.started()
    assert rh.create()["code"] == 421
    assert rh.submit(f"run/workflow/{rh.rh.workflows.id_of('music')}", {})["errorCode"] == "421"
    rh.cancel(rh.rh.recorder.paid[0].task_id)
    for _ in range(9):
        answer = rh.query(failing)
    assert (answer["status"], answer["failedReason"]["exception_message"]) == ("FAILED", "out of memory")
    rh.rh.faults.add(Fault("submit", 1, "at-once"))
    assert rh.create()["data"]["taskStatus"] == "SUCCESS"


def test_a_cancelled_run_reports_the_seconds_it_ran(emulate: Emulate) -> None:
    rh = emulate(clock="real", factor=0, durations=lasting(0.0, 100.0))
    task_id = rh.started()
    rh.rh.clock.advance(10)
    rh.cancel(task_id)
    usage = rh.query(task_id)["usage"]
    assert (usage["taskCostTime"], usage["consumeMoney"]) == ("10", "0.01")
    assert (rh.rh.recorder.charged, rh.rh.recorder.paid[0].charged) == (Decimal("0.01"), Decimal("0.1"))


def test_a_run_without_a_duration_can_be_cancelled(emulate: Emulate) -> None:
    rh = emulate(clock="real", factor=0, long_side=1024, durations=lasting(0.0, 0.0))
    assert [rh.cancel(task_id)["code"] for task_id in [rh.started() for _ in range(3)]] == [0, 0, 0]


def test_moderation_looks_into_graphs(emulate: Emulate) -> None:
    rh = emulate(moderated=["storm"])
    task_id = rh.started(nodeInfoList=[node("6", "text", "a Storm")])
    assert rh.query(task_id)["errorCode"] == "1501"
    assert rh.outputs(task_id)["code"] == 805
    rh = emulate(moderated=["storm"], assumptions=replace(DEFAULT, moderated_at_submit=("1501", "")))
    assert rh.create(nodeInfoList=[node("6", "text", "a Storm")])["code"] == 1501
