"""The pipeline that a batch writes: which column, value or file becomes which parameter of which row."""

from __future__ import annotations

import csv
import json
import sys
from datetime import date
from decimal import Decimal
from functools import reduce
from math import inf, nan
from pathlib import Path
from typing import Any, cast

import pyarrow
import pyarrow.parquet
import pytest

from rh_prefect import catalog
from rh_prefect.errors import ConfigError, InputError
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.batch_pipeline import Batch, BatchFile, write_batch
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import KnownWorks, Plan
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.pipelines.planning_values import File
from tests.support.samples import media as samples
from tests.support.samples.pipeline_assets import csv_file
from tests.support.servers.link_server import LinkHost

KLING, UPSCALER, PICTURE = "kling-v2.6-pro-image-to-video", "rhart-video/video-upscaler", "z-image/turbo"
ENLARGER = "hypir-ultra"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the user's."""
    made = tmp_path / "in"
    made.mkdir()
    return made


async def written(rows: Any, model: str = PICTURE, *, out: str = "elsewhere", **options: Any) -> BatchFile:
    return await write_batch(Batch(rows, model=model, **options), "site", MediaStore(out))


async def plan_of(rows: Any, model: str = PICTURE, **options: Any) -> Plan:
    plan = await (await written(rows, model, **options)).plan(KnownWorks())
    assert [problem.head for problem in plan.problems] == []
    return plan


def steps_of(plan: Plan, number: int = 0) -> list[PlannedStep]:
    """The steps of one stage, in the order of the rows."""
    path = list(plan.steps)[number]
    return sorted(plan.steps[path], key=lambda one: one.numbers)


def asked(plan: Plan, number: int = 0) -> list[dict[str, Any]]:
    """The parameters of each row; files by their addresses."""
    return [{name: _plain(value) for name, value in one.values.items()} for one in steps_of(plan, number) if one.works]


def _plain(value: Any) -> Any:
    if isinstance(value, File):
        return value.address
    return [_plain(one) for one in value] if isinstance(value, list) else value


def why(plan: Plan) -> list[str]:
    return [next(iter(one.problems), "") for one in steps_of(plan)]


async def test_a_table_s_columns_are_parameters_by_either_name_and_its_paths_are_its_own(folder: Path) -> None:
    (folder / "photos").mkdir()
    photo = samples.png(folder / "photos" / "one.png")
    row = {"imageUrl": "photos/one.png", "prompt": "waves, and wind", "duration": 10, "name": "a"}
    values = {"duration": "5", "sound": "false"}
    plan = await plan_of(csv_file(folder / "rows.csv", [row]), KLING, label_column="name", values=values)
    assert [one.item for one in steps_of(plan)] == ["a"]
    assert asked(plan) == [{"image_url": str(photo), "prompt": "waves, and wind", "duration": "10", "sound": "false"}]


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl"])
async def test_every_kind_of_table_gives_the_same_rows(folder: Path, name: str) -> None:
    lines = {
        "rows.csv": "\ufeffprompt,aspectRatio\na lighthouse,16:9\na harbour,\n",
        "rows.tsv": "prompt\taspectRatio\na lighthouse\t16:9\na harbour\t\n",
        "rows.jsonl": '{"prompt": "a lighthouse", "aspect_ratio": "16:9"}\n\n{"prompt": "a harbour"}\n',
    }
    (folder / name).write_text(lines[name], encoding="utf-8")
    plan = await plan_of(str(folder / name))
    assert asked(plan) == [{"prompt": "a lighthouse", "aspect_ratio": "16:9"}, {"prompt": "a harbour"}]


@pytest.mark.parametrize("name", ["rows.xlsx", "rows.json", "photo.png"])
async def test_a_file_that_is_no_table_is_named_with_the_tables_that_are(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"PK")
    with pytest.raises(InputError, match=rf"{name} is not a table that a batch can read.*\.csv, \.tsv, \.jsonl.*glob"):
        await written(str(folder / name), KLING)


