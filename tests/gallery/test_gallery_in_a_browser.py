"""The gallery in Chromium: what a person sees, the keyboard, and that hostile prompts and names do nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rh_prefect.emulator import Emulator
from rh_prefect.flows.pipeline_run import run_here
from rh_prefect.gallery.entries import Entry
from rh_prefect.gallery.pages import ON_A_PAGE, write_gallery
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.settings import get_settings
from tests.support.samples import media as samples
from tests.support.servers.browser import PROGRAM, Page, browser

pytestmark = [pytest.mark.long, pytest.mark.skipif(PROGRAM is None, reason="needs Chromium")]

HOSTILE = [
    "</script><script>document.title='broken'</script>",
    "<img src=x onerror=\"document.title='broken'\">",
    '"><svg onload="document.title=\'broken\'">',
    "javascript:document.title='broken'",
    "<!--<script>",
    "${document.title='broken'} {{7*7}} @data@ @script@",
    "\u2028document.title='broken'\u2029",
    "]]> \ud7ff \uffff 右から左へ \u202e txet",
]


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> MediaStore:
    return MediaStore(tmp_path / "out")


def picture(store: MediaStore, tmp_path: Path, name: str = "a.png") -> Media:
    local = samples.png(tmp_path / "local.png")
    return store.publish(local, name).at(name)


def noise(path: Path) -> Path:
    """A picture that no format makes small."""
    Image.merge("RGB", [Image.effect_noise((512, 512), 90) for _ in range(3)]).save(path)
    return path


def shown(page: Page, store: MediaStore, entries: list[Entry]) -> None:
    page.said.clear()
    page.asked.clear()
    page.open(Path(store.uri(write_gallery(store, entries)[0])).as_uri())
    page.until("document.querySelectorAll('.card').length")


def test_hostile_prompts_and_names_are_shown_and_do_nothing(page: Page, store: MediaStore, tmp_path: Path) -> None:
    names = ["a picture <b>&'#?.png", "Bild %41 ü.png"]
    texts = ("model", "request", "task", "text", "prompt", "label", "flow", "run", "run_name", "saved_as")
    params: list[dict[str, Any]] = [{word: word, "__proto__": word, "list": [word]} for word in HOSTILE]
    words: list[dict[str, Any]] = [dict.fromkeys(texts, word) for word in HOSTILE]
    entries = [Entry(**word, params=more, at="2026-01-02T12:00:00.000+00:00") for word, more in zip(words, params)]
    files = [picture(store, tmp_path, name) for name in names]
    failed = [replace(one, text="", request=f"failed {one.request}", reason=one.text) for one in entries]
    model = store.publish(samples.glb(tmp_path / "local.glb"), "a <b>.glb").at("a <b>.glb")
    shape = Entry("m", "shape", file=model, label=HOSTILE[1])
    pictures = [Entry("m", file.uri, file=file, label=HOSTILE[0]) for file in files]
    shown(page, store, [*entries, *failed, shape, *pictures])
    for number in range(2 * len(HOSTILE) + 1 + len(files)):
        page.ask(f"document.querySelectorAll('#cards .card')[{number}].click()")
        if number < 2 * len(HOSTILE):
            tag = "pre" if number < len(HOSTILE) else ".missing"
            assert page.ask(f"document.querySelector('#stage {tag}').textContent") == HOSTILE[number % len(HOSTILE)]
        else:
            if number == 2 * len(HOSTILE):
                assert page.ask("document.querySelector('#stage .file').textContent") == "◈ download a <b>.glb"
            page.until("document.querySelector('#stage img').naturalWidth")
        page.ask("document.getElementById('close').click()")
    assert page.ask("document.title") == "All outputs - gallery"
    assert page.ask("document.scripts.length") == 2
    assert page.ask("document.querySelectorAll('svg, [onerror], [onload]').length") == 0
    assert page.said == []


def test_nothing_is_asked_of_a_network(page: Page, store: MediaStore, tmp_path: Path) -> None:
    shown(page, store, [Entry("m", "1", file=picture(store, tmp_path), prompt="https://example.org/a.png")])
    page.ask("document.querySelector('.card').click()")
    page.until("document.querySelector('#stage img').naturalWidth")
    assert all(url.startswith(("file:", "data:")) for url in page.asked)


def test_a_script_in_the_page_would_not_run(page: Page, store: MediaStore) -> None:
    shown(page, store, [Entry("m", "1", text="a text")])
    page.ask("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))")
    assert page.ask("window.ran") is None
    assert any("Content Security Policy" in line for line in page.said)


def test_the_keyboard_goes_through_the_outputs_and_shows_takes_side_by_side(page: Page, store: MediaStore) -> None:
    entries = [Entry("m", "same", text=f"take {n}", take=n, at=f"2026-01-0{n}T12:00:00") for n in (2, 1)]
    shown(page, store, [*entries, Entry("m", "other", text="another", sources=("0",))])
    page.ask("document.querySelector('.card').click()")
    page.press("ArrowRight")
    assert page.ask("document.querySelector('#stage pre').textContent") == "take 1"
    page.press("ArrowRight")
    assert page.ask("document.getElementById('beside').hidden")
    page.press("ArrowRight")
    page.press("t")
    assert page.ask("[...document.querySelectorAll('#stage pre')].map(one => one.textContent)") == ["take 1", "take 2"]
    page.press("Escape")
    page.until("!document.getElementById('view').open")


def test_filters_select_outputs_and_add_up_what_their_tasks_cost(page: Page, store: MediaStore) -> None:
    first, second, third = (f"2026-01-0{day}T12:00:00.000+00:00" for day in (1, 2, 3))
    lamp = Entry("z-image", "1", task="1", text="one", prompt="A lighthouse", cost="0.04 CNY", at=second)
    dusk = Entry("kling", "2", task="2", text="three", label="dusk", cost="1.75 CNY", at=third)
    costs = ("0.10 CNY, 25 coins, 1 task of unknown cost", "1.00 CNY", "2 tasks of unknown cost")
    failed = [Entry("app", str(n), reason="no", cost=cost, at=first) for n, cost in enumerate(costs, 3)]
    shown(page, store, [lamp, replace(lamp, text="two"), dusk, *failed])
    count = "document.getElementById('sum').textContent"
    assert page.ask(count) == "6 of 6 outputs; their tasks cost 2.89 CNY + 25 coins"
    for name, value, left in (
        ("words", "LIGHT house", 2),
        ("words", "dusk", 1),
        ("model", "kling", 1),
        ("since", "2026-01-03", 1),
        ("until", "2026-01-02", 5),
    ):
        field = f"document.getElementById('filters').elements.{name}"
        page.ask(f"{field}.value = {value!r}; {field}.dispatchEvent(new Event('input', {{bubbles: true}}))")
        assert str(page.ask(count)).startswith(f"{left} of 6"), name
        page.ask("document.getElementById('filters').reset()")
        page.until(f"{count}.startsWith('6 of 6')")


def test_times_and_days_are_those_of_the_reader(page: Page, store: MediaStore) -> None:
    page.call("Emulation.setTimezoneOverride", timezoneId="Asia/Shanghai")
    try:
        shown(page, store, [Entry("m", "1", text="late", at="2026-01-02T17:30:00.000+00:00")])
        page.ask("document.querySelector('.card').click()")
        facts = page.ask("document.getElementById('facts').textContent")
        assert "made2026-01-03 01:30:00" in facts
        for day, count in (("2026-01-02", 0), ("2026-01-03", 1)):
            page.ask(f"for (const name of ['since', 'until']) filters.elements[name].value = '{day}'; filter()")
            assert page.ask("document.getElementById('sum').textContent").startswith(f"{count} of 1"), day
    finally:
        page.call("Emulation.setTimezoneOverride", timezoneId="")


def test_what_a_film_was_made_from_is_one_click_away(page: Page, store: MediaStore, tmp_path: Path) -> None:
    first = picture(store, tmp_path)
    film = Media(uri="film.mp4", kind="video", mime="video/mp4", size=1, sha256="1" * 64, seconds=5)
    shown(page, store, [Entry("kling", "2", file=film, sources=(first.sha256,)), Entry("z-image", "1", file=first)])
    page.ask("document.querySelector('.card').click()")
    page.until("document.querySelector('#stage .missing')")  # its file is missing, and the page says so
    page.ask("document.querySelector('#facts .card').click()")
    page.until("document.querySelector('#stage img').naturalWidth")
    assert page.ask("document.querySelector('#facts h3').textContent") == "Used in"


def test_a_page_shows_a_file_itself_where_there_was_no_time_for_a_small_picture(page: Page, rh: Emulator) -> None:
    text = "steps: {sign: {model: z-image/turbo, with: {prompt: <b>a sign</b>}}}"
    result = asyncio.run(run_here(Pipeline.from_text(text), {})).result
    page.open(Path(result.gallery).as_uri())
    page.until("document.querySelector('.card img').naturalWidth")
    assert page.ask("document.querySelector('.card span').textContent") == "<b>a sign</b>"
    assert page.ask("document.title") == f"{Path(result.gallery).stem} - gallery"
    store = MediaStore(get_settings().storage_url)
    (file,) = result.steps[0].files
    name = str(store.name_of(file))
    media = store.describe(Path(file), name).at(name)
    for one, seen in ((media, "img"), (media.at("gone.png"), "span")):
        page.open(Path(store.uri(write_gallery(store, [Entry("m", "1", file=one)], seconds=0)[0])).as_uri())
        page.until(f"document.querySelector('.poster {seen}')")


@pytest.mark.parametrize("width", [400, 1000, 1440])
def test_it_fits_a_window(page: Page, store: MediaStore, width: int) -> None:
    page.size(width, 800)
    shown(page, store, [Entry("m" * 90, "1", text="word " * 900, prompt="x" * 300, params={"seed": "9" * 400})])
    page.ask("document.querySelector('.card').click()")
    assert page.ask("document.documentElement.scrollWidth") <= width
    assert page.ask("document.getElementById('view').scrollWidth <= document.getElementById('view').clientWidth")


def test_a_full_page_is_small_enough(page: Page, store: MediaStore, tmp_path: Path) -> None:
    files = [store.publish(noise(tmp_path / "noise.png"), f"{n}.png") for n in range(20)]
    named = [file.at(f"{n}.png") for n, file in enumerate(files)]
    shown(page, store, [Entry("m", str(n), file=named[n % 20], prompt=f"number {n} " * 20) for n in range(ON_A_PAGE)])
    assert Path(store.uri("gallery/index.html")).stat().st_size < 40_000_000
    assert page.ask("document.querySelectorAll('#cards .card').length") == ON_A_PAGE
