"""`Pipeline`: a file that was read and checked, and its plans; `flows.pipeline.Pipeline` also runs it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from rh_prefect.catalog import Model, Param, registry
from rh_prefect.catalog.descriptions import describe, summary
from rh_prefect.errors import InputError, UnknownModelError
from rh_prefect.json_snapshot import converted
from rh_prefect.media.input_access_policy import allowed_below
from rh_prefect.media.input_files import shown
from rh_prefect.pipelines.batch_model_columns import column_of
from rh_prefect.pipelines.check.checked_file import SHIPPED, Checked, read_text
from rh_prefect.pipelines.check.file import check_document, made_again
from rh_prefect.pipelines.file_model import PipelineFile
from rh_prefect.pipelines.garbage_collection import uncollected
from rh_prefect.pipelines.input_reader import InputReader, input_roots, is_default
from rh_prefect.pipelines.parsed_document import Problems, nearest_sentence
from rh_prefect.pipelines.plan.options import OPTIONS, PlanOptions
from rh_prefect.pipelines.plan.plan import Plan, finished
from rh_prefect.pipelines.plan.planning import Planning
from rh_prefect.pipelines.plan.work_identity import pipeline_id
from rh_prefect.pipelines.takes_file import Choices, read_choices, takes_file
from rh_prefect.pipelines.yaml_reader import read

FILE_SUFFIXES = (".yaml", ".yml", ".json")
"""Extensions that always mean a file."""

_TEXT, _DICT = "pipeline.yaml", "pipeline.json"
"""The names of the file in messages, for a pipeline that has none."""

RESULT = "result"
"""The name of the step and of the output in the pipeline of a model."""


class Pipeline:
    """A pipeline that was read and checked.

        film = Pipeline.from_file("film.yaml")
        plan = await film.plan(prompt="a lighthouse at dawn")
        print(plan.table())

    Attributes:
        checked: The file with the types of its steps.
    """

    def __init__(self, checked: Checked, *, takes: Path | None = None) -> None:
        """Creates a pipeline from a checked file; usually, call `from_file`, `from_text` or `from_dict` instead.

        Args:
            checked: The checked file.
            takes: The takes file for the pipeline's runs; without it, takes and choices are not recorded.
        """
        self.checked, self.takes = checked, takes

    def __repr__(self) -> str:
        """Returns a description with the parameters, the number of steps and the outputs."""
        params, outputs = (", ".join(names) or "none" for names in (self.file.params, self.file.outputs))
        return f"<Pipeline {self.name}: parameters {params}; {len(self.file.steps)} steps; outputs {outputs}>"

    @classmethod
    def from_file(cls, file: str | PathLike[str]) -> Self:
        """Reads a file.

        Args:
            file: The path of the file.

        Raises:
            PipelineError: The file is not valid; the error contains the line, column and remedy of every problem.
            InputError: There is no such file.
        """
        path = Path(file)
        try:
            text = read_text(path)
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(
                f"The pipeline {path} cannot be read: {reason}. What to do: use the path of an existing file."
            ) from None
        return cls._of(text, str(file), path.parent, takes_file(path))

    @classmethod
    def from_text(cls, text: str, *, name: str = _TEXT) -> Self:
        """Parses YAML from a string; the pipeline cannot use local files, as in `use: ./x.yaml`.

        Args:
            text: YAML or JSON.
            name: The name of the pipeline's file in messages; the pipeline has this name, unless the text has a `name`.

        Raises:
            PipelineError: The text is not a valid pipeline.
        """
        return cls._of(text, name, None)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Reads the content of a file from a dictionary; messages show lines from the JSON form of this content.

        Args:
            data: Plain JSON data.

        Raises:
            PipelineError: The data is not a valid pipeline.
        """
        return cls.from_text(json.dumps(data, indent=2, ensure_ascii=False), name=_DICT)

    @classmethod
    def shipped(cls, name: str) -> Self:
        """Reads a pipeline that comes with the package, such as `film`.

        Args:
            name: The pipeline's name; `rh-prefect init --help` lists all names.

        Raises:
            InputError: There is no such pipeline.
        """
        if name not in shipped_names():
            hint = nearest_sentence(name, shipped_names())
            raise InputError(f"There is no shipped pipeline {name}; {hint} What to do: correct the name.")
        text = read_text(SHIPPED / f"{name}.yaml")
        return cls._of(text, f"rh:{name}", SHIPPED, Path(f"{name}.takes.yaml"))

    @classmethod
    def of_model(cls, name: str) -> Self:
        """Returns the pipeline of a model, with the parameters of the model and the output `result`.

        Args:
            name: Any name of the model.

        Raises:
            UnknownModelError: There is no such model.
        """
        model = registry.get(name)
        return cls._of(_write_model(model), model.name, None, Path(f"{pipeline_name(model)}.takes.yaml"))

    @classmethod
    def open(cls, name: str | PathLike[str]) -> Self:
        """Reads a pipeline by its path or name: a file, a shipped pipeline or the pipeline of a model.

        Args:
            name: A path, or a name such as `film` or `z-image/turbo`. A file of that name has priority.

        Raises:
            PipelineError: The file is not valid.
            InputError: There is no file, shipped pipeline or model of this name.
        """
        path, text = Path(name), str(name)
        if path.suffix in FILE_SUFFIXES or path.is_file():
            return cls.from_file(name)
        if text in shipped_names():
            return cls.shipped(text)
        try:
            return cls.of_model(text)
        except UnknownModelError as error:
            near = ", ".join(dict.fromkeys([*get_close_matches(text, shipped_names(), n=2), *error.nearest]))
            raise InputError(
                f"There is no pipeline {text}: neither a file, nor a shipped pipeline, nor a model has this name. "
                f"The nearest names are {near}. What to do: correct the name, or pass the path of a .yaml "
                "file. If the catalogue lacks a model, add the model with `rh-prefect models refresh FILE`."
            ) from None

    @classmethod
    def _of(cls, text: str, name: str, folder: Path | None, takes: Path | None = None) -> Self:
        problems = Problems()
        checked = check_document(read(text, name), problems, folder=folder)
        problems.refuse()
        assert checked is not None  # noqa: S101 - without it there are problems
        return cls(checked, takes=takes)

    def with_reuse(self, reuse: Literal["never", "always"]) -> Self:
        """Returns the pipeline with another default for `reuse`, also in the files that it uses.

        Args:
            reuse: The value for steps that do not have the key `reuse`.
        """
        return type(self)(_with_reuse(self.checked, reuse), takes=self.takes)

    @property
    def file(self) -> PipelineFile:
        """The content of the file."""
        return self.checked.file

    @property
    def name(self) -> str:
        """The `name` in the file, or the name of the file without its extension."""
        return self.file.name or Path(self.checked.document.name).stem

    @property
    def needs_account(self) -> bool:
        """Whether a run may send paid requests; a pipeline that has only edits needs no account and no key."""
        return any(step.is_paid for _, step in self.checked.walk())

    def refuse_without_name(self, reuse: str | None = None) -> None:
        """Raises an error for a run of a pipeline without a name whose rounds or saved files belong to its name.

        Args:
            reuse: The default of `reuse` in the run; None for the value in the file.
        """
        is_named = self.file.name or self.checked.folder is not None or self.checked.document.name not in (_TEXT, _DICT)
        used = self.checked if reuse is None else _with_reuse(self.checked, reuse)
        if is_named or not (any(made_again(used)) or any(step.get("save_as") for _, step in used.walk())):
            return
        raise InputError(
            "The pipeline has no name, but `save_as` or a `reuse` other than `always`: all pipelines without a name "
            "would continue the rounds, and replace the files, of each other. Nothing was paid. What to do: add a line "
            "such as `name: film` to the pipeline."
        )

    async def plan(self, params: Mapping[str, Any] | None = None, /, **more: Any) -> Plan:
        """Returns the plan of a run: its steps, states and prices. Nothing is submitted.

        Args:
            params: Parameters by name, for names that are not valid in Python.
            **more: Parameters by name, and options; see `PlanOptions`.

        Returns:
            The plan; `problems` contains its errors.
        """
        if params is None:
            self._refuse_options_as_params(more)
        options = PlanOptions(**{name: more.pop(name) for name in OPTIONS if name in more})
        arguments, problems = {**(params or {}), **more}, Problems()
        options.inputs.pipeline = self.name
        reader = InputReader(self.checked, problems, options.inputs)
        roots = input_roots(self.file.params, arguments)
        with allowed_below(*roots):
            values = await reader.bind(arguments)
        if problems:
            plan = self._head(arguments, reader)
            plan.selection, plan.problems = options.selection, list(problems)
            return plan
        # Without defaults, a changed default, or a new parameter that has one, keeps the round.
        declared = self.file.params
        given = {name: value for name, value in values.items() if not is_default(declared[name], value)}
        planning = Planning(
            self.checked,
            options,
            choices=replace(options.decided or self.decided(options.takes, options.choices), new=options.new),
            bind_used=reader.bind_used,
            pipeline=await asyncio.to_thread(pipeline_id, self.name, given),
        )
        with allowed_below(*roots), uncollected():
            plan = await finished(planning, values, self._head(arguments, reader))
            if plan.problems and options.known is not None:
                planning = replace(planning, options=replace(options, known=None))
                plan.keep_problems_of(await finished(planning, values, self._head(arguments, reader)))
        plan.inputs = reader.inputs
        plan.problems = sorted([*problems, *plan.problems])
        return plan

    def _refuse_options_as_params(self, given: Iterable[str]) -> None:
        """Raises an error for given options that are also parameters of the file."""
        name = next((name for name in given if name in OPTIONS and name in self.file.params), None)
        if name is not None:
            raise InputError(
                f"{name} is an option of `plan` and a parameter of {self.name}; it is unclear which one you mean. "
                f'What to do: pass the parameters as a mapping: `plan({{"{name}": …}})`.'
            )

    def decided(self, takes: Mapping[str, int], choices: Mapping[str, Mapping[str, Any]]) -> Choices:
        """Returns the decisions for this file: the given decisions, and the decisions in the takes file next to it.

        Args:
            takes: See `PlanOptions`.
            choices: See `PlanOptions`.
        """
        found = read_choices(self.takes)
        all_choices = {**found.choices, **choices}
        return replace(found, takes={**found.takes, **takes}, choices=all_choices, given=takes.keys())

    def plan_now(self, params: Mapping[str, Any] | None = None, /, **more: Any) -> Plan:
        """Returns the same plan as `plan`, for callers without an event loop.

        Args:
            params: See `plan`.
            **more: See `plan`.
        """
        return asyncio.run(self.plan(params, **more))

    def _head(self, arguments: Mapping[str, Any], reader: InputReader) -> Plan:
        text, budget = "\n".join(self.checked.document.lines), self.file.budget
        shown_params = {name: converted(value, _as_json) for name, value in arguments.items()}
        return Plan(
            pipeline=self.name,
            spec_sha256=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
            catalogue=registry.version(),
            params=shown_params,
            hidden_params=[name for name, value in arguments.items() if _is_hidden(value, shown_params[name])],
            inputs=reader.inputs,
            budget=budget if budget is not None and not budget.unlimited else None,
            is_unlimited=budget is not None and budget.unlimited,
        )


