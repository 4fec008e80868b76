"""How fast large files come and go: the client beside curl, on the same emulator, alone and several at once."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import struct
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.contenders import ENDPOINT
from benchmarks.emulator_process import EmulatorProcess, prompt
from benchmarks.harness import Bench, finish
from benchmarks.report import Figure, show
from benchmarks.rss import Growth
from tests.support.samples import media as samples

SIZES = (100 * 10**6, 500 * 10**6)
SMALL_SIZES = (10 * 10**6, 50 * 10**6)
"""Where only the scene itself is tried."""

AT_ONCE = 8
ROUNDS = 5
LIMIT_MB = 32
SLOWER = 1.25
"""Times curl's time: 0.8 of its throughput."""


def throughput(bench: Bench) -> None:
    """Files of 500 MB, sent and fetched."""
    if shutil.which("curl") is None:
        print("\ncurl is not installed, so that there is nothing to compare with: this scene is left out", flush=True)
        return
    smaller, size = SIZES if bench.jobs >= 200 else SMALL_SIZES
    shown = f"{size // 10**6} MB"
    figures = []
    for way in ("down", "up"):
        small = _measured(bench, way, smaller, 1)
        for count in (1, AT_ONCE):
            one = _measured(bench, way, size, count)
            what = f"{shown} {way}, {'alone' if count == 1 else f'{count} at once'}"
            figures.append(Figure(f"{what}: time / curl's", one["ours"] / one["curl"], SLOWER, "x", _rates(one)))
            figures.append(Figure(f"{what}: grows by, each", one["grows"] / count, LIMIT_MB, "MB"))
            if count == 1:
                note = f"{small['grows']:.1f} MB with {smaller // 10**6} MB"
                figures.append(Figure(f"{what}: size adds", one["grows"] - small["grows"], LIMIT_MB / 4, "MB", note))
    show(f"Throughput, {ROUNDS} rounds", figures)


def _measured(bench: Bench, way: str, size: int, count: int) -> dict[str, Any]:
    with bench.emulator(least_bytes=size if way == "down" else 0) as emulator:
        given = {"way": way, "size": size, "count": count, "link": _link(emulator) if way == "down" else ""}
        return finish(
            bench.python(
                "benchmarks.file_transfer", json.dumps(given), emulator=emulator, out=bench.new_folder("files")
            )
        )


def _rates(one: dict[str, Any]) -> str:
    ours, curl = (one["bytes"] / one[contender] / 1e6 for contender in ("ours", "curl"))
    return f"{ours:.0f} MB/s, curl {curl:.0f} MB/s"


def _link(emulator: EmulatorProcess) -> str:
    """Has a result made; its link."""
    headers = {"Authorization": f"Bearer {emulator.key}"}
    with httpx.Client(base_url=f"{emulator.url}/openapi/v2", headers=headers, timeout=60) as client:
        body = {"prompt": prompt(0), "aspectRatio": "9:16"}
        task_id = client.post(ENDPOINT, json=body).json()["taskId"]
        while not (results := client.post("query", json={"taskId": task_id}).json().get("results")):
            time.sleep(0.1)
    link: str = results[0]["url"]
    return link


def main() -> None:
    """Measures one way and prints it."""
    given = json.loads(sys.argv[1])
    print(json.dumps(asyncio.run(_Files(**given).measure())))


class _Files:
    """Files that are sent or fetched, so many at once, by each contender in turn."""

    def __init__(self, *, way: str, size: int, count: int, link: str) -> None:
        from rh_prefect.client import Client

        self._way, self._count, self._link = way, count, link
        self._out = Path(os.environ["RH_STORAGE_URL"])
        self._url, self._key = os.environ["RH_BASE_URL"], os.environ["RH_API_KEY"]
        self._client = Client(self._key, base_url=self._url)
        self._size = size
        self._video = padded(samples.mp4(self._out / "video.mp4"), size if way == "up" else 0)

    async def measure(self) -> dict[str, Any]:
        """This client once to get warm (curl is a new process each time), then both `ROUNDS` times."""
        times: dict[str, list[float]] = {"ours": [], "curl": []}
        await self._ours()
        growth = Growth()
        for _ in range(ROUNDS):
            for contender, run in (("curl", self._curl), ("ours", self._ours)):
                began = time.monotonic()
                await run()
                times[contender].append(time.monotonic() - began)
                for file in self._out.glob("got-*"):
                    file.unlink()
        await self._client.aclose()
        medians = {contender: statistics.median(each) for contender, each in times.items()}
        return {**medians, "grows": growth.megabytes, "bytes": self._size * self._count}

    async def _ours(self) -> None:
        await asyncio.gather(*(self._one(number) for number in range(self._count)))

    async def _one(self, number: int) -> None:
        if self._way == "down":
            await self._client.download(self._link, self._out / f"got-{number}")
        else:
            await self._client.upload(self._video, name="video.mp4", mime="video/mp4")

    async def _curl(self) -> None:
        started = (asyncio.create_subprocess_exec(*self._command(number)) for number in range(self._count))
        running = await asyncio.gather(*started)
        if any(await asyncio.gather(*(process.wait() for process in running))):
            raise RuntimeError("curl failed")

    def _command(self, number: int) -> list[str]:
        quiet = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*"]
        if self._way == "down":
            return [*quiet, "--output", str(self._out / f"got-{number}"), self._link]
        form = ["--header", f"Authorization: Bearer {self._key}", "--form", f"file=@{self._video};type=video/mp4"]
        return [*quiet, "--output", "/dev/null", *form, f"{self._url}/openapi/v2/media/upload/binary"]


def padded(video: Path, size: int) -> Path:
    """Adds a box that players skip, so that a video has a size; it needs no room on the disk."""
    missing = size - video.stat().st_size
    if missing > 0:
        with video.open("ab") as file:
            file.write(struct.pack(">I4s", missing, b"free"))
            file.truncate(size)
    return video


if __name__ == "__main__":
    main()
