"""A file that lies below another folder in each attempt."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rh_prefect import flow, generate
from tests.identity.branches import edited, made, second
from tests.support.processes.program_report import break_off, file, keep


def _photo() -> tuple[str, str]:
    """The file's path, and its content's hash."""
    path = file("mount").read_text().strip()
    return path, hashlib.sha256(Path(path).read_bytes()).hexdigest()


@flow(name="mount")
def sync_form() -> None:
    path, source = _photo()
    photo = made(edited(path))
    keep("only", photo, made(second(photo, "only")), source=source)
    break_off()


@flow(name="mount")
async def async_form() -> None:
    path, source = _photo()
    photo = await generate(edited(path))
    keep("only", photo, await generate(second(photo, "only")), source=source)
    break_off()
