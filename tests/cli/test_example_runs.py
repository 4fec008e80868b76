"""Each shipped pipeline with the inputs of `rh-prefect init`, run by the printed commands to its end, and once more."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import av
import pytest

from rh_prefect.emulator import Emulator
from rh_prefect.media.edit.audio_samples import audio_level
from rh_prefect.media.probe import file_type
from rh_prefect.pipelines.pipeline import shipped_names
from tests.support.processes.typed_commands import Terminal, printed
from tests.support.samples.pipeline_assets import smaller


@dataclass(frozen=True)
class Files:
    """What an output holds.

    Attributes:
        count: How many files.
        kind: Their kind, `srt` or `vtt`, or `text` for texts.
        seconds: The length of the videos, each; None where a made voice decides it.
        sound: Whether the videos have sound; None where that differs.
    """

    count: int
    kind: str
    seconds: tuple[float, ...] = ()
    sound: bool | None = False


OUTPUTS = {
    "3d-catalogue": {"shapes": Files(2, "3d"), "clips": Files(2, "video", (5, 5)), "sheet": Files(1, "image")},
    "assemble": {"film": Files(1, "video", (11,), sound=True), "contact_sheet": Files(1, "image")},
    "captions": {"video": Files(1, "video", (6,), sound=True)},
    "dub": {"video": Files(1, "video", sound=True), "words": Files(1, "text")},
    "add-soundtrack": {"film": Files(1, "video", (6,), sound=True)},
    "film": {"film": Files(1, "video", (15,), sound=True), "subtitles": Files(3, "srt"), "sheet": Files(1, "image")},
    "formats": {"videos": Files(3, "video", (6, 6, 6), sound=True), "poster": Files(1, "image")},
    "house-style": {
        "clips": Files(6, "video", (5, 10, 5, 5, 10, 5)),
        "scored": Files(6, "video", (5, 10, 5, 5, 10, 5), sound=True),
    },
    "image-to-video": {"video": Files(1, "video", (5,))},
    "model-shootout": {"clips": Files(5, "video", (5, 5, 6, 5, 5), sound=None), "sheet": Files(1, "image")},
    "podcast-video": {"film": Files(1, "video", (15,), sound=True), "chapters": Files(3, "vtt")},
    "product-video": {"videos": Files(3, "video", (5, 5, 5), sound=True), "sheet": Files(1, "image")},
    "score": {"film": Files(1, "video", (6,), sound=True)},
    "six-languages": {"videos": Files(2, "video", sound=True), "subtitles": Files(2, "srt")},
    "storyboard": {"film": Files(1, "video", (15,)), "frames": Files(3, "image")},
    "two-models": {"film": Files(1, "video", (10,))},
    "upscale": {"videos": Files(1, "video", (6,), sound=None)},
    "weekly-news": {"film": Files(1, "video", sound=True), "subtitles": Files(5, "srt")},
}
"""What each pipeline makes of the inputs of its example; of subtitles the number of their texts."""

QUICK = ("two-models",)


def outputs_of(said: str) -> dict[str, list[str]]:
    """The outputs that a run prints, by name."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"(?m)^(\w+)(?:\[\d+\])?: (.+)$", said):
        found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize(
    "name", [one if one in QUICK else pytest.param(one, marks=pytest.mark.long) for one in shipped_names()]
)
def test_it_runs_to_its_end_and_a_second_run_submits_nothing(
    name: str, full_length_rh: Emulator, terminal: Terminal
) -> None:
    rh = full_length_rh
    plan, run = printed(terminal.call(f"init --example {name}"))
    file = Path(f"{name}.yaml")
    file.write_text(smaller(file.read_text()))
    price = json.loads(terminal.call(f"{plan} --json"), parse_float=Decimal)["price"]
    said = terminal.call(run)
    while "Waiting for review" in said:
        choose, run = printed(said)
        terminal.call(choose)
        said = terminal.call(run)
    assert price["least"] <= rh.recorder.charged <= price["most"]
    check(name, outputs_of(said))

    submitted = len(rh.recorder.submissions)
    again = terminal.call(run)
    assert "Nothing new" in again
    assert len(rh.recorder.submissions) == submitted
    check(name, outputs_of(again))


def check(name: str, made: dict[str, list[str]]) -> None:
    """Looks into the files that a run names."""
    for output, expected in OUTPUTS[name].items():
        values = made[output]
        if expected.kind == "text":
            assert all(values)
        elif expected.kind in ("srt", "vtt"):
            films = [Path(one) for video, of in OUTPUTS[name].items() if of.kind == "video" for one in made[video]]
            for value, film in zip(values, films, strict=True):
                look_at_subtitles(Path(value), expected, film, whole=len(values) == 1)
        else:
            assert len(values) == expected.count
            for number, value in enumerate(values):
                seconds = expected.seconds[number] if expected.seconds else None
                look_at_file(Path(value), expected, seconds)


def look_at_file(file: Path, expected: Files, seconds: float | None) -> None:
    assert file_type(file).kind == expected.kind, file
    if expected.kind != "video":
        return
    with av.open(str(file)) as video:
        assert len(video.streams.video) == 1
        assert expected.sound in (None, bool(video.streams.audio)), file
        shown = sum(1 for _ in video.decode(video=0)) / float(video.streams.video[0].average_rate or 1)
        assert (video.duration or 0) / av.time_base == pytest.approx(shown, abs=0.25), file
    if seconds is not None:
        assert shown == pytest.approx(seconds, abs=0.2 * max(1, seconds / 5)), file
    if expected.sound:
        assert audio_level(file).lufs > -40, f"{file} is silent"


def look_at_subtitles(file: Path, expected: Files, film: Path, *, whole: bool) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.startswith("WEBVTT") is (expected.kind == "vtt")
    times = [
        tuple(map(seconds_of, line.split(" --> "))) for line in text.splitlines() if re.match(r"[\d:.,]+ --> ", line)
    ]
    if whole:
        assert len(times) == expected.count
    starts = [start for start, _ in times]
    assert starts == sorted(starts)
    assert all(start < end for start, end in times)
    with av.open(str(film)) as video:
        assert times[-1][1] <= (video.duration or 0) / av.time_base + 0.001, (
            "the last text is shown after the end of the film"
        )


def seconds_of(clock: str) -> float:
    hours, minutes, seconds = clock.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
