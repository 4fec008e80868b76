"""Padded files are valid: what decoders read in them is what was there before."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import av
import pytest

from rh_prefect.emulator.render.metadata_and_padding import pad
from rh_prefect.media.probe import probe
from tests.support.samples import media as samples

LEAST = 1_000_001
MADE: dict[str, Callable[[Path], Path]] = {
    "mp3": samples.mp3,
    "wav": samples.wav,
    "flac": samples.flac,
    "mp4": samples.mp4,
    "png": samples.png,
    "jpg": samples.jpg,
    "webp": samples.webp,
}


def decoded(path: Path) -> tuple[list[float], str]:
    """When each frame is shown or heard and what is in all of them, by a decoder that lets no fault pass."""
    digest, times = hashlib.sha256(), []
    with av.open(str(path), options={"err_detect": "explode+crccheck+bitstream"}) as container:
        for stream in container.streams:
            stream.codec_context.options = {"err_detect": "explode"}
        for frame in container.decode():
            digest.update(frame.to_ndarray().tobytes())
            times.append(float(frame.time or 0))
        assert container.duration is None or container.duration < 10 * av.time_base
    return times, digest.hexdigest()


@pytest.mark.parametrize("kind", MADE)
def test_a_padded_file_shows_what_it_showed(tmp_path: Path, kind: str) -> None:
    made = MADE[kind](tmp_path / f"a.{kind}")
    before, facts = decoded(made), probe(made)
    padded = pad(made, least_bytes=LEAST)
    assert LEAST <= padded.stat().st_size <= LEAST + 4
    assert padded.stat().st_blocks * 512 < LEAST / 2, "zeros take no room"
    assert decoded(padded) == before
    assert probe(padded) == facts


def test_a_file_is_padded_once_even_by_many_threads(tmp_path: Path) -> None:
    made = MADE["png"](tmp_path / "a.png")
    first = pad(made, least_bytes=LEAST).stat()
    with ThreadPoolExecutor(8) as pool:
        again = list(pool.map(lambda _: pad(made, least_bytes=LEAST).stat(), range(8)))
        smaller = set(pool.map(lambda _: pad(made, least_bytes=LEAST // 2).stat().st_ino, range(8)))
    assert {(one.st_ino, one.st_mtime_ns) for one in again} == {(first.st_ino, first.st_mtime_ns)}, "the same ETag"
    assert len(smaller) == 1
    assert len(list(tmp_path.iterdir())) == 3, "nothing half-made is left"


def test_a_padded_scene_is_whole_by_its_own_lengths(tmp_path: Path) -> None:
    made = samples.glb(tmp_path / "a.glb")
    content = pad(made, least_bytes=LEAST).read_bytes()
    magic, version, total = struct.unpack_from("<4sII", content)
    assert (magic, version, total) == (b"glTF", 2, len(content))
    at, kinds = 12, []
    while at < total:
        length, kind = struct.unpack_from("<I4s", content, at)
        assert length % 4 == 0
        kinds.append(kind)
        at += 8 + length
    assert at == total
    assert kinds[:2] == [b"JSON", b"BIN\0"]
    assert json.loads(content[20 : 20 + struct.unpack_from("<I", content, 12)[0]])["asset"]


@pytest.mark.parametrize(
    ("kind", "more"),
    [*product(("mp3", "flac", "png", "wav"), (1, 9, 40_000_000)), ("mp3", 300_000_000)],  # one tag of MP3 has 256 MB
)
def test_any_size_can_be_reached(tmp_path: Path, kind: str, more: int) -> None:
    made = MADE[kind](tmp_path / f"a.{kind}")
    padded = pad(made, least_bytes=made.stat().st_size + more)
    assert padded.stat().st_size >= made.stat().st_size + more
    assert probe(padded) == probe(made)


def test_a_text_stays_a_text(tmp_path: Path) -> None:
    made = tmp_path / "a.txt"
    made.write_text("a lighthouse", encoding="utf-8")
    assert pad(made, least_bytes=100).read_text(encoding="utf-8").strip() == "a lighthouse"
