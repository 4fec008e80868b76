"""A batch: every row accounted for, and run again it pays for what is missing and for nothing else."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import nan
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow
import pyarrow.parquet
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey

from rh_prefect import batch as batch_in_a_flow
from rh_prefect import catalog, flow
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import BatchIncomplete, ConfigError, InputError
from rh_prefect.flow_runs.cancellation import cancel_run
from rh_prefect.flow_runs.queries import recorded_scope
from rh_prefect.flow_runs.resume import create, rerun
from rh_prefect.flows import batch
from rh_prefect.flows.batch import BatchReport
from rh_prefect.flows.batch.batch_plan import InvalidRow, Plan, Work, make_plan
from rh_prefect.flows.batch.row_sources import open_source
from rh_prefect.media.store import MediaStore
from rh_prefect.works.journal.costs import Costs
from rh_prefect.works.loop_thread import LOOP
from tests.support.samples import media as samples
from tests.support.servers.emulator_env import environment
from tests.support.servers.s3 import S3Server

KLING, UPSCALER, PICTURE = "kling-v2.6-pro-image-to-video", "rhart-video/video-upscaler", "z-image/turbo"
ENLARGER = "hypir-ultra"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the user's."""
    made = tmp_path / "in"
    made.mkdir()
    return made


def table_in(folder: Path, rows: Sequence[Mapping[str, object]], *, name: str = "rows.csv") -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return str(folder / name)


def rows_of(source: Any, plan: Plan, store: str = "elsewhere") -> list[Work | InvalidRow]:
    return list(plan.works(open_source(source, store=MediaStore(store))))


def asked(works: Sequence[Work | InvalidRow]) -> list[dict[str, object]]:
    assert all(isinstance(work, Work) for work in works), works
    return [dict(work.params[0]) for work in works if isinstance(work, Work)]


def why(work: Work | InvalidRow) -> str:
    assert isinstance(work, InvalidRow), work
    return work.reason


# What the rows are.


def test_a_table_s_columns_are_parameters_by_either_name_and_its_paths_are_its_own(folder: Path) -> None:
    (folder / "photos").mkdir()
    photo = samples.png(folder / "photos" / "one.png")
    source = table_in(
        folder, [{"imageUrl": "photos/one.png", "prompt": "waves, and wind", "duration": 10, "name": "a"}]
    )
    (work,) = rows_of(source, make_plan(KLING, label_column="name", values={"duration": "5", "sound": "false"}))
    assert isinstance(work, Work)
    assert work.label == "a"
    assert work.params == ({"image_url": str(photo), "prompt": "waves, and wind", "duration": "10", "sound": "false"},)


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl"])
def test_every_kind_of_table_gives_the_same_rows(folder: Path, name: str) -> None:
    lines = {
        "rows.csv": "\ufeffprompt,aspectRatio\na lighthouse,16:9\na harbour,\n",
        "rows.tsv": "prompt\taspectRatio\na lighthouse\t16:9\na harbour\t\n",
        "rows.jsonl": '{"prompt": "a lighthouse", "aspect_ratio": "16:9"}\n\n{"prompt": "a harbour"}\n',
    }
    (folder / name).write_text(lines[name], encoding="utf-8")
    params = asked(rows_of(str(folder / name), make_plan(PICTURE)))
    assert params == [{"prompt": "a lighthouse", "aspect_ratio": "16:9"}, {"prompt": "a harbour"}]


@pytest.mark.parametrize("name", ["rows.xlsx", "rows.json", "photo.png"])
def test_a_file_that_is_no_table_is_named_with_the_tables_that_are(folder: Path, name: str) -> None:
    """It was listed as a folder, in which there were no rows."""
    (folder / name).write_bytes(b"PK")
    with pytest.raises(InputError, match=rf"{name} is a file, but no table.*\.csv, \.tsv, \.jsonl.*glob"):
        open_source(str(folder / name), store=MediaStore("elsewhere"))


def test_a_long_cell_is_a_cell_and_one_without_end_is_said(folder: Path) -> None:
    """A cell of more than 128 kB stops no batch; one of more than 16 MiB stops it with the true reason."""
    rows = [{"prompt": "x", "notes": "y" * 300_000}, {"prompt": "z", "notes": ""}]
    plan = make_plan(PICTURE, ignored=["notes"])
    assert asked(rows_of(table_in(folder, rows), plan)) == [{"prompt": "x"}, {"prompt": "z"}]
    rows[0]["notes"] = "y" * (2**24 + 1)
    with pytest.raises(InputError, match="row that begins in line 2 has a cell of more than 16777216 characters"):
        rows_of(table_in(folder, rows), plan)


def test_a_label_that_is_too_long_is_that_row_s_trouble_alone(folder: Path) -> None:
    """A huge label of one row is said, and the other rows are run."""
    rows = [{"prompt": "x", "name": "y" * 100_000}, {"prompt": "z", "name": "z"}]
    bad, good = rows_of(table_in(folder, rows), make_plan(PICTURE, label_column="name"))
    assert "The label has 100000 characters" in why(bad)
    assert isinstance(good, Work)


