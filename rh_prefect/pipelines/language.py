"""The language of a pipeline's file as pydantic models, and its conditions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from rh_prefect.pipelines.document import Document, Path, Problems, nearest

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)*")
RESERVED = ("params", "run", "item", "number", "id", "previous", "matrix")
"""Names that a step and an `as` may not have."""

FILE_TYPES = ("image", "video", "audio", "model3d", "file")
TYPES = ("string", "integer", "number", "boolean", "enum", *FILE_TYPES, "files", "table")
ACTIONS = ("model", "workflow", "app", "graph", "edit", "use", "review", "steps")
"""The keys of which a step has exactly one."""

PAID = ("model", "workflow", "app", "graph")
CONDITIONS = ("exists", "missing", "equals", "in", "lt", "gt", "not", "all", "any")
ANSWER_TYPES = ("string", "integer", "number", "boolean", "handle")


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("pipeline", "{message}", {"message": message})


def shown_value(value: Any) -> str:
    """A value as it is named in a message: `'params.ask' is a text`.

    Args:
        value: Plain JSON data.
    """
    if isinstance(value, str):
        return f"'{value if len(value) <= 40 else value[:37] + '...'}' is a text"
    if value is None:
        return "nothing is there"
    if isinstance(value, bool):
        return f"{str(value).lower()} is true or false"
    if isinstance(value, int | float):
        return f"{value} is a number"
    return "this is a list" if isinstance(value, list) else "this is a mapping"


def _read(test: Callable[[Any], bool], takes: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        if test(value):
            return value
        raise _wrong(f"{takes}, and {shown_value(value)}")

    return BeforeValidator(check)


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and "$(" in value


def _boolean(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    word = f"; {value} is a text in YAML 1.2" if isinstance(value, str) else f", and {shown_value(value)}"
    raise _wrong(f"takes true or false{word}")


def _whole(value: Any, least: int) -> bool:
    return _is_reference(value) or (isinstance(value, int) and not isinstance(value, bool) and value >= least)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


Text = Annotated[str, _read(lambda value: isinstance(value, str), "takes a text in quotes")]
Bool = Annotated[bool, BeforeValidator(_boolean)]
Number = Annotated[float, _read(_number, "takes a number")]
NumberOrText = Annotated[float | str, _read(lambda v: _number(v) or _is_reference(v), "takes a number or a reference")]
Count = Annotated[int | str, _read(lambda value: _whole(value, 1), "takes a whole number from 1 on")]
Whole = Annotated[int, _read(lambda v: _whole(v, 1) and isinstance(v, int), "takes a whole number from 1 on")]
Id = Annotated[int | str, _read(lambda v: isinstance(v, int | str) and not isinstance(v, bool), "takes an id")]
Names = Annotated[dict[str, Any], _read(lambda value: isinstance(value, dict), "takes a mapping of names to values")]
Refs = Annotated[str | list[str], _read(lambda v: isinstance(v, str | list), "takes a reference or a list of them")]
Items = Annotated[str | list[Any], _read(lambda v: isinstance(v, str | list), "takes a reference or a list")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, frozen=True)


class Param(_Strict):
    """A parameter of a pipeline, or a column of a table."""

    type: Text | None = None
    enum: Annotated[list[Any], _read(lambda v: isinstance(v, list) and v, "takes a list of options")] | None = None
    of: Text | None = None
    columns: Annotated[dict[str, Param], _read(lambda v: isinstance(v, dict) and v, "takes a mapping")] | None = None
    description: Text = ""
    optional: Bool = False
    default: Any = None
    min: Number | None = None
    max: Number | None = None
    max_mb: Number | None = None
    max_seconds: Number | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        """`name: string` is short for `{type: string}`."""
        if isinstance(value, str):
            return {"type": value}
        if not isinstance(value, dict):
            raise _wrong(f"takes a type, as in {{type: string}}, and {shown_value(value)}")
        return value

    @property
    def kind(self) -> str:
        """The type, `enum` where options are given."""
        return "enum" if self.enum is not None else self.type or ""

    @property
    def options(self) -> tuple[Any, ...]:
        """The values of an enum."""
        return tuple(self.enum or ())


class Sort(_Strict):
    """The order of a fan-out's items."""

    by: Text
    descending: Bool = False

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"by": value} if isinstance(value, str) else value


class TextAnswer(_Strict):
    """An answer that is one text."""

    max: Whole | None = None


class Parse(_Strict):
    """How a model's answer is read; see `answer_type`."""

    text: TextAnswer | None = None
    object: Names | None = None
    list: Names | None = None
    at_most: Count | None = None


