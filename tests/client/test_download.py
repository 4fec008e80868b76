"""Downloads: resumed, checked, and never with the key."""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
from pathlib import Path

import httpx
import pytest

from rh_prefect.client import Client, Download, discard_partial
from rh_prefect.client.download import CHUNK, download, resume_note
from rh_prefect.client.http_connections import EnvironmentTransport
from rh_prefect.errors import LinkExpired, ResponseLost, RunningHubError, StoreError
from tests.client.conftest import peak_memory
from tests.support.servers.scripted_server import BODY, TAG, Asked, Step, WireServer, cut, raw, reply, serve

DATE = "Tue, 04 Nov 2025 10:00:00 GMT"
DATED = {"Last-Modified": DATE}


class Downloads:
    """Downloads from a host, by default to one file."""

    def __init__(self, client: Client, host: WireServer, to: Path) -> None:
        self.client, self.host, self.to = client, host, to

    async def fetched(self, name: str = "a.mp4") -> bytes:
        """The bytes of the file after a download of this name."""
        got = await self.client.download(f"{self.host.url}/{name}", self.to)
        content = self.to.read_bytes()
        assert got == Download(size=len(content))
        return content

    async def fails(
        self, name: str = "a.mp4", *, error: type[RunningHubError] = ResponseLost, match: str | None = None
    ) -> RunningHubError:
        with pytest.raises(error, match=match) as caught:
            await self.client.download(f"{self.host.url}/{name}", self.to)
        return caught.value

    @property
    def ranges(self) -> list[tuple[str, str] | None]:
        """The range and its condition of each request."""
        headers = [asked.headers for asked in self.host.asked]
        return [(each["range"], each["if-range"]) if "range" in each else None for each in headers]


@pytest.fixture
def downloads(client: Client, wire: WireServer, tmp_path: Path) -> Downloads:
    return Downloads(client, wire, tmp_path / "a.part")


@pytest.mark.parametrize("url", ["data:text/plain;base64,aGVsbG8=", "data:,hello", "data:text/plain,hel%6Co"])
async def test_a_data_url_is_decoded_to_a_file(client: Client, tmp_path: Path, url: str) -> None:
    assert await client.download(url, tmp_path / "deep" / "a.txt.part") == Download(size=5)
    assert (tmp_path / "deep" / "a.txt.part").read_bytes() == b"hello"


@pytest.mark.parametrize("head", ["data:;base64", "data:image/png;BASE64 "])
@pytest.mark.parametrize("text", ["+/+/aGk=", "-_-_aGk=", "+/ +/\naGk%3D", "%2B/+/aGk="])
async def test_base64_of_either_alphabet_is_decoded(client: Client, tmp_path: Path, head: str, text: str) -> None:
    await client.download(f"{head},{text}", tmp_path / "a.part")
    assert (tmp_path / "a.part").read_bytes() == b"\xfb\xff\xbfhi"


@pytest.mark.parametrize("text", ["@@@", "aGk", "aG@k", "aGk=aGk=", "\u00e9"])
async def test_base64_that_cannot_be_decoded_is_said(client: Client, tmp_path: Path, text: str) -> None:
    with pytest.raises(LinkExpired, match="not valid base64"):
        await client.download(f"data:;base64,{text}", tmp_path / "a.part")
    assert not (tmp_path / "a.part").exists()


