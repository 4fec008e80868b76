"""Assets and their groups, as Prefect tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect import Task

from rh_prefect import models, tasks
from rh_prefect.client import AssetGroup
from rh_prefect.emulator import Emulator
from rh_prefect.errors import ApiError, InputError, MediaError
from rh_prefect.tasks import generate
from tests.support.samples import media as samples
from tests.support.servers.caller import Caller
from tests.support.world.as_task import as_task


async def group() -> AssetGroup:
    made: AssetGroup = await as_task(tasks.create_asset_group, "people", description="of the film")
    return made


async def test_groups_are_made_found_changed_and_deleted(rh: Emulator) -> None:
    made = await group()
    await as_task(tasks.create_asset_group, "places")
    found = await as_task(tasks.list_asset_groups, name="people")
    assert [one.group_id for one in found.items] == [made.group_id]
    page = await as_task(tasks.list_asset_groups, page=2, size=1)
    assert (page.total, len(page.items), page.has_next) == (2, 1, False)
    changed = await as_task(tasks.update_asset_group, made.group_id, description="of both films")
    assert (changed.name, changed.description) == ("people", "of both films")
    seen = await as_task(tasks.query_asset_group, made.group_id)
    assert (seen.name, seen.description, seen.assets) == ("people", "of both films", 0)
    assert await as_task(tasks.delete_asset_group, made.group_id) is None
    with pytest.raises(ApiError):
        await as_task(tasks.query_asset_group, made.group_id)


async def test_an_asset_is_registered_from_a_file_used_renamed_and_deleted(rh: Emulator, tmp_path: Path) -> None:
    face = samples.png(tmp_path / "face.png", size=(640, 480))
    people = (await group()).group_id
    asset = await as_task(tasks.register_asset, face, group_id=people, kind="Image", name="Ada")
    assert (asset.state, asset.uri) == ("ready", f"asset://{asset.asset_id}")
    clip = models.Seedance20GlobalImageToVideo(first_frame_url=asset.uri, prompt="she waves")
    assert (await generate.fn(clip, scope="test")).first_output.kind == "video"
    assert (await as_task(tasks.query_asset, asset.asset_id)).name == "Ada"
    assert (await as_task(tasks.update_asset, asset.asset_id, name="Ada L.")).name == "Ada L."
    listed = await as_task(tasks.list_assets, group_id=people, name="Ada L.")
    assert [one.asset_id for one in listed.items] == [asset.asset_id]
    assert await as_task(tasks.delete_asset, asset.asset_id) is None
    assert not (await as_task(tasks.list_assets, group_id=people)).items


async def test_a_link_is_registered_as_it_is(rh: Emulator, tmp_path: Path) -> None:
    link = Caller(rh).link(samples.png(tmp_path / "face.png"))
    await as_task(tasks.register_asset, link, group_id=(await group()).group_id, kind="Image", name="Ada")
    assert len(rh.recorder.uploads) == 1


@pytest.mark.parametrize(
    ("task", "given", "said"),
    [
        (tasks.register_asset, {"kind": "Picture", "name": "Ada"}, "kind cannot be 'Picture'; allowed values: Image"),
        (tasks.register_asset, {"kind": "Image", "name": " "}, "name must be a non-empty text"),
        (tasks.register_asset, {"kind": "Image", "name": "Ada", "group_id": "a/b"}, "not a valid id of an asset group"),
        (tasks.create_asset_group, {"name": ""}, "name must be a non-empty text"),
        (tasks.update_asset, {"asset_id": "1", "name": ""}, "name must be a non-empty text"),
        (tasks.update_asset_group, {"group_id": "1"}, "give a name or a description"),
        (tasks.update_asset_group, {"group_id": "1", "name": ""}, "name must be a non-empty text"),
    ],
)
async def test_wrong_input_is_refused_before_anything_is_sent(
    rh: Emulator, tmp_path: Path, task: Task[..., Any], given: dict[str, object], said: str
) -> None:
    if task is tasks.register_asset:
        given = {"source": samples.png(tmp_path / "face.png"), "group_id": "1", **given}
    with pytest.raises(InputError, match=said):
        await as_task(task, **given)
    assert not rh.recorder.requests


async def test_a_file_that_is_none_is_not_registered(rh: Emulator, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"face\.png"):
        await tasks.register_asset(tmp_path / "face.png", group_id="1", kind="Image", name="Ada")
    assert not rh.recorder.requests
