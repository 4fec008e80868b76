"""One input class per model, built on first use: `models.KlingV26ProImageToVideo(image_url=photo, prompt="...")`.

The stub beside this file is generated from the catalogue and says what each class takes.
"""

from __future__ import annotations

from threading import RLock

from rh_prefect.catalog import Model, get, models
from rh_prefect.catalog.inputs import InputBase, build_input
from rh_prefect.catalog.registry import nearest
from rh_prefect.media.ref import MediaInput, as_media_input

_LOCK = RLock()


class ModelInput(InputBase):
    """The input of one model; the base of all input classes.

    As the type of a flow's parameter it stands for the input of any model, which may be given as an object that names
    its model: `{"model": "z-image/turbo", "prompt": "a lighthouse"}`.
    """

    @classmethod
    def as_media(cls, value: object) -> object:
        """Reads what was given for a file; see `rh_prefect.media.ref.as_media_input`."""
        return as_media_input(value)

    @classmethod
    def class_of(cls, entry: Model) -> type[ModelInput]:
        """Returns the input class of a model."""
        return input_for(entry)


def input_for(model: Model | str) -> type[ModelInput]:
    """Returns the input class of a model; the same one each time.

    Args:
        model: The model, or any of its names.

    Raises:
        UnknownModelError: There is no such model.
    """
    entry = get(model) if isinstance(model, str) else model
    name = entry.class_name
    with _LOCK:  # two classes of one name could not be pickled
        if name not in globals():
            globals()[name] = build_input(entry, ModelInput, media=MediaInput, module=__name__)
        made: type[ModelInput] = globals()[name]
    return made


def __getattr__(name: str) -> type[ModelInput]:
    if not name.startswith("_"):
        entry = next((model for model in models() if model.class_name == name), None)
        if entry is not None:
            return input_for(entry)
        near = ", ".join(get(known).class_name for known in nearest(name))
        raise AttributeError(f"module {__name__!r} has no model class {name!r}; the nearest are {near}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({"ModelInput", "input_for", *(model.class_name for model in models())})
