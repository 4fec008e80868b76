"""Prepares a job's request before it is sent: checks it against the catalogue and identifies its files by content."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from itertools import islice, product
from typing import Any

from rh_prefect import catalog
from rh_prefect.custom import CustomInput, FileValue
from rh_prefect.errors import InputError
from rh_prefect.jobs.journal.identity import base_hash, explicit_key, graph_base, request_id
from rh_prefect.jobs.journal.job_records import bases_of
from rh_prefect.jobs.journal.journal import Journal
from rh_prefect.jobs.journal.record_types import Intent, SeenMedia
from rh_prefect.jobs.requests.input_files import Input, Inputs
from rh_prefect.media.media import Media, as_media_input
from rh_prefect.media.source import CheckSize, shown
from rh_prefect.models import ModelInput

_log = logging.getLogger("rh_prefect")

_MOST_CHOICES = 64

REQUEST = "{request}"
"""Stands in a key for the hash of what is asked for, files by content."""

ASSET = "asset://"
"""Media registered with RunningHub beforehand; it is passed on as it is."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """One checked job that is ready to be submitted.

    Attributes:
        model: The model's name in RunningHub's documentation.
        endpoint: Path below `/openapi/v2/`.
        site: RunningHub's host.
        payload: The request's parameters under their wire names; files by content, as `sha256:…`.
        base: What makes two calls equal: a hash of `request`.
        label: The caller's name for the output.
        estimate: Expected price, where the catalogue has one.
        currency: Of the estimate.
        request: The parameters that the caller gave, under their wire names; what the catalogue or this package filled
            in is in `payload` alone, so that a newer catalogue makes no other job of the same call. Empty for a request
            that was rebuilt from the journal.
        graph: Of a saved workflow or an app: a fingerprint of what the site has under its id now. It is no part of
            `base`, since a job that is paid for is not another one when its graph is edited.
        inputs: The files by their marks; empty for a request that was rebuilt from the journal.
        private: Parameters that are sent and never recorded, such as a password.
        node_names: Of a graph: the class of each node, as far as it is known; for people.
    """

    model: str
    endpoint: str
    site: str
    payload: Mapping[str, Any]
    base: str
    label: str | None = None
    estimate: Decimal | None = None
    currency: str | None = None
    request: Mapping[str, Any] = field(default_factory=dict, repr=False)
    graph: str = ""
    inputs: Mapping[str, Input] = field(default_factory=dict)
    private: Mapping[str, str] = field(default_factory=dict, repr=False)
    node_names: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, intent: Intent) -> JobRequest:
        """Rebuilds a request from its record, to collect what was paid; it cannot be submitted again."""
        return cls(
            model=intent.model,
            endpoint=intent.endpoint,
            site=intent.site,
            payload=intent.payload,
            base=intent.base,
            label=intent.label,
            estimate=intent.estimate,
            currency=intent.currency,
            graph=intent.graph,
        )

    @property
    def request_id(self) -> str:
        """Returns the common prefix of the keys of all equal requests under this label in a scope."""
        return request_id(self.base, self.label)

    def as_read(self) -> JobRequest:
        """Returns the call with the current state of the site's graph in its identity, for reuse of results."""
        return replace(self, base=graph_base(self.base, self.graph))

    def with_inputs(self, others: Mapping[str, Input]) -> JobRequest:
        """The same call with other contents.

        Args:
            others: For each mark that is to be replaced, what takes its place.
        """
        marks = {mark: mark.replace(self.inputs[mark].seen.sha256, other.seen.sha256) for mark, other in others.items()}
        request = replace_marks(self.request, marks)
        return replace(
            self,
            payload=replace_marks(self.payload, marks),
            request=request,
            base=base_hash(site=self.site, endpoint=self.endpoint, payload=request),
            inputs={marks.get(mark, mark): others.get(mark, given) for mark, given in self.inputs.items()},
        )

    def key(self, key: str) -> str:
        """Returns the job's key from the caller's own key; with `REQUEST` in it, each request has another key."""
        return explicit_key(key.replace(REQUEST, self.base))


async def prepare_request(
    model_input: ModelInput, *, site: str, inputs: Inputs, label: str | None = None
) -> JobRequest:
    """Checks everything that can be checked without paying.

    Args:
        model_input: The model and its parameters.
        site: RunningHub's host.
        inputs: Looks at files.
        label: The caller's name for the output.

    Returns:
        The request.

    Raises:
        InputError: A parameter or a file is not what the model takes.
    """
    model, free = model_input.entry, model_input.unchecked
    params = model_input.params()
    files: dict[str, Input] = {}
    for param in model.media_params:
        given = params.get(param.name)
        if given is not None:
            params[param.name] = await _marks(model, param, given, inputs, files, is_checked=param.name not in free)
    read = catalog.read_parameters(model, params, unchecked=free)
    price = catalog.estimate(model, read.sent, seconds=_seconds(files))
    request = as_request(read.given)
    return JobRequest(
        model=model.name,
        endpoint=model.endpoint,
        site=site,
        payload=read.sent,
        base=base_hash(site=site, endpoint=model.endpoint, payload=request),
        label=label,
        estimate=price.amount if price else None,
        currency=price.currency if price else None,
        request=request,
        inputs=files,
    )


