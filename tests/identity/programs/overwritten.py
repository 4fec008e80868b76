"""A file whose content is replaced between two jobs of one run, and so again in each attempt."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import fsspec

from rh_prefect import flow, generate
from tests.identity.branches import edited, made, second
from tests.support.processes.program_report import break_off, file, keep

NAMES = ("before", "after")


def _put(name: str) -> tuple[str, str]:
    """Writes the content of this name to the one place; the place, and the content's hash."""
    content = file(f"{name}.png").read_bytes()
    place, options = json.loads(file("place").read_text())
    if "://" in place:
        with fsspec.open(place, "wb", **options) as target:
            target.write(content)
    else:
        there = Path(place)
        then = there.stat() if there.exists() else None
        there.write_bytes(content)
        if then is not None:  # touch -r
            os.utime(there, ns=(then.st_atime_ns, then.st_mtime_ns))
    return place, hashlib.sha256(content).hexdigest()


@flow(name="overwritten")
def sync_form() -> None:
    for name in NAMES:
        place, source = _put(name)
        photo = made(edited(place))
        keep(name, photo, made(second(photo, name)), source=source)
    break_off()


@flow(name="overwritten")
async def async_form() -> None:
    for name in NAMES:
        place, source = _put(name)
        photo = await generate(edited(place))
        keep(name, photo, await generate(second(photo, name)), source=source)
    break_off()
