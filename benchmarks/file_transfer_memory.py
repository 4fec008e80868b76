"""How much the process grows while a job sends or fetches 300 MB; the emulator and S3 are separate processes."""

from __future__ import annotations

import asyncio
import json
import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.emulator_process import started
from benchmarks.file_transfer import padded
from benchmarks.report import Figure, show
from benchmarks.rss import Growth
from tests.support.samples import media as samples
from tests.support.servers.s3 import S3Server

SIZE = 300 * 10**6
LIMIT_MB = 32


@dataclass(frozen=True, slots=True)
class Case:
    """One job that moves 300 MB.

    Attributes:
        what: Its name in the table.
        video: What it enlarges.
        warm: The environment of a small job of the same kind, which runs first.
        env: The environment of the job that is measured.
        small: The small job's video.
    """

    what: str
    video: str
    warm: dict[str, str]
    env: dict[str, str]
    small: str


def main() -> None:
    """Measures and prints."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="rh-bench-")))
        (folder / "s3").mkdir()
        s3 = S3Server(folder / "s3")
        stack.callback(s3.stop)
        s3.start()
        plain, large = (stack.enter_context(started(least_bytes=size)).env for size in (0, SIZE))
        # A process for each: what one job has freed must not hide what the next one takes.
        pool = stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1))
        show("Memory over idle", list(pool.map(_measure, _cases(folder, s3, plain=plain, large=large))))


def _cases(folder: Path, s3: S3Server, *, plain: dict[str, str], large: dict[str, str]) -> list[Case]:
    small, big = samples.mp4(folder / "small.mp4"), padded(samples.mp4(folder / "big.mp4", hz=880), SIZE)
    disk = {"RH_STORAGE_URL": str(folder / "out"), "RH_STATE_DIR": str(folder / "state"), "RH_POLL_SECONDS": "0.1"}
    bucket = {**disk, "RH_STORAGE_URL": s3.url("out"), "RH_STORAGE_OPTIONS": json.dumps(s3.options)}
    remote = {path: f"{s3.url()}/{path.name}" for path in (small, big)}
    for path, uri in remote.items():
        s3.filesystem().put_file(str(path), uri)
    return [
        Case("300 MB upload from a folder", str(big), plain | disk, plain | disk, str(small)),
        Case("300 MB upload from S3", remote[big], plain | bucket, plain | bucket, remote[small]),
        Case("300 MB result into a folder", str(small), plain | disk, large | disk, str(small)),
        Case("300 MB result into S3", str(small), plain | bucket, large | bucket, str(small)),
    ]


def _measure(case: Case) -> Figure:
    """Runs a small job, then the large one, in a new process; returns by how much the large one made it grow."""
    _run(case.small, case.warm, scope="warm")
    growth = Growth()
    _run(case.video, case.env, scope=case.what.replace(" ", "-").lower())
    return Figure(case.what, growth.megabytes, LIMIT_MB, "MB", f"over {growth.idle / 1e6:.0f} MB")


def _run(video: str, env: dict[str, str], *, scope: str) -> None:
    from rh_prefect import generate, models

    os.environ.update(env)
    asked = models.RhVideoUpscaler(video_url=video)
    # The task's own function: Prefect's engine is loaded, and no server is needed.
    result = asyncio.run(generate.fn(asked, scope=scope))
    assert result.outputs


if __name__ == "__main__":
    main()