@pytest.mark.parametrize("column", ["prompt", "image_url"])
def test_rows_that_differ_in_any_part_of_a_link_are_rows_of_their_own(column: str) -> None:
    """A row is its values as written; two links that differ in `token=` are two rows, and so are two texts."""
    rows = [{"image_url": "https://h/a.png", "prompt": "x", column: f"https://h/a.png?token={n}"} for n in (1, 2, 1)]
    one, two, again = (work.id for work in rows_of(rows, make_plan(KLING)) if isinstance(work, Work))
    assert len({one, two, again}) == 3
    assert again.startswith(one) and not two.startswith(one)


def test_parquet_is_read_with_what_databases_and_data_frames_write(folder: Path) -> None:
    photo = samples.png(folder / "one.png")
    table = {
        "imageUrl": ["one.png"] * 4,
        "prompt": pyarrow.array(["a", "b", "c", "d"]).dictionary_encode(),
        "duration": [Decimal(10), None, Decimal(5), Decimal("7.5")],
        "sound": [True, None, False, None],
    }
    pyarrow.parquet.write_table(pyarrow.table(table), folder / "rows.parquet")
    *good, bad = rows_of(str(folder / "rows.parquet"), make_plan(KLING))
    same = {"image_url": str(photo)}
    assert asked(good) == [
        {**same, "prompt": "a", "duration": 10, "sound": True},
        {**same, "prompt": "b"},
        {**same, "prompt": "c", "duration": 5, "sound": False},
    ]
    assert 'duration must be one of "5", "10", not 7.5' in why(bad)


def test_parquet_s_lists_are_lists_of_files_and_no_number_is_an_empty_cell(folder: Path) -> None:
    photos = [str(samples.png(folder / name)) for name in ("one.png", "two.png")]
    table = {"image_urls": [["one.png", "two.png"]], "prompt": ["x"], "duration": [nan]}
    pyarrow.parquet.write_table(pyarrow.table(table), folder / "rows.parquet")
    works = rows_of(str(folder / "rows.parquet"), make_plan("cinematic-video-generator"))
    assert asked(works) == [{"image_urls": photos, "prompt": "x"}]


def test_what_is_no_parquet_or_names_a_column_twice_is_refused(folder: Path) -> None:
    path = folder / "rows.parquet"
    path.write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(InputError, match=r"rows\.parquet: cannot be read as Parquet"):
        rows_of(str(path), make_plan(PICTURE))
    pyarrow.parquet.write_table(pyarrow.table([["x"], ["y"]], names=["prompt", "prompt"]), path)
    with pytest.raises(InputError, match="columns 1 and 2 have the same name, 'prompt'"):
        rows_of(str(path), make_plan(PICTURE))


def test_without_pyarrow_a_parquet_table_says_what_it_needs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"rh-prefect\[parquet\]"):
        rows_of(str(folder / "rows.parquet"), make_plan(PICTURE))


def test_words_of_a_table_become_what_their_parameters_take(folder: Path) -> None:
    model = next(
        model
        for model in catalog.models()
        if {"bool", "int"} <= {param.type for param in model.params if not param.multiple}
    )
    switch = next(param for param in model.params if param.type == "bool" and not param.multiple)
    number = next(param for param in model.params if param.type == "int" and not param.multiple)
    (read,) = make_plan(model.name, values={switch.name: "TRUE", number.key: " 7 "}).values
    assert read == {switch.name: True, number.name: 7}


def test_what_a_spreadsheet_writes_is_read_as_it_is_meant(folder: Path) -> None:
    """In many countries it separates columns by semicolons; it and data frames write TRUE and True for true."""
    photo = samples.png(folder / "one.png")
    for name, text in {
        "excel.csv": f'\ufeffimage_url;prompt;sound\r\n{photo};"waves; wind, ""rain""\r\nand sun";FALSE\r\n;;\r\n',
        "frame.csv": f'image_url,prompt,sound\n{photo},"waves; wind, ""rain""\r\nand sun",False\n',
    }.items():
        (folder / name).write_text(text, newline="")
        plan = make_plan(KLING, values={"duration": "5"})
        assert asked(rows_of(str(folder / name), plan)) == [
            {
                "image_url": str(photo),
                "prompt": 'waves; wind, "rain"\r\nand sun',
                "sound": "false",
                "duration": "5",
            }
        ]


