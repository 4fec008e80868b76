"""A catalogue model as frozen values (names, parameters, rules, price table), and its compact JSON form."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from difflib import get_close_matches
from functools import cached_property, lru_cache
from typing import Any, Literal

from rh_prefect.errors import InputError

_WORD = re.compile(r"[A-Za-z0-9]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

# Names that a parameter cannot have: fields and methods of an input, and what it inherits from pydantic's BaseModel.
_OWN = {"model", "unchecked", "entry", "params", "estimate", "self", "cls"}
_PYDANTIC = {"construct", "copy", "dict", "from_orm", "json", "schema", "schema_json", "update_forward_refs"}
_PYDANTIC |= {"validate", "parse_file", "parse_obj", "parse_raw"}

_OF_MODULE = {"CustomInput", "Decimal", "FileValue", "Mapping", "Media", "Model", "ModelInput", "Price"}
"""Names in `rh_prefect.models` that are not input classes; no input class can have one of these names."""

RUN_OPTIONS = (
    "take",
    "same",
    "label",
    "reuse",
    "on_unknown",
    "attempts",
    "deadline",
    "budget",
    "credentials",
    "storage",
    "scope",
)
"""The options of a model's task; a parameter with the name of an option gets an underscore."""

_PREFECT = {"wait_for", "return_state"}
_TAKEN = {*_OWN, *_PYDANTIC, *RUN_OPTIONS, *_PREFECT}


def words(name: str) -> list[str]:
    """Returns the words of a model's name: kling, v2, 6, pro for `kling-v2.6-pro`."""
    return _WORD.findall(name)


@lru_cache(maxsize=4096)
def class_name(name: str) -> str:
    """Returns the name of a model's input class: `KlingV26ProImageToVideo` for `kling-v2.6-pro-image-to-video`."""
    joined = "".join(word[0].upper() + word[1:] for word in words(name))
    return joined if joined[:1].isalpha() and joined not in _OF_MODULE else f"Model{joined}"


@lru_cache(maxsize=4096)
def snake_name(name: str) -> str:
    """Returns the name of a model's task: `kling_v2_6_pro_image_to_video` for `kling-v2.6-pro-image-to-video`."""
    joined = "_".join(words(name)).lower()
    return joined if joined.isidentifier() and not keyword.iskeyword(joined) else f"model_{joined}"


@lru_cache(maxsize=4096)
def param_name(key: str) -> str:
    """Returns a parameter's Python name: `image_url` for `imageUrl`; a reserved name gets `_`."""
    name = "_".join(words(_HUMP.sub("_", key.strip()))).lower()
    if not name.isidentifier():
        name = f"p_{name}"
    return f"{name}_" if keyword.iskeyword(name) or name in _TAKEN or name.startswith("model_") else name


_OF_THE_API = (
    *("aiapp/", "api-key/", "api/", "assets/", "media/upload", "price-preview/"),
    *("query", "queue/", "resource/", "run/", "task/", "uc/"),
)


def is_api_path(path: str) -> bool:
    """Returns whether a path below `/openapi/v2/` is an API call and not the endpoint of a model."""
    return path.lower().startswith(_OF_THE_API)


LEAST_PRICE = Decimal("0.0001")
"""The lowest amount that counts as a price; a lower amount in a list is an error."""

PLACEHOLDER = Decimal(9999)
"""This amount and higher amounts are placeholders; RunningHub's price files show 0 or 9999 for a missing price."""

Unit = Literal["call", "second", "second, from", "image", "1000 characters", "5 seconds"]


@dataclass(frozen=True, slots=True)
class Price:
    """An amount of money; with `lower_bound`, the real price may be higher ("from")."""

    amount: Decimal
    currency: str = "CNY"
    lower_bound: bool = False

    def __str__(self) -> str:
        """Formats the price, as in `0.35 CNY` or `from 6.40 CNY`."""
        return f"{'from ' if self.lower_bound else ''}{money(self.amount)} {self.currency}"


