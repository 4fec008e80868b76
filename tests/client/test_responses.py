"""Whatever comes back, only our own errors come out, and no digit of an id is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from rh_prefect.client import TaskView, native_comfyui, read_delivery, responses
from rh_prefect.client.json_values import Value, loads, plain, table
from rh_prefect.client.progress import read_frame
from rh_prefect.client.responses import RequestInfo
from rh_prefect.client.wire.account_files_and_assets import (
    Account,
    ApiKey,
    Asset,
    AssetGroup,
    AssetPage,
    GroupPage,
    QueueStatus,
    Upload,
    read_price,
    read_resource_page,
)
from rh_prefect.client.wire.apps import read_app, read_app_page, read_style
from rh_prefect.client.wire.task import WebhookEvent, read_failure
from rh_prefect.errors import ResponseLost, RunningHubError
from rh_prefect.redaction import mask, mask_key
from tests.support.hypothesis_settings import DEEP, json_values, search, statuses
from tests.support.servers.scripted_server import task

quick = search(200)
ASK = RequestInfo("reading of x")
PAID = RequestInfo("submit to x", paid=True)
ID = "2031112223334445057"

FIELD_NAMES = """
code msg message data errorMessages prompt netWssUrl task_id taskStatus fileUrl fileType taskCostTime nodeId
consumeMoney url curl accessEncrypted webappName statisticsInfo nodeInfoList fieldName fieldValue fieldData
covers fieldType tags nameEn name index default records current total hasNext invokeExample modelLoar1FileName
size nodes modelLoar1Weight type id event eventData callbackStatus callbackResponse retryCount createTime key
quotaLimit owner versions items totalCount assetId groupId assetCount prompt_id node_errors error result outputs
images filename subfolder messages completed status_str node value max estimatedPrice
"""
FIELDS = [*task(), *FIELD_NAMES.split()]

words = st.sampled_from(
    ["TASK_END", "executing", "progress", "execution_cached", "wss://x/?a=b", "RUNNING", "0", "804", 804, 805, 0, 813]
)
inner = st.dictionaries(st.sampled_from(FIELDS), json_values | words, max_size=6)
nested = st.recursive(
    inner,
    lambda deeper: (
        st.dictionaries(st.sampled_from(FIELDS), deeper | st.lists(deeper, max_size=2) | words, max_size=5)
        | deeper.map(lambda value: {"data": json.dumps(value), "eventData": json.dumps(value)})
    ),
    max_leaves=5,
)

OF_DATA: list[Callable[[dict[str, object]], object]] = [
    lambda data: Upload.read(data, size=1),
    QueueStatus.read,
    Account.read,
    read_price,
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
    lambda data: native_comfyui.read_run(data, task_id=ID, view="https://x/view"),
    lambda data: json.dumps(plain(data), allow_nan=False),
]

OF_ANSWER: list[Callable[[responses.ApiResponse], object]] = [
    lambda answer: responses.read_v1(answer, responses.by_outputs, ID),
    lambda answer: responses.read_v1(answer, responses.by_word, ID),
    lambda answer: responses.submitted(answer),
    lambda answer: responses.parse_query(answer, "1"),
    lambda answer: tuple(map(read_style, answer.with_rows())),
    lambda answer: tuple(map(ApiKey.read, answer.with_rows())),
]


def check(made: object) -> None:
    """Every value can be stored and read again."""
    for value in made if isinstance(made, tuple) else (made,):
        if isinstance(value, Value):
            bare = value.model_copy(update={"progress_url": None}) if isinstance(value, TaskView) else value
            assert type(bare).model_validate_json(bare.model_dump_json()) == bare


def read_everything(status: int, body: bytes) -> None:
    check(read_delivery(body))
    for frame in (body, body.decode("utf-8", "replace")):
        check(read_frame(frame))
    try:
        check(native_comfyui.judged(status, body, PAID, prefix="proxy."))
    except RunningHubError as error:
        str(error).encode()
    for ask in (ASK, PAID):
        try:
            answer = responses.read(status, body, ask)
        except RunningHubError:
            continue
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
@given(statuses, st.binary(max_size=60))
def test_bytes_raise_nothing_foreign(status: int, body: bytes) -> None:
    read_everything(status, body)


@quick
@given(statuses, nested)
def test_mangled_answers_raise_nothing_foreign_and_make_storable_values(status: int, source: dict[str, Any]) -> None:
    read_everything(status, json.dumps(source).encode())


@quick
@given(st.sampled_from([name for name in FIELDS if name not in {"taskId", "task_id"}]), json_values)
def test_one_mangled_field_never_loses_a_paid_id(field: str, value: Any) -> None:
    answer = responses.read(200, json.dumps({**task(), field: value}).encode(), PAID)
    assert responses.submitted(answer).task_id == ID


@quick
@given(st.integers(min_value=0))
def test_a_cut_answer_to_a_submit_is_no_answer(at: int) -> None:
    whole = json.dumps(task()).encode()
    with pytest.raises(ResponseLost):
        responses.read(200, whole[: at % len(whole)], PAID)


@pytest.mark.parametrize(
    "body",
    [
        b'{"taskId": ' * DEEP,
        b'{"data": ' * DEEP,
        b'{"results": ' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"data": {"prompt": ' + b"[" * DEEP + b"]" * DEEP + b"}}",
        b'{"data": {"prompt": ' + b"[" * 900 + b"]" * 900 + b"}}",
        json.dumps({"eventData": "[" * DEEP, "taskId": ID}).encode(),
        json.dumps({"data": {"nodeInfoList": [{"nodeId": 1, "fieldName": "x", "fieldData": "[" * DEEP}]}}).encode(),
        b'{"taskId": ' + b"1" * 5000 + b"}",
        b'{"prompt_id": ' + b"1" * 5000 + b"}",
        b'{"usage": {"consumeMoney": 1e99999999999999999999}, "taskId": "5", "status": "SUCCESS"}',
        b'{"data": {"total": 1e99999999999999999999, "retryCount": 1e39, "id": 1}}',
        b'{"taskId": 1e99999999}',
        '{"taskId": "5"}'.encode("utf-16"),
    ],
    ids=lambda body: body[:12].decode("ascii", "replace"),
)
def test_the_worst_bodies(body: bytes) -> None:
    read_everything(200, body)


@quick
@given(st.integers(min_value=1, max_value=10**39), st.sampled_from(["{}", '"{}"', "{}.0", "{}e0"]))
def test_ids_keep_all_their_digits(number: int, form: str) -> None:
    told, said = form.format(number), str(number)

    def source(text: str) -> dict[str, object]:
        return table(loads(text))

    answer = responses.read(200, f'{{"status": "RUNNING", "taskId": {told}}}'.encode(), PAID)
    asset = Asset.read(source(f'{{"assetId": {told}}}'))
    group = AssetGroup.read(source(f'{{"groupId": {told}}}'))
    event = WebhookEvent.read(source(f'{{"id": {told}, "taskId": {told}}}'), task_id="1")
    [listing] = read_app_page(source(f'{{"records": [{{"webappId": {told}}}]}}'), number=1).items
    style = read_style(source(f'{{"id": 1, "webappId": {told}}}'))
    [node] = read_app(source(f'{{"nodeInfoList": [{{"nodeId": {told}, "fieldName": "x"}}]}}'), webapp_id="1").nodes
    delivery = read_delivery(f'{{"taskId": {told}}}')
    assert delivery is not None
    assert {responses.submitted(answer).task_id, asset.asset_id, group.group_id, event.event_id} == {said}
    assert {event.task_id, listing.webapp_id, style.webapp_id, node.node_id, delivery.task_id} == {said}


def test_json_in_strings_of_any_depth_is_unfolded() -> None:
    text: object = {"node_id": "3", "exception_message": "boom"}
    for _ in range(6):
        text = json.dumps(text)
    failure = read_failure(text)
    assert failure is not None
    assert failure.node_id == "3"
    assert read_failure("[" * DEEP) is not None


@quick
@given(st.text(alphabet="abcdef0123456789", min_size=12, max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_a_key_is_masked_wherever_it_stands(key: str, before: str, after: str) -> None:
    secret = SecretStr(key)
    body = before.encode("utf-8", "replace") + key.encode() + after.encode("utf-8", "replace")
    assert key.encode() not in mask_key(body, key=secret)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: Bearer abcdefghijkl", "Authorization: Bearer ***"),
        ('{"apiKey": "abcdefghijklmnop"}', '{"apiKey": "***"}'),
        ("https://x/proxy-plus/abcdefghijklmnop/view", "https://x/proxy-plus/***/view"),
        ("wss://x/ws?Rh-Comfy-Auth=abcdefghijkl%3D&target=1", "wss://x/ws?Rh-Comfy-Auth=***&target=1"),
        ("https://x/a.png?q-signature=abcdefghijkl", "https://x/a.png?q-signature=***"),
        ("param apiKey is required", "param apiKey is required"),
        ("apiKey: must not be blank", "apiKey: must not be blank"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_views_are_values() -> None:
    view = TaskView(task_id="1", status="RUNNING")
    with pytest.raises(ValueError, match="frozen"):
        view.status = "FAILED"  # type: ignore[misc]  # the assignment is the test
