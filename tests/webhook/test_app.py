"""The receiver's door, without a server: no body whatever makes it fall over, and none of them is believed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from rh_prefect.errors import ConfigError
from rh_prefect.webhook import create_app
from rh_prefect.webhook.delivery_confirmation import Confirmer, Delivery
from tests.support.hypothesis_settings import json_values, search

TOKEN = "a-token-of-24-characters"
PLACE = f"/hook/{TOKEN}/run/{'0' * 24}/1"
TASK = "2031112223334445057"


@pytest.fixture(scope="module", autouse=True)
def _no_prefect() -> Iterator[None]:
    """No suspended run of other tests is to be looked after."""
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield


class Noted(Confirmer):
    """Takes what it is told, up to a number, and looks into nothing."""

    def __init__(self, most: int = 10**9) -> None:
        super().__init__()
        self.told: list[Delivery] = []
        self._most = most

    def accept(self, told: Delivery) -> bool:
        if len(self.told) < self._most:
            self.told.append(told)
            return True
        return False


def answers(noted: Confirmer, *requests: tuple[str, str, bytes]) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        # The transport raises what the application raises.
        transport = httpx.ASGITransport(create_app(token=SecretStr(TOKEN), confirmer=noted))
        async with httpx.AsyncClient(transport=transport, base_url="http://receiver") as client:
            return [await client.request(method, path, content=body) for method, path, body in requests]

    return asyncio.run(run())


def post(noted: Confirmer, *bodies: bytes) -> list[httpx.Response]:
    return answers(noted, *(("POST", PLACE, body) for body in bodies))


names = st.sampled_from(["taskId", "task_id", "event", "eventData", "data", "code", "status", "results"])
told = st.dictionaries(names, json_values | st.just(TASK) | st.dictionaries(names, json_values))


@search(40)
@given(st.lists(st.binary() | told.map(lambda value: json.dumps(value).encode())))
def test_no_body_makes_it_fall_over(bodies: list[bytes]) -> None:
    noted = Noted()
    answers = post(noted, *bodies)
    assert {one.status_code for one in answers} <= {200, 400}
    assert len(noted.told) == sum(one.status_code == 200 for one in answers)
    assert all(told.task_id.isdigit() and len(told.task_id) <= 40 for told in noted.told)


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 1_000_000, b'{"taskId":' + b"9" * 9_999])
def test_a_monster_is_refused(body: bytes) -> None:
    assert post(Noted(), body)[0].status_code == 400


def test_where_there_is_too_much_to_do_it_is_asked_to_come_again() -> None:
    told = json.dumps({"taskId": TASK}).encode()
    first, second = post(Noted(most=1), told, told)
    assert (first.status_code, second.status_code) == (200, 503)
    assert second.headers["retry-after"] == "60"


def test_a_get_is_no_delivery_and_health_needs_no_token() -> None:
    assert [one.status_code for one in answers(Noted(), ("GET", "/health", b""), ("GET", PLACE, b""))] == [200, 405]


@pytest.mark.parametrize("token", ["short", "with spaces in it and long", "slash/" * 9])
def test_a_token_that_could_be_guessed_or_broken_is_refused(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RH_WEBHOOK_TOKEN", token)
    with pytest.raises(ConfigError, match="RH_WEBHOOK_TOKEN is not valid: it must consist of") as error:
        create_app()
    assert not token or token not in str(error.value)


def test_without_a_token_there_is_no_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RH_WEBHOOK_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="needs a token"):
        create_app()