async def test_a_long_cell_is_a_cell_and_one_without_end_is_said(folder: Path) -> None:
    rows = [{"prompt": "x", "notes": "y" * 300_000}, {"prompt": "z", "notes": ""}]
    plan = await plan_of(csv_file(folder / "rows.csv", rows), ignore_columns=["notes"])
    assert asked(plan) == [{"prompt": "x"}, {"prompt": "z"}]
    rows[0]["notes"] = "y" * (2**24 + 1)
    with pytest.raises(InputError, match="row that begins in line 2 has a cell of more than 16777216 characters"):
        await written(csv_file(folder / "rows.csv", rows), ignore_columns=["notes"])


async def test_parquet_is_read_with_what_databases_and_data_frames_write(folder: Path) -> None:
    photo = samples.png(folder / "one.png")
    table = {
        "imageUrl": ["one.png"] * 4,
        "prompt": pyarrow.array(["a", "b", "c", "d"]).dictionary_encode(),
        "duration": [Decimal(10), None, Decimal(5), Decimal("7.5")],
        "sound": [True, None, False, None],
        "id": pyarrow.array([Decimal(10**37 + 1), None, None, None], pyarrow.decimal128(38, 0)),
    }
    pyarrow.parquet.write_table(pyarrow.table(table), folder / "rows.parquet")
    plan = await plan_of(str(folder / "rows.parquet"), KLING, ignore_columns=["id"])
    same = {"image_url": str(photo)}
    assert asked(plan) == [
        {**same, "prompt": "a", "duration": "10", "sound": "true"},
        {**same, "prompt": "b"},
        {**same, "prompt": "c", "duration": "5", "sound": "false"},
    ]
    assert "duration takes 5 or 10, but the value is 7.5" in why(plan)[-1]


@pytest.mark.parametrize(("value", "type_"), [(date(2026, 1, 2), "date"), (b"x", "bytes")])
async def test_a_value_that_json_cannot_hold_is_named_by_its_type(value: object, type_: str) -> None:
    (wrong,) = why(await plan_of([{"prompt": value}]))
    assert f"prompt takes a string, but the value is of the type {type_}; pass it as a string" in wrong


async def test_lists_of_a_table_are_lists_of_files_and_no_number_is_an_empty_cell(folder: Path) -> None:
    photos = [str(samples.png(folder / name, text=name)) for name in ("one.png", "two.png")]
    table = {"image_urls": [["one.png", "two.png"]], "prompt": ["x"], "duration": [nan]}
    pyarrow.parquet.write_table(pyarrow.table(table), folder / "rows.parquet")
    plan = await plan_of(str(folder / "rows.parquet"), "cinematic-video-generator")
    assert asked(plan) == [{"image_urls": photos, "prompt": "x"}]
    listed = await plan_of([{"image_urls": photos, "prompt": "x"}], "cinematic-video-generator")
    assert asked(listed) == asked(plan)


async def test_no_number_is_an_empty_cell_and_infinity_is_no_text(folder: Path) -> None:
    """A data frame writes `nan` for a missing text."""
    given = [{"prompt": "x", "aspect_ratio": nan}, {"prompt": nan}, {"prompt": inf}]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in given))
    for rows in (given, str(folder / "rows.jsonl")):
        plan = await plan_of(rows)
        assert asked(plan) == [{"prompt": "x"}]
        reasons = ["", "prompt is empty; the column is required", "prompt contains inf, which is not a number that can"]
        assert all(reason.startswith(words) for reason, words in zip(why(plan), reasons, strict=True)), why(plan)