def test_a_folder_gives_its_files_of_the_right_kind_and_not_what_was_made_in_it(folder: Path) -> None:
    for name in ("b.png", "a.png", "out/old.png", "notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        samples.png(folder / name)
    plan = make_plan(KLING, values={"prompt": "waves"})
    works = rows_of(str(folder), plan, store=str(folder / "out"))
    assert [work.label for work in works] == ["a", "b"]
    assert [params["image_url"] for params in asked(works)] == [str(folder / "a.png"), str(folder / "b.png")]
    with pytest.raises(InputError, match="another output location"):
        rows_of(str(folder), plan, store=str(folder))


def test_a_glob_and_a_list_of_files_give_the_same_work(folder: Path) -> None:
    files = [str(samples.png(folder / f"{name}.png")) for name in "ab"]
    plan = make_plan(KLING, values={"prompt": "waves"})
    one, two = rows_of(str(folder / "*.png"), plan), rows_of(files, plan)
    assert one == two
    assert len({work.id for work in one if isinstance(work, Work)}) == 2


RUN = "0123456789ab"


@pytest.mark.parametrize("out", ["photos/out", "linked/out"])
@pytest.mark.parametrize("source", ["photos/**/*.png", "photos/*/*", "linked/**/*.png", "photos", "linked", "."])
def test_what_lies_in_the_place_is_no_row_of_a_folder_or_a_glob_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos/more/a.png", "photos/out-of-focus/b.png", "photos/out/c.png", f"photos/out/batch/{RUN}/d.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        samples.png(Path(name))
    Path("linked").symlink_to("photos")
    works = rows_of(source, make_plan(KLING, values={"prompt": "waves"}), store=out)
    assert [work.label for work in works] == ["a", "b"]


WITHIN = {
    "place": "inside the output location",
    "place/*/*/*.png": "inside the output location",
    "place/**/*.png": "inside the output location",
    "linked/batch": "inside the output location",
    "place/batch": "inside the output location",
    f"place/batch/{RUN}": "inside the output location",
    f"place/b*/{RUN}/*": "inside the output location",
    "place/*.png": "",
    "place/photos [1]": "",
    "place/inbox/*.png": "",
    "place/inbox/one/two/three/*.png": "",
    "place/batch/another": "",
    "place/rows.csv": "",
    "elsewhere": "",
}


@pytest.mark.parametrize("source", WITHIN)
def test_rows_from_within_the_place_are_refused_where_they_could_be_the_outputs_of_this_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    fields = {"flow": "batch", "run": RUN}
    Path("place/photos [1]").mkdir(parents=True)
    Path("linked").symlink_to("place")
    if WITHIN[source]:
        with pytest.raises(InputError, match=WITHIN[source]):
            open_source(source, store=MediaStore("place"), fields=fields)
    else:
        open_source(source, store=MediaStore("place"), fields=fields)


def test_where_nobody_knows_the_run_or_the_template_is_another_it_is_what_could_be(tmp_path: Path) -> None:
    inbox = str(tmp_path / "inbox")
    with pytest.raises(InputError, match="another output location"):
        open_source(inbox, store=MediaStore(tmp_path))
    open_source(inbox, store=MediaStore(tmp_path, template="made/{run}/{key}-{index}.{ext}"))
    with pytest.raises(InputError, match="another output location"):
        open_source(f"{inbox}/*.png", store=MediaStore(tmp_path, template="inbox/{run}-{key}-{index}.{ext}"))


def test_in_memory_and_on_s3_it_is_the_same() -> None:
    inbox, out = MediaStore("memory://inbox"), MediaStore("memory://inbox/out")
    for name in ("a.png", "out/b.png", "out-of-focus/c.png"):
        inbox.write_bytes(name, b"x")
    for source in ("memory://inbox/**/*.png", "memory:///inbox/**/*.png", "memory://inbox", "memory://"):
        found = [str(row.file) for row in open_source(source, store=out).rows()]
        assert [file.rpartition("/")[2] for file in found if "inbox" in file] == ["a.png", "c.png"], source
    for source in ("s3a://bucket/films/batch/", "s3://bucket/films/**"):
        with pytest.raises(InputError, match="inside the output location"):
            open_source(source, store=MediaStore("s3://bucket/films"))


def test_what_exists_under_a_name_with_brackets_is_itself_and_no_pattern(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    Path("photos [2024]").mkdir()
    samples.png(Path("photos [2024]/a.png"))
    samples.png(Path("2.png"))
    for name in ("rows [1].csv", "why?.csv"):
        Path(name).write_text("image_url\nphotos [2024]/a.png\n")
    plan = make_plan(KLING, values={"prompt": "waves"})
    photo = {"image_url": str(folder / "photos [2024]" / "a.png"), "prompt": "waves"}
    for source in ("photos [2024]", "rows [1].csv", "why?.csv"):
        assert asked(rows_of(source, plan)) == [photo]
    assert [work.label for work in rows_of("[2].png", plan)] == ["2"]
    MediaStore("memory://photos [2024]").write_bytes("a.png", b"x")
    found = open_source("memory://photos [2024]", store=MediaStore("elsewhere")).rows()
    assert [row.file for row in found] == ["memory://photos [2024]/a.png"]


@pytest.mark.s3
def test_an_s3_prefix_gives_its_files(s3: S3Server, folder: Path) -> None:
    place = s3.url("batch")
    inbox, out = MediaStore(f"{place}/in", options=s3.options), MediaStore(f"{place}/out", options=s3.options)
    for name in ("one.png", "more/two.png", "notes.txt"):
        inbox.write_bytes(name, samples.png(folder / "x.png").read_bytes())
    plan = make_plan(KLING, values={"prompt": "waves"})
    works = list(plan.works(open_source(inbox.url, store=out)))
    assert [params["image_url"] for params in asked(works)] == [inbox.uri("more/two.png"), inbox.uri("one.png")]
    globbed = list(plan.works(open_source(f"{inbox.url}/*.png", store=out)))
    assert [params["image_url"] for params in asked(globbed)] == [inbox.uri("one.png")]
    inbox.write_bytes("rows.csv", b"imageUrl,prompt\none.png,wind\n")
    (row,) = asked(list(plan.works(open_source(f"{inbox.url}/rows.csv", store=out))))
    assert row == {"image_url": inbox.uri("one.png"), "prompt": "wind"}


def test_a_bad_row_says_why_and_is_no_other_s_business(folder: Path) -> None:
    photo = str(samples.png(folder / "one.png"))
    rows = [
        {"image_url": photo, "prompt": "waves"},
        {"image_url": "nowhere.png", "prompt": "waves"},
        {"image_url": photo, "prompt": "waves", "duration": "7"},
        {"image_url": photo, "promt": "waves"},
        "x.png",
        7,
    ]
    good, *bad = rows_of(rows, make_plan(KLING))
    assert isinstance(good, Work)
    said = ["there is no file", "must be one of", "the nearest is prompt", "there is no file", "Expected a file"]
    assert [words in why(work) for words, work in zip(said, bad, strict=True)] == [True] * 5


def test_a_column_that_no_parameter_has_is_refused_and_unchecked_values_are_sent() -> None:
    partly_known = next(model for model in catalog.models() if model.incomplete and not model.media_params)
    for name in (PICTURE, partly_known.name):
        with pytest.raises(InputError, match="'zoom' is not a parameter"):
            make_plan(name, values={"zoom": 2})
    (work,) = rows_of([{"prompt": "x"}], make_plan(PICTURE, values={"unchecked": {"zoom": 2}}))
    assert asked([work]) == [{"unchecked": {"zoom": 2}, "prompt": "x"}]


def test_an_odd_cell_makes_its_row_bad_and_no_other(folder: Path) -> None:
    photo = str(samples.png(folder / "one.png"))
    rows: list[tuple[dict[str, object], str]] = [
        ({"image_url": "https://[cdn.example.com/b.png"}, "is not a valid"),
        ({"image_url": "x" * 300 + ".png"}, "File name too long"),
        ({"image_url": "~nobody-at-all/b.png"}, "home directory"),
        ({"duration": "\ud800"}, "an incomplete character"),
        ({"prompt": "\ud800"}, "an incomplete character"),
        ({"name": "\ud800"}, "as UTF-8"),
        ({"\ud800": 1}, "not a parameter"),
    ]
    given = [{"image_url": photo, "prompt": "waves", "name": "a", **odd} for odd, _ in rows]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in given) + "[" * 100_000)
    plan = make_plan(KLING, label_column="name")
    said = [words for _, words in rows]
    for works in (rows_of(given, plan), rows_of(str(folder / "rows.jsonl"), plan)):
        assert [words in why(work) for words, work in zip(said, works)] == [True] * len(rows)
        assert all(json.dumps([work.label, why(work)], ensure_ascii=False).encode() for work in works)
    assert "nested too deeply" in why(works[-1])
    (listed,) = rows_of(["https://[cdn.example.com/b.png"], make_plan(KLING, values={"prompt": "waves"}))
    assert "is not a valid" in why(listed)
    (text,) = rows_of([{"prompt": "https://[x] is a link"}], make_plan(PICTURE))
    assert isinstance(text, Work), "a prompt may begin like a link"


