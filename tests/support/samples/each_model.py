"""All models of the catalogue as cases of one test."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from rh_prefect import catalog
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
