"""Flows that go wrong, for tests and for the child processes of tests, and how tests run them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import pytest
from prefect import Flow
from pydantic import SecretStr

from rh_prefect import flow, models
from rh_prefect.cli import app
from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from rh_prefect.errors import RunningHubError, SubmissionUnknown
from rh_prefect.flow_runs.resume_or_rerun import create, rerun
from rh_prefect.tasks import generate
from rh_prefect.workflow_inputs import GraphInput, WorkflowInput
from rh_prefect.works.job_options import Request
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


def behind_password(locked: str, text: str, name: str) -> WorkflowInput:
    """A password comes from the environment: a parameter of the flow would stand in Prefect's database."""
    return WorkflowInput(id=locked, nodes={"6.text": text}, access_password=SecretStr(os.environ[name]))


@flow(persist_result=True, result_serializer="json")
async def everything(photo: str, broken: str, locked: str) -> dict[str, str]:
    """One job for each way in which a secret travels: good ones, refused, failed and unknown ones, bad input."""
    asked: dict[str, Request] = {
        "good": picture("a lighthouse"),
        "animated": models.KlingV26ProImageToVideo(image_url=photo, prompt="waves", duration="5"),
        "text": models.RhartTextG3FlashPreviewTextToText(prompt="Name a colour"),
        "moderated": picture("a forbidden thing"),
        "failing": picture("this one fails"),
        "lost": picture("this one's answer is lost"),
        "broken": models.KlingV26ProImageToVideo(image_url=broken, prompt="waves", duration="5"),
        "workflow": behind_password(locked, "behind a password", "ACCESS_PASSWORD"),
        "locked": behind_password(locked, "locked", "WRONG_PASSWORD"),
        "graph": GraphInput(graph=TEXT_TO_IMAGE, nodes={"6.text": "on a machine"}),
        "lost-graph": GraphInput(graph=TEXT_TO_IMAGE, machine="proxy-plus"),
    }
    calls = {name: generate.with_options(persist_result=True)(one, label=name) for name, one in asked.items()}
    calls["nobody"] = generate(picture("no such block"), credentials="nobody")
    calls["rejected"] = generate(picture("with a wrong key"), credentials="canary-wrong")
    calls["bucket"] = generate(picture("into the bucket"), storage="canary-bucket")
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
    await asyncio.to_thread(app, list(words), result_action="return_value")
