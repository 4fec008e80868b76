"""Where a batch's rows come from: a list, a manifest (CSV, TSV, JSON lines, Parquet), a folder or a glob."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, TypeAlias

from fsspec.core import url_to_fs

from rh_prefect.errors import ConfigError, InputError
from rh_prefect.jobs.orders.inputs import fetched
from rh_prefect.media.place import is_local, local_path, protocol_of, read_options, without_user
from rh_prefect.media.ref import Media, as_media_input
from rh_prefect.media.refusal import as_store_error
from rh_prefect.media.source import identity_uri, open_input, shown
from rh_prefect.media.store import MediaStore
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
        is_folder: Whether its files are those of a folder, of which some may be of another kind.
    """

    name: str
    identity: str
    base: str | None
    rows: Callable[[], Iterator[Row]]
    is_folder: bool = False


def open_source(given: Given, *, store: MediaStore) -> Source:
    """Finds out what a batch's rows are; they are read later.

    Args:
        given: A manifest, a folder, a glob, or a list of rows.
        store: Where outputs go; its options open what is in the same kind of place.

    Raises:
        InputError: It is none of these.
    """
    if not isinstance(given, str):
        return _listed(given)
    if not given.strip():
        raise InputError("batch: no rows were named. What to do: name a manifest, a folder, a glob, or give a list.")
    form = _FORMS.get(PurePosixPath(given.partition("?")[0]).suffix.lower())
    if _is_pattern(given):
        return _globbed(given, store.options_for(given))
    if form is not None:
        return _manifest(given, form, store.options_for(given))
    return _folder(given, store)


def _listed(given: Iterable[Any]) -> Source:
    rows = [_row(number, value) for number, value in enumerate(given, 1)]
    text = json.dumps([[_content(row.file), row.values] for row in rows], sort_keys=True, default=_content)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return Source(name=f"a list of {len(rows)}", identity=f"list:{digest}", base=None, rows=lambda: iter(rows))


def _row(number: int, value: object) -> Row:
    if isinstance(value, Mapping) and not _is_media(value):
        return Row(number, {str(name): one for name, one in value.items()})
    try:
        return Row(number, {}, file=as_media_input(value))
    except InputError as error:
        return Row(number, {}, problem=error.message)


def _is_media(value: Mapping[Any, Any]) -> bool:
    return {"uri", "sha256", "kind"} <= value.keys()


def _content(value: object) -> str:
    """What stands for a value in the identity of a list: a file's content, a link without its signature."""
    if value is None:
        return ""
    try:
        media = as_media_input(value)
    except InputError:
        return repr(value)
    return f"sha256:{media.sha256}" if isinstance(media, Media) else identity_uri(media)


def _is_pattern(given: str) -> bool:
    return "*" in given or ("[" in given and "]" in given) or ("?" in given and "://" not in given)


def _manifest(given: str, form: Form, options: Mapping[str, object]) -> Source:
    head = without_user(given)
    base = str(Path(local_path(given)).parent) if is_local(given) else head.partition("?")[0].rpartition("/")[0]
    readers = {"csv": _csv(","), "tsv": _csv("\t"), "jsonl": _json_lines}

    def rows() -> Iterator[Row]:
        if form == "parquet":
            yield from _parquet(given, options)
            return
        with open_input(given, options=options) as reader:
            yield from _whole_text(readers[form](reader), given)

    return Source(name=shown(given), identity=identity_uri(given), base=base, rows=rows)


def _whole_text(rows: Iterator[Row], given: str) -> Iterator[Row]:
    try:
        yield from rows
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{shown(given)}: cannot be read as a manifest: {error}. What to do: save it as UTF-8 text."
        ) from None


def _csv(delimiter: str) -> Callable[[BinaryIO], Iterator[Row]]:
    def read(reader: BinaryIO) -> Iterator[Row]:
        # Spreadsheets write a byte order mark.
        text = io.TextIOWrapper(reader, encoding="utf-8-sig", newline="")
        for number, cells in enumerate(csv.DictReader(text, delimiter=delimiter, restval=""), 1):
            more = cells.pop(None, None)  # how DictReader tells of cells without a column
            problem = f"it has {len(more)} cell(s) more than the header has columns" if more else ""
            yield Row(number, {name.strip(): cell for name, cell in cells.items()}, problem=problem)

    return read


def _json_lines(reader: BinaryIO) -> Iterator[Row]:
    lines = (line for line in io.TextIOWrapper(reader, encoding="utf-8-sig") if line.strip())
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
        except ValueError as error:
            yield Row(number, {}, problem=f"it is no JSON: {error}")
            continue
        yield Row(number, value) if isinstance(value, dict) else Row(number, {}, problem="it is no JSON object")


def _parquet(given: str, options: Mapping[str, object]) -> Iterator[Row]:
    try:
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(
            f"{shown(given)}: Parquet needs pyarrow. What to do: pip install 'rh-prefect[parquet]', or save it as CSV."
        ) from None
    with fetched(given, get_settings().state_dir / "inputs", options=options) as (path, _, _):
        try:
            batches = parquet.ParquetFile(path).iter_batches(batch_size=1000)
            number = 0
            for batch in batches:
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, values)
        except (ValueError, OSError) as error:
            raise InputError(f"{shown(given)}: cannot be read as Parquet: {error}.") from None


def _folder(given: str, store: MediaStore) -> Source:
    folder = MediaStore(given, options=dict(store.options_for(given)))
    if folder.url == store.url:
        raise InputError(
            f"batch: outputs would go to {folder.url}, the very folder whose files are the rows. "
            "What to do: name another place for outputs."
        )

    def rows() -> Iterator[Row]:
        uris = (folder.uri(name) for name in folder.list())
        # What earlier runs have made in there is no input.
        is_below = store.url.startswith(f"{folder.url}/")
        return _files(uri for uri in uris if not (is_below and store.name_of(uri) is not None))

    return Source(name=folder.url, identity=identity_uri(folder.url), base=None, rows=rows, is_folder=True)


def _globbed(given: str, options: Mapping[str, object]) -> Source:
    def rows() -> Iterator[Row]:
        with as_store_error("list", without_user(given), options=options):
            protocol = protocol_of(given)
            pattern = local_path(given) if protocol == "file" else given
            fs, path = url_to_fs(pattern, **read_options(protocol, options))
            found = sorted(str(name) for name, facts in fs.glob(path, detail=True).items() if facts["type"] == "file")
        return _files(found if protocol == "file" else (f"{protocol}://{name}" for name in found))

    name = local_path(given) if is_local(given) else without_user(given)
    return Source(name=name, identity=f"glob:{name}", base=None, rows=rows)


def _files(uris: Iterable[str]) -> Iterator[Row]:
    return (Row(number, {}, file=uri) for number, uri in enumerate(uris, 1))
