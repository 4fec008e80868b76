"""Files, tables and answers that mean harm: S1 to S9 of the design, at the time when they are read."""

from __future__ import annotations

import hashlib
import json
import os
import time
import tracemalloc
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest

from rh_prefect import catalog
from rh_prefect.errors import InputError, StoreError
from rh_prefect.media.input_access_policy import current_access
from rh_prefect.pipelines import input_reader
from rh_prefect.pipelines.call_builder import request_of
from rh_prefect.pipelines.edit_rendering import render
from rh_prefect.pipelines.file_model import ModelStep, Parse
from rh_prefect.pipelines.parsed_answers import InvalidAnswerError, read_answer
from rh_prefect.pipelines.parsed_document import PipelineError
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.table_files import read_table
from tests.support.samples.pipeline_assets import photo
from tests.support.samples.steps import ANSWER, PICTURE, RESIZE, group, of_rows, rows, steps
from tests.support.servers.unreadable_folders import unreadable
from tests.support.world.planned_works import Records, plan_of, problems_of

TABLE = of_rows(
    "title: string, photo: {type: image, optional: true}",
    big="when: {exists: $(item.photo)}, " + RESIZE % "$(item.photo)",
    sign=PICTURE % "$(item.title)" + ", save_as: signs/$(item.title).png",
)
KLING = "kling-v2.6-pro-image-to-video"


def table(folder: Path, *lines: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "rows.csv").write_text("\n".join(["title,photo", *lines]))
    return str(folder / "rows.csv")


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../secret.png", "link.png", "file:///etc/passwd", "s3://other/x.png", "http://169.254.169.254/x"],
)
async def test_a_row_names_no_file_outside_of_its_table_s_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RH_ALLOW_PRIVATE_LINKS", "0")
    place = table(tmp_path / "shop", f"mug,{name}")
    (tmp_path / "shop" / "link.png").symlink_to(photo(tmp_path / "secret.png"))
    [problem] = await problems_of(TABLE, rows=place)
    assert "is not allowed: a row may use only https links, and files below the folder of its table" in problem


async def test_a_file_with_its_facts_in_a_row_is_a_file_of_a_row(tmp_path: Path) -> None:
    """JSON lines may give a file with its hash and its facts, which says nothing about where it may lie."""
    secret = Path(photo(tmp_path / "secret.png"))
    facts = {"kind": "image", "mime": "image/png", "size": secret.stat().st_size}
    facts["sha256"] = hashlib.sha256(secret.read_bytes()).hexdigest()
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "rows.jsonl").write_text(json.dumps({"title": "mug", "photo": {"uri": str(secret), **facts}}))
    [problem] = await problems_of(TABLE, rows=str(tmp_path / "shop" / "rows.jsonl"))
    assert "is not allowed: a row may use only https links" in problem


async def test_a_plan_reads_the_tables_of_a_restricted_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RH_RESTRICT_INPUTS", "true")
    place = table(tmp_path / "shop", "mug,mug.png")
    photo(tmp_path / "shop" / "mug.png")
    await plan_of(TABLE, rows=place)
    for forbidden in (photo(tmp_path / "secret.png"), place):
        with pytest.raises(InputError, match="is not allowed here"):
            current_access().check(forbidden)


