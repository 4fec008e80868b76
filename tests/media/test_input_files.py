"""Inputs from everywhere, what is said when they cannot be read, and their one spelling."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import pytest

from rh_prefect.errors import MediaError
from rh_prefect.media.input_files import Source, fetch, file_state, identity_uri, open_input, shown, unsigned_uri
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from tests.support.samples import media as samples
from tests.support.servers.s3 import S3Server

PICTURE = samples.picture("PNG")
SIGNED = "X-Amz-Algorithm=AWS4&X-Amz-Credential=canary&X-Amz-Signature=canary"

Given = tuple[Source, Mapping[str, Any]]
"""An input and the storage options that it needs."""


@pytest.fixture(
    params=["path", "text", "home", "file", "escaped", "memory", "http", "redirect", "media", "stored", "s3"]
)
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, web: str) -> Given:
    """One and the same picture, named in every way."""
    photo = samples.png(tmp_path / "my photo.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    memory = f"memory://{uuid.uuid4().hex}/photo.png"
    fsspec.filesystem("memory").pipe_file(memory, PICTURE)
    simple: dict[str, Source] = {
        "path": photo,
        "text": str(photo),
        "home": "~/my photo.png",
        "file": f"file://{photo}",
        "escaped": photo.as_uri(),
        "memory": memory,
        "http": f"{web}/photo.png?{SIGNED}",
        "redirect": f"{web}/turn",
        "media": MediaStore(str(tmp_path)).describe(photo, photo.name).at(str(photo)),
        "stored": MediaStore(f"memory://{uuid.uuid4().hex}").publish(photo, "a/é 1.png"),
    }
    if request.param != "s3":
        return simple[request.param], {}
    s3: S3Server = request.getfixturevalue("s3")
    return MediaStore(s3.url(), options=s3.options).publish(photo, "photo.png"), s3.options


def test_a_file_is_fetched_and_opened_from_everywhere(source: Given, tmp_path: Path) -> None:
    given, options = source
    got = fetch(given, tmp_path / "copy", options=options)
    assert (tmp_path / "copy").read_bytes() == PICTURE
    assert got[:2] == (hashlib.sha256(PICTURE).hexdigest(), len(PICTURE))
    with open_input(given, options=options) as reader:
        assert reader.read(4) + reader.read() == PICTURE
    with pytest.raises(ZeroDivisionError), open_input(given, options=options):
        1 / 0  # noqa: B018


def test_a_media_whose_file_was_changed_is_not_fetched(tmp_path: Path) -> None:
    media = MediaStore(str(tmp_path / "store")).publish(samples.png(tmp_path / "a.png"), "a.png")
    with pytest.raises(FileNotFoundError):  # a local disk that fails is no fault of the input
        fetch(media, tmp_path / "no-such-folder" / "copy")
    samples.png(Path(media.uri), text="another")
    with pytest.raises(MediaError, match=r"was changed.*put the original file back"):
        fetch(media, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


UNREADABLE = {
    "{folder}/no.png": r"no\.png cannot be read: the file does not exist",
    "{folder}": "there is a folder where a file was expected",
    "{folder}/empty.png": r"empty\.png is empty",
    "{folder}/empty.png/deeper.png": "a part of the path is a file",
    "memory://nothing/no.png": r"no\.png cannot be read: the file does not exist",
    "memory://a-folder": "there is a folder where a file was expected",
    "{web}/status/404?{signed}": r"/status/404 cannot be read: the host has no such file \(HTTP 404\)",
    "{web}/status/403?{signed}&id=5": r"403 cannot be read: the host refuses access \(HTTP 403\).*sign the link again",
    "{web}/status/503": "the host cannot serve the file now",
    "{web}/status/418": "the host returned HTTP 418",
    "{web}/empty?{signed}": "/empty is empty",
    "{web}/cut?{signed}": "/cut cannot be read: the connection was interrupted",
    "http://me:canary@127.0.0.1:9/a.png?{signed}": r"http://127.0.0.1:9/a\.png cannot be read: no server answers",
    "s4://bucket/photo.png": "the address or a storage option is not accepted.*correct the address",
    "http://": "the URL is not valid",
    "data:image/png;base64," + "A" * 10_000: "What to do: save its content as a file",
}


@pytest.mark.parametrize("source", UNREADABLE)
def test_says_why_it_cannot_be_read(source: str, web: str, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    fsspec.filesystem("memory").makedirs("/a-folder/deeper", exist_ok=True)
    with pytest.raises(MediaError, match=UNREADABLE[source]) as caught:
        fetch(source.format(folder=tmp_path, web=web, signed=SIGNED), tmp_path / "copy")
    assert "canary" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert not [path for path in tmp_path.iterdir() if path.name != "empty.png"]


@pytest.mark.s3
@pytest.mark.parametrize(
    ("uri", "options", "why"),
    [
        ("{}/no.png", {}, "the file does not exist"),
        ("{}", {}, "there is a folder where a file was expected"),
        ("s3://no-such-bucket/photo.png", {}, "the bucket does not exist"),
        ("{}/a/photo.png", {"secret": "canary-of-a-wrong-secret"}, "the key or user does not have permission for this"),
    ],
)
def test_says_why_s3_cannot_be_read(s3: S3Server, uri: str, options: dict[str, str], why: str, tmp_path: Path) -> None:
    url = s3.url()
    MediaStore(url, options=s3.options).write_bytes("a/photo.png", PICTURE)
    with pytest.raises(MediaError, match=why) as caught:
        fetch(uri.format(url), tmp_path / "copy", options={**s3.options, **options})
    assert "canary" not in str(caught.value)


def test_signatures_are_not_logged(web: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        fetch(f"{web}/photo.png?{SIGNED}", tmp_path / "copy")
    assert "/photo.png" in caplog.text
    assert "canary" not in caplog.text


AMZ = "X-Amz-Algorithm=AWS4&X-Amz-Credential=1&X-Amz-Date=2&X-Amz-Expires=3&X-Amz-SignedHeaders=h&X-Amz-Signature=4"
GOOG = "X-Goog-Algorithm=1&X-Goog-Credential=2&X-Goog-Date=3&X-Goog-Expires=4&X-Goog-SignedHeaders=h&X-Goog-Signature=5"
COS = "q-sign-algorithm=sha1&q-ak=1&q-sign-time=2&q-key-time=3&q-header-list=&q-url-param-list=&q-signature=4"
OSS = "x-oss-signature-version=4&x-oss-credential=1&x-oss-date=2&x-oss-expires=3&x-oss-signature=5"


@pytest.mark.parametrize(
    ("query", "left"),
    [
        (AMZ, ""),
        (f"{AMZ}&X-Amz-Security-Token=6&versionId=7", "?versionId=7"),
        (f"id=5&{AMZ}#top", "?id=5"),
        ("AWSAccessKeyId=1&Signature=2&Expires=3&versionId=4", "?versionId=4"),
        (GOOG, ""),
        ("GoogleAccessId=1&Expires=2&Signature=3&generation=4", "?generation=4"),
        ("sv=1&sr=b&sp=r&se=2&sig=3&snapshot=4", "?snapshot=4"),
        ("OSSAccessKeyId=1&Expires=2&Signature=3&x-oss-process=image/resize", "?x-oss-process=image/resize"),
        (f"{OSS}&x-oss-process=image/resize", "?x-oss-process=image/resize"),
        (f"{COS}&q-page=7", "?q-page=7"),
        ("Expires=1&Signature=2&Key-Pair-Id=3&w=100", "?w=100"),
    ],
)
def test_a_presigned_link_has_a_second_name_without_its_signature(query: str, left: str) -> None:
    assert unsigned_uri(f"https://h/a.png?{query}") == f"https://h/a.png{left}"


@pytest.mark.parametrize(
    "source",
    [
        *("a.png", f"s3://bucket/a.png?{AMZ}", "https://h/a.png", "https://h/a.png?token=1", "https://h/a.png?sig=1"),
        *("https://h/a.png?q-image=1&q-signature=2", "https://h/a.png?x-oss-process=image/resize"),
        *("https://h/a.png?Expires=1", "https://h/a.png?Signature=1", "https://h/a.png?x-amz-signature=1"),
    ],
)
def test_what_is_no_presigned_link_has_no_second_name(source: str) -> None:
    assert unsigned_uri(source) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://h/a?token=1", "https://h/a?token=2"),
        ("https://h/a?sig=1", "https://h/a?sig=2"),
        ("https://h/a?q-page=1", "https://h/a?q-page=2"),
        ("https://h/a?x-oss-process=image/resize,w_1", "https://h/a?x-oss-process=image/resize,w_2"),
        ("https://me@h/a", "https://you@h/a"),
        (f"https://h/a?{AMZ}", "https://h/a"),
        ("s3://me:word@bucket/a.png", "s3://bucket/a.png"),
        ("https://h/a", "http://h/a"),
        ("https://h/a", "https://h/A"),
        ("s3://bucket/a.png", "s3://Bucket/a.png"),
    ],
)
def test_links_that_differ_in_anything_are_two_sources(one: str, other: str) -> None:
    assert identity_uri(one) != identity_uri(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a.png", "./x/../a.png"),
        ("~/a.png", "file://~/a.png"),
        ("/tmp/a b.png", "file:///tmp/a b.png"),
        ("/tmp/a b.png", "file:///tmp/a%20b.png"),
        (Path("/tmp/a.png"), "local:///tmp/a.png"),
        ("s3a://bucket/a.png", "S3://bucket/a.png"),
        ("https://me:Word@Host:443/a.png?id=1", "HTTPS://me:Word@host/a.png?id=1#top"),
        ("http://host", "http://host:80/"),
        (Media(uri="s3://b/é 1.png", kind="image", mime="image/png", size=1, sha256=""), "s3://b/é 1.png"),
    ],
)
def test_one_file_has_one_identity(one: Source, other: str) -> None:
    assert identity_uri(one) == identity_uri(other)


@pytest.mark.parametrize("link", ["https://[abc/x.csv?key=canary", "https://exa\u2100mple.com/x"])
def test_a_link_that_is_none_is_said(link: str) -> None:
    with pytest.raises(MediaError, match=r"https://.* is not a valid link\. What to do: correct the link") as caught:
        identity_uri(link)
    assert "canary" not in str(caught.value)
    with pytest.raises(MediaError, match="is not a valid link"):
        Media(uri=link, kind="other", mime="", size=1, sha256="").name  # noqa: B018


def test_what_is_shown_has_no_query_and_no_user() -> None:
    assert shown("https://me:word@h/a.png?apikey=canary") == "https://h/a.png"
    assert shown("sftp://me:word@h/a.png") == "sftp://h/a.png"
    assert shown("what?.png") == "what?.png"


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_what_has_no_end_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photo.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
    with pytest.raises(MediaError, match=r"photo\.png is a pipe, a device or a socket.*save its content"):
        fetch(path, tmp_path / "copy")
    with pytest.raises(MediaError, match="not a regular file"), open_input(path):
        pass


def test_a_stream_that_never_ends_is_given_up(tmp_path: Path, web: str) -> None:
    with pytest.raises(MediaError, match=r"/drip was not complete after 1 s of reading"):
        fetch(f"{web}/drip", tmp_path / "copy", seconds=1)


def test_a_length_is_checked_before_anything_is_read(tmp_path: Path, web: str) -> None:
    def refuse(size: int) -> None:
        raise MediaError(f"{size} bytes is too large")

    for source in (samples.png(tmp_path / "photo.png"), f"{web}/photo.png"):
        with pytest.raises(MediaError, match=f"^{len(PICTURE)} bytes"):
            fetch(source, tmp_path / "copy", check_size=refuse)


def test_a_local_file_s_state_tells_it_from_one_with_equal_size_and_time(tmp_path: Path) -> None:
    photo = samples.png(tmp_path / "photo.png")
    first = file_state(photo)
    other = tmp_path / "other.png"
    other.write_bytes(photo.read_bytes())
    os.utime(other, ns=(photo.stat().st_atime_ns, photo.stat().st_mtime_ns))
    other.replace(photo)
    assert file_state(photo) != first


@pytest.mark.s3
def test_an_object_s_state_is_asked_for_and_not_remembered(s3: S3Server) -> None:
    store = MediaStore(s3.url(), options=s3.options)
    store.write_bytes("photo.png", PICTURE)
    reader = MediaStore(store.url, options=s3.options)
    reader.list()
    uri = store.uri("photo.png")
    first = file_state(uri, options=s3.options)
    assert first.size == len(PICTURE)
    assert first == file_state(uri, options=s3.options)
    store.write_bytes("photo.png", PICTURE[:-1] + b"!")
    assert file_state(uri, options=s3.options) != first


def test_only_a_strong_etag_is_a_link_s_state(web: str) -> None:
    queries = ("?etag=%22one%22", "?etag=%22two%22", "?etag=W/%22one%22", "")
    one, two, weak, none = (file_state(f"{web}/photo.png{query}") for query in queries)
    assert one.stamp is not None
    assert one != two
    assert (one.size, weak.stamp, none.stamp) == (len(PICTURE), None, None)
