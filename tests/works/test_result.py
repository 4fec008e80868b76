"""The result of a job: responses with JSON in all forms of the models, its short forms, and the end of its task."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from rh_prefect import Face, Result
from rh_prefect.client import RemoteOutput, TaskView, Usage
from rh_prefect.client.wire.task import Failure
from rh_prefect.errors import InputError, explain
from rh_prefect.media.media import Media
from rh_prefect.works.journal.job_records_and_state import Submit
from rh_prefect.works.journal.record_types import BROKEN, End, Link
from rh_prefect.works.result import end_of, with_times
from tests.support.world.job_records import TASK, intent, ticket


def result(*texts: str, **more: Any) -> Result:
    facts = {"model": "some/model", "endpoint": "some/model", "job": "run/key", "key": "key", "task_id": "1"}
    return Result(**facts, texts=texts, **more)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "Here you are:\n```json\n{}\n```\nEnjoy.",
        "```\n{}\n```",
        "The answer is {}, as asked.",
        "{} is the answer.",
        "For {{x}}:\n```json\n{}\n```",
    ],
)
@pytest.mark.parametrize("answer", ['{"a": [1, 2]}', "[1, 2, {}]"])
def test_json_is_found_within_text_and_code_fences(text: str, answer: str) -> None:
    assert result("a word first", text.format(answer)).json() == json.loads(answer)


def test_the_longest_brackets_are_the_answer() -> None:
    assert result('As in [1], the answer is {"a": 1}').json() == {"a": 1}
    assert result('{"a": 1}\n\nSources: ["https://host/1", "https://host/2"]').json() == {"a": 1}
    assert result('The two are [{"a": 1}, {"a": 2}].').json() == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    "answer",
    ["```json" + "\n" * 20_000 + "x", "[" * 100_000, '{"a":' * 100_000 + "}", "[]" * 100_000, "```\n[" * 20_000],
    ids=["an open fence", "open lists", "open objects", "many lists", "many fences"],
)
def test_a_long_answer_without_json_is_refused_at_once(answer: str) -> None:
    began = time.process_time()
    with pytest.raises(InputError, match="did not return JSON but"):
        result(answer).json()
    assert time.process_time() - began < 1


@pytest.mark.parametrize("texts", [(), ("no data",), ("{broken", "]x[")])
def test_a_text_without_json_is_an_error_with_the_text(texts: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="run/key: some/model did not return JSON but"):
        result(*texts).json()


@pytest.mark.parametrize(
    ("answer", "face"),
    [
        ({"sessionId": "7", "faceId": "9", "startTime": 10, "endTime": 900}, ("7", "9", 10, 900)),
        ({"sessionId": 7, "faceId": 9}, ("7", "9", 0, None)),
        (
            {"session_id": "7", "face_data": [{"face_id": "9", "start_time": 5, "end_time": 6}, {"face_id": "8"}, 1]},
            ("7", "9", 5, 6),
        ),
    ],
)
def test_a_face_is_read_with_all_known_names(answer: dict[str, Any], face: tuple[str, str, int, int | None]) -> None:
    found = result(json.dumps(answer)).parse(Face)
    assert (found.session_id, found.face_id, found.start_ms, found.end_ms) == face


@pytest.mark.parametrize(
    "answer",
    [
        *({}, {"sessionId": "7"}, {"sessionId": "7", "faces": []}, [1], {"faces": [1]}),
        *({"sessionId": "", "faceId": "9"}, {"sessionId": "7", "faceId": ""}),
    ],
)
def test_an_answer_without_a_face_is_an_error(answer: object) -> None:
    with pytest.raises(InputError, match="does not have the expected form"):
        result(json.dumps(answer)).parse(Face)


class Shot(BaseModel):
    picture: str
    seconds: int = 5


def test_an_answer_is_read_as_a_type() -> None:
    answer = result('Three shots: [{"picture": "a gull"}, {"picture": "a pier", "seconds": 3}]')
    assert answer.parse(list[Shot]) == [Shot(picture="a gull"), Shot(picture="a pier", seconds=3)]


@pytest.mark.parametrize(
    ("answer", "fault", "missing"),
    [
        ('[{"picture": "a gull"}, {}]', r"1\.picture: Field required", 1),
        ("5", "Input should be a", 0),
        ("[{}, {}, {}, {}]", "0", 3),
    ],
    ids=["a missing field", "no list", "many faults"],
)
def test_an_answer_of_another_form_names_up_to_three_faults_and_says_that_it_is_paid_for(
    answer: str, fault: str, missing: int
) -> None:
    said = f"run/key: .* does not have the expected form: {fault}.*answer was paid"
    with pytest.raises(InputError, match=said) as caught:
        result(answer).parse(list[Shot])
    assert caught.value.message.count("Field required") == missing


def test_a_notebook_shows_an_answer_as_text() -> None:
    shown = result("<script>alert(1)</script>")._repr_html_()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "<script>" not in shown
    shown = result("words", label="a pier", reused=True)._repr_html_()
    assert shown == "<div><p>a pier, some/model, reused, job run/key</p><pre>words</pre></div>"


PICTURE = Media(uri="file:///a.png", kind="image", mime="image/png", size=1, sha256="a" * 64)
BROKEN_PICTURE = PICTURE.model_copy(update={"uri": "file:///b.png", "defect": "half a png"})


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ({"outputs": (PICTURE,), "cost": Decimal("0.30"), "currency": "CNY"}, "file:///a.png, 0.30 CNY"),
        ({"outputs": (PICTURE, BROKEN_PICTURE), "reused": True}, "file:///a.png and 1 more, reused"),
        ({"texts": ("a word", "another"), "cost": Decimal(2)}, r"'a word another', 2"),
        ({"texts": ("x" * 100,)}, f"'{'x' * 59}…', cost unknown"),
    ],
)
def test_a_result_is_shown_with_its_first_output_its_cost_and_its_job(facts: dict[str, Any], shown: str) -> None:
    assert repr(result(*facts.pop("texts", ()), **facts)) == f"<Result of some/model: {shown}, job run/key>"


def test_the_outputs_of_a_result() -> None:
    made = result(outputs=(PICTURE, BROKEN_PICTURE))
    assert (made.first_output, made.damaged) == (PICTURE, (BROKEN_PICTURE,))
    with pytest.raises(InputError, match=r"run/key: some/model made no file.*read `\.text`"):
        _ = result("words").first_output


SUBMIT = Submit(1, intent(currency="USD"), ticket())
BAD_NODES = replace(SUBMIT, answer=ticket().model_copy(update={"node_errors": {"3": "no model", "": "no output"}}))
ROW = explain("805")
ENDED = {"status": "SUCCESS", "task_id": TASK, "code": "", "reason": "", "next_task": "later", "advice": ""}
TIMES = {"queued_seconds": 1.235, "run_seconds": 2.346, "attempt": 2}
NO_GRAPH = {"status": "FAILED", "code": BROKEN, "next_task": "never"}
FAILED = {**ENDED, "status": "FAILED", "code": "805", "next_task": ROW.next_task, "advice": ROW.failure_advice}


def view(status: Any, **facts: Any) -> TaskView:
    return TaskView(**({"task_id": TASK, "status": status} | facts))


@pytest.mark.parametrize(
    ("submit", "seen", "currency", "facts"),
    [
        (SUBMIT, view("SUCCESS", usage=Usage(money=Decimal(2))), None, {"cost": Decimal(2), "currency": "USD"}),
        (SUBMIT, view("SUCCESS", usage=Usage(money=Decimal(2))), "EUR", {"cost": Decimal(2), "currency": "EUR"}),
        (replace(SUBMIT, intent=intent()), view("SUCCESS"), None, {"cost": None, "currency": "CNY"}),
        (SUBMIT, view("SUCCESS", usage=Usage(coins=Decimal(7))), "EUR", {"cost": Decimal(7), "currency": "coins"}),
        (SUBMIT, view("SUCCESS", usage=Usage(seconds=9.0)), None, {"run_seconds": 9.0}),
        (replace(SUBMIT, answer=None), view("SUCCESS", task_id="2"), None, {"task_id": "2"}),
        (SUBMIT, view("CANCELLED"), None, {"status": "CANCELLED"}),
        (SUBMIT, view("FAILED", code="805"), None, {**FAILED, "reason": ROW.meaning}),
        (SUBMIT, view("FAILED", code="805", reason="full"), None, {**FAILED, "reason": "full"}),
        (SUBMIT, view("FAILED", code="805", failure=Failure(node_id="3")), None, {**FAILED, "reason": "node 3"}),
        (SUBMIT, view("FAILED"), None, {"status": "FAILED", "reason": ""}),
        (BAD_NODES, view("SUCCESS"), None, {"status": "SUCCESS"}),
        (BAD_NODES, view("CANCELLED"), None, {**NO_GRAPH, "reason": "node 3: no model; no output"}),
    ],
)
def test_the_record_of_an_end(submit: Submit, seen: TaskView, currency: str | None, facts: dict[str, Any]) -> None:
    made = with_times(end_of(submit, seen, attempt=2, currency=currency), queued=1.23456, ran=2.34567)
    known = made.model_dump()
    if "next_task" not in facts and facts.get("status") == "FAILED":
        facts = {**facts, "next_task": explain("").next_task, "advice": explain("").failure_advice}
    expected = {**ENDED, **TIMES, **facts}
    assert {name: known[name] for name in expected} == expected


def test_an_end_without_measured_times_gets_them() -> None:
    output = RemoteOutput(url="https://h/a.png", type="png", node_id="9")
    end = end_of(SUBMIT, view("SUCCESS", outputs=(output,)), attempt=1)
    assert end.links == (Link(url="https://h/a.png", type="png", node_id="9"),)
    assert (end.queued_seconds, end.run_seconds) == (None, None)
    timed: End = with_times(end.model_copy(update={"run_seconds": 5.0}), queued=1.23456, ran=9.0)
    assert (timed.queued_seconds, timed.run_seconds) == (1.235, 5.0)
    assert with_times(end, queued=1.0, ran=2.34567).run_seconds == 2.346
