"""Video models: real H.264 that moves over the picture, or makes another video of the video that was sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from rh_prefect import catalog
from rh_prefect.emulator.render import Rendered, Renderer
from rh_prefect.emulator.render.scene import paint
from rh_prefect.emulator.render.video_files import Facts, facts, frames_of, sound_of
from tests.support.samples import media as samples

Render = Callable[..., list[Rendered]]


@pytest.fixture
def render(tmp_path: Path) -> Render:
    renderer = Renderer(tmp_path / "renders", long_side=128, fps=12)

    def make(name: str, payload: Mapping[str, object], **inputs: Path) -> list[Rendered]:
        files = {key: [path] for key, path in inputs.items()}
        return renderer.render(catalog.get(name), payload, files, seed_text="seed")

    return make


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    paint("a hill at noon", (192, 108)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def night(tmp_path: Path) -> Path:
    paint("a city at night", (192, 108)).save(tmp_path / "night.png")
    return tmp_path / "night.png"


def video(outputs: list[Rendered]) -> Path:
    assert outputs[0].extension == "mp4"
    assert outputs[0].path is not None
    return outputs[0].path


def frames(path: Path) -> list[np.ndarray]:
    return [np.asarray(frame, np.float32) for frame in frames_of(path, facts(path).fps)]


def distance(frame: np.ndarray, picture: Path | np.ndarray) -> float:
    """Mean difference of two pictures, 0 to 255, at a size at which a small pan does not show."""
    if isinstance(picture, Path):
        picture = np.asarray(Image.open(picture).convert("RGB"), np.float32)
    ours, theirs = (
        np.asarray(Image.fromarray(one.astype(np.uint8)).resize((16, 9)), np.float32) for one in (frame, picture)
    )
    return float(np.abs(ours - theirs).mean())


def test_it_is_plain_h264(render: Render, photo: Path) -> None:
    path = video(render("kling-v2.6-pro-image-to-video", {"duration": "5", "sound": "false"}, imageUrl=photo))
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
    assert facts(path) == Facts((128, 72), Fraction(12), 5.0, has_sound=False)
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat"), "a browser plays it while it loads"


@pytest.mark.parametrize(("asked", "seconds"), [("10", 10.0), (3, 3.0), (None, 5.0)])
def test_length(render: Render, photo: Path, asked: object, seconds: float) -> None:
    path = video(render("hailuo-2.3/i2v-pro", {"prompt": "x", "duration": asked}, imageUrl=photo))
    assert facts(path).seconds == pytest.approx(seconds, abs=0.1)


def test_it_moves_over_the_very_picture(render: Render, photo: Path, night: Path) -> None:
    shown = frames(video(render("hailuo-2.3/i2v-pro", {"prompt": "x", "duration": "5"}, imageUrl=photo)))
    assert len(shown) == 60
    assert max(distance(frame, photo) for frame in shown) < 12
    assert min(distance(frame, night) for frame in shown) > 40
    steps = [float(np.abs(one - other).mean()) for one, other in zip(shown, shown[6:])]
    assert min(steps) > 0.2, "it never stands still"
    assert max(steps) < 15, "it never jumps"


@pytest.mark.parametrize("asked", [True, "true", False, "false"])
def test_sound_only_where_it_is_asked_for(render: Render, photo: Path, asked: object) -> None:
    path = video(render("kling-v2.6-pro-image-to-video", {"prompt": "x", "sound": asked}, imageUrl=photo))
    assert facts(path).has_sound is (str(asked).lower() == "true")
    if facts(path).has_sound:
        assert np.abs(heard(path)).max() > 0.05


def heard(path: Path) -> np.ndarray:
    return np.concatenate(list(sound_of(path)), axis=1)


def pitch(path: Path) -> float:
    """The loudest frequency of a file, in Hz."""
    samples_heard = heard(path)[0]
    return float(np.abs(np.fft.rfft(samples_heard)).argmax() * 44100 / samples_heard.size)


class TestFootage:
    @pytest.fixture
    def clip(self, tmp_path: Path) -> Path:
        return samples.mp4(tmp_path / "clip.mp4", seconds=2, size=(96, 54), hz=500)

    def test_an_edit_keeps_pictures_and_sound_and_shows_its_prompt(self, render: Render, clip: Path) -> None:
        path = video(render("runwayml/gen4-aleph/video-to-video-official-stable", {"prompt": "snow"}, videoUrl=clip))
        assert facts(path).size == (96, 54)
        assert facts(path).seconds == pytest.approx(2, abs=0.1)
        assert pitch(path) == pytest.approx(500, abs=5)
        for ours, theirs in zip(frames(path), frames(clip), strict=True):
            assert np.abs(ours - theirs)[27:].mean() < 8
            assert np.abs(ours - theirs)[:16, :40].mean() > 20

    def test_an_extension_is_longer_and_begins_with_the_video(self, render: Render, clip: Path) -> None:
        path = video(render("skyreels-v3/single-shot-video-extension", {"prompt": "on", "duration": 5}, videoUrl=clip))
        assert facts(path).seconds == pytest.approx(7, abs=0.1)
        shown, before = frames(path), frames(clip)
        assert np.abs(shown[10] - before[10])[27:].mean() < 8
        assert np.abs(shown[-1] - before[-1])[27:].mean() < 30


class TestEnhancers:
    @pytest.fixture
    def clip(self, tmp_path: Path) -> Path:
        return samples.mp4(tmp_path / "clip.mp4", seconds=1, size=(128, 72), hz=500)

    @pytest.mark.parametrize(("asked", "wide"), [("720p", 192), ("1080p", 256), ("2k", 320), ("4k", 384)])
    def test_the_upscaler_enlarges_that_very_video(self, render: Render, clip: Path, asked: str, wide: int) -> None:
        path = video(render("rh-video-upscaler", {"targetResolution": asked}, videoUrl=clip))
        assert facts(path).size == (wide, wide * 9 // 16)
        assert pitch(path) == pytest.approx(500, abs=5)
        shown, before = frames(path), frames(clip)
        assert len(shown) == len(before)
        assert max(distance(one, other) for one, other in zip(shown, before)) < 4

    def test_the_fps_increaser_adds_frames_between(self, render: Render, clip: Path) -> None:
        path = video(render("rh-video-fps-increaser", {}, videoUrl=clip))
        assert facts(path).fps == 24
        assert facts(path).seconds == pytest.approx(1, abs=0.05)
        assert facts(path).has_sound
        shown, before = frames(path), frames(clip)
        assert len(shown) == 2 * len(before)
        between = (before[3] + before[4]) / 2
        assert np.abs(shown[7] - between).mean() < np.abs(shown[7] - before[3]).mean()
