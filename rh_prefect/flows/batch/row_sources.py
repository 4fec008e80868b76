"""Reads a batch's rows from tables, folders, globs and lists; excludes the outputs of earlier batches."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from string import Formatter
from typing import Any, TypeAlias

from fsspec.core import url_to_fs

from rh_prefect.errors import InputError
from rh_prefect.json_checks import snapshot
from rh_prefect.media.input_access_policy import current_access
from rh_prefect.media.input_files import identity_uri, shown, unsigned_uri
from rh_prefect.media.media import Media, as_media_input
from rh_prefect.media.names import safe
from rh_prefect.media.storage_errors import as_store_error
from rh_prefect.media.store import MediaStore
from rh_prefect.media.urls import is_local, local_path, protocol_of, read_options, without_user
from rh_prefect.table_files import Row, Source, form_of, open_table, trouble
from rh_prefect.works.requests.stored_input_copies import is_copy

RowInput: TypeAlias = str | Sequence[Any]
"""The source of a batch's rows: a place, or rows that are mappings of parameters or files."""


def open_source(rows: RowInput, *, store: MediaStore, fields: Mapping[str, str] | None = None) -> Source:
    """Opens the source of a batch's rows; the rows are read later.

    Raises:
        InputError: It is none of these, or the files of a folder or a glob could be this batch's own outputs.
    """
    if not isinstance(rows, str):
        return _listed(rows)
    if not rows.strip():
        raise InputError("batch: no rows were given. What to do: pass a table, a folder, a glob or a list.")
    form = form_of(rows)
    # A name may contain brackets: an existing file with exactly this name is meant.
    if _is_pattern(rows) and not _exists(rows, store.options_for(rows)):
        return _globbed(rows, store, fields or {})
    if form is not None:
        return open_table(rows, form, options=store.options_for(rows))
    if is_local(rows) and _exists(rows, {}) and not Path(local_path(rows)).is_dir():
        raise InputError(
            f"batch: {rows} is a file, but no table that a batch reads. What to do: save it as .csv, .tsv, .jsonl or "
            ".parquet; if it is an input of the model itself, pass its folder or a glob."
        )
    return _folder(rows, store, fields or {})


def _listed(values: Iterable[Any]) -> Source:
    read = [_row(number, value) for number, value in enumerate(values, 1)]
    digest = hashlib.sha256(f"[{', '.join(text for _, text in read)}]".encode("utf-8", "surrogatepass")).hexdigest()
    rows = [row for row, _ in read]
    return Source(name=f"a list of {len(rows)}", identity=f"list:{digest}", base=None, rows=lambda: iter(rows))


def _row(number: int, value: object) -> tuple[Row, str]:
    """Returns one row of a list, and its text in the list's identity; an unreadable row is marked as bad."""
    try:
        if isinstance(value, Mapping) and not {"uri", "sha256", "kind"} <= value.keys():  # a `Media` as JSON
            row = Row(number, {str(name): snapshot(one) for name, one in value.items()})
        else:
            row = Row(number, {}, file=as_media_input(value))
        return row, _text(row)
    except InputError as error:
        row = Row(number, {}, problem=error.message)
    except Exception as error:  # an error of this row alone
        row = Row(number, {}, problem=trouble(error))
    return row, _text(row)


def _text(row: Row) -> str:
    return json.dumps([_content(row.file), _named(row.values)], sort_keys=True, default=_content)


