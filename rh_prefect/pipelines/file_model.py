"""The pydantic models of a pipeline file: parameters, steps, budget."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from math import inf
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from rh_prefect.pipelines.document import Path

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)*")
RESERVED = ("params", "run", "item", "number", "id", "previous", "matrix")
"""Names that a step and an `as` may not have."""

RUN_OPTIONS = (
    "budget",
    "takes",
    "choices",
    "new",
    "only",
    "items",
    "sample",
    "require_new",
    "credentials",
    "storage",
    "wait",
)
"""The options of every run; a parameter of a file that is run has none of these names."""

FILE_TYPES = ("image", "video", "audio", "model3d", "file")
TYPES = ("string", "integer", "number", "boolean", "enum", *FILE_TYPES, "files", "table")
ACTIONS = ("model", "workflow", "app", "graph", "edit", "use", "review", "steps")
"""The keys of which a step has exactly one."""

PAID = ("model", "workflow", "app", "graph")

ANSWER_TYPES = ("string", "integer", "number", "boolean", "handle")


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("pipeline", "{message}", {"message": message})


def shown_value(value: Any) -> str:
    """Returns a value as named in a message: `'params.ask' is a text`.

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


def _options(value: Any) -> Any:
    if not isinstance(value, list) or not value:
        raise _wrong(f"takes a list of options, and {shown_value(value) if value != [] else 'this one is empty'}")
    for one in value:
        if not isinstance(one, str | int | float):
            raise _wrong(f"takes texts, numbers, true and false as options, and one of them is {_kind_of(one)}")
    return value


def _kind_of(value: Any) -> str:
    return "empty" if value is None else "a list" if isinstance(value, list) else "a mapping"


def holds_reference(value: Any) -> bool:
    """Whether there is a reference in a value."""
    return isinstance(value, str) and "$(" in value


def _boolean(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    word = f"; {value} is a text in YAML 1.2" if isinstance(value, str) else f", and {shown_value(value)}"
    raise _wrong(f"takes true or false{word}")


def _whole(value: Any, least: int) -> bool:
    return holds_reference(value) or (isinstance(value, int) and not isinstance(value, bool) and value >= least)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


Text = Annotated[str, _read(lambda value: isinstance(value, str), "takes a text in quotes")]
Bool = Annotated[bool, BeforeValidator(_boolean)]
Same = Annotated[
    bool | Literal["separate"],
    _read(lambda value: isinstance(value, bool) or value == "separate", "takes true, false or separate"),
]
Number = Annotated[float, _read(_number, "takes a number")]
Amount = Annotated[float, _read(lambda v: _number(v) and 0 <= v < inf, "takes an amount of 0 or more")]
Seconds = Annotated[
    float | str,
    _read(lambda v: (_number(v) and 0 < v < inf) or holds_reference(v), "takes a number above 0 or a reference"),
]
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
    enum: Annotated[list[Any], BeforeValidator(_options)] | None = None
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
    """A price that the author assumes, because no catalogue has it."""

    expected: Number
    most: Number

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"expected": value, "most": value} if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _are_bounds(self) -> AssumedPrice:
        if self.expected < 0:
            raise _wrong(f"takes amounts of 0 or more, and {self.expected:g} is less")
        if self.expected > self.most:
            raise _wrong(f"takes expected up to most, and {self.expected:g} is more than {self.most:g}")
        if self.most == 0:  # as in a price list, where 0 stands for a price that is not known
            raise _wrong("takes most above 0, and 0 counts as an unknown price")
        return self


class Assume(_Strict):
    """The author's assumptions about facts that no catalogue has."""

    seconds: Seconds | None = None
    price: AssumedPrice | None = None
    kind: Literal["image", "video", "audio", "3d", "text"] | None = None


class Budget(_Strict):
    """The most money that a run may spend."""

    amount: Number
    whole_items: Bool = False
    item: Amount | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return value
        if not _number(value) or not value < inf:
            raise _wrong(f"takes an amount or a mapping with an amount, and {shown_value(value)}")
        return {"amount": value}


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
    same: Same = False
    ask: Text = ""
    pin: Text | None = None
    description: Text = ""

    @property
    def action(self) -> str:
        """Which of `ACTIONS` it has; empty for none."""
        return next((name for name in ACTIONS if getattr(self, name) is not None), "")

    @property
    def is_paid(self) -> bool:
        """Whether it may send a request to RunningHub."""
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
    scope: Text | None = None
    credentials: Text | None = None
    storage: Text | None = None
    steps: dict[str, Step]
    outputs: dict[str, Any] = Field(default_factory=dict)

    def walk(self) -> Iterator[tuple[Path, Step]]:
        """All steps, in order, with their paths in the file."""
        for name, step in self.steps.items():
            yield from step.walk(("steps", name))
