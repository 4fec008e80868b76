"""The pydantic models of a pipeline file: parameters, steps, budget."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from math import inf
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from rh_prefect.catalog.model import param_name
from rh_prefect.pipelines.parsed_document import Path
from rh_prefect.pipelines.planning_values import File
from rh_prefect.pipelines.planning_values import Items as ItemValues
from rh_prefect.pipelines.references import Reference, references_in
from rh_prefect.pipelines.run.options import RunOptions

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)*")
RESERVED = ("params", "run", "item", "number", "id", "previous", "matrix")
"""Names that are not allowed for steps and `as`."""

RUN_OPTIONS = tuple(RunOptions.__dataclass_fields__)
"""The options of every run; parameters of a file must have other names."""

FILE_TYPES = ("image", "video", "audio", "model3d", "file")
TYPES = ("string", "integer", "number", "boolean", "enum", "any", "list", *FILE_TYPES, "files", "table")
ACTIONS = ("model", "workflow", "app", "graph", "edit", "use", "review", "steps")
"""The keys that determine what a step does; a step has exactly one of them."""


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("pipeline", "{message}", {"message": message})


def shown_value(value: Any) -> str:
    """Describes a value in a clause for messages, as in `the value is 'params.ask'`."""
    return "there is no value" if value is None else f"the value is {value_words(value)}"


def value_words(value: Any) -> str:
    """Describes a value for messages: a string in quotes, and `a list` or `a mapping` in place of its content."""
    if isinstance(value, str):
        return f"'{value if len(value) <= 40 else value[:37] + '...'}'"
    if isinstance(value, int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, ItemValues | File):
        return "a list" if isinstance(value, ItemValues) else "a file"
    kind = "list" if isinstance(value, list | tuple) else "mapping" if isinstance(value, Mapping) else ""
    return f"{'a' if value else 'an empty'} {kind}" if kind else f"of the type {type(value).__qualname__}"


def _read(test: Callable[[Any], bool], takes: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        if test(value):
            return value
        raise _wrong(f"{takes}, but {shown_value(value)}")

    return BeforeValidator(check)


def _options(value: Any) -> Any:
    if not isinstance(value, list) or not value:
        raise _wrong(f"takes a list of options, but {shown_value(value)}")
    for one in value:
        if not isinstance(one, str | int | float):
            kind = "empty" if one is None else "a list" if isinstance(one, list) else "a mapping"
            raise _wrong(f"takes strings, numbers, true and false as options, but one option is {kind}")
    return value


def _boolean(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    word = f"; {value} is a string in YAML 1.2" if isinstance(value, str) else f", but {shown_value(value)}"
    raise _wrong(f"takes true or false{word}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return _number(value) and isinstance(value, int) and value >= 1


def _may_refer(value: Any) -> bool:
    """Returns whether a value is a string with a reference; an incomplete one is reported with its position later."""
    return isinstance(value, str) and "$(" in value.replace("$$(", "")


Text = Annotated[str, _read(lambda value: isinstance(value, str), "takes a string in quotes")]
Bool = Annotated[bool, BeforeValidator(_boolean)]
Same = Annotated[
    bool | Literal["separate"],
    _read(lambda value: isinstance(value, bool) or value == "separate", "takes true, false or separate"),
]
Number = Annotated[float, _read(_number, "takes a number")]
Amount = Annotated[float, _read(lambda v: _number(v) and 0 <= v < inf, "takes an amount of 0 or more")]
Above = Annotated[float, _read(lambda v: _number(v) and v > 0, "takes a number above 0")]
_REUSE = re.compile(r"always|never|[1-9]\d{0,4}[mhd]")
Reuse = Annotated[
    str,
    _read(lambda v: bool(_REUSE.fullmatch(str(v))), "takes always, never, or a time such as 30m, 12h or 7d"),
]
Seconds = Annotated[
    float | str,
    _read(lambda v: (_number(v) and 0 < v < inf) or _may_refer(v), "takes a number above 0 or a reference"),
]
Whole = Annotated[int, _read(_whole, "takes a whole number of at least 1")]
Count = Annotated[int | str, _read(lambda v: _whole(v) or _may_refer(v), "takes a whole number of at least 1")]
Id = Annotated[int | str, _read(lambda v: isinstance(v, int | str) and not isinstance(v, bool), "takes an id")]


def _given(value: Any) -> Any:
    """Refuses a key without a value, because ignoring the key could change the cost."""
    if value is None:
        raise _wrong("has no value; write a value, or remove the key")
    return value


Names = Annotated[
    dict[str, Annotated[Any, BeforeValidator(_given)]],
    _read(lambda value: isinstance(value, dict), "takes a mapping of names to values"),
]
Refs = Annotated[
    str | list[str], _read(lambda v: isinstance(v, str | list), "takes a reference or a list of references")
]
Items = Annotated[str | list[Any], _read(lambda v: isinstance(v, str | list), "takes a reference or a list")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _has_value(cls, value: Any, info: ValidationInfo) -> Any:
        return value if info.field_name == "default" else _given(value)

    short: ClassVar[str] = ""
    """The key that a value in place of a mapping sets, as `title: string` sets `type`."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return value if not cls.short or isinstance(value, dict) else {cls.short: value}


