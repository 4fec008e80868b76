"""Bad input and refusals get a clear error before anything is paid, and leave nothing half-written."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rh_prefect import MediaStore, models
from rh_prefect.emulator import Emulator
from rh_prefect.errors import (
    ConfigError,
    InputError,
    JournalError,
    MediaError,
    RunningHubError,
    StoreError,
)
from rh_prefect.tasks import generate_many
from rh_prefect.workflow_inputs import WorkflowInput
from rh_prefect.works.result import Result
from tests.support.world.as_task import make

LIGHTHOUSE = models.ZImageTurbo(prompt="a lighthouse")


def turbo(**extra: Any) -> models.ModelInput:
    return models.ZImageTurbo(prompt="x", **extra)


def nothing_was_paid(rh: Emulator, out: Path) -> bool:
    """And no file was written but records of jobs."""
    names = [path.relative_to(out) for path in out.rglob("*") if path.is_file()]
    return not rh.recorder.submissions and {name.parts[0] for name in names} <= {"scopes", "works"}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


async def test_what_is_no_input_is_refused_before_others_are_paid(rh: Emulator, out: Path) -> None:
    no_input: Any = "z-image/turbo"
    with pytest.raises(InputError, match="input, got str"):
        await make(no_input)
    with pytest.raises(InputError, match="Expected a model's input, got str"):
        await generate_many([turbo(), no_input])
    no_list: Any = turbo()
    with pytest.raises(InputError, match="a list of inputs, not one ZImageTurbo"):
        await generate_many(no_list)
    with pytest.raises(InputError, match="of 1 or more, not 0"):
        await generate_many([turbo()], take=0, takes=3)
    assert nothing_was_paid(rh, out)


@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        ("RH_API_KEY", "", ConfigError, "RH_API_KEY"),
        ("RH_STORAGE_URL", "{file}/out", StoreError, "file/out"),
        ("RH_STORAGE_URL", "/proc/nope", StoreError, "/proc/nope"),
        ("RH_RECORDS", "/proc/nope", JournalError, "/proc/nope"),
        ("RH_STATE_DIR", "{file}/state", ConfigError, "RH_STATE_DIR"),
    ],
)
async def test_a_setting_that_cannot_be_used(
    rh: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    error: type[RunningHubError],
    said: str,
) -> None:
    (file := tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("RH_RECORDS", str(tmp_path / "records"))
    monkeypatch.setenv(name, value.format(file=file)) if value else monkeypatch.delenv(name)
    with pytest.raises(error, match=said) as caught:
        await make(LIGHTHOUSE)
    assert nothing_was_paid(rh, tmp_path / "out")
    assert getattr(caught.value, "is_permanent", True), "a task does not try it again"


SEEDED = models.input_for("google/veo3.1-fast/text-to-video-official-stable")
HUGE, HALF = 10**5000, "half an emoji \ud83d"
DEEP: list[object] = []
for _ in range(3000):
    DEEP = [DEEP]

BAD: dict[str, tuple[Callable[[Emulator], Awaitable[object]], str]] = {
    "a label": (lambda _: make(turbo(), label="x" * 1_000_000), "The label has 1000000 characters"),
    "a name": (lambda _: make(turbo(), label="caf\udce9"), "label"),
    "a reuse": (lambda _: make(turbo(), reuse="Always"), "always"),
    "a number": (lambda _: make(SEEDED(prompt="x", seed=HUGE)), "seed contains a number of"),
    "an extra": (lambda _: make(turbo(unchecked={"foo": HUGE})), "'foo' contains a number of more than 300 digits"),
    "a speed": (lambda _: make(models.MinimaxSpeech28Hd(text="x", speed=HUGE)), "speed contains a number of more than"),
    "a prompt": (lambda _: make(models.ZImageTurbo(prompt=HALF)), "prompt contains an incomplete character"),
    "a list": (lambda _: make(turbo(unchecked={"foo": [{HALF: 1}]})), "'foo' contains an incomplete character"),
    "a tree": (lambda _: make(turbo(unchecked={"foo": DEEP})), "'foo' contains lists or objects that are nested"),
    "an object": (lambda _: make(turbo(unchecked={"foo": object()})), "of the type object, which cannot be sent"),
    "a seed": (lambda rh: workflow(rh, seed=HUGE), "WorkflowInput: seed contains a number of more than 300 digits"),
    "a node": (lambda rh: workflow(rh, nodes={"3.steps": HUGE}), r"WorkflowInput: nodes\.'3\.steps' contains a number"),
    "a text": (lambda rh: workflow(rh, nodes={"6.text": HALF}), r"nodes\.'6\.text' contains an incomplete"),
    "nothing": (lambda rh: workflow(rh, nodes={"3.cfg": float("nan")}), r"nodes\.'3\.cfg' contains nan"),
}


async def workflow(rh: Emulator, **given: Any) -> Result:
    return await make(WorkflowInput(id=rh.workflows.id_of("text-to-image"), **given))


@pytest.mark.filterwarnings("ignore::rh_prefect.catalog.InputWarning")
@pytest.mark.parametrize("name", BAD)
async def test_what_could_be_neither_sent_nor_recorded(rh: Emulator, out: Path, name: str) -> None:
    call, said = BAD[name]
    with pytest.raises(InputError, match=said):
        await call(rh)
    assert nothing_was_paid(rh, out)


async def test_a_pipe_in_place_of_a_picture(rh: Emulator, out: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "photo.png")
    for source in (tmp_path / "photo.png", "/dev/zero"):
        with pytest.raises(MediaError, match="a pipe, a device or a socket"):
            await asyncio.wait_for(make(models.KlingV26ProImageToVideo(image_url=source, prompt="waves")), 300)
    assert nothing_was_paid(rh, out)


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


async def test_a_disk_that_fills_up_after_the_payment_loses_nothing(rh: Emulator, full_disk: Path) -> None:
    with pytest.raises(StoreError, match=r"(?i)space"):
        await make(LIGHTHOUSE)
    assert not rh.recorder.submissions
    assert [path.name for path in full_disk.rglob("*") if path.is_file()] == ["ballast"]
    (full_disk / "ballast").write_bytes(b"0" * (1024 * 1024 - 4096))  # room for a check, not for a picture
    with pytest.raises(StoreError, match=r"(?i)space"):
        await make(LIGHTHOUSE)
    assert len(rh.recorder.paid) == 1
    assert not list((full_disk / "out").rglob("*.png"))
    (full_disk / "ballast").unlink()
    result = await make(LIGHTHOUSE)
    assert len(rh.recorder.paid) == 1
    assert Path(result.first_output.uri).stat().st_size == result.first_output.size


async def test_a_busy_place_is_tried_again() -> None:
    options = {"key": "a", "secret": "b", "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"}}
    options["config_kwargs"] = {"retries": {"max_attempts": 0}}
    with pytest.raises(StoreError) as caught:
        MediaStore("s3://media/x", options=options).check()
    assert not caught.value.is_permanent
