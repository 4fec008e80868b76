"""Flows that go wrong, for tests and for the child processes of tests, and how tests run them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from prefect import Flow

from rh_prefect import flow, models
from rh_prefect.cli import app
from rh_prefect.errors import RunningHubError, SubmissionUnknown
from rh_prefect.flow_runs.rerun import create, rerun
from rh_prefect.tasks import generate
from rh_prefect.works.result import Result

MODULE = "tests.e2e.flows"


def picture(prompt: str) -> models.ModelInput:
    return models.ZImageTurbo(prompt=prompt)


def each(prompts: list[str]) -> list[Coroutine[Any, Any, Result]]:
    """A call for each prompt; one that stands several times gets as many takes."""
    return [generate(picture(prompt), take=prompts[:number].count(prompt) + 1) for number, prompt in enumerate(prompts)]


@flow
async def one(prompt: str = "a lighthouse") -> Result:
    return await generate(picture(prompt))


@flow(name="patient")
async def patient(prompt: str = "a lighthouse", retries: int = 2) -> Result:
    return await generate.with_options(retries=retries, retry_delay_seconds=0.2)(picture(prompt))


@flow
async def many(prompts: list[str]) -> list[Result]:
    return list(await asyncio.gather(*each(prompts)))


@flow
async def many_on_another_account(prompts: list[str]) -> list[Result]:
    calls = (generate(picture(prompt), credentials="paying-account") for prompt in prompts)
    return list(await asyncio.gather(*calls))


@flow
async def many_in_order(prompts: list[str]) -> list[Result]:
    return [await generate(picture(prompt), take=prompts[:n].count(prompt) + 1) for n, prompt in enumerate(prompts)]


@flow
async def child(prompts: list[str]) -> list[str]:
    return [(await generate(picture(prompt))).task_id for prompt in prompts]


@flow
async def parent() -> list[str]:
    """A child flow that completes, then four more takes of its first picture."""
    done = await child(["a lighthouse", "a harbour"])
    more = await asyncio.gather(*(generate(picture("a lighthouse"), take=take) for take in range(2, 6)))
    return [*done, *(result.task_id for result in more)]


@flow(persist_result=True, result_serializer="json")
async def everything(photo: str, broken: str) -> dict[str, str]:
    """One job of each kind: good ones, refused ones, failed ones, unknown ones, bad input."""
    asked = {
        "good": picture("a lighthouse"),
        "animated": models.KlingV26ProImageToVideo(image_url=photo, prompt="waves", duration="5"),
        "text": models.RhartTextG3FlashPreviewTextToText(prompt="Name a colour"),
        "moderated": picture("a forbidden thing"),
        "failing": picture("this one fails"),
        "lost": picture("this one's answer is lost"),
        "broken": models.KlingV26ProImageToVideo(image_url=broken, prompt="waves", duration="5"),
    }
    calls = {name: generate.with_options(persist_result=True)(one, label=name) for name, one in asked.items()}
    calls["nobody"] = generate(picture("no such block"), credentials="nobody")
    done = dict(zip(calls, await asyncio.gather(*calls.values(), return_exceptions=True), strict=True))
    return {name: _told(one) for name, one in done.items()}


def _told(done: object) -> str:
    if isinstance(done, RunningHubError):
        return f"{type(done).__name__}: {done}"
    assert isinstance(done, Result), repr(done)
    return done.record


async def begin(flow: Flow[..., Any], **parameters: object) -> str:
    return str(await create(flow, parameters))


async def fails(flow: Flow[..., Any], run: str, *, words: str) -> SubmissionUnknown:
    with pytest.raises(SubmissionUnknown, match=words) as caught:
        await rerun(flow, run)
    return caught.value


async def command(*words: str) -> None:
    """Runs `rh-prefect` on a thread, since it makes a separate event loop."""

    def call() -> None:
        app(list(words), result_action="return_value")

    await asyncio.to_thread(call)