async def as_recorded(
    request: JobRequest,
    *,
    journal: Journal,
    key: str | None = None,
    is_recorded: Callable[[JobRequest], Awaitable[bool]] | None = None,
) -> JobRequest:
    """Returns the call as an earlier attempt recorded it, if the content behind one of its links has changed.

    Hosts re-encode pictures, and a link without a strong ETag does not say whether its file is another one. A resumed
    run must not pay for that, so what this very call took in an earlier attempt counts.

    Args:
        request: The call with what its links give now.
        journal: The scope's records.
        key: The caller's own key, if there is one.
        is_recorded: Looks for a request where the scope's jobs are not where it is recorded.

    Returns:
        The request whose job is recorded; where none is, the request as it is.
    """
    look = is_recorded or partial(_is_recorded, journal=journal, key=key)
    changed = {mark: given for mark, given in request.inputs.items() if given.earlier}
    if not changed or await look(request):
        return request
    for chosen in islice(product(*((given, *given.earlier) for given in changed.values())), 1, _MOST_CHOICES):
        other = request.with_inputs(dict(zip(changed, chosen)))
        if await look(other):
            links = ", ".join(sorted({given.seen.uri for given in changed.values()}))
            _log.warning(
                "%s returns different bytes than in an earlier attempt of this run, and its host does "
                "not report whether the file has changed. The file that was recorded for this job is "
                "used.",
                links,
            )
            return other
    return request


async def _is_recorded(request: JobRequest, journal: Journal, key: str | None) -> bool:
    """Whether a job of this request was submitted, or was about to be."""
    if key is None:
        records = await journal.request(request.request_id)
    else:
        records = await journal.job(request.key(key))
    return request.base in bases_of(records)


def replace_marks(value: Any, marks: Mapping[str, str]) -> Any:
    """Replaces the placeholders of files in a payload; prompt text that looks like one is not changed.

    Args:
        value: The payload, or a part of it.
        marks: Mark -> what takes its place; the marks of the job's own files.
    """
    if isinstance(value, Mapping):
        return {name: replace_marks(one, marks) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [replace_marks(one, marks) for one in value]
    return marks.get(value, value) if isinstance(value, str) else value


def as_request(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters as used for the request's hash: texts without trailing line breaks.

    Args:
        given: What the caller gave, files by their marks.

    Raises:
        InputError: Something in it is not JSON.
    """
    return {name: _without_breaks(value) for name, value in given.items()}


def _without_breaks(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        # A prompt that is read from a file ends with a line break, and the same prompt in a program does not.
        return value.rstrip("\r\n")
    if isinstance(value, Mapping):
        return {name: _without_breaks(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_breaks(one) for one in value]
    raise InputError(
        f"A parameter has a value of the type {type(value).__name__}, which cannot be sent as JSON. Nothing was sent."
    )


async def _marks(
    model: catalog.Model,
    param: catalog.Param,
    given: object,
    inputs: Inputs,
    files: dict[str, Input],
    *,
    is_checked: bool,
) -> str | list[str]:
    async def mark(source: Media | str) -> str:
        def check(seen: SeenMedia) -> None:
            catalog.check_file(model, param, extension=seen.extension, size=seen.size, kind=seen.kind, source=seen.uri)

        def check_size(size: int) -> None:
            catalog.check_file(model, param, extension=None, size=size, source=shown(source))

        if not is_checked:
            return await file_mark(source, inputs, files)
        return await file_mark(source, inputs, files, check=check, check_size=check_size)

    sources = list(given) if isinstance(given, list | tuple) else [given]
    marks = await asyncio.gather(*(mark(as_media_input(source)) for source in sources))
    return marks if isinstance(given, list | tuple) else marks[0]


async def file_mark(
    source: Media | str,
    inputs: Inputs,
    files: dict[str, Input],
    *,
    check: Callable[[SeenMedia], None] = lambda _: None,
    check_size: CheckSize = lambda _: None,
) -> str:
    """Identifies a file, records it, and returns its placeholder.

    Args:
        source: The file; `asset://` stands for media that RunningHub has, and is passed on as it is.
        inputs: Looks at files.
        files: The job's files by their marks; this one is added.
        check: Raises where the content will not do.
        check_size: Raises where a file of so many bytes will not do; asked before anything is read.

    Returns:
        What stands for it in the job's payload.

    Raises:
        InputError: It cannot be read, or will not do.
    """
    if isinstance(source, str) and source.startswith(ASSET):
        return source
    given = await inputs.identify(source, check=check, check_size=check_size)
    files[given.mark] = given
    return given.mark


def _seconds(files: Mapping[str, Input]) -> float | None:
    """The longest input's duration: models that are priced by their input are priced by that one."""
    lengths = [given.seen.seconds for given in files.values() if given.seen.seconds is not None]
    return max(lengths, default=None)


async def custom_request(custom: CustomInput, *, site: str, inputs: Inputs, label: str | None = None) -> JobRequest:
    """Checks the files of a custom call, and returns its request.

    Args:
        custom: The endpoint and its parameters.
        site: RunningHub's host.
        inputs: Looks at files.
        label: The caller's name for the output.

    Returns:
        The request.

    Raises:
        InputError: A file cannot be read.
    """
    files: dict[str, Input] = {}

    async def marked(value: Any) -> Any:
        match value:
            case FileValue():
                return await file_mark(value.file, inputs, files)
            case dict():
                return {name: await marked(one) for name, one in value.items()}
            case list():
                return [await marked(one) for one in value]
        return value

    payload = {name: await marked(value) for name, value in custom.params.items() if value is not None}
    request = as_request(payload)
    return JobRequest(
        model=custom.model,
        endpoint=custom.endpoint,
        site=site,
        payload=payload,
        base=base_hash(site=site, endpoint=custom.endpoint, payload=request),
        label=label,
        estimate=custom.price,  # in the account's currency
        request=request,
        inputs=files,
    )
