"""Where a batch's rows come from: manifests, folders, globs and lists, without the outputs of earlier batches."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from glob import escape
from importlib import import_module
from itertools import zip_longest
from math import isnan
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any, BinaryIO, Literal, TypeAlias

from fsspec.core import url_to_fs

from rh_prefect.errors import ConfigError, InputError
from rh_prefect.jobs.requests.input_copies import is_copy
from rh_prefect.jobs.requests.inputs import fetched
from rh_prefect.media.media import Media, as_media_input
from rh_prefect.media.names import safe
from rh_prefect.media.source import identity_uri, open_input, shown, unsigned_uri
from rh_prefect.media.storage_errors import as_store_error
from rh_prefect.media.store import MediaStore
from rh_prefect.media.urls import is_local, local_path, protocol_of, read_options, without_user
from rh_prefect.plain_values import snapshot
from rh_prefect.settings import get_settings

Given: TypeAlias = str | Sequence[Any]
"""What a batch is made of: a place, or rows that are mappings of parameters or files."""

Form = Literal["csv", "tsv", "jsonl", "parquet"]
_FORMS: dict[str, Form] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}

_LONGEST_CELL = 2**24
"""Characters of one cell of a table."""

_TROUBLES: tuple[tuple[type[Exception], str], ...] = (
    (UnicodeError, "it holds text that is no UTF-8, such as half of a character"),
    (OverflowError, "it holds a number that is too large"),
    (RecursionError, "it holds lists or objects that are nested too deeply"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was found.

    Attributes:
        number: From 1, without a header.
        values: Columns and their values.
        file: The row is this one file, for whatever parameter takes it.
        problem: Why it cannot be read, if so.
    """

    number: int
    values: Mapping[str, object]
    file: str | Media | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """A batch's rows.

    Attributes:
        name: Where they are from, for people.
        identity: The same for the same source, whatever it holds now; of a list, its content.
        base: The folder that relative paths start from; None for the working folder.
        rows: Reads them.
        root: The folder or prefix that it lies in, below which its files may be read; empty for a list.
        is_folder: Whether its files are those of a folder, of which some may be of another kind.
        is_table: Whether its rows have columns in common, so that each row names all of them.
    """

    name: str
    identity: str
    base: str | None
    rows: Callable[[], Iterator[Row]]
    root: str = ""
    is_folder: bool = False
    is_table: bool = False


def open_source(given: Given, *, store: MediaStore, fields: Mapping[str, str] | None = None) -> Source:
    """Finds out what a batch's rows are; they are read later.

    Args:
        given: A manifest, a folder, a glob, or a list of rows.
        store: Where outputs go; its options open what is in the same kind of place.
        fields: What this run's outputs have in the place's template, as far as it is known: `flow` and `run`.

    Raises:
        InputError: It is none of these, or the files of a folder or a glob could be this batch's own outputs.
    """
    if not isinstance(given, str):
        return _listed(given)
    if not given.strip():
        raise InputError("batch: no rows were named. What to do: name a manifest, a folder, a glob, or give a list.")
    form = _FORMS.get(PurePosixPath(given if is_local(given) else given.partition("?")[0]).suffix.lower())
    # A name may hold brackets: what is there under this very name is meant.
    if _is_pattern(given) and not _exists(given, store.options_for(given)):
        return _globbed(given, store, fields or {})
    if form is not None:
        return _manifest(given, form, store.options_for(given))
    return _folder(given, store, fields or {})


def trouble(error: Exception) -> str:
    """Says in words what is wrong with a row that something stumbled over.

    Args:
        error: What it raised.
    """
    known = next((words for kind, words in _TROUBLES if isinstance(error, kind)), None)
    return f"{known or f'it cannot be read: {type(error).__name__}: {error}'}. What to do: correct the row."


def _listed(given: Iterable[Any]) -> Source:
    read = [_row(number, value) for number, value in enumerate(given, 1)]
    digest = hashlib.sha256(f"[{', '.join(text for _, text in read)}]".encode("utf-8", "surrogatepass")).hexdigest()
    rows = [row for row, _ in read]
    return Source(name=f"a list of {len(rows)}", identity=f"list:{digest}", base=None, rows=lambda: iter(rows))


