"""The new upload and its links, the legacy upload, and LoRAs: announced, put to a signed link, loaded."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import zipfile
from pathlib import Path

import httpx
import pytest

from rh_prefect.emulator.comfy.graph import inputs_of
from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from tests.emulator.conftest import Emulate
from tests.support.samples import media as samples
from tests.support.servers.caller import CLIP, Caller, Json, node

PATH = "/openapi/v2/media/upload/binary"


def test_the_answer_has_both_names_and_a_signed_link(rh: Caller, tmp_path: Path) -> None:
    path = samples.png(tmp_path / "photo.PNG")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    answer = rh.upload(path)
    assert (answer["code"], answer["message"]) == (0, "success")
    link = answer["data"].pop("download_url")
    assert answer["data"] == {"type": "image", "fileName": f"openapi/{sha256}.png", "size": str(path.stat().st_size)}
    assert link.startswith(rh.rh.files_url)
    assert httpx.get(link).content == path.read_bytes()
    assert [(entry.sha256, entry.size) for entry in rh.rh.recorder.uploads] == [(sha256, path.stat().st_size)]


def test_links_of_a_server_on_all_addresses_have_the_host_of_the_request(emulate: Emulate, tmp_path: Path) -> None:
    rh = emulate(host="0.0.0.0")
    rh.http.base_url = rh.rh.url.replace("0.0.0.0", "localhost")
    files = rh.rh.files_url.replace("0.0.0.0", "localhost")
    link = rh.link(samples.png(tmp_path / "a.png"))
    result = rh.result(CLIP, {"prompt": "x", "imageUrl": link, "duration": "5", "sound": "false"})
    assert (link.startswith(f"{files}/"), result.startswith(f"{files}/")) == (True, True)
    assert httpx.get(result).status_code == 200
    native = f"/proxy/{rh.key}"
    taken = rh.http.post(f"{native}/prompt", json={"prompt": TEXT_TO_IMAGE}).json()["prompt_id"]
    (file,) = rh.http.get(f"{native}/history/{taken}").json()[taken]["outputs"]["9"]["images"]
    assert rh.http.get(f"{native}/view", params=file).status_code == 200


@pytest.mark.parametrize(
    ("name", "kind"), [("a.mp4", "video"), ("a.wav", "audio"), ("a.zip", "zip"), ("日本.jpg", "image")]
)
def test_types(rh: Caller, name: str, kind: str) -> None:
    answer = rh.http.post(PATH, files={"file": (name, b"content")}, headers=rh.bearer()).json()
    assert answer["data"]["type"] == kind


@pytest.mark.parametrize("form", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_what_is_no_form_with_a_file_is_refused(rh: Caller, form: str) -> None:
    headers = rh.bearer() | {"Content-Type": form}
    assert rh.http.post(PATH, headers=headers, content=b"--x\r\nfile=a.png").json()["code"] == 1007
    assert rh.rh.recorder.uploads == []


def test_a_link_dies_after_a_day_and_cannot_be_forged(rh: Caller, tmp_path: Path) -> None:
    link = rh.link(samples.png(tmp_path / "a.png"))
    assert httpx.get(link.partition("?")[0]).status_code == 403
    assert httpx.get(link.replace("q-sign-time=", "q-sign-time=9")).status_code == 403
    rh.rh.clock.advance(86_000)
    assert httpx.get(link).status_code == 200
    rh.rh.clock.advance(401)
    dead = httpx.get(link)
    assert dead.status_code == 403
    assert "<Code>AccessDenied</Code>" in dead.text
    assert httpx.get(rh.link(tmp_path / "a.png")).status_code == 200


def test_several_fields_and_files_of_one_form(rh: Caller) -> None:
    first, second = b"\r\n--almost a boundary\r\n" * 5000, b"second"
    files = {"note": ("n.png", second), "file": ("a.png", first)}
    answer = rh.http.post(PATH, data={"fileType": "input"}, files=files, headers=rh.bearer()).json()
    assert httpx.get(answer["data"]["download_url"]).content == first


BYTES = b"weights" * 1000
MD5 = hashlib.md5(BYTES).hexdigest()


def test_a_legacy_upload_has_a_name_and_no_link(rh: Caller, tmp_path: Path) -> None:
    path = samples.png(tmp_path / "a.PNG")
    content, sha256 = path.read_bytes(), hashlib.sha256(path.read_bytes()).hexdigest()
    assert rh.legacy(path.name, content)["data"] == {"fileName": f"api/{sha256}.png", "fileType": "input"}
    assert rh.legacy(path.name, content, fileType="image")["data"]["fileType"] == "image"
    assert httpx.get(f"{rh.rh.files_url}/api/{sha256}.png").status_code == 404
    task_id = rh.started("restyle", nodeInfoList=[node("10", "image", f"api/{sha256}.png")])
    assert rh.outputs(task_id)["code"] == 0
    assert rh.rh.recorder.uploads[0].key_name == "main"


def test_a_zip_has_a_bare_hash_for_its_name(rh: Caller, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.write(samples.png(tmp_path / "one.png"), "one.png")
    name = rh.legacy("a.zip", path.read_bytes())["data"]["fileName"]
    assert name == hashlib.sha256(path.read_bytes()).hexdigest()
    graph = copy.deepcopy(TEXT_TO_IMAGE)
    graph["10"] = {"class_type": "LoadImages(zip)", "inputs": {"upload": name}}
    graph["9"] = {"class_type": "SaveImage", "inputs": {"images": ["10", 0], "filename_prefix": "x"}}
    assert rh.outputs(rh.started(workflow=json.dumps(graph)))["code"] == 0


def test_a_zip_with_a_password_fails_the_task(rh: Caller) -> None:
    """The submit got HTTP 500."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as packed:
        packed.writestr("one.png", b"x")
    data = bytearray(held.getvalue())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag for encryption, in both headers
    graph = {
        "1": {
            "class_type": "LoadImages(zip)",
            "inputs": {"upload": rh.legacy("a.zip", bytes(data))["data"]["fileName"]},
        },
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    failed = rh.outputs(rh.started(workflow=json.dumps(graph)))["data"]["failedReason"]
    assert (failed["node_name"], "zip" in failed["exception_message"]) == ("LoadImages(zip)", True)


def test_legacy_refusals(rh: Caller) -> None:
    large = rh.legacy("a.png", b"x" * (30 * 1024 * 1024 + 1))
    assert large == {"code": 809, "msg": "APIKEY_FILE_SIZE_EXCEEDED", "errorMessages": None, "data": None}
    assert rh.legacy("a.png", b"x" * (30 * 1024 * 1024))["code"] == 0
    assert [rh.legacy("a.png", b"x", apiKey=key)["code"] for key in ("wrong", "")] == [802, 301]
    assert rh.post("/task/openapi/upload", {"apiKey": rh.key}).json()["code"] == 301
    assert len(rh.rh.recorder.uploads) == 1


def announce(rh: Caller, md5: str = MD5, **body: object) -> Json:
    return rh.v1("/api/openapi/getLoraUploadUrl", **{"loraName": "style", "md5Hex": md5, **body})


def with_lora(name: str) -> str:
    graph = copy.deepcopy(TEXT_TO_IMAGE)
    lora = {"strength_model": 1.0, "strength_clip": 1.0, "model": ["4", 0], "clip": ["4", 1]}
    graph["20"] = {"class_type": "RHLoraLoader", "inputs": {**lora, "file_name": name}}
    inputs_of(graph["3"])["model"] = ["20", 0]
    return json.dumps(graph)


def test_a_lora_is_put_once_and_loaded(rh: Caller) -> None:
    data = announce(rh)["data"]
    assert data["fileName"] == f"api-lora-cn/{MD5}.safetensors"
    assert data["url"].startswith(f"{rh.rh.files_url}/api-lora-cn/{MD5}.safetensors?q-sign-algorithm=sha1")
    early = rh.create(workflow=with_lora(data["fileName"]))
    assert json.loads(early["data"]["promptTips"])["node_errors"]["20"]["errors"][0]["type"] == "value_not_in_list"
    assert "url" in announce(rh)["data"]  # announced twice, sent never
    put = httpx.put(data["url"], content=BYTES, headers={"Content-Type": "application/octet-stream"})
    assert put.status_code == 200
    assert announce(rh, MD5.upper())["data"] == {"fileName": data["fileName"]}
    assert rh.outputs(rh.started(workflow=with_lora(data["fileName"])))["code"] == 0
    (entry,) = rh.rh.recorder.uploads
    assert (entry.file_name, entry.size) == (data["fileName"], len(BYTES))


@pytest.mark.parametrize(("change", "status"), [("key", 400), ("late", 403), ("signature", 403), ("bytes", 400)])
def test_a_put_that_the_storage_refuses(rh: Caller, change: str, status: int) -> None:
    url = announce(rh)["data"]["url"]
    if change == "late":
        rh.rh.clock.advance(3700)
    if change == "signature":
        url = url[:-1] + ("0" if url[-1] != "0" else "1")
    content = BYTES[1:] if change == "bytes" else BYTES
    assert httpx.put(url, content=content, headers=rh.bearer() if change == "key" else {}).status_code == status
    assert "url" in announce(rh)["data"]
    assert rh.rh.recorder.uploads == []


@pytest.mark.parametrize("wrong", [{"md5Hex": ""}, {"md5Hex": "xyz"}, {"loraName": " "}])
def test_an_announcement_is_checked(rh: Caller, wrong: Json) -> None:
    assert announce(rh, **wrong)["code"] == 301
