"""What can be asked of the platform, as Prefect tasks: the answers are values that Prefect can store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rh_prefect import models, tasks
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import InputError, MediaError, ResponseLost, TaskNotFound
from tests.support.samples import media as samples
from tests.support.servers.caller import Caller
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
    assert styles[0].name
    assert styles[0].style_id


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


async def test_the_outputs_of_a_task_that_is_done(rh: Emulator) -> None:
    view = await as_task(tasks.task_outputs_v1, Caller(rh).started())
    assert (view.status, len(view.outputs), view.cost) == ("SUCCESS", 1, rh.recorder.paid[0].charged)


async def test_a_price_without_a_task(rh: Emulator, tmp_path: Path) -> None:
    photo = samples.png(tmp_path / "photo.png", size=(640, 480))
    clip = models.KlingV26ProImageToVideo(image_url=photo, prompt="waves", duration="5")
    price = await as_task(tasks.price_preview, clip)
    assert price.amount == Decimal("0.5") or price.amount > 0
    assert [upload.size for upload in rh.recorder.uploads] == [photo.stat().st_size]
    assert not rh.recorder.submissions


async def test_a_file_that_the_model_would_refuse_is_not_priced(rh: Emulator, tmp_path: Path) -> None:
    sound = samples.wav(tmp_path / "photo.png")
    with pytest.raises(MediaError, match="image_url"):
        await tasks.price_preview(models.KlingV26ProImageToVideo(image_url=sound, prompt="waves", duration="5"))
    assert not rh.recorder.uploads


ODD: Any = "BEST"
VAE: Any = "VAE"
NAME: Any = "z-image/turbo"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: tasks.list_apps(sort=ODD), "sort cannot be 'BEST'; allowed values: RECOMMEND, HOTTEST, NEWEST"),
        (lambda: tasks.list_resources(VAE), "kind cannot be 'VAE'"),
        (lambda: tasks.price_preview(NAME), "Only a model has a price preview"),
    ],
)
async def test_wrong_input_is_refused_before_anything_is_sent(
    rh: Emulator, call: Callable[[], Awaitable[object]], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        await call()
    assert not rh.recorder.requests


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
async def test_a_question_without_an_answer_is_asked_again_and_one_with_an_answer_is_not(rh: Emulator) -> None:
    rh.faults.add(Fault("queue", kind="html", times=1))
    assert (await (await run(tasks.queue_status)).aresult()).limit == 50
    assert len(rh.recorder.requests) == 2
    state = await run(tasks.query_task, "2030000000000009999")
    with pytest.raises(TaskNotFound):
        await state.aresult()
    assert len(rh.recorder.requests) == 3


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
async def test_what_makes_something_is_not_asked_again_when_its_answer_is_lost(rh: Emulator) -> None:
    rh.faults.add(Fault("assets", kind="html"))
    with pytest.raises(ResponseLost, match="The object may have been created"):
        await (await run(tasks.create_asset_group, "people")).aresult()
    assert len(rh.recorder.requests) == 1


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
async def test_a_run_says_what_was_asked_for(rh: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    await run(tasks.list_apps, sort="NEWEST", page=1)
    assert name_of_run(caplog.records) == "NEWEST apps, page 1"
