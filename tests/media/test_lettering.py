"""Captions over a video, titles, and transitions between clips: pixels and sound as they are seen and heard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from rh_prefect.errors import InputError, MediaError
from rh_prefect.media.edit.audio_samples import audio_level
from rh_prefect.media.edit.frames_and_thumbnails import font_for, missing_letter
from rh_prefect.media.edit.joining import concat
from rh_prefect.media.edit.lettering import captions, periods, title_clip
from rh_prefect.media.edit.single_file_edits import watermark
from rh_prefect.media.edit.subtitle_writer import Cue, read_cues, subtitles
from tests.support.samples import clip_samples
from tests.support.samples import media as samples
from tests.support.samples.clip_samples import BLACK, BLUE, GREEN, RED, near

SIZE = (160, 90)


def differing(picture: Image.Image, colour: tuple[int, int, int], *, rows: slice) -> float:
    """The share of pixels in some rows that have not the colour of the ground."""
    pixels = np.asarray(picture.convert("RGB"), int)[rows]
    return float((np.abs(pixels - np.array(colour)).max(axis=2) > 40).mean())


def test_captions_are_shown_at_their_times_over_the_picture_which_keeps_its_sound(tmp_path: Path) -> None:
    video = samples.mp4(tmp_path / "a.mp4", seconds=1)
    plain = clip_samples.play(video)
    seconds = captions(video, tmp_path / "b.mp4", cues=[Cue(0.3, 0.6, "HELLO")], size=0.2)
    film = clip_samples.play(tmp_path / "b.mp4")
    assert (seconds, film.codecs, film.size, len(film.frames)) == (1, ("h264", "aac"), plain.size, len(plain.frames))
    low, rate = slice(round(film.size[1] * 0.7), None), len(film.frames)
    before, within, after = (np.asarray(film.frames[round(at * rate)], int) for at in (0.1, 0.45, 0.8))
    same = [np.asarray(plain.frames[round(at * rate)], int) for at in (0.1, 0.45, 0.8)]
    changed = [np.abs(one - two).max(axis=2) > 60 for one, two in zip((before, within, after), same)]
    assert [float(one[low].mean()) > 0.02 for one in changed] == [False, True, False]
    assert float(changed[1][: film.size[1] // 2].mean()) == 0, "only the letters are drawn, at the bottom"


def test_captions_have_letters_and_no_box_and_may_be_at_the_top(tmp_path: Path) -> None:
    clip = clip_samples.solid(tmp_path / "a.mp4", [BLUE] * 12, size=SIZE)
    captions(clip, tmp_path / "b.mp4", cues=[Cue(0, 1, "a long line that needs two lines")], place="top", size=0.15)
    shown = clip_samples.play(tmp_path / "b.mp4").frames[6]
    assert 0.05 < differing(shown, BLUE, rows=slice(0, 50)) < 0.6
    assert differing(shown, BLUE, rows=slice(60, None)) < 0.01


def test_subtitles_are_read_as_they_are_written(tmp_path: Path) -> None:
    texts, at = ["One & <two>", "Three"], [0.0, 61.5]
    for form in ("srt", "vtt"):
        file = tmp_path / f"words.{form}"
        file.write_text(subtitles(texts, at=at, seconds=70, form=form), encoding="utf-8")
        first, second = read_cues(file)
        assert (first.start, first.end, second.start, second.end) == (0, 61.46, 61.5, 70)
        assert second.text == "Three"
    assert read_cues(tmp_path / "words.vtt")[0].text == "One & <two>"
    styled = tmp_path / "styled.srt"
    styled.write_text("\ufeff1\n00:00:01,000 --> 00:00:02,000 X1:0\n{\\an8}<i>low</i>\nhigh\n\n", encoding="utf-8")
    assert read_cues(styled) == [Cue(1, 2, "low\nhigh")]
    styled.write_text("no times")
    with pytest.raises(MediaError, match="has no subtitles"):
        read_cues(styled)


def test_words_between_angle_brackets_are_no_style(tmp_path: Path) -> None:
    text = "I <3 you, and 4 > 2. <Vow> <music>"
    file = tmp_path / "words.srt"
    file.write_text(subtitles([text], at=[0]), encoding="utf-8")
    assert read_cues(file)[0].text == text
    styles = '<v.loud Ann Lee>a</v> <c.red>b</c> <00:01.500>c <font color="#fff">d</font> <B>e</B> <lang en>f</lang>'
    file.write_text(f"00:00.000 --> 00:02.000\n{styles} <ruby>g<rt>h</rt></ruby>\n")
    assert read_cues(file)[0].text == "a b c d e f gh"


def test_a_text_that_does_not_fit_even_in_small_letters_is_refused(tmp_path: Path) -> None:
    clip, long = clip_samples.solid(tmp_path / "a.mp4", [BLUE] * 4, size=SIZE), "word " * 800
    refused = r"begins with 'word word .*' does not fit .*What to do: use a shorter text"
    with pytest.raises(InputError, match=refused):
        title_clip(long, tmp_path / "b.mp4", seconds=1)
    with pytest.raises(InputError, match=refused):
        captions(clip, tmp_path / "b.mp4", cues=[Cue(0, 1, long)])
    assert not (tmp_path / "b.mp4").exists()


def test_captions_that_overlap_are_shown_together() -> None:
    found = periods([Cue(0, 2, "a"), Cue(1, 3, "b"), Cue(4, 5, "c")])
    assert found == [Cue(0, 1, "a"), Cue(1, 2, "a\nb"), Cue(2, 3, "b"), Cue(4, 5, "c")]


def test_a_letter_that_no_font_has_is_refused_and_others_have_a_font_of_this_machine(tmp_path: Path) -> None:
    clip = clip_samples.solid(tmp_path / "a.mp4", [BLUE] * 4, size=SIZE)
    with pytest.raises(InputError, match=r"No font for the character .* was found. Nothing was made"):
        captions(clip, tmp_path / "b.mp4", cues=[Cue(0, 1, "a\U000f1234")])
    with pytest.raises(MediaError, match="cannot be used"):
        title_clip("a", tmp_path / "b.mp4", seconds=1, font=clip)
    assert not (tmp_path / "b.mp4").exists()
    assert missing_letter("Ü", ImageFont.load_default(16)) == "Ü"
    assert not missing_letter("plain", font_for("plain", 16))


def test_a_title_is_a_silent_clip_that_appears_and_disappears(tmp_path: Path) -> None:
    photo = samples.png(tmp_path / "a.png", size=SIZE)
    for picture in (None, photo):
        assert title_clip("A film", tmp_path / "t.mp4", seconds=1.2, width=160, height=90, image=picture) == 1.2
        film = clip_samples.play(tmp_path / "t.mp4")
        assert (film.codecs, film.size, len(film.frames)) == (("h264",), SIZE, 30)
        first, middle, last = (float(np.asarray(film.frames[n]).mean()) for n in (0, 15, 29))
        assert first < middle / 2 > last
        assert float(np.asarray(film.frames[15])[30:60].max()) > 200, "white letters"


def test_a_transition_shows_two_clips_together_and_shortens_the_film(tmp_path: Path) -> None:
    clips = [clip_samples.solid(tmp_path / f"{n}.mp4", [c] * 12, size=SIZE) for n, c in enumerate((RED, GREEN, BLUE))]
    assert concat(clips, tmp_path / "f.mp4", seconds=0.25) == 2.5
    frames = clip_samples.play(tmp_path / "f.mp4").frames
    assert len(frames) == 30
    for number, colour in ((5, RED), (14, GREEN), (25, BLUE)):
        assert near(frames[number].getpixel((80, 45)), colour)
    red, green, _ = frames[10].getpixel((80, 45))  # type: ignore[misc]
    assert 60 < red < 200 and 30 < green < 200
    assert concat(clips[:2], tmp_path / "d.mp4", seconds=0.25, look="black") == 1.75
    assert near(clip_samples.play(tmp_path / "d.mp4").frames[10].getpixel((80, 45)), BLACK, by=30)


def test_a_transition_fades_the_sound_and_a_silent_clip_is_silent(tmp_path: Path) -> None:
    low, high = (samples.mp4(tmp_path / f"{hz}.mp4", seconds=1, hz=hz) for hz in (440, 3000))
    silent = clip_samples.solid(tmp_path / "silent.mp4", [RED] * 24, size=SIZE, fps=24)
    seconds = concat([low, high, silent], tmp_path / "f.mp4", seconds=0.4)
    heard = clip_samples.heard(tmp_path / "f.mp4")
    levels = {at: [clip_samples.strength(heard, hz, at, 0.1) for hz in (440, 3000)] for at in (0.2, 0.75, 1.05)}
    assert levels[0.2][0] - levels[0.2][1] > 30
    assert abs(levels[0.75][0] - levels[0.75][1]) < 6, "both in the middle of the transition"
    assert levels[1.05][1] - levels[1.05][0] > 30
    assert np.abs(heard[:, round(1.7 * 48_000) :]).max() < 0.001
    assert audio_level(tmp_path / "f.mp4").seconds == pytest.approx(seconds, abs=0.05)


def test_clips_that_are_shorter_than_their_transitions_are_refused(tmp_path: Path) -> None:
    clips = [clip_samples.solid(tmp_path / f"{n}.mp4", [RED] * count) for n, count in enumerate((24, 6, 24))]
    with pytest.raises(MediaError, match=r"is too short for transitions of 0\.4 s"):
        concat(clips, tmp_path / "f.mp4", seconds=0.4)
    assert not (tmp_path / "f.mp4").exists()


def test_the_first_and_the_last_clip_need_the_length_of_one_transition(tmp_path: Path) -> None:
    clips = [clip_samples.solid(tmp_path / f"{n}.mp4", [RED] * count) for n, count in enumerate((6, 10, 6))]
    assert concat(clips, tmp_path / "f.mp4", seconds=5 / 12) == pytest.approx(1)
    with pytest.raises(MediaError, match=r"2\.mp4 is too short for transitions of 0\.6 s"):
        concat([tmp_path / "1.mp4", tmp_path / "2.mp4"], tmp_path / "g.mp4", seconds=0.6)
    assert not (tmp_path / "g.mp4").exists()


def test_transparent_parts_of_a_logo_show_the_video(tmp_path: Path) -> None:
    logo = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    logo.paste((255, 0, 0, 255), (0, 0, 20, 40))
    logo.save(tmp_path / "logo.png")
    clip = clip_samples.solid(tmp_path / "a.mp4", [BLUE] * 4, size=SIZE)
    options = {"corner": "top-left", "size": 0.25}
    for opacity in (1, 0.5):
        watermark(clip, tmp_path / "logo.png", tmp_path / "b.mp4", opacity=opacity, **options)  # type: ignore[arg-type]
        shown = clip_samples.play(tmp_path / "b.mp4").frames[2]
        red, _, blue = shown.getpixel((12, 20))  # type: ignore[misc]
        assert (red > 200, blue > 60) == (opacity == 1, opacity < 1)
        assert near(shown.getpixel((33, 20)), BLUE, by=30)
