"""Prepares a job's request: checks it against the catalogue, and identifies its files by content."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from rh_prefect import catalog
from rh_prefect.custom_endpoint import CustomInput, FileValue
from rh_prefect.display_texts import beginning_of_prompt
from rh_prefect.errors import InputError
from rh_prefect.media.input_files import shown
from rh_prefect.media.media import Media, as_media_input
from rh_prefect.models import ModelInput
from rh_prefect.works.input_identification import Check, Input, Inputs, accept
from rh_prefect.works.journal.costs_and_budget import Money
from rh_prefect.works.journal.identity import base_hash, graph_base, media_mark
from rh_prefect.works.journal.record_types import Intent, MediaRecord

_RECORDED = ("model", "endpoint", "site", "payload", "base", "label", "estimate", "currency", "graph")

V1_CREATE = "/task/openapi/create"
"""The path at which a whole graph, `workflow`, is a JSON string."""

ASSET = "asset://"
"""The scheme of media that are registered with RunningHub; such an address is sent unchanged."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """One checked job that is ready to be submitted."""

    model: str  # The model's name in RunningHub's documentation
    endpoint: str  # Path below `/openapi/v2/`
    site: str  # RunningHub's host
    payload: Mapping[str, Any]  # The request's parameters under their wire names; files by content, as `sha256:…`
    base: str  # A hash of `request`; calls with the same hash are equal
    label: str | None = None  # The caller's name for the output
    estimate: Decimal | None = None  # Expected price; None if the catalogue has none
    currency: str | None = None  # The currency of the estimate
    # The parameters that the caller gave, as the identity compares them; see `rh_prefect.catalog.hash_compatibility`.
    # Defaults of the catalogue and of this package are in `payload` only, so that changed defaults do not create new
    # jobs. Empty for a request that was rebuilt from the journal
    request: Mapping[str, Any] = field(default_factory=dict)
    # For a saved workflow or an app, a fingerprint of what the site has under its id now. It is not in `base`: an edit
    # of the graph does not create a new job
    graph: str = ""
    # The files by their marks; empty for a request that was rebuilt from the journal
    inputs: Mapping[str, Input] = field(default_factory=dict)
    # Parameters that are sent and never recorded, such as a password
    private: Mapping[str, str] = field(default_factory=dict, repr=False)
    # For a graph, node id -> class of the node, if it is known; used in messages
    node_names: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, intent: Intent) -> JobRequest:
        """Builds a request from its record, to collect the outputs; such a request cannot be submitted."""
        return cls(**{name: getattr(intent, name) for name in _RECORDED})

    @classmethod
    def checked(cls, *, given: Mapping[str, Any], files: RequestFiles, **fields: Any) -> JobRequest:
        """Builds a request from the parameters that the caller gave, its files and its other fields."""
        request = as_request(given)
        base = base_hash(site=fields["site"], endpoint=fields["endpoint"], payload=request)
        return cls(**fields, base=base, request=request, inputs=files.by_mark)

    @property
    def recorded(self) -> dict[str, Any]:
        """The fields that an `Intent` takes from the request, by name."""
        return {name: getattr(self, name) for name in _RECORDED}

    @property
    def listed(self) -> Money | None:
        """The catalogue's price."""
        return None if self.estimate is None else Money(self.estimate, self.currency)

    @property
    def prompt(self) -> str:
        """The beginning of the request's prompt; empty if the request has no prompt."""
        return beginning_of_prompt(self.payload)

    def sent(self, links: Mapping[str, str]) -> dict[str, Any]:
        """Returns the payload to send, with links in place of files, whole graphs as JSON strings, and secrets."""
        payload = {**replace_marks(self.payload, links), **self.private}
        if self.endpoint == V1_CREATE and isinstance(payload.get("workflow"), dict):
            payload["workflow"] = json.dumps(payload["workflow"], ensure_ascii=False)
        return payload

    def with_graph(self) -> JobRequest:
        """Returns the request with the site's current graph in its hash, so that results can be reused."""
        return replace(self, base=graph_base(self.base, self.graph))


