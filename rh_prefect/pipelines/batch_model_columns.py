"""The models of a batch, and which parameter of which model each column or value sets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rh_prefect import catalog
from rh_prefect.catalog import Model, Param
from rh_prefect.errors import InputError
from rh_prefect.media.media import Media, as_media_input, without_mark
from rh_prefect.media.storage_urls import is_local, local_path
from rh_prefect.pipelines.check.literal_conversion import read_value
from rh_prefect.pipelines.file_model import Param as FileParam
from rh_prefect.pipelines.types import kind_of

ChainStep = str | Mapping[str, Any]
"""A further model of a chain: its name, or an object with `model` and parameters."""

_OF_STEP = re.compile(r"(\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of each row's chain: a model, and its parameters that are the same for every row."""

    model: Model
    name: str  # The name of the step in the file
    fed: Param | None = None  # The parameter that takes the output of the step before; None for the first step
    values: dict[str, object] = field(default_factory=dict)  # The parameters for every row, by Python name
    columns: dict[str, str] = field(default_factory=dict)  # The column of each parameter that the rows set


def stages_of(model: str, chain: Sequence[ChainStep], values: Mapping[str, object]) -> list[Stage]:
    """Returns the models of a batch, each with its values for every row."""
    stages: list[Stage] = []
    _add_stage(stages, catalog.get(model))
    for number, step in enumerate(chain):
        own = dict(step) if isinstance(step, Mapping) else {"model": step}
        entry = catalog.get(str(own.pop("model", "")))
        _add_stage(stages, entry, fed=_fed(stages[-1].model, entry))
        refuse_same(stages[-1:], own, f"chain[{number}]")
        for name, value in own.items():
            own_param = entry.param(name)
            stages[-1].values[own_param.name] = _read(own_param, value)
    refuse_same(stages, values, "values")
    for name, value in values.items():
        number, param = place(stages, name)
        key, stage = param.name if param is not None else name, stages[number]
        if key in stage.values:
            raise InputError(
                f"values: {name!r} is the parameter {key} of {stage.model.name}, and `chain` also has a value for this "
                "parameter. What to do: leave one of them out."
            )
        stage.values[key] = _read(param, value)
    return stages


def _add_stage(stages: list[Stage], model: Model, *, fed: Param | None = None) -> None:
    """Adds a stage, named after the kind of its output; a name that is taken gets the stage's number."""
    kinds = {"image": "picture", "video": "clip", "audio": "sound", "3d": "object"}
    name = kinds.get(model.output, model.output)
    is_taken = any(one.name == name for one in stages)
    stages.append(Stage(model, f"{name}_{len(stages) + 1}" if is_taken else name, fed))


def place(stages: Sequence[Stage], name: str) -> tuple[int, Param | None]:
    """Returns the index of the stage and the parameter to which a name belongs.

    A Python or wire name belongs to the first stage with such a parameter; `2.name` belongs to the second stage.
    `unchecked` belongs to the first stage, and is not a parameter.
    """
    numbered = _OF_STEP.fullmatch(name)
    if numbered and 1 <= int(numbered[1]) <= len(stages):
        number = int(numbered[1]) - 1
        return number, stages[number].model.param(numbered[2])
    having = [(number, found) for number, stage in enumerate(stages) if (found := stage.model.find_param(name))]
    # A parameter that a refresh of the catalogue has added comes last, so that no column moves to another step.
    having.sort(key=lambda one: one[1].name in stages[one[0]].model.added)
    if having:
        return having[0]
    if name == "unchecked":
        return 0, None
    raise InputError(
        f"{name!r} is not a parameter of {' or '.join(stage.model.name for stage in stages)}; "
        f"{stages[0].model.hint(name)}. What to do: correct the name."
    )


def refuse_same(stages: Sequence[Stage], names: Iterable[str], where: str) -> None:
    """Raises an error if one parameter is given under two of its names."""
    known: dict[tuple[int, str], str] = {}
    for name in names:
        try:
            number, param = place(stages, name)
        except InputError:  # an unknown parameter is reported separately
            continue
        key = param.name if param is not None else name
        first = known.setdefault((number, key), name)
        if first != name:
            raise InputError(
                f"{where}: {first!r} and {name!r} are the same parameter {key} of {stages[number].model.name}. What to "
                "do: leave one of them out."
            )


def file_param(model: Model, *, kind: str = "") -> Param | None:
    """Returns the parameter that takes a file of a kind (empty: any), preferably a required one; None if none fits."""
    for files in model.feeds:
        fitting = [(param, is_required) for param, is_required in files if kind in ("", param.form.type)]
        if fitting:
            return next((param for param, is_required in fitting if is_required), fitting[0][0])
    return None


def column_of(param: Param) -> dict[str, Any]:
    """Returns the declaration of a column for a parameter."""
    if param.is_media:
        return {"type": "files", "of": param.type} if param.multiple else {"type": param.type}
    if param.multiple or param.type == "json":
        return {"type": "any"}
    if param.type == "enum":
        return {"enum": list(param.options)}
    return {"type": kind_of(param.type)}


def _fed(before: Model, model: Model) -> Param:
    found = file_param(model, kind=before.output)
    if found is None:
        raise InputError(
            f"{model.name} does not accept the output of {before.name}, which has the type {before.output}. What to "
            "do: choose another model."
        )
    return found


def _read(param: Param | None, value: object) -> object:
    """Converts a value in `chain` or `values` to its parameter's type; the catalogue rejects invalid values later."""
    if param is None:
        return value
    if not param.is_media:
        return read_value(FileParam.model_validate(column_of(param)), value)
    files = value if isinstance(value, list | tuple) else [value]
    found = [_file(one) for one in files]
    return found if isinstance(value, list | tuple) else found[0]


def _file(value: object) -> str | Media:
    source = as_media_input(without_mark(value))
    if isinstance(source, Media) or not is_local(source):
        return source
    path = Path(local_path(source.strip())).absolute()
    if not path.is_file():
        raise InputError(f"there is no file {path}. What to do: correct the path.")
    return str(path)
