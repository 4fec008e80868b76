"""Requests and downloads over TLS, as all real ones are."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trustme

from rh_prefect.client.download import download
from rh_prefect.client.h11_transport import CallTransport
from tests.support.servers.file_host import BODY, serve
from tests.support.servers.scripted_server import WireServer, reply

AUTHORITY = trustme.CA()
LIMITS = httpx.Limits(max_keepalive_connections=4, keepalive_expiry=60)


@pytest.fixture
async def host() -> AsyncIterator[WireServer]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    async with WireServer(tls=context) as server:
        yield server


@pytest.fixture
def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


async def test_a_cancelled_download_keeps_no_encrypted_bytes(
    host: WireServer, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    """Python's `SSLSocket.shutdown` ends the decryption: what was read after it was appended to the paid file."""
    host.always = serve()
    for number in range(5):
        seen, part = asyncio.Event(), tmp_path / f"{number}.part"
        url = f"{host.url}/{number}.mp4"
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(verify=trusting, limits=LIMITS)) as client:
            run = asyncio.create_task(download(client, url, part, progress=lambda *_, seen=seen: seen.set()))
            await seen.wait()
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            kept = part.read_bytes()
            assert kept
            assert BODY.startswith(kept), number
            await download(client, url, part)
        assert part.read_bytes() == BODY
    assert any("range" in asked.headers for asked in host.asked), "a later call continues where the first one stopped"


async def test_calls_share_a_connection(host: WireServer, trusting: ssl.SSLContext) -> None:
    host.always = reply({"code": 0})
    async with httpx.AsyncClient(transport=CallTransport(verify=trusting, limits=LIMITS)) as client:
        for _ in range(3):
            response = await client.post(f"{host.url}/query", json={"taskId": "1"})
            assert response.json() == {"code": 0}
    assert host.connections == 1


async def test_a_certificate_that_nobody_vouches_for_is_refused(host: WireServer) -> None:
    host.always = reply({"code": 0})
    transports: tuple[httpx.AsyncBaseTransport, ...] = (
        CallTransport(verify=ssl.create_default_context(), limits=LIMITS),
        httpx.AsyncHTTPTransport(verify=ssl.create_default_context(), limits=LIMITS),
    )
    for transport in transports:
        async with httpx.AsyncClient(transport=transport) as client:
            with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                await client.get(host.url)
    assert not host.asked