@dataclass(frozen=True, slots=True)
class PriceTable:
    """The price of one unit of a model's work, which may depend on parameters."""

    unit: Unit
    per: str | None = None  # The parameter (wire key) that gives the units; None: one unit, or the input's length
    per_when: tuple[tuple[str, str], ...] = ()  # `per` counts only if these parameters have these values
    fixed: Decimal | None = None  # The price of a unit, if it is always the same
    by: tuple[str, ...] = ()  # The wire keys of the parameters that the price of a unit depends on
    rows: tuple[tuple[tuple[str, ...], Decimal], ...] = ()  # The values of `by` as text, and the price of a unit
    currency: str = "CNY"

    @property
    def is_by_input(self) -> bool:
        """Whether the length of the input determines the number of units of a call."""
        return self.per is None and self.unit not in ("call", "image")

    @property
    def least(self) -> Decimal:
        """The minimum price of one unit."""
        return min(self.amounts)

    @property
    def amounts(self) -> list[Decimal]:
        """The prices of one unit."""
        return [self.fixed] if self.fixed is not None else [amount for _, amount in self.rows]

    def __str__(self) -> str:
        """Formats the prices, as in `0.69 to 1.04 CNY per second`."""
        low, high = money(self.least), money(max(self.amounts))
        unit, _, more = self.unit.partition(", ")
        span = low if low == high else f"{low} to {high}"
        return f"{'from ' if more else ''}{span} {self.currency} per {unit}"


def money(amount: Decimal) -> str:
    """Formats an amount with at least two decimals."""
    exact = f"{amount.normalize():f}"
    return exact if len(exact.partition(".")[2]) > 2 else f"{amount:.2f}"


def is_placeholder(amount: Decimal) -> bool:
    """Returns whether a listed amount means that no price is known."""
    return amount <= 0 or amount >= PLACEHOLDER


def text_of(value: object) -> str:
    """Returns a value as the API writes it in a string: `true` for True, `5` for 5 and 5.0."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def decode_price(raw: Mapping[str, Any]) -> PriceTable:
    """Reads a price from the slim file."""
    fixed = None if raw.get("fixed") is None else Decimal(str(raw["fixed"]))
    rows = tuple((tuple(values), Decimal(str(amount))) for *values, amount in raw.get("rows", ()))
    return PriceTable(**_known(PriceTable, raw) | {"fixed": fixed, "rows": rows})


def _known(kind: type[Model | Param | PriceTable | Rule], raw: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a class, with tuples in place of lists, and pairs in place of objects.

    Further keys, as of the file of an earlier or a newer version, are left out.
    """
    known = {field.name: raw[field.name] for field in fields(kind) if field.name in raw}
    if nulls := [field.name for field in fields(kind) if field.default == () and known.get(field.name, ()) is None]:
        raise TypeError(f"{', '.join(nulls)}: null")
    pairs = {key: [*value.items()] if isinstance(value, dict) else value for key, value in known.items()}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in pairs.items()}


