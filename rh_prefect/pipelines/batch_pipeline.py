"""Writes the pipeline of a batch, which applies a model, or a short chain of models, to many rows."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import yaml
from pydantic import Field

from rh_prefect.catalog import Param
from rh_prefect.catalog.hash_compatibility import as_given
from rh_prefect.errors import InputError
from rh_prefect.json_snapshot import converted
from rh_prefect.media.input_access_policy import allow_below
from rh_prefect.media.input_files import identity_uri, shown, unsigned_uri
from rh_prefect.media.media import Media, as_media_input, without_mark
from rh_prefect.media.storage_urls import is_local, is_web_link, local_path
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.batch_model_columns import (
    ChainStep,
    Stage,
    column_of,
    file_param,
    place,
    refuse_same,
    stages_of,
)
from rh_prefect.pipelines.file_model import Param as FileParam
from rh_prefect.pipelines.input_reader import Inputs, input_roots
from rh_prefect.pipelines.parsed_document import nearest_sentence
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import KnownWorks, Selection
from rh_prefect.table_files import table_format
from rh_prefect.works.job_options import Options, Reuse, Wait

RowInput: TypeAlias = str | Sequence[Any]
"""The source of a batch's rows: a location, or a list of files or of mappings with parameters."""

FOLDER = "batches"
"""The folder in the storage for outputs with labels."""

ROWS = "rows"
"""The name of the parameter that contains the rows, and of the fan-out over these rows."""


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """The options of `batch` in Python, in the form of a deployment and on the command line.

    Attributes:
        model: The model, by any of its names.
        label_column: The column with the names for the outputs.
        ignore_columns: Columns that are not parameters.
        budget: Maximum total cost of the rows in all runs, in the account's currency; no limit by default.
        strict: Stop before anything is paid for if any row or file is invalid.
        attempts: Maximum number of tasks that one run pays for per job, including failed tasks; the next run of the
            batch makes failed rows again.
        reuse: `always` shares results with all runs, and uses the stored results of identical earlier requests.
        only: Steps to make, as in `rows.clip`; empty for all.
        items: Rows to make, by their labels or numbers; empty for all.
        sample: Make only this many rows, from the first; 0 for all.
    """

    model: str
    label_column: str | None = None
    ignore_columns: Sequence[str] = ()
    budget: Annotated[float, Field(gt=0)] | None = None
    strict: bool = False
    attempts: Annotated[int, Field(ge=1)] = 1
    reuse: Reuse = "never"
    only: Sequence[str] = ()
    items: Sequence[str] = ()
    sample: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class Batch(BatchOptions):
    """A model, or a short chain of models, that is applied to many rows.

    Attributes:
        rows: A table (.csv, .tsv, .jsonl, .parquet), a folder or S3 prefix, a glob, or a list of parameters or files. A
            table's columns are parameters of the models. Paths in a table may be relative to the table's folder.
        chain: Further models, each a name or an object with `model` and parameters; each gets the output of the
            previous one.
        values: Parameters for every row. A name belongs to the first model that has it, `2.name` to the second model.
        wait: `poll` waits in the process. `suspend` suspends the run of a deployment when every row's job is
            submitted; the webhook receiver resumes it, once for each step of a chain.
        credentials: Name of a RunningHubCredentials or RunningHubPool block; by default RH_API_KEY.
        storage: Name of a MediaStorage block; by default RH_STORAGE_URL.
    """

    rows: RowInput
    _: KW_ONLY
    chain: Sequence[ChainStep] = ()
    values: Mapping[str, Any] | None = None
    wait: Wait = "poll"
    credentials: str | None = None
    storage: str | None = None

    @property
    def selection(self) -> Selection:
        """The rows and steps to make."""
        return Selection(frozenset(self.only), frozenset(self.items), self.sample)