def _row(number: int, value: object) -> tuple[Row, str]:
    """One row of a list, and what stands for it in the list's identity; what cannot be read is a bad row."""
    try:
        if isinstance(value, Mapping) and not _is_media(value):
            row = Row(number, {str(name): snapshot(one) for name, one in value.items()})
        else:
            row = Row(number, {}, file=as_media_input(value))
        return row, _text(row)
    except InputError as error:
        row = Row(number, {}, problem=error.message)
    except Exception as error:  # whatever it holds: it is this row's trouble alone
        row = Row(number, {}, problem=trouble(error))
    return row, _text(row)


def _text(row: Row) -> str:
    return json.dumps([_content(row.file), _named(row.values)], sort_keys=True, default=_content)


def _named(value: object) -> object:
    """Values as they tell a list from another: a link that is merely signed again is the same one."""
    if isinstance(value, Mapping):
        return {name: _named(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_named(one) for one in value]
    return (unsigned_uri(value) or value) if isinstance(value, str) else value


def _is_media(value: Mapping[Any, Any]) -> bool:
    return {"uri", "sha256", "kind"} <= value.keys()


def _content(value: object) -> str:
    """What stands for a value in the identity of a list: a known file's content, else the value as it is written."""
    if value is None:
        return ""
    try:
        media = as_media_input(value)
        return f"sha256:{media.sha256}" if isinstance(media, Media) else str(_named(media))
    except InputError:  # it is not a file
        return repr(value)


def _is_pattern(given: str) -> bool:
    return "*" in given or ("[" in given and "]" in given) or ("?" in given and "://" not in given)


def _exists(given: str, options: Mapping[str, object]) -> bool:
    try:
        if is_local(given):
            return Path(local_path(given)).exists()
        fs, path = url_to_fs(given, **read_options(protocol_of(given), options))
        return bool(fs.exists(path))
    except Exception:  # then it is listed as a pattern, and that says what is wrong with the place
        return False


def _manifest(given: str, form: Form, options: Mapping[str, object]) -> Source:
    head = without_user(given)
    base = str(Path(local_path(given)).parent) if is_local(given) else head.partition("?")[0].rpartition("/")[0]
    name = shown(given)
    readers = {"csv": _csv(",", name), "tsv": _csv("\t", name), "jsonl": _json_lines}

    def rows() -> Iterator[Row]:
        if form == "parquet":
            yield from _parquet(given, options)
            return
        with open_input(given, options=options) as reader:
            yield from _whole_text(readers[form](reader), name)

    is_table = form != "jsonl"
    identity = unsigned_uri(given) or identity_uri(given)
    return Source(name=name, identity=identity, base=base, rows=rows, root=base, is_table=is_table)


def _whole_text(rows: Iterator[Row], name: str) -> Iterator[Row]:
    try:
        yield from rows
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: cannot be read as a manifest: {error}. What to do: save it as UTF-8 text.") from None


def _csv(delimiter: str, name: str) -> Callable[[BinaryIO], Iterator[Row]]:
    def read(reader: BinaryIO) -> Iterator[Row]:
        # Spreadsheets write a byte order mark.
        text = io.TextIOWrapper(reader, encoding="utf-8-sig", newline="")
        lines = _lines(text, delimiter, name)
        columns = [column.strip() for column in next(lines, ())]
        _refuse_twice(columns, name)
        for number, cells in enumerate(lines, 1):
            more = len(cells) - len(columns)
            problem = f"it has {more} cell(s) more than the header has columns" if more > 0 else ""
            yield Row(number, dict(zip_longest(columns, cells[: len(columns)], fillvalue="")), problem=problem)

    return read


def _lines(text: Iterable[str], delimiter: str, name: str) -> Iterator[list[str]]:
    """The header and the rows of a table, without empty lines."""
    # Of the whole process, and never lowered: the default is less than some prompts have.
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))
    # Strict: else a quote that is not closed makes one row of all that follow it.
    lines, begins = csv.reader(text, delimiter=delimiter, strict=True), 1
    try:
        for cells in lines:
            begins = lines.line_num + 1
            if cells:
                yield cells
    except csv.Error as error:
        if "field limit" in str(error):
            raise InputError(
                f"{name}: cannot be read as a table: the row that begins in line {begins} has a cell of more than "
                f"{csv.field_size_limit()} characters. What to do: shorten it."
            ) from None
        raise InputError(
            f"{name}: cannot be read as a table: the row that begins in line {begins} has a quote that is not closed, "
            f"or closed too early ({error}). What to do: close it; a quote within quotes is written twice."
        ) from None


