"""What a job does with a refusal of its submit: pay first, wait, or take another model."""

from __future__ import annotations

from pathlib import Path

import pytest

from rh_prefect import MediaStore, flow, models
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import AccountError, ApiError, JournalError, RequestRejected, StoreError
from rh_prefect.tasks import generate

ASKED = models.ZImageTurbo(prompt="a lighthouse")


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [("414", AccountError, "buy coins"), ("40310", RequestRejected, "www.runninghub.ai")],
)
async def test_a_final_refusal_is_submitted_once_and_costs_nothing(
    rh: Emulator, code: str, error: type[ApiError], said: str
) -> None:
    rh.faults.add(Fault("submit", kind="code", code=code, message="no"))
    with pytest.raises(error, match=said) as caught:
        await generate.fn(ASKED, scope="test")
    assert caught.value.code == code
    assert [one.code for one in rh.recorder.submissions] == [code]
    assert rh.recorder.charged == 0


@pytest.mark.parametrize("code", ["421", "1520"])
async def test_a_full_account_is_waited_for(rh: Emulator, code: str) -> None:
    rh.faults.add(Fault("submit", number=1, kind="code", code=code))
    result = await generate.fn(ASKED, scope="test")
    assert result.first_output.kind == "image"
    assert [one.code for one in rh.recorder.submissions] == [code, ""]
    assert len(rh.recorder.paid) == 1


@pytest.mark.prefect
@pytest.mark.parametrize(("setting", "kind"), [("RH_STORAGE_URL", StoreError), ("RH_RECORDS", JournalError)])
async def test_a_place_that_cannot_be_used_is_not_tried_again(
    rh: Emulator,
    prefect_server: object,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    setting: str,
    kind: type[StoreError | JournalError],
) -> None:
    """A wrong address or right was retried for 35 seconds, though nothing but a person can change it."""
    monkeypatch.setenv(setting, "/proc/nope")

    @flow
    async def still() -> None:
        await generate(ASKED, scope="order-17")

    state = await still(return_state=True)
    lines = [one.getMessage() for one in caplog.records if one.name == "prefect.task_runs"]
    assert any("Finished in state Failed" in line for line in lines)
    assert not any("Retry " in line for line in lines)
    error = await state.aresult(raise_on_failure=False)
    assert isinstance(error, kind)
    assert error.is_permanent
    assert not rh.recorder.submissions


async def test_a_busy_place_is_tried_again(tmp_path: Path) -> None:
    options = {"key": "a", "secret": "b", "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"}}
    with pytest.raises(StoreError) as caught:
        MediaStore("s3://media/x", options=options).check()
    assert not caught.value.is_permanent