@dataclass(slots=True)
class BatchFile:
    """The pipeline that was generated for a batch."""

    batch: Batch
    name: str  # `batch-` and a hash of the rows, the models, the values and the place of the results
    text: str  # The file, as YAML
    arguments: dict[str, Any]  # The values of its parameters
    steps: tuple[str, ...]  # The names of the steps of a row, in order
    inputs: Inputs  # Reads the rows and files, each once

    @property
    def pipeline(self) -> Pipeline:
        """The checked file."""
        return Pipeline.from_text(self.text, name=f"{self.name}.yaml")

    async def plan(self, known: KnownWorks) -> Plan:
        """Returns the plan of the pipeline, in which known works cost nothing."""
        more: dict[str, Any] = {"known": known, "selection": self.batch.selection, "inputs": self.inputs}
        return await self.pipeline.plan(self.arguments, **more)


async def write_batch(batch: Batch, site: str, store: MediaStore, *, whole_items: bool = True) -> BatchFile:
    """Reads the rows and returns the batch's pipeline; the site and the storage are hashed into the pipeline's name."""
    # Here, and not row by row: an invalid option is invalid for all rows.
    Options(budget=batch.budget, attempts=batch.attempts, reuse=batch.reuse)
    if isinstance(batch.rows, os.PathLike):
        batch = replace(batch, rows=os.fspath(batch.rows))
    inputs, stages = _inputs(batch.rows, store), stages_of(batch.model, batch.chain, batch.values or {})
    source = _Source.of(batch.rows, stages)
    models = [[stage.model.endpoint, converted(_compared(stage), _plain)] for stage in stages]
    identity = [source.identity, [models, None], f"{site} {store.url}"]  # None: as in earlier batches without labels
    name = f"batch-{_hash(identity)[:16]}"
    if source.file is None:
        columns = await _columns(source, stages, batch, inputs)
        further = [one for one in batch.ignore_columns if one != batch.label_column]
        params = {ROWS: {"type": "table", "columns": columns, "other_columns": further}}
    else:
        params = {ROWS: {"type": "files", "of": source.file.type}}
        stages[0].columns[source.file.name] = ""
    is_labelled = bool(batch.label_column) or source.file is not None
    steps = _steps(stages, params, label="id" if is_labelled else "", name=name)
    label = {"id": f"$(item.{_LABEL})"} if source.file is None and batch.label_column else {}
    data = {
        "name": name,
        "description": f"{', then '.join(stage.model.name for stage in stages)} on {source.name}",
        "budget": _budget(batch.budget, whole_items=whole_items),
        **({} if batch.attempts == 1 else {"attempts": batch.attempts}),
        **({} if batch.reuse == "always" else {"scope": name}),
        "invalid_items": "refuse" if batch.strict else "skip",
        "params": params,
        "steps": {ROWS: {"foreach": f"$(params.{ROWS})", **label, "steps": steps}},
        "outputs": {"results": f"$({ROWS}.{stages[-1].name})"},
    }
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    return BatchFile(batch, name, text, {ROWS: source.value}, tuple(stage.name for stage in stages), inputs)


def _inputs(rows: RowInput, store: MediaStore) -> Inputs:
    """Returns the reader of a batch's rows and files, which may be below the place of the rows."""
    if not isinstance(rows, str):
        return Inputs(own=store.url, is_open=True)
    kind = "table" if table_format(rows) is not None else "files"
    allow_below(*input_roots({ROWS: FileParam(type=kind)}, {ROWS: rows}))
    return Inputs(options=store.options_for(rows), own=store.url, is_open=True)


_REFERENCE = re.compile(r"\$\(\s*(item|params|id|number|previous)\b[^)]*\)")
"""What a person surely means as a reference."""

_LABEL = "label"
"""The name of the column with the labels of the outputs."""


def _budget(amount: float | None, *, whole_items: bool) -> Any:
    if amount is None:
        return "unlimited"
    return {"amount": amount, **({"whole_items": True} if whole_items else {}), "all_runs": True}


def _compared(stage: Stage) -> dict[str, object]:
    """Returns the values for every row as requests are compared, so that no refresh of the catalogue changes the id."""
    given = ((name, as_given(stage.model, {name: value})) for name, value in stage.values.items())
    return {name: value for name, found in given for value in found.values()}


def _plain(value: object) -> object:
    """Returns a single value as JSON for a batch's identity: a `Media` as its hash, a link without its signature."""
    if isinstance(value, str):
        return unsigned_uri(value) or value
    if isinstance(value, int | float | bool | None):
        return value
    try:
        media = as_media_input(value)
    except InputError:
        return repr(value)
    return f"sha256:{media.sha256}" if isinstance(media, Media) else _plain(media)


