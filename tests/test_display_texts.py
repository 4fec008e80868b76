"""Names of runs, and tables that the package writes; how it reads them is tested with those who read them."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from rh_prefect.display_texts import beginning_of_prompt, with_prompt
from rh_prefect.table_files import csv_text


@pytest.mark.parametrize(
    ("params", "shown"),
    [
        ({"prompt": "a red  mug\non a table"}, "a red mug on a table"),
        ({"prompt": " ", "text": "good morning"}, "good morning"),
        ({"prompt": {"3": {"class_type": "KSampler"}}}, ""),
        ({"imageUrl": "https://x/a.png"}, ""),
    ],
)
def test_the_prompt_of_a_request_is_a_text(params: dict[str, Any], shown: str) -> None:
    assert beginning_of_prompt(params) == shown
    assert with_prompt("model", shown) == (f"model ({shown})" if shown else "model")


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_formula_is_written_as_text(cell: str) -> None:
    """In the reports of pipelines and in the sums of `spend`, too."""
    (row,) = csv.DictReader(io.StringIO(csv_text(["a"], [{"a": cell}]), newline=""))
    assert row == {"a": f"'{cell}"}


def test_other_cells_stay_as_they_are() -> None:
    rows: list[dict[str, object]] = [{"a": "1-2, x", "b": 5}, {"a": "two\nlines", "b": -1}]
    read = list(csv.DictReader(io.StringIO(csv_text(["a", "b"], rows), newline="")))
    assert read == [{"a": "1-2, x", "b": "5"}, {"a": "two\nlines", "b": "-1"}]


def test_half_of_a_character_does_not_stop_a_table() -> None:
    assert csv_text(["a"], [{"a": "\ud800"}]) == "a\r\n\\ud800\r\n"
