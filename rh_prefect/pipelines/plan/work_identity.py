"""Computes the identity of a work from the site, endpoint, given parameters, contents of input files, and take."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rh_prefect.pipelines.evaluation import results
from rh_prefect.pipelines.planning_values import ABSENT, File, Items, Maybe, StepOutput, Unknown, parts
from rh_prefect.works.checked_request import as_request
from rh_prefect.works.journal.identity import base_hash

UNSETTLED = "made-by:"
"""The prefix of the key of a work whose inputs do not exist yet; it is used within one plan and never recorded."""


def mark(value: Any) -> Any:
    """Returns a value for hashing: files by content, unknown values by the request that makes them."""
    match value:
        case File() | Unknown():
            return value.key
        case StepOutput() | Maybe():
            return mark(value.value)
        case Items():
            return [mark(one) for one in results(value)]
        case dict():
            return {name: mark(one) for name, one in value.items()}
        case list() | tuple():
            return [mark(one) for one in value]
    return None if value is ABSENT else value


def is_settled(value: Any) -> bool:
    """Returns whether all parts of a value that affect a request are known."""
    if isinstance(value, File | Unknown):
        return value.is_settled
    is_open = isinstance(value, Maybe) or (isinstance(value, Items) and value.count is not None)
    return not is_open and all(map(is_settled, parts(value)))


def request_base(*, site: str, endpoint: str, params: Mapping[str, Any]) -> str:
    """Returns the hash of a request; `generate` computes the same hash for the same call."""
    return base_hash(site=site, endpoint=endpoint, payload=as_request(params))


def recipe_id(edit: str, params: Mapping[str, Any]) -> str:
    """Returns the id of an edit's result, computed from the edit, its parameters and its inputs; 40 hex digits."""
    text = json.dumps([edit, equal_numbers(params)], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def pipeline_id(pipeline: str, params: Mapping[str, Any]) -> str:
    """Returns the id of a pipeline with its parameters, to which its rounds belong; 40 hex digits."""
    return recipe_id(f"pipeline {pipeline}", {name: without_places(mark(value)) for name, value in params.items()})


def without_places(value: Any) -> Any:
    """Returns a value without this package's own fields, such as a row's number, which depends on the other rows."""
    if isinstance(value, dict):
        return {name: without_places(one) for name, one in value.items() if not name.startswith("\0")}
    return [without_places(one) for one in value] if isinstance(value, list) else value


def equal_numbers(value: Any) -> Any:
    """Returns a value with whole floats as integers, so that 20 and 20.0 are equal."""
    match value:
        case Mapping():
            return {name: equal_numbers(one) for name, one in value.items()}
        case list() | tuple():
            return [equal_numbers(one) for one in value]
        case float() if value.is_integer():
            return int(value)
    return value


def candidates_id(keys: list[str]) -> str:
    """Returns an id for a review's candidates, 8 hex digits; a choice for other candidates is ignored."""
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:8]