async def test_a_further_folder_is_allowed_by_name(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    place = table(tmp_path / "shop", f"mug,{photo(tmp_path / 'assets' / 'mug.png')}")
    await plan_of(TABLE, rows=place, inputs=input_reader.Inputs([str(tmp_path / "assets")]))


# What a model answers


async def answered(*titles: str) -> Plan:
    sign = PICTURE % '"$(number) $(item.title)"' + ", save_as: $(item.title)/a.png"
    text = steps(
        list=ANSWER % "Three titles as JSON" + ", parse: {list: {title: string}, at_most: 3}",
        each=group("foreach: $(list), id: $(item.title)", sign=sign),
    )
    records = Records()
    first = await plan_of(text)
    records.answer(first.steps["list"][0], texts=(json.dumps(rows(*titles)),))
    return await Pipeline.from_text(text).plan(known=records)


async def test_an_answer_s_text_is_one_part_of_a_name_outside_of_the_records() -> None:
    plan = await answered("a/../../b", "Works", "mug")
    said = [" ".join(one.problems) for one in plan.steps["each.sign"]]
    assert "it must be one part of a name" in said[0]
    assert "Works/ is a folder for this package's own records" in said[1]
    assert said[2] == ""


async def test_equal_items_of_an_answer_are_told_apart_and_never_share_a_name() -> None:
    plan = await answered("mug", "mug", "cup")
    assert [one.address for one in plan.steps["each.sign"]] == ["each[mug].sign", "each[mug-2].sign", "each[cup].sign"]
    assert plan.planner is not None
    clashes = plan.planner.clashes
    said = [" ".join(problem for problem, _ in clashes.problems_of(one)) for one in plan.steps["each.sign"]]
    assert "are both saved as mug/a.png" in said[1]
    assert said[0] == said[2] == ""


# S4


@pytest.mark.parametrize(
    "answer",
    [
        "```json\n" + "\n" * 2000,
        "```json" + "\n" * 2000 + "x",
        "```json\n{" + "\n" * 20_000,
        "[" * 100_000,
        "{" * 100_000,
    ],
    ids=["an open fence", "text in an open fence", "an object in an open fence", "lists", "objects"],
)
def test_an_answer_of_blanks_or_brackets_is_refused_at_once(answer: str) -> None:
    """All works of the process stood still meanwhile: the time grew with the cube of the length."""
    began = time.process_time()
    with pytest.raises(InvalidAnswerError, match="the answer is not JSON"):
        read_answer(answer, Parse.model_validate({"object": {"a": "string"}}))
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "answer", ["```json\n%s\n```", " ```\n\n%s```\n\n", "```JSON \r\n%s\r\n \r\n```\r\n", "%s"], ids=repr
)
def test_an_answer_is_read_with_and_without_a_fence(answer: str) -> None:
    assert read_answer(answer % '{"a": "```"}', Parse.model_validate({"object": {"a": "string"}})) == {"a": "```"}