class Param(_Strict):
    """A parameter of a pipeline, or a column of a table."""

    type: Annotated[str, _read(lambda v: isinstance(v, str), "takes a type, as in {type: string}")] | None = None
    enum: Annotated[list[Any], BeforeValidator(_options)] | None = None
    of: Text | None = None
    columns: Annotated[dict[str, Param], _read(lambda v: isinstance(v, dict) and v, "takes a mapping")] | None = None
    other_columns: Annotated[list[Text], _read(lambda v: isinstance(v, list), "takes a list of columns")] | None = None
    header: Annotated[str | list[Text], _read(lambda v: isinstance(v, str | list) and v, "takes a name")] | None = None
    description: Text = ""
    optional: Bool = False
    default: Any = None
    min: Number | None = None
    max: Number | None = None
    max_mb: Above | None = None
    max_seconds: Above | None = None

    short: ClassVar[str] = "type"

    @property
    def needs_value(self) -> bool:
        """Whether each run must give the parameter, or each row the column."""
        return not self.optional and self.default is None

    @property
    def kind(self) -> str:
        """The type; `enum` if options are given."""
        return "enum" if self.enum is not None else self.type or ""

    @property
    def headers(self) -> tuple[str, ...]:
        """The names that the column may have in a table; empty if its key in the pipeline is its only name."""
        return (self.header,) if isinstance(self.header, str) else tuple(self.header or ())

    @property
    def options(self) -> tuple[Any, ...]:
        """The values of an enum."""
        return tuple(self.enum or ())


class Sort(_Strict):
    """The order of a fan-out's items."""

    by: Text
    descending: Bool = False

    short: ClassVar[str] = "by"


class TextAnswer(_Strict):
    """A plain-text answer of at most `max` characters."""

    max: Whole | None = None


class AnswerField(_Strict):
    """A field of a JSON answer."""

    type: Literal["string", "integer", "number", "boolean", "handle"] = "string"
    max: Whole | None = None

    short: ClassVar[str] = "type"


Fields = Annotated[
    dict[str, AnswerField], _read(lambda v: isinstance(v, dict) and v, "takes a mapping of field names to types")
]


class Parse(_Strict):
    """The expected structure of a model's answer; see `answer_type`."""

    text: TextAnswer | None = None
    object: Fields | None = None
    list: Fields | None = None
    at_most: Count | None = None


class AssumedPrice(_Strict):
    """A price that the author assumes, because the catalogue has none."""

    expected: Number
    most: Number

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"expected": value, "most": value} if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _are_bounds(self) -> AssumedPrice:
        if self.expected < 0:
            raise _wrong(f"takes amounts of 0 or more, but {self.expected:g} is less")
        if self.expected > self.most:
            raise _wrong(f"needs `expected` to be at most `most`, but {self.expected:g} is more than {self.most:g}")
        if self.most == 0:  # as in a price list, where 0 stands for a price that is not known
            raise _wrong("needs a `most` above 0, because a price of 0 counts as unknown")
        return self


class Assume(_Strict):
    """The author's assumptions about facts that the catalogue does not have."""

    seconds: Seconds | None = None
    price: AssumedPrice | None = None
    kind: Literal["image", "video", "audio", "3d", "text"] | None = None


class Budget(_Strict):
    """The maximum cost of a run."""

    amount: Amount
    whole_items: Bool = False
    item: Amount | None = None
    all_runs: Bool = False
    unlimited: Bool = False

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return value
        if value == "unlimited":
            return {"amount": 0, "unlimited": True}
        if not _number(value) or not value < inf:
            raise _wrong(f"takes an amount or a mapping with an amount, but {shown_value(value)}")
        return {"amount": value}


COMPARISONS = ("equals", "ne", "in", "lt", "lte", "gt", "gte")
CONDITIONS = ("exists", "missing", *COMPARISONS, "not", "all", "any")


