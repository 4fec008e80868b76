"""Files, tables and answers that mean harm: S1 to S9 of the design, at the time when they are read."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.errors import InputError
from rh_prefect.pipelines import input_reader
from rh_prefect.pipelines.document import PipelineError
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import KnownWork, Plan
from rh_prefect.table_files import open_table
from tests.support.samples.pipeline_assets import photo
from tests.support.world.planned_works import Records

TABLE = """\
params: {rows: {type: table, columns: {title: string, photo: {type: image, optional: true}}}}
steps:
  each:
    foreach: $(params.rows)
    steps:
      big: {when: {exists: $(item.photo)}, edit: resize, with: {file: $(item.photo), width: 64, height: 64}}
      sign: {model: z-image/turbo, with: {prompt: $(item.title)}, save_as: signs/$(item.title).png}
"""


def table(folder: Path, *rows: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "rows.csv").write_text("\n".join(["title,photo", *rows]))
    return str(folder / "rows.csv")


async def plan_of(rows: Any, **more: Any) -> Plan:
    return await Pipeline.from_text(TABLE, name="f.yaml").plan(rows=rows, **more)


async def said(rows: Any, **more: Any) -> list[str]:
    return [problem.message for problem in (await plan_of(rows, **more)).problems]


# S1


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../secret.png", "file:///etc/passwd", "s3://other/x.png", "http://169.254.169.254/x"]
)
async def test_a_row_names_no_file_outside_of_its_table_s_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RH_ALLOW_PRIVATE_LINKS", "0")
    photo(tmp_path / "secret.png")
    [problem] = await said(table(tmp_path / "shop", f"mug,{name}"))
    assert "may not be read: a row may use only files below the folder of its table, or https links" in problem


async def test_a_link_out_of_the_folder_is_outside(tmp_path: Path) -> None:
    rows = table(tmp_path / "shop", "mug,link.png")
    (tmp_path / "shop" / "link.png").symlink_to(photo(tmp_path / "secret.png"))
    [problem] = await said(rows)
    assert "may not be read" in problem


async def test_a_further_folder_is_allowed_by_name(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    rows = table(tmp_path / "shop", f"mug,{photo(tmp_path / 'assets' / 'mug.png')}")
    assert await said(rows, allow=[str(tmp_path / "assets")]) == []


# S2


@pytest.mark.parametrize("title", ["a/b", "..", "../../works/x", "a\\b"])
async def test_a_row_s_text_is_one_part_of_a_name(title: str) -> None:
    [problem] = await said([{"title": title}])
    assert "in save_as it must be one part of a name, without / and .." in problem


async def test_a_row_s_text_is_no_folder_of_the_records() -> None:
    text = TABLE.replace("signs/$(item.title).png", "$(item.title)/a.png")
    plan = await Pipeline.from_text(text, name="f.yaml").plan(rows=[{"title": "works"}, {"title": "signs"}])
    [problem] = plan.problems
    assert "works/ is a folder of this package's own records" in problem.message


# What a model answers


ANSWERED = """\
steps:
  list:
    model: rhart-text-g-3-flash-preview/text-to-text
    with: {prompt: Three titles as JSON}
    parse: {list: {title: string}, at_most: 3}
  each:
    foreach: $(list)
    id: $(item.title)
    steps:
      sign: {model: z-image/turbo, with: {prompt: "$(number) $(item.title)"}, save_as: $(item.title)/a.png}