ParamType = Literal["string", "enum", "bool", "int", "float", "image", "video", "audio", "json"]
Output = Literal["image", "video", "audio", "3d", "text"]
Status = Literal["current", "deprecated", "gone"]
RuleKind = Literal["one", "any", "either", "needed", "only", "used", "most", "never"]
Shape = Literal["", "list", "object"]
Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Form:
    """The form in which a parameter enters the hash of a request; see `rh_prefect.catalog.hash_compatibility`."""

    key: str
    type: ParamType
    multiple: bool = False


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of a model: its names, type, default and limits, as in RunningHub's lists."""

    key: str  # The name in the request, verbatim; one has a leading space, another is misspelt
    name: str  # The name in Python, snake_case
    type: ParamType  # For `image`, `video` and `audio`, the request holds a URL
    required: bool = False
    default: Scalar | tuple[Scalar, ...] | None = None  # A tuple if it has several values; filled in if required
    options: tuple[str, ...] = ()  # The allowed values of an `enum`
    min: float | None = None
    max: float | None = None
    step: float | None = None  # The step of the vendor's slider; a hint, not a limit
    max_length: int | None = None  # Characters
    multiple: bool = False  # Whether the request holds a list
    max_items: int | None = None
    accept: tuple[str, ...] = ()  # The extensions of a file, lower-case; none named means any
    max_size_mb: int | None = None  # MiB of a file
    shape: Shape = ""  # What a `json` parameter holds: a list of objects, or one object
    pattern: str = ""  # A regular expression that a string must match, put into words by `note`
    note: str = ""  # What the vendor says about the parameter, in one clause
    is_numeric: bool = False  # Whether an `enum` is sent as a number: 5 for the option "5"
    frozen: Form | None = None  # The form in which the parameter was first shipped, if its present form differs

    @property
    def form(self) -> Form:
        """The parameter's form in the hash of a request; later changes of the parameter do not change this form."""
        return self.frozen or Form(self.key, self.type, self.multiple)

    @property
    def needs_value(self) -> bool:
        """Whether each call must give the parameter."""
        return self.required and self.default is None

    @property
    def is_media(self) -> bool:
        """Whether the parameter accepts a file."""
        return self.type in ("image", "video", "audio")

    @property
    def wire_default(self) -> Scalar | list[Scalar] | None:
        """The default as it is sent: as a list if the parameter has several values."""
        return list(self.default) if isinstance(self.default, tuple) else self.default


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule about several parameters of a model, which are named by their wire keys.

    `one`, `any`, `either`: exactly, at least or at most one of `params` is given. `needed`: `params` are required if
    the condition (`when` or `given`) is true. `only`: `params` are refused if the condition is false. `used`: `params`
    have no effect if the condition is false. `most`: the lists of `params` together have at most `limit` items.
    `never`: the values in `when` cannot be combined.
    """

    kind: RuleKind
    params: tuple[str, ...] = ()
    when: tuple[tuple[str, Scalar], ...] = ()  # Condition: these parameters have these values, given or by default
    given: tuple[str, ...] = ()  # Condition: one of these parameters is given
    limit: int = 0


@dataclass(frozen=True)
class Model:
    """A model of RunningHub, as the catalogue knows it: its names, parameters, rules, price and status."""

    name: str  # In the documentation
    endpoint: str  # Where a request goes, after `/openapi/v2/`
    output: Output
    family: str  # The line of models that the model belongs to
    groups: tuple[str, ...] = ()  # The model's places in the tree of the documentation
    in_docs: bool = False  # Whether the documentation lists the model
    status: Status = "current"  # By RunningHub's newest lists; a model that is gone from them may still answer
    aliases: tuple[str, ...] = ()  # Other spellings of the endpoint in RunningHub's lists
    replaced_by: str = ""  # The endpoint of the model's successor
    seen: str = ""  # The date of the newest list that has the model, as in `2026-09-13`
    on_cn: bool = True  # False: the open model pages of runninghub.cn lacked it, so that it may need a key of .ai
    incomplete: bool = False  # Whether the model is known to take more parameters than are listed here
    params: tuple[Param, ...] = ()  # In the documentation's order
    removed: tuple[Param, ...] = ()  # Of earlier lists. A call that gives one is sent as before, with a notice
    added: tuple[str, ...] = ()  # Python names of parameters that lists have added since the catalogue first had it
    fed: tuple[tuple[tuple[str, bool], ...], ...] = ()  # Where unnamed files went, if that differs; see `feeds`
    rules: tuple[Rule, ...] = ()
    price: PriceTable | None = None  # None if unknown, which never means free
    price_seen: str = ""  # The date of the list that the price is from
    price_note: str = ""  # Why the price is missing, or what else is billed

    @property
    def class_name(self) -> str:
        """The name of the model's input class in `rh_prefect.models`."""
        return class_name(self.name)

    @property
    def snake_name(self) -> str:
        """The name of the model's task in `rh_prefect.tasks.model_tasks`."""
        return snake_name(self.name)

    @property
    def media_params(self) -> tuple[Param, ...]:
        """The parameters that take files."""
        return tuple(param for param in self.params if param.is_media)

    @property
    def known_params(self) -> tuple[Param, ...]:
        """The parameters that a call may have: present parameters, then parameters that RunningHub has removed."""
        return (*self.params, *self.removed)

    @cached_property
    def file_params(self) -> tuple[Param, ...]:
        """The parameters of `known_params` that take files."""
        return tuple(param for param in self.known_params if param.is_media)

    @property
    def feeds(self) -> Iterator[tuple[tuple[Param, bool], ...]]:
        """Yields groups of parameters that may receive an unnamed file, with whether each parameter was required.

        The first group has the file parameters of the first catalogue; a further group adds those of a later list.
        The first group with a suitable parameter is used, so that a refresh does not move a file to another parameter.
        """
        if not self.fed:
            yield tuple((param, param.required) for param in self.media_params)
            return
        by_name, found = {param.name: param for param in self.file_params}, list[tuple[Param, bool]]()
        for group in self.fed:
            found += [(by_name[name], was_required) for name, was_required in group if name in by_name]
            yield tuple(found)

    def find_param(self, name_or_key: str) -> Param | None:
        """Returns a parameter by its Python name or else its wire key; None if the model has no such parameter."""
        return self._found.get(name_or_key)

    @cached_property  # a plan asks for it often
    def _found(self) -> dict[str, Param]:
        keys = ((key, one) for one in self.known_params for key in (one.key, one.form.key))
        names = ((one.name, one) for one in self.known_params)
        return dict(reversed([*names, *keys]))

    def param(self, name_or_key: str) -> Param:
        """Returns a parameter by its Python name or wire key; raises an `InputError` with a `hint` if none exists."""
        found = self.find_param(name_or_key)
        if found is None:
            raise InputError(
                f"{self.name} has no parameter {name_or_key!r}; {self.hint(name_or_key)}.", model=self.name
            )
        return found

    def hint(self, name: str) -> str:
        """Returns a clause with the parameters whose names resemble an unknown name, or with all parameters."""
        names = [param.name for param in self.params]
        near = get_close_matches(name.lower(), names, n=2, cutoff=0.6)
        return f"the nearest is {' or '.join(near)}" if near else f"it has {', '.join(names) or 'no known parameters'}"