class AssumedPrice(_Strict):
    """A price that no catalogue knows."""

    expected: Number
    most: Number

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"expected": value, "most": value} if isinstance(value, int | float) else value


class Assume(_Strict):
    """Claims about what no catalogue knows."""

    seconds: NumberOrText | None = None
    price: AssumedPrice | None = None
    kind: Literal["image", "video", "audio", "3d", "text"] | None = None


class Budget(_Strict):
    """The most money that a run may spend."""

    amount: Number
    whole_items: Bool = False
    item: Number | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"amount": value}
        return value


Condition = Any
"""A condition as it stands in the file; `check_condition` says what is wrong with one."""


class Step(_Strict):
    """One step: a request, a local edit, a review, another file, or a group of steps."""

    model: Text | None = None
    workflow: Id | None = None
    app: Id | None = None
    graph: Text | None = None
    edit: Text | None = None
    use: Text | None = None
    review: Refs | None = None
    steps: dict[str, Step] | None = None
    foreach: Items | None = None
    matrix: Names | None = None
    as_: Text | None = Field(None, alias="as")
    id: Text | None = None
    where: Condition = None
    sort: Sort | None = None
    limit: Count | None = None
    with_: Names = Field(default_factory=dict, alias="with")
    from_: Refs | None = Field(None, alias="from")
    when: Condition = None
    expect: Condition = None
    takes: Count | None = None
    attempts: Whole | None = None
    reuse: Text | None = None
    parse: Parse | None = None
    assume: Assume | None = None
    save_as: Text | None = None
    require: Literal["all", "any"] = "all"
    on_error: Literal["continue", "fail"] | None = None
    same: Bool = False
    ask: Text = ""
    pin: Text | None = None
    description: Text = ""

    @property
    def action(self) -> str:
        """Which of `ACTIONS` it has; empty for none."""
        return next((name for name in ACTIONS if getattr(self, name) is not None), "")

    @property
    def is_paid(self) -> bool:
        """Whether it may ask RunningHub for something."""
        return self.action in PAID

    @property
    def is_fan_out(self) -> bool:
        """Whether it is a group with several items."""
        return self.foreach is not None or self.matrix is not None

    def walk(self, path: Path) -> Iterator[tuple[Path, Step]]:
        """Itself and all steps in it, in order, with their paths in the file.

        Args:
            path: Its own.
        """
        yield path, self
        for name, step in (self.steps or {}).items():
            yield from step.walk((*path, "steps", name))


class PipelineFile(_Strict):
    """A whole file."""

    version: Literal[1] = 1
    name: Text = ""
    description: Text = ""
    tags: list[Text] = Field(default_factory=list)
    params: dict[str, Param] = Field(default_factory=dict)
    budget: Budget | None = None
    attempts: Whole | None = None
    reuse: Text | None = None
    credentials: Text | None = None
    storage: Text | None = None
    steps: dict[str, Step]
    outputs: dict[str, Any] = Field(default_factory=dict)

    def walk(self) -> Iterator[tuple[Path, Step]]:
        """All steps, in order, with their paths in the file."""
        for name, step in self.steps.items():
            yield from step.walk(("steps", name))


_WHAT: Mapping[type[BaseModel], str] = {
    PipelineFile: "a pipeline",
    Step: "a step",
    Param: "a parameter",
    Budget: "budget",
    Sort: "sort",
    Parse: "parse",
    TextAnswer: "text",
    Assume: "assume",
    AssumedPrice: "price",
}


def keys_of(model: type[BaseModel]) -> list[str]:
    """The keys that one of the models above takes.

    Args:
        model: The model.
    """
    return [info.alias or name for name, info in model.model_fields.items()]


def build(document: Document, problems: Problems) -> PipelineFile | None:
    """Makes the model of a file; what does not fit becomes problems.

    Args:
        document: The file.
        problems: Takes what is wrong.

    Returns:
        The model; None where there are problems.
    """
    data = document.data
    if not isinstance(data, dict):
        problems.add(document, (), "a pipeline is a mapping with steps; `rh-prefect init` writes one to begin with")
        return None
    try:
        return PipelineFile.model_validate(data)
    except ValidationError as error:
        for one in error.errors(include_url=False):
            _report(document, problems, one)
        return None


