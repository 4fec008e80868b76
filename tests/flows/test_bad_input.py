"""A flow that starts several jobs looks at what it was given before the first of them is paid for."""

from __future__ import annotations

from pathlib import Path

import pytest

from rh_prefect import catalog
from rh_prefect.emulator import Emulator
from rh_prefect.errors import MediaError
from rh_prefect.flow_runs.parameter_types import LONGEST_MUSIC
from rh_prefect.flows import add_soundtrack, film, upscale
from tests.support.samples import media as samples

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]


async def test_a_film_of_a_missing_picture_pays_for_no_sound(rh: Emulator, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"photo\.jpg"):
        await film("a lighthouse", shots=1, image=str(tmp_path / "photo.jpg"))
    assert not rh.recorder.submissions


async def test_a_film_of_a_picture_that_the_model_does_not_take_pays_for_no_sound(rh: Emulator, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="png"):
        await film("a lighthouse", shots=1, image=str(samples.webp(tmp_path / "photo.webp")))
    assert not rh.recorder.submissions


async def test_what_is_no_video_gets_no_sound(rh: Emulator, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"film\.mp4"):
        await add_soundtrack(str(tmp_path / "film.mp4"), narration="hello", music="calm")
    with pytest.raises(MediaError, match="image"):
        await add_soundtrack(str(samples.png(tmp_path / "photo.png")), narration="hello", music="calm")
    assert not rh.recorder.submissions


async def test_of_several_videos_the_missing_one_is_said_before_the_others_are_paid_for(
    rh: Emulator, tmp_path: Path
) -> None:
    video = samples.mp4(tmp_path / "film.mp4")
    with pytest.raises(MediaError, match=r"other\.mp4"):
        await upscale([str(video), str(tmp_path / "other.mp4")])
    assert not rh.recorder.submissions


@pytest.mark.long
async def test_an_empty_field_of_a_form_is_no_image(rh: Emulator) -> None:
    """It failed: "image_url is missing", an error about a model that the user has not chosen."""
    made = await film("a lighthouse", shots=1, image="")
    assert len(made.steps) == 5


@pytest.mark.long
async def test_a_long_prompt_is_a_film(rh: Emulator) -> None:
    made = await film("é" * 1500, shots=1)
    assert len(rh.recorder.paid) == 5
    assert Path(made.film.uri).is_file()


def test_the_length_of_a_description_of_music_is_the_model_s() -> None:
    described = next(param for param in catalog.get("suno-single-v5.5").params if param.name == "description")
    assert described.max_length == LONGEST_MUSIC
