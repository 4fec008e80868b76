"""Each film of a run has a file of its own, which a retry writes again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from rh_prefect import assemble, flow
from rh_prefect.emulator import Emulator
from rh_prefect.errors import MediaError
from rh_prefect.flow_runs.rerun import create, rerun
from rh_prefect.tasks.assemble import Film
from tests.support.samples import clip_samples
from tests.support.samples import media as samples

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]

FAILS = [True]


@flow
async def cuts(first: str, second: str) -> list[Film]:
    made = [await assemble([first]), await assemble([second, first]), await assemble([first]), await assemble([second])]
    if FAILS:
        FAILS.clear()
        raise RuntimeError("after the films")
    return made


def changed(films: list[Film]) -> list[str]:
    """The files that are not what the films say.

    An equal film is written to the same name again; the encoder does not always write the same bytes, so the last one
    counts.
    """
    last = {file.uri: file for film in films for file in (film.film, film.contact_sheet)}
    return [uri for uri, file in last.items() if hashlib.sha256(Path(uri).read_bytes()).hexdigest() != file.sha256]


async def test_a_later_film_does_not_replace_another_one(rh: Emulator, tmp_path: Path) -> None:
    clips = {
        "first": str(samples.mp4(tmp_path / "a.mp4", seconds=1)),
        "second": str(samples.mp4(tmp_path / "b.mp4", seconds=2)),
    }
    FAILS[:] = [True]
    run = await create(cuts, clips)
    with pytest.raises(RuntimeError, match="after the films"):
        await rerun(cuts, run)
    films = await rerun(cuts, run)
    assert [Path(one.film.uri).name for one in films] == ["film.mp4", "film-2.mp4", "film.mp4", "film-3.mp4"]
    assert changed(films) == []
    folder = Path(films[0].film.uri).parent
    assert len(list(folder.glob("film*.mp4"))) == 3, "the retry writes the same files again"


async def test_films_outside_of_flows_have_files_of_their_own(rh: Emulator, tmp_path: Path) -> None:
    first = str(samples.mp4(tmp_path / "a.mp4", seconds=1))
    second = str(samples.mp4(tmp_path / "b.mp4", seconds=2))
    films = [await assemble.fn([first]), await assemble.fn([second])]
    assert changed(films) == []


@pytest.mark.parametrize(
    ("has_sound", "is_heard"), [((True, True), True), ((False, True), True), ((False, False), False)]
)
async def test_clips_keep_their_own_sound_without_speech_and_music(
    rh: Emulator, tmp_path: Path, has_sound: tuple[bool, ...], is_heard: bool
) -> None:
    """The sound of a clip may have been paid for."""
    clips = [str(samples.mp4(tmp_path / f"{n}.mp4", audio=audio)) for n, audio in enumerate(has_sound)]
    film = await assemble.fn(clips)
    assert film.film.has_audio is is_heard
    if is_heard:
        assert clip_samples.loudness(Path(film.film.uri), start=1.1, seconds=0.8) > -40, "the second clip's tone"


async def test_an_error_names_the_file_that_was_given(rh: Emulator, tmp_path: Path) -> None:
    clip, broken = str(samples.mp4(tmp_path / "clip.mp4", seconds=1)), tmp_path / "broken.mp4"
    broken.write_text("no video")
    with pytest.raises(MediaError) as caught:
        await assemble.fn([clip, str(broken)])
    assert f"The file {broken} cannot be used" in str(caught.value)


async def test_speech_that_is_cut_is_told(rh: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip, speech = samples.mp4(tmp_path / "clip.mp4", seconds=1), samples.wav(tmp_path / "speech.wav", seconds=3)
    await assemble.fn([str(clip)], speech=str(speech))
    assert "the speech lasts 3.0 s and the film 1.0 s" in caplog.text
    caplog.clear()
    await assemble.fn([str(clip)], speech=str(samples.wav(tmp_path / "short.wav", seconds=1)))
    assert "the speech lasts" not in caplog.text
