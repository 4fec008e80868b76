"""Tasks of the platform: questions, uploads, assets and webhooks, whose answers Prefect can store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prefect import Task

from rh_prefect import models, tasks
from rh_prefect.blocks import MediaStorage
from rh_prefect.client import AssetGroup
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import ApiError, InputError, MediaError, ResponseLost, TaskNotFound
from rh_prefect.tasks import generate, platform_calls, uploads_and_assets
from tests.support.samples import media as samples
from tests.support.servers.caller import Caller
from tests.support.servers.receiver import Receiver
from tests.support.servers.s3 import S3Server
from tests.support.world.as_task import as_task, name_of_run, run


async def test_apps_are_found_a_page_at_a_time(rh: Emulator) -> None:
    page = await as_task(tasks.list_apps, sort="HOTTEST", days=30, size=1)
    assert len(page.items) == 1
    assert page.has_next
    rest = await as_task(tasks.list_apps, page=2, size=1)
    assert {page.items[0].webapp_id, rest.items[0].webapp_id} <= {app.id for app in rh.apps}
    assert rest.items != page.items
    app = await as_task(tasks.app_call_example, page.items[0].webapp_id)
    assert app.nodes


async def test_a_graph_and_the_styles_of_quick_create(rh: Emulator) -> None:
    graph = await as_task(tasks.workflow_json, rh.workflows.id_of("text-to-image"))
    assert graph["3"]["class_type"] == "KSampler"
    styles = await as_task(tasks.quick_create_styles, rh.apps.id_of("Quick picture"))
    assert styles[0].name and styles[0].style_id


async def test_what_the_account_holds_and_which_keys_it_has(rh: Emulator) -> None:
    assert (await as_task(tasks.account_status)).money > 0
    assert (await as_task(tasks.queue_status)).limit == 50
    keys = await as_task(tasks.list_api_keys)
    assert [key.name for key in keys] == ["main"]
    assert rh.key not in repr(keys)


async def test_the_library_is_searched(rh: Emulator) -> None:
    page = await as_task(tasks.list_resources, "LORA", page=2, size=25)
    assert (page.number, len(page.items), page.has_next) == (2, 25, True)
    assert page.items[0].node_model_name.endswith(".safetensors")


async def test_a_task_is_seen_in_three_ways_and_cancelled(rh: Emulator) -> None:
    rh.clock.mode, rh.clock.polls = "polls", 99
    task_id = Caller(rh).started()
    assert (await as_task(tasks.query_task, task_id)).status == "QUEUED"
    assert (await as_task(tasks.task_status_v1, task_id)).status == "RUNNING"
    outputs = await as_task(tasks.task_outputs_v1, task_id)
    assert (outputs.status, outputs.progress_url) == ("RUNNING", None)
    assert await as_task(tasks.cancel_task, task_id) is None
    assert (await as_task(tasks.query_task, task_id)).status == "CANCELLED"


async def test_a_price_without_a_task(rh: Emulator, tmp_path: Path) -> None:
    sound, photo = samples.wav(tmp_path / "sound.png"), samples.png(tmp_path / "photo.png", size=(640, 480))
    with pytest.raises(MediaError, match="image_url"):
        await tasks.price_preview(models.KlingV26ProImageToVideo(image_url=sound, prompt="waves"))
    price = await as_task(tasks.price_preview, models.KlingV26ProImageToVideo(image_url=photo, prompt="waves"))
    assert price.amount > 0
    assert [upload.size for upload in rh.recorder.uploads] == [photo.stat().st_size]
    assert not rh.recorder.submissions


async def test_the_price_of_unchecked_parameters(rh: Emulator) -> None:
    """Each of them was refused as unknown."""
    request = models.ZImageTurbo(prompt="waves", unchecked={"newOption": "on"})
    assert (await tasks.price_preview(request)).amount > 0


@pytest.mark.prefect
async def test_a_question_without_an_answer_is_asked_again_and_one_with_an_answer_is_not(rh: Emulator) -> None:
    rh.faults.add(Fault("queue", kind="html", times=1))
    assert (await (await run(tasks.queue_status)).aresult()).limit == 50
    assert len(rh.recorder.requests) == 2
    state = await run(tasks.query_task, "2030000000000009999")
    with pytest.raises(TaskNotFound):
        await state.aresult()
    assert len(rh.recorder.requests) == 3


@pytest.mark.prefect
async def test_what_makes_something_is_not_asked_again_when_its_answer_is_lost(rh: Emulator) -> None:
    rh.faults.add(Fault("assets", kind="html"))
    with pytest.raises(ResponseLost, match="The object may have been created"):
        await (await run(tasks.create_asset_group, "people")).aresult()
    assert len(rh.recorder.requests) == 1


@pytest.mark.prefect
async def test_a_run_says_what_was_asked_for(rh: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    await run(tasks.list_apps, sort="NEWEST", page=1)
    assert name_of_run(caplog.records) == "NEWEST apps, page 1"


async def test_a_file_gets_a_link_and_a_name(rh: Emulator, tmp_path: Path) -> None:
    photo = samples.png(tmp_path / "a photo (1).png", size=(640, 480))
    upload = await as_task(tasks.upload_file, photo)
    assert (upload.size, upload.kind) == (photo.stat().st_size, "image")
    assert upload.file_name.endswith(".png")
    clip = models.KlingV26ProImageToVideo(image_url=upload.url, prompt="waves")
    assert (await as_task(tasks.price_preview, clip)).amount > 0
    assert [one.size for one in rh.recorder.uploads] == [upload.size]


@pytest.mark.prefect
@pytest.mark.s3
async def test_a_file_of_a_bucket_is_uploaded_with_a_block_s_options(
    rh: Emulator, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = samples.png(tmp_path / "photo.png")
    uri = s3.url("in/photo.png")
    s3.filesystem().put_file(str(photo), uri)
    monkeypatch.setenv("RH_STORAGE_URL", s3.url("out"))
    monkeypatch.setenv("RH_STORAGE_OPTIONS", json.dumps(s3.options))
    assert (await as_task(tasks.upload_file, uri)).size == photo.stat().st_size
    monkeypatch.delenv("RH_STORAGE_OPTIONS")
    await MediaStorage(url=s3.url("out"), options=s3.options).asave("bucket", overwrite=True)
    assert (await as_task(tasks.upload_file, uri, storage="bucket")).size == photo.stat().st_size


async def test_a_result_of_a_job_is_uploaded(rh: Emulator) -> None:
    picture = await generate.fn(models.ZImageTurbo(prompt="a lighthouse"), scope="test")
    for source in (picture, picture.first_output, picture.first_output.uri):
        assert (await as_task(tasks.upload_file, source)).size == picture.first_output.size


@pytest.mark.parametrize("content", [None, b"", b"\x89PNG\r\n\x1a\n"])
async def test_what_is_no_file_is_refused_before_a_request(rh: Emulator, tmp_path: Path, content: bytes | None) -> None:
    photo = tmp_path / "photo.png"
    if content is not None:
        photo.write_bytes(content)
    for task in (tasks.upload_file, tasks.upload_file_legacy):
        with pytest.raises(MediaError, match=r"photo\.png"):
            await as_task(task, photo)
    if content is None:
        with pytest.raises(MediaError, match=r"photo\.png"):
            await tasks.register_asset(photo, group_id="1", kind="Image", name="Ada")
    assert not rh.recorder.requests


async def test_the_legacy_upload_has_a_name_and_no_link_and_takes_30_mb(rh: Emulator, tmp_path: Path) -> None:
    photo = samples.png(tmp_path / "photo.png")
    upload = await as_task(tasks.upload_file_legacy, photo, file_type="image")
    assert upload.file_name
    assert upload.url == ""
    with photo.open("r+b") as file:
        file.truncate(30 * 1024 * 1024 + 1)
    with pytest.raises(MediaError, match="30 MB at most"):
        await as_task(tasks.upload_file_legacy, photo)


async def test_a_lora_is_sent_once(rh: Emulator, tmp_path: Path) -> None:
    (lora := tmp_path / "style.safetensors").write_bytes(b"lora" * 1000)
    names = [await as_task(tasks.upload_lora, str(lora), name="style") for _ in range(2)]
    assert names[0] == names[1]


@pytest.mark.prefect
async def test_the_run_is_named_after_the_file_and_tells_no_signature(
    rh: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    link = Caller(rh).link(samples.png(tmp_path / "photo.png"))
    await run(tasks.upload_file, f"{link}{'&' if '?' in link else '?'}X-Amz-Signature=canary")
    name = name_of_run(caplog.records)
    assert name.startswith("upload of ")
    assert name.endswith(".png")


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
        (tasks.list_apps, {"sort": "BEST"}, "sort cannot be 'BEST'; allowed values: RECOMMEND, HOTTEST, NEWEST"),
        (tasks.list_resources, {"kind": "VAE"}, "kind cannot be 'VAE'"),
        (tasks.price_preview, {"request": "z-image/turbo"}, "Only a model has a price preview"),
        (tasks.resend_webhook, {"event_id": "1", "url": "hooks.example.net"}, "a receiver's address"),
        (tasks.upload_file, {"source": 7}, "Expected a file"),
        (tasks.upload_file_legacy, {"source": "a.png", "file_type": "text"}, "file_type cannot be 'text'"),
        (tasks.upload_lora, {"path": "a.safetensors", "name": " "}, "name must be a non-blank string"),
        (tasks.register_asset, {"kind": "Picture", "name": "Ada"}, "kind cannot be 'Picture'; allowed values: Image"),
        (tasks.register_asset, {"kind": "Image", "name": " "}, "name must be a non-blank string"),
        (tasks.register_asset, {"kind": "Image", "name": "Ada", "group_id": "a/b"}, "is not a valid id for an asset"),
        (tasks.create_asset_group, {"name": ""}, "name must be a non-blank string"),
        (tasks.update_asset, {"asset_id": "1", "name": ""}, "name must be a non-blank string"),
        (tasks.update_asset_group, {"group_id": "1"}, "give a name or a description"),
        (tasks.update_asset_group, {"group_id": "1", "name": ""}, "name must be a non-blank string"),
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


SECRET = "canary-token-of-the-receiver"


async def test_a_webhook_is_looked_into_and_sent_again(
    rh: Emulator, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RH_WEBHOOK_TOKEN", SECRET)
    caller = Caller(rh)
    task_id = caller.started(webhookUrl=f"{receiver.url}/{SECRET}/one")
    caller.query(task_id)
    assert rh.recorder.wait(lambda recorder: len(recorder.deliveries) == 1)
    event = await as_task(tasks.webhook_detail, task_id)
    assert (event.task_id, event.status, event.response, event.event) == (task_id, "SUCCESS", "noted", "TASK_END")
    assert event.view.status == "SUCCESS"
    assert event.url == f"{receiver.url}/***/one"
    assert await as_task(tasks.resend_webhook, event.event_id) is None
    assert await as_task(tasks.resend_webhook, event.event_id, url=f"{receiver.url}/other") is None
    assert rh.recorder.wait(lambda recorder: len(recorder.deliveries) == 3)
    assert [body["taskId"] for body in receiver.got] == [task_id] * 3


def test_all_tasks_of_the_platform_are_offered_with_their_own_names() -> None:
    assert tasks.__all__ == sorted(tasks.__all__)
    found = {**vars(platform_calls), **vars(uploads_and_assets)}
    platform_tasks = {name for name, value in found.items() if isinstance(value, Task)}
    assert platform_tasks == {*tasks.__all__} - {"generate", "generate_many"}
    for name in platform_tasks:
        task = getattr(tasks, name)
        assert task is found[name]
        assert task.fn.__name__ == name
        assert (task.fn.__doc__ or "").strip().endswith(".")