async def test_what_is_no_parquet_or_names_a_column_twice_is_refused(folder: Path) -> None:
    path = folder / "rows.parquet"
    path.write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(InputError, match=r"rows\.parquet: the file cannot be read as Parquet"):
        await written(str(path))
    for late in (pyarrow.array([10**17], pyarrow.timestamp("ms")), pyarrow.array([0], pyarrow.timestamp("s", "A/B"))):
        pyarrow.parquet.write_table(pyarrow.table({"prompt": late}), path)
        with pytest.raises(InputError, match=r"rows\.parquet: the file cannot be read as Parquet: .*(days|A/B)"):
            await written(str(path))
    pyarrow.parquet.write_table(pyarrow.table([["x"], ["y"]], names=["prompt", "prompt"]), path)
    with pytest.raises(InputError, match="columns 1 and 2 have the same name, 'prompt'"):
        await written(str(path))


async def test_without_pyarrow_a_parquet_table_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"rh-prefect\[parquet\]"):
        await written("rows.parquet")


async def test_words_of_a_command_become_what_their_parameters_take() -> None:
    simple = [model for model in catalog.models() if not model.media_params and model.find_param("prompt")]
    params = [(model, param) for model in simple for param in model.params if not param.multiple]
    switch = next((model, param) for model, param in params if param.type == "bool")
    number = next((model, param) for model, param in params if param.type == "int" and (param.min or 0) <= 7)
    for (model, param), text, value in ((switch, "TRUE", True), (number, " 7 ", 7)):
        batch = await written([{"prompt": "x"}], model.name, values={param.key: text})
        (step,) = Pipeline.from_text(batch.text).checked.file.steps["rows"].get("steps").values()
        assert step.with_[param.name] == value


async def test_what_a_spreadsheet_writes_is_read_as_it_is_meant(folder: Path) -> None:
    """In many countries it separates columns by semicolons; it and data frames write TRUE and True for true."""
    photo = samples.png(folder / "one.png")
    for name, text in {
        "excel.csv": f'\ufeffimage_url;prompt;sound\r\n{photo};"waves; wind, ""rain""\r\nand sun";FALSE\r\n;;\r\n',
        "frame.csv": f'image_url,prompt,sound\n{photo},"waves; wind, ""rain""\r\nand sun",False\n',
    }.items():
        (folder / name).write_text(text, newline="")
        plan = await plan_of(str(folder / name), KLING, values={"duration": "5"})
        prompt = 'waves; wind, "rain"\r\nand sun'
        assert asked(plan) == [{"image_url": str(photo), "prompt": prompt, "sound": "false", "duration": "5"}]


async def test_a_folder_gives_its_files_of_the_right_kind_as_a_glob_and_a_list_do(folder: Path) -> None:
    for name in ("b.png", "a.png", "out/old.png", "notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        samples.png(folder / name, text=name)
    files = [str(folder / f"{name}.png") for name in "ab"]
    for rows in (str(folder), str(folder / "*.png"), files):
        plan = await plan_of(rows, KLING, values={"prompt": "waves"}, out=str(folder / "out"))
        assert [one.item for one in steps_of(plan)] == ["a", "b"]
        assert [params["image_url"] for params in asked(plan)] == files


@pytest.mark.parametrize("source", ["photos/**/*.png", "photos/*/*.png", "linked/**/*.png", "photos", "linked", "."])
async def test_results_in_the_storage_are_no_rows_of_a_place_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos/more/a.png", "photos/out-of-focus/b.png", "photos/out/c.png", "photos/out/pipelines/d.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        samples.png(Path(name), text=name)
    Path("linked").symlink_to("photos")
    plan = await plan_of(source, ENLARGER, out="photos/out")
    assert [one.item for one in steps_of(plan)] == ["a", "b"]


async def test_rows_may_lie_in_the_storage_beside_its_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "inbox/b.png", "pipelines/c.png", "batches/one/d.png"):
        Path("out", name).parent.mkdir(parents=True, exist_ok=True)
        samples.png(Path("out", name), text=name)
    found = {"out": ["a", "b"], "out/inbox": ["b"], "out/*.png": ["a"], "out/batches/one": ["d"]}
    for source, items in found.items():
        assert [one.item for one in steps_of(await plan_of(source, ENLARGER, out="out"))] == items
    for source in ("out/pipelines", "out/batches", "out/batches/*"):
        with pytest.raises(AssertionError, match="use these results as inputs"):
            await plan_of(source, ENLARGER, out="out")