def test_a_huge_number_and_a_deep_list_make_their_row_bad() -> None:
    entry, number = next((model, one) for model in catalog.models() for one in model.params if one.type == "int")
    (huge,) = rows_of([{number.name: 10**400}], make_plan(entry.name))
    assert "more than 300 digits" in why(huge)
    entry, deep = next((model, one) for model in catalog.models() for one in model.params if one.type == "json")
    (nested,) = rows_of([{deep.name: "[" * 100_000}], make_plan(entry.name))
    assert "nested too deeply" in why(nested)
    value: object = []
    for _ in range(100_000):
        value = [value]
    (nested,) = rows_of([{deep.name: value}], make_plan(entry.name))
    assert "nested too deeply" in why(nested)


def test_an_unknown_column_says_which_options_name_it(folder: Path) -> None:
    (work,) = rows_of(table_in(folder, [{"prompt": "a", "author": "me"}]), make_plan(PICTURE))
    for option in ("--label-column", "--ignore-columns", "label_column=", "ignore_columns="):
        assert option in why(work)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prompt,prompt\na,b\n", "columns 1 and 2 have the same name, 'prompt'"),
        ("prompt, aspectRatio , aspectRatio\na,b,c\n", "columns 2 and 3 have the same name, 'aspectRatio'"),
        ("prompt,aspect_ratio,aspectRatio\na,,1:1\n", "'aspect_ratio' and 'aspectRatio', which are the same"),
        ("prompt,1.prompt\na,b\n", "'prompt' and '1.prompt', which are the same"),
        ('prompt\na lighthouse\n\n"a harbour\na gull\n', "begins in line 4 has a quote that is not closed"),
        ('prompt\n"a "harbour""\n', "begins in line 2 has a quote"),
        ('"prompt\na lighthouse\n', "begins in line 1 has a quote"),
    ],
)
def test_a_table_of_which_nobody_can_tell_what_it_says_is_refused(folder: Path, text: str, said: str) -> None:
    (folder / "rows.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        rows_of(str(folder / "rows.csv"), make_plan(PICTURE))
    (folder / "rows.tsv").write_text(text.replace(",", "\t"))
    with pytest.raises(InputError, match=said):
        rows_of(str(folder / "rows.tsv"), make_plan(PICTURE))


def test_an_ignored_column_a_nameless_one_and_the_same_of_another_step_are_no_second_ones(folder: Path) -> None:
    (folder / "rows.csv").write_text('prompt,1.prompt,author,,\n"a ""tall"" one",b,me,,\n\n"5"" nails"\n')
    plan = make_plan(PICTURE, ignored=["1.prompt", "author"])
    assert [row["prompt"] for row in asked(rows_of(str(folder / "rows.csv"), plan))] == ['a "tall" one', '5" nails']
    photo = samples.png(folder / "one.png")
    (folder / "rows.csv").write_text(f"image_url,prompt,duration,2.duration\n{photo},waves,5,10\n")
    (work,) = rows_of(
        str(folder / "rows.csv"), make_plan(KLING, chain=["wan-2.7/video-extend"], values={"2.resolution": "1080P"})
    )
    assert isinstance(work, Work)
    assert [step["duration"] for step in work.params] == ["5", "10"]


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.parquet"])
def test_a_cell_without_a_column_s_name_and_a_cell_of_white_space_are_not_paid_for(folder: Path, name: str) -> None:
    """Of several nameless columns only the last was looked at: "a mug,in red" was paid for as "a mug"."""
    rows = [("a mug", "in red", "", ""), ("  ", "", "", ""), ("a jug", "", "in blue", ""), ("a pot", " ", "", " \t ")]
    columns = ["prompt", "", "", "aspect_ratio"]
    if name.endswith("parquet"):
        arrays = [pyarrow.array(cells) for cells in zip(*rows, strict=True)]
        pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, names=columns), folder / name)
    else:
        with (folder / name).open("w", newline="") as file:
            csv.writer(file, delimiter="\t" if name.endswith("tsv") else ",").writerows([columns, *rows])
    first, third, good = rows_of(str(folder / name), make_plan(PICTURE))
    assert "a cell in column 2, which has no name" in why(first)
    assert "a cell in column 3, which has no name" in why(third)
    assert asked([good]) == [{"prompt": "a pot"}]
    (listed,) = rows_of([{"prompt": " \n"}], make_plan(PICTURE))
    assert "prompt is missing" in why(listed)


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.parquet"])
def test_a_line_of_empty_cells_is_no_row(folder: Path, name: str) -> None:
    """Spreadsheets write such lines below a table; with values for every row, each was paid for."""
    rows = [("1:1", ""), ("", " "), ("16:9", ""), ("", ""), ("", "")]
    if name.endswith("parquet"):
        arrays = [pyarrow.array([cell or None for cell in cells]) for cells in zip(*rows, strict=True)]
        pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, names=["aspect_ratio", ""]), folder / name)
    else:
        with (folder / name).open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if name.endswith("tsv") else ",")
            writer.writerows([("", ""), ("aspect_ratio", ""), *rows])
    found = rows_of(str(folder / name), make_plan(PICTURE, values={"prompt": "waves"}))
    assert asked(found) == [{"prompt": "waves", "aspect_ratio": ratio} for ratio in ("1:1", "16:9")]
    assert [row.number for row in found] == [1, 2]


