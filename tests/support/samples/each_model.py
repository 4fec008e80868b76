"""All models of the catalogue as cases of one test, and the input class of a model of another catalogue."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from rh_prefect import catalog
from rh_prefect.catalog import Model
from rh_prefect.catalog.input_class_builder import build_input
from rh_prefect.media.media import MediaInput
from rh_prefect.models import ModelInput


def for_each_model(test: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a test for all models and reports those that fail together, each by its name.

    Hundreds of models as parameters would be thousands of tests, which pytest collects three times and reports one by
    one: that takes longer than they do.
    """
    signature = inspect.signature(test)

    @functools.wraps(test)
    async def of_all(**fixtures: object) -> None:
        wrong: list[BaseException] = []
        for model in catalog.models():
            try:
                result = test(model=model, **fixtures)
                if inspect.isawaitable(result):
                    await result
            except (Exception, pytest.fail.Exception) as error:  # the second is that of `pytest.raises`
                error.add_note(f"model: {model.name}")
                wrong.append(error)
        if wrong:
            raise BaseExceptionGroup(f"{len(wrong)} models", wrong)

    others = [one for name, one in signature.parameters.items() if name != "model"]
    of_all.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]  # pytest reads it
    return of_all


def input_class(model: Model) -> type[ModelInput]:
    """Builds the class; `rh_prefect.models` has only those of the catalogue in use."""
    base: Any = ModelInput  # type checkers do not see that it is a pydantic model
    built: type[ModelInput] = build_input(model, base, media=MediaInput, module=__name__)
    return built
