"""Downloads over TLS, as every real one is."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trustme

from rh_prefect.client.download import CHUNK, download
from rh_prefect.client.threaded_file_download import FileTransport

BODY = os.urandom(6 * CHUNK + 12345)


class Host:
    """A file host over TLS with Range and If-Range."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.asked: list[str] = []

    @property
    def client(self) -> httpx.AsyncClient:
        verify = ssl.create_default_context()
        self.authority.configure_trust(verify)
        return httpx.AsyncClient(transport=FileTransport(verify=verify, limits=httpx.Limits()))

    async def start(self) -> asyncio.Server:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert("127.0.0.1").configure_cert(context)
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.mp4"
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            self.asked.append(head)
            start = int(head.partition("range: bytes=")[2].partition("-")[0] or 0)
            status = "206 Partial Content" if start else "200 OK"
            lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(BODY) - start}", 'ETag: "v1"', "Connection: close"]
            if start:
                lines.append(f"Content-Range: bytes {start}-{len(BODY) - 1}/{len(BODY)}")
            writer.write("\r\n".join([*lines, "", ""]).encode() + BODY[start:])
            await writer.drain()
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    host = Host()
    server = await host.start()
    yield host
    server.close()


async def test_a_cancelled_download_keeps_no_encrypted_bytes(host: Host, tmp_path: Path) -> None:
    """Python's `SSLSocket.shutdown` ends the decryption: what was read after it was appended to the paid file."""
    for number in range(5):
        seen, part = asyncio.Event(), tmp_path / f"{number}.part"
        async with host.client as client:
            run = asyncio.create_task(download(client, host.url, part, progress=lambda *_, seen=seen: seen.set()))
            await seen.wait()
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            kept = part.read_bytes()
            assert kept
            assert BODY.startswith(kept), number
            assert (await download(client, host.url, part)).size == len(BODY)
        assert part.read_bytes() == BODY
    assert any("range: bytes=" in head for head in host.asked), "a later call continues where the first one stopped"
