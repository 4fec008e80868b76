"""Reads the rows of CSV, TSV, JSON lines and Parquet tables from any fsspec location, and writes CSV."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from decimal import Decimal
from importlib import import_module
from itertools import chain, zip_longest
from math import isnan
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, TextIO

from rh_prefect.errors import ConfigError, InputError
from rh_prefect.media.input_files import open_input, shown
from rh_prefect.media.storage_errors import guarded, pieces_of
from rh_prefect.media.storage_urls import is_local
from rh_prefect.settings import get_settings
from rh_prefect.works.input_identification import open_local

TableFormat = Literal["csv", "tsv", "jsonl", "parquet"]
_FORMATS: dict[str, TableFormat] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}

MOST_BYTES = 100 * 1024 * 1024
_LONGEST_CELL = 2**24
"""Maximum number of characters in one cell of a table."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of cells that spreadsheets evaluate as formulas; see OWASP, CSV injection."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table, numbered from 1 after the header; `problem` says what is wrong."""

    number: int
    values: Mapping[str, object]
    problem: str = ""


def table_format(place: str) -> TableFormat | None:
    """Returns the format of a table from the extension of its name; None for an unknown extension."""
    return _FORMATS.get(PurePosixPath(place if is_local(place) else place.partition("?")[0]).suffix.lower())


def read_table(
    address: str,
    format_: TableFormat,
    *,
    options: Mapping[str, object] | None = None,
    most_bytes: int = MOST_BYTES,
) -> Iterator[Row]:
    """Yields the rows of a table, whose file is read meanwhile."""
    name = shown(address)
    if format_ == "parquet":
        yield from _parquet(address, options or {}, most_bytes)
        return
    with open_input(address, options=options) as reader:
        content = guarded(_limited(reader, most_bytes, name), nullcontext)
        # Spreadsheets write a byte order mark.
        text = io.TextIOWrapper(content, encoding="utf-8-sig", newline="")
        try:
            yield from _json_lines(text) if format_ == "jsonl" else _csv(text, "\t" if format_ == "tsv" else ",", name)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name}: the file cannot be read as a table: {error}. What to do: save the file as UTF-8 text."
            ) from None


def _limited(reader: BinaryIO, most: int, name: str) -> Iterator[bytes]:
    """Yields the content of a file; raises an error if the file is larger than `most` bytes."""
    size = 0
    for piece in pieces_of(reader.read):
        size += len(piece)
        _check_size(size, most, name)
        yield piece


def _check_size(size: int, most: int, name: str) -> None:
    if size > most:
        raise InputError(
            f"{name}: the table is larger than {most // 1024 // 1024} MiB. What to do: use a smaller table."
        )


def _csv(text: TextIO, delimiter: str, name: str) -> Iterator[Row]:
    head = _until_filled(text)
    first = head[-1] if head else ""
    # In many countries, spreadsheets write semicolons; no parameter has one in its name.
    used = ";" if delimiter == "," and ";" in first and "," not in first else delimiter
    lines = _lines(chain(head, text), used, name)
    columns = [column.strip() for column in next(lines, ())]
    _refuse_twice(columns, name)
    for number, cells in enumerate(lines, 1):
        more = len(cells) - len(columns)
        problem = f"it has {more} more cell(s) than the header" if more > 0 else ""
        yield _row(number, columns, cells[: len(columns)], problem)


def _until_filled(text: Iterable[str]) -> list[str]:
    """Returns the lines up to and including the first one that is not blank."""
    head = []
    for line in text:
        head.append(line)
        if line.strip():
            break
    return head


def _row(number: int, columns: Sequence[str], cells: Sequence[object], problem: str = "") -> Row:
    """Returns a row of a table; a cell in a column without a name makes the row invalid."""
    pairs = list(zip_longest(columns, cells, fillvalue=""))
    nameless = next((n for n, (column, cell) in enumerate(pairs, 1) if not (column or is_empty(cell))), None)
    if nameless is not None and not problem:
        problem = (
            f"it has a cell in column {nameless}, which has no name. What to do: name the column, or empty the cell; "
            "put a value that contains a separator in quotes."
        )
    return Row(number, {column: cell for column, cell in pairs if column}, problem=problem)


def is_empty(cell: object) -> bool:
    """Returns whether a cell contains nothing, white space only, or `nan`, which is a data frame's missing value."""
    if isinstance(cell, float):
        return isnan(cell)
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _is_blank(cells: Iterable[object]) -> bool:
    """Returns whether all cells of a line are empty: spreadsheets write such lines below the rows."""
    return all(map(is_empty, cells))


