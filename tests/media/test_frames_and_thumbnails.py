from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rh_prefect.errors import InputError
from rh_prefect.media.edit.frames_and_thumbnails import contact_sheet, frame, thumbnail
from rh_prefect.media.edit.joining import concat
from tests.support.samples import clip_samples
from tests.support.samples import media as samples
from tests.support.samples.clip_samples import BLUE, GREEN, RED, near, plain

GROUND = (24, 24, 27)


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
@pytest.mark.parametrize("name", ["end.png", "end.jpg"])
def test_the_last_frame_is_the_very_last(tmp_path: Path, container: str, name: str) -> None:
    clip = clip_samples.solid(tmp_path / "clip", [RED] * 30 + [GREEN], container=container)
    frame(clip, tmp_path / name, at="last")
    with Image.open(tmp_path / name) as picture:
        assert (picture.format, picture.size) == ("PNG" if name.endswith("png") else "JPEG", (64, 48))
        assert near(picture.convert("RGB").getpixel((30, 20)), GREEN)


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_a_frame_is_the_one_that_is_shown_then(tmp_path: Path, container: str) -> None:
    """A key frame comes every 250 frames; the one that is wanted is behind the second."""
    clip = clip_samples.solid(tmp_path / "clip", [RED] * 300 + [GREEN] * 2 + [BLUE] * 30, container=container)
    for at, colour in ((24.9, RED), (25.01, GREEN), (25.2, BLUE)):
        frame(clip, tmp_path / "frame.png", at=at)
        assert near(Image.open(tmp_path / "frame.png").convert("RGB").getpixel((30, 20)), colour)


def test_a_poster_and_a_thumbnail_are_from_the_middle(tmp_path: Path) -> None:
    clip = clip_samples.solid(tmp_path / "clip.mp4", [RED] * 12 + [BLUE] * 2 + [GREEN] * 12)
    frame(clip, tmp_path / "poster.png", at="middle")
    for picture in (Image.open(tmp_path / "poster.png"), Image.open(io.BytesIO(thumbnail(clip)))):
        assert picture.size == (64, 48)
        assert near(picture.getpixel((30, 20)), BLUE)


@pytest.mark.parametrize(
    ("matrix", "red", "green"),
    [
        ((-1, 0, 0, 1), "left", "bottom"),
        ((1, 0, 0, -1), "right", "top"),
        ((-1, 0, 0, -1), "left", "top"),
        ((0, 1, -1, 0), "bottom", "left"),
        ((0, -1, 1, 0), "top", "right"),
        ((0, 1, 1, 0), "bottom", "right"),
        ((0, -1, -1, 0), "top", "left"),
    ],
)
def test_a_turned_or_mirrored_video_is_shown_as_a_player_shows_it(
    tmp_path: Path, matrix: tuple[int, int, int, int], red: str, green: str
) -> None:
    """The sample's first frame is redder towards the right, and greener towards the bottom."""
    clip = clip_samples.turned(samples.mp4(tmp_path / "clip.mp4", seconds=0.5), matrix)
    frame(clip, tmp_path / "frame.png")
    concat([clip], tmp_path / "film.mp4")
    for shown in (Image.open(tmp_path / "frame.png"), clip_samples.play(tmp_path / "film.mp4").frames[0]):
        pixels = np.asarray(shown).astype(int)
        assert shown.size == ((64, 48) if matrix[0] else (48, 64))
        edges = {"left": pixels[:, 3], "right": pixels[:, -4], "top": pixels[3], "bottom": pixels[-4]}
        means = {side: edge.mean(axis=0) for side, edge in edges.items()}
        assert (max(means, key=lambda side: means[side][0]), max(means, key=lambda side: means[side][1])) == (
            red,
            green,
        )


