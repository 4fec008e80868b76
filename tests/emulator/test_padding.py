"""Padded files are valid: what decoders read in them is what was there before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
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


def test_a_text_stays_a_text(tmp_path: Path) -> None:
    made = tmp_path / "a.txt"
    made.write_text("a lighthouse", encoding="utf-8")
    assert pad(made, least_bytes=100).read_text(encoding="utf-8").strip() == "a lighthouse"
