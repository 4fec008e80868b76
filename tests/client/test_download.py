"""Downloads: resumed, checked, and never with the key."""

from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import os
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from rh_prefect.client import Client, Download, discard_partial
from rh_prefect.client.download import CHUNK, download, resume_note
from rh_prefect.client.transports import EnvironmentTransport
from rh_prefect.errors import LinkExpired, ResponseLost, StoreError
from tests.support.servers.file_host import BODY, TAG, serve
from tests.support.servers.scripted_server import Asked, Step, WireServer, cut, raw, reply

WHOLE = Download(size=len(BODY))


async def fetched(client: Client, url: str, to: Path) -> bytes:
    got = await client.download(url, to)
    content = to.read_bytes()
    assert got == Download(size=len(content))
    return content


@pytest.fixture
async def files() -> AsyncIterator[WireServer]:
    async with WireServer() as server:
        yield server


@pytest.mark.parametrize("url", ["data:text/plain;base64,aGVsbG8=", "data:,hello", "data:text/plain,hel%6Co"])
async def test_a_data_url_is_decoded_to_a_file(client: Client, tmp_path: Path, url: str) -> None:
    """A file inside of its link is written like any other."""
    assert await fetched(client, url, tmp_path / "deep" / "a.txt.part") == b"hello"


async def test_a_download_carries_no_key(client: Client, files: WireServer, tmp_path: Path) -> None:
    files.plays(serve())
    told: list[tuple[int, int | None]] = []
    to = tmp_path / "deep" / "er" / "a.mp4.part"
    got = await client.download(
        f"{files.url}/a.mp4?sign=1", to, progress=lambda done, total: told.append((done, total))
    )
    assert got == WHOLE
    assert to.read_bytes() == BODY
    assert told[-1] == (len(BODY), len(BODY))
    assert "authorization" not in files.asked[0].headers
    assert files.asked[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("stop", [0, 1, 1000, CHUNK, 2 * CHUNK + 7, len(BODY) - 1])
async def test_a_cut_download_goes_on_where_it_was(
    stop: int, client: Client, files: WireServer, tmp_path: Path
) -> None:
    files.plays(serve(stop=stop), serve())
    to, url = tmp_path / "a.part", f"{files.url}/a.mp4"
    with pytest.raises(ResponseLost, match=rf"{stop} of {len(BODY)} bytes are kept" if stop else "incomplete"):
        await client.download(url, to)
    assert to.read_bytes() == BODY[:stop]
    assert await fetched(client, f"{url}?signed=anew", to) == BODY
    assert to.read_bytes() == BODY
    if stop:
        assert files.asked[1].headers["range"] == f"bytes={stop}-"
        assert files.asked[1].headers["if-range"] == TAG


async def test_a_finished_download_is_not_asked_for_again(client: Client, files: WireServer, tmp_path: Path) -> None:
    to = tmp_path / "a.part"
    files.plays(serve(), raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
    assert await fetched(client, f"{files.url}/a.mp4", to) == BODY
    assert await fetched(client, f"{files.url}/a.mp4", to) == BODY
    chunked = tmp_path / "b.part"
    for _ in range(2):
        assert (await client.download(f"{files.url}/b.mp4", chunked)).size == 3
    assert len(files.asked) == 2
    discard_partial(to)
    assert not to.exists()
    assert not resume_note(to).exists()


async def test_the_bytes_of_another_file_are_not_gone_on_with(
    client: Client, files: WireServer, tmp_path: Path
) -> None:
    other = os.urandom(len(BODY))
    to = tmp_path / "a.part"
    files.plays(serve(other, tag='"v0"', stop=CHUNK), serve())
    with pytest.raises(ResponseLost):
        await client.download(f"{files.url}/a.mp4", to)
    assert await fetched(client, f"{files.url}/a.mp4", to) == BODY  # If-Range fails: 200 with everything
    files.plays(serve(other, stop=CHUNK), serve())
    with pytest.raises(ResponseLost):
        await client.download(f"{files.url}/b.mp4", to)
    assert await fetched(client, f"{files.url}/a.mp4", to) == BODY  # the note names another link
    assert "range" not in files.asked[-1].headers


@pytest.mark.parametrize("tag", ["strong", "weak", ""])
async def test_a_link_with_other_parameters_is_another_file_unless_its_tag_is_equal(
    client: Client, files: WireServer, tmp_path: Path, tag: str
) -> None:
    """A host that names the file in the query: `view?file=a` and `view?file=b` have one address and often one date."""
    date = {"Last-Modified": "Tue, 04 Nov 2025 10:00:00 GMT"}
    tags = [{"strong": f'"{name}"', "weak": 'W/"x"', "": ""}[tag] for name in "ab"]
    to, other = tmp_path / "a.part", os.urandom(len(BODY))
    files.plays(serve(tag=tags[0], more=date), serve(other, tag=tags[1], more=date))
    assert await fetched(client, f"{files.url}/view?file=a", to) == BODY
    assert await fetched(client, f"{files.url}/view?file=b", to) == other
    files.plays(serve(tag=tags[0], stop=CHUNK, more=date), serve(other, tag=tags[1] or date["Last-Modified"]))
    with pytest.raises(ResponseLost):
        await client.download(f"{files.url}/view?file=a", to)
    assert await fetched(client, f"{files.url}/view?file=b", to) == other


async def test_a_finished_download_is_confirmed_by_a_new_link(
    client: Client, files: WireServer, tmp_path: Path
) -> None:
    to = tmp_path / "a.part"
    files.plays(serve(), serve())
    for sign in (1, 2, 2):
        assert await fetched(client, f"{files.url}/a.mp4?sign={sign}", to) == BODY
    assert [asked.headers.get("range") for asked in files.asked] == [None, f"bytes={len(BODY)}-"]


async def test_bytes_without_a_note_are_not_gone_on_with(client: Client, files: WireServer, tmp_path: Path) -> None:
    to = tmp_path / "a.part"
    for note in (None, b"", b"{", b"[]", b'{"source": 1}'):
        to.write_bytes(b"somebody else's")
        resume_note(to).unlink(missing_ok=True)
        if note is not None:
            resume_note(to).write_bytes(note)
        files.plays(serve())
        assert await fetched(client, f"{files.url}/a.mp4", to) == BODY


async def test_without_a_validator_everything_is_fetched_again(
    client: Client, files: WireServer, tmp_path: Path
) -> None:
    to = tmp_path / "a.part"
    files.plays(serve(tag='W/"weak"', stop=CHUNK), serve(tag='W/"weak"'))
    with pytest.raises(ResponseLost):
        await client.download(f"{files.url}/a.mp4", to)
    assert await fetched(client, f"{files.url}/a.mp4", to) == BODY
    assert "range" not in files.asked[1].headers


async def test_a_date_is_a_validator_too(client: Client, files: WireServer, tmp_path: Path) -> None:
    date = "Tue, 04 Nov 2025 10:00:00 GMT"
    to = tmp_path / "a.part"
    files.plays(serve(tag="", stop=CHUNK, more={"Last-Modified": date}))
    with pytest.raises(ResponseLost):
        await client.download(f"{files.url}/a.mp4", to)
    files.plays(serve(tag=date, more={"Last-Modified": date, "ETag": ""}))
    assert await fetched(client, f"{files.url}/a.mp4", to) == BODY
    assert files.asked[1].headers["if-range"] == date


def partial_answer(first: int, total: int | str, body: bytes, *, tag: str = TAG) -> Step:
    headers = {"ETag": tag, "Content-Range": f"bytes {first}-{first + len(body) - 1}/{total}"}
    return reply(body, status=206, headers=headers)


REST = BODY[CHUNK:]
ODD: dict[str, Step] = {
    "another start": partial_answer(CHUNK - 1, len(BODY), REST),
    "another total": partial_answer(CHUNK, len(BODY) + 5, REST),
    "another tag": partial_answer(CHUNK, len(BODY), REST, tag='"v2"'),
    "no range": reply(REST, status=206),
    "not satisfiable": reply("x", status=416, headers={"Content-Range": f"bytes */{CHUNK - 1}"}),
    "not satisfiable, no total": reply("x", status=416),
    "compressed": reply(
        gzip.compress(REST),
        status=206,
        headers={"Content-Encoding": "gzip", "Content-Range": f"bytes {CHUNK}-{len(BODY) - 1}/{len(BODY)}"},
    ),
}


@pytest.mark.parametrize("kind", ODD)
async def test_a_rest_that_does_not_fit_starts_anew(
    kind: str, client: Client, files: WireServer, tmp_path: Path
) -> None:
    to = tmp_path / "a.part"
    files.plays(serve(stop=CHUNK), ODD[kind], serve())
    with pytest.raises(ResponseLost):
        await client.download(f"{files.url}/a.mp4", to)
    assert await fetched(client, f"{files.url}/a.mp4", to) == BODY
    assert to.read_bytes() == BODY
    assert "range" not in files.asked[2].headers


async def test_a_rest_of_unknown_total_fits(client: Client, files: WireServer, tmp_path: Path) -> None:
    to = tmp_path / "a.part"
    files.plays(serve(stop=CHUNK), partial_answer(CHUNK, "*", REST))
    with pytest.raises(ResponseLost):
        await client.download(f"{files.url}/a.mp4", to)
    assert await fetched(client, f"{files.url}/a.mp4", to) == BODY


async def test_a_416_at_the_end_of_a_file_means_complete(client: Client, files: WireServer, tmp_path: Path) -> None:
    to = tmp_path / "a.part"
    head = f"HTTP/1.1 200 OK\r\nETag: {TAG}\r\nTransfer-Encoding: chunked\r\n\r\n{len(BODY):x}\r\n".encode()
    files.plays(raw(head + BODY), serve())  # all bytes and no end
    with pytest.raises(ResponseLost):
        await client.download(f"{files.url}/a.mp4", to)
    assert await fetched(client, f"{files.url}/a.mp4", to) == BODY
    assert files.asked[1].headers["range"] == f"bytes={len(BODY)}-"


async def test_a_wrong_length_is_detected(client: Client, files: WireServer, tmp_path: Path) -> None:
    to = tmp_path / "a.part"
    files.plays(serve(stop=CHUNK), partial_answer(CHUNK, len(BODY), REST[:-3]))
    for _ in range(2):
        with pytest.raises(ResponseLost):
            await client.download(f"{files.url}/a.mp4", to)
    assert to.stat().st_size == len(BODY) - 3
    files.plays(partial_answer(len(BODY) - 3, len(BODY), b"more than there is"), serve())
    with pytest.raises(ResponseLost, match="announced"):
        await client.download(f"{files.url}/a.mp4", to)
    assert await fetched(client, f"{files.url}/a.mp4", to) == BODY


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_a_dead_link_is_told_without_its_signature(
    status: int, client: Client, files: WireServer, tmp_path: Path
) -> None:
    files.plays(reply("<Error/>", status=status))
    with pytest.raises(LinkExpired, match=str(status)) as caught:
        await client.download(f"{files.url}/a.mp4?q-signature=0123456789abcdef", tmp_path / "a.part")
    assert "0123456789abcdef" not in str(caught.value)
    assert not (tmp_path / "a.part").exists()


async def test_a_dead_link_keeps_what_has_come(client: Client, files: WireServer, tmp_path: Path) -> None:
    to = tmp_path / "a.part"
    files.plays(serve(stop=CHUNK), reply("", status=403), serve())
    for error in (ResponseLost, LinkExpired):
        with pytest.raises(error):
            await client.download(f"{files.url}/a.mp4", to)
    assert await fetched(client, f"{files.url}/a.mp4", to) == BODY
    assert files.asked[2].headers["range"] == f"bytes={CHUNK}-"


@pytest.mark.parametrize("url", ["", "a.mp4", "ftp://h.example/a", "file:///etc/passwd", "http://\x00/"])
async def test_a_link_that_is_none_is_dead(url: str, client: Client, tmp_path: Path) -> None:
    with pytest.raises(LinkExpired):
        await client.download(url, tmp_path / "a.part")


async def test_a_file_host_that_fails_is_asked_again(client: Client, files: WireServer, tmp_path: Path) -> None:
    files.plays(cut(), reply("", status=503), serve())
    assert await fetched(client, f"{files.url}/a.mp4", tmp_path / "a.part") == BODY
    files.always = reply("", status=500)
    with pytest.raises(ResponseLost, match="HTTP 500"):
        await client.download(f"{files.url}/b.mp4", tmp_path / "b.part")


async def test_redirects_are_followed(client: Client, files: WireServer, tmp_path: Path) -> None:
    files.plays(reply("", status=302, headers={"Location": "/b.mp4"}), serve())
    assert await fetched(client, f"{files.url}/a.mp4", tmp_path / "a.part") == BODY
    files.always = reply("", status=302, headers={"Location": "/a.mp4"})
    with pytest.raises(ResponseLost, match="too many redirects"):
        await client.download(f"{files.url}/a.mp4", tmp_path / "b.part")


async def test_a_signature_is_in_no_log(
    client: Client, files: WireServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files.plays(reply("", status=302, headers={"Location": "/b.mp4?Signature=second"}), serve())
    with caplog.at_level(logging.INFO):
        await client.download(f"{files.url}/a.mp4?Signature=first", tmp_path / "a.part")
    assert [asked.path for asked in files.asked] == ["/a.mp4?Signature=first", "/b.mp4?Signature=second"]
    assert f"GET {files.url}/b.mp4 " in caplog.text
    assert "Signature" not in caplog.text


async def test_a_place_that_cannot_be_written_is_told(client: Client, files: WireServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for to in (tmp_path / "file" / "a.part", tmp_path / "folder"):
        files.plays(serve())
        with pytest.raises(StoreError, match="cannot be saved here"):
            await client.download(f"{files.url}/a.mp4", to)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_full_disk_is_told(client: Client, files: WireServer, tmp_path: Path) -> None:
    to = tmp_path / "a.part"
    to.symlink_to("/dev/full")
    files.plays(serve())
    with pytest.raises(StoreError, match="No space left"):
        await client.download(f"{files.url}/a.mp4", to)


async def test_an_empty_file_is_a_file(client: Client, files: WireServer, tmp_path: Path) -> None:
    files.plays(serve(b""))
    got = await client.download(f"{files.url}/a.txt", tmp_path / "a.part")
    assert got.size == 0
    assert (tmp_path / "a.part").read_bytes() == b""


async def test_a_compressed_body_is_unpacked(client: Client, files: WireServer, tmp_path: Path) -> None:
    files.plays(reply(gzip.compress(BODY), headers={"Content-Encoding": "gzip"}))
    assert await fetched(client, f"{files.url}/a.mp4", tmp_path / "a.part") == BODY


async def test_a_cancelled_download_can_be_resumed(client: Client, files: WireServer, tmp_path: Path) -> None:
    to = tmp_path / "a.part"
    seen = asyncio.Event()

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> bool:
        writer.write(
            f"HTTP/1.1 200 OK\r\nETag: {TAG}\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY[: 2 * CHUNK]
        )
        await reader.read()
        return False

    files.plays(half, serve())
    run = asyncio.create_task(client.download(f"{files.url}/a.mp4", to, progress=lambda *_: seen.set()))
    await seen.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert BODY.startswith(to.read_bytes())
    assert await fetched(client, f"{files.url}/a.mp4", to) == BODY
    assert "range" in files.asked[1].headers


async def test_a_silent_host_is_given_up(tmp_path: Path, files: WireServer) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> bool:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY[:CHUNK])
        await reader.read()
        return False

    files.plays(silent)
    to = tmp_path / "a.part"
    async with httpx.AsyncClient(transport=EnvironmentTransport(httpx.Limits())) as short:
        short.timeout = httpx.Timeout(300, read=1)
        with pytest.raises(ResponseLost, match="no answer in time"):
            await download(short, f"{files.url}/a.mp4", to)
    assert to.read_bytes() == BODY[:CHUNK]


async def test_memory_stays_flat(client: Client, files: WireServer, tmp_path: Path) -> None:
    size = 48 * CHUNK
    block = b"\0" * CHUNK

    async def big(_: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> bool:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        for _i in range(48):
            writer.write(block)
            await writer.drain()
        return True

    files.plays(big)
    gc.collect()
    tracemalloc.start()
    try:
        assert (await client.download(f"{files.url}/a.mp4", tmp_path / "a.part")).size == size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * CHUNK
