"""What a job does with a refusal of its submit: pay first, wait, or take another model."""

from __future__ import annotations

import pytest

from rh_prefect import models
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import AccountError, ApiError, RequestRejected
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
    assert [one.code for one in rh.books.submissions] == [code]
    assert rh.books.charged == 0


@pytest.mark.parametrize("code", ["421", "1520"])
async def test_a_full_account_is_waited_for(rh: Emulator, code: str) -> None:
    rh.faults.add(Fault("submit", number=1, kind="code", code=code))
    result = await generate.fn(ASKED, scope="test")
    assert result.first_output.kind == "image"
    assert [one.code for one in rh.books.submissions] == [code, ""]
    assert len(rh.books.paid) == 1