"""


async def answered(*titles: str) -> Plan:
    records, pipeline = Records(), Pipeline.from_text(ANSWERED, name="f.yaml")
    first = await pipeline.plan(known=records)
    assert first.problems == []
    answer = json.dumps([{"title": title} for title in titles])
    records.known[first.steps["list"][0].works[0].key] = KnownWork("=", texts=(answer,))
    return await pipeline.plan(known=records)


async def test_an_answer_s_text_is_one_part_of_a_name_outside_of_the_records() -> None:
    plan = await answered("a/../../b", "Works", "mug")
    said = [" ".join(one.problems) for one in plan.steps["each.sign"]]
    assert "it must be one part of a name" in said[0]
    assert "Works/ is a folder of this package's own records" in said[1]
    assert said[2] == ""


async def test_equal_items_of_an_answer_are_told_apart_and_never_share_a_name() -> None:
    plan = await answered("mug", "mug", "cup")
    assert [one.address for one in plan.steps["each.sign"]] == ["each[mug].sign", "each[mug-2].sign", "each[cup].sign"]
    said = [" ".join(one.problems) for one in plan.steps["each.sign"]]
    assert "are both saved as mug/a.png" in said[1]
    assert said[0] == said[2] == ""


# S4


def used(folder: Path, name: str) -> list[str]:
    (folder / "main.yaml").write_text(f"steps:\n  a: {{use: {name}}}\n")
    with pytest.raises(PipelineError) as caught:
        Pipeline.from_file(folder / "main.yaml")
    return [str(problem) for problem in caught.value.found]


def test_a_used_file_lies_below_the_file_s_folder(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (tmp_path / "other.yaml").write_text("steps: {a: {model: z-image/turbo, with: {prompt: x}}}")
    (folder / "link.yaml").symlink_to(tmp_path / "other.yaml")
    for name in ("./../other.yaml", "./link.yaml"):
        assert f"{name} lies outside of the folder of this file" in used(folder, name)[0]


@pytest.mark.parametrize("content", ["KEY=topsecret", "key: topsecret", "a: [topsecret", "topsecret: b: c"])
def test_what_is_not_a_pipeline_is_not_shown(content: str, tmp_path: Path) -> None:
    (tmp_path / "env.yaml").write_text(content)
    [problem] = used(tmp_path, "./env.yaml")
    assert "./env.yaml is not a pipeline" in problem
    assert "topsecret" not in problem


def test_a_file_of_another_kind_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KEY=topsecret")
    assert "use takes ./file.yaml or rh:name" in used(tmp_path, "./.env")[0]
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "there is no file ./pipe.yaml" in used(tmp_path, "./pipe.yaml")[0]


def test_a_file_that_uses_itself_ends(tmp_path: Path) -> None:
    assert "files are used by files 2 deep at most" in used(tmp_path, "./main.yaml")[0]


def test_a_graph_is_a_graph_below_the_folder(tmp_path: Path) -> None:
    (tmp_path / "g.json").write_text(json.dumps({"1": {"class_type": "Load", "inputs": {"a": 1}}}))
    (tmp_path / "bad.json").write_text("[1]")
    text = "steps:\n  a: {{graph: ./{}, with: {{1.a: 2}}, assume: {{kind: image, price: 0.1}}}}\n"
    (tmp_path / "main.yaml").write_text(text.format("g.json"))
    Pipeline.from_file(tmp_path / "main.yaml")
    (tmp_path / "main.yaml").write_text(text.format("bad.json"))
    with pytest.raises(PipelineError, match="is not a graph in API format"):
        Pipeline.from_file(tmp_path / "main.yaml")


async def test_control_characters_and_markup_are_text_in_all_views() -> None:
    plan = await plan_of([{"title": 'x\x1b[31m"] --> y; <script>'}])
    for view in (plan.table(), plan.tree(), plan.mermaid()):
        assert "\x1b" not in view
        assert "<script>" not in view


async def test_markup_in_a_name_is_no_part_of_a_graph() -> None:
    name = 'x"] --> y; %%{init: {}}%% <b>`&lt;#34;`'
    text = "params: {name: string}\nsteps:\n  a: {model: $(params.name), with: {prompt: x}}\n"
    graph = (await Pipeline.from_text(text).plan(name=name)).mermaid()
    [box] = graph.splitlines()[1:]
    inside = re.sub(r"#\d+;|<br/>", "", box.strip().removeprefix('n0["').removesuffix('"]'))
    assert not set(inside) & set('"<>#;%{}[]`&|\\')


async def test_a_signature_and_a_password_are_not_in_a_plan(tmp_path: Path) -> None:
    text = "params: {a: {type: string}}\nsteps: {s: {edit: join_text, with: {texts: [$(params.a)]}}}\n"
    link = "https://user:pa55@host/x.png?X-Amz-Signature=5ecret&X-Amz-Credential=a"
    plan = await Pipeline.from_text(text).plan(a=link)
    assert "pa55" not in json.dumps(plan.as_json()["params"])
    assert "5ecret" not in json.dumps(plan.as_json()["params"])


# S8


async def test_a_reference_in_an_answer_or_a_row_is_text() -> None:
    plan = await plan_of([{"title": "$(params.rows)"}])
    assert plan.steps["each.sign"][0].request == {"prompt": "$(params.rows)"}
    records, film = Records(), Pipeline.shipped("film")
    first = await film.plan(known=records, idea="$(run.id)")
    assert first.steps["script"][0].request["prompt"].startswith("Write 6 shots of a film about: $(run.id)")
    answer = json.dumps([{"picture": "$(params.idea)", "move": "m", "line": "l"}])
    records.known[first.steps["script"][0].works[0].key] = KnownWork("=", texts=(answer,))
    plan = await film.plan(known=records, idea="$(run.id)")
    assert plan.steps["shots.picture"][0].request["prompt"] == "$(params.idea)"


async def test_what_reads_like_a_reference_and_is_a_literal_is_text() -> None:
    text = 'steps: {a: {model: z-image/turbo, with: {prompt: "the text $$(run.id)"}}}'
    plan = await Pipeline.from_text(text).plan()
    assert plan.steps["a"][0].request == {"prompt": "the text $(run.id)"}


# S9


async def test_rows_are_counted_while_they_are_read(tmp_path: Path) -> None:
    [problem] = await said(table(tmp_path, *(["a,"] * (input_reader.MOST_ROWS + 1))))
    assert "rows.csv has more than 50000 rows" in problem


def test_a_table_is_read_up_to_its_limit(tmp_path: Path) -> None:
    place = table(tmp_path, *(["a" * 1000 + ","] * 2000))
    with pytest.raises(InputError, match="has more than 1 MiB"):
        list(open_table(place, "csv", most_bytes=1024 * 1024).rows())


def test_files_under_a_prefix_are_counted(tmp_path: Path) -> None:
    for number in range(3):
        photo(tmp_path / f"{number}.png")
    with pytest.raises(InputError, match="more than 2 files"):
        input_reader.list_files(str(tmp_path), "image", {}, most=2)


async def test_a_run_has_a_most_of_paid_jobs() -> None:
    plan = await plan_of([{"title": f"t{n}"} for n in range(8001)])
    assert [problem.message for problem in plan.problems] == ["a run has at most 8000 paid jobs"]