def test_an_object_that_says_a_thing_twice_is_a_bad_row(folder: Path) -> None:
    lines = ['{"prompt": "a", "prompt": "b"}', '{"aspect_ratio": "1:1", "aspectRatio": "16:9"}', '{"prompt": "c"}']
    (folder / "rows.jsonl").write_text("\n".join(lines))
    twice, same, good = rows_of(str(folder / "rows.jsonl"), make_plan(PICTURE))
    assert "'prompt' twice" in why(twice)
    assert "both 'aspect_ratio' and 'aspectRatio'" in why(same)
    assert isinstance(good, Work)


def test_equal_rows_are_rows_of_their_own_and_have_the_same_ids_each_time() -> None:
    rows = [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}]
    ids = [work.id for work in rows_of(rows, make_plan(PICTURE)) if isinstance(work, Work)]
    assert len(set(ids)) == 3
    turned = [work.id for work in rows_of(rows[::-1], make_plan(PICTURE)) if isinstance(work, Work)]
    assert sorted(turned) == sorted(ids)


def test_a_chain_s_parameters_go_to_the_first_step_that_has_them_or_to_the_one_named(folder: Path) -> None:
    photo = str(samples.png(folder / "one.png"))
    for name in ("target_resolution", "2.targetResolution"):
        plan = make_plan(KLING, chain=[UPSCALER], values={name: "720p"})
        (work,) = rows_of([{"image_url": photo, "prompt": "waves"}], plan)
        assert isinstance(work, Work)
        assert work.params[1] == {"target_resolution": "720p"}
    with pytest.raises(InputError, match="does not accept image"):
        make_plan(PICTURE, chain=[UPSCALER])
    with pytest.raises(InputError, match="not a parameter"):
        make_plan(PICTURE, values={"nonsense": 1})