def decode_model(raw: Mapping[str, Any]) -> Model:
    """Reads one model from the slim file; raises `InputError` if two parameters have the same name in Python."""
    known, params, price = _known(Model, raw), raw.get("params", ()), raw.get("price")
    named = _params([*params, *raw.get("removed", ())])
    keys: dict[str, str] = {}
    for param in named:
        key = param.key.strip()
        if param.name in keys:  # a value for the one could be sent as the other
            both = f"{keys[param.name]!r} and {key!r}"
            raise InputError(f"{raw['endpoint']}: the parameters {both} would both be called {param.name} in Python")
        keys[param.name] = key
    decoded = {
        "params": named[: len(params)],
        "removed": named[len(params) :],
        "fed": tuple(tuple((str(name), bool(was)) for name, was in group) for group in raw.get("fed", ())),
        "rules": tuple(Rule(**_known(Rule, rule)) for rule in raw.get("rules", ())),
        "price": decode_price(price) if price else None,
    }
    return Model(**known | decoded)


def _params(raws: Sequence[Mapping[str, Any]]) -> tuple[Param, ...]:
    frozen = ({"frozen": Form(**form_of(raw))} if "frozen" in raw else {} for raw in raws)
    names = ({"name": param_name(raw["key"])} for raw in raws)
    return tuple(Param(**_known(Param, raw) | name | form) for raw, name, form in zip(raws, names, frozen))


def form_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all fields of a parameter's `Form`, from the parameter's data in the slim file."""
    return {"key": raw["key"], "type": raw["type"], "multiple": raw.get("multiple", False), **raw.get("frozen", {})}
