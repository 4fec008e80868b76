"""What the emulator makes of a request: what was asked for, from what was sent, with the prompt in it.

Equal requests give different results, as real models do, unless a seed or the test says otherwise.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageChops, ImageStat

from rh_prefect import catalog
from rh_prefect.emulator.render import Rendered, Renderer
from rh_prefect.emulator.render.caption import label
from rh_prefect.emulator.render.glb_cube import cube
from rh_prefect.emulator.render.scene import paint
from rh_prefect.emulator.render.sound import write_sound
from rh_prefect.emulator.render.texts import subject_of, write
from rh_prefect.errors import MediaError
from rh_prefect.media.edit.audio_samples import RATE, recording
from rh_prefect.media.edit.video_reader import fitted, shape_of
from rh_prefect.media.probe import probe
from tests.emulator.conftest import Emulate
from tests.support.samples import media as samples
from tests.support.servers.caller import Caller, Json, node

Render = Callable[..., list[Rendered]]
SENTENCE = "The little train crossed the mountains and nobody knew where it was going"


@pytest.fixture
def render(tmp_path: Path) -> Render:
    renderer = Renderer(tmp_path / "renders", long_side=128, fps=12)

    def make(name: str, payload: Mapping[str, object], **inputs: Path) -> list[Rendered]:
        files = {key: [path] for key, path in inputs.items()}
        return renderer.render(catalog.get(name), payload, files, seed_text="seed")

    return make


def file_of(outputs: list[Rendered], kind: str) -> Path:
    assert outputs[0].extension == kind
    assert outputs[0].path is not None
    return outputs[0].path


def pictures(outputs: list[Rendered]) -> list[Image.Image]:
    return [Image.open(output.path) for output in outputs if output.path is not None]


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures, 0 to 255, at the size of the first."""
    same = other.convert("RGB").resize(one.size)
    return sum(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), same)).mean) / 3


def frames(path: Path) -> list[Image.Image]:
    return [Image.fromarray(frame.to_ndarray(format="rgb24")) for frame in fitted(path, shape_of(path))]


def heard(path: Path) -> np.ndarray:
    return np.concatenate(list(recording(path)), axis=1)


def pitch(path: Path) -> float:
    """The loudest frequency of a file, in Hz."""
    sound = heard(path)[0]
    return float(np.abs(np.fft.rfft(sound)).argmax() * RATE / sound.size)


