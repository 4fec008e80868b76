"""The plan of a batch: which column sets which parameter, and when two rows are the same."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from rh_prefect import catalog
from rh_prefect.catalog import Model, Param
from rh_prefect.errors import InputError
from rh_prefect.media.input_files import identity_uri, shown
from rh_prefect.media.media import Media, as_media_input, without_mark
from rh_prefect.media.urls import is_local, local_path
from rh_prefect.models import ModelInput, input_for
from rh_prefect.table_files import Row, Source, is_empty, trouble
from rh_prefect.works.options import Options

ChainStep = str | Mapping[str, Any]
"""A further model of a chain: its name, or an object with `model` and parameters."""

_OF_STEP = re.compile(r"(\d+)\.(.+)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_NUMBERS: dict[str, type[int | float]] = {"int": int, "float": float}
_WORDS = {"true": True, "false": False}
_FED = "the-output-of-the-step-before"


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of each row's chain; `fed` is the parameter that takes the output of the step before."""

    model: Model
    fed: Param | None = None

    def build_request(self, params: Mapping[str, object], before: Media | str | None = None) -> ModelInput:
        """Creates the request of a stage; `InputError` where a parameter is wrong."""
        values = dict(params)
        if self.fed is not None and before is not None and not {self.fed.name, self.fed.key} & values.keys():
            values[self.fed.name] = before
        return input_for(self.model)(**values)


@dataclass(frozen=True, slots=True)
class Work:
    """One row that can be run.

    Attributes:
        number: The row, from 1.
        id: The same for the same row in every run of the batch.
        label: A name for its output.
        params: The parameters of each step.
        copy: Which of the rows with these values it is, from 1.
    """

    number: int
    id: str
    label: str | None
    params: tuple[Mapping[str, object], ...]
    copy: int = 1


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """One row that cannot be run.

    Attributes:
        number: The row, from 1.
        reason: What is wrong.
        label: A name for its output.
        id: As of a `Work`, if only a file of the row is missing: an earlier run may have done it; else empty.
        copy: As of a `Work`.
    """

    number: int
    reason: str
    label: str | None = None
    id: str = ""
    copy: int = 1


@dataclass(frozen=True)
class Plan:
    """The plan for every row; create it with `make_plan`.

    Attributes:
        stages: The chain; one step for a single model.
        values: Parameters for every row, by step; a row's own values take precedence.
        label_column: The column that names outputs.
        ignored: Columns that are not parameters.
    """

    stages: tuple[Stage, ...]
    values: tuple[Mapping[str, object], ...]
    label_column: str | None = None
    ignored: frozenset[str] = frozenset()
    file_param: Param | None = field(default=None)

    @property
    def identity(self) -> list[Any]:
        """The values that distinguish this plan from another one for the same rows."""
        steps = [[stage.model.endpoint, _plain(values)] for stage, values in zip(self.stages, self.values, strict=True)]
        return [steps, self.label_column]

    def works(self, source: Source) -> Iterator[Work | InvalidRow]:
        """Reads and checks all rows, in order; equal rows are kept as separate rows.

        Raises:
            InputError: They cannot be read, or two columns of a table are the same parameter.
        """
        counts: Counter[str] = Counter()
        for row in source.rows():
            if source.is_table and row.number == 1:
                self._check_columns(source.name, row.values)
            if source.is_folder and not self._takes(row):
                continue
            work = self._work(row, source.base)
            if work.id:
                counts[work.id] += 1
                if (copy := counts[work.id]) > 1:
                    work = replace(work, id=f"{work.id}-{copy}", copy=copy)
            yield work

    def _takes(self, row: Row) -> bool:
        """Returns whether a folder's file, by its name, is of the kind that the first model takes."""
        suffix = PurePath(str(row.file)).suffix.lower().lstrip(".")
        param = self.file_param
        known = {"image": _IMAGES, "video": _VIDEOS, "audio": _AUDIOS}.get(param.type if param else "", frozenset())
        return suffix in ({one.lower() for one in param.accept} if param and param.accept else known)

    def _work(self, row: Row, base: str | None) -> Work | InvalidRow:
        label = None
        try:
            label = self._label(row)
            if not row.problem:
                return self._checked(row, base, label)
            reason = row.problem
        except InputError as error:
            reason = error.message
        except Exception as error:  # an error of this row alone
            reason = trouble(error)
        return InvalidRow(row.number, _legible(reason), _legible(label) if label is not None else None)

    def _checked(self, row: Row, base: str | None, label: str | None) -> Work | InvalidRow:
        params = self._params(row, base)
        Options(label=label)  # refuses what is not a label
        text = json.dumps([_plain(one) for one in params] + [label], sort_keys=True, ensure_ascii=False)
        row_id = hashlib.sha256(text.encode()).hexdigest()[:16]
        missing = next(filter(_is_missing, self._files(params)), None)
        if missing is not None:
            return InvalidRow(row.number, _legible(_no_file(missing)), label, row_id)
        for number, stage in enumerate(self.stages):
            stage.build_request(params[number], before=_FED if number else None)
        return Work(row.number, row_id, label, params)

    def _files(self, params: Sequence[Mapping[str, object]]) -> Iterator[str]:
        """Yields the addresses of a row's files."""
        for stage, values in zip(self.stages, params, strict=True):
            for param in stage.model.file_params:
                value = values.get(param.name)
                yield from (one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str))

    def _label(self, row: Row) -> str | None:
        if self.label_column:
            value = row.values.get(self.label_column)
            return str(value).strip() or None if value is not None else None
        return PurePath(row.file).stem if isinstance(row.file, str) else None

    def _params(self, row: Row, base: str | None) -> tuple[Mapping[str, object], ...]:
        if self.label_column and row.file is None and self.label_column not in row.values:
            raise InputError(f"it has no column {self.label_column!r}, which should contain the name of its output.")
        params = [dict(values) for values in self.values]
        row_values = {name: row.values[name] for name in self._named(row.values) if not is_empty(row.values[name])}
        if row.file is not None:
            if self.file_param is None:
                raise InputError(
                    f"{self.stages[0].model.name} does not accept files. What to do: pass rows of parameters."
                )
            row_values[self.file_param.name] = row.file
        same = _same(self.stages, row_values)
        if same:
            raise InputError(f"it has {same}")
        for name, value in row_values.items():
            number, key, param = place(self.stages, name)
            params[number][key] = _read(param, value, base)
        return tuple(params)

    def _named(self, columns: Iterable[str]) -> list[str]:
        """Returns the columns that are parameters."""
        return [name for name in columns if name != self.label_column and name not in self.ignored]

    def _check_columns(self, table: str, columns: Iterable[str]) -> None:
        _refuse_same(self.stages, self._named(columns), table)


