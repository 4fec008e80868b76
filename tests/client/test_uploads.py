"""Uploads of files and LoRAs: streamed from disk with an exact length, resent if something breaks, in flat memory."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from rh_prefect.client import Client, Upload
from rh_prefect.client.client import LEGACY_UPLOAD_BYTES
from rh_prefect.client.upload_body import FileBody
from rh_prefect.errors import (
    Busy,
    ConnectFailed,
    InputError,
    KeyRejected,
    LinkExpired,
    MediaError,
    RequestRejected,
    ResponseLost,
    RunningHubError,
)
from tests.client.conftest import KEY, peak_memory
from tests.support.servers.scripted_server import Step, WireServer, cut, reply, said

LINK = "https://bucket.example.net/input/openapi/6f.png?q-sign-algorithm=sha1&x=1"
DONE = {
    "code": 0,
    "message": "success",
    "data": {"type": "image", "download_url": LINK, "fileName": "openapi/6f.png", "size": "3490"},
}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "photo.png").write_bytes(b"\r\n--" + bytes(range(256)) * 10)
    return tmp_path / "photo.png"


@pytest.mark.parametrize("code", [0, 200])
async def test_an_upload_is_one_form_field(code: int, client: Client, wire: WireServer, photo: Path) -> None:
    wire.plays(reply({**DONE, "code": code}))
    upload = await client.upload(photo, name='фото "1".png', mime="image/png")
    [asked] = wire.asked
    assert upload == Upload(url=LINK, file_name="openapi/6f.png", size=3490, kind="image")
    assert (asked.method, asked.path) == ("POST", "/openapi/v2/media/upload/binary")
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert "transfer-encoding" not in asked.headers
    [(name, part)] = asked.form.items()
    assert (name, part.get_filename(), part.get_content_type()) == ("file", "______1_.png", "image/png")
    assert part.get_payload(decode=True) == photo.read_bytes()


@pytest.mark.parametrize("step", [cut(), reply("<html>", status=502), reply("", status=429)])
async def test_an_upload_is_sent_again_whole(step: Step, client: Client, wire: WireServer, photo: Path) -> None:
    photo.write_bytes(b"x" * 3_000_000)
    wire.plays(step, reply(DONE))
    await client.upload(photo, name="a.png", mime="image/png")
    assert [asked.form["file"].get_payload(decode=True) for asked in wire.asked] == [photo.read_bytes()] * 2


async def test_memory_stays_flat(client: Client, wire: WireServer, tmp_path: Path) -> None:
    big = tmp_path / "big.mp4"
    with big.open("wb") as file:
        file.truncate(48 * 1024 * 1024)
    wire.keep_bodies = False
    wire.plays(reply(DONE))
    assert await peak_memory(client.upload(big, name="big.mp4", mime="video/mp4")) < 12 * 1024 * 1024
    assert wire.sizes[0] > 48 * 1024 * 1024


@pytest.mark.parametrize("change", [b"", b"x" * 10_000])
async def test_a_file_that_changes_on_the_way_is_told(change: bytes, photo: Path) -> None:
    body = FileBody(photo, name="a.png", mime="image/png")
    photo.write_bytes(change)
    with pytest.raises(MediaError, match="changed while it was being uploaded"):
        async for _ in body:
            pass


async def test_a_file_that_cannot_be_read_is_told(client: Client, wire: WireServer, tmp_path: Path) -> None:
    for path in (tmp_path / "missing.png", tmp_path):
        with pytest.raises(MediaError, match="cannot be read"):
            await client.upload(path, name="a.png", mime="image/png")
    assert wire.asked == []


SIGNED = "q-sign-algorithm=sha1&x=%2F&q-signature=0123456789abcdef0123456789abcdef"
NAME = "api-lora-cn/f8d9%20a.safetensors"


def address(wire: WireServer) -> Step:
    return said({"fileName": NAME, "url": f"{wire.url}/{NAME}?{SIGNED}"})


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
    assert wanted.path == "/api/openapi/getLoraUploadUrl"
    assert wanted.json == {"apiKey": KEY, "loraName": "my style", "md5Hex": md5}
    assert (put.method, put.path, put.body) == ("PUT", f"/{NAME}?{SIGNED}", lora.read_bytes())
    assert put.headers["content-type"] == "application/octet-stream"
    assert "authorization" not in put.headers
    assert "transfer-encoding" not in put.headers
    assert KEY not in put.path + repr(put.headers)
    assert f"PUT {wire.url}/{NAME} " in caplog.text
    assert "0123456789abcdef" not in caplog.text


async def test_a_known_lora_is_not_sent(client: Client, wire: WireServer, lora: Path) -> None:
    for url in ({}, {"url": None}, {"url": ""}):
        wire.plays(said({"fileName": NAME, **url}))
        assert await client.upload_lora(lora, name="x") == NAME
    assert {asked.method for asked in wire.asked} == {"POST"}


async def test_a_lora_that_cannot_be_is_not_sent(client: Client, wire: WireServer, lora: Path) -> None:
    with pytest.raises(InputError, match="needs a name"):
        await client.upload_lora(lora, name=" ")
    with pytest.raises(MediaError, match="cannot be read"):
        await client.upload_lora(lora.with_name("missing"), name="x")
    assert wire.asked == []


async def test_a_legacy_upload_has_the_key_in_its_form(
    client: Client, wire: WireServer, photo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    done = said({"fileName": "api/9c40.png", "fileType": "input"})
    wire.plays(reply("", status=502), done, done)
    upload = await client.upload_legacy(photo, name="photo.png", mime="image/png")
    await client.upload_legacy(photo, name="photo.png", mime="image/png", file_type="image")
    assert upload == Upload(url="", file_name="api/9c40.png", size=photo.stat().st_size, kind="input")
    first, *whole = wire.asked
    assert (first.method, first.path) == ("POST", "/task/openapi/upload")
    assert first.headers["authorization"] == f"Bearer {KEY}"
    forms = [{name: part.get_payload(decode=True) for name, part in asked.form.items()} for asked in whole]
    sent = {"apiKey": KEY.encode(), "file": photo.read_bytes()}
    assert forms == [{**sent, "fileType": b"input"}, {**sent, "fileType": b"image"}]
    assert KEY not in caplog.text


async def test_a_legacy_upload_has_a_limit(client: Client, wire: WireServer, tmp_path: Path) -> None:
    wire.keep_bodies = False
    wire.always = said({"fileName": "api/f", "fileType": "input"})
    path = tmp_path / "f.zip"
    with path.open("wb") as file:
        file.truncate(LEGACY_UPLOAD_BYTES)
    await client.upload_legacy(path, name="f.zip", mime="application/zip")
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(MediaError, match=r"30 MB at most .* 809"):
        await client.upload_legacy(path, name="f.zip", mime="application/zip")
    assert len(wire.asked) == 1


UPLOADS: dict[str, Callable[[Client, Path], Awaitable[object]]] = {
    "upload of": lambda client, path: client.upload(path, name="a.png", mime="image/png"),
    "legacy upload of": lambda client, path: client.upload_legacy(path, name="a.png", mime="image/png"),
    "upload of LoRA": lambda client, path: client.upload_lora(path, name="x"),
}
"""The kinds of uploads, by the words that begin their errors."""

TOO_LARGE = {"code": 809, "msg": "APIKEY_FILE_SIZE_EXCEEDED", "data": None}
FAILED = {"code": 808, "message": "APIKEY_UPLOAD_FAILED", "data": None}


@pytest.mark.parametrize(
    ("doing", "answer", "error"),
    [
        ("upload of", reply({"code": 401, "message": "ApiKey verification failed: ...", "data": None}), KeyRejected),
        ("upload of", reply(TOO_LARGE), RequestRejected),
        ("upload of", reply(FAILED), Busy),
        ("upload of", reply("<html>", status=413), RequestRejected),
        ("upload of", reply({"code": 200, "message": "success", "data": None}), RequestRejected),
        ("upload of", said({"type": "image"}), ResponseLost),
        ("upload of", said(None), ResponseLost),
        ("legacy upload of", reply(TOO_LARGE), RequestRejected),
        ("legacy upload of", reply(FAILED), Busy),
        ("legacy upload of", said({"fileType": "input"}), ResponseLost),
        ("upload of LoRA", reply({"code": 301, "msg": "md5Hex must not be blank", "data": None}), RequestRejected),
        ("upload of LoRA", said({"url": "https://x"}), ResponseLost),
        ("upload of LoRA", said({"fileName": NAME, "url": "ftp://x/y"}), ResponseLost),
        ("upload of LoRA", said({"fileName": NAME, "url": "http://[::1"}), ResponseLost),
        ("upload of LoRA", said({"fileName": NAME, "url": "http://no.invalid/x"}), ConnectFailed),
    ],
)
async def test_a_refused_upload_is_told(
    doing: str, answer: Step, error: type[RunningHubError], client: Client, wire: WireServer, photo: Path
) -> None:
    wire.plays(answer)
    with pytest.raises(error, match=rf"{doing} .*photo\.png"):
        await UPLOADS[doing](client, photo)
    assert len(wire.asked) == 1


@pytest.mark.parametrize(
    ("status", "error"), [(403, LinkExpired), (404, LinkExpired), (400, ResponseLost), (302, ResponseLost)]
)
async def test_a_refused_put(
    status: int, error: type[RunningHubError], client: Client, wire: WireServer, lora: Path
) -> None:
    wire.plays(address(wire), reply("", status=status, headers={"Location": "/elsewhere"}))
    with pytest.raises(error, match=r"upload of LoRA .*style\.safetensors") as caught:
        await client.upload_lora(lora, name="x")
    assert "0123456789abcdef" not in str(caught.value)
    assert len(wire.asked) == 2
