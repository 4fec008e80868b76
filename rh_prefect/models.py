"""One input class per model, built on first use: `models.KlingV26ProImageToVideo(image_url=photo, prompt="...")`.

The stub next to this file is generated from the catalogue and contains the parameters of each class.
"""

from __future__ import annotations

from collections.abc import Mapping

from rh_prefect.catalog import Price, models
from rh_prefect.catalog.model import class_name
from rh_prefect.catalog.registry import of_attribute
from rh_prefect.custom_endpoint import CustomInput, FileValue, custom
from rh_prefect.input_class_builder import ModelInput, input_for
from rh_prefect.media.media import without_mark

__all__ = ["CustomInput", "FileValue", "ModelInput", "any_input", "custom", "estimate", "input_for"]
_ADVICE = ". To call an endpoint that is not in the catalogue, use `models.custom`."


def estimate(model: str, params: Mapping[str, object]) -> Price | None:
    """Returns the catalogue's price of one call of a model; sends nothing.

        rh_prefect.estimate("kling-v2.6-pro-image-to-video", {"image_url": "cat.jpg", "prompt": "waves"})

    Args:
        model: Any name of a model.
        params: The model's parameters; a file may be written as `{"file": "photo.jpg"}`.

    Returns:
        The price; None if the price is not known, see `ModelInput.estimate`.

    Raises:
        InputError: A parameter is unknown or not valid.
        UnknownModelError: The model does not exist.
    """
    return any_input(model, params).estimate()


def any_input(model: str, params: Mapping[str, object]) -> ModelInput:
    """Creates the input of a model.

    Args:
        model: Any name of a model.
        params: The model's parameters; a file may be written as `{"file": "photo.jpg"}`.

    Raises:
        InputError: A parameter is unknown or not valid.
        UnknownModelError: The model does not exist.
    """
    known = input_for(model)
    files = {name for param in known.entry.file_params for name in (param.name, param.key)}
    return known(**{name: without_mark(value) if name in files else value for name, value in params.items()})


def __getattr__(name: str) -> type[ModelInput]:
    return input_for(of_attribute(name, module=__name__, kind="model class", name_of=class_name, advice=_ADVICE))


def __dir__() -> list[str]:
    return sorted({*__all__, *(model.class_name for model in models())})
