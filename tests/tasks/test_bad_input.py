"""Bad input gets a clear error before anything is paid, and leaves nothing half-written."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rh_prefect import models
from rh_prefect.emulator import Emulator
from rh_prefect.errors import ConfigError, InputError, JobFailed, KeyRejected, MediaError, RunningHubError, StoreError
from rh_prefect.tasks import generate, generate_many
from rh_prefect.workflows import QuickCreateInput, WorkflowInput
from rh_prefect.works.options import Request
from rh_prefect.works.result import Result
from tests.support.samples import media as samples
from tests.support.servers.s3 import S3Server


async def run(asked: Request, **options: Any) -> Result:
    result: Result = await generate.fn(asked, scope="test", **options)
    return result


def turbo(**extra: Any) -> models.ModelInput:
    return models.ZImageTurbo(prompt="x", **extra)


def animated(photo: Any) -> models.ModelInput:
    return models.KlingV26ProImageToVideo(image_url=photo, prompt="waves", duration="5")


NOTES = ("scopes", "works")
"""Folders with the records of jobs."""


def nothing_was_paid(rh: Emulator, out: Path) -> bool:
    files = [path for path in out.rglob("*") if path.is_file() and path.relative_to(out).parts[0] not in NOTES]
    return not rh.recorder.submissions and not files


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


async def test_good_input_is_paid_once_and_stored(rh: Emulator, out: Path) -> None:
    result = await run(models.ZImageTurbo(prompt="a lighthouse"))
    assert len(rh.recorder.paid) == 1
    assert Path(result.first_output.uri).is_relative_to(out)
    assert Path(result.first_output.uri).stat().st_size == result.first_output.size


def too_large(path: Path) -> Path:
    photo = samples.png(path)
    with photo.open("r+b") as file:
        file.truncate(21 * 1024 * 1024)  # a picture with 21 MB of padding behind its end is still a picture
    return photo


def half(path: Path) -> Path:
    photo = samples.png(path)
    photo.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    return photo


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("missing.jpg", lambda path: path, r"missing\.jpg"),
        ("sound.jpg", samples.wav, "image_url"),
        ("photo.webp", samples.webp, "(?i)png"),
        ("large.png", too_large, "20 MB"),
        ("half.png", half, r"half\.png"),
    ],
)
async def test_a_file_that_the_model_does_not_take(
    rh: Emulator, out: Path, tmp_path: Path, name: str, make: Callable[[Path], Path], said: str
) -> None:
    with pytest.raises(MediaError, match=said):
        await run(animated(make(tmp_path / name)))
    assert nothing_was_paid(rh, out)


def test_a_wrong_enum_names_the_allowed_values() -> None:
    with pytest.raises(InputError, match=r"duration.*5.*10"):
        models.KlingV26ProImageToVideo(image_url="photo.jpg", prompt="waves", duration="7")  # type: ignore[arg-type]  # the mistake is the test


def test_a_number_out_of_range_names_the_range() -> None:
    with pytest.raises(InputError, match=r"speed.*0\.5.*2"):
        models.MinimaxSpeech28Hd(text="hello", speed=9.0)


def test_an_unknown_model_names_the_three_nearest() -> None:
    with pytest.raises(AttributeError, match=r"KlingV26ProImageToVideo"):
        models.KlingV26ProImageToVideos  # type: ignore[attr-defined]  # noqa: B018  # the access is the test


async def test_something_else_in_the_place_of_an_input(rh: Emulator, out: Path) -> None:
    with pytest.raises(InputError, match="input, got str"):
        await run("a lighthouse")  # type: ignore[arg-type]  # the mistake is the test
    assert nothing_was_paid(rh, out)


async def test_something_else_in_a_list_of_inputs_is_refused_before_the_others_are_paid(
    rh: Emulator, out: Path
) -> None:
    wrong: Any = [turbo(), "z-image/turbo"]
    with pytest.raises(InputError, match="Expected a model's input, got str"):
        await generate_many(wrong)
    one: Any = turbo()
    with pytest.raises(InputError, match="a list of inputs, not one ZImageTurbo"):
        await generate_many(one)
    with pytest.raises(InputError, match="from 1 on, not 0"):
        await generate_many([turbo()], take=0, takes=3)
    assert nothing_was_paid(rh, out)


def test_a_module_of_quick_create_that_is_none() -> None:
    with pytest.raises(InputError, match=r"QuickCreateInput: id: .* code: .* nodes: .* Nothing was sent"):
        QuickCreateInput(id="x", code="", nodes=())


async def test_no_key(rh: Emulator, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RH_API_KEY")
    with pytest.raises(ConfigError, match="RH_API_KEY"):
        await run(models.ZImageTurbo(prompt="a lighthouse"))
    assert nothing_was_paid(rh, out)


async def test_a_wrong_key(rh: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RH_API_KEY", "0" * 32)
    with pytest.raises(KeyRejected, match="site") as caught:
        await run(models.ZImageTurbo(prompt="a lighthouse"))
    assert not rh.recorder.paid
    assert "0" * 32 not in str(caught.value)


async def test_a_store_below_a_regular_file(rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RH_RECORDS", str(tmp_path / "records"))
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path / "file" / "out"))
    with pytest.raises(StoreError, match="file/out"):
        await run(models.ZImageTurbo(prompt="a lighthouse"))
    assert not rh.recorder.submissions


async def test_a_scratch_folder_below_a_regular_file(
    rh: Emulator, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("RH_STATE_DIR", str(tmp_path / "file" / "state"))
    with pytest.raises(ConfigError, match="RH_STATE_DIR"):
        await run(models.ZImageTurbo(prompt="a lighthouse"))
    assert nothing_was_paid(rh, out)


SEEDED = models.input_for("google/veo3.1-fast/text-to-video-official-stable")
HUGE, HALF = 10**5000, "half an emoji \ud83d"
DEEP: list[object] = []
for _ in range(3000):
    DEEP = [DEEP]

BAD: dict[str, tuple[Callable[[Emulator], Awaitable[object]], str]] = {
    "a label": (lambda _: run(turbo(), label="x" * 1_000_000), "The label has 1000000 characters"),
    "a name": (lambda _: run(turbo(), label="caf\udce9"), "label"),
    "a reuse": (lambda _: run(turbo(), reuse="Always"), "always"),
    "a number": (lambda _: run(SEEDED(prompt="x", seed=HUGE)), "seed contains a number of"),
    "an extra": (lambda _: run(turbo(unchecked={"foo": HUGE})), "'foo' contains a number of more than 300 digits"),
    "a speed": (lambda _: run(models.MinimaxSpeech28Hd(text="x", speed=HUGE)), "speed contains a number of more than"),
    "a prompt": (lambda _: run(models.ZImageTurbo(prompt=HALF)), "prompt contains an incomplete character"),
    "a list": (lambda _: run(turbo(unchecked={"foo": [{HALF: 1}]})), "'foo' contains an incomplete character"),
    "a tree": (lambda _: run(turbo(unchecked={"foo": DEEP})), "'foo' contains lists or objects that are nested"),
    "an object": (lambda _: run(turbo(unchecked={"foo": object()})), "of the type object, which cannot be sent"),
    "a seed": (lambda rh: workflow(rh, seed=HUGE), "WorkflowInput: seed contains a number of more than 300 digits"),
    "a node": (lambda rh: workflow(rh, nodes={"3.steps": HUGE}), r"WorkflowInput: nodes\.'3\.steps' contains a number"),
    "a text": (lambda rh: workflow(rh, nodes={"6.text": HALF}), r"nodes\.'6\.text' contains an incomplete"),
    "nothing": (lambda rh: workflow(rh, nodes={"3.cfg": float("nan")}), r"nodes\.'3\.cfg' contains nan"),
}


async def workflow(rh: Emulator, **given: Any) -> Result:
    return await run(WorkflowInput(id=rh.workflows.id_of("text-to-image"), **given))


@pytest.mark.filterwarnings("ignore::rh_prefect.catalog.InputWarning")
@pytest.mark.parametrize("name", BAD)
async def test_what_could_be_neither_sent_nor_recorded(rh: Emulator, out: Path, name: str) -> None:
    """Huge labels and numbers, half a surrogate and endless nesting get a clear error before anything is paid."""
    call, said = BAD[name]
    with pytest.raises(InputError, match=said):
        await call(rh)
    assert nothing_was_paid(rh, out)


async def test_a_pipe_in_place_of_a_picture(rh: Emulator, out: Path, tmp_path: Path) -> None:
    """A pipe is refused, and is not waited for."""
    os.mkfifo(tmp_path / "photo.png")
    with pytest.raises(MediaError, match="a pipe, a device or a socket"):
        await asyncio.wait_for(run(animated(tmp_path / "photo.png")), 300)
    with pytest.raises(MediaError, match="a pipe, a device or a socket"):
        await asyncio.wait_for(run(animated("/dev/zero")), 300)
    assert nothing_was_paid(rh, out)


@pytest.mark.s3
async def test_an_s3_key_that_may_only_read(
    rh: Emulator, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RH_RECORDS", str(tmp_path / "records"))
    monkeypatch.setenv("RH_STORAGE_URL", s3.url("readonly"))
    monkeypatch.setenv("RH_STORAGE_OPTIONS", json.dumps(s3.reader_options))
    with pytest.raises(StoreError) as caught:
        await run(models.ZImageTurbo(prompt="a lighthouse"))
    assert not rh.recorder.submissions
    assert not any(secret in str(caught.value) for secret in s3.secrets)


@pytest.fixture
def full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A separate disk for the storage, with nothing left on it."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setenv("RH_STORAGE_URL", str(disk / "out"))
    monkeypatch.setenv("RH_RECORDS", str(tmp_path / "records"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False)
    if mounted.returncode:
        pytest.skip("this machine mounts no disk")
    try:
        with pytest.raises(OSError, match="No space"), (disk / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(b"0" * 4096)
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


async def test_a_full_disk(rh: Emulator, full_disk: Path) -> None:
    with pytest.raises(StoreError, match=r"(?i)space"):
        await run(models.ZImageTurbo(prompt="a lighthouse"))
    assert not rh.recorder.submissions
    assert [path.name for path in full_disk.rglob("*") if path.is_file()] == ["ballast"]


async def test_a_disk_that_fills_up_after_the_payment_loses_nothing(rh: Emulator, full_disk: Path) -> None:
    (full_disk / "ballast").write_bytes(b"0" * (1024 * 1024 - 4096))  # room for a check, not for a picture
    asked = models.ZImageTurbo(prompt="a lighthouse")
    with pytest.raises(StoreError, match=r"(?i)space"):
        await run(asked)
    assert len(rh.recorder.paid) == 1
    assert not list((full_disk / "out").rglob("*.png"))
    (full_disk / "ballast").unlink()
    result = await run(asked)
    assert len(rh.recorder.paid) == 1
    assert Path(result.first_output.uri).stat().st_size == result.first_output.size


async def test_moderation_is_said_and_not_paid_for_again(rh: Emulator) -> None:
    for _ in range(3):
        with pytest.raises(RunningHubError, match="content check"):
            await run(models.ZImageTurbo(prompt="a forbidden thing"))
    assert not rh.recorder.paid


async def test_a_task_that_fails_the_content_check_is_said_and_not_paid_for_again(
    rh: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Emulator(long_side=96, moderated=["forbidden"]) as other:
        monkeypatch.setenv("RH_BASE_URL", other.url)
        monkeypatch.setenv("RH_API_KEY", other.key)
        for _ in range(3):
            with pytest.raises(JobFailed, match="Content security audit did not pass") as caught:
                await run(models.ZImageTurbo(prompt="a forbidden thing"))
            assert caught.value.code == "1501"
            assert "change the prompt or the file" in str(caught.value)
        assert len(other.recorder.submissions) == 1
        assert other.recorder.charged == 0
    assert not rh.recorder.submissions
