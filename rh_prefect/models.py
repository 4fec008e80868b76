"""One input class per model, built on first use: `models.KlingV26ProImageToVideo(image_url=photo, prompt="...")`.

The stub next to this file is generated from the catalogue and contains the parameters of each class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import RLock

from rh_prefect import catalog
from rh_prefect.catalog import Model, Price, get, models
from rh_prefect.catalog.input_class_builder import InputBase, build_input
from rh_prefect.catalog.registry import nearest, of_class
from rh_prefect.custom_endpoint import CustomInput, FileValue, custom
from rh_prefect.media.media import Media, MediaInput, as_media_input, without_mark
from rh_prefect.media.probe import probe
from rh_prefect.media.storage_urls import is_local, local_path

_LOCK = RLock()


__all__ = ["CustomInput", "FileValue", "ModelInput", "any_input", "custom", "estimate", "input_for"]


class ModelInput(InputBase):
    """The input of one model; the base of all input classes.

    As the type of a flow's parameter, this class accepts the input of any model, also as an object with the model's
    name: `{"model": "z-image/turbo", "prompt": "a lighthouse"}`.
    """

    @classmethod
    def as_media(cls, value: object) -> object:
        """Converts a file argument; see `rh_prefect.media.media.as_media_input`."""
        return as_media_input(value)

    @classmethod
    def class_of(cls, entry: Model) -> type[ModelInput]:
        """Returns the input class of a model."""
        return input_for(entry)

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


def _longest(files: Iterable[object]) -> float | None:
    """Returns the duration of the longest file, which determines the price; None if a duration is not known."""
    lengths = [_seconds(one) for one in files]
    known = [one for one in lengths if one is not None]
    return max(known, default=None) if len(known) == len(lengths) else None


def _seconds(file: object) -> float | None:
    if isinstance(file, Media):
        return file.seconds
    return probe(Path(local_path(file))).seconds if isinstance(file, str) and is_local(file) else None


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


def input_for(model: Model | str) -> type[ModelInput]:
    """Returns the input class of a model, always the same object; raises `UnknownModelError` if there is none."""
    entry = get(model) if isinstance(model, str) else model
    name = entry.class_name
    with _LOCK:  # two classes of one name could not be pickled
        if name not in globals():
            globals()[name] = build_input(entry, ModelInput, media=MediaInput, module=__name__)
        input_class: type[ModelInput] = globals()[name]
    return input_class


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
    if not name.startswith("_"):
        entry = of_class(name)
        if entry is not None:
            return input_for(entry)
        near = ", ".join(get(known).class_name for known in nearest(name))
        raise AttributeError(
            f"module {__name__!r} has no model class {name!r}; similar names: {near}. To call an endpoint that is not "
            "in the catalogue, use `models.custom`."
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(model.class_name for model in models())})