class TestPictures:
    @pytest.mark.parametrize(
        ("name", "asked", "size"),
        [
            ("f-dev", {"aspectRatio": "16:9"}, (128, 72)),
            ("f-dev", {"aspectRatio": "9:16"}, (72, 128)),
            ("f-dev", {"aspectRatio": "custom", "customWidth": 1024, "customHight": 512}, (128, 64)),
            ("wan-2.5-preview/text-to-image", {"size": "1280*720"}, (128, 72)),
            ("seedream-v4/text-to-image", {"width": 2048, "height": 1024}, (128, 64)),
            ("wan-2.7/text-to-image", {}, (128, 128)),
            ("wan-2.7/text-to-image", {"width": 100, "height": 50}, (100, 50)),
        ],
    )
    def test_shape(self, render: Render, name: str, asked: dict[str, object], size: tuple[int, int]) -> None:
        assert pictures(render(name, {"prompt": "a hill", **asked}))[0].size == size

    @pytest.mark.parametrize(
        ("name", "asked", "count"),
        [
            ("grok-3-image-text-to-image", {"imageNum": "3"}, 3),
            ("wan-2.7/text-to-image", {"n": 2}, 2),
            ("seedream-v4/text-to-image", {"maxImages": 4, "sequentialImageGeneration": "auto"}, 4),
            ("seedream-v4/text-to-image", {"maxImages": 4, "sequentialImageGeneration": "disabled"}, 1),
        ],
    )
    def test_count(self, render: Render, name: str, asked: dict[str, object], count: int) -> None:
        made = pictures(render(name, {"prompt": "a hill", **asked}))
        assert len(made) == count
        assert len({picture.tobytes() for picture in made}) == count

    def test_the_prompt_is_written_into_the_picture(self, tmp_path: Path) -> None:
        wide = {"prompt": "a red fox", "aspectRatio": "16:9"}
        (picture,) = pictures(Renderer(tmp_path).render(catalog.get("f-dev"), wide, {}, seed_text="x"))
        words = np.asarray(label(picture.size, "a red fox", at_foot=True), np.int16)
        where = words[..., :3].min(axis=2) > 240
        assert where.sum() > 60
        assert np.asarray(picture)[where].mean() > 240
        rows, columns = (slice(found.min(), found.max()) for found in where.nonzero())
        assert words[rows, columns, 3].min() > 200, "it is on a ground, and so legible on any picture"
        above = (0, 0, picture.width, picture.height // 3)
        assert difference(paint("a red fox", picture.size).crop(above), picture.crop(above)) < 1

    def test_an_edit_shows_the_picture_that_was_sent(self, render: Render, tmp_path: Path) -> None:
        photo = samples.png(tmp_path / "photo.png", size=(96, 72))
        (edited,) = pictures(render("qwen-image/edit-2511", {"prompt": "make it snow"}, imageUrl=photo))
        assert edited.size == (128, 96)
        assert difference(edited.crop((0, 48, 128, 96)), Image.open(photo).crop((0, 36, 96, 72))) < 4
        assert difference(edited, Image.open(photo)) > 1, "the prompt must be seen"

    @pytest.mark.parametrize(("scale", "size"), [("2x", (128, 96)), ("6x", (384, 288))])
    def test_an_upscaler_enlarges_that_very_picture(
        self, render: Render, tmp_path: Path, scale: str, size: tuple[int, int]
    ) -> None:
        photo = samples.png(tmp_path / "photo.png", size=(64, 48))
        (large,) = pictures(render("topazlabs-image-upscale-cgi", {"scale": scale}, imageUrl=photo))
        assert large.size == size
        assert difference(Image.open(photo), large) < 4


class TestVideos:
    @pytest.fixture
    def photo(self, tmp_path: Path) -> Path:
        paint("a hill at noon", (192, 108)).save(tmp_path / "photo.png")
        return tmp_path / "photo.png"

    @pytest.fixture
    def clip(self, tmp_path: Path) -> Path:
        return samples.mp4(tmp_path / "clip.mp4", seconds=2, size=(128, 72), hz=500)

    def test_it_is_plain_h264_that_moves_over_the_very_picture(self, render: Render, photo: Path) -> None:
        asked = {"duration": "5", "sound": "false"}
        path = file_of(render("kling-v2.6-pro-image-to-video", asked, imageUrl=photo), "mp4")
        with av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        known = probe(path)
        assert (known.width, known.height, known.fps, known.seconds, known.has_audio) == (128, 72, 12, 5, False)
        assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat"), "a browser plays it while it loads"
        shown = frames(path)
        assert max(difference(frame, Image.open(photo)) for frame in shown) < 40
        assert all(difference(one, other) > 0.2 for one, other in zip(shown, shown[6:])), "it never stands still"

    @pytest.mark.parametrize(("asked", "seconds"), [("10", 10.0), (3, 3.0), (None, 5.0)])
    def test_length(self, render: Render, photo: Path, asked: object, seconds: float) -> None:
        path = file_of(render("hailuo-2.3/i2v-pro", {"prompt": "x", "duration": asked}, imageUrl=photo), "mp4")
        assert probe(path).seconds == pytest.approx(seconds, abs=0.1)

    @pytest.mark.parametrize("asked", [True, "true", False, "false"])
    def test_sound_only_where_it_is_asked_for(self, render: Render, photo: Path, asked: object) -> None:
        outputs = render("kling-v2.6-pro-image-to-video", {"prompt": "x", "sound": asked}, imageUrl=photo)
        path = file_of(outputs, "mp4")
        assert probe(path).has_audio is (str(asked).lower() == "true")
        assert not probe(path).has_audio or np.abs(heard(path)).max() > 0.05

    def test_an_edit_keeps_pictures_and_sound_and_shows_its_prompt(self, render: Render, clip: Path) -> None:
        model = "runwayml/gen4-aleph/video-to-video-official-stable"
        path = file_of(render(model, {"prompt": "snow"}, videoUrl=clip), "mp4")
        assert (shape_of(path).width, shape_of(path).height) == (128, 72)
        assert probe(path).seconds == pytest.approx(2, abs=0.1)
        assert pitch(path) == pytest.approx(500, abs=5)
        for ours, theirs in zip(frames(path), frames(clip), strict=True):
            below, label = (0, 36, 128, 72), (0, 0, 40, 16)
            assert difference(ours.crop(below), theirs.crop(below)) < 8
            assert difference(ours.crop(label), theirs.crop(label)) > 20

    def test_an_extension_is_longer_and_begins_with_the_video(self, render: Render, clip: Path) -> None:
        asked = {"prompt": "on", "duration": 5}
        path = file_of(render("skyreels-v3/single-shot-video-extension", asked, videoUrl=clip), "mp4")
        assert probe(path).seconds == pytest.approx(7, abs=0.1)
        assert difference(frames(path)[10].crop((0, 36, 128, 72)), frames(clip)[10].crop((0, 36, 128, 72))) < 8

    @pytest.mark.parametrize(("asked", "wide"), [("720p", 192), ("4k", 384)])
    def test_an_upscaler_enlarges_that_very_video(self, render: Render, clip: Path, asked: str, wide: int) -> None:
        path = file_of(render("rh-video-upscaler", {"targetResolution": asked}, videoUrl=clip), "mp4")
        assert (shape_of(path).width, shape_of(path).height) == (wide, wide * 9 // 16)
        assert pitch(path) == pytest.approx(500, abs=5)
        assert all(difference(one, other) < 4 for one, other in zip(frames(clip), frames(path), strict=True))

    def test_the_fps_increaser_doubles_the_frames(self, render: Render, clip: Path) -> None:
        path = file_of(render("rh-video-fps-increaser", {}, videoUrl=clip), "mp4")
        assert (probe(path).fps, probe(path).has_audio) == (24, True)
        assert probe(path).seconds == pytest.approx(2, abs=0.05)
        assert len(frames(path)) == 2 * len(frames(clip))


class TestSounds:
    def test_speech_is_as_long_as_its_text(self, render: Render) -> None:
        for times in (1, 2):
            asked = {"text": " ".join([SENTENCE] * times), "voice_id": "Wise_Woman", "volume": 10.0}
            path = file_of(render("minimax/speech-2.6-hd", asked), "mp3")
            assert probe(path).seconds == pytest.approx(13 * times / 2.6, rel=0.2)
            assert 0.3 < np.abs(heard(path)).max() < 1.0, "it is heard and does not clip"

    @pytest.mark.parametrize(
        ("description", "seconds"), [("calm piano, 4 seconds", 4), ("a 3s jingle", 3), ("半拍, 3秒", 3)]
    )
    def test_music_plays_for_the_time_that_is_asked_for(self, render: Render, description: str, seconds: float) -> None:
        path = file_of(render("suno-single-v5", {"description": description}), "mp3")
        assert probe(path).seconds == pytest.approx(seconds, abs=0.1)
        assert all(np.abs(part).max() > 0.03 for part in np.array_split(heard(path)[0], 6))

    @pytest.mark.parametrize(("suffix", "codec"), [(".mp3", "mp3float"), (".wav", "pcm_s16le"), (".flac", "flac")])
    @pytest.mark.parametrize("channels", [1, 2])
    def test_formats(self, tmp_path: Path, suffix: str, codec: str, channels: int) -> None:
        tone = np.sin(2 * np.pi * 440 * np.arange(22050) / 44100)[None].repeat(channels, axis=0).astype(np.float32) * 3
        path = tmp_path / f"tone{suffix}"
        write_sound(path, tone, rate=44100)
        with av.open(str(path)) as container:
            context = container.streams.audio[0].codec_context
            assert (context.name, context.channels) == (codec, channels)
        crest = np.abs(heard(path)).max() / np.sqrt((heard(path) ** 2).mean())
        assert crest == pytest.approx(2**0.5, abs=0.04), "turned down instead of clipped"
        assert pitch(path) == pytest.approx(440, abs=3)


class TestTexts:
    @pytest.mark.parametrize(("words", "count"), [("three shots", 3), ("5 short scenes", 5), ("two ideas", 2)])
    def test_as_many_lines_as_are_asked_for(self, words: str, count: int) -> None:
        lines = write(f"Write {words} about a fox in the snow.").splitlines()
        assert len(set(lines)) == len(lines) == count
        assert all("a fox in the snow" in line for line in lines)

    def test_json_where_it_is_asked_for(self) -> None:
        shots = json.loads(write('Answer with a JSON list of 4 shots for: "the last lighthouse"'))
        assert len(shots) == 4
        assert all("the last lighthouse" in shot for shot in shots)

    @pytest.mark.parametrize(
        "asked",
        [
            "Six shots about a fox as a JSON list of objects with picture and line",
            "Write 6 shots. Answer with a JSON list only. Each shot has picture and line.",
            "6 shots of a fox, a JSON list of objects that have picture, line",
            """6 shots of a fox. Answer with a JSON list, each item an object with "picture" and "line".""",
            "6 shots of a fox as a JSON list of objects with the keys `picture`, `line`",
        ],
    )
    def test_the_items_of_a_list_have_the_fields_that_are_asked_for(self, asked: str) -> None:
        shots = json.loads(write(asked))
        assert [list(shot) for shot in shots] == [["picture", "line"]] * 6
        assert all(len(shot["line"]) < 40 for shot in shots)  # a line is spoken before its shot ends

    @pytest.mark.parametrize(
        ("prompt", "subject"),
        [
            ("Write three shots about a fox.", "a fox"),
            ("Expand this idea: a train at dawn", "a train at dawn"),
            ("Write 3 shots of a film about: a train at dawn\nAnswer with a JSON list only.", "a train at dawn"),
            ("Describe “the old mill” in one line", "the old mill"),
            ("海边的灯塔", "海边的灯塔"),
        ],
    )
    def test_subject(self, prompt: str, subject: str) -> None:
        assert subject_of(prompt) == subject

    def test_text_models(self, render: Render, tmp_path: Path) -> None:
        photo, clip = samples.png(tmp_path / "photo.png", size=(96, 54)), samples.mp4(tmp_path / "clip.mp4")
        (described,) = render("rhart-text-g-25-pro/image-to-text", {"prompt": "What is it?"}, imageUrl=photo)
        (lyrics,) = render("suno-lyrics", {"prompt": "a train in the mountains"})
        (face,) = render("kling-lip-sync/identify-face", {}, videoUrl=clip)
        assert all(words in str(described.text) for words in ("96 x 54", "What is it?"))
        assert all(words in str(lyrics.text) for words in ("[Chorus]", "a train in the mountains"))
        assert json.loads(str(face.text)).keys() >= {"sessionId", "faceId"}, "the ids that lip sync takes"


def test_a_3d_model_gives_a_well_formed_glb(render: Render) -> None:
    made = file_of(render("meshy6/text-to-3d", {"prompt": "x"}), "glb").read_bytes()
    for data in (made, cube(hue=0.3)):
        assert struct.unpack_from("<4sII", data) == (b"glTF", 2, len(data))
        found, at = {}, 12
        while at < len(data):
            size, kind = struct.unpack_from("<I4s", data, at)
            found[kind] = data[at + 8 : at + 8 + size]
            at += 8 + size
        assert (list(found), at) == ([b"JSON", b"BIN\0"], len(data))
        document = json.loads(found[b"JSON"])
        assert document["buffers"][0]["byteLength"] <= len(found[b"BIN\0"])
        for view, accessor in zip(document["bufferViews"], document["accessors"], strict=True):
            assert view["byteLength"] == accessor["count"] * {"VEC3": 12, "SCALAR": 2}[accessor["type"]]


F_DEV, EDIT, UPSCALER = (catalog.get(name) for name in ("f-dev", "qwen-image/edit-2511", "rh-video-upscaler"))


def test_equal_requests_are_rendered_once_also_at_the_same_time(tmp_path: Path) -> None:
    renderer = Renderer(tmp_path / "out", long_side=512)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(renderer.render, F_DEV, {"prompt": "a hill"}, {}, seed_text=one) for one in "12345678"]
    first, *others = [each.result() for each in asked]
    assert others == [first] * 7
    assert len(list((tmp_path / "out").iterdir())) == 1
    assert first[0].path is not None
    first[0].path.write_bytes(b"marked")
    assert renderer.render(F_DEV, {"prompt": "a hill"}, {}, seed_text="2") == first
    assert first[0].path.read_bytes() == b"marked"


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


def made(rh: Caller, name: str, asked: Mapping[str, object]) -> bytes:
    """What a request gives: the content of its first result."""
    model = catalog.get(name)
    body = catalog.read_parameters(model, {**catalog.example(model), **asked}).sent
    (first, *_) = rh.query(rh.submit(model.endpoint, dict(body))["taskId"])["results"]
    return first["text"].encode() if first["text"] else rh.http.get(first["url"]).content


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("z-image/turbo", {"prompt": "a hill"}),
        ("qwen-image/edit-2511", {"prompt": "snow", "image_url": "a photo"}),
        ("kling-v2.6-pro-image-to-video", {"image_url": "a photo", "prompt": "waves"}),
        ("rh-video-upscaler", {"video_url": "a clip", "target_resolution": "1080p"}),
        ("minimax/speech-2.6-hd", {"text": "A light."}),
        ("suno-single-v5.5", {"description": "calm, 2 seconds"}),
        ("meshy6/text-to-3d", {"prompt": "a boat"}),
        ("rhart-text-g-3-flash-preview/text-to-text", {"prompt": "Name a colour"}),
        ("rhart-text-g-3-flash-preview/text-to-text", {"prompt": "Write 3 shots as JSON"}),
    ],
)
def test_equal_requests_give_equal_results_only_of_a_deterministic_emulator(
    emulate: Emulate, tmp_path: Path, name: str, asked: dict[str, str]
) -> None:
    """One request for each kind of result, and for each way to make one."""
    photo, clip = samples.png(tmp_path / "photo.png"), samples.mp4(tmp_path / "clip.mp4")
    for deterministic, results in ((False, 3), (True, 1)):
        rh = emulate(deterministic=deterministic)
        links = {"a photo": rh.link(photo), "a clip": rh.link(clip)}
        given = {key: links.get(value, value) for key, value in asked.items()}
        assert len({made(rh, name, given) for _ in range(3)}) == results


