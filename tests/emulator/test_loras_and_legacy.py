"""The legacy upload, and LoRAs: announced, put to a signed link, loaded."""

from __future__ import annotations

import copy
import hashlib
import json
import zipfile
from pathlib import Path

import httpx
import pytest

from rh_prefect.emulator.comfy.graph import inputs_of
from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from tests.support.samples import media as samples
from tests.support.servers.caller import Caller, Json, node

BYTES = b"weights" * 1000
MD5 = hashlib.md5(BYTES).hexdigest()


def legacy(rh: Caller, name: str, content: bytes, **fields: str) -> Json:
    form = {"apiKey": rh.key, "fileType": "input"} | fields
    answer: Json = rh.http.post("/task/openapi/upload", data=form, files={"file": (name, content)}).json()
    return answer


def test_a_legacy_upload_has_a_name_and_no_link(rh: Caller, tmp_path: Path) -> None:
    path = samples.png(tmp_path / "a.PNG")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    answer = legacy(rh, path.name, path.read_bytes())
    assert answer["data"] == {"fileName": f"api/{sha256}.png", "fileType": "input"}
    assert legacy(rh, path.name, path.read_bytes(), fileType="image")["data"]["fileType"] == "image"
    assert httpx.get(f"{rh.rh.files_url}/api/{sha256}.png").status_code == 404
    task_id = rh.started("restyle", nodeInfoList=[node("10", "image", f"api/{sha256}.png")])
    assert rh.outputs(task_id)["code"] == 0
    assert rh.rh.recorder.uploads[0].key_name == "main"


def test_a_zip_has_a_bare_hash_for_its_name(rh: Caller, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.write(samples.png(tmp_path / "one.png"), "one.png")
    name = legacy(rh, "a.zip", path.read_bytes())["data"]["fileName"]
    assert name == hashlib.sha256(path.read_bytes()).hexdigest()
    graph = copy.deepcopy(TEXT_TO_IMAGE)
    graph["10"] = {"class_type": "LoadImages(zip)", "inputs": {"upload": name}}
    graph["9"] = {"class_type": "SaveImage", "inputs": {"images": ["10", 0], "filename_prefix": "x"}}
    assert rh.outputs(rh.started(workflow=json.dumps(graph)))["code"] == 0


def test_legacy_refusals(rh: Caller) -> None:
    large = legacy(rh, "a.png", b"x" * (30 * 1024 * 1024 + 1))
    assert large == {"code": 809, "msg": "APIKEY_FILE_SIZE_EXCEEDED", "errorMessages": None, "data": None}
    assert legacy(rh, "a.png", b"x" * (30 * 1024 * 1024))["code"] == 0
    assert legacy(rh, "a.png", b"x", apiKey="wrong")["code"] == 802
    assert legacy(rh, "a.png", b"x", apiKey="")["code"] == 301
    assert legacy(rh, "a.exe", b"x")["code"] == 301
    assert rh.post("/task/openapi/upload", {"apiKey": rh.key}).json()["code"] == 301
    assert rh.http.post("/task/openapi/upload", files={"apiKey": (None, rh.key)}).json()["code"] == 301
    assert len(rh.rh.recorder.uploads) == 1


def announce(rh: Caller, md5: str = MD5, **body: object) -> Json:
    return rh.v1("/api/openapi/getLoraUploadUrl", **{"loraName": "style", "md5Hex": md5, **body})


def with_lora(name: str) -> str:
    graph = copy.deepcopy(TEXT_TO_IMAGE)
    lora = {"strength_model": 1.0, "strength_clip": 1.0, "model": ["4", 0], "clip": ["4", 1]}
    graph["20"] = {"class_type": "RHLoraLoader", "inputs": {**lora, "file_name": name}}
    inputs_of(graph["3"])["model"] = ["20", 0]
    return json.dumps(graph)


def test_a_lora_is_put_and_loaded(rh: Caller) -> None:
    data = announce(rh)["data"]
    assert data["fileName"] == f"api-lora-cn/{MD5}.safetensors"
    assert data["url"].startswith(f"{rh.rh.files_url}/api-lora-cn/{MD5}.safetensors?q-sign-algorithm=sha1")
    early = rh.create(workflow=with_lora(data["fileName"]))
    assert json.loads(early["data"]["promptTips"])["node_errors"]["20"]["errors"][0]["type"] == "value_not_in_list"
    put = httpx.put(data["url"], content=BYTES, headers={"Content-Type": "application/octet-stream"})
    assert put.status_code == 200
    assert rh.outputs(rh.started(workflow=with_lora(data["fileName"])))["code"] == 0
    (entry,) = rh.rh.recorder.uploads
    assert (entry.file_name, entry.size) == (data["fileName"], len(BYTES))


def test_a_known_lora_needs_no_second_put(rh: Caller) -> None:
    data = announce(rh)["data"]
    assert "url" in announce(rh)["data"]  # announced twice, sent never
    httpx.put(data["url"], content=BYTES)
    assert announce(rh, MD5.upper())["data"] == {"fileName": data["fileName"]}


@pytest.mark.parametrize(
    ("change", "status"),
    [("key", 400), ("late", 403), ("signature", 403), ("bytes", 400)],
)
def test_a_put_that_the_storage_refuses(rh: Caller, change: str, status: int) -> None:
    url = announce(rh)["data"]["url"]
    if change == "late":
        rh.rh.clock.advance(3700)
    content = BYTES[1:] if change == "bytes" else BYTES
    headers = rh.bearer() if change == "key" else {}
    sent_to = url[:-1] + ("0" if url[-1] != "0" else "1") if change == "signature" else url
    assert httpx.put(sent_to, content=content, headers=headers).status_code == status
    assert "url" in announce(rh)["data"]
    assert rh.rh.recorder.uploads == []


@pytest.mark.parametrize("wrong", [{"md5Hex": ""}, {"md5Hex": "xyz"}, {"loraName": " "}])
def test_an_announcement_is_checked(rh: Caller, wrong: Json) -> None:
    assert announce(rh, **wrong)["code"] == 301
