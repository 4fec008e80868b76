"""The flows of the package are its pipelines: a call makes new results, and one that stopped early is continued."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rh_prefect import flow, flows
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import PipelineIncomplete
from rh_prefect.pipelines.pipeline import shipped_names
from rh_prefect.pipelines.run.result import PipelineResult
from tests.support.samples import media as samples

PICTURE, MOTION, LARGE = "rhart-image/z-image/turbo", "kling-v2.6-pro/image-to-video", "rhart-video/video-upscaler"


def paid(rh: Emulator) -> Mapping[str, int]:
    return Counter(one.endpoint for one in rh.recorder.paid)


def test_each_shipped_pipeline_has_a_flow_that_makes_new_results() -> None:
    assert set(dir(flows)) == {one.replace("-", "_") for one in shipped_names()} | set(flows.__all__)
    assert flows.film is flows.film
    assert flows.film.parameters.properties["reuse"]["default"] == "never"
    assert flows.film._entrypoint == "rh_prefect.flows:film"
    with pytest.raises(AttributeError, match=r"no flow 'flim'; its flows are .*film"):
        flows.flim  # noqa: B018  # the access is the test


async def test_a_call_makes_new_results_and_reuse_takes_those_that_exist(rh: Emulator, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"image": str(samples.png(tmp_path / "photo.png")), "prompt": "waves"}
    first, second = [await flows.image_to_video(**asked) for _ in range(2)]
    assert first["video"].sha256 != second["video"].sha256
    third, fourth = [await flows.image_to_video(**asked, resolution="720p", reuse="always") for _ in range(2)]
    assert third["video"] == fourth["video"]
    assert paid(rh) == {MOTION: 3, LARGE: 1}
    video = str(samples.mp4(tmp_path / "video.mp4"))
    of_video: list[tuple[Any, dict[str, Any]]] = [
        (flows.upscale, {"videos": [video]}),
        (flows.add_soundtrack, {"video": video, "narration": "hi"}),
        (flows.for_model("rh-video-upscaler"), {"video_url": video, "target_resolution": "4k"}),
    ]
    for made, given in of_video:
        before = len(rh.recorder.paid)
        for reuse in ("never", "never", "always", "always"):
            await made(**given, reuse=reuse)
        assert len(rh.recorder.paid) == before + 3, f"{made.name}: two new results, and one for all runs"


async def test_a_film_that_failed_is_continued_and_the_next_one_is_new(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", endpoint=MOTION, number=1, kind="fail", code="1504"))
    with pytest.raises(PipelineIncomplete):
        await flows.film(prompt="a pier", shots=1)
    before = len(rh.recorder.paid)
    done = await flows.film(prompt="a pier", shots=1)
    assert Path(done["film"].uri).is_file()
    assert paid(rh)[PICTURE] == 1
    assert len(rh.recorder.paid) == before + 2, "the motion again, and the upscaled clip"
    rh.faults.add(Fault("submit", endpoint=MOTION, kind="fail", code="1504"))
    with pytest.raises(PipelineIncomplete):
        await flows.film(prompt="a pier", shots=1)
    assert paid(rh)[PICTURE] == 2


@pytest.mark.long
async def test_a_film_of_a_picture_with_a_narration_and_own_music(rh: Emulator, tmp_path: Path) -> None:
    photo = samples.png(tmp_path / "photo.png")
    done = await flows.film(prompt="a pier", shots=2, image=str(photo), narration="A pier.", music="A tango")
    assert sorted(name for name, file in done.outputs.items() if file) == ["film", "sheet"], "no lines, no subtitles"
    assert sorted(paid(rh).values()) == [1, 1, 1, 2, 2], "script, speech, music, two motions, two upscaled clips"
    assert "A tango" in str([one.payload for one in rh.recorder.paid])


@pytest.mark.parametrize(
    ("sound", "tasks"), [({}, 0), ({"narration": "hi"}, 1), ({"narration": "hi", "music": "calm"}, 2)]
)
async def test_a_video_gets_a_voice_and_music(sound: dict[str, str], tasks: int, rh: Emulator, tmp_path: Path) -> None:
    video = str(samples.mp4(tmp_path / "video.mp4", audio=False))
    film = (await flows.add_soundtrack(video=video, **sound))["film"]
    assert (bool(film.has_audio), len(rh.recorder.paid)) == (tasks > 0, tasks)


@pytest.mark.parametrize(
    ("names", "has_sound"),
    [((), True), ((), False), (("music",), True), (("speech", "music"), False)],
)
async def test_clips_are_joined_with_speech_and_music_at_no_cost(
    names: tuple[str, ...], has_sound: bool, rh: Emulator, tmp_path: Path
) -> None:
    clips = [str(samples.mp4(tmp_path / f"{n}.mp4", seconds=n, audio=has_sound)) for n in (1, 2)]
    sound = {name: str(samples.wav(tmp_path / f"{name}.wav", seconds=1)) for name in names}
    made = await flows.assemble(clips=clips, **sound)
    assert made["film"].seconds == pytest.approx(3, abs=0.2)
    assert made["film"].has_audio is (bool(names) or has_sound)
    assert made["contact_sheet"].kind == "image"
    assert not rh.recorder.submissions


@pytest.mark.prefect
async def test_each_pipeline_of_a_flow_has_its_own_report_and_page(rh: Emulator, tmp_path: Path) -> None:
    clips = [str(samples.mp4(tmp_path / f"{n}.mp4", seconds=n)) for n in (1, 2)]

    @flow
    async def both() -> list[PipelineResult]:
        return [await flows.assemble(clips=clips[:1]), await flows.assemble(clips=clips)]

    first, second = await both()
    assert len({first.report, second.report, first.gallery, second.gallery}) == 4
    assert all(first["film"].name in Path(one).read_text() for one in (first.report, first.gallery))
    assert all(second["film"].name in Path(one).read_text() for one in (second.report, second.gallery))


async def test_a_video_that_is_given_twice_is_upscaled_once(rh: Emulator, tmp_path: Path) -> None:
    video = str(samples.mp4(tmp_path / "video.mp4"))
    first, second = (await flows.upscale(videos=[video, video]))["videos"]
    assert first == second
    assert len(rh.recorder.paid) == 1