async def test_an_existing_name_with_brackets_is_no_pattern(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("photos [2024]").mkdir()
    samples.png(Path("photos [2024]/a.png"))
    for name in ("rows [1].csv", "why?.csv"):
        Path(name).write_text("image_url\nphotos [2024]/a.png\n")
    for source in ("rows [1].csv", "why?.csv", "photos [2024]"):
        (row,) = asked(await plan_of(source, KLING, values={"prompt": "waves"}))
        assert row["image_url"].endswith("photos [2024]/a.png")


async def test_a_parameter_that_no_model_has_is_refused_and_unchecked_values_are_sent() -> None:
    with pytest.raises(InputError, match="'zoom' is not a parameter"):
        await written([{"prompt": "x"}], values={"zoom": 2})
    plan = await plan_of([{"prompt": "x"}], values={"unchecked": {"zoom": 2}})
    assert asked(plan) == [{"unchecked": {"zoom": 2}, "prompt": "x"}]


async def test_an_odd_cell_makes_its_row_bad_and_no_other(folder: Path) -> None:
    photo = str(samples.png(folder / "one.png"))
    odd: list[dict[str, object]] = [
        {"image_url": "https://[cdn.example.com/b.png"},
        {"image_url": "x" * 300 + ".png"},
        {"image_url": "~nobody-at-all/b.png"},
        {"prompt": "\ud800"},
        {"prompt": "x", "other": 1},
        {"unchecked": reduce(lambda inner, _: cast("Any", [inner]), range(900), 0)},
    ]
    given = [{"image_url": photo, "prompt": "waves", **one} for one in odd] + [{"image_url": photo, "prompt": "wind"}]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in given) + "[" * 100_000)
    for rows in (given, str(folder / "rows.jsonl")):
        reasons = why(await plan_of(rows, KLING))
        assert [bool(reason) for reason in reasons[:7]] == [True] * 6 + [False], reasons
    assert "nested too deeply" in reasons[-1]


async def test_an_unknown_column_says_which_options_name_it(folder: Path) -> None:
    plan = await plan_of(
        csv_file(folder / "rows.csv", [{"prompt": "a", "author": "me"}, {"prompt": "b", "author": ""}])
    )
    bad, good = why(plan)
    assert good == ""
    for option in ("'author', which is not a parameter", "--label-column", "--ignore-columns"):
        assert option in bad
    with pytest.raises(InputError, match=r"no column prompt, which z-image/turbo needs; 'promt' .* nearest is prompt"):
        await written(csv_file(folder / "rows.csv", [{"promt": "a", "aspect_ratio": "1:1"}]))
    (misspelt,) = why(await plan_of([{"prompt": "a", "aspect_rato": "1:1"}]))
    assert "'aspect_rato', which is not a parameter; did you mean aspect_ratio?" in misspelt
    (several,) = why(await plan_of([{"prompt": "a", "author": "me", "sku": 7}]))
    assert "values in the columns 'author', 'sku', which are not parameters" in several


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prompt,prompt\na,b\n", "columns 1 and 2 have the same name, 'prompt'"),
        ("prompt, aspectRatio , aspectRatio\na,b,c\n", "columns 2 and 3 have the same name, 'aspectRatio'"),
        ("prompt,aspect_ratio,aspectRatio\na,,1:1\n", "'aspect_ratio' and 'aspectRatio' are the same parameter"),
        ("prompt,1.prompt\na,b\n", "'prompt' and '1.prompt' are the same parameter"),
        ('prompt\na lighthouse\n\n"a harbour\na gull\n', "begins in line 4 has a quote that is not closed"),
        ('prompt\n"a "harbour""\n', "begins in line 2 has a quote"),
    ],
)
async def test_a_table_of_which_it_is_unclear_what_it_says_is_refused(folder: Path, text: str, said: str) -> None:
    for name, separator in (("rows.csv", ","), ("rows.tsv", "\t")):
        (folder / name).write_text(text.replace(",", separator))
        with pytest.raises(InputError, match=said):
            await written(str(folder / name))


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.parquet"])
async def test_cells_of_nameless_columns_and_of_white_space_are_not_paid_for(folder: Path, name: str) -> None:
    rows = [("a mug", "in red", "", ""), ("  ", "", "", ""), ("a jug", "", "in blue", ""), ("a pot", " ", "", " \t ")]
    columns = ["prompt", "", "", "aspect_ratio"]
    if name.endswith("parquet"):
        arrays = [pyarrow.array(cells) for cells in zip(*rows, strict=True)]
        pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, names=columns), folder / name)
    else:
        with (folder / name).open("w", newline="") as file:
            csv.writer(file, delimiter="\t" if name.endswith("tsv") else ",").writerows([columns, *rows])
    plan = await plan_of(str(folder / name))
    first, third, good = why(plan)
    assert "a cell in column 2, which has no name" in first
    assert "a cell in column 3, which has no name" in third
    assert (good, asked(plan)) == ("", [{"prompt": "a pot"}])