@pytest.mark.parametrize(
    ("steps", "values", "said"),
    [
        ([], {"prompt": "a", "1.prompt": "b"}, "values: it has both 'prompt' and '1.prompt', which are the same"),
        ([], {"aspect_ratio": "16:9", "aspectRatio": "9:16"}, "both 'aspect_ratio' and 'aspectRatio'"),
        (
            [{"target_resolution": "720p", "targetResolution": "4k"}],
            {},
            r"chain\[0\]: it has both 'target_resolution' and 'targetResolution'",
        ),
        ([{"target_resolution": "720p"}], {"2.target_resolution": "4k"}, "values: '2.target_resolution' .* chain"),
        ([{"target_resolution": "720p"}], {"targetResolution": "720p"}, "values: 'targetResolution' .* chain"),
    ],
)
def test_a_second_value_for_one_parameter_of_one_step_is_refused(
    steps: list[dict[str, Any]], values: dict[str, Any], said: str
) -> None:
    """The last one was paid for."""
    model, chain = (KLING, [{"model": UPSCALER, **step} for step in steps]) if steps else (PICTURE, [])
    with pytest.raises(InputError, match=f"{said}.*What to do"):
        make_plan(model, chain=chain, values=values)


def test_a_value_marked_as_a_file_is_one_for_parameters_that_take_files_only(folder: Path) -> None:
    photo = str(samples.png(folder / "one.png"))
    values = {"image_url": {"file": photo}, "prompt": "waves"}
    assert make_plan(KLING, values=values).values[0]["image_url"] == photo
    (text,) = rows_of([{"aspect_ratio": "1:1"}], make_plan(PICTURE, values={"prompt": {"file": photo}}))
    assert "prompt must be a string" in why(text)


# What becomes of them.

served = pytest.mark.usefixtures("prefect_server")


async def run(rows: Any, **options: Any) -> BatchReport:
    """A batch in a new flow run; its report, whether or not all is done."""
    options = {"model": PICTURE} | options
    try:
        report: BatchReport = await batch(rows, **options)
    except BatchIncomplete as error:
        report = error.report
        assert report.csv_uri in str(error)
    return report


def items(report: BatchReport) -> list[dict[str, Any]]:
    return list(json.loads(Path(report.json_uri).read_text())["rows"])


def states(report: BatchReport) -> list[str]:
    return [item["state"] for item in items(report)]


def prompts(*subjects: str) -> list[dict[str, str]]:
    return [{"prompt": subject} for subject in subjects]


FAILS, MODERATED, CORRECTED = "this one fails", "a forbidden thing", "a boat"
MIXED = prompts("a lighthouse", FAILS, "a harbour", MODERATED, "a gull", CORRECTED, "a tower")


@pytest.mark.prefect
@served
async def test_a_row_is_done_only_with_whole_files(rh: Emulator, folder: Path) -> None:
    """A damaged file and a success without files are not done, and the next run gets both at no cost."""
    damaged, empty = "a cut picture", "a picture that is late"
    rh.faults.add(Fault("download", prompt=damaged, kind="short"), Fault("query", prompt=empty, kind="no-results"))
    source = table_in(folder, prompts("a lighthouse", damaged, empty))
    began = await run(source)
    assert states(began) == ["done", "failed", "failed"]
    assert "damaged" in items(began)[1]["reason"]
    assert "no file and no text" in items(began)[2]["reason"]
    rh.faults.clear()
    assert states(await run(source)) == ["done"] * 3
    assert len(rh.recorder.submissions) == 3


@pytest.mark.prefect
@served
async def test_a_chain_stops_at_a_damaged_file(rh: Emulator, folder: Path) -> None:
    """The next, paid step is not begun with half a picture."""
    rh.faults.add(Fault("download", kind="short"))
    began = await run(table_in(folder, prompts("a lighthouse")), chain=[ENLARGER])
    assert states(began) == ["failed"]
    assert "damaged" in items(began)[0]["reason"]
    assert len(rh.recorder.submissions) == 1


@pytest.mark.prefect
@served
async def test_a_mixed_batch_accounts_for_every_row_and_run_again_pays_exactly_what_is_missing(
    rh: Emulator, folder: Path
) -> None:
    rh.faults.add(Fault("submit", prompt=FAILS, number=1, kind="fail", code="805"))
    source = table_in(folder, MIXED[:2])
    began = await run(source)
    assert states(began) == ["done", "failed"]
    assert "task" in items(began)[1]["reason"]

    # More rows, one of them bad, and money for two more: it is the same batch.
    bad = {"prompt": CORRECTED, "aspect_ratio": "nonsense"}
    table_in(folder, [bad if row["prompt"] == CORRECTED else row for row in MIXED])
    short = await run(source, budget=0.17)
    found = {MIXED[item["row"] - 1]["prompt"]: item for item in items(short)}
    assert (short.batch, len(found)) == (began.batch, 7)
    assert found[CORRECTED]["reason"].startswith("bad input: z-image/turbo: aspect_ratio must be one of")
    unpaid = [item for item in found.values() if item["state"] == "not started"]
    # The moderated one is refused, or finds the money set aside for others; what failed comes after what is new.
    assert (short.done, len(unpaid)) == (3, 2 - (found[MODERATED]["state"] == "failed"))
    assert found[FAILS]["reason"].startswith("task ")
    assert "not started" in found[FAILS]["reason"]
    assert all("budget of 0.17 CNY" in item["reason"] for item in unpaid)
    assert short.costs == Costs({"CNY": rh.recorder.charged}, unknown=1)
    assert rh.recorder.charged <= Decimal("0.17")

    # Money for all, and the bad row is corrected.
    table_in(folder, MIXED)
    whole = await run(source, budget=1.0)
    assert (whole.done, whole.failed) == (6, 1)
    assert "content check" in next(item["reason"] for item in items(whole) if item["state"] == "failed")
    paid = Counter(str(one.payload["prompt"]) for one in rh.recorder.paid)
    assert paid == Counter({row["prompt"]: 1 for row in MIXED if row["prompt"] != MODERATED} | {FAILS: 2})
    assert whole.costs == Costs({"CNY": rh.recorder.charged}, unknown=1)

    # And once more: nothing is left to do, but the moderated one is refused anew.
    submissions = len(rh.recorder.submissions)
    assert str(await run(source, budget=1.0)) == str(whole)
    assert [one.code for one in rh.recorder.submissions[submissions:]] == ["1501"]