def used(folder: Path, name: str) -> str:
    """What is said of a file that uses another one."""
    (folder / "main.yaml").write_text(steps(a=f"use: {name}"))
    with pytest.raises(PipelineError) as caught:
        Pipeline.from_file(folder / "main.yaml")
    return str(caught.value.found[0])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./../other.yaml", "./../other.yaml is outside the folder of this file"),
        ("./link.yaml", "./link.yaml is outside the folder of this file"),
        ("./.env", "use takes ./file.yaml or rh:name"),
        ("./pipe.yaml", "there is no file ./pipe.yaml"),
        ("./main.yaml", "files may use other files at most 2 levels deep"),
    ],
)
def test_a_used_file_is_a_pipeline_below_the_folder_of_the_file(name: str, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (tmp_path / "other.yaml").write_text(steps(a=PICTURE % "x"))
    (folder / "link.yaml").symlink_to(tmp_path / "other.yaml")
    (folder / ".env").write_text("KEY=topsecret")
    os.mkfifo(folder / "pipe.yaml")
    assert said in used(folder, name)


@pytest.mark.parametrize("content", ["KEY=topsecret", "key: topsecret", "a: [topsecret", "topsecret: b: c"])
def test_what_is_not_a_pipeline_is_not_shown(content: str, tmp_path: Path) -> None:
    (tmp_path / "env.yaml").write_text(content)
    problem = used(tmp_path, "./env.yaml")
    assert "./env.yaml is not a pipeline" in problem
    assert "topsecret" not in problem


def test_a_graph_is_a_graph_below_the_folder(tmp_path: Path) -> None:
    def read(content: object) -> None:
        (tmp_path / "g.json").write_text(json.dumps(content))
        Pipeline.from_file(tmp_path / "main.yaml")

    a = "graph: ./g.json, with: {1.a: 2}, assume: {kind: image, price: 0.1}"
    (tmp_path / "main.yaml").write_text(steps(a=a))
    read({"1": {"class_type": "Load", "inputs": {"a": 1}}})
    with pytest.raises(PipelineError, match="is not a graph in API format"):
        read([1])


async def test_control_characters_and_markup_are_text_in_all_views() -> None:
    plan = await Pipeline.from_text(TABLE).plan(rows=rows('x\x1b[31m"] --> y; <script>'))
    for view in (plan.table(), plan.table(60), plan.markdown(), plan.svg()):
        assert "\x1b" not in view
        assert "<script>" not in view


async def test_markup_in_a_name_is_text_in_a_picture() -> None:
    name = 'x"]]> --> & <b onload="x">`&lt;`'
    text = "params: {name: string}\n" + steps(a="model: $(params.name), with: {prompt: x}")
    picture = fromstring((await Pipeline.from_text(text).plan(name=name)).svg())
    assert {one.tag.rpartition("}")[2] for one in picture.iter()} == {"svg", "rect", "text"}
    assert name in [one.text for one in picture.iter()]


async def test_a_signature_and_a_password_are_not_in_a_plan() -> None:
    text = "params: {a: {type: string}}\n" + steps(s="edit: join_text, with: {texts: [$(params.a)]}")
    plan = await plan_of(text, a="https://user:pa55@host/x.png?X-Amz-Signature=5ecret&X-Amz-Credential=a")
    shown = json.dumps(plan.as_json()["params"])
    assert "pa55" not in shown
    assert "5ecret" not in shown


# S8


async def test_a_reference_in_an_answer_or_a_row_is_text() -> None:
    plan = await Pipeline.from_text(TABLE).plan(rows=rows("$(params.rows)"))
    assert plan.steps["each.sign"][0].request == {"prompt": "$(params.rows)"}
    assert (await answered("$(run.id)")).steps["each.sign"][0].request == {"prompt": "1 $(run.id)"}


async def test_what_reads_like_a_reference_and_is_a_literal_is_text() -> None:
    plan = await plan_of(steps(a=PICTURE % '"the text $$(run.id)"'))
    assert plan.steps["a"][0].request == {"prompt": "the text $(run.id)"}


# S9


async def test_rows_are_counted_while_they_are_read(tmp_path: Path) -> None:
    [problem] = await problems_of(TABLE, rows=table(tmp_path, *(["a,"] * (input_reader.MOST_ROWS + 1))))
    assert "rows.csv has more than the 50000 rows allowed" in problem


def test_a_table_is_read_up_to_its_limit(tmp_path: Path) -> None:
    place = table(tmp_path, *(["a" * 1000 + ","] * 2000))
    with pytest.raises(InputError, match="is larger than 1 MiB"):
        list(read_table(place, "csv", most_bytes=1024 * 1024))


def test_files_under_a_prefix_are_counted(tmp_path: Path) -> None:
    for number in range(3):
        photo(tmp_path / f"{number}.png")
    with pytest.raises(InputError, match="more than 2 files"):
        input_reader.list_files(str(tmp_path), "image", {}, most=2)


def test_a_folder_lists_each_type_that_a_model_takes_once(tmp_path: Path) -> None:
    taken = {(param.type, end) for model in catalog.models() for param in model.file_params for end in param.accept}
    for end in {"ogg", *(end for _, end in taken)}:
        (tmp_path / f"a.{end}").touch()
    listed = {kind: input_reader.list_files(str(tmp_path), kind, {}) for kind in ("image", "video", "audio")}
    found = {(kind, file.rpartition(".")[2]) for kind, files in listed.items() for file in files}
    assert found == {("audio", "ogg"), *taken}


def test_the_error_of_a_prefix_that_cannot_be_listed_names_the_prefix() -> None:
    with pytest.raises(StoreError, match=r"^Could not list the files in s3://bucket:x/photos: "):
        input_reader.list_files("s3://bucket:x/photos", "image", {})


@pytest.mark.parametrize("pattern", ["", "/*/*.png", "/**/1.png", "/unreadable"])
def test_a_folder_with_a_part_that_cannot_be_listed_is_not_read_as_fewer_files(tmp_path: Path, pattern: str) -> None:
    for folder in ("readable", "unreadable"):
        (tmp_path / folder).mkdir()
        photo(tmp_path / folder / "1.png")
    place = unreadable(tmp_path)
    with pytest.raises(StoreError, match=r"Could not list the files in .*: the disk or the service reported an error"):
        input_reader.list_files(f"{place}{pattern}", "image", {})
    for readable in ("/readable", "/readable/*", "/readable/[0-9].png"):
        assert input_reader.list_files(f"{place}{readable}", "image", {}) == [f"{place}/readable/1.png"]
    assert input_reader.list_files(f"{place}/*.png", "image", {}) == []


def test_a_folder_of_the_disk_itself_does_not_refuse_the_files_beside_it(tmp_path: Path) -> None:
    """The root of a volume has a folder that only its administrator can list."""
    (tmp_path / "lost+found").mkdir()
    photo(tmp_path / "1.png")
    place = unreadable(tmp_path)
    assert input_reader.list_files(place, "image", {}) == [f"{place}/1.png"]


async def test_the_paid_jobs_of_all_steps_are_counted() -> None:
    text = TABLE + "      again: {model: z-image/turbo, takes: 5, with: {prompt: 'again $(item.title)'}}\n"
    [problem] = await problems_of(text, rows=rows(*(f"t{n}" for n in range(33_334))))
    assert problem.startswith("with each.again, the run would have more than the 200000 paid jobs allowed;")


def each(items: str, **inner: str) -> str:
    """A file with a fan-out over items."""
    return steps(each=group(items, **inner))


MANY = 1_000_000
HUNDREDS, THOUSANDS = list(range(300)), list(range(2000))
CUBE = f"{{x: {HUNDREDS}, y: {HUNDREDS}, z: {HUNDREDS[:30]}}}"
JOIN = "edit: join_text, with: {texts: [%s]}"
N = "params: {n: integer}\n"
LIST = ANSWER % "x" + ", parse: {list: {line: string}, at_most: $(params.n)}"
CHAIN = {"a": JOIN % "$(matrix.x)"} | {name: JOIN % f"$({of})" for name, of in zip("bcde", "abcd")}
TOO_LARGE = {
    "takes of a form": (
        N + steps(a=PICTURE % "x" + ", takes: $(params.n)"),
        "takes must be at most 8000, but $(params.n) is 1000000; use a smaller number",
    ),
    "takes": (
        steps(a=PICTURE % "x" + f", takes: {MANY}"),
        "takes must be at most 8000, but this is 1000000; use a smaller number",
    ),
    "takes of items": (
        each("matrix: {x: [1, 2, 3, 4, 5, 6], y: [1, 2, 3, 4, 5]}", a=PICTURE % "no. $(matrix.x)" + ", takes: 8000"),
        "with each.a, the run would have more than the 200000 paid jobs allowed; select",
    ),
    "items of an answer": (
        N + steps(script=LIST, each=group("foreach: $(script)", a=JOIN % "$(item.line)")),
        "at_most must be at most 8000, but $(params.n) is 1000000; use a smaller number",
    ),
    "a matrix": (
        each(f"matrix: {CUBE}, where: {{equals: [$(matrix.x), 1]}}, limit: 5", a=PICTURE % "no. $(matrix.x)"),
        "before `where` and `limit`, each has 2700000 items, but at most 400000 are allowed;",
    ),
    "groups in groups": (
        each(f"foreach: {THOUSANDS}, as: one", inner=group(f"foreach: {THOUSANDS}", a=JOIN % "$(one)")),
        "before `where` and `limit`, each.inner has 402000 items, but at most 400000 are allowed",
    ),
    "steps of items": (
        each(f"matrix: {{x: {HUNDREDS}, y: {HUNDREDS}}}, limit: 90000", **CHAIN),
        "each has 90000 items with 450000 steps; the items of a plan can have at most 400000 steps in total; select",
    ),
}


@pytest.mark.parametrize("name", TOO_LARGE)
async def test_a_plan_is_counted_before_it_is_expanded(name: str) -> None:
    text, message = TOO_LARGE[name]
    pipeline = Pipeline.from_text(text)
    tracemalloc.start()
    try:
        [problem] = await problems_of(pipeline, {"n": MANY} if "$(params.n)" in text else {})
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert problem.startswith(message)
    assert most < 100e6


# A text that names a file of this machine: whichever way it takes through a pipeline, it stays a text.

PRIVATE = "private.png"
LOGO = "params: {logo: {type: image}, title: string, rows: {type: table, columns: {title: string}}}\n"
SHEET = "edit: contact_sheet, with: {of: %s}"
STILL = "edit: still, with: {image: %s, seconds: 1}"
MOVE = f"model: {KLING}, with: {{prompt: x, duration: 5, sound: false%s}}"
BOTH = "[$(params.logo), $(params.title)]"
BESIDE = SHEET % "[$(params.logo), %s]"
SAID = "use: ./said.yaml, with: {title: $(params.title)}"
ATTACKS = {
    "a cell beside a picture": each("foreach: $(params.rows)", s=BESIDE % "$(item.title)"),
    "a cell alone": each("foreach: $(params.rows)", s=SHEET % "[$(item.title)]"),
    "a cell as the one file": each("foreach: $(params.rows)", s=STILL % "$(item.title)"),
    "all cells of a column": steps(s=SHEET % "$(params.rows.title)"),
    "an item of several kinds": each(f"foreach: {BOTH}", s=STILL % "$(item)"),
    "an item of several kinds for a model": each(f"foreach: {BOTH}", s=MOVE % "" + ", from: $(item)"),
    "a value of a matrix": each(f"matrix: {{of: {BOTH}}}", s=SHEET % "$(matrix.of)"),
    "a field of an item": each("foreach: [{of: $(params.logo)}, {of: $(params.title)}]", s=SHEET % "$(item.of)"),
    "a list in a field": each(f"foreach: [{{of: {BOTH}}}]", s=SHEET % "$(item.of)"),
    "a choice of or": steps(s=SHEET % "$(params.rows.title or params.title)"),
    "a model's answer": steps(t=ANSWER % "x", s=BESIDE % "$(t)"),
    "a model's answer, parsed": steps(t=ANSWER % "x" + ", parse: {object: {of: string}}", s=BESIDE % "$(t.of)"),
    "the items of an answer": steps(t=ANSWER % "x" + ", parse: {list: {of: string}, at_most: 3}", s=BESIDE % "$(t.of)"),
    "a joined text": steps(t=JOIN % "$(params.title)", s=BESIDE % "$(t)"),
    "the address of a file": steps(s=SHEET % "[$(params.logo.uri)]"),
    "a review of a text": steps(t="review: $(params.title)", s=BESIDE % "$(t)"),
    "the item before, of a used file": each(
        "foreach: [1, 2]", use=SAID, s=BESIDE % "$(previous.use.said or params.logo)"
    ),
    "the item before, for a model": each(
        "foreach: [1, 2]", use=SAID, s=MOVE % "" + ", from: $(previous.use.said or params.logo), same: true"
    ),
    "the item before, as a parameter": each(
        "foreach: [1, 2]", use=SAID, s="use: ./shows.yaml, with: {photo: $(previous.use.said or params.logo)}"
    ),
    "a used file's picture": steps(s="use: ./shows.yaml, with: {photo: $(params.title)}"),
    "a used file's pictures": steps(s=f"use: ./sheet.yaml, with: {{photos: {BOTH}}}"),
    "a used file's rows": steps(s="use: ./rows.yaml, with: {rows: [{photo: $(params.title)}]}"),
    "a used file's output": steps(u=SAID, s=BESIDE % "$(u.said)"),
    "a logo": steps(s="edit: watermark, with: {file: $(params.logo), logo: $(params.title)}"),
    "a parameter of a model": steps(s=MOVE % ", image_url: $(params.title)"),
    "from": steps(s=MOVE % "" + ", from: $(params.title)"),
    "from, beside a picture": steps(s=MOVE % "" + f", from: {BOTH}"),
    "a parameter of any model": steps(
        s="model: $(params.title), with: {image_url: $(params.title), prompt: x, duration: 5, sound: false}"
    ),
    "the mark of a file": steps(
        s="model: $(params.title), with: {image_url: {file: $(params.title)}, prompt: x, duration: 5}"
    ),
    "from, for any model": steps(
        s="model: $(params.title), from: $(params.title), with: {prompt: x, duration: 5, sound: false}"
    ),
    "a node of a graph": steps(
        s="graph: ./graph.json, with: {1.image: {file: $(params.title)}}, assume: {kind: image, price: 0.1}"
    ),
    "the name of a saved file": steps(s=SHEET % "[$(params.logo)]" + ", save_as: $(params.logo)"),
    "an unchecked parameter": steps(s=MOVE % ", unchecked: {image_url: $(params.title)}"),
    "an unchecked parameter by its other name": steps(s=MOVE % ", unchecked: {imageUrl: $(params.title)}"),
}
NO_FILE = (
    "a string is not read as a link to a file",
    "takes files of one kind, but $(item) can be an image or a string",
    "can be a list or a string; 'or' needs values of one kind",
    "can be a string or an image; 'or' needs values of one kind",
    "takes an image, but $(params.title) is a string",
    "takes a file, and",
    "takes a file of kind image, but this is a mapping",
    "image_url takes a file of kind image, but $(params.title) is a string",
    "takes no string for $(params.title)",
    "1.image takes one value, but several are given",
    "save_as takes a string, but $(params.logo) is an image",
)
USED = {
    "said": "params: {title: string}\n" + steps(t=JOIN % "$(params.title)") + "outputs: {said: $(t)}\n",
    "shows": "params: {photo: image}\n" + steps(s=SHEET % "$(params.photo)"),
    "sheet": "params: {photos: {type: files, of: image}}\n" + steps(s=SHEET % "$(params.photos)"),
    "rows": "params: {rows: {type: table, columns: {photo: image}}}\n" + steps(s=SHEET % "$(params.rows.photo)"),
}


async def refused_by(text: str, folder: Path, title: str) -> str:
    """What refuses a file whose texts name a private file: the check, the plan, or the plan that knows the answers."""
    (folder / "main.yaml").write_text(text)
    try:
        pipeline = Pipeline.from_file(folder / "main.yaml")
    except PipelineError as error:
        return str(error)
    records, params = Records(), {"logo": str(folder / "logo.png"), "title": title, "rows": [{"title": title}]}
    answers = (title, json.dumps({"of": title}), json.dumps([{"of": title}]))
    for _ in range(4):
        plan = await pipeline.plan(params, known=records)
        wrong = [str(one) for one in plan.problems]
        wrong += [clause for path, steps in plan.steps.items() if path.endswith("s") for clause in steps[-1].problems]
        if wrong:
            return wrong[0]
        for one in plan.instances:
            for work in one.works:
                if work.is_settled and work.state == "+":
                    assert not one.path.endswith("s"), f"{one.address} would be made of {title}"
                    text = answers["object" in one.shape] if "list" not in one.shape else answers[2]
                    records.answer(one, texts=(text,))
    return ""


@pytest.mark.parametrize("is_restricted", [True, False])
async def test_a_text_is_never_opened_as_a_file(
    is_restricted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    monkeypatch.setenv("RH_RESTRICT_INPUTS", str(is_restricted).lower())
    monkeypatch.setenv("RH_INPUT_ROOTS", str(shop))
    private = photo(tmp_path / PRIVATE)
    photo(shop / "logo.png", 1)
    (shop / "graph.json").write_text(json.dumps({"1": {"class_type": "Load", "inputs": {"image": ""}}}))
    for name, used_text in USED.items():
        (shop / f"{name}.yaml").write_text(used_text)
    not_refused = []
    for name, text in ATTACKS.items():
        title = KLING if "any model" in name or "the mark" in name else private
        said = await refused_by(LOGO + text + "\n", shop, title)
        if not any(words in said for words in NO_FILE):
            not_refused.append(f"{name}: {said}")
    assert not_refused == []


@pytest.mark.parametrize("title", [PRIVATE, f"file://{PRIVATE}", "https://example.com/private.png"])
def test_an_edit_opens_paths_that_were_fetched_and_no_texts(title: str, tmp_path: Path) -> None:
    logo = Path(photo(tmp_path / "logo.png"))
    wrong: dict[str, dict[str, Any]] = {
        "contact_sheet": {"of": [logo, title]},
        "still": {"image": title, "seconds": 1},
        "watermark": {"file": logo, "logo": title},
        "join_text": {"texts": [title, logo]},
    }
    for name, params in wrong.items():
        with pytest.raises(InputError, match=f"of {name} takes (a|no) file"):
            render(name, params, tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == {"logo.png"}


IMAGE = "image_url"


@pytest.mark.parametrize(
    "given", [{IMAGE: "/etc/passwd"}, {"unchecked": {IMAGE: "/etc/passwd"}}, {"unchecked": {"imageUrl": "/etc/passwd"}}]
)
def test_a_paid_request_reads_files_and_no_texts(given: dict[str, Any]) -> None:
    step = ModelStep.model_validate({"model": KLING})
    instance = PlannedStep("clip", "", step, ("steps", "clip"), model=step.model)
    instance.values = {"prompt": "x", "duration": 5, "sound": False, **given}
    with pytest.raises(InputError, match="clip: image_url takes a file, not a string"):
        request_of(instance)


@pytest.mark.parametrize("name", ['"./a\\0b.{}"', f"./{'a' * 300}.{{}}", f"./{'a/' * 3000}b.{{}}"])
def test_a_name_that_no_file_can_have_is_a_problem_and_no_traceback(name: str, tmp_path: Path) -> None:
    assert "cannot be the name of a file" in used(tmp_path, name.format("yaml"))
    (tmp_path / "main.yaml").write_text(steps(a=f"graph: {name.format('json')}, assume: {{kind: image, price: 0.1}}"))
    with pytest.raises(PipelineError, match="cannot be the name of a file") as caught:
        Pipeline.from_file(tmp_path / "main.yaml")
    assert "\0" not in str(caught.value)
