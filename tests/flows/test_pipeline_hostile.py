"""Files, rows and answers that mean harm, in runs of pipelines: nothing is read, written or paid that must not be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.emulator import Emulator
from rh_prefect.emulator.comfy.workflows import RESTYLE
from rh_prefect.flows.pipeline import Pipeline
from rh_prefect.pipelines.parsed_document import PipelineError
from tests.support.samples import media as samples
from tests.support.samples.steps import ANSWER, PICTURE, steps
from tests.support.world.pipeline_flows import complete, run, states


def answer(words: str, sign: str = "signs/$(words).png") -> str:
    """A file in which a model repeats words, and a step is saved under a name with them."""
    return steps(
        words=ANSWER % f"""'One title, the words only: "{words}"'""" + ", parse: {text: {max: 300}}",
        sign=PICTURE % "$(words)" + f", save_as: {sign}",
        free=PICTURE % '"Free, $(words)"' + ", save_as: free.png",
    )


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


async def test_an_answer_names_no_file_of_ours(rh: Emulator, tmp_path: Path) -> None:
    """In the middle of a run: the step whose name an answer spoils is not paid for, and the others are made."""
    state, result = await run(answer("../../works/mug"), budget=5)
    assert state.is_failed
    assert "in save_as it must be one part of a name" in (state.message or "")
    assert states(result) == {"words": "made", "sign": "failed", "free": "made"}
    assert len(rh.recorder.paid) == 2
    pictures = {name for name in files(tmp_path) if name.endswith((".png", ".jpg"))}
    assert {name for name in pictures if not name.startswith(("out/pipelines/", "out/gallery/"))} == {"out/free.png"}


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
        with pytest.raises(PipelineError, match="a string is not read as a link to a file"):
            await run(nodes, name=name, budget=5)
        assert rh.recorder.submissions == []
    else:
        state, _ = await run(nodes, name=name, budget=5)
        assert state.is_failed  # RunningHub has no file of this name
        values: list[Any] = [one.payload["nodeInfoList"] for one in rh.recorder.paid if "nodeInfoList" in one.payload]
        assert [one["fieldValue"] for nodes in values for one in nodes] == ["secret.png"] * 2
    assert rh.recorder.uploads == []


async def test_a_file_that_no_pipeline_has_saved_is_not_replaced(rh: Emulator, tmp_path: Path) -> None:
    """The step fails, and its paid result is kept."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "free.png").write_bytes(b"of somebody else")
    state, result = await run(answer("mug"), budget=5)
    assert state.is_failed
    assert "free.png exists, but no pipeline has saved it" in (state.message or "")
    assert (tmp_path / "out" / "free.png").read_bytes() == b"of somebody else"
    (tmp_path / "out" / "free.png").unlink()
    result = await complete(answer("mug"), budget=5)
    assert (len(rh.recorder.paid), result.new) == (3, 0)