def make_plan(
    model: str,
    *,
    chain: Sequence[ChainStep] = (),
    values: Mapping[str, object] | None = None,
    label_column: str | None = None,
    ignored: Iterable[str] = (),
) -> Plan:
    """Checks and creates the plan for every row; the arguments are those of `batch`."""
    stages = [Stage(catalog.get(model))]
    fixed: list[dict[str, object]] = [{}]
    for step in chain:
        own = dict(step) if isinstance(step, Mapping) else {"model": step}
        entry = catalog.get(str(own.pop("model", "")))
        stages.append(Stage(entry, fed=_fed(stages[-1].model, entry)))
        _refuse_same(stages[-1:], own, f"chain[{len(stages) - 2}]")
        fixed.append({entry.param(name).name: value for name, value in own.items()})
    _refuse_same(stages, values or {}, "values")
    for name, value in (values or {}).items():
        number, key, param = place(tuple(stages), name)
        if key in fixed[number]:
            raise InputError(
                f"values: {name!r} is the parameter {key} of {stages[number].model.name}, for which chain has a value "
                "already. What to do: leave one of them out."
            )
        fixed[number][key] = _read(param, value, None)
    plan = Plan(tuple(stages), tuple(fixed), label_column, frozenset(ignored), _file_param(stages[0].model))
    for address in plan._files(fixed):
        if _is_missing(address):
            raise InputError(_no_file(address))
    return plan


def _refuse_same(stages: Sequence[Stage], names: Iterable[str], where: str) -> None:
    same = _same(stages, names)
    if same:
        raise InputError(f"{where}: it has {same}")


def _same(stages: Sequence[Stage], names: Iterable[str]) -> str:
    """Finds two names of the same parameter, which leave it unclear what to pay for."""
    known: dict[tuple[int, str], str] = {}
    for name in names:
        with suppress(InputError):  # an unknown parameter is an error of its own
            number, key, _ = place(stages, name)
            first = known.setdefault((number, key), name)
            if first != name:
                return (
                    f"both {first!r} and {name!r}, which are the same parameter {key} of "
                    f"{stages[number].model.name}. What to do: leave one of them out."
                )
    return ""