def allow_long_cells() -> None:
    """Raises the limit of `csv` for cells, for the whole process; some prompts and lists of files are longer."""
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))


def _lines(text: Iterable[str], delimiter: str, name: str) -> Iterator[list[str]]:
    """Yields the header and the rows of a table, without lines whose cells are all empty."""
    allow_long_cells()
    # Strict: otherwise, an unclosed quote would join all following rows to one.
    lines, begins = csv.reader(text, delimiter=delimiter, strict=True), 1
    try:
        for cells in lines:
            begins = lines.line_num + 1
            if not _is_blank(cells):
                yield cells
    except csv.Error as error:
        if "field limit" in str(error):
            raise InputError(
                f"{name}: the file cannot be read as a table: the row that begins in line {begins} has a cell of more "
                f"than {csv.field_size_limit()} characters. What to do: shorten the text of the cell."
            ) from None
        raise InputError(
            f"{name}: the file cannot be read as a table: the row that begins in line {begins} has a quote that is "
            f"not closed, or closed too early ({error}). What to do: close the quote, and "
            "write a quote within quotes twice."
        ) from None


def _refuse_twice(columns: Sequence[str], name: str) -> None:
    """Raises an error if two columns have the same name."""
    twice = next((column for column, count in Counter(columns).items() if column and count > 1), None)
    if twice is not None:
        numbers = " and ".join(str(number) for number, column in enumerate(columns, 1) if column == twice)
        raise InputError(f"{name}: columns {numbers} have the same name, {twice!r}. What to do: leave one of them out.")


def _json_lines(text: TextIO) -> Iterator[Row]:
    for number, line in enumerate(filter(str.strip, text), 1):
        try:
            value = json.loads(line, object_pairs_hook=_object)
        except InputError as error:
            yield Row(number, {}, problem=error.message)
        except ValueError as error:
            yield Row(number, {}, problem=f"it is not JSON: {error}")
        except RecursionError:
            nested = "it contains lists or objects that are nested too deeply. What to do: correct the row."
            yield Row(number, {}, problem=nested)
        else:
            yield Row(number, value) if isinstance(value, dict) else Row(number, {}, problem="it is not a JSON object")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    twice = next((name for name, count in Counter(name for name, _ in pairs).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"it contains the name {twice!r} twice. What to do: remove one of them.")
    return dict(pairs)


def _parquet(address: str, options: Mapping[str, object], most_bytes: int) -> Iterator[Row]:
    try:
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(
            f"{shown(address)}: Parquet needs pyarrow. What to do: run pip install 'rh-prefect[parquet]', or save the "
            "table as CSV."
        ) from None
    folder, name = get_settings().state_dir / "inputs", shown(address)
    with open_local(
        address, folder, options=options, check_size=lambda size: _check_size(size, most_bytes, name)
    ) as held:
        lines = _parquet_lines(parquet, held.path, name)
        columns, number = next(lines), 0
        _refuse_twice(columns, name)
        for values in lines:
            cells = [_cell(value) for value in values]
            if not _is_blank(cells):
                number += 1
                yield _row(number, columns, cells)


def _parquet_lines(parquet: Any, path: Path, name: str) -> Iterator[Sequence[Any]]:
    """Yields the names of the columns, and the values of each row."""
    try:
        file = parquet.ParquetFile(path)
        yield file.schema_arrow.names
        for batch in file.iter_batches(batch_size=1000):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
    # The base classes of Arrow's own errors; the last two are those of times that Python does not have.
    except (ValueError, OSError, NotImplementedError, ArithmeticError, LookupError) as error:
        raise InputError(
            f"{name}: the file cannot be read as Parquet: {error}. Nothing was sent. What to do: write the file again."
        ) from None


def _cell(value: object) -> object:
    """Converts a `Decimal` to a number, and `nan` (a data frame's missing value) to None; keeps all other values."""
    if isinstance(value, Decimal):
        value = int(value) if value == value.to_integral_value() else float(value)
    return None if isinstance(value, float) and isnan(value) else value


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Writes rows as CSV; puts an apostrophe before strings that a spreadsheet would evaluate as formulas."""
    text = io.StringIO()
    table = csv.DictWriter(text, columns)
    table.writeheader()
    table.writerows({name: _as_text(cell) for name, cell in row.items()} for row in rows)
    return text.getvalue()


def _as_text(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    valid = cell.encode("utf-8", "backslashreplace").decode()
    return f"'{valid}" if valid.startswith(_FORMULA) else valid
