"""One input class per model, built on first use: `models.KlingV26ProImageToVideo(image_url=photo, prompt="...")`.

The stub beside this file is generated from the catalogue and says what each class takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from threading import RLock

from rh_prefect.catalog import Model, get, models
from rh_prefect.catalog.input_class_builder import InputBase, build_input
from rh_prefect.catalog.registry import nearest, of_class
from rh_prefect.custom import CustomInput, FileValue, custom
from rh_prefect.errors import InputError
from rh_prefect.media.media import MediaInput, as_media_input, without_mark

_LOCK = RLock()


__all__ = ["CustomInput", "FileValue", "ModelInput", "any_input", "custom", "input_for"]


class ModelInput(InputBase):
    """The input of one model; the base of all input classes.

    As the type of a flow's parameter it stands for the input of any model, which may be given as an object that names
    its model: `{"model": "z-image/turbo", "prompt": "a lighthouse"}`.
    """

    @classmethod
    def as_media(cls, value: object) -> object:
        """Converts a file argument; see `rh_prefect.media.media.as_media_input`."""
        return as_media_input(value)

    @classmethod
    def class_of(cls, entry: Model) -> type[ModelInput]:
        """Returns the input class of a model."""
        return input_for(entry)


def input_for(model: Model | str) -> type[ModelInput]:
    """Returns the input class of a model, the same one each time; `UnknownModelError` where there is none."""
    entry = get(model) if isinstance(model, str) else model
    name = entry.class_name
    with _LOCK:  # two classes of one name could not be pickled
        if name not in globals():
            globals()[name] = build_input(entry, ModelInput, media=MediaInput, module=__name__)
        input_class: type[ModelInput] = globals()[name]
    return input_class


def any_input(
    model: str, params: Mapping[str, object], *, is_custom: bool = False, price: Decimal | float | None = None
) -> ModelInput | CustomInput:
    """Creates the input of a model, or of an endpoint that is not in the catalogue.

    Args:
        model: Any name of a model, or an endpoint.
        params: Its parameters; a file may be written as `{"file": "photo.jpg"}`.
        is_custom: Whether `model` is called as an endpoint; see `custom`. A resumed run must not decide this again:
            with another catalogue the same parameters would be another request.
        price: What a call of an endpoint costs; see `custom`.

    Raises:
        InputError: A parameter is not what the model takes, or a price is given for a model of the catalogue.
        UnknownModelError: The model does not exist.
    """
    if is_custom:
        return CustomInput(endpoint=model, params=dict(params), price=price if price is None else Decimal(str(price)))
    known = input_for(model)
    if price is not None:
        raise InputError(f"{model}: the catalogue has a price for this model. What to do: omit `price`.")
    files = {name for param in known.entry.file_params for name in (param.name, param.key)}
    return known(**{name: without_mark(value) if name in files else value for name, value in params.items()})


def __getattr__(name: str) -> type[ModelInput]:
    if not name.startswith("_"):
        entry = of_class(name)
        if entry is not None:
            return input_for(entry)
        near = ", ".join(get(known).class_name for known in nearest(name))
        raise AttributeError(
            f"module {__name__!r} has no model class {name!r}; the nearest are {near}. Call an "
            "endpoint that is not in the catalogue with `models.custom`."
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(model.class_name for model in models())})
