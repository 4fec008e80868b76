"""The webhook's address: sent with the submission, in no hash and no record."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from rh_prefect import models
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import ConfigError, RequestRejected
from rh_prefect.settings import Settings
from rh_prefect.works.accounts.pool import Pool
from rh_prefect.works.checked_request import JobRequest
from rh_prefect.works.pool_services import PoolServices
from rh_prefect.works.result import Result
from rh_prefect.works.work_in_progress import callback_of
from tests.support.world.as_task import make

TOKEN = "canary-token-in-the-address"
NOWHERE = "http://127.0.0.1:9/rh"


@pytest.fixture
def hooked(rh: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Emulator:
    monkeypatch.setenv("RH_WEBHOOK_URL", NOWHERE + "/")
    monkeypatch.setenv("RH_WEBHOOK_TOKEN", TOKEN)
    monkeypatch.setenv("RH_RECORDS", str(tmp_path / "journal"))
    return rh


async def run(scope: str = "run") -> Result:
    return await make(models.ZImageTurbo(prompt="a lighthouse"), scope=scope)


def recorded(folder: Path) -> str:
    return " ".join(path.read_text() for path in folder.rglob("*.json"))


async def test_the_address_identifies_the_submission_and_is_not_recorded(hooked: Emulator, tmp_path: Path) -> None:
    result = await run()
    (paid,) = hooked.recorder.paid
    assert paid.payload["webhookUrl"] == f"{NOWHERE}/hook/{TOKEN}/run/{result.key}/1"
    assert '"webhook": true' in recorded(tmp_path / "journal")
    assert TOKEN not in recorded(tmp_path)
    assert NOWHERE not in recorded(tmp_path)


async def test_a_request_is_the_same_with_and_without_a_webhook_address(
    hooked: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_it = await run()
    monkeypatch.delenv("RH_WEBHOOK_URL")
    monkeypatch.setenv("RH_STATE_DIR", str(tmp_path / "another"))
    monkeypatch.setenv("RH_RECORDS", str(tmp_path / "another"))
    without = await run("other")
    assert Path(with_it.record).parent == Path(without.record).parent, "the same request"
    assert "webhookUrl" not in hooked.recorder.paid[1].payload
    assert '"webhook": false' in recorded(tmp_path / "another")


async def test_a_refusal_that_repeats_the_address_is_recorded_without_the_secret(
    hooked: Emulator, tmp_path: Path
) -> None:
    hooked.faults.add(Fault("submit", kind="code", code="1007", message=f"bad webhookUrl {NOWHERE}/hook/{TOKEN}/x"))
    with pytest.raises(RequestRejected, match=r"bad webhookUrl") as error:
        await run()
    assert TOKEN not in str(error.value)
    assert "bad webhookUrl" in recorded(tmp_path / "journal")
    assert TOKEN not in recorded(tmp_path)


@pytest.mark.parametrize(
    ("url", "token", "wrong"),
    [
        ("hooks.example.net", TOKEN, "not a valid address of a webhook receiver"),
        ("https://user:word@hooks.example.net", TOKEN, "not a valid address of a webhook receiver"),
        ("https://hooks.example.net/?a=b", TOKEN, "not a valid address of a webhook receiver"),
        ("https://[your-host]:8000", TOKEN, "not a valid address of a webhook receiver"),
        ("https://hooks.example.net:abc", TOKEN, "not a valid address of a webhook receiver"),
        ("https://<your-host>", TOKEN, "not a valid address of a webhook receiver"),
        ("https://my host", TOKEN, "not a valid address of a webhook receiver"),
        ("https://hooks.example.net", None, "RH_WEBHOOK_TOKEN is not"),
        ("https://hooks.example.net", "short", "must consist of 16"),
    ],
)
def test_a_wrong_setting_is_refused(url: str, token: str | None, wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        callback_of(Settings(webhook_url=url, webhook_token=token and SecretStr(token)))


def test_without_an_address_no_webhook_is_sent() -> None:
    assert callback_of(Settings(webhook_url=None, webhook_token=SecretStr("short"))) is None
    assert callback_of(Settings(webhook_url="")) is None


def context_of(folder: Path, url: str | None = "https://hooks.example.net") -> PoolServices:
    """A pool of one account, whose native proxy has no webhooks."""

    def at(endpoint: str) -> Any:
        return SimpleNamespace(provider=SimpleNamespace(is_bare=endpoint == "/proxy"))

    accounts: Any = [SimpleNamespace(at=at, poller="the poller")]
    settings = Settings(state_dir=folder, webhook_url=url, webhook_token=SecretStr("x" * 16))
    return PoolServices(Pool(accounts), settings=settings)


@pytest.mark.parametrize(
    ("facts", "is_sent"),
    [
        ({}, True),
        ({"payload": {"webhookUrl": "https://h"}}, False),
        ({"private": {"webhookUrl": "https://h"}}, False),
        ({"endpoint": "/proxy"}, False),
    ],
    ids=str,
)
def test_an_address_in_a_request_has_priority_and_the_native_proxy_gets_none(
    tmp_path: Path, facts: dict[str, Any], is_sent: bool
) -> None:
    request = JobRequest(**({"model": "m", "endpoint": "m", "site": "s", "payload": {}, "base": "b"} | facts))
    assert (context_of(tmp_path).callback(request) is not None) == is_sent


@pytest.mark.parametrize(("url", "notified"), [("https://hooks.example.net", ["the poller"]), (None, [])])
async def test_with_webhooks_the_journal_notifies_the_pollers(
    tmp_path: Path, url: str | None, notified: list[str]
) -> None:
    listeners: list[object] = []

    async def notify_of_ends(listener: object) -> None:
        listeners.append(listener)

    scope: Any = SimpleNamespace(journal=SimpleNamespace(notify_of_ends=notify_of_ends))
    await context_of(tmp_path, url).listen_for_ends(scope)
    assert listeners == notified
