"""The edits, rendered for real, and their results by recipe."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from rh_prefect.errors import MediaError
from rh_prefect.media.media import Media
from rh_prefect.media.probe import probe
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.edit_rendering import _EDITS, Params, Rendering, render
from rh_prefect.pipelines.edits import EDITS
from rh_prefect.pipelines.input_reader import identify
from rh_prefect.pipelines.plan import KnownWorks
from rh_prefect.pipelines.plan.work_identity import recipe_id
from rh_prefect.pipelines.run.known_results import KnownResults
from rh_prefect.pipelines.run.run_services import Outcome
from rh_prefect.pipelines.run.step_maker import StepMaker
from rh_prefect.pipelines.stored_edits import EditResults, as_recorded, open_edits
from rh_prefect.settings import Settings, get_settings
from rh_prefect.works.events import Silent
from rh_prefect.works.journal.identity import media_mark
from tests.support.samples import clip_samples
from tests.support.samples import media as samples
from tests.support.samples.clip_samples import BLUE, GREEN, RED, near
from tests.support.samples.pipeline_assets import photo
from tests.support.samples.steps import RESIZE, group, steps
from tests.support.servers.s3 import S3Server
from tests.support.waiting import until
from tests.support.world.planned_works import plan_of, problems_of


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    return [clip_samples.solid(tmp_path / f"{n}.mp4", [colour] * 12) for n, colour in enumerate((RED, GREEN))]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    folder.mkdir()
    return folder


def rendered(edit: str, params: Params, folder: Path) -> Path:
    made = render(edit, params, folder)
    assert isinstance(made, Path)
    return made


def test_the_edits_of_a_film(clips: list[Path], tmp_path: Path, out: Path) -> None:
    lines = [samples.wav(tmp_path / f"{n}.wav", seconds=0.6) for n in range(2)]
    cut = rendered("concat", {"videos": clips, "width": 48, "height": 48, "fit": "cover"}, out)
    sound = rendered("mix", {"speech": lines, "at": [0, 1], "seconds": 2}, out)
    assert (probe(sound).seconds, probe(sound).kind) == (2, "audio")
    (out / "b").mkdir()
    found = probe(rendered("mux", {"video": cut, "audio": sound, "loudness": -20}, out / "b"))
    assert (found.seconds, found.kind, found.has_audio, found.width) == (2, "video", True, 48)
    words = rendered("subtitles", {"text": ["One", "Two"], "at": [0, 1], "format": "vtt"}, out)
    assert words.read_text().startswith("WEBVTT\n\n00:00:00.000 --> 00:00:00.960\nOne")


def test_lines_without_times_follow_each_other(tmp_path: Path, out: Path) -> None:
    lines = [samples.wav(tmp_path / f"{n}.wav", seconds=seconds) for n, seconds in enumerate((0.5, 1))]
    assert probe(rendered("mix", {"speech": lines}, out)).seconds == pytest.approx(1.5, abs=0.05)


def test_a_video_keeps_its_own_sound_where_asked(tmp_path: Path, out: Path) -> None:
    video, other = samples.mp4(tmp_path / "v.mp4", seconds=1, hz=440), samples.wav(tmp_path / "a.wav", hz=3000)
    heard = clip_samples.heard(rendered("mux", {"video": video, "audio": other, "keep_sound": True}, out))
    assert min(clip_samples.strength(heard, hz, 0.2, 0.6) for hz in (440, 3000)) > -25


def test_each_edit_of_the_language_can_be_rendered() -> None:
    assert _EDITS.keys() == EDITS.keys(), "edits.py declares what edit_rendering.py renders"


def test_the_edits_of_one_file(clips: list[Path], tmp_path: Path, out: Path) -> None:
    photo = samples.png(tmp_path / "photo.png", size=(64, 48))
    sound = samples.wav(tmp_path / "sound.wav", seconds=2)
    made = {
        "small.png": rendered("resize", {"file": photo, "width": 20, "height": 20}, out),
        "small.jpg": rendered("resize", {"file": photo, "width": 20, "height": 20, "format": "jpg"}, out),
        "small.mp4": rendered("resize", {"file": clips[0], "width": 20, "height": 20}, out),
        "cut.mp4": rendered("trim", {"file": clips[0], "seconds": 0.5}, out),
        "cut.m4a": rendered("trim", {"file": sound, "start": 0.5, "seconds": 0.5}, out),
        "still.mp4": rendered("still", {"image": photo, "seconds": 1, "zoom": "in"}, out),
        "frame.jpg": rendered("frame", {"video": clips[0], "at": "last"}, out),
        "sheet.jpg": rendered("contact_sheet", {"of": [photo, *clips], "captions": ["a", "b", "c"]}, out),
        "sound.wav": rendered("extract_audio", {"video": sound, "format": "wav"}, out),
        "marked.png": rendered("watermark", {"file": photo, "logo": photo}, out),
        "marked.mp4": rendered("watermark", {"file": clips[0], "logo": photo, "corner": "top-left"}, out),
    }
    for name, one in made.items():
        assert one.suffix == Path(name).suffix, name
    lengths = {name: seconds for name, one in made.items() if (seconds := probe(one).seconds) is not None}
    assert lengths == pytest.approx(
        {"small.mp4": 1, "cut.mp4": 0.5, "cut.m4a": 0.5, "still.mp4": 1, "sound.wav": 2, "marked.mp4": 1}, abs=0.02
    )
    assert render("join_text", {"texts": ["a", "b"], "by": ", "}, out) == "a, b"


def test_a_transition_takes_half_a_second_unless_it_is_given(tmp_path: Path, out: Path) -> None:
    """Stored results have no default in their key: with another default they would be taken for the new meaning."""
    clips = [samples.mp4(tmp_path / f"{name}.mp4", seconds=1.5) for name in "ab"]
    assert probe(rendered("transition", {"videos": clips}, out)).seconds == pytest.approx(2.5, abs=0.05)


def test_the_edits_that_write_and_fade(clips: list[Path], tmp_path: Path, out: Path) -> None:
    words = tmp_path / "words.srt"
    words.write_text("1\n00:00:00,000 --> 00:00:00,500\nHello\n")
    made = [
        rendered("transition", {"videos": clips, "seconds": 0.25, "look": "black", "width": 48, "height": 48}, out),
        rendered("title", {"text": "A film", "seconds": 1, "width": 48, "height": 48}, out),
        rendered("captions", {"video": clips[0], "text": ["One. Two."], "size": 0.2, "place": "top"}, out),
        rendered("captions", {"video": clips[0], "file": words}, out),
    ]
    assert [probe(one).seconds for one in made] == pytest.approx([1.75, 1, 1, 1], abs=0.02)


FADED = "params: {files: {type: files, of: video}, shorter: {type: number, default: 0.5}}\n" + steps(
    title="edit: title, with: {text: A film, seconds: 2}",
    film="edit: transition, with: {videos: [$(title), $(params.files)], seconds: $(params.shorter)}",
    sound="edit: extract_audio, with: {video: $(film)}",
    words="edit: subtitles, with: {text: [one, two, three], at: $(film.starts), seconds: $(film.seconds)}",
)


async def test_the_plan_knows_how_long_a_film_with_transitions_is(clips: list[Path]) -> None:
    for shorter, (starts, seconds) in {0.5: ([0, 1.5, 2.0], 3.0), 0.25: ([0, 1.75, 2.5], 3.5)}.items():
        plan = await plan_of(FADED, files=list(map(str, clips)), shorter=shorter)
        (film,), (words,) = plan.steps["film"], plan.steps["words"]
        assert [(getattr(one, "span", None) and one.span.expected) or one for one in words.values["at"]] == starts
        assert words.values["seconds"].span.expected == seconds
        assert film.state in "+>"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("text: a, file: $(params.words)", "captions takes either `text`, or `file`"),
        ("place: top", "captions takes either `text`, or `file`"),
        ("text: $(params.none)", "text is empty: captions needs text to draw"),
        ("text: [a, b], at: [1]", "at needs one time for each item of text: text has 2, but at has 1"),
        ("text: a, place: $(params.words.name)", "place takes bottom or top, not w"),
        ("text: a, at: $(params.late)", "at takes a number from 0 to 86400, not -1"),
    ],
)
async def test_captions_take_a_text_or_a_file(given: str, problem: str, clips: list[Path], tmp_path: Path) -> None:
    (tmp_path / "w.srt").write_text("1\n00:00:00,000 --> 00:00:00,500\nHello\n")
    text = 'params: {clip: video, words: file, none: {type: string, default: " "}, late: {type: number, default: -1}}\n'
    text += steps(film=f"edit: captions, with: {{video: $(params.clip), {given}}}")
    (said,) = await problems_of(text, clip=str(clips[0]), words=str(tmp_path / "w.srt"))
    assert problem in said


async def test_the_error_of_an_edit_names_the_file_that_the_user_has(tmp_path: Path) -> None:
    words, store = tmp_path / "words.srt", MediaStore(tmp_path / "store")
    words.write_text("no times")
    given = dict.fromkeys(("video", "file"), identify(str(words), {}))
    with pytest.raises(MediaError) as caught:
        await EditResults(store.url, store).make("captions", given)
    assert str(caught.value).startswith(f"The file {words} has no subtitles.")


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MediaStore:
    if request.param == "folder":
        return MediaStore(tmp_path / "store")
    s3: S3Server = request.getfixturevalue("s3")
    return MediaStore(s3.url("edits"), options=s3.options)


def otherwise(tmp_path: Path) -> Rendering:
    """Another version of FFmpeg: the same recipe gives other bytes."""
    other = clip_samples.solid(tmp_path / "other.mp4", [BLUE] * 24)

    def rendering(edit: str, params: Params, folder: Path) -> Path:
        made = rendered(edit, params, folder)
        made.write_bytes(other.read_bytes())
        return made

    return rendering


def asked(store: MediaStore, clips: list[Path]) -> dict[str, Any]:
    return {"videos": [store.publish(clip, f"in/{clip.name}") for clip in clips]}


async def test_a_recipe_is_rendered_once(store: MediaStore, clips: list[Path]) -> None:
    params = await asyncio.to_thread(asked, store, clips)
    edits = open_edits(store, get_settings())
    made = await edits.make("concat", params)
    assert made.is_new
    assert made.file is not None
    assert made.file.uri == f"{store.url}/pipelines/{made.file.sha256}.mp4"
    assert (made.file.seconds, made.file.kind) == (2, "video")
    again = await open_edits(store, get_settings()).make("concat", params)
    assert (again.is_new, again.file, again.result) == (False, made.file, made.result)
    recipe = recipe_id("concat", as_recorded(params, {}))
    assert await edits.read_many([recipe, "ab"]) == {recipe: made.result}
    assert await asyncio.to_thread(store.exists, f"edits/{recipe}/result.json")


async def test_a_text_is_kept_in_its_record(store: MediaStore) -> None:
    edits = open_edits(store, get_settings())
    made = [await edits.make("join_text", {"texts": ["a", "b"]}) for _ in range(2)]
    assert [(one.result.text, one.file, one.is_new) for one in made] == [("a\nb", None, True), ("a\nb", None, False)]


async def test_a_text_is_used_where_the_store_of_its_record_cannot_be_opened(tmp_path: Path) -> None:
    store, settings = MediaStore(tmp_path / "store"), Settings(records=str(tmp_path / "records"))
    made = await open_edits(store, settings).make("join_text", {"texts": ["a"]})
    [record] = (tmp_path / "records").rglob("result.json")
    record.write_text(record.read_text().replace(store.url, "nosuch://store"))
    again = await open_edits(MediaStore(tmp_path / "other"), settings).make("join_text", {"texts": ["a"]})
    assert (again.is_new, again.result.text) == (False, made.result.text)


async def test_of_two_writers_the_second_discards_its_file(tmp_path: Path, clips: list[Path]) -> None:
    store = MediaStore(tmp_path / "store")
    params = asked(store, clips)
    begun, may_continue = threading.Event(), threading.Event()

    def slowly(edit: str, given: Params, folder: Path) -> Path | str:
        begun.set()
        may_continue.wait(300)
        return render(edit, given, folder)

    first, second = open_edits(store, get_settings()), EditResults(store.url, store, rendering=slowly)
    running = asyncio.create_task(second.make("concat", params))
    await asyncio.to_thread(begun.wait, 30)
    made = await EditResults(store.url, store, rendering=otherwise(tmp_path)).make("concat", params)
    may_continue.set()
    late = await running
    assert late.file == made.file == (await first.make("concat", params)).file
    assert not late.is_new
    assert store.list("pipelines") == [f"pipelines/{made.file.sha256}.mp4"] if made.file else False


async def test_a_lost_file_is_rendered_again_and_counts_as_the_first(tmp_path: Path, clips: list[Path]) -> None:
    store = MediaStore(tmp_path / "store")
    params, edits = asked(store, clips), open_edits(store, get_settings())
    first = await EditResults(store.url, store, rendering=otherwise(tmp_path)).make("concat", params)
    assert first.file is not None and first.result.file is not None
    store.delete(first.result.file.uri)
    again = await edits.make("concat", params)
    assert again.is_new and again.file is not None and again.file.sha256 != first.file.sha256
    assert again.result == first.result
    served = await edits.make("concat", params)
    assert (served.is_new, served.file) == (False, again.file)
    # What follows is the same recipe with either file.
    follows = [
        as_recorded({"video": first.file}, {}),
        as_recorded({"video": again.file}, {media_mark(again.file.sha256): media_mark(first.file.sha256)}),
    ]
    assert follows[0] == follows[1] != as_recorded({"video": again.file}, {})


async def test_a_recipe_whose_file_is_a_text_when_it_is_made_again_is_recorded_once(
    tmp_path: Path, clips: list[Path]
) -> None:
    store = MediaStore(tmp_path / "store")
    params = asked(store, clips)
    first = await open_edits(store, get_settings()).make("concat", params)
    assert first.result.file is not None
    store.delete(first.result.file.uri)
    edits = EditResults(store.url, store, rendering=lambda *_: "a text")
    async with asyncio.timeout(20):
        assert (await edits.make("concat", params)).is_new
    assert len(store.list("edits")) == 2


async def test_the_records_can_lie_elsewhere(tmp_path: Path, clips: list[Path]) -> None:
    store, settings = MediaStore(tmp_path / "store"), Settings(records=str(tmp_path / "records"))
    params = asked(store, clips)
    made = await open_edits(store, settings).make("concat", params)
    moved = MediaStore(tmp_path / "another")
    served = await open_edits(moved, settings).make("concat", params)
    assert served.file == made.file and not served.is_new
    assert not store.exists("edits")


def test_equal_numbers_and_the_place_of_a_file_are_one_recipe() -> None:
    file = Media(uri="/a/x.png", kind="image", mime="image/png", size=1, sha256="ab")
    same = [
        {"file": file, "width": 20, "height": 20},
        {"height": 20.0, "file": file.at("/b"), "width": 20},
    ]
    recipes = [recipe_id("resize", as_recorded(params, {})) for params in same]
    assert recipes[0] == recipes[1]
    assert recipes[0] != recipe_id("resize", as_recorded({**same[0], "width": 21}, {}))
    assert recipes[0] != recipe_id("watermark", as_recorded(same[0], {}))


def test_a_picture_of_a_lost_colour_is_not_made(tmp_path: Path, out: Path) -> None:
    source = tmp_path / "clear.png"
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(source)
    with Image.open(rendered("resize", {"file": source, "width": 4, "height": 4}, out)) as image:
        assert image.mode == "RGBA"
        pixel = image.convert("RGBA").getpixel((1, 1))
        assert isinstance(pixel, tuple)
        assert not near(pixel[3:], (255,))


class BrokenEdits:
    """Edits that end with an error of another library."""

    async def make(self, *_: object, **__: object) -> None:
        raise ValueError("a defect")


async def test_an_unexpected_error_of_an_edit_is_the_failure_of_its_step(tmp_path: Path) -> None:
    plan = await plan_of("params: {f: image}\n" + steps(a=RESIZE % "$(params.f)"), f=photo(tmp_path / "mug.png"))
    tools: Any = SimpleNamespace(names=None, edits=BrokenEdits(), runner=SimpleNamespace(observer=Silent()))
    with pytest.raises(MediaError, match="a: resize failed with ValueError: a defect"):
        await StepMaker(tools, KnownResults(KnownWorks()), Outcome()).edit(plan.steps["a"][0])


class SlowEdits:
    """Edits that do not end."""

    begun = 0

    async def make(self, *_: object, **__: object) -> None:
        self.begun += 1
        await asyncio.Event().wait()


async def test_missing_files_of_edits_are_made_two_at_a_time(tmp_path: Path) -> None:
    text = "params: {f: image}\n" + steps(each=group("matrix: {w: [1, 2, 3, 4]}", a=RESIZE % "$(params.f)"))
    plan, edits = await plan_of(text, f=photo(tmp_path / "mug.png")), SlowEdits()
    tools: Any = SimpleNamespace(names=None, edits=edits, runner=SimpleNamespace(observer=Silent()))
    maker = StepMaker(tools, KnownResults(KnownWorks()), Outcome())
    making = [asyncio.ensure_future(maker.edit(one)) for one in plan.instances]
    await until(lambda: edits.begun >= 2)
    await asyncio.sleep(0.1)
    assert edits.begun == 2
    for one in making:
        one.cancel()
    await asyncio.gather(*making, return_exceptions=True)