async def test_an_object_that_says_a_thing_twice_is_a_bad_row(folder: Path) -> None:
    lines = [
        '{"prompt": "a", "prompt": "b"}',
        '{"prompt": "a", "aspect_ratio": "1:1", "aspectRatio": "16:9"}',
        '{"prompt": "c", "aspectRatio": "1:1"}',
        '{"prompt": "d", "aspect_ratio": "1:1"}',
    ]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    plan = await plan_of(str(folder / "rows.jsonl"))
    twice, same, *good = why(plan)
    assert "'prompt' twice" in twice
    assert "aspect_ratio and aspectRatio, which are headers of the same column" in same
    assert good == ["", ""]
    assert [row["aspect_ratio"] for row in asked(plan)] == ["1:1", "1:1"]


async def test_equal_rows_are_separate_jobs_of_a_scope_of_their_own() -> None:
    rows = [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}]
    works = [work for one in steps_of(await plan_of(rows)) for work in one.works]
    assert [work.take for work in works] == [1, 1, 2]
    assert len({work.key for work in works}) == 3
    (note,) = [note for note in (await plan_of(rows)).notes if "same request as an earlier" in note]
    assert note == "rows.picture: row 3 has the same request as an earlier item; each is paid for separately."
    assert {work.scope for work in works} == {(await written(rows)).name}
    turned = [work.key for one in steps_of(await plan_of(rows[::-1])) for work in one.works]
    assert len(set(turned)) == 3
    shared = await plan_of(rows, reuse="always")
    assert {work.scope for one in steps_of(shared) for work in one.works} == {""}


async def test_a_chain_s_parameters_go_to_the_first_step_that_has_them_or_to_the_one_named(folder: Path) -> None:
    photo = str(samples.png(folder / "photo.png"))
    for name in ("target_resolution", "2.targetResolution"):
        plan = await plan_of([{"image_url": photo, "prompt": "x"}], KLING, chain=[UPSCALER], values={name: "720p"})
        (second,) = asked(plan, 1)
        assert second["target_resolution"] == "720p"
    table = csv_file(
        folder / "rows.csv", [{"image_url": photo, "prompt": "x", "duration": 5, "2.duration": 10, "author": "me"}]
    )
    plan = await plan_of(table, KLING, chain=["wan-2.7/video-extend"], ignore_columns=["author"])
    assert [asked(plan, number)[0]["duration"] for number in (0, 1)] == ["5", "10"]
    with pytest.raises(InputError, match=r"does not accept the output of .*, which has the type image"):
        await written([{"prompt": "x"}], chain=[UPSCALER])


async def test_a_row_that_has_the_file_of_a_later_step_uses_it(folder: Path) -> None:
    photo, video = str(samples.png(folder / "photo.png")), str(samples.mp4(folder / "clip.mp4"))
    rows = [{"image_url": photo, "prompt": "x"}, {"image_url": photo, "prompt": "x", "video_url": video}]
    plan = await plan_of(rows, KLING, chain=[UPSCALER])
    assert [one["video_url"] for one in asked(plan, 1)] == ["", video]


