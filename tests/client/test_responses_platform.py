"""As `test_responses`, for everything beside tasks: every answer raises only errors of this package."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rh_prefect.client import native_comfyui, read_delivery, responses
from rh_prefect.client.json_values import Value, loads, plain, table
from rh_prefect.client.progress import ProgressEvent, read_frame
from rh_prefect.client.responses import RequestInfo
from rh_prefect.client.wire.account_and_files import ApiKey, Asset, AssetGroup, AssetPage, GroupPage, read_resource_page
from rh_prefect.client.wire.apps_and_comfyui import (
    ComfyFile,
    read_app,
    read_app_page,
    read_comfy_prompt,
    read_comfy_run,
    read_style,
)
from rh_prefect.client.wire.task import TaskView, WebhookEvent
from rh_prefect.errors import RunningHubError
from tests.support.hypothesis_settings import search
from tests.support.samples.odd_answers import DEEP, json_values, statuses

quick = search(150)
ASK = RequestInfo("reading of x")
PAID = RequestInfo("submit to x", paid=True)
ID = "2031112223334445057"

FIELDS = re.findall(
    r"\w+",
    """code msg data errorMessages prompt netWssUrl taskId taskStatus promptTips failedReason fileUrl fileType
    taskCostTime consumeMoney nodeId url curl accessEncrypted webappName statisticsInfo nodeInfoList fieldName
    fieldValue fieldData fieldType covers tags nameEn name index default records current total hasNext invokeExample
    modelLoar1FileName modelLoar1Weight type id event eventData callbackStatus callbackResponse retryCount createTime
    key status quotaLimit owner versions items totalCount assetId groupId assetCount prompt_id node_errors error result
    outputs images filename subfolder messages completed status_str node value max nodes""",
)

words = st.sampled_from(
    ["TASK_END", "executing", "progress", "execution_cached", "wss://x/?a=b", "RUNNING", "0", "804", 804, 805, 0, 813]
)
inner = st.dictionaries(st.sampled_from(FIELDS), json_values | words, max_size=5)
nested = st.recursive(
    inner,
    lambda deeper: (
        st.dictionaries(st.sampled_from(FIELDS), deeper | st.lists(deeper, max_size=2) | words, max_size=5)
        | deeper.map(lambda value: {"data": json.dumps(value), "eventData": json.dumps(value)})
    ),
    max_leaves=5,
)

OF_DATA: list[Callable[[dict[str, object]], object]] = [
    lambda data: read_app(data, webapp_id=ID),
    lambda data: read_app_page(data, number=1),
    read_style,
    ApiKey.read,
    lambda data: read_resource_page(data, number=1),
    Asset.read,
    AssetGroup.read,
    AssetPage.read,
    GroupPage.read,
    lambda data: WebhookEvent.read(data, task_id=ID),
    ComfyFile.read,
    read_comfy_prompt,
    lambda data: read_comfy_run(data, prompt_id=ID),
    lambda data: json.dumps(plain(data), allow_nan=False),
]

OF_ANSWER: list[Callable[[responses.ApiResponse], object]] = [
    lambda answer: responses.read_v1(answer, ASK, responses.by_outputs, task_id=ID),
    lambda answer: responses.read_v1(answer, ASK, responses.by_word, task_id=ID),
    lambda answer: responses.submitted(answer, PAID),
    lambda answer: tuple(map(read_style, responses.with_rows(answer, ASK))),
    lambda answer: tuple(map(ApiKey.read, responses.with_rows(answer, ASK))),
]


def all_values(made: object) -> list[Value]:
    if isinstance(made, tuple):
        return [value for each in made for value in all_values(each)]
    return [made] if isinstance(made, Value) else []


def check(made: object) -> None:
    for value in all_values(made):
        bare = value.model_copy(update={"progress_url": None}) if isinstance(value, TaskView) else value
        assert type(bare).model_validate_json(bare.model_dump_json()) == bare


def read_everything(status: int, body: bytes) -> None:
    check(read_delivery(body))
    check(read_frame(body))
    try:
        check(native_comfyui.judged(status, body, PAID))
    except RunningHubError as error:
        str(error).encode()
    try:
        answer = responses.read(status, body, ASK)
    except RunningHubError:
        return
    for of_data in OF_DATA:
        for data in (answer.data, answer.source):
            check(of_data(data))
    check(responses.read_webhook_payload(answer.source, task_id=ID))
    for of_answer in OF_ANSWER:
        try:
            check(of_answer(answer))
        except RunningHubError as error:
            str(error).encode()


@quick
@given(statuses, nested)
def test_mangled_answers_raise_nothing_foreign_and_make_storable_values(status: int, source: dict[str, Any]) -> None:
    read_everything(status, json.dumps(source).encode())


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": ' * DEEP,
        b'{"data": {"prompt": ' + b"[" * DEEP + b"]" * DEEP + b"}}",
        b'{"data": {"prompt": ' + b"[" * 900 + b"]" * 900 + b"}}",
        json.dumps({"eventData": "[" * DEEP, "taskId": ID}).encode(),
        json.dumps({"data": {"nodeInfoList": [{"nodeId": 1, "fieldName": "x", "fieldData": "[" * DEEP}]}}).encode(),
        b'{"data": {"total": 1e99999999999999999999, "retryCount": 1e39, "id": 1}}',
        b'{"prompt_id": ' + b"1" * 5000 + b"}",
    ],
    ids=["deep", "deep prompt", "900 deep", "deep event", "deep field", "huge numbers", "long number"],
)
def test_the_worst_bodies(body: bytes) -> None:
    read_everything(200, body)


@quick
@given(st.text(max_size=80) | nested.map(json.dumps) | st.binary(max_size=40))
def test_a_frame_is_an_event_or_nothing(frame: str | bytes) -> None:
    event = read_frame(frame)
    assert event is None or type(event).model_validate_json(event.model_dump_json()) == event
    assert not (isinstance(frame, bytes) and isinstance(event, ProgressEvent))


numbers = st.integers(min_value=1, max_value=10**39)
forms = st.sampled_from(["{}", '"{}"', "{}.0", "{}e0"])


@quick
@given(numbers, forms)
def test_ids_keep_all_their_digits(number: int, form: str) -> None:
    told, said = form.format(number), str(number)

    def source(text: str) -> dict[str, object]:
        return table(loads(text))

    asset = Asset.read(source(f'{{"assetId": {told}}}'))
    group = AssetGroup.read(source(f'{{"groupId": {told}}}'))
    event = WebhookEvent.read(source(f'{{"id": {told}, "taskId": {told}}}'), task_id="1")
    [listing] = read_app_page(source(f'{{"records": [{{"webappId": {told}}}]}}'), number=1).items
    style = read_style(source(f'{{"id": 1, "webappId": {told}}}'))
    [node] = read_app(source(f'{{"nodeInfoList": [{{"nodeId": {told}, "fieldName": "x"}}]}}'), webapp_id="1").nodes
    delivery = read_delivery(f'{{"taskId": {told}}}')
    assert delivery is not None
    assert {asset.asset_id, group.group_id, event.event_id, event.task_id, listing.webapp_id} == {said}
    assert {style.webapp_id, node.node_id, delivery.task_id} == {said}
