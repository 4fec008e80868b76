"""Inputs from everywhere, what is said when they cannot be read, and their one spelling."""

from __future__ import annotations

import hashlib
import logging
import uuid
from pathlib import Path

import fsspec
import pytest

from rh_prefect.errors import MediaError
from rh_prefect.media.ref import Media
from rh_prefect.media.source import fetch, identity_uri, open_input, shown, strip_signature
from rh_prefect.media.store import MediaStore
from tests.support import samples

PICTURE = samples.picture("PNG")
SIGNED = "X-Amz-Algorithm=AWS4&X-Amz-Credential=canary&X-Amz-Signature=canary"


@pytest.fixture(
    params=["path", "text", "home", "file", "escaped", "memory", "http", "redirect", "media", "stored", "s3"]
)
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, web: str):
    """One and the same picture, named in every way."""
    photo = samples.png(tmp_path / "my photo.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    memory = f"memory://{uuid.uuid4().hex}/photo.png"
    fsspec.filesystem("memory").pipe_file(memory, PICTURE)
    simple = {
        "path": photo,
        "text": str(photo),
        "home": "~/my photo.png",
        "file": f"file://{photo}",
        "escaped": photo.as_uri(),
        "memory": memory,
        "http": f"{web}/photo.png?{SIGNED}",
        "redirect": f"{web}/turn",
        "media": Media(uri=str(photo), kind="image", mime="image/png", size=1, sha256=""),
        "stored": MediaStore(f"memory://{uuid.uuid4().hex}").publish(photo, "a/é 1.png"),
    }
    if request.param != "s3":
        return simple[request.param], {}
    s3 = request.getfixturevalue("s3")
    return MediaStore(s3.url(), options=s3.options).publish(photo, "photo.png"), s3.options


def test_fetches_from_everywhere(source, tmp_path: Path):
    given, options = source
    got = fetch(given, tmp_path / "copy", options=options)
    assert (tmp_path / "copy").read_bytes() == PICTURE
    assert got == (hashlib.sha256(PICTURE).hexdigest(), len(PICTURE))


def test_opens_from_everywhere(source):
    given, options = source
    with open_input(given, options=options) as reader:
        assert reader.read(4) + reader.read() == PICTURE


def test_an_error_of_the_reading_code_is_its_own(source):
    given, options = source
    with pytest.raises(ZeroDivisionError), open_input(given, options=options):
        1 / 0  # noqa: B018


@pytest.fixture
def bad(tmp_path: Path, web: str) -> dict[str, object]:
    (tmp_path / "empty.png").touch()
    fsspec.filesystem("memory").makedirs("/a-folder/deeper", exist_ok=True)
    return {
        "missing": tmp_path / "no.png",
        "folder": tmp_path,
        "empty": tmp_path / "empty.png",
        "under": tmp_path / "empty.png" / "deeper.png",
        "memory": "memory://nothing/no.png",
        "memory-folder": "memory://a-folder",
        "404": f"{web}/status/404?{SIGNED}",
        "403": f"{web}/status/403?{SIGNED}&id=5",
        "503": f"{web}/status/503",
        "418": f"{web}/status/418",
        "empty-link": f"{web}/empty?{SIGNED}",
        "cut-link": f"{web}/cut?{SIGNED}",
        "nobody": f"http://me:canary@127.0.0.1:9/photo.png?{SIGNED}",
        "unknown": "s4://bucket/photo.png",
        "no-url": "http://",
        "data": "data:image/png;base64," + "A" * 10_000,
    }


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing", r"no\.png cannot be read: there is no such file"),
        ("folder", "there is a folder where a file was expected"),
        ("empty", r"empty\.png is empty"),
        ("under", "a part of the path is a file"),
        ("memory", r"no\.png cannot be read: there is no such file"),
        ("memory-folder", "there is a folder where a file was expected"),
        ("404", r"/status/404 cannot be read: its host has no such file \(HTTP 404\)"),
        ("403", r"/status/403 cannot be read: its host refuses it \(HTTP 403\).*sign the link anew"),
        ("503", "its host cannot serve it now"),
        ("418", "its host answered HTTP 418"),
        ("empty-link", "/empty is empty"),
        ("cut-link", "/cut cannot be read: the connection broke"),
        ("nobody", r"http://127.0.0.1:9/photo\.png cannot be read: nothing answers there"),
        ("unknown", "the address or a storage option is not accepted.*correct the address"),
        ("no-url", "this is no address"),
        ("data", "Save its content as a file"),
    ],
)
def test_says_why_it_cannot_be_read(bad, name: str, why: str, tmp_path: Path):
    with pytest.raises(MediaError, match=why) as caught:
        fetch(bad[name], tmp_path / "copy")
    assert "canary" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert not [path for path in tmp_path.iterdir() if path.name != "empty.png"]


