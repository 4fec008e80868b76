"""All models of the catalogue as cases of one test, and the input class of a model of another catalogue."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from rh_prefect import catalog
from rh_prefect.catalog import Model
from rh_prefect.catalog.input_class_builder import build_input
from rh_prefect.media.media import MediaInput
from rh_prefect.models import ModelInput
from tests.support.each_case import each_case


def for_each_model(test: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a test for all models and reports those that fail together, each by its name.

    Hundreds of models as parameters would be thousands of tests, which pytest collects three times and reports one by
    one: that takes longer than they do.
    """
    signature = inspect.signature(test)

    @functools.wraps(test)
    async def of_all(**fixtures: object) -> None:
        with each_case() as case:
            for model in catalog.models():
                with case(model.name):
                    result = test(model=model, **fixtures)
                    if inspect.isawaitable(result):
                        await result

    others = [one for name, one in signature.parameters.items() if name != "model"]
    of_all.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]  # pytest reads it
    return of_all


def input_class(model: Model) -> type[ModelInput]:
    """Builds the class; `rh_prefect.models` has only those of the catalogue in use."""
    base: Any = ModelInput  # type checkers do not see that it is a pydantic model
    built: type[ModelInput] = build_input(model, base, media=MediaInput, module=__name__)
    return built
