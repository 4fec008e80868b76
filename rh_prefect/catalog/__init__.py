"""The catalogue: every model of RunningHub with its parameters, limits and price.

The data is one JSON file, the *slim file*, which is read when a call first needs it.
"""

from rh_prefect.catalog.descriptions import describe, example, summary
from rh_prefect.catalog.input_validation import InputWarning, Parameters, check_file, read_parameters
from rh_prefect.catalog.model import Model, Output, Param, ParamType, Price, PriceTable, Rule
from rh_prefect.catalog.pricing import estimate
from rh_prefect.catalog.registry import get, models, nearest
from rh_prefect.catalog.search import Found, find

__all__ = [
    "Found",
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
]
