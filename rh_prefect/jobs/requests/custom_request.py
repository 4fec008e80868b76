"""Orders for endpoints that the catalogue does not know: their files are found, and nothing else is checked."""

from __future__ import annotations

from typing import Any

from rh_prefect.custom import CustomInput, FileValue
from rh_prefect.jobs.journal.identity import base_hash
from rh_prefect.jobs.requests.inputs import Input, Inputs
from rh_prefect.jobs.requests.request import JobRequest, as_request, file_mark


async def custom_request(asked: CustomInput, *, site: str, inputs: Inputs, label: str | None = None) -> JobRequest:
    """Looks at the files of a call.

    Args:
        asked: The endpoint and its parameters.
        site: RunningHub's host.
        inputs: Looks at files.
        label: The caller's name for the output.

    Returns:
        The order.

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

    payload = {name: await marked(value) for name, value in asked.params.items() if value is not None}
    request = as_request(payload)
    return JobRequest(
        model=asked.model,
        endpoint=asked.endpoint,
        site=site,
        payload=payload,
        base=base_hash(site=site, endpoint=asked.endpoint, payload=request),
        label=label,
        estimate=asked.price,  # in the account's currency
        request=request,
        inputs=files,
    )