def place(stages: Sequence[Stage], name: str) -> tuple[int, str, Param | None]:
    """Finds the index of the stage, the Python name and the parameter that a column belongs to.

    `name` is a Python or wire name, of the first step that has it; `2.name` is the second step's. Raises an
    `InputError` if no step has it.
    """
    numbered = _OF_STEP.fullmatch(name)
    if numbered and 1 <= int(numbered[1]) <= len(stages):
        number = int(numbered[1]) - 1
        param = stages[number].model.param(numbered[2])
        return number, param.name, param
    having = [(number, found) for number, stage in enumerate(stages) if (found := stage.model.find_param(name))]
    # A parameter that a list has added to an earlier step does not take a later step's column.
    having.sort(key=lambda one: one[1].name in stages[one[0]].model.added)
    if having:
        number, param = having[0]
        return number, param.name, param
    first = stages[0].model
    if name == "unchecked":  # of an object that a program, `--set` or a JSON row gives
        return 0, name, None
    raise InputError(
        f"{name!r} is not a parameter of {' or '.join(stage.model.name for stage in stages)}; "
        f"{first.hint(name)}. What to do: correct its name; or, if the column is not a parameter, list it "
        "with --label-column or --ignore-columns (in Python label_column= or ignore_columns=)."
    )


def _fed(before: Model, model: Model) -> Param:
    found = _file_param(model, kind=before.output)
    if found is None:
        raise InputError(
            f"{model.name} does not accept {before.output}, the output type of {before.name}. What to do: "
            "choose another model."
        )
    return found


def _file_param(model: Model, *, kind: str = "") -> Param | None:
    """Returns the parameter that takes a file of a kind, or of any: the first required one, else the first one."""
    for files in model.feeds:
        fitting = [(param, is_required) for param, is_required in files if kind in ("", param.form.type)]
        if fitting:
            return next((param for param, is_required in fitting if is_required), fitting[0][0])
    return None


def _read(param: Param | None, value: object, base: str | None) -> object:
    """Converts a cell for its parameter; the catalogue rejects invalid values later."""
    if param is None:
        return value
    if param.multiple and isinstance(value, str):
        value = _items(value)
    if isinstance(value, list | tuple):
        return [_one(param, item, base) for item in value]
    return _one(param, value, base)


def _items(text: str) -> list[object]:
    if text.lstrip().startswith("["):
        try:
            read = json.loads(text)
        except ValueError:
            return [text]
        return read if isinstance(read, list) else [text]
    return [item.strip() for item in text.split(";") if item.strip()]


def _one(param: Param, value: object, base: str | None) -> object:
    if param.is_media:
        media = as_media_input(without_mark(value))
        return _file(media.strip(), base) if isinstance(media, str) else media
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if param.type == "bool":
        return _WORDS.get(text, value)
    if param.type == "enum" and value not in param.options:  # a spreadsheet writes TRUE for the option "true"
        alike = [option for option in param.options if option.lower() == text]
        return alike[0] if len(alike) == 1 else value
    if param.type in _NUMBERS:
        try:
            return _NUMBERS[param.type](text)
        except ValueError:
            return value
    return value


def _file(address: str, base: str | None) -> str:
    """Returns the absolute address of a file, which may be missing."""
    if not is_local(address):
        return _link(address)
    if "://" in address and not _SCHEME.match(address):  # as a path, its password would be shown
        raise InputError(f"{_short(shown(address))} is not a valid URL. What to do: correct the URL.")
    if (
        base is not None
        and not _SCHEME.match(address)
        and not address.startswith("~")
        and not Path(address).is_absolute()
    ):
        address = f"{base.rstrip('/')}/{address}"
        if not is_local(address):
            return address
    try:
        path = local_path(address)
        Path(path).is_file()  # raises an error for what cannot be a file at all
    except (
        OSError,
        RuntimeError,
    ) as error:  # too long, in a closed folder, an unknown user's home
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise InputError(f"{_short(address)} cannot be read: {reason}. What to do: correct the path.") from None
    return path


def _is_missing(address: str) -> bool:
    return is_local(address) and not Path(address).is_file()


def _no_file(path: str) -> str:
    return f"there is no file {path}. What to do: correct the path."


def _link(url: str) -> str:
    try:
        identity_uri(url)
    except ValueError as error:
        raise InputError(f"{_short(shown(url))} is not a valid URL: {error}. What to do: correct the URL.") from None
    return url


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _legible(text: str) -> str:
    """Returns a text that can be written as UTF-8, since a cell may contain invalid characters."""
    return text.encode("utf-8", "backslashreplace").decode()


def _plain(params: Mapping[str, object]) -> dict[str, object]:
    """Returns the parameters for a row's identity: known files by content, all other values as written."""
    return {name: _plain_value(value) for name, value in sorted(params.items())}


def _plain_value(value: object) -> object:
    if isinstance(value, Media):
        return f"sha256:{value.sha256}"
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    return value if isinstance(value, str | int | float | bool | dict | None) else str(value)


_IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "avif", "heic"})
_VIDEOS = frozenset({"mp4", "mov", "webm", "mkv", "avi", "m4v"})
_AUDIOS = frozenset({"mp3", "wav", "flac", "m4a", "aac", "ogg", "opus"})
