"""Named scopes, outside of flows: retries of the package's own and of the caller's, and records of another format."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.emulator import Fault
from rh_prefect.emulator.faults import Kind
from tests.identity.harness import Form, Shape, Stage, World

pytestmark = [pytest.mark.long, pytest.mark.prefect, pytest.mark.timeout(1800)]

both_forms = pytest.mark.parametrize("form", ["sync", "async"])
TWICE = ("", "")


def _fault(kind: Kind, *, times: int) -> Any:
    def change(stage: Stage, number: int) -> None:
        stage.world.rh.faults.clear()
        if number == 1:
            # Some of the package's own tries in one call, and then some calls.
            stage.world.rh.faults.add(Fault("download", prompt=stage.tag, kind=kind, times=times))

    return change


SCOPED = (
    Shape("a named scope", "scoped.py", 1),
    Shape("a named scope in a task that is retried", "scoped.py", 1, {"in_a_task": True}),
)
SERVICES = (
    Shape("a web service, a scope for each order", "scoped.py", 3, {"orders": 3}),
    Shape("a task worker, a scope for each order", "worker.py", 3),
)
OUTAGES = (
    Shape("a named scope, downloads fail", "scoped.py", 1, breaks=TWICE, change=_fault("502", times=12), may_fail=(1,)),
    Shape(
        "a named scope, downloads are cut", "scoped.py", 1, breaks=TWICE, change=_fault("cut", times=12), may_fail=(1,)
    ),
)


@both_forms
@pytest.mark.parametrize("shape", SCOPED, ids=str)
def test_a_named_scope(world: World, tmp_path: Path, shape: Shape, form: Form) -> None:
    """A retry of the calling task outside of flows is the same call."""
    world.check(shape, form, tmp_path)


@pytest.mark.parametrize("form", ["async"])
@pytest.mark.parametrize("shape", SERVICES, ids=str)
def test_equal_requests_of_several_orders(world: World, tmp_path: Path, shape: Shape, form: Form) -> None:
    """Each order is paid for once, however often it is delivered, and gets its own result again."""
    world.check(shape, form, tmp_path)


@pytest.mark.parametrize("form", ["sync"])
@pytest.mark.parametrize("shape", OUTAGES, ids=str)
def test_an_outage_of_downloads(world: World, tmp_path: Path, shape: Shape, form: Form) -> None:
    """The package's own retries pay once, however many downloads fail."""
    world.check(shape, form, tmp_path)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for a check and not for a picture, until `ballast` is removed."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False).returncode:
        pytest.skip("this machine mounts no disk")
    try:
        (disk / "ballast").write_bytes(b"0" * (1024 * 1024 - 4096))
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


@both_forms
def test_a_full_disk(world: World, tmp_path: Path, full_disk: Path, form: Form) -> None:
    """The package's own retries pay once where the disk is full, and the file is fetched when it is not."""

    def empty(stage: Stage, number: int) -> None:
        if number == 2:
            (full_disk / "ballast").unlink()

    shape = Shape(
        "a named scope, the disk is full",
        "scoped.py",
        1,
        breaks=TWICE,
        change=empty,
        may_fail=(1,),
        env=lambda _: {"RH_STORAGE_URL": str(full_disk / "out")},
    )
    world.check(shape, form, tmp_path)


def _newer_format(stage: Stage, number: int) -> None:
    """Writes another number into the record that says in which format the scope's records are."""
    if number != 2:
        return
    changed = 0
    for path in (stage.folder / "out" / "scopes").rglob("*.json"):
        if path.is_file() and isinstance((content := json.loads(path.read_bytes())).get("format"), int):
            path.write_text(json.dumps({**content, "format": content["format"] + 1}))
            changed += 1
    assert changed, "no record of the scope says in which format the records are"


@both_forms
def test_a_scope_of_another_format(world: World, tmp_path: Path, form: Form) -> None:
    """Records of another format are refused, with what to do, and nothing is paid."""
    shape = Shape(
        "a scope of another format", "scoped.py", 1, breaks=TWICE, change=_newer_format, refused={2: "format"}
    )
    world.check(shape, form, tmp_path)