def _refuse_twice(columns: Sequence[str], name: str) -> None:
    """Refuses two columns of one name: nobody can tell which of them is to be paid for."""
    twice = next((column for column, count in Counter(columns).items() if column and count > 1), None)
    if twice is not None:
        numbers = " and ".join(str(number) for number, column in enumerate(columns, 1) if column == twice)
        raise InputError(f"{name}: columns {numbers} have the same name, {twice!r}. What to do: leave one of them out.")


def _json_lines(reader: BinaryIO) -> Iterator[Row]:
    lines = (line for line in io.TextIOWrapper(reader, encoding="utf-8-sig") if line.strip())
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line, object_pairs_hook=_object)
        except InputError as error:
            yield Row(number, {}, problem=error.message)
        except ValueError as error:
            yield Row(number, {}, problem=f"it is no JSON: {error}")
        except RecursionError as error:
            yield Row(number, {}, problem=trouble(error))
        else:
            yield Row(number, value) if isinstance(value, dict) else Row(number, {}, problem="it is no JSON object")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    twice = next((name for name, count in Counter(name for name, _ in pairs).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"it names {twice!r} twice. What to do: leave one of them out.")
    return dict(pairs)


def _parquet(given: str, options: Mapping[str, object]) -> Iterator[Row]:
    try:
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(
            f"{shown(given)}: Parquet needs pyarrow. What to do: pip install 'rh-prefect[parquet]', or save it as CSV."
        ) from None
    with fetched(given, get_settings().state_dir / "inputs", options=options) as held:
        try:
            file = parquet.ParquetFile(held.path)
            _refuse_twice(file.schema_arrow.names, shown(given))
            number = 0
            for batch in file.iter_batches(batch_size=1000):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, {column: _cell(value) for column, value in values.items()})
        except (ValueError, OSError, NotImplementedError) as error:  # what Arrow's own errors are
            raise InputError(f"{shown(given)}: cannot be read as Parquet: {error}.") from None


def _cell(value: object) -> object:
    """A number as parameters take it: databases write decimals, and data frames write `nan` where nothing is."""
    if isinstance(value, Decimal):
        value = float(value) if value % 1 else int(value)
    return None if isinstance(value, float) and isnan(value) else value


def _folder(given: str, store: MediaStore, fields: Mapping[str, str]) -> Source:
    folder = MediaStore(given, options=dict(store.options_for(given)))
    refuse_own(folder.url, folder.url, ["**"], store, fields)

    def rows() -> Iterator[Row]:
        return _files(without_outputs((folder.uri(name) for name in folder.list()), folder.url, store))

    url = folder.url
    return Source(name=url, identity=identity_uri(url), base=None, rows=rows, root=url, is_folder=True)


def _globbed(given: str, store: MediaStore, fields: Mapping[str, str]) -> Source:
    name = local_path(given) if is_local(given) else without_user(given)
    top, rest = _fixed(name)
    refuse_own(name, top, rest, store, fields)
    options = store.options_for(given)

    def rows() -> Iterator[Row]:
        with as_store_error("list", without_user(given), options=options):
            protocol = protocol_of(given)
            pattern = local_path(given) if protocol == "file" else given
            fs, path = url_to_fs(pattern, **read_options(protocol, options))
            found = sorted(str(name) for name, facts in fs.glob(path, detail=True).items() if facts["type"] == "file")
        uris = found if protocol == "file" else (f"{protocol}://{name}" for name in found)
        return _files(without_outputs(uris, top, store))

    return Source(name=name, identity=f"glob:{name}", base=None, rows=rows, root=top)


