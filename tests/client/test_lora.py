"""LoRAs go to a signed address on another host; legacy uploads carry the key in a form."""

from __future__ import annotations

import hashlib
import logging
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.client import Client, Upload
from rh_prefect.client.client import LEGACY_UPLOAD_BYTES
from rh_prefect.errors import (
    Busy,
    ConnectFailed,
    InputError,
    LinkExpired,
    MediaError,
    RequestRejected,
    ResponseLost,
    RunningHubError,
)
from tests.client.conftest import KEY
from tests.support.servers.scripted_server import Asked, Step, WireServer, reply

SIGNED = "q-sign-algorithm=sha1&q-signature=0123456789abcdef0123456789abcdef"
NAME = "api-lora-cn/f8d9.safetensors"


def address(wire: WireServer, **more: object) -> Step:
    data = {"fileName": NAME, "url": f"{wire.url}/{NAME}?{SIGNED}", **more}
    return reply({"code": 0, "msg": "success", "data": data})


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    path = tmp_path / "style.safetensors"
    path.write_bytes(bytes(range(256)) * 10_000)
    return path


async def test_a_lora_is_put_without_the_key(
    client: Client, wire: WireServer, lora: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wire.plays(address(wire), reply(""))
    assert await client.upload_lora(lora, name="my style") == NAME
    wanted, put = wire.asked
    md5 = hashlib.md5(lora.read_bytes()).hexdigest()
    assert (wanted.path, wanted.json) == (
        "/api/openapi/getLoraUploadUrl",
        {"apiKey": KEY, "loraName": "my style", "md5Hex": md5},
    )
    assert (put.method, put.path, put.body) == ("PUT", f"/{NAME}?{SIGNED}", lora.read_bytes())
    assert put.headers["content-type"] == "application/octet-stream"
    assert "authorization" not in put.headers
    assert "transfer-encoding" not in put.headers
    assert KEY not in put.path + repr(put.headers)
    assert f"PUT {wire.url}/{NAME} " in caplog.text
    assert "0123456789abcdef" not in caplog.text


async def test_a_known_lora_is_not_sent(client: Client, wire: WireServer, lora: Path) -> None:
    for url in (None, "", "absent"):
        data = {"fileName": NAME} if url == "absent" else {"fileName": NAME, "url": url}
        wire.plays(reply({"code": 0, "msg": "success", "data": data}))
        assert await client.upload_lora(lora, name="x") == NAME
    assert {asked.method for asked in wire.asked} == {"POST"}


PUTS: list[tuple[Step, type[RunningHubError]]] = [
    (reply("<Error>expired</Error>", status=403), LinkExpired),
    (reply("", status=404), LinkExpired),
    (reply("", status=400), ResponseLost),
    (reply("", status=302, headers={"Location": "/elsewhere"}), ResponseLost),
]


@pytest.mark.parametrize(("step", "error"), PUTS)
async def test_a_refused_put(
    step: Step, error: type[RunningHubError], client: Client, wire: WireServer, lora: Path
) -> None:
    wire.plays(address(wire), step)
    with pytest.raises(error, match=r"upload of LoRA .*style\.safetensors") as caught:
        await client.upload_lora(lora, name="x")
    assert "0123456789abcdef" not in str(caught.value)
    assert len(wire.asked) == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"code": 301, "msg": "md5Hex must not be blank", "data": None}, RequestRejected),
        ({"code": 0, "msg": "success", "data": {"url": "https://x"}}, ResponseLost),
        ({"code": 0, "msg": "success", "data": {"fileName": NAME, "url": "ftp://x/y"}}, ResponseLost),
        ({"code": 0, "msg": "success", "data": {"fileName": NAME, "url": "http://[::1"}}, ResponseLost),
        ({"code": 0, "msg": "success", "data": {"fileName": NAME, "url": "http://no.invalid/x"}}, ConnectFailed),
    ],
)
async def test_no_address(
    answer: dict[str, object], error: type[RunningHubError], client: Client, wire: WireServer, lora: Path
) -> None:
    wire.plays(reply(answer))
    with pytest.raises(error):
        await client.upload_lora(lora, name="x")
    assert len(wire.asked) == 1


async def test_a_lora_that_cannot_be_is_not_sent(client: Client, wire: WireServer, lora: Path) -> None:
    with pytest.raises(InputError, match="needs a name"):
        await client.upload_lora(lora, name=" ")
    with pytest.raises(MediaError, match="cannot be read"):
        await client.upload_lora(lora.with_name("missing"), name="x")
    assert wire.asked == []


def parts(asked: Asked) -> dict[str, bytes]:
    head = f"Content-Type: {asked.headers['content-type']}\r\n\r\n".encode()
    found: Any = BytesParser().parsebytes(head + asked.body).get_payload()
    return {str(part.get_param("name", header="content-disposition")): part.get_payload(decode=True) for part in found}


async def test_a_legacy_upload_has_the_key_in_its_form(
    client: Client, wire: WireServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"\x89PNG\r\n\r\n--x")
    done = {"code": 0, "msg": "success", "data": {"fileName": "api/9c40.png", "fileType": "input"}}
    wire.plays(reply("", status=502), reply(done), reply(done))
    upload = await client.upload_legacy(photo, name="photo.png", mime="image/png")
    await client.upload_legacy(photo, name="photo.png", mime="image/png", file_type="image")
    assert upload == Upload(url="", file_name="api/9c40.png", size=photo.stat().st_size, kind="input")
    first, second, third = wire.asked
    assert (first.method, first.path) == ("POST", "/task/openapi/upload")
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert parts(second) == {"apiKey": KEY.encode(), "fileType": b"input", "file": photo.read_bytes()}
    assert parts(third)["fileType"] == b"image"
    assert KEY not in caplog.text


async def test_a_legacy_upload_has_a_limit(client: Client, wire: WireServer, tmp_path: Path) -> None:
    wire.keep_bodies = False
    wire.always = reply({"code": 0, "msg": "success", "data": {"fileName": "api/f", "fileType": "input"}})
    path = tmp_path / "f.zip"
    with path.open("wb") as file:
        file.truncate(LEGACY_UPLOAD_BYTES)
    await client.upload_legacy(path, name="f.zip", mime="application/zip")
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(MediaError, match=r"30 MB at most .* 809"):
        await client.upload_legacy(path, name="f.zip", mime="application/zip")
    assert len(wire.asked) == 1


async def test_a_refused_legacy_upload(client: Client, wire: WireServer, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"x")
    wire.plays(
        reply({"code": 809, "msg": "APIKEY_FILE_SIZE_EXCEEDED", "data": None}),
        reply({"code": 808, "msg": "APIKEY_UPLOAD_FAILED", "data": None}),
        reply({"code": 0, "msg": "success", "data": {"fileType": "input"}}),
    )
    for error in (RequestRejected, Busy, ResponseLost):
        with pytest.raises(error, match="legacy upload of"):
            await client.upload_legacy(photo, name="a.png", mime="image/png")