@pytest.mark.prefect
@served
async def test_the_account_is_a_table_a_json_file_and_an_artifact(rh: Emulator) -> None:
    report = await run(prompts("a lighthouse", "a forbidden thing"))
    table = list(csv.DictReader(io.StringIO(Path(report.csv_uri).read_text())))
    assert [(row["row"], row["state"]) for row in table] == [("1", "done"), ("2", "failed")]
    assert [row["subject"] for row in table] == ["a lighthouse", "a forbidden thing"]
    assert Path(table[0]["output"]).is_file()
    assert Path(table[0]["record"]).is_file()
    assert table[0]["tasks"] == rh.recorder.paid[0].task_id
    assert table[0]["cost"] == "0.04"
    whole = json.loads(Path(report.json_uri).read_text())
    assert whole["batch"] in report.csv_uri
    assert whole["models"] == [PICTURE]
    async with get_client() as client:
        key, run_id = ArtifactFilterKey(any_=["batch-report"]), ArtifactFilterFlowRunId(any_=[UUID(whole["flow_run"])])
        (shown,) = await client.read_artifacts(artifact_filter=ArtifactFilter(key=key, flow_run_id=run_id))
    assert [row["state"] for row in json.loads(str(shown.data))] == ["failed", "done"]
    assert [row["subject"] for row in json.loads(str(shown.data))] == ["a forbidden thing", "a lighthouse"]
    assert "1 of 2 rows done, 1 failed" in str(shown.description)


@pytest.mark.prefect
@served
async def test_a_chain_pays_each_step_once_and_goes_on_at_the_step_that_failed(rh: Emulator, folder: Path) -> None:
    photo = str(samples.png(folder / "photo.png"))
    rows = [{"image_url": photo, "prompt": f"waves {n}", "name": f"clip {n}"} for n in range(4)]
    rh.faults.add(Fault("submit", endpoint=UPSCALER, number=2, kind="fail", code="805"))
    options: dict[str, Any] = {
        "model": KLING,
        "chain": [{"model": UPSCALER, "target_resolution": "720p"}],
        "values": {"sound": "false"},
        "label_column": "name",
    }
    report = await run(rows, **options)
    assert (report.done, report.failed) == (3, 1)
    assert "step 2 of 2" in next(item["reason"] for item in items(report) if item["state"] == "failed")
    assert len(rh.recorder.uploads) == 1 + 4, "the shared photo once, and each clip"
    again = await run(rows, **options)
    assert again.is_complete
    assert Counter(one.endpoint for one in rh.recorder.paid) == {"kling-v2.6-pro/image-to-video": 4, UPSCALER: 5}
    assert again.costs == Costs({"CNY": rh.recorder.charged}, unknown=1)
    assert all("clip " in Path(item["outputs"][0]).name for item in items(again))


@pytest.mark.prefect
@served
async def test_the_run_says_what_the_batch_has_done_and_cost(rh: Emulator) -> None:
    """The list of runs in the dashboard showed nothing but `Completed`."""
    state = await batch([{"prompt": "a lighthouse"}], PICTURE, return_state=True)
    assert state.message == "1 of 1 rows done; 0.04 CNY"
    assert (await state.aresult()).is_complete
    assert (await batch([{"prompt": "a lighthouse"}], PICTURE)).is_complete


@pytest.mark.prefect
@served
async def test_strict_stops_before_anything_is_paid(rh: Emulator, folder: Path) -> None:
    broken = folder / "broken.png"
    broken.write_bytes(b"no picture")
    rows = [{"image_url": str(samples.png(folder / "photo.png")), "prompt": "waves"}]
    for bad in ({"prompt": "no picture given"}, {"image_url": str(broken), "prompt": "waves"}):
        with pytest.raises(InputError, match="1 of 2 rows are invalid"):
            await batch([*rows, bad], model=KLING, strict=True)
    assert not rh.recorder.submissions
    report = await run([*rows, {"image_url": str(broken), "prompt": "waves"}], model=KLING)
    assert states(report) == ["done", "failed"]
    assert "bad input" in items(report)[1]["reason"]


@pytest.mark.prefect
@served
async def test_of_rows_that_are_all_bad_there_is_an_account_or_each_reason_once(rh: Emulator) -> None:
    rows = [{"prompt": f"a lighthouse {number}", "name": "light"} for number in range(14)]
    with pytest.raises(InputError) as caught:
        await batch([*rows, {"aspect_ratio": "16:9"}], model=PICTURE, strict=True)
    said = caught.value.message
    assert said.startswith("batch: 15 of 15 rows are invalid and `strict` is set, so nothing was paid.")
    assert "\nrows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 4 more: 'name' is not a parameter" in said
    assert "\nrow 15: z-image/turbo: prompt is missing." in said
    assert said.count("--ignore-columns") == 1
    report = await run([*rows, {"aspect_ratio": "16:9"}])
    assert states(report) == ["failed"] * 15
    assert not rh.recorder.submissions


