"""What counts as an outcome: files that come late, damaged or not at all, over real HTTP and outside of flows."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from rh_prefect import models
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import InputError, OutputsExpired, OutputsPending
from rh_prefect.tasks import generate
from rh_prefect.works.result import Result
from tests.support.samples import media as samples


async def ask(prompt: str = "a lighthouse") -> Result:
    """The same job in the same scope each time."""
    result: Result = await generate.fn(models.ZImageTurbo(prompt=prompt), scope="outcomes")
    return result


async def test_a_success_without_files_is_asked_again_by_the_next_call(rh: Emulator) -> None:
    """It is an error and not a result; when RunningHub lists the files, they come at no cost."""
    rh.faults.add(Fault("query", kind="no-results"))
    with pytest.raises(OutputsPending, match="no file and no text"):
        await ask()
    rh.faults.clear()
    result = await ask()
    assert Path(result.first_output.uri).is_file()
    assert len(rh.recorder.submissions) == 1


@pytest.mark.parametrize("link", [" ", "/view?a.png", "a.png", "http://[::1"])
async def test_a_link_that_is_none_is_never_a_text(rh: Emulator, link: str) -> None:
    """A blank, relative or malformed link is an error, and asked for again."""
    rh.faults.add(Fault("query", kind="odd-link", link=link))
    with pytest.raises(OutputsPending, match="is not a URL"):
        await ask()
    rh.faults.clear()
    assert (await ask()).first_output.kind == "image"
    assert len(rh.recorder.submissions) == 1


async def test_a_data_url_becomes_a_file(rh: Emulator) -> None:
    """A file that stands in its link is decoded into the storage."""
    picture = samples.picture("PNG")
    link = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    rh.faults.add(Fault("query", kind="odd-link", link=link))
    result = await ask()
    assert result.first_output.name.endswith(".png")
    assert Path(result.first_output.uri).read_bytes() == picture
    assert result.texts == ()


async def test_a_refused_download_is_waited_out(rh: Emulator) -> None:
    """A file host that answers 404 twice delays the file."""
    rh.faults.add(Fault("download", kind="expired", times=2))
    assert Path((await ask()).first_output.uri).is_file()


async def test_lost_outputs_are_fetched_by_the_next_call_if_they_are_there(rh: Emulator) -> None:
    """The error is no reason to pay again."""
    rh.faults.add(Fault("download", kind="expired"))
    with pytest.raises(OutputsExpired, match="at no cost"):
        await ask()
    rh.faults.clear()
    assert Path((await ask()).first_output.uri).is_file()
    assert len(rh.recorder.submissions) == 1


async def test_a_damaged_file_feeds_no_paid_step(rh: Emulator) -> None:
    """A file that comes cut five times is named as damaged, and a later call fetches the whole one."""
    rh.faults.add(Fault("download", kind="short"))
    damaged = await ask()
    assert damaged.damaged == damaged.outputs
    with pytest.raises(InputError, match="damaged"):
        await generate.fn(models.KlingV26ProImageToVideo(image_url=damaged, prompt="waves", duration="5"), scope="x")
    with pytest.raises(InputError, match="damaged"):
        path = damaged.first_output.uri
        await generate.fn(models.KlingV26ProImageToVideo(image_url=path, prompt="waves", duration="5"), scope="x")
    rh.faults.clear()
    whole = await ask()
    assert (whole.damaged, whole.first_output.uri) == ((), damaged.first_output.uri)
    assert len(rh.recorder.submissions) == 1


async def test_a_fresh_task_that_is_not_known_yet_is_asked_for_again(rh: Emulator) -> None:
    """RunningHub's "no such task" right after the ticket, and a rejected key in a poll, end no job."""
    for code in ("1004", "807", "412", "802", "401"):
        rh.faults.add(Fault("query", kind="code", code=code, times=1))
    assert Path((await ask()).first_output.uri).is_file()
    assert len(rh.recorder.submissions) == 1
