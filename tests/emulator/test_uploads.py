"""The new upload, and its links."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.samples import media as samples
from tests.support.servers.caller import Caller

PATH = "/openapi/v2/media/upload/binary"


def test_the_answer_has_both_names_and_a_signed_link(rh: Caller, tmp_path: Path) -> None:
    path = samples.png(tmp_path / "photo.PNG")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    answer = rh.upload(path)
    assert (answer["code"], answer["message"]) == (0, "success")
    link = answer["data"].pop("download_url")
    assert answer["data"] == {
        "type": "image",
        "fileName": f"openapi/{sha256}.png",
        "size": str(path.stat().st_size),
    }
    assert link.startswith(rh.rh.files_url)
    assert httpx.get(link).content == path.read_bytes()
    assert [(entry.sha256, entry.size) for entry in rh.rh.recorder.uploads] == [(sha256, path.stat().st_size)]


@pytest.mark.parametrize(
    ("name", "kind"), [("a.mp4", "video"), ("a.wav", "audio"), ("a.zip", "zip"), ("日本.jpg", "image")]
)
def test_types(rh: Caller, name: str, kind: str) -> None:
    answer = rh.http.post(PATH, files={"file": (name, b"content")}, headers=rh.bearer()).json()
    assert answer["data"]["type"] == kind


def test_what_is_no_form_with_a_file_is_refused(rh: Caller) -> None:
    bodies: list[dict[str, Any]] = [
        {"files": {"other": ("a.png", b"x")}},
        {"files": {"file": ("a.png", b"")}},
        {"data": {"file": "a.png"}},
        {"json": {"file": "a.png"}},
        {"content": b"--x\r\nbroken", "headers": rh.bearer() | {"Content-Type": "multipart/form-data; boundary=x"}},
        {"content": b"x", "headers": rh.bearer() | {"Content-Type": "application/json"}},
    ]
    for body in bodies:
        assert rh.http.post(PATH, **{"headers": rh.bearer(), **body}).json()["code"] == 1007
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
