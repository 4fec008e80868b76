"""What a link promised and what came: a page, half a file, nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from rh_prefect.media.probe import DownloadDefect, defect_of
from tests.support.samples import media as samples

PAGE = b"<!doctype html><html><body>Please try again later.</body></html>"


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("make", "extension"),
    [
        (samples.png, "png"),
        (samples.png, "jpg"),  # a link may be wrong about the form; what came is whole all the same
        (samples.mp4, "mp4"),
        (samples.wav, "wav"),
        (samples.glb, "glb"),
    ],
)
def test_a_whole_file_has_no_flaw(tmp_path: Path, make: Callable[[Path], Path], extension: str) -> None:
    assert defect_of(make(tmp_path / "a.part"), extension=extension) is None


NESTED = b"[" * 1000 + b"]" * 1000


@pytest.mark.parametrize(
    ("data", "extensions"),
    [
        (PAGE, "html htm"),
        (NESTED, "json txt bin"),
        (b"A text about <html> and <body>.", "txt"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"></svg>', "svg"),
        (b'{"html": "<html></html>"}', "json"),
        (b"v 0 0 0\nv 1 0 0\n", "obj"),
        (b"; FBX 7.4.0 project file\n", "fbx"),
        (b"solid x\nendsolid x\n", "stl"),
        (b"1\n00:00:00,000 --> 00:00:01,000\n<i>hi</i>\n\n", "srt"),
        (b"\0\1" * 300, "bin"),
    ],
)
def test_a_text_is_fine_where_a_text_may_come(tmp_path: Path, data: bytes, extensions: str) -> None:
    for extension in extensions.split():
        assert defect_of(written(tmp_path / "a.part", data), extension=extension) is None


PAGES = [
    PAGE,
    b"\xef\xbb\xbf\n<!-- a login -->\n<HTML lang='en'><body></body></HTML>",
    b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN"><html></html>',
    "<html><body>\u8bf7\u767b\u5f55</body></html>".encode("gb18030"),
    b"<!doctype html><pre>v 1 2 3\nv 1 2 3\n</pre>",
    b"<head><title>502</title></head>",
]
MESSAGE = b'{"code": 1003}'


@pytest.mark.parametrize(
    ("extensions", "contents"),
    [
        ("fbx stl obj psd srt json svg png", PAGES),
        ("fbx stl obj ply srt vtt", [MESSAGE]),
        ("png jpeg mp4 mp3 glb zip psd exr opus m4v pdf usdz", [PAGE, MESSAGE, b"busy"]),
    ],
)
def test_a_page_or_a_message_is_never_taken_for_a_file(tmp_path: Path, extensions: str, contents: list[bytes]) -> None:
    # Without a hash: however often it comes, it is not what was paid for.
    for extension in extensions.split():
        for data in contents:
            found = defect_of(written(tmp_path / "a.part", data), extension=extension)
            assert found == DownloadDefect("a web page or a message"), (extension, data)


@pytest.mark.parametrize("extension", ["", "bin", "txt", "md", "xyz"])
def test_a_page_where_the_format_is_open_is_known_again(tmp_path: Path, extension: str) -> None:
    # Should it be what the task has made, each download gives the same page.
    defect = defect_of(written(tmp_path / "a.part", PAGE), extension=extension)
    assert defect == DownloadDefect("a web page or a message", hashlib.sha256(PAGE).hexdigest())


def test_an_empty_file_is_one_only_where_it_may_be_empty(tmp_path: Path) -> None:
    empty = written(tmp_path / "a.part", b"")
    assert defect_of(empty, extension="png") == DownloadDefect("an empty file")
    assert defect_of(empty, extension="txt") == DownloadDefect("an empty file", hashlib.sha256(b"").hexdigest())


@pytest.mark.parametrize(("make", "extension"), [(samples.png, "png"), (samples.mp4, "mp4"), (samples.wav, "wav")])
def test_half_a_file_is_broken_and_known_again(tmp_path: Path, make: Callable[[Path], Path], extension: str) -> None:
    whole = make(tmp_path / "whole").read_bytes()
    half = whole[: len(whole) // 2]
    flaw = defect_of(written(tmp_path / "a.part", half), extension=extension)
    assert flaw == DownloadDefect(f"a broken {extension}", hashlib.sha256(half).hexdigest())