@pytest.mark.s3
@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("{}/no.png", "there is no such file"),
        ("{}", "there is a folder where a file was expected"),
        ("s3://no-such-bucket/photo.png", "there is no such bucket"),
    ],
)
def test_says_why_s3_cannot_be_read(s3, uri: str, why: str, tmp_path: Path):
    url = s3.url()
    MediaStore(url, options=s3.options).write_bytes("a/photo.png", PICTURE)
    with pytest.raises(MediaError, match=why):
        fetch(uri.format(url), tmp_path / "copy", options=s3.options)


@pytest.mark.s3
def test_says_that_a_key_is_wrong_without_saying_the_key(s3, tmp_path: Path):
    options = {**s3.options, "secret": "canary-of-a-wrong-secret"}
    with pytest.raises(MediaError, match="the key or user may not do this") as caught:
        fetch(f"{s3.url()}/photo.png", tmp_path / "copy", options=options)
    assert "canary" not in str(caught.value)


def test_a_local_disk_that_fails_is_no_fault_of_the_input(tmp_path: Path):
    photo = samples.png(tmp_path / "photo.png")
    with pytest.raises(FileNotFoundError):
        fetch(photo, tmp_path / "no-such-folder" / "copy")


def test_signatures_are_not_logged(web: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        fetch(f"{web}/photo.png?{SIGNED}", tmp_path / "copy")
    assert "/photo.png" in caplog.text
    assert "canary" not in caplog.text


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/a.png", "https://h/a.png"),
        ("https://h/a.png?id=5&size=big", "https://h/a.png?id=5&size=big"),
        (f"https://h/a.png?{SIGNED}", "https://h/a.png"),
        (f"https://h/a.png?id=5&{SIGNED}#top", "https://h/a.png?id=5#top"),
        ("https://h/a?AWSAccessKeyId=1&Signature=2&Expires=3&versionId=4", "https://h/a?versionId=4"),
        ("https://h/a?Expires=3", "https://h/a?Expires=3"),
        ("https://h/a?sv=1&sr=b&sig=2", "https://h/a"),
        ("https://h/a?sv=1", "https://h/a?sv=1"),
        ("https://h/a?q-sign-algorithm=sha1&q-ak=1&q-signature=2&q-header-list=", "https://h/a"),
        ("https://h/a?OSSAccessKeyId=1&Expires=2&Signature=3", "https://h/a"),
        ("https://h/a?X-Goog-Signature=1&x-goog-date=2", "https://h/a"),
        ("s3://bucket/what?.png", "s3://bucket/what?.png"),
        (f"s3://bucket/a.png?{SIGNED}", "s3://bucket/a.png"),
    ],
)
def test_a_signature_is_left_out(url: str, expected: str):
    assert strip_signature(url) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a.png", "./x/../a.png"),
        ("~/a.png", "file://~/a.png"),
        ("/tmp/a b.png", "file:///tmp/a b.png"),
        ("/tmp/a b.png", "file:///tmp/a%20b.png"),
        (Path("/tmp/a.png"), "local:///tmp/a.png"),
        ("s3a://bucket/a.png", "S3://bucket/a.png"),
        (f"https://Host:443/a.png?{SIGNED}", "HTTPS://me:word@host/a.png#top"),
        ("http://host", "http://host:80/"),
    ],
)
def test_one_file_has_one_identity(one: str, other: str):
    assert identity_uri(one) == identity_uri(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a.png", "b.png"),
        ("https://host/a?id=1", "https://host/a?id=2"),
        ("https://host/a", "http://host/a"),
        ("https://host/a", "https://host/A"),
        ("s3://bucket/a.png", "s3://Bucket/a.png"),
    ],
)
def test_two_files_have_two(one: str, other: str):
    assert identity_uri(one) != identity_uri(other)


def test_identity_of_a_media_is_that_of_its_uri():
    media = Media(uri="s3://bucket/é 1.png", kind="image", mime="image/png", size=1, sha256="")
    assert identity_uri(media) == identity_uri(media.uri) == "s3://bucket/é 1.png"


def test_what_is_shown_has_no_query_and_no_user():
    assert shown("https://me:word@h/a.png?apikey=canary") == "https://h/a.png"
    assert shown("sftp://me:word@h/a.png") == "sftp://h/a.png"
    assert shown("what?.png") == "what?.png"