class RequestFiles:
    """The files of one request, by the marks that stand for them in its payload."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self.by_mark: dict[str, Input] = {}

    async def mark(
        self, source: Media | str, *, check: Check = accept, to_mark: Callable[[str], str] = media_mark
    ) -> str:
        """Identifies a file by its content, and returns the mark that `to_mark` makes of the content's hash."""
        file = await self._inputs.identify(source, check=check)
        mark = to_mark(file.record.sha256)
        self.by_mark[mark] = file
        return mark

    async def mark_or_asset(self, source: Media | str, check: Check = accept) -> str:
        """Returns the mark of a file, or an `asset://` address, which is sent unchanged."""
        is_asset = isinstance(source, str) and source.startswith(ASSET)
        return str(source) if is_asset else await self.mark(source, check=check)


async def prepare_request(
    model_input: ModelInput, *, site: str, inputs: Inputs, label: str | None = None
) -> JobRequest:
    """Checks a model's parameters and files, and returns the request; raises `InputError` if a value is not valid."""
    model, unchecked = model_input.entry, model_input.unchecked
    params, files = model_input.params(), RequestFiles(inputs)
    for param in model.file_params:
        value = params.get(param.name)
        if value is not None:
            is_checked = param.name not in unchecked
            params[param.name] = await _marks_of(model, param, value, files, is_checked=is_checked)
    read = catalog.read_parameters(model, params, unchecked=unchecked)
    price = catalog.estimate(model, read.sent, seconds=_longest(files.by_mark))
    return JobRequest.checked(
        given=read.given,
        files=files,
        model=model.name,
        endpoint=model.endpoint,
        site=site,
        payload=read.sent,
        label=label,
        estimate=price.amount if price else None,
        currency=price.currency if price else None,
    )


def replace_marks(value: Any, marks: Mapping[str, str]) -> Any:
    """Replaces the marks of files in a payload; only a string that is exactly the mark of a job's file is replaced."""
    if isinstance(value, Mapping):
        return {name: replace_marks(item, marks) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_marks(item, marks) for item in value]
    return marks.get(value, value) if isinstance(value, str) else value


def as_request(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters for the request's hash, with trailing line breaks removed from strings."""
    return {name: _without_line_breaks(value) for name, value in params.items()}


def _without_line_breaks(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        # A prompt from a file ends with a line break; the same prompt in a program does not.
        return value.rstrip("\r\n")
    if isinstance(value, Mapping):
        return {name: _without_line_breaks(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_line_breaks(item) for item in value]
    raise InputError(
        f"A parameter has a value of the type {type(value).__name__}, which cannot be sent as JSON. Nothing was sent. "
        "What to do: pass strings, numbers, lists or mappings."
    )


async def _marks_of(
    model: catalog.Model, param: catalog.Param, value: object, files: RequestFiles, *, is_checked: bool
) -> str | list[str]:
    async def mark(given: object) -> str:
        source = as_media_input(given)

        def check(size: int, file: MediaRecord | None) -> None:
            extension, kind = (file.extension, file.kind) if file else (None, None)
            name = file.uri if file else shown(str(source))
            catalog.check_file(model, param, extension=extension, size=size, kind=kind, source=name)

        return await files.mark_or_asset(source, check if is_checked else accept)

    if isinstance(value, list | tuple):
        return await asyncio.gather(*map(mark, value))
    return await mark(value)


def _longest(files: Mapping[str, Input]) -> float | None:
    """Returns the longest duration of the inputs, for models whose price depends on it."""
    durations = [file.record.seconds for file in files.values() if file.record.seconds is not None]
    return max(durations, default=None)


async def custom_request(custom: CustomInput, *, site: str, inputs: Inputs, label: str | None = None) -> JobRequest:
    """Checks the files of a custom call, and returns its request; raises `InputError` if a file cannot be read."""
    files = RequestFiles(inputs)

    async def with_marks(value: Any) -> Any:
        match value:
            case FileValue():
                return await files.mark_or_asset(value.file)
            case dict():
                return {name: await with_marks(item) for name, item in value.items()}
            case list():
                return [await with_marks(item) for item in value]
        return value

    payload = {name: await with_marks(value) for name, value in custom.params.items() if value is not None}
    return JobRequest.checked(
        given=payload,
        files=files,
        model=custom.model,
        endpoint=custom.endpoint,
        site=site,
        payload=payload,
        label=label,
        estimate=custom.price,  # in the account's currency
    )