@pytest.mark.parametrize(
    ("steps", "values", "said"),
    [
        ([], {"prompt": "a", "1.prompt": "b"}, "values: 'prompt' and '1.prompt' are the same parameter"),
        ([], {"aspect_ratio": "16:9", "aspectRatio": "9:16"}, "'aspect_ratio' and 'aspectRatio'"),
        (
            [{"target_resolution": "720p", "targetResolution": "4k"}],
            {},
            r"chain\[0\]: 'target_resolution' and 'targetResolution'",
        ),
        ([{"target_resolution": "720p"}], {"2.target_resolution": "4k"}, "values: '2.target_resolution' .*chain"),
        ([{"target_resolution": "720p"}], {"targetResolution": "720p"}, "values: 'targetResolution' .*chain"),
    ],
)
async def test_a_second_value_for_one_parameter_of_one_step_is_refused(
    steps: list[dict[str, Any]], values: dict[str, Any], said: str
) -> None:
    model, chain = (KLING, [{"model": UPSCALER, **step} for step in steps]) if steps else (PICTURE, [])
    with pytest.raises(InputError, match=f"{said}.*What to do"):
        await written([{"prompt": "x"}], model, chain=chain, values=values)


async def test_a_file_for_every_row_is_a_parameter_that_a_row_may_replace(folder: Path) -> None:
    photo, other = (str(samples.png(folder / f"{name}.png", text=name)) for name in ("photo", "other"))
    rows = [{"prompt": "a"}, {"prompt": "b", "image_url": other}]
    for value in (photo, {"file": photo}):
        plan = await plan_of(rows, KLING, values={"image_url": value})
        assert [one["image_url"] for one in asked(plan)] == [photo, other]
    with pytest.raises(InputError, match="there is no file"):
        await written(rows, KLING, values={"image_url": str(folder / "gone.png")})


async def test_a_text_that_looks_like_a_reference_is_sent_as_it_is() -> None:
    plan = await plan_of([{"aspect_ratio": "1:1"}], values={"prompt": "costs $(5) and $$(x)"})
    assert asked(plan)[0]["prompt"] == "costs $(5) and $$(x)"
    with pytest.raises(InputError, match=r"\$\(item\.name\) in a value for all rows is not read"):
        await written([{"aspect_ratio": "1:1"}], values={"prompt": "a photo of $(item.name)"})


async def test_the_file_is_a_pipeline_that_does_the_same(folder: Path) -> None:
    table = csv_file(
        folder / "rows.csv", [{"prompt": "a", "name": "x"}, {"prompt": "a", "name": "x"}, {"prompt": "c", "zoom": "2"}]
    )
    batch = await written(table, label_column="name", chain=[ENLARGER], budget=2.0)
    plan = await Pipeline.from_text(batch.text).plan(rows=table)
    own = await batch.plan(KnownWorks())
    assert [one.address for one in plan.instances] == [one.address for one in own.instances]
    assert [work.key for one in plan.instances for work in one.works if work.is_settled] == [
        work.key for one in own.instances for work in one.works if work.is_settled
    ]
    assert [one.save_as for one in steps_of(own, 1)] == [
        f"batches/{batch.name}/{name}.*" for name in ("x", "x-2", "")[:2]
    ] + [""]
    assert plan.budget is not None and plan.budget.model_dump(exclude_defaults=True) == {
        "amount": 2.0,
        "whole_items": True,
        "all_runs": True,
    }


async def test_a_strict_batch_is_refused_with_each_bad_row() -> None:
    batch = await written([{"prompt": "a"}, {"prompt": "b", "name": "x"}, {"prompt": ""}], strict=True)
    plan = await batch.plan(KnownWorks())
    heads = " ".join(problem.head for problem in plan.problems)
    assert "row 2: it has a value in the column 'name'" in heads
    assert "row 3: prompt is empty" in heads


