"""PyPI's `runninghub-sdk` 1.1.9, a client of another author, works against the emulator unchanged.

It sends `Host: www.runninghub.cn` in every request, with every base URL; the emulator, like a proxy, accepts it.
Where it and the documentation disagree, the documentation decides, and the last tests say so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from runninghub_sdk import NodeInput, RunningHubClient, RunningHubError, TaskStatus

from rh_prefect.media.probe import probe
from tests.emulator.conftest import Emulate
from tests.support.samples import media as samples
from tests.support.servers.caller import CLIP, IMAGE, WORDS, Caller


def sdk_of(rh: Caller) -> RunningHubClient:
    return RunningHubClient(api_key=rh.key, base_url=rh.rh.url)


@pytest.fixture
def sdk(rh: Caller) -> Iterator[RunningHubClient]:
    with sdk_of(rh) as client:
        yield client


def test_a_workflow(rh: Caller, sdk: RunningHubClient, tmp_path: Path) -> None:
    assert sdk.sync_client.headers["host"] == "www.runninghub.cn"
    workflow = rh.rh.workflows.id_of("text-to-image")
    assert sdk.get_workflow_json_parsed(workflow)["3"]["class_type"] == "KSampler"
    task = sdk.run(workflow, [NodeInput("6", "text", "a red barn"), NodeInput("3", "seed", 7)])
    assert (task.task_status, json.loads(task.prompt_tips)["node_errors"]) == (TaskStatus.RUNNING, {})
    assert rh.rh.url.removeprefix("http://") in str(task.net_wss_url)  # which is not made of the header
    (output,) = sdk.wait_for_completion(task.task_id, poll_interval=0.01)
    assert (output.node_id, output.file_type, output.consume_money) == ("9", "png", str(rh.rh.recorder.charged))
    (path,) = sdk.download_outputs([output], tmp_path)
    assert probe(path).kind == "image"
    modifier = sdk.create_modifier().set("50", "length", 9)
    clip = rh.rh.workflows.id_of("image-to-video")
    task = sdk.run_with_modifier(clip, modifier, instance_type="plus", add_metadata=False)
    assert sdk.wait_for_completion(task.task_id, poll_interval=0.01)[0].file_type == "mp4"


def test_an_app(rh: Caller, sdk: RunningHubClient, tmp_path: Path) -> None:
    app_id = rh.rh.apps.id_of("Portrait restyle")
    demo = sdk.get_ai_app_api_demo(app_id)
    assert [item.field_type for item in demo.node_info_list][:2] == ["IMAGE", "STRING"]
    sent = sdk.upload_file(samples.png(tmp_path / "a.png"))
    first = demo.node_info_list[0]
    task = sdk.run_ai_app(app_id, [NodeInput(first.node_id, first.field_name, sent.file_name)])
    assert len(sdk.wait_for_completion(task.task_id, poll_interval=0.01)) == 2
    with pytest.raises(RunningHubError) as refused:  # it leaves an empty list of nodes out, which is required
        sdk.run_ai_app(rh.rh.apps.id_of("Quick picture"))
    assert refused.value.code == 301


def test_a_model_with_an_upload(rh: Caller, sdk: RunningHubClient, tmp_path: Path) -> None:
    sent = sdk.upload_file(samples.png(tmp_path / "a.png"))
    assert sent.type == "image"
    body = {"imageUrl": sent.download_url, "prompt": "x", "duration": "5", "negativePrompt": "", "sound": "false"}
    assert sdk.preview_model_price(CLIP, body).error_code == ""
    submitted = sdk.run_model_api(CLIP, body)
    assert submitted.error_code == ""
    done = sdk.wait_for_query_v2_completion(submitted.task_id, poll_interval=0.01)
    assert done.results is not None
    assert done.results[0]["outputType"] == "mp4"
    assert done.usage is not None
    assert done.usage.third_party_consume_money == str(rh.rh.recorder.charged)


def test_account_and_lists(rh: Caller, sdk: RunningHubClient) -> None:
    assert sdk.validate_api_key()
    status = sdk.get_account_status()  # it sends `apiKey`, where the documentation has `apikey`
    assert (status.remain_money, status.api_type) == ("10000", "SHARED")
    assert sdk.get_queue_status().concurrent_limit == 50
    assert [key.api_key_name for key in sdk.list_api_keys()] == ["main"]
    page = sdk.list_public_models("LORA", "ink", size=2)
    assert (page.total, page.has_next, page.records[0].resource_type) == (3, True, "LORA")


def test_cancel_and_unknown_tasks(emulate: Emulate) -> None:
    rh = emulate(clock="polls", polls=9)
    with sdk_of(rh) as sdk:
        task = sdk.run(rh.rh.workflows.id_of("music"))
        assert task.net_wss_url is None
        assert sdk.get_status(task.task_id) == TaskStatus.QUEUED
        sdk.cancel(task.task_id)
        assert rh.rh.recorder.cancelled == [task.task_id]
        assert sdk.get_status(task.task_id) == TaskStatus.FAILED
        with pytest.raises(RunningHubError) as refused:
            sdk.cancel("2031112223334445057")
        assert refused.value.code == 807
        submitted = sdk.run_model_api(IMAGE, WORDS)
        sdk.cancel(submitted.task_id)
        with pytest.raises(ValueError, match="CANCEL"):  # a state of v2 that it does not know
            sdk.query_v2(submitted.task_id)
