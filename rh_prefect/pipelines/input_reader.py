"""Reads the inputs of a pipeline (values, table rows, files) within limits, and checks them against their types."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import PurePath, PurePosixPath
from typing import Any, TypeAlias, TypeVar

from rh_prefect.bounded_caches_and_locks import SingleFlight
from rh_prefect.errors import InputError
from rh_prefect.media.file_types_and_completeness import format_named
from rh_prefect.media.input_access_policy import InputAccess, current_access
from rh_prefect.media.input_files import naming, shown
from rh_prefect.media.media import Media, as_media_input
from rh_prefect.media.probe import probe
from rh_prefect.media.storage_errors import as_store_error
from rh_prefect.media.storage_listing import files_below, files_matching
from rh_prefect.media.storage_urls import is_local, local_path, open_filesystem, protocol_of, without_user
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.check.checked_file import Checked, ItemProblem, report_items
from rh_prefect.pipelines.check.literal_conversion import read_value, wrong_input
from rh_prefect.pipelines.check.values import RESERVED_FOLDERS
from rh_prefect.pipelines.file_model import FILE_TYPES, Param, shown_value
from rh_prefect.pipelines.named_file_saver import SavedNames
from rh_prefect.pipelines.parsed_document import Path, Problems, nearest, visible
from rh_prefect.pipelines.planning_values import ABSENT, File, Items
from rh_prefect.pipelines.types import FILES, kind_of
from rh_prefect.pipelines.use_step_arguments import listed, used_value, wrong_file
from rh_prefect.settings import get_settings
from rh_prefect.table_files import Row, is_empty, read_table, table_format
from rh_prefect.works.input_identification import open_local
from rh_prefect.works.journal.works_journal import options_of_records, records_url
from rh_prefect.works.loop_thread import LOOP

MOST_ROWS = 50_000
MOST_OBJECTS = 100_000
MOST_CELL = 1024 * 1024
OWN_FOLDERS = frozenset({*RESERVED_FOLDERS, "batches"})
"""Folders in a storage that contain this package's records and results."""
T = TypeVar("T")
Table: TypeAlias = tuple[str, str, list[Row]]
"""The name of a table for messages, the folder from which its relative paths start, and its rows."""


class Inputs:
    """The files, folders and tables of parameters; each is read once.

    A run plans again after each result, and all its plans must use the same rows and files.
    """

    def __init__(
        self,
        allow: Sequence[str] = (),  # Folders and prefixes below which a row may name files, beside that of its table
        options: Mapping[str, object] | None = None,
        *,
        own: str = "",
        is_open: bool = False,  # Whether a row may name all files that this process may read
    ) -> None:
        self.allow, self.is_open, self._own = tuple(allow), is_open, own
        self.pipeline = ""  # The name of the pipeline, whose own files in the storage are no inputs
        self.parameters: Sequence[str] = ()  # Of a batch's models: names that a column can also have
        self._options = options or {}
        self._reads: SingleFlight[tuple[str, ...], Any] = SingleFlight(MOST_OBJECTS)

    async def file(self, source: str) -> Media:
        """Returns a file's content hash and properties; see `identify`."""
        return await self._once(("file", source), lambda: identify(source, self._options))

    async def files(self, place: str, kind: str) -> Sequence[str]:
        """Returns the files of one kind in a folder, except those that the pipeline has saved; see `list_files`."""
        found: Sequence[str] = await self._reads.get(("files", place, kind), lambda: self._list(place, kind))
        return found

    async def _list(self, place: str, kind: str) -> Sequence[str]:
        found = await LOOP.in_file_thread(lambda: list_files(place, kind, self._options, own=self._own))
        base = _real(self._own) if self._own else ""
        names = {one: name for one in found if base and (name := _name_in(_real(one), base))}
        if not names:
            return found
        store, settings = MediaStore(self._own, options=self._options), get_settings()
        url = records_url(store, settings)
        saver = SavedNames(url, store, options=options_of_records(url, store, settings), pipeline=self.pipeline)
        saved = await saver.saved_among(names.values())
        others = [one for one in found if names.get(one) not in saved]
        if not others:
            raise InputError(
                f"this pipeline has saved all files of kind {kind} in {shown(place)}, and its results are not its "
                "inputs; to use them as inputs, pass a list of files"
            )
        return others

    async def rows(self, value: Any) -> Table:
        """Returns the rows of a table; see `read_rows`."""
        if not isinstance(value, str):
            return read_rows(value, self._options)
        return await self._once(("rows", value), lambda: read_rows(value, self._options))

    async def _once(self, key: tuple[str, ...], read: Callable[[], T]) -> T:
        found: T = await self._reads.get(key, lambda: LOOP.in_file_thread(read))
        return found


