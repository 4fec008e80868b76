"""Files, rows and answers that mean harm, in runs of pipelines: nothing is read, written or paid that must not be."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.emulator import Emulator
from rh_prefect.emulator.comfy.workflows import RESTYLE
from rh_prefect.flows.pipeline import Pipeline, pipeline_flow
from rh_prefect.pipelines.document import PipelineError
from tests.support.samples import media as samples
from tests.support.samples.steps import ANSWER, PICTURE, RESIZE, of_rows, steps
from tests.support.world.pipeline_flows import in_flow_run, run, states

SIGNS = of_rows(
    "title: string, photo: {type: image, optional: true}",
    big="when: {exists: $(item.photo)}, " + RESIZE % "$(item.photo)",
    sign=PICTURE % "$(item.title)" + ", save_as: signs/$(item.title).png",
)


def answer(words: str, sign: str = "signs/$(words).png") -> str:
    """A file in which a model repeats words, and a step is saved under a name with them."""
    return steps(
        words=ANSWER % f"""'One title, the words only: "{words}"'""" + ", parse: {text: {max: 300}}",
        sign=PICTURE % "$(words)" + f", save_as: {sign}",
        free=PICTURE % '"Free, $(words)"' + ", save_as: free.png",
    )


async def refused(rows: Any) -> str:
    """What a run says that is refused as a whole."""
    state = await pipeline_flow(Pipeline.from_text(SIGNS))(rows=rows, budget=5, return_state=True)
    with pytest.raises(PipelineError) as caught:
        await state.aresult()
    return str(caught.value)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@in_flow_run
async def test_a_run_with_hostile_rows_pays_nothing_and_writes_nothing(rh: Emulator, tmp_path: Path) -> None:
    """Files outside of the table's folder, symbolic links out of it, and names with .. or of our records."""
    shop = tmp_path / "shop"
    shop.mkdir()
    secret = samples.png(tmp_path.parent / f"{tmp_path.name}-secret.png")
    (shop / "link.png").symlink_to(secret)
    for photo in (str(secret), f"../../{secret.name}", "link.png", "/etc/passwd"):
        with (shop / "rows.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("title", "photo"), ("mug", photo)])
        assert "may not be read" in await refused(str(shop / "rows.csv"))
    for title in ("../../x", "a/b", ".."):
        assert "one part of a name" in await refused([{"title": title}])
    secret.unlink()
    assert rh.recorder.submissions == []
    assert rh.recorder.uploads == []
    assert not {name for name in files(tmp_path / "out") if name.startswith(("signs", "works"))}


async def test_an_answer_names_no_file_of_ours(rh: Emulator, tmp_path: Path) -> None:
    """In the middle of a run: the step whose name an answer spoils is not paid for, and the others are made."""
    state, result = await run(answer("../../works/mug"), budget=5)
    assert state.is_failed()
    assert "in save_as it must be one part of a name" in (state.message or "")
    assert states(result) == {"words": "made", "sign": "failed", "free": "made"}
    assert len(rh.recorder.paid) == 2
    pictures = {name for name in files(tmp_path) if name.endswith((".png", ".jpg"))}
    assert {name for name in pictures if not name.startswith(("out/pipelines/", "out/gallery/"))} == {"out/free.png"}


async def test_a_reference_and_a_link_in_an_answer_are_text(rh: Emulator, tmp_path: Path) -> None:
    """Text never becomes a file, and is not evaluated."""
    secret = samples.png(tmp_path / "secret.png")
    words = f"$$(run.id) file://{secret}"  # $$ is a literal $
    state, _ = await run(answer(words, sign="sign.png"), budget=5)
    assert state.is_completed(), state.message
    assert all("$(run.id) file://" in str(one.payload["prompt"]) for one in rh.recorder.paid[1:])
    assert rh.recorder.uploads == []


NODE = "with: {10.image: $(params.name)}, assume: {kind: image, price: 0.1}"
NODES = "params: {name: string}\n" + steps(
    flow=f"workflow: 2030000000000000002, {NODE}",
    app=f"app: 2030000000000000101, {NODE}",
    graph=f"graph: ./graph.json, {NODE}",
)


@pytest.mark.parametrize("is_link", [False, True])
async def test_a_text_for_the_file_of_a_node_is_a_name_at_runninghub(
    rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_link: bool
) -> None:
    """Of a path, the file was uploaded, and its result counted for every other file at that path."""
    secret = samples.png(tmp_path / "secret.png")
    (tmp_path / "graph.json").write_text(json.dumps(RESTYLE))
    (tmp_path / "nodes.yaml").write_text(NODES)
    monkeypatch.chdir(tmp_path)
    nodes, name = Pipeline.from_file(tmp_path / "nodes.yaml"), secret.as_uri() if is_link else "secret.png"
    if is_link:
        with pytest.raises(PipelineError, match="a text is not read as a link to a file"):
            await run(nodes, name=name, budget=5)
        assert rh.recorder.submissions == []
    else:
        state, _ = await run(nodes, name=name, budget=5)
        assert state.is_failed()  # RunningHub has no file of this name
        values: list[Any] = [one.payload["nodeInfoList"] for one in rh.recorder.paid if "nodeInfoList" in one.payload]
        assert [one["fieldValue"] for nodes in values for one in nodes] == ["secret.png"] * 2
    assert rh.recorder.uploads == []


async def test_a_file_that_no_pipeline_has_saved_is_not_replaced(rh: Emulator, tmp_path: Path) -> None:
    """The step fails, and its paid result is kept."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "free.png").write_bytes(b"of somebody else")
    state, result = await run(answer("mug"), budget=5)
    assert state.is_failed()
    assert "free.png exists, and no pipeline has saved it" in (state.message or "")
    assert (tmp_path / "out" / "free.png").read_bytes() == b"of somebody else"
    (tmp_path / "out" / "free.png").unlink()
    state, result = await run(answer("mug"), budget=5)
    assert state.is_completed(), state.message
    assert (len(rh.recorder.paid), result.new) == (3, 0)


@in_flow_run
async def test_a_key_where_a_block_s_name_belongs_is_not_used(rh: Emulator) -> None:
    """A key, or an address, in `credentials` or `storage`: refused before anything is asked for, and not repeated."""
    mug = steps(a=PICTURE % "a mug")
    for key, value in (("credentials", rh.key), ("storage", "s3://user:pa55@bucket/a")):
        with pytest.raises(PipelineError) as caught:
            Pipeline.from_text(f"{key}: {value}\n{mug}")
        assert value not in str(caught.value)
        flow: Any = pipeline_flow(Pipeline.from_text(mug))
        state = await flow(**{key: value}, return_state=True)
        assert state.is_failed()
        assert value not in str(state.message)
    Pipeline.from_text(f"credentials: {'a-long-name-of-a-block-' * 2}a\n{mug}")
    assert rh.recorder.requests == []
