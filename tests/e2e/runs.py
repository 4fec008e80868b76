"""Runs flows in the test's own process, and the command line as a person does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from prefect import Flow

from rh_prefect.cli import app
from rh_prefect.errors import SubmissionUnknown
from rh_prefect.flow_runs.rerun import create, rerun


async def begin(flow: Flow[..., Any], **parameters: object) -> str:
    """Creates a flow run; its id."""
    return str(await create(flow, parameters))


async def fails(flow: Flow[..., Any], run: str, *, words: str) -> SubmissionUnknown:
    """Runs a flow run that must end as unknown."""
    with pytest.raises(SubmissionUnknown, match=words) as caught:
        await rerun(flow, run)
    return caught.value


async def command(*words: str) -> None:
    """Runs `rh-prefect` on a thread, since it makes a separate event loop."""

    def call() -> None:
        app(list(words), result_action="return_value")

    await asyncio.to_thread(call)


def by_prompt(payloads: list[Mapping[str, object]]) -> list[str]:
    return sorted(str(payload["prompt"]) for payload in payloads)
