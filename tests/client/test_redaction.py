"""Secrets that have to be in an address are in it on the wire, and nowhere else."""

from __future__ import annotations

import httpx
import pytest
from pydantic import SecretStr

from rh_prefect.client import Client
from rh_prefect.errors import ConnectFailed
from rh_prefect.redaction import HIDDEN, HiddenAddressTransport, hide_signature, mask_url

KEY = SecretStr("canary0123456789abcdef0123456789")


class Recorder(httpx.AsyncBaseTransport):
    def __init__(self) -> None:
        self.urls: list[str] = []
        self.extensions: list[dict[str, object]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.urls.append(str(request.url))
        self.extensions.append(dict(request.extensions))
        if "proxy" in str(request.url):
            return httpx.Response(307, headers={"Location": "https://files.example/elsewhere?x=***"})
        return httpx.Response(200, content=await request.aread())


async def send(request: httpx.Request) -> tuple[httpx.Response, Recorder]:
    recorder = Recorder()
    return await HiddenAddressTransport(recorder).handle_async_request(request), recorder


async def test_the_key_is_put_behind_the_mask_below_everything_that_looks() -> None:
    request = httpx.Request("POST", "https://rh.example/api?apiKey=***&x=***", content=b"body", extensions={"a": 1})
    request.extensions[HIDDEN] = mask_url(request.url, key=KEY)
    response, recorder = await send(request)
    assert recorder.urls == [f"https://rh.example/api?apiKey={KEY.get_secret_value()}&x=***"]
    assert recorder.extensions == [{"a": 1}]
    assert response.content == b"body"
    assert KEY.get_secret_value() not in repr(vars(request))


async def test_a_key_of_odd_characters_arrives_whole() -> None:
    request = httpx.Request("GET", "https://rh.example/api?apiKey=***")
    request.extensions[HIDDEN] = mask_url(request.url, key=SecretStr("a&b=c/d?e#f%41"))
    _, recorder = await send(request)
    assert httpx.URL(recorder.urls[0]).params["apiKey"] == "a&b=c/d?e#f%41"


async def test_a_user_and_a_password_are_hidden_and_sent_as_the_header(caplog: pytest.LogCaptureFixture) -> None:
    """httpx logs the URL of each request, and reads the user from it."""
    url = "http://user:Passw0rd@files.example/a.png?token=abcdefghijkl"
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(302 if len(seen) == 1 else 200, headers={"Location": "/b.png"} if len(seen) == 1 else {})

    transport = HiddenAddressTransport(httpx.MockTransport(answer))
    async with httpx.AsyncClient(transport=transport, follow_redirects=True) as client:
        request = client.build_request("GET", url)
        hide_signature(request)
        with caplog.at_level("INFO"):
            response = await client.send(request)
    assert [one.headers["Authorization"] for one in seen] == ["Basic dXNlcjpQYXNzdzByZA=="] * 2
    assert "Passw0rd" not in caplog.text + repr(response.request.url) + repr(response.history)
    assert "files.example/a.png" in caplog.text


async def test_a_redirect_leads_where_it_says_and_takes_no_key_along() -> None:
    recorder = Recorder()
    async with httpx.AsyncClient(transport=HiddenAddressTransport(recorder), follow_redirects=True) as client:
        request = client.build_request("GET", "https://rh.example/proxy/***/view")
        request.extensions[HIDDEN] = mask_url(request.url, key=KEY)
        await client.send(request)
    assert recorder.urls[1] == "https://files.example/elsewhere?x=***"


@pytest.mark.parametrize("call", ["demo", "history"])
async def test_an_error_of_the_network_tells_no_key(call: str) -> None:
    async with Client(KEY, base_url="http://127.0.0.1:9") as client:
        with pytest.raises(ConnectFailed) as caught:
            await (client.apps.demo("1") if call == "demo" else client.comfy.query("1"))
    cause = caught.value.__cause__
    assert isinstance(cause, httpx.ConnectError)
    assert "***" in str(cause.request.url)
    assert KEY.get_secret_value() not in repr(caught.value) + repr(cause) + repr(vars(cause.request))
