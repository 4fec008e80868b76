"""Builds the input class of a model: a frozen pydantic class with the catalogue's fields, limits and error messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import RLock
from types import GenericAlias
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    create_model,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from rh_prefect import catalog
from rh_prefect.catalog import Model, Param, Price, describe, get, models, summary
from rh_prefect.catalog.descriptions import example_of
from rh_prefect.catalog.input_validation import check, complaint
from rh_prefect.errors import InputError
from rh_prefect.json_snapshot import snapshot
from rh_prefect.media.media import Media, MediaInput, as_media_input
from rh_prefect.media.probe import probe
from rh_prefect.media.storage_urls import is_local, local_path

_PLAIN: dict[str, Any] = {"string": str, "bool": bool, "int": int, "float": float}
_JSON: dict[str, Any] = {"list": list[dict[str, Any]], "object": dict[str, Any] | list[dict[str, Any]]}


class _Unchecked(dict[str, Any]):
    """Unchecked values by Python name; this class tells a second validation that they are already separated."""


class InvalidInput(InputError, ValueError):
    """An `InputError` that pydantic can include in its own error, for an input inside a larger pydantic model."""


class ModelInput(BaseModel):
    """The input of one model; the base of all input classes.

    As the type of a flow's parameter, this class accepts the input of any model, also as an object with the model's
    name: `{"model": "z-image/turbo", "prompt": "a lighthouse"}`.
    """

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    entry: ClassVar[Model]  # What the catalogue says about the model
    model: str  # The model's name; it identifies a stored input's class

    def __init_subclass__(cls, *, entry: Model | None = None, **config: Any) -> None:
        """Sets the model before pydantic builds the schema, which depends on the model."""
        super().__init_subclass__(**config)
        if entry is not None:
            cls.entry = entry

    def __init__(self, **params: Any) -> None:  # each model has its own; see the stub
        if not hasattr(type(self), "entry"):
            raise InvalidInput(
                f"{type(self).__name__} is the base class of all inputs and cannot be used itself. "
                "What to do: use a model's own class, as in models.ZImageTurbo(prompt=...)."
            )
        try:
            super().__init__(**params)
        except ValidationError as error:
            raise _invalid(type(self).entry, error) from None

    @property
    def unchecked(self) -> dict[str, Any]:
        """The parameters, by name, that are sent unchecked because the catalogue does not know them or their values."""
        # Not a field: a form would show it, and a dict in a field would make the input unhashable.
        return dict((self.model_extra or {}).get("unchecked", {}))

    def params(self) -> dict[str, object]:
        """Returns the given parameters by their Python names; omitted parameters are not included."""
        return self._checked_values() | self.unchecked

    def _checked_values(self) -> dict[str, object]:
        """Returns the values that were given and checked."""
        values = {**self.__dict__, **(self.model_extra or {})}
        return {
            name: value
            for name, value in values.items()
            if name in self.model_fields_set and name not in ("model", "unchecked") and value is not None
        }

    def estimate(self) -> Price | None:
        """Returns the catalogue's price of one call; sends nothing.

            models.KlingV26ProImageToVideo(image_url="cat.jpg", prompt="waves", duration="5").estimate()

        Returns:
            The price; None if the catalogue has no price, or if the price depends on the length of a file that is
            neither local nor the result of a job.

        Raises:
            MediaError: The length of a local file is needed, and the file is missing or damaged.
        """
        entry, params, files = self.entry, self.params(), list[object]()
        for param in entry.file_params:
            value = params.get(param.name)
            if value is not None:
                given = value if isinstance(value, list | tuple) else [value]
                files += [] if param.type == "image" else given
                params[param.name] = ["a file"] * len(given) if param.multiple else "a file"
        sent = catalog.read_parameters(entry, params, unchecked=self.unchecked).sent
        is_by_input = entry.price is not None and entry.price.is_by_input
        return catalog.estimate(entry, sent, seconds=_longest(files) if is_by_input else None)

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Returns the given values for `repr`, without the defaults."""
        return list(self.params().items())

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, data: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, Mapping) or not hasattr(cls, "entry"):
            return validate(data)
        entry = cls.entry
        values = _own(entry, snapshot(data))
        unchecked = _by_name(entry, values.pop("unchecked", None) or {}, values)
        checked = check(entry, values | unchecked, as_media=as_media_input, unchecked=unchecked)
        checked.warn(stacklevel=3)
        if checked.problems:
            raise ValueError("; ".join(checked.problems))
        by_name = {entry.param(key).name: value for key, value in checked.values.items()}
        sent = _Unchecked({name: by_name.pop(name, value) for name, value in unchecked.items()})
        # Pydantic needs all required values; an example stands for each missing one, and is removed again.
        fields = {param.name for param in entry.params}
        stand_ins = {name: example_of(entry.param(name)) for name in sent if name in fields}
        unchecked_field = {"unchecked": sent} if sent else {}
        instance = validate({"model": entry.name, **unchecked_field, **stand_ins, **by_name})
        for name in stand_ins:
            instance.__dict__.pop(name, None)
            instance.model_fields_set.discard(name)
        return instance

    @model_serializer(mode="wrap")
    def _dump(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Serializes only the given values, so that a stored input is the same request as the original."""
        names = {"model", *self._checked_values(), *(["unchecked"] if self.unchecked else [])}
        return {name: value for name, value in dump(self).items() if name in names}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Makes the base class accept the input of any model when it is used as the type of a parameter."""
        if hasattr(cls, "entry"):
            return handler(source)
        return core_schema.no_info_plain_validator_function(cls._any)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describes the base class as an object with a model's name and parameters."""
        if hasattr(cls, "entry"):
            return handler(schema)
        names = [model.name for model in models()]
        model = {
            "type": "string",
            "title": "Model",
            "enum": names,
            "description": "The model's name; the model's parameters are further fields of the same object.",
        }
        return {
            "type": "object",
            "title": cls.__name__,
            "properties": {"model": model},
            "required": ["model"],
            "additionalProperties": True,
        }

    @classmethod
    def _any(cls, value: Any) -> ModelInput:
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping) or not isinstance(value.get("model"), str):
            raise ValueError('expected a model input, or an object such as {"model": "z-image/turbo", ...}')
        try:
            chosen = input_for(value["model"])
        except InputError as error:
            raise ValueError(error.message) from None
        return chosen.model_validate(value)