def _fixed(pattern: str) -> tuple[str, list[str]]:
    """The folder that all files of a pattern are in, and the parts of the pattern that follow it."""
    magic = MAGIC.search(pattern)
    end = pattern.rfind("/", 0, magic.start() if magic else None)
    return pattern[: end + 1], pattern[end + 1 :].split("/")


def _files(uris: Iterable[str]) -> Iterator[Row]:
    return (Row(number, {}, file=uri) for number, uri in enumerate(uris, 1))


MAGIC = re.compile(r"[*?\[]")
"""What makes a part of a path a pattern, as fsspec reads it."""


def without_outputs(uris: Iterable[str], folder: str, store: MediaStore) -> Iterator[str]:
    """Leaves out what lies in the place if that is within the folder: what earlier runs have made is not an input.

    Copies of inputs in the place are left out wherever the folder is.

    Args:
        uris: The files.
        folder: The folder that they are in.
        store: The place.
    """
    outer, place = _where(folder).rstrip("/"), _where(store.url).rstrip("/")
    # In the folder's own spelling: a link may lead to it, but none is followed on the way down.
    inner = f"{_spelt(folder).rstrip('/')}{place[len(outer) :]}/" if place.startswith(f"{outer}/") else None
    outputs = (uri for uri in uris if inner is None or not _spelt(uri).startswith(inner))
    return (uri for uri in outputs if not is_copy(_spelt(uri).removeprefix(f"{_spelt(store.url).rstrip('/')}/")))


def refuse_own(name: str, folder: str, rest: Sequence[str], store: MediaStore, fields: Mapping[str, str]) -> None:
    """Refuses files from within the place where this batch's outputs could be among them: each run would add rows.

    Args:
        name: The folder or the glob.
        folder: The folder that the files are in.
        rest: What follows it, as the parts of a pattern.
        store: The place.
        fields: What this run's outputs have in its template, as far as it is known.

    Raises:
        InputError: They could.
    """
    inner, place = _where(folder).rstrip("/"), _where(store.url).rstrip("/")
    if not f"{inner}/".startswith(f"{place}/"):
        return
    between = [escape(part) for part in inner[len(place) :].split("/") if part]
    if _could_meet([*between, *rest], _own_names(store, fields)):
        raise InputError(
            f"batch: the rows come from {name}, which is within the place that outputs go to, {store.url}; the next "
            "run would take its own outputs for rows and pay again. What to do: name another place for outputs, or "
            "give a manifest or a list of the files."
        )


def _own_names(store: MediaStore, fields: Mapping[str, str]) -> list[str]:
    """What the names of this batch's outputs look like: a pattern for each part of the path.

    This run's own name suffices: later runs of a batch name their outputs after the first one, and that was refused
    if its rows could be its outputs.
    """
    text = ""
    for literal, field, form, conversion in Formatter().parse(store.template):
        is_known = field in fields and not form and not conversion
        text += escape(literal) + ("" if field is None else escape(safe(fields[field])) if is_known else "*")
    return text.split("/")


def _could_meet(sought: Sequence[str], made: Sequence[str]) -> bool:
    """Whether one path may fit both patterns; where that is not certainly impossible, it may."""
    for one, other in zip(sought, made):
        if "**" in one:
            return True
        if not _fit(one, other):
            return False
    return len(sought) >= len(made) and all("**" in part for part in sought[len(made) :])


def _fit(one: str, other: str) -> bool:
    if MAGIC.search(one) and MAGIC.search(other):
        return True
    return fnmatchcase(other, one) or fnmatchcase(one, other)


def _where(url: str) -> str:
    """Where a place really is: a link to it is no other place."""
    return os.path.realpath(_spelt(url)) if is_local(url) else _spelt(url)


def _spelt(url: str) -> str:
    """The one spelling of a place or a file, to compare it."""
    if is_local(url):
        return local_path(url)
    return f"{protocol_of(url)}://{without_user(url).partition('://')[2].strip('/')}"
