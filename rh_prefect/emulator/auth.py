"""Authentication: where each family of endpoints reads the key, and how the family refuses a missing or invalid key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final

from starlette.requests import HTTPConnection, Request

from rh_prefect.emulator import responses
from rh_prefect.emulator.accounts import Account, ApiKey, ApiKeys
from rh_prefect.emulator.assumptions import Refusal
from rh_prefect.emulator.responses import Refused

Auth = Callable[[ApiKeys, Request, Mapping[str, object]], ApiKey]
"""Finds the key of a request, or raises `Refused`."""

_BEARER: Final = "Bearer "

NO_KEY: Final = ApiKey("", "none", "FREE", 0, Account("none", Decimal(0)), 0)
"""Placeholder for a key that has not been read yet."""


def _bearer_key(keys: ApiKeys, request: Request) -> ApiKey | None:
    header = request.headers.get("authorization", "")
    return keys.find(header.removeprefix(_BEARER).strip()) if header.startswith(_BEARER) else None


def _able(key: ApiKey, refusal: Refusal) -> ApiKey:
    if key.tier == "FREE":
        raise Refused(*refusal)
    return key


def bearer(keys: ApiKeys, request: Request, body: Mapping[str, object]) -> ApiKey:  # noqa: ARG001 - one signature
    """Reads the v2 header; without a valid key, the gateway responds with 412 in its own format."""
    key = _bearer_key(keys, request)
    if key is None:
        raise Refused("412", envelope=responses.bare)
    return _able(key, keys.assumptions.free_key_v2)


def upload_bearer(keys: ApiKeys, request: Request, body: Mapping[str, object]) -> ApiKey:  # noqa: ARG001
    """Reads the v2 header of the upload, which refuses with 401 in its own envelope."""
    key = _bearer_key(keys, request)
    if key is None:
        raise Refused(*keys.assumptions.upload_bad_key)
    return _able(key, keys.assumptions.free_key_v2)


def body_key(keys: ApiKeys, request: Request, body: Mapping[str, object]) -> ApiKey:  # noqa: ARG001
    """Reads `apiKey` from a v1 body; a key that is only in the header is not accepted."""
    sent = body.get("apiKey")
    if not isinstance(sent, str) or not sent.strip():
        raise Refused("301", keys.assumptions.v1_blank.format(field="apiKey"))
    return _known(keys, sent)


def query_key(keys: ApiKeys, request: Request, body: Mapping[str, object]) -> ApiKey:  # noqa: ARG001
    """Reads `apiKey` from the query string; a key that is only in the header is not accepted."""
    sent = request.query_params.get("apiKey", "")
    if not sent.strip():
        raise Refused("301", keys.assumptions.v1_blank.format(field="apiKey"))
    return _known(keys, sent)


def header_key(keys: ApiKeys, request: Request, body: Mapping[str, object]) -> ApiKey:
    """Reads the header of the app list, where one official client omits the word Bearer."""
    raw = keys.find(request.headers.get("authorization", "").strip())
    return _able(raw, keys.assumptions.free_key_v2) if raw else bearer(keys, request, body)


def in_handler(keys: ApiKeys, request: Request, body: Mapping[str, object]) -> ApiKey:  # noqa: ARG001
    """Accepts a request that needs no key, or whose handler reads the key, for example from a form."""
    return NO_KEY


def path_key(keys: ApiKeys, connection: HTTPConnection) -> ApiKey | None:
    """Reads the key in the path of the native proxy."""
    key = keys.find(str(connection.path_params["key"]))
    return None if key is None or key.tier == "FREE" else key


def quick_params_key(keys: ApiKeys, request: Request, body: Mapping[str, object]) -> ApiKey:
    """Reads the key of a request for the parameter data of quick create, if `quick_params_key` requires a key."""
    return body_key(keys, request, body) if keys.assumptions.quick_params_key else NO_KEY


def account_key(keys: ApiKeys, request: Request, body: Mapping[str, object]) -> ApiKey:  # noqa: ARG001
    """Reads the key from a body of the account endpoint, in which the key's field has a different name."""
    sent = next((body[name] for name in keys.assumptions.account_key_fields if body.get(name)), None)
    if not isinstance(sent, str):
        raise Refused("1601")
    return _known(keys, sent)


def _known(keys: ApiKeys, sent: str) -> ApiKey:
    key = keys.find(sent)
    if key is None:
        raise Refused("802")
    return _able(key, keys.assumptions.free_key)
