"""The input class of a model as another catalogue has it."""

from __future__ import annotations

from typing import Any

from rh_prefect.catalog import Model
from rh_prefect.catalog.input_class_builder import build_input
from rh_prefect.media.media import MediaInput
from rh_prefect.models import ModelInput


def input_class(model: Model) -> type[ModelInput]:
    """Builds the class; `rh_prefect.models` has only those of the catalogue in use."""
    base: Any = ModelInput  # type checkers do not see that it is a pydantic model
    built: type[ModelInput] = build_input(model, base, media=MediaInput, module=__name__)
    return built
