"""Checks a submit as the service does, and prices it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Final

from rh_prefect import catalog
from rh_prefect.catalog import Model, Param
from rh_prefect.emulator.answers import Refused
from rh_prefect.emulator.assumptions import MISSING_DEFAULT_IS_REFUSED, MODERATED, REAL_PEOPLE, UNPRICED
from rh_prefect.emulator.charges import Charge
from rh_prefect.emulator.inputs import Sources, gather, sha256_of
from rh_prefect.emulator.keys import ApiKey
from rh_prefect.emulator.tasks import Order, Piece
from rh_prefect.emulator.words import is_link, texts, words
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

_WITH_PEOPLE: Final = ("seedance-2.0", "sparkvideo-2.0")


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
    if key.tier != "SHARED":
        raise Refused("1014")
    webhook = webhook_of(body, code="1007")
    payload = {param.key: body[param.key] for param in model.params if body.get(param.key) is not None}
    _check_params(model, payload)
    check_content(state.moderated, payload)
    if state.switches.real_people:
        _check_people(model, payload)
    inputs = gather(Sources(state.shelf, state.assets, key.account), model, payload)
    price = catalog.estimate(model, payload, seconds=inputs.seconds)
    charge = Charge(third_party=UNPRICED if price is None else Decimal(price.amount))
    queued, seconds = state.durations(model, payload)
    piece = Piece(model, payload, inputs.files)
    received = {name: tuple(map(sha256_of, paths)) for name, paths in inputs.files.items()}
    return Order(key, endpoint, payload, (piece,), charge, seconds, queued, webhook, inputs=received)


def webhook_of(body: Mapping[str, object], *, code: str) -> str:
    """Reads a request's `webhookUrl`; empty where it has none.

    Args:
        body: The request.
        code: What a bad one is refused with.

    Raises:
        Refused: It is no web address.
    """
    url = body.get("webhookUrl") or ""
    if url and not (isinstance(url, str) and url.startswith(("http://", "https://"))):
        raise Refused(code, "webhookUrl must be an http or https address")
    return str(url)


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


def check_content(moderated: Iterable[str], payload: Mapping[str, object]) -> None:
    """Looks for words that the content check does not let pass.

    Raises:
        Refused: There is one.
    """
    said = "\n".join(words(payload)).lower()
    if any(word.lower() in said for word in moderated):
        raise Refused(*MODERATED)


def _check_people(model: Model, payload: Mapping[str, object]) -> None:
    """Refuses files of a model that knows real people, unless they are assets or its own mode is on."""
    if not any(name in model.endpoint for name in _WITH_PEOPLE):
        return
    mode = next((param for param in model.params if param.key == "realPersonMode"), None)
    if mode is not None and payload.get(mode.key, mode.default) is True:
        return
    links = [link for param in model.media_params for link in texts(payload.get(param.key))]
    if any(not link.startswith("asset://") for link in links):
        raise Refused(*REAL_PEOPLE)
