"""The catalogue: every model of RunningHub with its parameters, limits and price.

The data is one slim file, read at the first call that needs it; `build` makes it from a registry file.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rh_prefect.catalog.descriptions import describe, example, summary
    from rh_prefect.catalog.model import Model, Output, Param, ParamType, Price, PriceTable, Rule
    from rh_prefect.catalog.pricing import estimate
    from rh_prefect.catalog.registry import get, models, nearest
    from rh_prefect.catalog.search import find
    from rh_prefect.catalog.validation import InputWarning, Parameters, check_file, read_parameters, validate

__all__ = [
    "InputWarning",
    "Model",
    "Output",
    "Param",
    "ParamType",
    "Parameters",
    "Price",
    "PriceTable",
    "Rule",
    "check_file",
    "describe",
    "estimate",
    "example",
    "find",
    "get",
    "models",
    "nearest",
    "read_parameters",
    "summary",
    "validate",
]

_HOMES = {
    "validation": ("InputWarning", "Parameters", "check_file", "read_parameters", "validate"),
    "model": ("Model", "Output", "Param", "ParamType", "Price", "PriceTable", "Rule"),
    "pricing": ("estimate",),
    "descriptions": ("describe", "example", "summary"),
    "registry": ("get", "models", "nearest"),
    "search": ("find",),
}


if not TYPE_CHECKING:  # a type checker reads the imports above, and would take any name for known otherwise

    def __getattr__(name: str) -> Any:
        for home, names in _HOMES.items():
            if name in names:
                globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
