"""Uploads: streamed from disk with an exact length, resent when something breaks, in flat memory."""

from __future__ import annotations

import gc
import tracemalloc
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.client import Client, Upload
from rh_prefect.client.upload_body import FileBody
from rh_prefect.errors import Busy, KeyRejected, MediaError, RequestRejected, ResponseLost
from tests.client.conftest import KEY
from tests.support.servers.scripted_server import Asked, Step, WireServer, cut, reply

LINK = "https://bucket.example.net/input/openapi/6f.png?q-sign-algorithm=sha1&x=1"
DONE = {
    "code": 0,
    "message": "success",
    "data": {"type": "image", "download_url": LINK, "fileName": "openapi/6f.png", "size": "3490"},
}


def part(asked: Asked) -> tuple[str | None, str, bytes]:
    head = f"Content-Type: {asked.headers['content-type']}\r\n\r\n".encode()
    parts: Any = BytesParser().parsebytes(head + asked.body).get_payload()
    [only] = parts
    return only.get_filename(), only.get_content_type(), only.get_payload(decode=True)


async def test_an_upload_is_one_form_field(client: Client, wire: WireServer, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(bytes(range(256)) * 10)
    wire.plays(reply(DONE))
    upload = await client.upload(photo, name='фото "1".png', mime="image/png")
    [asked] = wire.asked
    assert upload == Upload(url=LINK, file_name="openapi/6f.png", size=3490, kind="image")
    assert (asked.method, asked.path) == ("POST", "/openapi/v2/media/upload/binary")
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert "transfer-encoding" not in asked.headers
    assert part(asked) == ("______1_.png", "image/png", photo.read_bytes())
    assert b'name="file"' in asked.body


@pytest.mark.parametrize("step", [cut(), reply("<html>", status=502), reply("", status=429)])
async def test_an_upload_is_sent_again_whole(step: Step, client: Client, wire: WireServer, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"x" * 3_000_000)
    wire.plays(step, reply(DONE))
    await client.upload(photo, name="a.png", mime="image/png")
    assert [part(asked)[2] == photo.read_bytes() for asked in wire.asked] == [True, True]


async def test_memory_stays_flat(client: Client, wire: WireServer, tmp_path: Path) -> None:
    big = tmp_path / "big.mp4"
    with big.open("wb") as file:
        file.truncate(48 * 1024 * 1024)
    wire.keep_bodies = False
    wire.plays(reply(DONE))
    gc.collect()
    tracemalloc.start()
    try:
        await client.upload(big, name="big.mp4", mime="video/mp4")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert wire.sizes[0] > 48 * 1024 * 1024
    assert peak < 12 * 1024 * 1024


@pytest.mark.parametrize("change", [b"", b"longer than before"])
async def test_a_file_that_changes_on_the_way_is_told(change: bytes, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"as it was")
    body = FileBody(photo, name="a.png", mime="image/png")
    photo.write_bytes(change)
    with pytest.raises(MediaError, match="changed during its upload"):
        async for _ in body:
            pass


async def test_a_file_that_cannot_be_read_is_told(client: Client, wire: WireServer, tmp_path: Path) -> None:
    for path in (tmp_path / "missing.png", tmp_path):
        with pytest.raises(MediaError, match="cannot be read"):
            await client.upload(path, name="a.png", mime="image/png")
    assert wire.asked == []


async def test_an_upload_may_succeed_with_the_code_200(client: Client, wire: WireServer, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"x")
    wire.plays(reply({**DONE, "code": 200}), reply({"code": 200, "message": "success", "data": None}))
    assert (await client.upload(photo, name="a.png", mime="image/png")).url == LINK
    with pytest.raises(RequestRejected, match="code 200"):
        await client.upload(photo, name="a.png", mime="image/png")


async def test_a_refused_upload_is_told(client: Client, wire: WireServer, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"x")
    wire.plays(
        reply({"code": 401, "message": "ApiKey verification failed: ...", "data": None}),
        reply({"code": 809, "message": "APIKEY_FILE_SIZE_EXCEEDED", "data": None}),
        reply({"code": 808, "message": "APIKEY_UPLOAD_FAILED", "data": None}),
        reply("<html>", status=413),
        reply({"code": 0, "message": "success", "data": {"type": "image"}}),
        reply({"code": 0, "message": "success", "data": None}),
    )
    for error in (KeyRejected, RequestRejected, Busy, RequestRejected, ResponseLost, ResponseLost):
        with pytest.raises(error, match=r"upload of .*photo\.png"):
            await client.upload(photo, name="a.png", mime="image/png")