def _written_out(value: Any) -> Any:
    """Returns a condition with `{item.sold: {gt: 0}}` written as `{gt: [$(item.sold), 0]}`."""
    if not isinstance(value, dict) or len(value) != 1:
        return value
    [(name, argument)] = value.items()
    if name in ("all", "any") and isinstance(argument, list):
        return {name: [_written_out(one) for one in argument]}
    if name == "not":
        return {name: _written_out(argument)}
    if name in CONDITIONS or not isinstance(argument, dict) or not argument or argument.keys() - {*COMPARISONS}:
        return value
    tests = [{operator: [f"$({name})", other]} for operator, other in argument.items()]
    return tests[0] if len(tests) == 1 else {"all": tests}


Condition = Annotated[Any, BeforeValidator(_written_out)]
"""A condition as written in the file; `check` reports errors in it."""


class Step(_Strict):
    """The keys that all steps have. Each kind of step is a subclass; `tag_of` determines it from the step's keys."""

    when: Condition = None
    require: Literal["all", "any"] = "all"
    on_error: Literal["continue", "fail"] | None = None
    description: Text = ""

    is_paid: ClassVar[bool] = False
    """Whether steps of this kind may send paid requests to RunningHub."""

    is_fan_out: ClassVar[bool] = False
    """Whether the steps of such a group are made for each of several items."""

    @property
    def action(self) -> str:
        """The key of `ACTIONS` that the step has, such as `model`."""
        return next(name for name in ACTIONS if self.get(name) is not None)

    @cached_property
    def conditions(self) -> tuple[Reference, ...]:
        """The references in `when` and `expect`, which are evaluated for each item."""
        return tuple(one for _, one in references_in([self.when, self.get("expect")]))

    @cached_property
    def named_by(self) -> tuple[Reference, ...]:
        """The references in `save_as`, the name under which the file is saved."""
        return tuple(one for _, one in references_in(self.get("save_as")))

    @cached_property
    def taken(self) -> tuple[Reference, ...]:
        """The references in `with`, `from` and `save_as`."""
        values = tuple(one for _, one in references_in([self.get("with_"), self.get("from_")]))
        return (*values, *self.named_by)

    @cached_property
    def names(self) -> frozenset[str]:
        """The names to which the step and its inner steps refer; with `previous`, items are made in order."""
        parts = (one.model_dump(exclude={"steps"}) for _, one in self.walk(()))
        references = (reference for part in parts for _, reference in references_in(part))
        return frozenset(option[0] for reference in references for option in reference.options)

    def get(self, field: str) -> Any:
        """Returns the value of a field that only some kinds of steps have; None if this step does not have it."""
        return getattr(self, field, None)

    def walk(self, path: Path) -> Iterator[tuple[Path, Step]]:
        """Yields this step and all its inner steps, in order, with their paths in the file."""
        yield path, self


class PaidStep(Step):
    """A step that sends paid requests to RunningHub."""

    with_: Names = Field(default_factory=dict, alias="with")
    expect: Condition = None
    takes: Count | None = None
    attempts: Whole | None = None
    reuse: Reuse | None = None
    parse: Parse | None = None
    assume: Assume | None = None
    save_as: Text | None = None
    same: Same = False

    is_paid: ClassVar[bool] = True


class ModelStep(PaidStep):
    """A step that calls a model in the catalogue."""

    model: Text
    from_: Refs | None = Field(None, alias="from")

    @property
    def sources(self) -> list[tuple[Path, str]]:
        """The references in `from`, with their paths below the step."""
        if isinstance(self.from_, list):
            return [(("from", n), one) for n, one in enumerate(self.from_)]
        return [(("from",), self.from_)] if self.from_ else []


class GraphStep(PaidStep):
    """A step that runs a saved workflow, an app or a graph of nodes; the catalogue does not contain their fields."""

    workflow: Id | None = None
    app: Id | None = None
    graph: Text | None = None
    pin: Text | None = None


class EditStep(Step):
    """A local edit of files, which costs nothing."""

    edit: Text
    with_: Names = Field(default_factory=dict, alias="with")
    expect: Condition = None
    save_as: Text | None = None


class UseStep(Step):
    """A step that runs the steps of another pipeline file."""

    use: Text
    with_: Names = Field(default_factory=dict, alias="with")
    expect: Condition = None
    same: Bool = False


class ReviewStep(Step):
    """A step in which a person chooses one of several results."""

    review: Refs
    ask: Text = ""
    expect: Condition = None
    save_as: Text | None = None

    @property
    def sources(self) -> list[str]:
        """The references in `review`."""
        return self.review if isinstance(self.review, list) else [self.review]