def _report(document: Document, problems: Problems, error: Any) -> None:
    path, model = _real_path(document, error["loc"])
    name = next((part for part in reversed(path) if isinstance(part, str)), "the file")
    match error["type"]:
        case "pipeline":
            problems.add(document, path, f"{name} {error['msg']}{_hint(error['input'], name)}")
        case "extra_forbidden":
            owner = _WHAT.get(model, "this")
            said = f"{name} is not a key of {owner}; {nearest(name, keys_of(model))}"
            problems.add(document, path, said, key=True)
        case "missing":
            missing = str(error["loc"][-1])
            problems.add(document, path, f"{missing} is missing{' in ' + str(name) if path else ''}")
        case "literal_error":
            problems.add(
                document, path, f"{name} takes {' or '.join(_options(error))}, and {shown_value(error['input'])}"
            )
        case "model_type" | "model_attributes_type" | "dict_type":
            problems.add(document, path, f"{name} takes a mapping of keys, and {shown_value(error['input'])}")
        case _:
            problems.add(document, path, f"{name}: {error['msg'][:1].lower()}{error['msg'][1:]}")


def _options(error: Any) -> list[str]:
    return [one or other for one, other in re.findall(r"'([^']*)'|(\d+)", str(error["ctx"]["expected"]))]


def _hint(value: Any, name: str) -> str:
    if name in ("foreach", "review", "from") and isinstance(value, str):
        return f"; did you mean $({value})?"
    return ""


def _real_path(document: Document, loc: tuple[str | int, ...]) -> tuple[Path, type[BaseModel]]:
    """The part of pydantic's location that exists in the file, and the model of the mapping that it lies in."""
    node, path = document.root, []
    for part in loc:
        try:
            node = node.value[part]
        except (KeyError, IndexError, TypeError):
            continue  # the name of a member of a union, or a key that is missing
        path.append(part)
    return tuple(path), _model_at(tuple(path))


def _model_at(path: Path) -> type[BaseModel]:
    """Which model the last key of a path belongs to."""
    model: type[BaseModel] = PipelineFile
    parts = list(path[:-1])
    while parts:
        part = parts.pop(0)
        if part in ("params", "columns") and parts:
            model = Param
            parts.pop(0)
        elif part == "steps" and parts:
            model = Step
            parts.pop(0)
        else:
            model = _INNER.get((model, str(part)), model)
    return model


_INNER: Mapping[tuple[type[BaseModel], str], type[BaseModel]] = {
    (PipelineFile, "budget"): Budget,
    (Step, "sort"): Sort,
    (Step, "parse"): Parse,
    (Parse, "text"): TextAnswer,
    (Step, "assume"): Assume,
    (Assume, "price"): AssumedPrice,
}


def check_condition(document: Document, path: Path, value: Any, problems: Problems) -> bool:
    """Says what is wrong with the form of a condition.

    Args:
        document: The file.
        path: Where the condition is.
        value: It.
        problems: Takes what is wrong.

    Returns:
        Whether nothing is.
    """
    name = next((part for part in reversed(path) if isinstance(part, str)), "")
    if isinstance(value, bool) or _is_one_reference(value):
        return True
    if isinstance(value, str):
        hint = f"; did you mean $({value})?" if re.fullmatch(r"[\w.-]+", value) else ""
        problems.add(document, path, f"{name} takes a condition, and '{value}' is a text{hint}")
        return False
    if not isinstance(value, dict) or len(value) != 1:
        said = f"has {len(value)} keys" if isinstance(value, dict) else shown_value(value)
        said = f"{name} takes one condition, such as {{exists: $(x)}}, and {'this ' if said[:3] == 'has' else ''}{said}"
        problems.add(document, path, said)
        return False
    [(operator, argument)] = value.items()
    if operator not in CONDITIONS:
        message = f"{operator} is not a condition; {nearest(operator, CONDITIONS)}"
        problems.add(document, (*path, operator), message, key=True)
        return False
    return _check_argument(document, (*path, operator), operator, argument, problems)


def _check_argument(document: Document, path: Path, operator: str, argument: Any, problems: Problems) -> bool:
    if operator in ("all", "any"):
        if not isinstance(argument, list) or not argument:
            problems.add(document, path, f"{operator} takes a list of conditions, and {shown_value(argument)}")
            return False
        found = [check_condition(document, (*path, number), one, problems) for number, one in enumerate(argument)]
        return all(found)
    if operator == "not":
        return check_condition(document, path, argument, problems)
    if operator in ("exists", "missing"):
        if _is_one_reference(argument):
            return True
        hint = f"; did you mean $({argument})?" if isinstance(argument, str) else ""
        problems.add(document, path, f"{operator} takes a reference, and {shown_value(argument)}{hint}")
        return False
    if not isinstance(argument, list) or len(argument) != 2:
        problems.add(document, path, f"{operator} takes a list of two values, as in {{{operator}: [$(a), b]}}")
        return False
    if operator == "in" and not isinstance(argument[1], list):
        problems.add(document, (*path, 1), "in takes a value and a list, as in {in: [$(a), [b, c]]}")
        return False
    return True


def _is_one_reference(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("$(") and value.endswith(")") and value.count("$(") == 1
