"""A flow whose steps ask for the same thing is not refused: a film's shots are different takes, the rest is shared."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rh_prefect import flow
from rh_prefect.emulator import Emulator
from rh_prefect.flows import add_soundtrack, film, upscale
from rh_prefect.tasks import Film
from tests.support.samples import media as samples
from tests.support.world.pipeline_flows import in_flow_run


@in_flow_run
async def test_shots_with_the_same_picture_and_movement_are_takes(rh: Emulator, tmp_path: Path) -> None:
    """There are four movements, so that the fifth shot of a given picture asks for what the first has asked for."""
    made = await film("a lighthouse", shots=5, image=str(samples.png(tmp_path / "photo.png")))
    assert len({step.task_id for step in made.steps}) == len(rh.recorder.paid) == 5 * 2 + 2


@in_flow_run
async def test_a_video_that_is_given_twice_is_enlarged_once(rh: Emulator, tmp_path: Path) -> None:
    video = samples.mp4(tmp_path / "film.mp4")
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(video.read_bytes())
    first, *others = await upscale([str(video), str(copy), str(video)])
    assert [one.task_id for one in others] == [first.task_id] * 2
    assert len(rh.recorder.paid) == 1


@flow
async def two_videos(videos: list[str]) -> list[Film]:
    return [await add_soundtrack(video, narration="hello", music="calm") for video in videos]


@in_flow_run
async def test_two_videos_of_a_run_share_their_sound(rh: Emulator, tmp_path: Path) -> None:
    videos = [str(samples.mp4(tmp_path / f"{name}.mp4", hz=hz)) for name, hz in (("one", 300), ("two", 500))]
    first, second = await two_videos(videos)
    assert first.film != second.film
    assert set(Counter(one.endpoint for one in rh.recorder.paid).values()) == {1}
    assert len(rh.recorder.paid) == 2
