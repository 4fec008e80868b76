"""Whatever comes back, only our own errors come out, and no digit of an id is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from rh_prefect.client import TaskView, responses
from rh_prefect.client.json_values import Value
from rh_prefect.client.responses import RequestInfo
from rh_prefect.client.wire.account_and_files import Account, QueueStatus, Upload, read_price
from rh_prefect.client.wire.task import read_failure
from rh_prefect.errors import ApiError, ResponseLost, RunningHubError
from rh_prefect.redaction import mask, mask_key
from tests.support.hypothesis_settings import search
from tests.support.samples.odd_answers import DEEP, json_values, statuses
from tests.support.servers.scripted_server import task

quick = search(200)

FIELDS = [*task(), "task_id", "code", "msg", "message", "data", "taskStatus", "errorMessages", "estimatedPrice", "size"]
answers_like = st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=8)


def everything_that_is_read(status: int, body: bytes) -> list[Any]:
    paid, free = RequestInfo("submit to x", paid=True), RequestInfo("query of task 1")
    made: list[Any] = []
    for ask in (paid, free):
        try:
            answer = responses.read(status, body, ask)
        except RunningHubError:
            continue
        made += [Upload.read(answer.data, size=1), QueueStatus.read(answer.data)]
        made += [Account.read(answer.data), read_price(answer.source)]
        for reading in (
            lambda answer=answer: responses.submitted(answer, paid),
            lambda answer=answer: responses.parse_query(answer, free, task_id="1"),
            lambda answer=answer: responses.with_data(answer, free),
        ):
            try:
                made.append(reading())
            except (ApiError, ResponseLost) as error:
                str(error).encode()
    return made


@quick
@given(statuses, st.binary(max_size=60))
def test_bytes_raise_nothing_foreign(status: int, body: bytes) -> None:
    everything_that_is_read(status, body)


@quick
@given(statuses, answers_like)
def test_mangled_answers_raise_nothing_foreign_and_make_storable_values(status: int, source: dict[str, Any]) -> None:
    for made in everything_that_is_read(status, json.dumps(source).encode()):
        if isinstance(made, Value):
            assert type(made).model_validate_json(made.model_dump_json()) == made


@quick
@given(st.sampled_from(FIELDS), json_values)
def test_one_mangled_field_never_loses_a_paid_id(field: str, value: Any) -> None:
    source = {**task(), field: value}
    if field in {"taskId", "task_id"}:
        return
    view = responses.submitted(
        responses.read(200, json.dumps(source).encode(), RequestInfo("s", paid=True)), RequestInfo("s", paid=True)
    )
    assert view.task_id == "2031112223334445057"


@quick
@given(st.binary(max_size=40), st.integers(min_value=0))
def test_a_cut_answer_to_a_submit_is_no_answer_or_whole(noise: bytes, at: int) -> None:
    whole = json.dumps(task()).encode()
    cut = whole[: at % len(whole)]
    with pytest.raises(ResponseLost):
        responses.read(200, cut, RequestInfo("s", paid=True))


@quick
@given(st.integers(min_value=1, max_value=10**39), st.sampled_from(["{}", '"{}"', "{}.0", "{}e0"]))
def test_ids_keep_all_their_digits(number: int, form: str) -> None:
    body = b'{"status": "RUNNING", "taskId": ' + form.format(number).encode() + b"}"
    ask = RequestInfo("s", paid=True)
    assert responses.submitted(responses.read(200, body, ask), ask).task_id == str(number)


@pytest.mark.parametrize(
    "body",
    [
        b'{"taskId": ' * DEEP,
        b'{"results": ' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"taskId": ' + b"1" * 5000 + b"}",
        b'{"usage": {"consumeMoney": 1e99999999999999999999}, "taskId": "5", "status": "SUCCESS"}',
        b'{"taskId": 1e99999999}',
        '{"taskId": "5"}'.encode("utf-16"),
    ],
    ids=["deep", "deep results", "long number", "no number", "huge number", "utf-16"],
)
def test_the_worst_bodies(body: bytes) -> None:
    everything_that_is_read(200, body)


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
    assert key not in mask(before + key + after, key=secret) or key in "***"
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