async def test_a_batch_is_what_makes_its_results_differ(folder: Path) -> None:
    rows = csv_file(folder / "rows.csv", [{"prompt": "a"}])
    names = [
        (await written(rows)).name,
        (await written(rows, values={"output_format": "jpeg"})).name,
        (await written(rows, out="another")).name,
        (await written([{"prompt": "a"}])).name,
    ]
    assert len(set(names)) == 4
    csv_file(folder / "rows.csv", [{"prompt": "a"}, {"prompt": "b"}])
    assert (await written(rows, budget=5, strict=True, attempts=2)).name == names[0]
    csv_file(folder / "rows.csv", [{"prompt": "a", "name": "x"}])
    assert (await written(rows, label_column="name")).name == (await written(rows, ignore_columns=["name"])).name


async def test_a_label_column_without_labels_is_refused(folder: Path) -> None:
    rows = csv_file(folder / "rows.csv", [{"prompt": "a", "name": "x"}])
    with pytest.raises(InputError, match=r"no row of .* has a label in the column 'nmae'; did you mean name\?"):
        await written(rows, label_column="nmae", ignore_columns=["name"])
    with pytest.raises(InputError, match="z-image/turbo needs prompt, but 'prompt' is the label column"):
        await written(rows, label_column="prompt", ignore_columns=["name"])
    labelled = await written(rows, label_column="prompt", ignore_columns=["name"], values={"prompt": "b"})
    assert [one.item for one in steps_of(await labelled.plan(KnownWorks()))] == ["a"]


async def test_a_presigned_link_to_a_table_is_a_table_and_its_signature_is_not_shown(links: LinkHost) -> None:
    signed = "X-Amz-Algorithm=AWS4&X-Amz-Credential=canary&X-Amz-Signature=canary"
    batch = await written(links.put(f"rows.csv?{signed}", b"prompt,image_url\na,x.png\n"), KLING)
    assert f"on {links.url}/rows.csv" in batch.text and "canary" not in batch.text


async def test_a_value_that_is_none_and_a_tiny_budget_are_allowed() -> None:
    plan = await plan_of([{"prompt": "a"}], values={"aspect_ratio": None}, budget=0.00001)
    assert asked(plan) == [{"prompt": "a"}]
    assert plan.budget is not None and plan.budget.amount == 0.00001


async def test_labels_that_file_systems_cannot_tell_apart_are_numbered(folder: Path) -> None:
    labels = ["Cat", "dog", "cat", "\u00e9", "e\u0301", "cat-3", "dog"]
    rows = csv_file(folder / "rows.csv", [{"prompt": f"p{n}", "name": one} for n, one in enumerate(labels)])
    plan = await plan_of(rows, label_column="name")
    assert [one.item for one in steps_of(plan)] == ["Cat", "dog", "cat-4", "\u00e9", "e\u0301-5", "cat-3", "dog-7"]
    files = [samples.png(folder / name, text=name) for name in ("A.png", "more/a.png")]
    assert [one.item for one in steps_of(await plan_of(files, ENLARGER))] == ["A", "a-2"]


@pytest.mark.parametrize("label", ["x" * 300, "a/b"])
async def test_a_label_that_cannot_name_a_file_fails_its_row_only(folder: Path, label: str) -> None:
    rows = csv_file(folder / "rows.csv", [{"prompt": "a", "name": label}, {"prompt": "b", "name": "fine"}])
    plan = await plan_of(rows, label_column="name", chain=[ENLARGER])
    assert [one.is_needed for one in steps_of(plan)] == [False, True]
    assert [one.state for one in steps_of(plan, 1)] == ["x", ">"]


async def test_a_path_is_rows_as_its_text_is(folder: Path) -> None:
    rows = csv_file(folder / "rows.csv", [{"prompt": "a"}])
    assert (await written(Path(rows))).text == (await written(rows)).text
