"""What the catalogue says about one model, as frozen values, and their compact JSON form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rh_prefect.catalog.names import class_name, param_names, snake_name
from rh_prefect.catalog.price import PriceTable, decode_price
from rh_prefect.errors import InputError

ParamType = Literal["string", "enum", "bool", "int", "float", "image", "video", "audio", "json"]
Output = Literal["image", "video", "audio", "3d", "text"]
Status = Literal["current", "deprecated", "gone"]
RuleKind = Literal["one", "any", "either", "needed", "only", "used", "most", "never"]
Shape = Literal["", "list", "object"]
Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter of a model.

    Attributes:
        key: Its name in the request, verbatim; one has a leading space, another is misspelt.
        name: Its name in Python, snake_case.
        type: What it holds; for `image`, `video` and `audio` the request holds a URL.
        required: Whether the request must have it; where it also has a default, that is filled in.
        default: What applies when it is left out; a tuple where it holds several.
        options: The allowed values of an `enum`.
        min: The least allowed number.
        max: The greatest allowed number.
        step: The step of the vendor's slider; a hint, not a limit.
        max_length: The most characters.
        multiple: Whether the request holds a list.
        max_items: The most items of that list.
        accept: The allowed extensions of a file, lower-case; none named means any.
        max_size_mb: The most MiB of a file.
        shape: What a `json` parameter holds: a list of objects, or one object.
        pattern: A regular expression that a string must match, put into words by `note`.
        note: What the vendor says about it, in one clause.
    """

    key: str
    name: str
    type: ParamType
    required: bool = False
    default: Scalar | tuple[Scalar, ...] | None = None
    options: tuple[str, ...] = ()
    min: float | None = None
    max: float | None = None
    step: float | None = None
    max_length: int | None = None
    multiple: bool = False
    max_items: int | None = None
    accept: tuple[str, ...] = ()
    max_size_mb: int | None = None
    shape: Shape = ""
    pattern: str = ""
    note: str = ""

    @property
    def is_media(self) -> bool:
        """Whether it takes a file."""
        return self.type in ("image", "video", "audio")

    @property
    def wire_default(self) -> Scalar | list[Scalar] | None:
        """The default as a request holds it."""
        return list(self.default) if isinstance(self.default, tuple) else self.default


@dataclass(frozen=True, slots=True)
class Rule:
    """What a model says about several parameters together; all of them are wire keys.

    Attributes:
        kind: `one`: exactly one of `params`; `any`: at least one of them; `either`: at most one of them; `needed`: they
            are required where the condition holds; `only`: they are refused where it does not; `used`: they have no
            effect where it does not; `most`: their lists together hold at most `limit` items; `never`: the values in
            `when` exclude each other.
        params: Whom it is about.
        when: Condition: these parameters have these values, given or by default.
        given: Condition: one of these parameters is given.
        limit: See `most`.
    """

    kind: RuleKind
    params: tuple[str, ...] = ()
    when: tuple[tuple[str, Scalar], ...] = ()
    given: tuple[str, ...] = ()
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Model:
    """One model of RunningHub.

    Attributes:
        name: Its name in the documentation.
        endpoint: Where a request goes, after `/openapi/v2/`.
        output: What it makes.
        family: The line of models that it belongs to.
        groups: Its places in the tree of the documentation.
        in_docs: Whether the documentation lists it.
        status: Whether RunningHub's newest lists offer it (`current`), advise against it (`deprecated`) or lack it
            (`gone`); a model that is gone may still answer.
        aliases: Other spellings of the endpoint in RunningHub's lists.
        replaced_by: The endpoint of its successor.
        seen: The date of the newest list that has it, as in `2026-09-13`.
        on_cn: Whether the open model pages of runninghub.cn listed it when the catalogue was made. A model that they
            lack may need a key of runninghub.ai.
        incomplete: Whether it is known to take more parameters than are listed here.
        provenance: Where its facts are from.
        params: Its parameters, in the documentation's order.
        rules: What holds for several parameters together.
        price: What it costs; None where that is not known, which never means that it is free.
        price_seen: The date of the list that the price is from.
        price_note: Why there is no price, or what is billed besides.
    """

    name: str
    endpoint: str
    output: Output
    family: str
    groups: tuple[str, ...] = ()
    in_docs: bool = False
    status: Status = "current"
    aliases: tuple[str, ...] = ()
    replaced_by: str = ""
    seen: str = ""
    on_cn: bool = True
    incomplete: bool = False
    provenance: str = "official-registry"
    params: tuple[Param, ...] = ()
    rules: tuple[Rule, ...] = ()
    price: PriceTable | None = None
    price_seen: str = ""
    price_note: str = ""

    @property
    def class_name(self) -> str:
        """The name of its input class in `rh_prefect.models`."""
        return class_name(self.name)

    @property
    def snake_name(self) -> str:
        """The name of its task."""
        return snake_name(self.name)

    @property
    def media_params(self) -> tuple[Param, ...]:
        """The parameters that take files."""
        return tuple(param for param in self.params if param.is_media)

    def find_param(self, name_or_key: str) -> Param | None:
        """Finds a parameter by its Python name or its wire key.

        Args:
            name_or_key: Either of them; a Python name goes before a wire key.

        Returns:
            The parameter, or None where there is none of that name.
        """
        by_name = (param for param in self.params if param.name == name_or_key)
        by_key = (param for param in self.params if param.key == name_or_key)
        return next(by_name, None) or next(by_key, None)

    def param(self, name_or_key: str) -> Param:
        """Finds a parameter that has to be there.

        Args:
            name_or_key: Its Python name or its wire key.

        Raises:
            InputError: There is none of that name; the message lists those that there are.
        """
        found = self.find_param(name_or_key)
        if found is None:
            raise InputError(
                f"{self.name} has no parameter {name_or_key!r}; {self.hint(name_or_key)}.", model=self.name
            )
        return found

    def hint(self, name: str) -> str:
        """Says which known parameters are like an unknown one, as a clause.

        Args:
            name: The unknown name.
        """
        from difflib import get_close_matches  # only a wrong name needs it

        names = [param.name for param in self.params]
        near = get_close_matches(name.lower(), names, n=2, cutoff=0.6)
        return f"the nearest is {' or '.join(near)}" if near else f"it has {', '.join(names) or 'none that is known'}"


def decode_model(raw: Mapping[str, Any]) -> Model:
    """Reads one model from the slim file.

    Args:
        raw: Its JSON object.
    """
    fields = dict(raw)
    params = fields.pop("params", ())
    rules = fields.pop("rules", ())
    price = fields.pop("price", None)
    return Model(
        groups=tuple(fields.pop("groups", ())),
        aliases=tuple(fields.pop("aliases", ())),
        params=_params(params),
        rules=tuple(_rule(rule) for rule in rules),
        price=decode_price(price) if price else None,
        **fields,
    )


def _params(raws: Sequence[Mapping[str, Any]]) -> tuple[Param, ...]:
    names = param_names([raw["key"] for raw in raws])
    return tuple(Param(name=name, **_frozen(raw)) for name, raw in zip(names, raws))


def _frozen(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}


def _rule(raw: Mapping[str, Any]) -> Rule:
    return Rule(
        kind=raw["kind"],
        params=tuple(raw.get("params", ())),
        when=tuple(raw.get("when", {}).items()),
        given=tuple(raw.get("given", ())),
        limit=raw.get("limit", 0),
    )