def _named(value: object) -> object:
    """Normalises values for the identity of a list: a link with a new signature stays the same."""
    if isinstance(value, Mapping):
        return {name: _named(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_named(one) for one in value]
    return (unsigned_uri(value) or value) if isinstance(value, str) else value


def _content(value: object) -> str:
    """Returns a value's text in the identity of a list: a known file's content hash, else the value as written."""
    if value is None:
        return ""
    try:
        media = as_media_input(value)
        return f"sha256:{media.sha256}" if isinstance(media, Media) else str(_named(media))
    except InputError:  # it is not a file
        return repr(value)


def _is_pattern(address: str) -> bool:
    return "*" in address or ("[" in address and "]" in address) or ("?" in address and "://" not in address)


def _exists(address: str, options: Mapping[str, object]) -> bool:
    try:
        if is_local(address):
            return Path(local_path(address)).exists()
        current_access().check_listing(address)
        fs, path = url_to_fs(address, **read_options(protocol_of(address), options))
        return bool(fs.exists(path))
    except Exception:  # then it is listed as a pattern, which reports what is wrong with the location
        return False


def _folder(address: str, store: MediaStore, fields: Mapping[str, str]) -> Source:
    current_access().check_listing(address)
    folder = MediaStore(address, options=dict(store.options_for(address)))
    refuse_own(folder.url, folder.url, ["**"], store, fields)

    def rows() -> Iterator[Row]:
        return _files(without_outputs((folder.uri(name) for name in folder.list()), folder.url, store))

    url = folder.url
    return Source(name=url, identity=identity_uri(url), base=None, rows=rows, root=url, is_folder=True)


def _globbed(address: str, store: MediaStore, fields: Mapping[str, str]) -> Source:
    current_access().check_listing(address)
    name = local_path(address) if is_local(address) else shown(address)
    top, rest = _fixed(name)
    refuse_own(name, top, rest, store, fields)
    options = store.options_for(address)

    def rows() -> Iterator[Row]:
        with as_store_error("list", shown(address), options=options):
            protocol = protocol_of(address)
            pattern = local_path(address) if protocol == "file" else address
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
    """Excludes files in the storage if it is inside the folder, since outputs of earlier runs are not inputs.

    Copies of inputs in the place are left out wherever the folder is.
    """
    outer, place = _where(folder).rstrip("/"), _where(store.url).rstrip("/")
    # In the folder's own spelling: a link may lead to it, but none is followed on the way down.
    inner = f"{_spelt(folder).rstrip('/')}{place[len(outer) :]}/" if place.startswith(f"{outer}/") else None
    outputs = (uri for uri in uris if inner is None or not _spelt(uri).startswith(inner))
    return (uri for uri in outputs if not is_copy(_spelt(uri).removeprefix(f"{_spelt(store.url).rstrip('/')}/")))


def refuse_own(name: str, folder: str, rest: Sequence[str], store: MediaStore, fields: Mapping[str, str]) -> None:
    """Rejects files from inside the storage if they may be outputs of this batch: each run would add rows."""
    inner, place = _where(folder).rstrip("/"), _where(store.url).rstrip("/")
    if not f"{inner}/".startswith(f"{place}/"):
        return
    between = [escape(part) for part in inner[len(place) :].split("/") if part]
    if _could_meet([*between, *rest], _own_names(store, fields)):
        raise InputError(
            f"batch: the rows come from {name}, which is inside the output location {store.url}; the next "
            "run would use its own outputs as rows and pay for them. What to do: choose another output "
            "location, or pass a table or a list of the files."
        )


def _own_names(store: MediaStore, fields: Mapping[str, str]) -> list[str]:
    """Returns the name patterns of this batch's outputs, one for each part of the path.

    This run's own name suffices: later runs of a batch name their outputs after the first one, and that was refused
    if its rows could be its outputs.
    """
    text = ""
    for literal, field, form, conversion in Formatter().parse(store.template):
        is_known = field in fields and not form and not conversion
        text += escape(literal) + ("" if field is None else escape(safe(fields[field])) if is_known else "*")
    return text.split("/")


def _could_meet(pattern: Sequence[str], names: Sequence[str]) -> bool:
    """Returns whether one path may fit both patterns; False only if that is certainly impossible."""
    for one, other in zip(pattern, names):
        if "**" in one:
            return True
        if not _fit(one, other):
            return False
    return len(pattern) >= len(names) and all("**" in part for part in pattern[len(names) :])


def _fit(one: str, other: str) -> bool:
    if MAGIC.search(one) and MAGIC.search(other):
        return True
    return fnmatchcase(other, one) or fnmatchcase(one, other)


def _where(url: str) -> str:
    """Returns the real location of a path, with symbolic links resolved."""
    return os.path.realpath(_spelt(url)) if is_local(url) else _spelt(url)


def _spelt(url: str) -> str:
    """Returns the normalised form of a location, for comparisons."""
    if is_local(url):
        return local_path(url)
    return f"{protocol_of(url)}://{without_user(url).partition('://')[2].strip('/')}"