def test_a_negative_seed_is_no_seed(emulate: Emulate) -> None:
    rh = emulate()
    rh.rh.add_model("new/model", params=[catalog.Param("seed", "seed", "int", min=-1)])
    seeds = (-1, 0)
    results = [len({rh.http.get(rh.result("new/model", {"seed": seed})).content for _ in range(2)}) for seed in seeds]
    assert results == [2, 1]


def test_the_same_random_seed_gives_the_same_results_again(emulate: Emulate) -> None:
    first = emulate()
    again = emulate(random_seed=first.rh.random_seed)
    asked = {"prompt": "a hill"}
    there, here = ([made(rh, "z-image/turbo", asked) for _ in range(3)] for rh in (first, again))
    assert there == here
    assert str(first.rh.random_seed) in repr(first.rh)
    assert first.http.get("/_emulator").json()["random_seed"] == first.rh.random_seed
    assert made(emulate(), "z-image/turbo", asked) not in there


def drawn(rh: Caller, *nodes: Json) -> bytes:
    task_id = rh.started(nodeInfoList=list(nodes))
    rh.query(task_id)
    return rh.http.get(rh.outputs(task_id)["data"][0]["fileUrl"]).content


def test_a_workflow_draws_its_seeds_and_keeps_those_that_are_set(emulate: Emulate) -> None:
    rh, other = emulate(), emulate(deterministic=True)
    assert drawn(rh) != drawn(rh)
    assert drawn(rh, node("3", "seed", 7)) == drawn(rh, node("3", "seed", 7))
    assert drawn(other) == drawn(other)


def test_the_order_of_different_graphs_changes_no_result(emulate: Emulate) -> None:
    first, second = emulate(random_seed=5), emulate(random_seed=5)
    gull, pier = node("6", "text", "a gull"), node("6", "text", "a pier")
    assert [drawn(first, gull), drawn(first, pier)] == [drawn(second, pier), drawn(second, gull)][::-1]


def test_the_books_say_which_files_a_request_brought(emulate: Emulate, tmp_path: Path) -> None:
    rh = emulate()
    photo = samples.png(tmp_path / "photo.png")
    model = catalog.get("z-image-turbo/image-to-image")
    first = rh.result()
    for link in (rh.link(photo), first):
        rh.submit(model.endpoint, dict(catalog.read_parameters(model, {"prompt": "snow", "image_url": link}).sent))
    contents = [photo.read_bytes(), rh.http.get(first).content]
    brought = [entry.inputs["imageUrl"] for entry in rh.rh.recorder.paid[1:]]
    assert brought == [(hashlib.sha256(content).hexdigest(),) for content in contents]