@cache
def shipped_names() -> tuple[str, ...]:
    """Returns the names of the pipelines that come with the package."""
    return tuple(sorted(file.stem for file in SHIPPED.glob("*.yaml")))


def _with_reuse(checked: Checked, reuse: str) -> Checked:
    uses = {path: _with_reuse(used, reuse) for path, used in checked.uses.items()}
    return replace(checked, file=checked.file.model_copy(update={"reuse": reuse}), uses=uses)


def _is_hidden(value: Any, shown_value: Any) -> bool:
    """Returns whether a plan hides a part of a parameter, such as a signature; a run then needs the parameter again."""
    if shown_value is None:
        return value is not None
    if isinstance(value, Mapping):
        return any(_is_hidden(one, shown_value[str(name)]) for name, one in value.items())
    if isinstance(value, list | tuple):
        return any(map(_is_hidden, value, shown_value))
    return isinstance(value, str) and value != shown_value


def _as_json(value: Any) -> Any:
    """Returns the JSON form of a value in a parameter for a plan; of a link, without signature and password."""
    if isinstance(value, str):
        return shown(value) if "://" in value else value
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return value if isinstance(value, int | float | bool | None) else str(value)


# -- the pipeline of a model -------------------------------------------------------------------------------------------


def pipeline_name(model: Model) -> str:
    """Returns the name of a model's pipeline: the model's name without characters that Prefect rejects."""
    return re.sub(r"[/%&<>]", "-", model.name)


def _write_model(model: Model) -> str:
    """Returns the pipeline of a model, as YAML."""
    given = {param.name: f"$(params.{param.name})" for param in model.known_params}
    data = {
        "name": pipeline_name(model),
        "description": summary(model),
        "params": {param.name: _declared(param) for param in model.known_params},
        "steps": {RESULT: {"model": model.name, "with": given}},
        "outputs": {RESULT: f"$({RESULT})"},
    }
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


def _declared(param: Param) -> dict[str, Any]:
    """Returns the declaration of a parameter, with the limits of numbers and strings that a deployment's form uses.

    If the model has a default, the parameter is optional and has no default here, because a request that contains the
    default counts as another work.
    """
    declared = column_of(param)
    if declared.get("type") in ("integer", "number"):
        declared |= {name: value for name in ("min", "max") if (value := getattr(param, name)) is not None}
    if declared.get("type") == "string" and param.max_length is not None:
        declared["max"] = param.max_length
    default = "" if param.default is None else f"RunningHub's default: {param.wire_default}"
    words = "; ".join(filter(None, [describe(replace(param, max_length=None)), default]))
    return declared | ({} if param.needs_value else {"optional": True}) | ({"description": words} if words else {})
