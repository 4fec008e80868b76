"""Rows and files that cannot be used: refused with the file, or skipped and reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from tests.support.samples import media as samples
from tests.support.samples.steps import PICTURE, RESIZE, group, of_rows, steps
from tests.support.world.planned_works import plan_of, problems_of

SKIP = "invalid_items: skip\n"
COLUMNS = "photo: image, prompt: {type: string, header: [prompt, Prompt]}, size: {type: string, optional: true}"
COLUMNS += ', duration: {enum: ["5", "10"], optional: true}, name: {type: string, optional: true}'
ASKED = "{image_url: $(item.photo), prompt: $(item.prompt), duration: $(item.duration), sound: false}"


def clips(save: str = ", save_as: clips/$(id).mp4", **following: str) -> str:
    clip = f"model: kling-v2.6-pro-image-to-video, with: {ASKED}, same: separate{save}"
    params = f"params: {{rows: {{type: table, columns: {{{COLUMNS}}}, other_columns: [author]}}}}\n"
    return params + steps(each=group("foreach: $(params.rows), id: $(item.name)", clip=clip, **following))


CLIPS = clips()
EACH, TITLED = "foreach: $(params.rows)", PICTURE % "$(item.title)"


def wrong(plan: Plan) -> list[str]:
    return [next(iter(one.problems), "") for one in by_number(plan)]


def by_number(plan: Plan) -> list[PlannedStep]:
    return sorted(plan.instances, key=lambda one: one.numbers)


@pytest.fixture
def row(tmp_path: Path) -> dict[str, str]:
    return {"photo": str(samples.png(tmp_path / "photo.png")), "prompt": "waves"}


async def test_an_invalid_row_is_not_paid_for_and_the_others_are(row: dict[str, str], tmp_path: Path) -> None:
    gone = {**row, "photo": str(tmp_path / "gone.png")}
    plan = await plan_of(SKIP + CLIPS, rows=[row, {"prompt": "waves"}, gone, {**row, "duration": "7"}, 5, row])
    first, *reasons, last = wrong(plan)
    assert first == last == ""
    said = [
        "photo is empty; the column is required",
        "gone.png",
        "duration takes 5 or 10, but the value is '7'",
        "each row must be a mapping of columns to values, but the value is 5",
    ]
    assert [words in reason for words, reason in zip(said, reasons, strict=True)] == [True] * 4, reasons
    assert plan.counts == {"+": 2, "x": 4}
    told = [note.split(":")[0] for note in plan.notes if note.endswith("; the item is invalid and is not paid for.")]
    assert told == ["row 2", "row 3", "row 4", "row 5"]
    assert [work.take for one in plan.instances for work in one.works] == [1, 2]
    assert plan.price.most == 2 * by_number(plan)[0].works[0].price.most


async def test_without_skipping_the_file_is_refused_with_each_row(row: dict[str, str]) -> None:
    said = " ".join(await problems_of(CLIPS, rows=[{**row, "duration": "7"}, 5]))
    assert "row 1: duration takes 5 or 10" in said
    assert "row 2: each row must be a mapping" in said


async def test_a_step_outside_of_items_is_never_skipped() -> None:
    logo = "model: z-image/turbo, with: {prompt: x, aspect_ratio: $(params.ratio)}"
    text = SKIP + "params: {ratio: string}\n" + steps(logo=logo)
    assert "aspect_ratio" in " ".join(await problems_of(text, ratio="7:7"))


async def test_a_row_whose_second_step_is_invalid_is_not_begun(row: dict[str, str]) -> None:
    large = "model: rhart-video/video-upscaler, from: $(clip), with: {target_resolution: $(item.size)}"
    text = SKIP + clips(save="", large=large)
    plan = await plan_of(text, rows=[{**row, "size": "720p"}, {**row, "size": "no such", "prompt": "wind"}])
    first, second = plan.steps["each.clip"]
    assert (first.is_needed, second.is_needed, second.state) == (True, False, "=")
    assert plan.price.least == sum(work.price.least for one in plan.instances if one.item == "1" for work in one.works)


async def test_an_empty_cell_is_left_out_and_a_column_has_several_names(row: dict[str, str]) -> None:
    named = {"photo": row["photo"], "Prompt": "waves", "duration": " ", "author": "me"}
    plan = await plan_of(SKIP + CLIPS, rows=[named, {**row, "Prompt": "wind"}, {**row, "z": 1}])
    assert by_number(plan)[0].request.keys() == {"imageUrl", "prompt", "sound"}
    _, both, unknown = wrong(plan)
    assert "values in prompt and Prompt, which are headers of the same column" in both
    assert "a value in the column 'z'" in unknown


GAP = "$(item.look.color) mug"
INNER = {
    "foreach": group(f'foreach: ["{GAP}", "cup"], as: shot', p=PICTURE % "$(shot)"),
    "matrix": group(f'matrix: {{a: ["{GAP}", "cup"]}}', p=PICTURE % "$(matrix.a)"),
    "use": f'use: rh:film, with: {{prompt: "{GAP}"}}',
}


@pytest.mark.parametrize("inner", INNER)
async def test_a_text_with_a_gap_around_inner_steps_fails_its_item_only(inner: str) -> None:
    text = of_rows("title: string, look: {type: any, optional: true}", inner=INNER[inner])
    rows = [{"title": "a", "look": {"color": "red"}}, {"title": "", "look": {}}, {"title": "c"}]
    plan = await plan_of(SKIP + text, rows=rows)
    good, empty, gap = (next(one for one in plan.instances if one.item[0] == number) for number in "123")
    assert (good.state, empty.state, gap.state, plan.problems) == ("+", "x", "x", [])
    assert empty.problems[0].startswith("title is empty")
    assert gap.problems[0].startswith("$(item.look.color) has no value")
    said = [one.partition(";")[0] for one in await problems_of(text, rows=[rows[0], rows[2]])]
    assert "each[2].inner: $(item.look.color) has no value" in said


async def test_a_value_that_a_used_file_does_not_take_refuses_the_plan() -> None:
    """Its steps had no problem, and no note, if their conditions were false for it."""
    text = SKIP + of_rows("shots: any", inner="use: rh:film, with: {prompt: a mug, shots: $(item.shots)}")
    (said,) = await problems_of(text, rows=[{"shots": 2}, {"shots": "many"}])
    assert said.startswith("each[2].inner: shots takes")


@pytest.mark.parametrize(
    ("save_as", "second"),
    [("$(id).*", "a-2"), ("$(number)-$(id).*", "a"), ("$(item.look)/$(id).*", "a-2"), ("$(item.look).*", "a")],
)
async def test_ids_that_differ_only_in_case_are_numbered_if_files_would_clash(save_as: str, second: str) -> None:
    inner = group("foreach: [x], as: shot, id: $(shot)", q=PICTURE % "$(row.look)" + ', save_as: "$(row.look)-$(id).*"')
    saved = PICTURE % "letter $(id)" + f', save_as: "{save_as}"'
    text = SKIP + of_rows("title: string, look: string", "id: $(item.title)\n    as: row", p=saved, inner=inner)
    plan = await plan_of(text, rows=[{"title": "A", "look": "upper"}, {"title": "a", "look": "lower"}])
    assert ([one.item for one in plan.steps["each.p"]], plan.problems) == (["A", second], [])


async def test_a_file_that_is_none_of_its_kind_is_skipped(tmp_path: Path) -> None:
    for name in ("a.png", "c.png"):
        samples.png(tmp_path / name, text=name)
    (tmp_path / "b.png").write_bytes(b"no picture")
    large = "foreach: $(params.photos), steps: {large: {model: hypir-ultra, from: $(item)}}"
    text = "params: {photos: {type: files, of: image}}\n" + steps(each=large)
    plan = await plan_of(SKIP + text, photos=str(tmp_path))
    assert [(one.item, one.state) for one in by_number(plan)] == [("a", "+"), ("b", "x"), ("c", "+")]
    assert "b.png" in wrong(plan)[1]
    assert "b.png" in (await problems_of(text, photos=str(tmp_path)))[0]


async def test_a_cell_may_name_several_files(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        samples.png(tmp_path / name, text=name)
    (tmp_path / "rows.csv").write_text('photos,prompt\na.png; b.png,x\n"[""a.png""]",y\n')
    clip = "model: cinematic-video-generator, with: {image_urls: $(item.photos), prompt: $(item.prompt)}"
    plan = await plan_of(
        of_rows("photos: {type: files, of: image}, prompt: string", clip=clip), rows=str(tmp_path / "rows.csv")
    )
    assert [len(one.request["imageUrls"]) for one in plan.instances] == [2, 1]


async def test_empty_cells_are_one_problem_that_says_what_to_write(tmp_path: Path) -> None:
    samples.png(tmp_path / "mug.png")
    cells = [f"t{n},{'' if n == 17 or 30 <= n < 42 else 'mug.png'}" for n in range(1, 61)]
    (tmp_path / "autumn.csv").write_text("title,photo\n" + "\n".join(cells))
    pipeline = Pipeline.from_text(of_rows("photo: image", big=RESIZE % "$(item.photo)"), name="film.yaml")
    [problem] = (await pipeline.plan(rows=str(tmp_path / "autumn.csv"))).problems
    assert problem.head == (
        "film.yaml:1:40: autumn.csv row 17: photo is empty; the column is required. Fill it, or write photo: "
        "{type: image, optional: true} (and 12 further rows)"
    )


async def test_an_invalid_row_is_not_paid_for_in_a_used_file_either(tmp_path: Path) -> None:
    (tmp_path / "inner.yaml").write_text(of_rows("title: string, size: {type: integer, optional: true}", p=TITLED))
    params = "params: {rows: {type: table, columns: {title: string, size: integer}, other_columns: []}}\n"
    (tmp_path / "outer.yaml").write_text(
        SKIP + params + steps(u="use: ./inner.yaml, with: {rows: $(params.rows)}", each=group(EACH, p=TITLED))
    )
    given = [
        {"title": "mug", "size": 1},
        {"size": 1},
        {"title": "jug", "size": "x"},
        {"title": "bowl", "size": 1, "z": 2},
    ]
    plan = await plan_of(Pipeline.from_file(tmp_path / "outer.yaml"), rows=given)
    assert [one.state for path in ("each.p", "u.each.p") for one in plan.steps[path]] == ["+", "x", "x", "x"] * 2
    assert "title is empty" in wrong(plan)[2]


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    return [str(samples.png(tmp_path / "a.png")), str(tmp_path / "gone.png")]


PHOTOS = SKIP + "params: {photos: {type: files, of: image}}\n"
VIDEO = "model: cinematic-video-generator, with: {prompt: x, image_urls: %s}"


@pytest.mark.parametrize(
    "step",
    [
        "edit: contact_sheet, with: {of: $(params.photos)}",
        VIDEO % "[$(params.photos)]",
        "model: cinematic-video-generator, from: $(params.photos), with: {prompt: x}",
        "use: ./inner.yaml, with: {photos: $(params.photos)}",
    ],
)
async def test_an_unusable_file_outside_of_items_is_a_problem(step: str, photos: list[str], tmp_path: Path) -> None:
    """Everything else was paid for before the step failed."""
    (tmp_path / "inner.yaml").write_text(PHOTOS.replace(SKIP, "") + steps(video=VIDEO % "$(params.photos)"))
    (tmp_path / "outer.yaml").write_text(PHOTOS + steps(made=step))
    (problem,) = await problems_of(Pipeline.from_file(tmp_path / "outer.yaml"), photos=photos)
    assert "gone.png cannot be read" in problem


async def test_an_invalid_row_outside_of_items_is_a_problem() -> None:
    text = SKIP + "params: {rows: {type: table, columns: {title: string, size: integer}}}\n"
    text += steps(a=PICTURE % "x, unchecked: {rows: $(params.rows)}")
    (problem,) = await problems_of(text, rows=[{"title": "mug", "size": "x"}])
    assert "size takes a whole number" in problem


@pytest.mark.parametrize(
    "sheet", ["edit: contact_sheet, with: {of: $(each.item), captions: $(each.id)}", VIDEO % "$(each.item)"]
)
async def test_an_unusable_file_is_left_out_where_any_is_enough(sheet: str, photos: list[str]) -> None:
    each = group("foreach: $(params.photos)", large=RESIZE % "$(item)")
    plan = await plan_of(PHOTOS + steps(each=each, sheet=f"{sheet}, require: any"), photos=photos)
    assert [one.state for one in by_number(plan)] == ["+", "+", "x"]
    assert {len(value) for value in plan.steps["sheet"][0].values.values() if isinstance(value, list)} == {1}