def _hash(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# -- rows --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Source:
    """The rows of a batch: a table, files or a list, with the identity on which the batch's scope depends."""

    name: str  # For people
    identity: str  # Identifies a location, even after its content has changed; identifies a list by its content
    value: Any  # The value of the file's parameter
    file: Param | None = None  # The parameter that each row, a file, sets; None for rows of parameters

    @classmethod
    def of(cls, rows: RowInput, stages: Sequence[Stage]) -> _Source:
        if not isinstance(rows, str):
            return cls._listed(rows, stages)
        if not rows.strip():
            raise InputError("batch: no rows were given. What to do: pass a table, a folder, a glob or a list.")
        is_file = is_local(rows) and Path(local_path(rows)).is_file()
        name = local_path(rows) if is_local(rows) else shown(rows)
        identity = unsigned_uri(rows) or identity_uri(rows)
        pattern = rows.partition("?")[0] if is_web_link(rows) else rows  # a query is no part of a pattern
        if table_format(rows) is not None and (is_file or not set(pattern) & set("*?[")):
            return cls(name, identity, rows)
        if is_file:
            raise InputError(
                f"batch: {rows} is not a table that a batch can read. What to do: save it as .csv, .tsv, .jsonl "
                "or .parquet; if this file is an input of the model, pass its folder or a glob."
            )
        return cls(name, identity, rows, _file_param(stages[0]))

    @classmethod
    def _listed(cls, rows: Sequence[Any], stages: Sequence[Stage]) -> _Source:
        name, identity = f"a list of {len(rows)}", f"list:{_hash(converted(list(rows), _plain))}"
        if not rows:
            raise InputError("batch: there are no rows in the list. What to do: pass parameters or files.")
        if not any(_is_row(row) for row in rows):
            return cls(name, identity, [_file_of(row) for row in rows], _file_param(stages[0]))
        param = file_param(stages[0].model)
        media = {one.name for stage in stages for one in stage.model.file_params}
        media |= {one.key for stage in stages for one in stage.model.file_params}
        found = [_row_of(row, media, param) for row in rows]
        return cls(name, identity, found)


def _is_row(value: object) -> bool:
    return isinstance(value, Mapping) and not {"uri", "sha256", "kind"} <= value.keys()  # a `Media` as JSON


def _row_of(row: object, media: Collection[str], param: Param | None) -> object:
    if isinstance(row, Mapping) and _is_row(row):
        return {str(name): _unmarked(value) if _base(str(name)) in media else value for name, value in row.items()}
    return {param.name: row} if param is not None and not isinstance(row, int | float | None) else row


def _base(name: str) -> str:
    head, dot, tail = name.partition(".")
    return tail if dot and head.isdecimal() else name


def _unmarked(value: object) -> object:
    value = without_mark(value)
    return [_file_of(one) for one in value] if isinstance(value, list | tuple) else _file_of(value)


def _file_of(value: object) -> object:
    """Returns a file as a `Media` or a string; returns any other value unchanged, which makes its row invalid."""
    try:
        return as_media_input(value)
    except InputError:
        return value


def _file_param(first: Stage) -> Param:
    param = file_param(first.model)
    if param is None:
        raise InputError(f"batch: {first.model.name} does not accept files. What to do: pass rows with parameters.")
    return param


# -- the file ----------------------------------------------------------------------------------------------------------


async def _columns(source: _Source, stages: Sequence[Stage], batch: Batch, inputs: Inputs) -> dict[str, dict[str, Any]]:
    """Returns the declarations of the columns that set a parameter, and notes in each stage which columns set its."""
    declared: dict[str, dict[str, Any]] = {}
    inputs.parameters = [param.name for stage in stages for param in stage.model.params]
    _, _, rows = await inputs.rows(source.value)
    if not rows:
        raise InputError(f"batch: there are no rows in {source.name}. What to do: check its name and its content.")
    names = [*dict.fromkeys(name for row in rows for name in row.values)]
    if batch.label_column:
        if batch.label_column not in names:
            near = nearest_sentence(batch.label_column, names, none="the rows have no column")
            raise InputError(
                f"batch: no row of {source.name} has a label in the column {batch.label_column!r}; {near} What to do: "
                "correct the name of the label column."
            )
        declared[_LABEL] = {"type": "string", "optional": True}
        declared[_LABEL] |= {} if batch.label_column == _LABEL else {"header": batch.label_column}
    own = [name for name in names if name != batch.label_column and name not in batch.ignore_columns]
    if isinstance(source.value, str) and table_format(source.value) != "jsonl":
        refuse_same(stages, own, source.name)
    unknown: InputError | None = None
    for name in own:
        try:
            number, param = place(stages, name)
        except InputError as error:
            unknown = unknown or error
            continue  # each row with a value in it is invalid
        if param is not None:
            _declare(declared, stages, number, param, name)
    for stage in stages:
        needed = (one.name for one in stage.model.params if _is_needed(stage, one))
        missing = next((one for one in needed if one not in stage.columns), "")
        label = stage.model.find_param(batch.label_column or "")
        if label is not None and missing == label.name:
            raise InputError(
                f"batch: {stage.model.name} needs {missing}, but {batch.label_column!r} is the label column. What to "
                "do: choose another column for the labels, or copy this column under another name."
            )
        if missing and unknown is not None:
            raise InputError(
                f"batch: {source.name} has no column {missing}, which {stage.model.name} needs; {unknown.message}"
            )
    return declared


def _is_needed(stage: Stage, param: Param) -> bool:
    is_fed = stage.fed is not None and stage.fed.name == param.name
    return param.needs_value and stage.values.get(param.name) is None and not is_fed


def _declare(
    declared: dict[str, dict[str, Any]], stages: Sequence[Stage], number: int, param: Param, header: str
) -> None:
    stage = stages[number]
    if param.name in stage.columns:  # in JSON lines, rows may use either name
        first = stage.columns[param.name]
        headers = declared[first].get("header", first)
        declared[first]["header"] = [*(headers if isinstance(headers, list) else [headers]), header]
        return
    column_name = param.name if param.name not in declared else f"{param.name}_{number + 1}"
    default = stage.values.get(param.name)
    column = column_of(param) | ({} if _is_needed(stage, param) else {"optional": True})
    if default is not None and not param.is_media:
        column = {**column_of(param), "default": default}
    declared[column_name] = column | ({} if header == column_name else {"header": header})
    stage.columns[param.name] = column_name


def _steps(stages: Sequence[Stage], params: dict[str, Any], *, label: str, name: str) -> dict[str, Any]:
    steps: dict[str, Any] = {}
    for number, stage in enumerate(stages):
        given = dict(_values(stage, params, number))
        if stage.fed is not None:
            own = given.get(stage.fed.name)
            before = stages[number - 1].name
            given[stage.fed.name] = f"$({own[2:-1]} or {before})" if own is not None else f"$({before})"
        steps[stage.name] = {"model": stage.model.name, "with": given, "same": "separate"}
    if label and stages[-1].model.output != "text":
        steps[stages[-1].name]["save_as"] = f"{FOLDER}/{name}/$({label}).*"
    return steps


def _values(stage: Stage, params: dict[str, Any], number: int) -> Iterator[tuple[str, Any]]:
    used = {key: f"item.{column}" if column else "item" for key, column in stage.columns.items()}
    for key, value in stage.values.items():
        param = stage.model.find_param(key)
        if param is not None and param.is_media:
            own = key if key not in params else f"{key}_{number + 1}"
            params[own] = {**column_of(param), "default": converted(value, _plain_file)}
            yield key, f"$({used.pop(key)} or params.{own})" if key in used else f"$(params.{own})"
        elif key not in used and value is not None:
            yield key, converted(value, _literal)
    for key, reference in used.items():
        yield key, f"$({reference})"


def _plain_file(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, Media) else value


def _literal(value: Any) -> Any:
    """Returns a value; a string is escaped, so that it is not read as a reference."""
    if not isinstance(value, str):
        return value
    if reference := _REFERENCE.search(value):
        raise InputError(
            f"batch: {reference[0]} in a value for all rows is not read as a reference. Nothing was paid. What to "
            "do: print the pipeline of the batch (--print), write the reference there, and run the pipeline."
        )
    return value.replace("$(", "$$(")
