"""Which file a paid job gets, by the requests to the emulator: several files at one path, and several attempts."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import pytest

from rh_prefect import models
from rh_prefect.emulator import Emulator
from rh_prefect.emulator.recorder import Submission
from rh_prefect.errors import ConfigError
from rh_prefect.media.store import MediaStore
from rh_prefect.works import stored_result
from rh_prefect.works.job_options import Request
from rh_prefect.works.journal.job_records_and_state import jobs_of
from tests.support.processes.pooled_run import PooledRun
from tests.support.servers.link_server import LinkHost, picture, sha256
from tests.support.world.filesystems import TwinFiles


def enlarge(source: object) -> Request:
    return models.input_for("hypir-ultra")(image_url=source)


@pytest.fixture
def run(rh: Emulator, tmp_path: Path) -> PooledRun:
    return PooledRun(rh, tmp_path, members=("main",))


def sent(rh: Emulator, submission: Submission) -> str:
    """The SHA-256 of the input of a job."""
    given = " ".join(map(str, submission.payload.values()))
    return next(one.sha256 for one in rh.recorder.uploads if one.file_name.rpartition("/")[2] in given)


@pytest.mark.parametrize("name", ["token", "sig", "q-page", "x-oss-process"])
async def test_links_that_differ_in_a_parameter_get_their_own_pictures(
    rh: Emulator, run: PooledRun, links: LinkHost, name: str
) -> None:
    for number in "12":
        await run.pay(enlarge(links.put(f"photo?{name}={number}", picture(number))))
    assert [sent(rh, one) for one in rh.recorder.paid] == [sha256(picture("1")), sha256(picture("2"))]
    intents = [view.submits[0].intent async for view in jobs_of(run.journal)]
    assert [one.files for one in intents] == [("photo",)] * 2, "messages show no parameter of a link"


@pytest.mark.parametrize("kind", ["object", "link with a strong ETag", "file"])
async def test_what_is_overwritten_within_a_run_is_another_job_s_picture(
    rh: Emulator, run: PooledRun, links: LinkHost, tmp_path: Path, kind: str
) -> None:
    """A later job gets the current file, and its stored result has the hash."""
    for number in "12":
        match kind:
            case "object":
                fsspec.filesystem("memory").pipe_file("/overwritten/photo.png", picture(number))
                source = "memory://overwritten/photo.png"
            case "file":
                (tmp_path / "photo.png").write_bytes(picture(number))
                source = str(tmp_path / "photo.png")
            case _:
                source = links.put("photo.png", picture(number), etag=f'"{number}"')
        await run.pay(enlarge(source))
    assert [sent(rh, one) for one in rh.recorder.paid] == [sha256(picture("1")), sha256(picture("2"))]
    recorded = {str(one.payload["imageUrl"]) for one in stored_result.read_all(run.store)}
    assert recorded == {f"sha256:{sha256(picture(number))}" for number in "12"}


async def test_a_resume_does_not_pay_for_a_link_that_gives_other_bytes_each_time(
    rh: Emulator, run: PooledRun, links: LinkHost
) -> None:
    """Without a strong ETag, the content that the run has read first counts in all attempts."""
    numbers = iter(range(100))
    link = links.make("photo.png", lambda: picture(str(next(numbers))))
    first = await run.pay(enlarge(link))
    for run.attempt in (2, 3):
        assert (await run.pay(enlarge(link))).task_id == first.task_id
    assert len(rh.recorder.paid) == 1
    await run.pay(enlarge(link), take=2)
    [_, new] = rh.recorder.paid
    assert sent(rh, new) == sent(rh, rh.recorder.paid[0])


async def test_a_text_that_looks_like_a_link_is_sent_as_text(rh: Emulator, run: PooledRun) -> None:
    for number in "12":
        await run.pay(models.ZImageTurbo(prompt=f"https://host/a?token={number}"))
    assert len({one.payload["prompt"] for one in rh.recorder.paid}) == 2


async def test_stores_of_one_url_and_other_options_have_their_own_files(
    rh: Emulator, run: PooledRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two buckets of one name on two services: each job gets its own store's file, and writes there."""
    bucket = f"{TwinFiles.protocol}://bucket"
    monkeypatch.setenv("RH_INPUT_ROOTS", bucket)
    name = uuid.uuid4().hex
    for where in "ab":
        run.outputs = MediaStore(f"{bucket}/{name}", options={"where": f"{name}-{where}"})
        run.store.write_bytes("photo.png", picture(where))
        result = await run.pay(enlarge(run.store.uri("photo.png")))
        assert run.store.exists(run.store.name_of(result.first_output.uri) or "")
    assert [sent(rh, one) for one in rh.recorder.paid] == [sha256(picture("a")), sha256(picture("b"))]


async def test_outputs_on_an_ftp_server_are_refused_before_payment(rh: Emulator, run: PooledRun) -> None:
    """The library for FTP mixes up what several jobs write at once."""
    run.outputs = MediaStore("ftp://127.0.0.1:9/films")
    with pytest.raises(ConfigError, match="use a folder, s3://"):
        await run.pay(models.ZImageTurbo(prompt="a"))
    assert rh.recorder.paid == []
