"""Responses with JSON, in all forms of the models."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from rh_prefect import Face, Result
from rh_prefect.errors import InputError


def result(*texts: str) -> Result:
    facts = {"model": "some/model", "endpoint": "some/model", "job": "run/key", "key": "key", "task_id": "1"}
    return Result(**facts, texts=texts)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, 2]}',
        'Here you are:\n```json\n{"a": [1, 2]}\n```\nEnjoy.',
        '```\n{"a": [1, 2]}\n```',
        'The answer is {"a": [1, 2]}, as asked.',
    ],
)
def test_json_is_found_within_text_and_code_fences(text: str) -> None:
    assert result("a word first", text).json() == {"a": [1, 2]}


def test_a_json_list_is_found() -> None:
    assert result("Three: [1, 2, {}] and no more").json() == [1, 2, {}]


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
            {"session_id": "7", "face_data": [{"face_id": "9", "start_time": 5, "end_time": 6}, {"face_id": "8"}]},
            ("7", "9", 5, 6),
        ),
    ],
)
def test_a_face_is_read_with_all_known_names(answer: dict[str, Any], face: tuple[str, str, int, int | None]) -> None:
    found = result(json.dumps(answer)).parse(Face)
    assert (found.session_id, found.face_id, found.start_ms, found.end_ms) == face


@pytest.mark.parametrize("answer", [{}, {"sessionId": "7"}, {"sessionId": "7", "faces": []}, [1], {"faces": [1]}])
def test_an_answer_without_a_face_is_an_error(answer: object) -> None:
    with pytest.raises(InputError, match="does not have the expected form"):
        result(json.dumps(answer)).parse(Face)


class Shot(BaseModel):
    picture: str
    seconds: int = 5


def test_an_answer_is_read_as_a_type() -> None:
    answer = result('Three shots: [{"picture": "a gull"}, {"picture": "a pier", "seconds": 3}]')
    assert answer.parse(list[Shot]) == [Shot(picture="a gull"), Shot(picture="a pier", seconds=3)]


def test_an_answer_of_another_form_says_where_and_that_it_is_paid_for() -> None:
    with pytest.raises(
        InputError, match=r"run/key: .* does not have the expected form: 1\.picture: Field required.*It is paid for"
    ):
        result('[{"picture": "a gull"}, {}]').parse(list[Shot])


def test_a_notebook_shows_an_answer_as_text() -> None:
    shown = result("<script>alert(1)</script>")._repr_html_()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "<script>" not in shown
