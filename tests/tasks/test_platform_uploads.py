"""Files on their way to RunningHub, as Prefect tasks: from a path, an fsspec place, a job's result."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from rh_prefect import models, tasks
from rh_prefect.blocks import MediaStorage
from rh_prefect.emulator import Emulator
from rh_prefect.errors import InputError, MediaError, RequestRejected
from rh_prefect.tasks import generate
from tests.support.samples import media as samples
from tests.support.servers.caller import Caller
from tests.support.servers.s3 import S3Server
from tests.support.world.as_task import as_task, name_of_run, run


async def test_a_file_gets_a_link_and_a_name(rh: Emulator, tmp_path: Path) -> None:
    photo = samples.png(tmp_path / "a photo (1).png", size=(640, 480))
    upload = await as_task(tasks.upload_file, photo)
    assert (upload.size, upload.kind) == (photo.stat().st_size, "image")
    assert upload.file_name.endswith(".png")
    clip = models.KlingV26ProImageToVideo(image_url=upload.url, prompt="waves", duration="5")
    assert (await as_task(tasks.price_preview, clip)).amount > 0
    assert [one.size for one in rh.recorder.uploads] == [upload.size]


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.s3
async def test_a_file_of_a_bucket_is_uploaded_with_a_block_s_options(
    rh: Emulator, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = samples.png(tmp_path / "photo.png")
    uri = s3.url("in/photo.png")
    s3.filesystem().put_file(str(photo), uri)
    monkeypatch.setenv("RH_STORAGE_URL", s3.url("out"))
    monkeypatch.setenv("RH_STORAGE_OPTIONS", json.dumps(s3.options))
    assert (await as_task(tasks.upload_file, uri)).size == photo.stat().st_size
    monkeypatch.delenv("RH_STORAGE_OPTIONS")
    await MediaStorage(url=s3.url("out"), options=s3.options).asave("bucket", overwrite=True)
    assert (await as_task(tasks.upload_file, uri, storage="bucket")).size == photo.stat().st_size


async def test_a_result_of_a_job_is_uploaded(rh: Emulator) -> None:
    picture = await generate.fn(models.ZImageTurbo(prompt="a lighthouse"), scope="test")
    for source in (picture, picture.first_output, picture.first_output.uri):
        assert (await as_task(tasks.upload_file, source)).size == picture.first_output.size


async def test_an_archive_of_pictures(rh: Emulator, tmp_path: Path) -> None:
    archive = tmp_path / "pictures.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(samples.png(tmp_path / "1.png"), "1.png")
    assert (await as_task(tasks.upload_file, archive)).kind == "zip"


@pytest.mark.parametrize("content", [None, b"", b"\x89PNG\r\n\x1a\n"])
async def test_a_file_that_is_none_is_refused_before_anything_is_sent(
    rh: Emulator, tmp_path: Path, content: bytes | None
) -> None:
    photo = tmp_path / "photo.png"
    if content is not None:
        photo.write_bytes(content)
    for task in (tasks.upload_file, tasks.upload_file_legacy):
        with pytest.raises(MediaError, match=r"photo\.png"):
            await as_task(task, photo)
    with pytest.raises(InputError, match="Expected a file"):
        await as_task(tasks.upload_file, 7)
    assert not rh.recorder.requests


async def test_the_legacy_upload_has_a_name_and_no_link(rh: Emulator, tmp_path: Path) -> None:
    upload = await as_task(tasks.upload_file_legacy, samples.png(tmp_path / "photo.png"), file_type="image")
    assert upload.file_name
    assert upload.url == ""


async def test_the_legacy_upload_refuses_more_than_30_mb_before_it_is_sent(rh: Emulator, tmp_path: Path) -> None:
    photo = samples.png(tmp_path / "photo.png")
    with photo.open("r+b") as file:
        file.truncate(30 * 1024 * 1024 + 1)
    with pytest.raises(MediaError, match="30 MB at most"):
        await as_task(tasks.upload_file_legacy, photo)
    with pytest.raises(InputError, match="file_type cannot be 'text'"):
        await as_task(tasks.upload_file_legacy, photo, file_type="text")
    assert not rh.recorder.requests


async def test_a_lora_is_sent_once_and_needs_a_name(rh: Emulator, tmp_path: Path) -> None:
    lora = tmp_path / "style.safetensors"
    lora.write_bytes(b"lora" * 1000)
    names = [await as_task(tasks.upload_lora, str(lora), name="style") for _ in range(2)]
    assert names[0] == names[1]
    with pytest.raises(InputError, match="name must be a non-empty text"):
        await as_task(tasks.upload_lora, lora, name=" ")


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
async def test_the_run_is_named_after_the_file_and_tells_no_signature(
    rh: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    link = Caller(rh).link(samples.png(tmp_path / "photo.png"))
    await run(tasks.upload_file, f"{link}{'&' if '?' in link else '?'}X-Amz-Signature=canary")
    name = name_of_run(caplog.records)
    assert name.startswith("upload of ")
    assert name.endswith(".png")


async def test_what_runninghub_does_not_take_is_its_own_word(rh: Emulator, tmp_path: Path) -> None:
    page = tmp_path / "page.txt"
    page.write_text("words")
    with pytest.raises(RequestRejected, match="Unsupported file type"):
        await as_task(tasks.upload_file, page)
