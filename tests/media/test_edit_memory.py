"""What is held at a time does not grow with the length: whole films in memory would be many times what is allowed."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rh_prefect.media.edit.frames_and_thumbnails import frame
from rh_prefect.media.edit.joining import concat
from rh_prefect.media.edit.mixdown import mix
from rh_prefect.media.edit.muxing import mux
from tests.support.samples import clip_samples

STATUS = Path("/proc/self/status")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not STATUS.exists(), reason="peak memory is read from Linux's /proc"),
]


def _peak(do: Callable[[], object]) -> float:
    """By how many MB memory rises above what it was, at most, while something is done."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    do()
    return _status("VmHWM") - before


def _status(name: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def test_pictures_are_handled_one_by_one(tmp_path: Path) -> None:
    """400 frames of 640x360 are 138 MB."""
    clip = clip_samples.solid(tmp_path / "clip.mp4", [(40, 40, 200)] * 400, size=(640, 360), fps=30)
    frame(clip, tmp_path / "warm.png", at="last")
    assert _peak(lambda: frame(clip, tmp_path / "end.png", at="last")) < 40
    assert _peak(lambda: concat([clip], tmp_path / "joined.mp4")) < 80


def test_one_transition_is_held_at_a_time(tmp_path: Path) -> None:
    """The 125 frames of a transition of 5 s are 43 MB."""
    clip = clip_samples.solid(tmp_path / "clip.mp4", [(40, 40, 200)] * 300, size=(640, 360), fps=25)
    concat([clip, clip], tmp_path / "warm.mp4", seconds=0.1)
    assert _peak(lambda: concat([clip, clip, clip], tmp_path / "film.mp4", seconds=5)) < 135


def test_sound_is_handled_piece_by_piece(tmp_path: Path) -> None:
    """A minute and a half of stereo at 48 kHz is 35 MB."""
    music = clip_samples.sound(tmp_path / "music.wav", clip_samples.tone(3000, 5))
    speech = clip_samples.sound(tmp_path / "speech.wav", np.zeros(48000))
    mix(speech, music, tmp_path / "warm.wav", seconds=1)
    track, picture = (
        tmp_path / "track.wav",
        clip_samples.solid(tmp_path / "slow.mp4", [(0, 0, 0)] * 90, size=(16, 16), fps=1),
    )
    assert _peak(lambda: mix([(45, speech)], music, track, seconds=90)) < 16
    assert _peak(lambda: mux(picture, track, tmp_path / "film.mp4")) < 16
