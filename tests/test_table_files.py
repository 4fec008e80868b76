"""Tables that the package writes; how it reads them is tested with the batches and pipelines that read them."""

from __future__ import annotations

import csv
import io

import pytest

from rh_prefect.table_files import csv_text


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
