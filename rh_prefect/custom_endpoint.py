"""Calls an endpoint that is not in the catalogue, with RunningHub's own parameter names; values may be files."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from rh_prefect.catalog import InputWarning
from rh_prefect.catalog.model import is_api_path
from rh_prefect.catalog.registry import is_known
from rh_prefect.errors import InputError
from rh_prefect.json_snapshot import flaw_of, snapshot
from rh_prefect.media.media import Media, MediaInput, as_media_input

_API = re.compile(r"^(https?://[^/]+)?/?(openapi/v2/)?")
_ENDPOINT = re.compile(r"(?!\.)[\w.\[\]-]+(/(?!\.)[\w.\[\]-]+)*")


class CheckedInput(BaseModel):
    """A checked copy of an input: invalid values raise `InputError`; later changes by the caller have no effect."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:  # the fields of each
        name = values.get("endpoint") or type(self).__name__
        flaw = next((f"{where} {flaw}" for where, one in _by_name(values) if (flaw := flaw_of(one))), "")
        if flaw:
            raise InputError(f"{name}: {flaw}. Nothing was sent. What to do: correct this value.")
        try:
            super().__init__(**snapshot(values))
        except ValidationError as error:
            raise InputError(f"{name}: {_problems(error)} Nothing was sent. What to do: correct this.") from None


def _by_name(values: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yields each value with its name for messages; a value in `nodes` is named as in `nodes.'6.text'`."""
    for name, one in values.items():
        if name == "nodes" and isinstance(one, dict):
            yield from ((f"nodes.{node!a}", value) for node, value in one.items())
        else:
            yield name, one


def _problems(error: ValidationError) -> str:
    found = []
    for one in error.errors():
        where = ".".join(map(str, one["loc"]))
        # Pydantic adds a prefix to the message of our own ValueError.
        own = one.get("ctx", {}).get("error")
        message = str(own) if isinstance(own, ValueError) else one["msg"]
        found.append(f"{where}: {message}." if where else f"{message}.")
    return " ".join(found)


class FileValue(BaseModel):
    """A file among the parameters of a `CustomInput`; as JSON, `{"file": "photo.jpg"}`.

    Attributes:
        file: A `Media`, a path, an fsspec URI, an http(s) link or the result of another job.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: MediaInput


def _endpoint(value: object) -> object:
    path = _API.sub("", value.strip()).strip("/") if isinstance(value, str) else value
    if isinstance(path, str) and is_api_path(path):
        raise ValueError(f"{value!r} is a RunningHub API call, not a model")
    if not isinstance(path, str) or not _ENDPOINT.fullmatch(path):
        raise ValueError(f"{value!r} is not a valid endpoint; write it as in 'luma/uni-1/text-to-image'")
    return path


def _value(value: object) -> object:
    """Returns a parameter with each file as a `FileValue`. A string is never a file: it may be a prompt."""
    if value is None or isinstance(value, str | bool | int | float | FileValue):
        return value
    if isinstance(value, Mapping) and value.keys() == {"file"}:
        return FileValue(file=as_media_input(value["file"]))
    if isinstance(value, Mapping):
        return {str(name): _value(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_value(one) for one in value]
    if isinstance(value, Media | os.PathLike) or hasattr(value, "first_output"):
        return FileValue(file=as_media_input(value))
    raise ValueError(f"a value of the type {type(value).__name__} cannot be sent as JSON; convert it to a JSON type")


def _params(params: object) -> object:
    if not isinstance(params, Mapping):
        raise ValueError("it is not a mapping; give the parameters as a mapping from names to values")
    try:
        return {str(name): _value(value) for name, value in params.items()}
    except InputError as error:
        raise ValueError(error.message.rstrip(".")) from None


class CustomInput(CheckedInput):
    """The input of an endpoint that is not in the catalogue; only its files are checked.

    A call is processed like the call of a model: it is paid for once, its outputs are saved in the storage, and its
    cost counts in budgets and in `rh-prefect spend`.

    Attributes:
        endpoint: The path below `/openapi/v2/`.
        params: The parameters, by their names in the API; a file is a `FileValue`.
        price: The price of a call in the account's currency, for budgets. If it is None and a budget needs a price,
            RunningHub is asked.
    """

    endpoint: Annotated[str, BeforeValidator(_endpoint)]
    params: Annotated[dict[str, Any], BeforeValidator(_params)] = Field(default_factory=dict)
    price: Decimal | None = Field(default=None, gt=0)

    @property
    def model(self) -> str:
        """The name of the endpoint in records and tables."""
        return self.endpoint


def custom(
    endpoint: str,
    /,
    *,
    price: Decimal | float | None = None,
    params: Mapping[str, object] | None = None,
    **more: object,
) -> CustomInput:
    """Creates a call of an endpoint that is not in the catalogue.

        models.custom("luma/uni-1/text-to-image", prompt="a lighthouse", imageUrls=[Path("photo.jpg"), earlier_result])

    Args:
        endpoint: The path below `/openapi/v2/`, as on RunningHub's page for the model.
        price: The price of a call in the account's currency, for budgets; by default, RunningHub is asked if a budget
            needs a price.
        params: Parameters whose names are not valid in Python, or are also arguments of this function.
        more: The other parameters, by their names in the API. A `Path`, `Media`, `models.FileValue` or the result of
            another job is a file, and is uploaded; a string is sent unchanged.

    Raises:
        InputError: The endpoint is not valid, or a value cannot be sent.
    """
    twice = sorted({*(params or {})} & {*more})
    if twice:
        raise InputError(
            f"{endpoint}: parameters are given twice: {', '.join(twice)}. Nothing was sent. What to do: give each "
            "parameter once."
        )
    exact = Decimal(str(price)) if isinstance(price, float) else price
    request = CustomInput(endpoint=endpoint, price=exact, params={**(params or {}), **more})
    if is_known(request.endpoint):
        warnings.warn(
            f"{request.endpoint} is in the catalogue: `models.input_for({request.endpoint!r})` checks its "
            "parameters, which `custom` does not.",
            InputWarning,
            stacklevel=2,
        )
    return request
