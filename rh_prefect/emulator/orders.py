"""Checks a submit as the service does, and prices it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Final

from rh_prefect import catalog
from rh_prefect.catalog import Model, Param
from rh_prefect.emulator.answers import Refused
from rh_prefect.emulator.assumptions import MISSING_DEFAULT_IS_REFUSED, MODERATED, UNPRICED
from rh_prefect.emulator.faults import texts
from rh_prefect.emulator.inputs import gather, is_link
from rh_prefect.emulator.keys import ApiKey
from rh_prefect.emulator.tasks import Order
from rh_prefect.errors import InputError

if TYPE_CHECKING:
    from rh_prefect.emulator.state import State

_JSON_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "enum": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "image": (str,),
    "video": (str,),
    "audio": (str,),
    "json": (list, dict),
}


def take_order(state: State, key: ApiKey, endpoint: str, body: Mapping[str, object]) -> Order:
    """Checks a request from the first to the last thing, and prices it; call it from a thread.

    Args:
        state: The emulator.
        key: Whose request it is.
        endpoint: What came after `/openapi/v2/`.
        body: The request's JSON object.

    Raises:
        Refused: The service would say no; the order of the checks is an assumption.
    """
    model = _by_endpoint().get(endpoint)
    if model is None:
        raise Refused("1001", f"Invalid URL: {endpoint}")
    if key.tier == "NORMAL":
        raise Refused("1014")
    payload = {param.key: body[param.key] for param in model.params if body.get(param.key) is not None}
    _check_params(model, payload)
    _check_content(state.moderated, payload)
    inputs = gather(state.shelf, model, payload)
    price = catalog.estimate(model, payload, seconds=inputs.seconds)
    return Order(key, model, payload, inputs.files, UNPRICED if price is None else Decimal(price.amount))


@cache
def _by_endpoint() -> dict[str, Model]:
    return {model.endpoint: model for model in catalog.models()}


def _check_params(model: Model, payload: Mapping[str, object]) -> None:
    problems = [problem for param in model.params if (problem := _problem(param, payload))]
    if problems:
        raise Refused("1007", f"Invalid parameters: {'; '.join(problems)}")
    try:
        # The catalogue knows values and rules; it is more lenient about types than the wire is, hence the check above.
        checked = {param.name: payload[param.key] for param in model.params if param.key in payload}
        catalog.validate(model, checked)
    except InputError as error:
        raise Refused("1007", f"Invalid parameters: {error.message}") from error


def _problem(param: Param, payload: Mapping[str, object]) -> str:
    if param.key not in payload:
        optional = not param.required or (param.default is not None and not MISSING_DEFAULT_IS_REFUSED)
        return "" if optional else f"{param.key} is required"
    value = payload[param.key]
    if param.multiple != isinstance(value, list) and param.type != "json":
        return f"{param.key} must be {'an array' if param.multiple else 'a single value'}"
    if not all(_is_of_type(param, item) for item in _items(param, value)):
        return f"{param.key} must be of type {'URL' if param.is_media else param.type}"
    return ""


def _items(param: Param, value: object) -> Iterable[object]:
    return value if param.multiple and isinstance(value, list) else [value]


def _is_of_type(param: Param, value: object) -> bool:
    if isinstance(value, bool) and param.type != "bool":
        return False
    return isinstance(value, _JSON_TYPES[param.type]) and (not param.is_media or is_link(value))


def _check_content(moderated: Iterable[str], payload: Mapping[str, object]) -> None:
    said = "\n".join(text for text in texts(dict(payload)) if not is_link(text)).lower()
    if any(word.lower() in said for word in moderated):
        raise Refused(*MODERATED)