class InputReader:
    """Reads the inputs of one plan."""

    def __init__(self, checked: Checked, problems: Problems, inputs: Inputs) -> None:
        self._checked, self._problems, self._inputs = checked, problems, inputs
        self._rows: list[ItemProblem] = []
        self._skips = checked.file.invalid_items == "skip"
        self._files: dict[str, Media | None] = {}  # in the order in which they are named
        self._tables: dict[str, dict[str, Any]] = {}
        self._used: dict[int, InputReader] = {}
        self._defaults: dict[str, Any] = {}

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """The location and hash of each file and table that was read; a table's hash covers its declared `columns`."""
        files = [{"uri": shown(media), "sha256": media.sha256} for media in self._files.values() if media is not None]
        further = (one for reader in self._used.values() for one in reader.inputs)
        return [*({"uri": uri, **table} for uri, table in self._tables.items()), *files, *further]

    async def bind(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Reads and checks the value of each parameter; reports unknown, missing and wrong parameters as problems."""
        params = self._checked.file.params
        for name in arguments:
            if name not in params:
                hint = nearest(name, params, none="it has no parameters")
                self._say(("params",), f"{self._checked.file.name or 'the pipeline'} has no parameter {name}; {hint}")
        values = await asyncio.gather(*(self._param(name, param, arguments) for name, param in params.items()))
        report_items(self._problems, self._rows, of_rows=True)
        return dict(zip(params, values, strict=True))

    async def bind_used(self, used: Checked, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Returns the value of each parameter of a used file, and a clause for each wrong value."""
        reader = self._used.setdefault(id(used), InputReader(used, self._problems, self._inputs))
        values: dict[str, Any] = {}
        wrong: dict[str, str] = {}
        for name, param in used.file.params.items():
            value = arguments.get(name, ABSENT)
            if value is ABSENT or (isinstance(value, str) and not value):
                values[name] = await reader._default(name, param)
                continue
            values[name], clause = used_value(name, param, value)
            wrong |= {name: clause} if clause else {}
        return values, wrong

    async def _default(self, name: str, param: Param) -> Any:
        """Reads the default of a used file's parameter once; a path in the default is relative to the used file."""
        if name not in self._defaults:
            value, folder = param.default, self._checked.folder
            if param.kind in ("table", "files", *FILE_TYPES) and folder is not None:
                value = _placed(param, value, folder.as_posix())
            at = ("params", name)
            self._defaults[name] = ABSENT if value is None else await self._value(at, name, param, value)
            report_items(self._problems, self._rows, of_rows=True)
        return self._defaults[name]

    def _say(self, path: Path, message: str) -> None:
        self._problems.add(self._checked.document, path, visible(message), key=True)

    async def _param(self, name: str, param: Param, arguments: Mapping[str, Any]) -> Any:
        value = arguments.get(name)
        if value is None or value == "":
            value = param.default
        if value is None:
            if not param.optional:
                self._say(("params", name), f"{name} is missing; set it with --set {name}=…")
            return ABSENT
        return await self._value(("params", name), name, param, value)

    async def _value(self, path: Path, name: str, param: Param, value: Any) -> Any:
        try:
            if param.kind == "table":
                return await self._table(path, param, value)
            if param.kind == "files":
                return await self._listed(param, value)
            if param.kind in FILE_TYPES:
                return await self._file(param, as_media_input(value), name)
        except InputError as error:
            self._say(path, f"{name}: {error.message}")
            return ABSENT
        value = read_value(param, value)
        wrong = wrong_input(param, value)
        if wrong:
            self._say(path, f"{name} {wrong}")
        return listed(param, value)

    # -- files -----------------------------------------------------------------------------------------------------

    async def _file(self, param: Param, source: Media | str, what: str) -> File:
        media = source if isinstance(source, Media) else await self._identified(source)
        if wrong := wrong_file(param, media, what):
            raise InputError(wrong)
        kind = media.kind if media.kind in FILES else "file"
        address = media.uri if isinstance(source, Media) else source
        return File(kind, f"sha256:{media.sha256}", media, label=media.name, address=address)

    async def _identified(self, source: str) -> Media:
        self._files.setdefault(source, None)
        media = self._files[source] = await self._inputs.file(source)
        return media

    async def _listed(self, param: Param, value: Any) -> Items:
        kind = kind_of(param.of or "file")
        if isinstance(value, str):
            found: Sequence[Any] = await self._inputs.files(value, kind)
            if not found:
                raise InputError(
                    f"there is no file of kind {kind} in {shown(value)}; correct the folder or the pattern"
                )
        else:
            found = value if isinstance(value, list | tuple) else [value]
        return Items(tuple(await asyncio.gather(*(self._listed_file(param, one) for one in found))))

    async def _listed_file(self, param: Param, value: Any) -> File:
        """Returns a file in a list; if invalid items are skipped, an unusable file is returned with its problem."""
        try:
            return await self._file(param, as_media_input(value), "it")
        except InputError as error:
            if not self._skips:
                raise
            name = PurePath(shown(value)).name if isinstance(value, str) else ""
            media = Media(uri=name, kind="other", mime="", size=0, sha256="")
            return File("file", f"unusable:{name}", media, label=name, problem=error.message)

    # -- tables ----------------------------------------------------------------------------------------------------

    async def _table(self, path: Path, param: Param, value: Any) -> Items:
        name, root, rows = await self._inputs.rows(value)
        columns = param.columns or {}
        if isinstance(value, str):
            names = [header for one, column in columns.items() for header in column.headers or (one,)]
            self._tables[shown(value)] = {"sha256": _content_of(rows, names), "columns": names}
        if rows:
            there = dict.fromkeys(column for row in rows for column in row.values)  # JSON lines may leave columns out
            needed = (one for one, column in columns.items() if column.needs_value)
            missing = [one for one in needed if there.keys().isdisjoint(columns[one].headers or (one,))]
            if missing:
                raise InputError(f"{name or 'the table'} has no column {missing[0]}; {nearest(missing[0], there)}")
        found = [self._row(path, row, param, name) for row in rows]
        files = [
            self._cell_files(cells, column, one, root, (*path, "columns", column))
            for cells in found
            for column, one in columns.items()
            if one.kind in (*FILE_TYPES, "files") and cells.get(column) is not ABSENT
        ]
        await asyncio.gather(*files)
        return Items(tuple(found))

    def _row(self, path: Path, row: Row, table: Param, name: str) -> dict[str, Any]:
        columns = table.columns or {}
        cells: dict[str, Any] = {"\0row": f"{name} row {row.number}" if name else f"row {row.number}"}
        for problem in filter(None, (row.problem, _undeclared(row, table, self._inputs.parameters))):
            self._add(cells, path, problem)
        for column, one in columns.items():
            at = (*path, "columns", column)
            given = {header: row.values.get(header) for header in one.headers or (column,)}
            given = {header: value for header, value in given.items() if not is_empty(value)}
            if len(given) > 1:
                self._add(cells, at, f"it has values in {' and '.join(given)}, which are headers of the same column")
            value = next(iter(given.values()), one.default)
            if value is None:
                cells[column] = ABSENT
                if not (one.optional or row.problem):
                    written = f"write {column}: {{type: {one.kind}, optional: true}}"
                    self._add(cells, at, f"{column} is empty; the column is required. Fill it, or {written}")
            elif one.kind in (*FILE_TYPES, "files"):
                cells[column] = value
            else:
                cells[column] = self._cell(cells, column, one, value, at)
        return cells

    def _cell(self, cells: dict[str, Any], name: str, column: Param, value: Any, place: Path) -> Any:
        value = read_value(column, value)
        wrong = wrong_input(column, value)
        if isinstance(value, str) and len(value) > MOST_CELL:
            wrong = "has a cell that is larger than 1 MiB"
        if wrong:
            self._add(cells, place, f"{name} {wrong}")
        # A wrong list or mapping may be nested too deeply to be copied or hashed.
        return listed(column, value) if not wrong or isinstance(value, str | int | float) else ABSENT

    def _add(self, cells: dict[str, Any], place: Path, clause: str) -> None:
        """Reports a problem in a row, or stores it in the row if invalid items are skipped."""
        if self._skips:
            cells.setdefault("\0problems", []).append(clause)
        else:
            self._rows.append((self._checked, place, clause, cells["\0row"]))

    async def _cell_files(self, cells: dict[str, Any], name: str, column: Param, root: str, place: Path) -> None:
        try:
            if column.kind == "files":
                files = [await self._cell_file(name, column, one, root) for one in _files_in(cells[name])]
                cells[name] = Items(tuple(files))
            else:
                cells[name] = await self._cell_file(name, column, cells[name], root)
        except InputError as error:
            cells[name] = ABSENT
            self._add(cells, place, f"{name}: {error.message}")

    async def _cell_file(self, name: str, column: Param, value: Any, root: str) -> File:
        source = as_media_input(value)
        if isinstance(source, str):
            source = _below(source.strip(), root)
        self._check_access(source if isinstance(source, str) else source.uri, root)
        return await self._file(column, source, name)

    def _check_access(self, source: str, root: str) -> None:
        """Raises an error unless a file is an https link, or is below the folder of its table or an allowed folder.

        Rows that the caller gives as a list are trusted like parameters.
        """
        if not root or self._inputs.is_open:
            return
        roots = tuple(one for one in (root, *self._inputs.allow, *get_settings().input_roots) if one)
        access = InputAccess(roots, is_restricted=True, private_links=get_settings().allow_private_links)
        try:
            access.check(source)
        except InputError:
            raise InputError(
                f"{shown(source)} is not allowed: a row may use only https links, and files below the folder "
                "of its table; to allow another folder, add it to RH_INPUT_ROOTS"
            ) from None


def is_default(param: Param, value: Any) -> bool:
    """Returns whether a value is absent or equals the default; False for a file, because its content can change."""
    if param.default is None or param.kind in ("table", "files", *FILE_TYPES):
        return value is ABSENT
    return bool(value == listed(param, read_value(param, param.default)))


def input_roots(params: Mapping[str, Param], arguments: Mapping[str, Any]) -> list[str]:
    """Returns the folders and prefixes of the tables and files given to a run; files below these may be read.

    Links are not included: the form of a run accepts any address, and each link is checked when it is opened.
    """
    found: list[str] = []
    for name, param in params.items():
        place = arguments.get(name) or param.default
        if not isinstance(place, str) or protocol_of(place) in ("http", "https"):
            continue
        if param.kind == "table":
            folder = _parent(place)
            found += (folder, without_user(folder))  # the table itself, and its rows, which are read without the user
        elif param.kind == "files":
            # A pattern's folder is what comes before its first sign.
            start = re.split(r"[*?\[]", place, maxsplit=1)[0]
            found.append(place if start == place else _parent(start))
    return found


def _parent(place: str) -> str:
    if is_local(place):
        return str(PurePath(local_path(place)).parent)
    return place.partition("?")[0].rpartition("/")[0]


def identify(source: str, options: Mapping[str, object]) -> Media:
    """Reads a file, and returns its content hash and its properties; raises `MediaError` if the file is damaged."""
    with open_local(source, get_settings().state_dir / "inputs", options=options) as held:
        with naming({held.path: source}):
            facts = asdict(probe(held.path))
        del facts["extension"]
        return Media(uri=shown(source), size=held.size, sha256=held.sha256, **facts)


def list_files(
    place: str, kind: str, options: Mapping[str, object], *, most: int = MOST_OBJECTS, own: str = ""
) -> Sequence[str]:
    """Returns the files of one kind in a folder, prefix or pattern, sorted by name; without those of the storage `own`.

    Of a storage that is below the folder, no file is returned; of another one, the files that are not results.
    """
    protocol = protocol_of(place)
    with as_store_error("list the files", shown(place), options=options):
        current_access().check_listing(place)
        fs, path = open_filesystem(local_path(place) if is_local(place) else place, options)
        # A folder's name may contain brackets: an existing one with exactly this name is meant.
        has_pattern = any(sign in place for sign in "*?[") and not fs.exists(path)
        listed = files_matching(fs, path) if has_pattern else files_below(fs, path)
    if len(listed) > most:
        raise InputError(f"{shown(place)} contains more than {most} files; choose a smaller folder")
    found = sorted(name for name, facts in listed.items() if facts.get("type") == "file" and _is_kind(name, kind))
    found = found if protocol == "file" else [f"{protocol}://{name}" for name in found]
    return _without_results(found, place, own) if own else found


def _without_results(files: Sequence[str], place: str, storage: str) -> Sequence[str]:
    head = re.split(r"[*?\[]", place)[0]
    top, base = _real(place if head == place else head.rpartition("/")[0]), _real(storage)
    if base.startswith(f"{top}/"):
        return [file for file in files if not _real(file).startswith(f"{base}/")]
    first, *further = top.removeprefix(base).strip("/").split("/") if f"{top}/".startswith(f"{base}/") else ("",)
    if first in OWN_FOLDERS and not further:
        raise InputError(
            f"{shown(place)} is a results folder in this storage, {shown(storage)}: the next run would use these "
            "results as inputs, and pay again. What to do: choose another output location, or pass a list of files"
        )
    if first in OWN_FOLDERS:
        return files
    return [one for one in files if _name_in(_real(one), base).partition("/")[0] not in OWN_FOLDERS]


def _name_in(file: str, base: str) -> str:
    return file[len(base) :].strip("/") if file.startswith(f"{base}/") else ""


def _real(place: str) -> str:
    """Returns the real path of a location, for comparisons."""
    if is_local(place):
        return os.path.realpath(local_path(place)).rstrip("/")
    return f"{protocol_of(place)}://{without_user(place).partition('://')[2].strip('/')}"


def _is_kind(name: str, kind: str) -> bool:
    said = format_named(name)
    return kind == "file" or (said is not None and said.kinds[0] == kind)


def read_rows(value: Any, options: Mapping[str, object]) -> Table:
    """Reads the rows of a table from its location, or from a list."""
    if isinstance(value, str):
        format_, name = table_format(value), PurePosixPath(shown(value)).name
        if format_ is None:
            raise InputError(f"{shown(value)} is not a table; a table is a .csv, .tsv, .jsonl or .parquet file")
        return name, without_user(_parent(value)), _few(read_table(value, format_, options=options), name)
    if not isinstance(value, list | tuple):
        raise InputError(f"a table must be a path, a URL or a list of rows, not {type(value).__name__}")
    return "", "", _few((_listed_row(number, row) for number, row in enumerate(value, 1)), "the table")


def _listed_row(number: int, row: Any) -> Row:
    if isinstance(row, Mapping):
        return Row(number, row)
    return Row(number, {}, problem=f"each row must be a mapping of columns to values, but {shown_value(row)}")


def _few(rows: Iterator[Row], name: str) -> list[Row]:
    """Returns the rows; raises an error if there are more than `MOST_ROWS`."""
    found = list(islice(rows, MOST_ROWS + 1))
    if len(found) > MOST_ROWS:
        raise InputError(f"{name} has more than the {MOST_ROWS} rows allowed; split the table")
    return found


def _undeclared(row: Row, table: Param, parameters: Sequence[str]) -> str:
    """Returns a clause if a row has values in undeclared columns; empty otherwise."""
    if table.other_columns is None:
        return ""
    known = [header for one, column in (table.columns or {}).items() for header in column.headers or (one,)]
    declared = (*known, *table.other_columns)
    others = [name for name, value in row.values.items() if name not in declared and not is_empty(value)]
    if not others:
        return ""
    what = f"values in the columns {', '.join(map(repr, others))}, which are not parameters"
    if len(others) == 1:
        near = nearest(others[0], parameters or known)
        what = f"a value in the column {others[0]!r}, which is not a parameter; {near}"
    return (
        f"it has {what}; correct the name, or name the column in --ignore-columns or --label-column of a batch, or "
        "in `other_columns` of a pipeline"
    )


def _files_in(cell: Any) -> Sequence[Any]:
    """Returns the files in a cell: a list, which may be JSON text, or paths separated by semicolons."""
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            cell = json.loads(cell)
    if isinstance(cell, str):
        return [one for one in cell.split(";") if one.strip()]
    return cell if isinstance(cell, list | tuple) else [cell]


def _content_of(rows: Sequence[Row], columns: Iterable[str]) -> str:
    """Returns the hash of a table's values in some columns."""
    names = list(columns)
    text = json.dumps([[row.values.get(name) for name in names] for row in rows], default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _placed(param: Param, value: Any, root: str) -> Any:
    """Returns the default of a parameter with its relative paths below a folder, also those in lists and in rows."""
    if isinstance(value, str):
        return _below(value.strip(), root)
    if isinstance(value, list):
        return [_placed(param, one, root) for one in value]
    if not isinstance(value, dict) or param.columns is None:
        return value
    columns = {header: one for name, one in param.columns.items() for header in one.headers or (name,)}
    files = {name: one for name, one in columns.items() if one.kind in (*FILE_TYPES, "files")}
    cells = {
        name: _files_in(cell) if files[name].kind == "files" else cell for name, cell in value.items() if name in files
    }
    return value | {name: _placed(files[name], cell, root) for name, cell in cells.items() if not is_empty(cell)}


def _below(source: str, root: str) -> str:
    if "://" in source or source.startswith(("/", "~")) or not root:
        return source
    return f"{root.rstrip('/')}/{source}"