@pytest.mark.parametrize("limit", [30_000, 6_000, 2_000])
def test_a_thumbnail_weighs_no_more_than_it_may(tmp_path: Path, limit: int) -> None:
    noise = np.random.default_rng(7).integers(0, 256, (600, 900, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    data = thumbnail(tmp_path / "noise.png", max_bytes=limit)
    assert limit / 8 < len(data) <= limit
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "JPEG"
        assert picture.width / picture.height == pytest.approx(1.5, abs=0.03)


def test_a_thumbnail_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fits in 100 bytes"):
        thumbnail(samples.png(tmp_path / "photo.png"), max_bytes=100)


def test_a_sheet_is_a_tidy_grid(tmp_path: Path) -> None:
    """Five cells in three columns: 400 = 3 cells of 128 and 4 gaps of 4; proportions 4:3."""
    sources = [
        plain(tmp_path / "red.png", RED, (640, 480)),
        clip_samples.solid(tmp_path / "green", [RED] * 5 + [GREEN] * 3 + [RED] * 4),
        plain(tmp_path / "blue.jpg", BLUE, (400, 300)),
        plain(tmp_path / "tall.png", RED, (30, 300)),
        plain(tmp_path / "small.png", GREEN, (8, 6)),
    ]
    contact_sheet(sources, tmp_path / "sheet.jpg", columns=3, width=400)
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert (sheet.format, sheet.mode, sheet.size) == ("JPEG", "RGB", (400, 3 * 4 + 2 * 96))
        for left, top, colour in [(4, 4, RED), (136, 4, GREEN), (268, 4, BLUE), (136, 104, GREEN)]:
            corners = [(left + x, top + y) for x in (8, 64, 119) for y in (8, 48, 87)]
            assert all(near(sheet.getpixel(corner), colour, by=16) for corner in corners)
        # The tall one is shown whole, so it is narrow, in the middle of its cell.
        assert near(sheet.getpixel((4 + 64, 104 + 48)), RED, by=30)
        assert near(sheet.getpixel((4 + 40, 104 + 48)), (39, 39, 42), by=16)
        for gap in [(1, 50), (133, 50), (265, 50), (398, 50), (200, 1), (330, 160)]:
            assert near(sheet.getpixel(gap), GROUND, by=16)


def test_captions_are_written_under_their_pictures_and_cut(tmp_path: Path) -> None:
    pictures = [plain(tmp_path / f"{number}.png", RED, (64, 48)) for number in range(3)]
    captions = ["", "a walk\nby the sea", "far too long for so small a picture " * 9]
    contact_sheet(pictures, tmp_path / "sheet.jpg", columns=3, width=640, captions=captions)
    contact_sheet(pictures, tmp_path / "plain.jpg", columns=3, width=640)
    sheet, bare = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("sheet.jpg", "plain.jpg"))
    strip = sheet[bare.shape[0] - 4 :]
    written = [(strip[:-6, left : left + 202].max(axis=2) > 150) for left in (6, 218, 430)]
    assert not written[0].any()
    assert 60 < np.flatnonzero(written[1].any(axis=0)).max() < 150
    assert np.flatnonzero(written[2].any(axis=0)).max() > 180
    # Letters are high enough to be read.
    assert np.ptp(np.flatnonzero(written[1].any(axis=1))) >= 8
    assert strip[:, 633:].max() < 60


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (4, 2), (9, 3), (30, 4)])
def test_a_sheet_chooses_its_columns(tmp_path: Path, count: int, columns: int) -> None:
    picture = plain(tmp_path / "red.png", RED, (64, 64))
    contact_sheet([picture] * count, tmp_path / "sheet.jpg", width=200)
    cell, rows = (200 - 2 * (columns + 1)) // columns, -(-count // columns)
    assert Image.open(tmp_path / "sheet.jpg").size == (200, rows * (cell + 2) + 2)


def test_transparent_and_turned_pictures_are_shown_as_a_viewer_shows_them(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 48), (*RED, 0)).save(tmp_path / "clear.png")
    samples.jpg(tmp_path / "turned.jpg", size=(64, 48), orientation=6)
    clear, turned = (Image.open(io.BytesIO(thumbnail(tmp_path / name))) for name in ("clear.png", "turned.jpg"))
    assert near(clear.getpixel((30, 20)), GROUND)
    assert turned.size == (48, 64)


@pytest.mark.parametrize(("count", "columns", "width"), [(0, None, 400), (2, 0, 400), (2, -1, 400), (50, 50, 60)])
def test_a_sheet_without_room_is_refused(tmp_path: Path, count: int, columns: int | None, width: int) -> None:
    pictures = [samples.png(tmp_path / "photo.png")] * count
    with pytest.raises(InputError, match="A contact sheet of"):
        contact_sheet(pictures, tmp_path / "sheet.jpg", columns=columns, width=width)