def _longest(files: Iterable[object]) -> float | None:
    """Returns the duration of the longest file, which determines the price; None if a duration is not known."""
    lengths = [_seconds(one) for one in files]
    known = [one for one in lengths if one is not None]
    return max(known, default=None) if len(known) == len(lengths) else None


def _seconds(file: object) -> float | None:
    if isinstance(file, Media):
        return file.seconds
    return probe(Path(local_path(file))).seconds if isinstance(file, str) and is_local(file) else None


_MODULE = "rh_prefect.models"
"""The module from which each input class can be imported."""

_CLASSES: dict[str, type[ModelInput]] = {}
_LOCK = RLock()


def input_for(model: Model | str) -> type[ModelInput]:
    """Returns the input class of a model, always the same object; raises `UnknownModelError` if there is none."""
    entry = get(model) if isinstance(model, str) else model
    with _LOCK:  # two classes of one name could not be pickled
        if entry.class_name not in _CLASSES:
            _CLASSES[entry.class_name] = build_input(entry)
        return _CLASSES[entry.class_name]


def build_input(entry: Model) -> type[ModelInput]:
    """Returns a new input class of one model."""
    fields: dict[str, Any] = {param.name: _field(param) for param in entry.params}
    return create_model(
        entry.class_name,
        __base__=ModelInput,
        __module__=_MODULE,
        __doc__=summary(entry),
        __cls_kwargs__={"entry": entry},
        model=(_literal((entry.name,)), Field(entry.name, description="The model.")),
        **fields,
    )


def item_type(param: Param, media: Any) -> Any:
    """Returns the annotation of one value of a parameter, with its choices and limits; `media` is that of a file."""
    if param.is_media:
        return media
    if param.type == "enum":
        # `typing` caches literals, and two with the same options in another order are equal. The options beside the
        # literal, which pydantic ignores, keep the order of each parameter.
        return Annotated[_literal(param.options), param.options]
    if param.type == "json":
        return _JSON[param.shape]
    plain = _PLAIN[param.type]
    if param.min is param.max is param.max_length is None:
        return plain
    return Annotated[plain, Field(ge=param.min, le=param.max, max_length=param.max_length)]


def _field(param: Param) -> tuple[Any, Any]:
    annotation: Any = item_type(param, MediaInput)
    if param.multiple:
        annotation = Annotated[GenericAlias(list, (annotation,)), Field(max_length=param.max_items)]
    description = describe(param) or None
    if param.default is not None:
        return annotation, Field(param.wire_default, description=description)
    if param.required:
        return annotation, Field(description=description)
    return annotation | None, Field(None, description=description)


def _literal(options: tuple[str, ...]) -> Any:
    return Literal.__getitem__(options)  # made from data, so no type checker can read it


def _by_name(entry: Model, unchecked: Any, values: dict[str, Any]) -> _Unchecked:
    """Returns the unchecked values by Python name; None counts as not given."""
    if isinstance(unchecked, _Unchecked):
        for name in unchecked:
            values.pop(name, None)
        return unchecked
    if not isinstance(unchecked, Mapping):
        raise ValueError("`unchecked` must map parameter names to values")
    found = _Unchecked()
    # A model's task passes None for parameters that the caller omits.
    for name in [name for name, value in values.items() if value is None]:
        del values[name]
    taken = {param.name if (param := entry.find_param(name)) else name for name in values}
    for name, value in unchecked.items():
        known = param.name if (param := entry.find_param(name)) else str(name)
        if value is not None and known in taken:
            raise ValueError(f"{known} is given twice: as a parameter and in unchecked")
        if value is not None:
            found[known] = value
    return found


def _own(entry: Model, data: Mapping[str, Any]) -> dict[str, Any]:
    """Removes the key `model` if it names this model; for another model, raises `ValueError` if it is no parameter."""
    named = data.get("model")
    ours = {entry.name.lower(), entry.endpoint.lower(), entry.class_name.lower(), entry.snake_name}
    if named is None or str(named).lower() in ours:
        return {name: value for name, value in data.items() if name != "model"}
    if isinstance(named, str) and entry.find_param("model") is None:
        raise ValueError(f"this is the input of {entry.name}, not of {named!r}")
    return dict(data)


def _invalid(entry: Model, error: ValidationError) -> InvalidInput:
    problems = [_clause(problem) for problem in error.errors(include_url=False)]
    return InvalidInput(complaint(entry, problems), model=entry.name, problems=tuple(problems))


def _clause(problem: Mapping[str, Any]) -> str:
    cause = problem.get("ctx", {}).get("error")
    where = ".".join(str(part) for part in problem["loc"])
    return str(cause) if cause is not None and not where else f"{where}: {problem['msg']}".lstrip(": ")