async def test_a_download_carries_no_key(client: Client, wire: WireServer, tmp_path: Path) -> None:
    wire.plays(serve())
    told: list[tuple[int, int | None]] = []
    to = tmp_path / "deep" / "er" / "a.mp4.part"
    got = await client.download(f"{wire.url}/a.mp4?sign=1", to, progress=lambda *each: told.append(each))
    assert (got, to.read_bytes()) == (Download(size=len(BODY)), BODY)
    assert told[-1] == (len(BODY), len(BODY))
    assert "authorization" not in wire.asked[0].headers
    assert wire.asked[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("stop", [0, 1, 1000, CHUNK, 2 * CHUNK + 7, len(BODY) - 1])
async def test_a_cut_download_goes_on_where_it_was(stop: int, downloads: Downloads) -> None:
    downloads.host.plays(serve(stop=stop), serve())
    await downloads.fails(match=rf"{stop} of {len(BODY)} bytes are kept" if stop else "incomplete")
    assert downloads.to.read_bytes() == BODY[:stop]
    assert await downloads.fetched("a.mp4?signed=anew") == BODY
    assert downloads.ranges == [None, (f"bytes={stop}-", TAG) if stop else None]


@pytest.mark.parametrize("is_cut", [True, False])
async def test_an_error_does_not_promise_a_rest_that_the_next_call_cannot_request(
    downloads: Downloads, *, is_cut: bool
) -> None:
    short = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    downloads.host.plays(serve(tag="", stop=1000) if is_cut else short, serve())
    await downloads.fails(match=r"^(?!.*(are kept|continues))")
    assert await downloads.fetched() == BODY
    assert downloads.ranges == [None, None]


async def test_a_finished_download_is_not_asked_for_again(downloads: Downloads) -> None:
    downloads.host.plays(serve())
    assert [await downloads.fetched() for _ in range(2)] == [BODY, BODY]
    discard_partial(downloads.to)
    assert (downloads.to.exists(), resume_note(downloads.to).exists()) == (False, False)
    downloads.host.plays(raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
    assert [await downloads.fetched() for _ in range(2)] == [b"abc", b"abc"]
    assert len(downloads.host.asked) == 2


async def test_the_bytes_of_another_file_are_not_gone_on_with(downloads: Downloads) -> None:
    other = os.urandom(len(BODY))
    downloads.host.plays(serve(other, tag='"v0"', stop=CHUNK), serve())
    await downloads.fails()
    assert await downloads.fetched() == BODY  # If-Range fails: 200 with everything
    downloads.host.plays(serve(other, stop=CHUNK), serve())
    await downloads.fails("b.mp4")
    assert await downloads.fetched() == BODY  # the note names another link
    assert downloads.ranges[-1] is None


@pytest.mark.parametrize("tag", ["strong", "weak", ""])
async def test_a_link_with_other_parameters_is_another_file_unless_its_tag_is_equal(
    downloads: Downloads, tag: str
) -> None:
    """A host that names the file in the query: `view?file=a` and `view?file=b` have one address and often one date."""
    tags = [{"strong": f'"{name}"', "weak": 'W/"x"', "": ""}[tag] for name in "ab"]
    other = os.urandom(len(BODY))
    downloads.host.plays(serve(tag=tags[0], more=DATED), serve(other, tag=tags[1], more=DATED))
    assert await downloads.fetched("view?file=a") == BODY
    assert await downloads.fetched("view?file=b") == other
    downloads.host.plays(serve(tag=tags[0], stop=CHUNK, more=DATED), serve(other, tag=tags[1] or DATE))
    await downloads.fails("view?file=a")
    assert await downloads.fetched("view?file=b") == other


async def test_a_finished_download_is_confirmed_by_a_new_link(downloads: Downloads) -> None:
    downloads.host.plays(serve(), serve())
    assert [await downloads.fetched(f"a.mp4?sign={sign}") for sign in (1, 2, 2)] == [BODY] * 3
    assert downloads.ranges == [None, (f"bytes={len(BODY)}-", TAG)]


@pytest.mark.parametrize("note", [None, b"", b"{", b"[]", b'{"source": 1}'])
async def test_bytes_without_a_note_are_not_gone_on_with(note: bytes | None, downloads: Downloads) -> None:
    downloads.to.write_bytes(b"somebody else's")
    if note is not None:
        resume_note(downloads.to).write_bytes(note)
    downloads.host.plays(serve())
    assert await downloads.fetched() == BODY


def rest(first: int, total: int | str, body: bytes, *, tag: str = TAG, **headers: str) -> Step:
    """An answer to a request for the rest of a file."""
    of = f"bytes {first}-{first + len(body) - 1}/{total}"
    return reply(body, status=206, headers={"ETag": tag, "Content-Range": of, **headers})


REST, PACKED = BODY[CHUNK:], gzip.compress(BODY[CHUNK:])
CHUNKED_HEAD = f"HTTP/1.1 200 OK\r\nETag: {TAG}\r\nTransfer-Encoding: chunked\r\n\r\n{len(BODY):x}\r\n".encode()
AFTER_CUT = (f"bytes={CHUNK}-", TAG)
RESUMED: dict[str, tuple[list[Step], list[tuple[str, str] | None]]] = {
    "only a weak tag": ([serve(tag='W/"weak"', stop=CHUNK), serve(tag='W/"weak"')], [None, None]),
    "a date": (
        [serve(tag="", stop=CHUNK, more=DATED), serve(tag=DATE, more={**DATED, "ETag": ""})],
        [None, (f"bytes={CHUNK}-", DATE)],
    ),
    "unknown total": ([serve(stop=CHUNK), rest(CHUNK, "*", REST)], [None, AFTER_CUT]),
    "416 at the end": ([raw(CHUNKED_HEAD + BODY), serve()], [None, (f"bytes={len(BODY)}-", TAG)]),
    **{
        f"{words}: everything again": ([serve(stop=CHUNK), answer, serve()], [None, AFTER_CUT, None])
        for words, answer in {
            "another start": rest(CHUNK - 1, len(BODY), REST),
            "another total": rest(CHUNK, len(BODY) + 5, REST),
            "another tag": rest(CHUNK, len(BODY), REST, tag='"v2"'),
            "no range": reply(REST, status=206),
            "not satisfiable": reply("x", status=416, headers={"Content-Range": f"bytes */{CHUNK - 1}"}),
            "not satisfiable, no total": reply("x", status=416),
            "compressed": reply(
                PACKED,
                status=206,
                headers={"Content-Encoding": "gzip", "Content-Range": f"bytes {CHUNK}-{len(BODY) - 1}/{len(BODY)}"},
            ),
        }.items()
    },
}
"""Answers of a host to a download that breaks off and one that completes it; the ranges that are asked for."""


@pytest.mark.parametrize("kind", RESUMED)
async def test_a_rest_is_used_if_it_fits(kind: str, downloads: Downloads) -> None:
    answers, ranges = RESUMED[kind]
    downloads.host.plays(*answers)
    await downloads.fails()
    assert await downloads.fetched() == BODY
    assert downloads.ranges == ranges


async def test_a_wrong_length_is_detected(downloads: Downloads) -> None:
    downloads.host.plays(serve(stop=CHUNK), rest(CHUNK, len(BODY), REST[:-3]))
    for _ in range(2):
        await downloads.fails()
    assert downloads.to.stat().st_size == len(BODY) - 3
    downloads.host.plays(rest(len(BODY) - 3, len(BODY), b"more than there is"), serve())
    await downloads.fails(match="announced")
    assert await downloads.fetched() == BODY


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_a_dead_link_is_told_without_its_signature(status: int, downloads: Downloads) -> None:
    downloads.host.plays(reply("<Error/>", status=status))
    told = await downloads.fails("a.mp4?q-signature=0123456789abcdef", error=LinkExpired, match=str(status))
    assert "0123456789abcdef" not in str(told)
    assert not downloads.to.exists()


async def test_a_dead_link_keeps_what_has_come(downloads: Downloads) -> None:
    downloads.host.plays(serve(stop=CHUNK), reply("", status=403), serve())
    await downloads.fails()
    await downloads.fails(error=LinkExpired)
    assert await downloads.fetched() == BODY
    assert downloads.ranges[2] == AFTER_CUT


@pytest.mark.parametrize("url", ["", "a.mp4", "ftp://h.example/a", "file:///etc/passwd", "http://\x00/"])
async def test_a_link_that_is_none_is_dead(url: str, client: Client, tmp_path: Path) -> None:
    with pytest.raises(LinkExpired):
        await client.download(url, tmp_path / "a.part")


async def test_a_file_host_that_fails_is_asked_again(downloads: Downloads) -> None:
    downloads.host.plays(cut(), reply("", status=503), serve())
    assert await downloads.fetched() == BODY
    downloads.host.always = reply("", status=500)
    await downloads.fails("b.mp4", match="HTTP 500")


async def test_redirects_are_followed_and_their_signatures_are_in_no_log(
    downloads: Downloads, caplog: pytest.LogCaptureFixture
) -> None:
    to_signed = reply("", status=302, headers={"Location": "/b.mp4?Signature=second"})
    downloads.host.plays(to_signed, serve(), to_signed, serve())
    with caplog.at_level(logging.INFO):
        assert await downloads.fetched("a.mp4?Signature=first") == BODY
        discard_partial(downloads.to)
        assert await downloads.fetched("a.mp4") == BODY
    signed = "/b.mp4?Signature=second"
    assert downloads.host.paths == ["/a.mp4?Signature=first", signed, "/a.mp4", signed]
    assert f"GET {downloads.host.url}/b.mp4 " in caplog.text
    assert "Signature" not in caplog.text
    downloads.host.always = reply("", status=302, headers={"Location": "/a.mp4"})
    await downloads.fails("c.mp4", match="too many redirects")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_place_that_cannot_be_written_is_told(downloads: Downloads, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "full").symlink_to("/dev/full")
    for name in ("file/a.part", "folder", "full"):
        downloads.host.plays(serve())
        downloads.to = tmp_path / name
        await downloads.fails(error=StoreError, match="cannot be saved here")


async def test_an_empty_and_a_compressed_body_are_files(downloads: Downloads) -> None:
    downloads.host.plays(serve(b""), reply(gzip.compress(BODY), headers={"Content-Encoding": "gzip"}))
    assert await downloads.fetched("a.txt") == b""
    assert await downloads.fetched() == BODY


async def test_a_silent_host_is_given_up(tmp_path: Path, wire: WireServer) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY[:CHUNK])
        return not await reader.read()  # until the client goes

    wire.plays(silent)
    async with httpx.AsyncClient(transport=EnvironmentTransport(httpx.Limits())) as short:
        short.timeout = httpx.Timeout(300, read=1)
        with pytest.raises(ResponseLost, match="no response arrived in time"):
            await download(short, f"{wire.url}/a.mp4", tmp_path / "a.part")
    assert (tmp_path / "a.part").read_bytes() == BODY[:CHUNK]


async def test_memory_stays_flat(downloads: Downloads) -> None:
    async def big(_: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> bool:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {48 * CHUNK}\r\n\r\n".encode())
        for _i in range(48):
            writer.write(b"\0" * CHUNK)
            await writer.drain()
        return True

    downloads.host.plays(big)
    assert await peak_memory(downloads.client.download(f"{downloads.host.url}/a.mp4", downloads.to)) < 12 * CHUNK
    assert downloads.to.stat().st_size == 48 * CHUNK
