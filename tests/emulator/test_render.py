"""The renderer as the emulator uses it: one output of the right kind for any model, and each request once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import pytest
from PIL import Image

from rh_prefect import catalog
from rh_prefect.emulator.render import Rendered, Renderer
from rh_prefect.errors import MediaError
from tests.support.samples import media as samples

SPREAD = (
    *("f-dev", "hypir-balance", "midjourney-text-to-image-v7", "nano-banana-pro/edit-official-stable"),
    *("topazlabs-image-upscale-standard-v2", "topazlabs-video-upscale", "wan-2.7/video-extend"),
    *("alibaba/wan-2.6/image-to-video", "bytedance/dreamactor-v2", "ltx-2.3/text-to-video"),
    *("kling-elements", "kling-lip-sync/lip-sync-video", "kling-v3.0-4k-motion-control"),
    *("kling-v2-ai-avatar-pro/image-audio-to-video", "seedance-2.0/multimodal-video"),
    *("marble-1.0/image-to-world", "marble-1.0/video-to-world", "meshy6/image-to-3d"),
    *("minimax/speech-02-hd", "minimax/voice-clone", "suno-custom-v5", "suno-lyrics"),
    "rhart-text-g-25-pro/video-to-text",
)


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    return Renderer(tmp_path_factory.mktemp("renders"), long_side=64, fps=6, max_seconds=1)


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.mark.parametrize("name", SPREAD)
def test_smallest_input_gives_its_kind(name: str, renderer: Renderer, uploads: Path) -> None:
    check(catalog.get(name), renderer, uploads)


@pytest.mark.long
@pytest.mark.parametrize("model", catalog.models(), ids=lambda model: model.name)
def test_smallest_input_of_each_model_gives_its_kind(model: catalog.Model, renderer: Renderer, uploads: Path) -> None:
    check(model, renderer, uploads)


def check(model: catalog.Model, renderer: Renderer, uploads: Path) -> None:
    payload = catalog.validate(model, catalog.example(model))
    inputs = {
        param.key: [upload(url, uploads) for url in urls(payload[param.key])]
        for param in model.media_params
        if param.key in payload
    }
    outputs = renderer.render(model, payload, inputs, seed_text="seed")
    expected = "text" if model.name == "suno-lyrics" else model.output
    assert kind_of(outputs[0]) == expected


def urls(value: object) -> Iterator[str]:
    yield from (str(item) for item in (value if isinstance(value, list) else [value]))


def upload(url: str, folder: Path) -> Path:
    """Makes the file that a catalogue's example names."""
    path = folder / url.rsplit("/", 1)[1]
    if not path.exists():
        make = samples.mp4 if "video" in path.stem else samples.mp3 if "audio" in path.stem else samples.png
        made = make(path.with_name(f"{os.getpid()}-{path.name}"))
        made.replace(path)
    return path


def kind_of(output: Rendered) -> str:
    """Finds out what an output is by opening it."""
    if output.path is None:
        assert output.text
        return "text"
    assert output.path.suffix == f".{output.extension}"
    if output.extension == "glb":
        assert output.path.read_bytes()[:4] == b"glTF"
        return "3d"
    if output.extension in {"png", "jpg", "webp"}:
        with Image.open(output.path) as picture:
            picture.load()
        return "image"
    with av.open(str(output.path)) as container:
        kind = container.streams[0].type
        assert next(container.decode(container.streams[0]))
    return str(kind)


F_DEV, EDIT, UPSCALER = (catalog.get(name) for name in ("f-dev", "qwen-image/edit-2511", "rh-video-upscaler"))


def test_equal_requests_are_rendered_once(tmp_path: Path) -> None:
    renderer = Renderer(tmp_path / "out", long_side=64)
    first = renderer.render(F_DEV, {"prompt": "a hill"}, {}, seed_text="1")
    assert first[0].path is not None
    first[0].path.write_bytes(b"marked")
    assert renderer.render(F_DEV, {"prompt": "a hill"}, {}, seed_text="2") == first
    assert first[0].path.read_bytes() == b"marked"


def test_requests_at_the_same_time_wait_for_one_rendering(tmp_path: Path) -> None:
    renderer = Renderer(tmp_path / "out", long_side=512)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(renderer.render, F_DEV, {"prompt": "a hill"}, {}, seed_text="x") for _ in range(8)]
    answers = [each.result() for each in asked]
    assert answers == [answers[0]] * 8
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_links_do_not_count_but_content_does(tmp_path: Path) -> None:
    renderer = Renderer(tmp_path / "out", long_side=64)

    def ask(link: str, text: str) -> list[Rendered]:
        file = samples.png(tmp_path / f"{link[-1]}.png", text=text)
        return renderer.render(EDIT, {"prompt": "snow", "imageUrl": link}, {"imageUrl": [file]}, seed_text="x")

    first = ask("https://a/1", "one")
    assert ask("https://b/2", "one") == first
    assert ask("https://a/1", "other") != first


def test_a_broken_file_is_an_error_each_time_and_never_kept(tmp_path: Path) -> None:
    renderer, broken = Renderer(tmp_path / "out", long_side=64), tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    for _ in range(2):
        with pytest.raises(MediaError, match=r"broken\.mp4"):
            renderer.render(UPSCALER, {"targetResolution": "1080p"}, {"videoUrl": [broken]}, seed_text="x")
    samples.mp4(broken)
    assert renderer.render(UPSCALER, {"targetResolution": "1080p"}, {"videoUrl": [broken]}, seed_text="x")