class GroupStep(Step):
    """Steps with a common name and common conditions."""

    steps: Steps

    def walk(self, path: Path) -> Iterator[tuple[Path, Step]]:
        """Yields the group and all its inner steps; see `Step.walk`."""
        yield path, self
        for name, step in self.steps.items():
            yield from step.walk((*path, "steps", name))


class FanOutStep(GroupStep):
    """A group for each item of a list, or for each combination of values from several lists."""

    foreach: Items | None = None
    matrix: Names | None = None
    as_: Text | None = Field(None, alias="as")
    id: Text | None = None
    where: Condition = None
    sort: Sort | None = None
    limit: Count | None = None

    is_fan_out: ClassVar[bool] = True


_TAGS = {
    "model": "ModelStep",
    **dict.fromkeys(("workflow", "app", "graph"), "GraphStep"),
    "edit": "EditStep",
    "use": "UseStep",
    "review": "ReviewStep",
    "steps": "GroupStep",
}


def actions_in(data: Mapping[str, Any]) -> list[str]:
    """Returns the keys of `ACTIONS` in a step; keys without a value count only if no key has a value."""
    found = [name for name in ACTIONS if name in data]
    return [name for name in found if data[name] is not None] or found


def tag_of(data: Any) -> str | None:
    """Returns the name of a step's kind; None unless the step has exactly one of `ACTIONS`."""
    if not isinstance(data, dict):
        return "ModelStep"  # its error says that a step takes a mapping
    actions = actions_in(data)
    if len(actions) != 1:
        return None
    return "FanOutStep" if actions == ["steps"] and {"foreach", "matrix"} & data.keys() else _TAGS[actions[0]]


KINDS: Mapping[str, type[Step]] = {
    kind.__name__: kind for kind in (ModelStep, GraphStep, EditStep, UseStep, ReviewStep, GroupStep, FanOutStep)
}
Defaults = dict[Literal["model", "workflow", "app", "graph", "edit", "use", "review", "steps"], Names]
"""Default keys for all steps of a kind, and default parameters in `with`."""


def with_defaults(steps: Any, defaults: Mapping[str, Any]) -> Any:
    """Returns the data of steps with the keys that `defaults` in the file adds to each kind of step."""
    return {name: _with_defaults(step, defaults) for name, step in steps.items()} if isinstance(steps, dict) else steps


def _with_defaults(step: Any, defaults: Mapping[str, Any]) -> Any:
    if not isinstance(step, dict):
        return step
    kind = next(iter(actions_in(step)), "")
    own = defaults.get(kind)
    own = own if isinstance(own, dict) else {}
    found = {**own, **step}
    if isinstance(own.get("with"), dict) and isinstance(step.get("with"), dict):
        spelled = param_name if kind == "model" else str  # `imageUrl` in a step replaces `image_url`
        written = set(map(spelled, step["with"]))
        found["with"] = {name: one for name, one in own["with"].items() if spelled(name) not in written} | step["with"]
    return {**found, "steps": with_defaults(found["steps"], defaults)} if "steps" in found else found


AnyStep = Annotated[
    Annotated[ModelStep, Tag("ModelStep")]
    | Annotated[GraphStep, Tag("GraphStep")]
    | Annotated[EditStep, Tag("EditStep")]
    | Annotated[UseStep, Tag("UseStep")]
    | Annotated[ReviewStep, Tag("ReviewStep")]
    | Annotated[GroupStep, Tag("GroupStep")]
    | Annotated[FanOutStep, Tag("FanOutStep")],
    Discriminator(tag_of),
]
Steps = dict[str, AnyStep]


class PipelineFile(_Strict):
    """The content of a pipeline file."""

    version: Literal[1] = 1
    name: Text = ""
    description: Text = ""
    tags: list[Text] = Field(default_factory=list)
    params: dict[str, Param] = Field(default_factory=dict)
    budget: Budget | None = None
    attempts: Whole | None = None
    reuse: Reuse | None = None
    scope: Text | None = None
    invalid_items: Literal["refuse", "skip"] = "refuse"
    defaults: Defaults = Field(default_factory=dict)
    credentials: Text | None = None
    storage: Text | None = None
    steps: Steps
    outputs: dict[str, Any] = Field(default_factory=dict)

    def walk(self) -> Iterator[tuple[Path, Step]]:
        """Yields all steps, in order, with their paths in the file."""
        for name, step in self.steps.items():
            yield from step.walk(("steps", name))
