"""The pages of a run with many results: each stays below its stated size and says what it leaves out."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from rh_prefect.artifacts import MAX_PAGE, Page, markdown
from rh_prefect.flow_runs.flow import flow
from rh_prefect.flow_runs.report_artifact import Report
from rh_prefect.flows.prefect_run_display import MOST_SHOWN, choices_of
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.file_model import EditStep, ModelStep, ReviewStep
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.planned_steps import PlannedStep, Work
from rh_prefect.pipelines.planning_values import File
from rh_prefect.pipelines.run.result import StepReport
from tests.support.samples.steps import ANSWER, PICTURE, RESIZE, steps
from tests.support.world.planned_works import Records
from tests.support.world.planned_works import run as made
from tests.support.world.prefect_runs import artifacts_of

pytestmark = pytest.mark.prefect

PICTURES = 300


@pytest.fixture
def store(tmp_path: Path) -> MediaStore:
    return MediaStore(str(tmp_path / "out"))


@pytest.fixture
def pictures(store: MediaStore, tmp_path: Path) -> list[Media]:
    """Noise, which no JPEG makes small."""
    made = []
    for number in range(PICTURES):
        Image.frombytes("RGB", (180, 320), os.urandom(180 * 320 * 3)).save(tmp_path / "p.png")
        made.append(store.publish(tmp_path / "p.png", f"p/{number}.png"))
    return made


async def page_of(show: Callable[[], Awaitable[None]], what: str) -> str:
    """The text of an artifact that is shown in a flow."""

    @flow(name="many")
    async def many() -> Page:
        await show()
        page = Page.current()
        assert page is not None
        return page

    page = await many()
    text = str((await artifacts_of(page.flow_run_id))[page.key(what)].data)
    assert len(text.encode()) <= MAX_PAGE
    return text


async def show_choices(reviews: list[PlannedStep], store: MediaStore) -> None:
    await Report("", (), store, choices=await choices_of(reviews, store)).show()


def review(number: int, shown: Sequence[Media | str | dict[str, str]]) -> PlannedStep:
    """A review of pictures, texts or answers that a step has made."""
    need = PlannedStep(f"each{number}.picture", "", ModelStep(model="m"), (), model="m", state="=")
    step = ReviewStep(review="$(picture)", ask="Which one?")
    one = PlannedStep(f"each{number}.chosen", "", step, (), model="review", state="r", request={"of": "0a1b2c3d"})
    one.candidates = [File("image", each.uri, each) if isinstance(each, Media) else each for each in shown]
    one.needs = [need]
    return one


@pytest.mark.long
async def test_a_review_of_300_pictures_counts_those_not_shown(pictures: list[Media], store: MediaStore) -> None:
    reviews = [review(n, pictures[n::100]) for n in range(100)]
    text = await page_of(lambda: show_choices(reviews, store), "report")
    assert text.count("](data:image/jpeg;base64,") == 5
    assert f"Not shown: {PICTURES - MOST_SHOWN} of {PICTURES} pictures." in text
    assert len(json.loads(text.partition("```json\n")[2].partition("```")[0])) == 100
    assert text.count("/p/") > PICTURES // 2, "the addresses, as many as there is room for"


OWN_AND_MADE = "params: {photo: image}\n" + steps(
    a=PICTURE % "a" + ", takes: 2",
    b=PICTURE % "b",
    small=RESIZE % "$(b)",
    line=ANSWER % "a line",
    own="review: [$(params.photo), $(b)]",
    either="review: [$(a or b), $(small)]",
    checked="review: $(line), ask: Is it right",
)


async def test_a_review_has_the_numbers_of_the_choice_and_shows_its_texts(store: MediaStore, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (64, 64), "red").save(photo)
    records, pipeline = Records(), Pipeline.from_text(OWN_AND_MADE)
    assert await made(pipeline, records, photo=str(photo)) == 4
    plan = await pipeline.plan(known=records, photo=str(photo))
    reviews = [one for one in plan.instances if one.waits_for_choice]
    assert [one.address for one in reviews] == ["own", "either", "checked"]
    text = await page_of(lambda: show_choices(reviews, store), "report")
    lines = [line.removeprefix("- ").replace("<br>", "") for line in text.splitlines() if line.startswith("- ")]
    listed = dict(line[1:-2].split("](<") if "](<" in line else line.split(": ", 1) for line in lines)
    for review in reviews[:2]:
        assert sum(name.startswith(review.address) for name in listed) == 2
        for number in (1, 2):
            choices = {review.address: {"of": review.request["of"], "take": number}}
            chosen = await pipeline.plan(known=records, photo=str(photo), choices=choices)
            (one,) = (one for one in chosen.instances if one.address == review.address)
            assert one.state == "="
            value = one.candidates[number - 1]
            assert listed[f"{review.address}={number}"] in (value.media.uri, f"file://{value.media.uri}")
    assert "### checked=1\n\n    a text" in text
    assert '`{"b": 2}`' in text, "the steps that pay for other candidates, and no edit"
    assert text.count('"text": "…"') == 1
    only = [one for one in reviews if one.address == "either"]
    text = await page_of(lambda: show_choices(only, store), "report")
    assert '`{"a": 3, "b": 2}`' in text
    assert '"text": "…"' not in text, "a text replaces no file"


async def test_the_page_of_an_answer_with_fields_advises_no_text_in_its_place(store: MediaStore) -> None:
    text = await page_of(lambda: show_choices([review(1, [{"line": "a mug"}])], store), "report")
    assert '"line": "a mug"' in text
    assert '"text"' not in text


@pytest.mark.long
async def test_the_results_of_300_pictures_count_the_others(pictures: list[Media], store: MediaStore) -> None:
    text = await page_of(Report("", (), store, {"pictures": pictures}, "r.csv").show, "report")
    assert text.count("](data:image/jpeg;base64,") == 1
    assert "Not shown: 288 of 300 pictures." in text
    assert "Not shown: 100 of 300 results." in text


async def test_a_review_of_many_long_texts_and_addresses_is_cut(store: MediaStore) -> None:
    reviews = [review(n, [f"{n} " + "Füße " * 2_000]) for n in range(PICTURES)]
    text = await page_of(lambda: show_choices(reviews, store), "report")
    assert "of 300 texts; choose here first; the next run shows others." in text
    many = [review(n, []) for n in range(3_000)]
    text = await page_of(lambda: show_choices(many, store), "report")
    assert "of 3000 reviews; choose here first" in text
    assert len(json.loads(text.partition("```json\n")[2].partition("```")[0])) > 100


async def test_another_candidate_of_an_edit_is_a_take_of_the_paid_step(store: MediaStore) -> None:
    one = review(1, ["a text"])
    (paid,) = one.needs
    paid.works, works = [Work("paid", True, 1, "=")], [Work("edit", True, 1, "=")]
    one.needs = [PlannedStep("each1.small", "", EditStep(edit="resize"), (), model="resize", works=works, needs=[paid])]
    text = await page_of(lambda: show_choices([one], store), "report")
    assert '`takes` instead, as in `{"each1.picture": 2}`' in text
    one.needs[0].needs = []
    text = await page_of(lambda: show_choices([one], store), "report")
    assert "For other candidates" not in text


async def test_without_a_folder_for_temporary_files_a_report_has_no_picture(
    store: MediaStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "p.png")
    picture = store.publish(tmp_path / "p.png", "p.png")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    text = await page_of(Report("All.", (), store, {"picture": picture}).show, "report")
    assert "data:image" not in text
    assert "| [picture](<" in text


async def test_a_report_names_each_reason_once_and_shows_the_failed_steps_first(store: MediaStore) -> None:
    """The default dashboard breaks no lines in tables: a reason beyond the width of the page was not to be seen."""
    long = "the content check refused the prompt or a file | What to do: change the <prompt> " + "Füße " * 2_000
    failed = [StepReport(step=f"each[{n}].clip", model="kling", state="failed", reason=long) for n in range(299)]
    made = StepReport(step="first", model="kling", state="made", cost="1 task of unknown cost", files=("/a/first.mp4",))
    text = await page_of(
        Report("All.", [made, *failed], store, table="/a/report.csv", gallery="/a/b.html").show, "report"
    )
    assert "Not shown: 100 of 300 steps." in text
    assert text.count("Füße " * 1_000) == 1
    assert "**each\\[0\\].clip, each\\[1\\].clip, each\\[2\\].clip and 296 more**: the content" in text
    assert "All steps: [report.csv](<file:///a/report.csv>). All outputs: [gallery](<file:///a/b.html>)." in text
    rows = [line for line in text.splitlines() if line.startswith("| each")]
    assert len(rows) == 200
    assert max(len(part) for row in rows for part in row.replace("|", "<br>").split("<br>")) < 60
    clip = Media(uri="/a/first.mp4", kind="video", mime="video/mp4", size=1, sha256="0" * 64, defect="broken")
    text = await page_of(Report("All.", [made], store, {"clips": [clip]}).show, "report")
    assert "| [first](<file:///a/first.mp4>) |" in text, "not clips[1]"
    assert "| step | state | cost | result |" in text
    assert "| first<br>kling | made | unknown | [first.mp4](<file:///a/first.mp4>) |" in text


async def test_any_page_is_cut_at_a_line_and_says_so() -> None:
    async def show() -> None:
        await markdown("```\n" + "Füße und mehr\n" * 100_000 + "```", what="plan", description="")

    text = await page_of(show, "plan")
    assert text.endswith("mehr\n```\n\nThe rest is not shown: a page has at most 500 kB.")