@pytest.mark.prefect
@served
async def test_an_unknown_submit_is_named_and_never_paid_for_again(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", prompt="a harbour", number=1, kind="cut"))
    report = await run(prompts("a lighthouse", "a harbour"))
    assert states(report) == ["done", "unknown"]
    assert f"jobs adopt {items(report)[1]['jobs'][0]} TASK_ID" in items(report)[1]["reason"]
    assert states(await run(prompts("a lighthouse", "a harbour"))) == ["done", "unknown"]
    assert len(rh.recorder.submissions) == 2


@pytest.mark.prefect
@served
async def test_what_is_gone_from_the_store_is_brought_home_again_and_not_paid_for(rh: Emulator) -> None:
    report = await run(prompts("a lighthouse", "a harbour"))
    first, second = items(report)
    Path(first["outputs"][0]).unlink()
    Path(first["record"]).unlink()
    fetched = len(rh.recorder.downloads)
    assert (await run(prompts("a lighthouse", "a harbour"))).is_complete
    assert Path(first["outputs"][0]).is_file()
    assert len(rh.recorder.downloads) == fetched + 1, "and the other one is not even looked at"
    Path(report.json_uri).unlink()
    assert items(await run(prompts("a lighthouse", "a harbour")))[1] == second, "the report is not needed for it"
    assert len(rh.recorder.submissions) == 2


@pytest.mark.prefect
@served
async def test_a_batch_never_takes_its_own_outputs_for_rows(
    rh: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        samples.png(folder / f"{name}.png")
    monkeypatch.setenv("RH_STORAGE_URL", str(folder / "out"))
    for _ in range(2):
        report = await run(str(folder / "**" / "*.png"), model=ENLARGER)
        assert (report.done, report.total, len(rh.recorder.paid)) == (2, 2, 2)
        assert [item["subject"] for item in items(report)] == ["a.png", "b.png"]
    monkeypatch.setenv("RH_STORAGE_URL", str(folder))
    for _ in range(2):
        assert (await run(str(folder / "*.png"), model=ENLARGER)).is_complete
        assert len(rh.recorder.paid) == 4, "what a run writes is two folders further down"
    (made,) = {path.parent for path in (folder / "batch").rglob("*.png")}
    with pytest.raises(InputError, match="own outputs"):
        await batch(str(folder / "batch"), model=ENLARGER)
    for _ in range(2):
        report = await run(str(made), model=ENLARGER)
        assert (report.done, report.total, len(rh.recorder.paid)) == (2, 2, 6), "an earlier run's are as good as any"


@pytest.mark.prefect
@served
async def test_another_option_is_another_batch(rh: Emulator) -> None:
    one = await run(prompts("a lighthouse"))
    two = await run(prompts("a lighthouse"), values={"output_format": "jpeg"})
    assert one.batch != two.batch
    assert len(rh.recorder.paid) == 2


@flow
async def nightly(subjects: list[str]) -> str:
    report = await batch_in_a_flow(prompts(*subjects), model=PICTURE)
    return report.csv_uri


@pytest.mark.prefect
@served
async def test_a_batch_in_a_flow_of_ones_own_is_run_again_with_it_and_apart_from_it(rh: Emulator) -> None:
    run_id = str(await create(nightly, {"subjects": ["a lighthouse", "a lighthouse"]}))
    uri = await rerun(nightly, run_id)
    assert await rerun(nightly, run_id) == uri
    assert (await run(prompts("a lighthouse", "a lighthouse"))).is_complete
    assert len(rh.recorder.paid) == 2, "two equal rows, paid once each, whichever flow runs them"


@pytest.mark.prefect
@served
async def test_cancelling_a_later_run_cancels_in_the_journal_that_it_works_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Emulator(clock="real", factor=0, long_side=96, fps=6) as rh:  # its tasks run until they are cancelled
        for name, value in environment(rh, tmp_path).items():
            monkeypatch.setenv(name, value)
        rh.faults.add(Fault("submit", number=1, kind="code", code="416"))
        first = await run(prompts("a lighthouse"))
        assert first.failed == 1
        again = asyncio.create_task(run(prompts("a lighthouse")))
        assert await asyncio.to_thread(rh.recorder.wait, lambda recorder: len(recorder.paid) == 1)
        begun, later = (json.loads(path.read_text()) for path in sorted((tmp_path / "out").glob("batches/*/state/*")))
        assert later["scope"] == begun["scope"] == begun["flow_run"] != later["flow_run"]
        await LOOP.call(cancel_run(await recorded_scope(later["flow_run"]), by="a test"))
        assert states(await again) == ["cancelled"]
        assert rh.recorder.cancelled == [rh.recorder.paid[0].task_id]
        rh.clock.factor = 1000
        assert (await run(prompts("a lighthouse"))).is_complete, "another run is another wish"
    assert len(rh.recorder.paid) == 2


async def test_outside_of_a_flow_it_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="in a flow"):
        await batch_in_a_flow(prompts("a lighthouse"), model=PICTURE)
