"""The README's table of what a failure costs: a Prefect task with retries around the API, and `generate`."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from prefect import task

from rh_prefect import generate, models
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import SubmissionUnknown
from tests.support.doc_pages import PAGES
from tests.support.samples import media as samples
from tests.support.servers.caller import Caller

MODEL = "kling-v2.6-pro/image-to-video"
FAULTS = {
    "a download is interrupted": Fault("download", number=1, kind="cut", at=0.5),
    "three status requests get HTTP 502": Fault("query", times=3, kind="502"),
    "the response to the submission is lost": Fault("submit", number=1, kind="cut"),
}
VALUES = {"prompt": "it turns", "duration": "5", "sound": "false"}


@task(retries=3)
def clip(picture: str) -> bytes:
    """As it is written first: submit, poll, download, and raise what fails."""
    with httpx.Client(
        base_url=os.environ["RH_BASE_URL"],
        headers={"Authorization": f"Bearer {os.environ['RH_API_KEY']}"},
        timeout=60,  # A slow answer would be one more failure, and one more payment
    ) as api:
        submitted = api.post(f"/openapi/v2/{MODEL}", json=VALUES | {"imageUrl": picture}).raise_for_status().json()
        while True:
            seen = api.post("/openapi/v2/query", json={"taskId": submitted["taskId"]}).raise_for_status().json()
            if seen["status"] == "SUCCESS":
                return api.get(seen["results"][0]["url"]).raise_for_status().content
            time.sleep(0.05)


@pytest.mark.prefect
async def test_the_costs_of_a_failure_are_those_of_the_readme(rh: Emulator, tmp_path: Path) -> None:
    rows = re.findall(r"^\| (.+) \|$", PAGES[0].read_text(encoding="utf-8"), re.MULTILINE)[:3]
    head, around, ours = (row.split(" | ") for row in rows)
    assert head[1:] == list(FAULTS)
    picture = samples.png(tmp_path / "mug.png")
    link = Caller(rh).upload(picture)["data"]["download_url"]
    asked = models.KlingV26ProImageToVideo(image_url=picture, prompt="it turns", duration="5", sound="false")
    for name, told_around, told_ours in zip(FAULTS, around[1:], ours[1:], strict=True):
        before = rh.recorder.charged
        rh.faults.add(FAULTS[name])
        assert clip(link)
        assert _first(told_around) == (after := rh.recorder.charged) - before, name
        rh.faults.clear()
        rh.faults.add(FAULTS[name])
        for _ in range(2):
            with suppress(SubmissionUnknown):
                await generate(asked, scope=name.replace(" ", "-"))
        assert _first(told_ours) == rh.recorder.charged - after, name
        rh.faults.clear()


def _first(cell: str) -> Decimal:
    return Decimal(re.findall(r"\d+\.\d+", cell)[0])
