from __future__ import annotations

import inspect
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite
from pydantic import ValidationError

from rh_prefect import collection
from rh_prefect.blocks import MediaStorage, RunningHubCredentials, RunningHubPool
from rh_prefect.job_blocks import RunningHubApp, RunningHubJobRun, RunningHubModel, RunningHubWorkflow
from rh_prefect.job_blocks.blocks import RunningHubJob
from rh_prefect.works.job_options import JobOptions

JOB_BLOCKS = [RunningHubApp, RunningHubModel, RunningHubWorkflow]
SLUGS: dict[type[Block], str] = {
    RunningHubApp: "runninghub-app",
    RunningHubModel: "runninghub-model",
    RunningHubWorkflow: "runninghub-workflow",
    MediaStorage: "media-storage",
    RunningHubCredentials: "runninghub-credentials",
    RunningHubPool: "runninghub-account-pool",
}


@pytest.mark.parametrize("block", SLUGS)
class TestBlockStandards(BlockStandardTestSuite):
    @pytest.fixture
    def block(self, block: type[Block]) -> type[Block]:
        return block

    @pytest.mark.skip(reason="downloads the logo; the tests need no network")
    def test_has_a_valid_image(self, block: type[Block]) -> None: ...


def test_a_slug_never_changes() -> None:
    # Saved blocks are found by it.
    assert {block: block.get_block_type_slug() for block in SLUGS} == SLUGS


def test_the_entry_point_names_every_block_type_and_nothing_else() -> None:
    (found,) = entry_points(group="prefect.collections", name="rh_prefect")
    blocks = {name for name, one in inspect.getmembers(found.load()) if Block.is_block_class(one)}
    assert blocks == set(collection.__all__)
    assert blocks == {block.__name__ for block in SLUGS}


@pytest.mark.parametrize("block", JOB_BLOCKS)
def test_no_block_holds_another_block(block: type[Block]) -> None:
    # A block in a block is loaded with its key by everyone who only wants to look at the outer one.
    assert not any(Block.annotation_refers_to_block_class(field.annotation) for field in block.model_fields.values())
    assert {"credentials", "storage"} <= set(block.model_fields)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((block, "trigger") for block in JOB_BLOCKS),
        *((RunningHubJobRun, name) for name in ("wait_for_completion", "fetch_result", "cancel", "attach")),
    ],
)
def test_each_name_blocks_and_has_a_coroutine_for_a_twin(kind: type, name: str) -> None:
    twin = f"{name}_async"
    assert not inspect.iscoroutinefunction(getattr(kind, name))
    assert inspect.iscoroutinefunction(getattr(kind, twin))
    assert list(inspect.signature(getattr(kind, twin)).parameters) == list(
        inspect.signature(getattr(kind, name)).parameters
    )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RunningHubWorkflow(workflow_id="my workflow"), "id: String should match pattern"),
        (lambda: RunningHubWorkflow(workflow_id="1", nodes={"text": "x"}), "is not a field of a node"),
        (lambda: RunningHubApp(webapp_id="1", retain_seconds=5), "greater than or equal to 10"),
        (lambda: RunningHubModel(model="z-image/turbi"), "z-image/turbo"),
    ],
)
def test_what_could_never_be_started_cannot_be_saved(make: type, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make()


def test_a_password_is_in_no_error_and_no_text() -> None:
    block = RunningHubWorkflow(workflow_id="1", access_password="canary-password")
    assert "canary" not in f"{block!r} {block} {block.model_dump()} {block.model_dump_json()}"
    with pytest.raises(ValidationError) as error:
        RunningHubWorkflow(workflow_id="x", access_password="canary-password")
    assert "canary" not in str(error.value)


@pytest.mark.parametrize("name", collection.__all__)
def test_the_docs_name_every_block_with_its_type_and_its_fields(name: str) -> None:
    block = getattr(collection, name)
    page = (Path(__file__).parents[2] / "docs" / "blocks.md").read_text(encoding="utf-8")
    table = page.partition(f"`{name}`, block type `{block.get_block_type_slug()}`:")[2].partition("\n#")[0]
    assert table
    shared = page.partition("All three types have these fields:")[2] if issubclass(block, RunningHubJob) else ""
    missing = [field for field in block.model_fields if f"`{field}`" not in table + shared]
    assert not missing


@pytest.mark.parametrize("block", JOB_BLOCKS)
def test_trigger_says_all_the_options_that_it_takes(block: type[RunningHubJob]) -> None:
    said = (inspect.getdoc(block.trigger) or "").partition("options of `generate`")[2]
    assert [name for name in JobOptions.__annotations__ if f"`{name}`" not in said.partition(").")[0]] == []


def test_the_docs_name_every_option() -> None:
    """Once, with the tasks of models; the page of the blocks refers to it."""
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    _, said = text.split("have the same options", 1)
    assert [name for name in JobOptions.__annotations__ if f"`{name}`" not in said[:300]] == []
