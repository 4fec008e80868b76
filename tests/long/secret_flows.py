"""Flows that use every secret there is, well and badly; see `test_secrets`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr

from rh_prefect import flow, generate, generate_many, models
from rh_prefect.errors import RunningHubError
from rh_prefect.workflow_inputs import GraphInput, WorkflowInput
from rh_prefect.works.result import Result

MODULE = "tests.long.secret_flows"


def picture(prompt: str) -> models.ModelInput:
    return models.ZImageTurbo(prompt=prompt)


def password(name: str = "ACCESS_PASSWORD") -> str:
    """As whoever writes a flow gets it: a parameter of the flow would stand in Prefect's database."""
    return os.environ[name]


def behind_password(locked: str, text: str, word: str) -> WorkflowInput:
    return WorkflowInput(id=locked, nodes={"6.text": text}, access_password=SecretStr(word))


@flow(persist_result=True, result_serializer="json")
async def everything(photo: str, locked: str, graph: dict[str, Any], restyle: dict[str, Any]) -> dict[str, str]:
    """One job for each way in which a secret travels, and for each way in which that goes wrong."""
    broken = {**graph, "99": {"class_type": "NoSuchNode", "inputs": {}}}
    calls: dict[str, Awaitable[Result]] = {
        "uploaded": generate(models.ZImageTurboImageToImage(image_url=photo, prompt="a gull"), label="uploaded"),
        "bucket": generate(picture("into the bucket"), storage="bucket"),
        "pooled": generate(picture("from the pool"), credentials="night"),
        "failing": generate(picture("this one fails")),
        "lost": generate(picture("this one's answer is lost")),
        "rejected": generate(picture("with a wrong key"), credentials="wrong"),
        "workflow": generate(behind_password(locked, "behind a password", password())),
        "locked": generate(behind_password(locked, "locked", password("WRONG_PASSWORD"))),
        "graph": generate(GraphInput(graph=graph, nodes={"6.text": "on a machine"})),
        "restyled": generate(GraphInput(graph=restyle, nodes={"10.image": Path(photo)})),
        "broken": generate(GraphInput(graph=broken)),
        "lost-graph": generate(GraphInput(graph=graph, machine="proxy-plus")),
    }
    done = dict(zip(calls, await asyncio.gather(*calls.values(), return_exceptions=True), strict=True))
    return {name: _told(one) for name, one in done.items()}


def _told(done: object) -> str:
    if isinstance(done, RunningHubError):
        return f"{type(done).__name__}: {done}"
    assert isinstance(done, Result), repr(done)
    return f"Result: {done.record}"


@flow(persist_result=True)
async def crashing(how: Literal["key", "password", "graph"], locked: str, graph: dict[str, Any]) -> Result:
    """Ends with an error that nobody catches: its traceback is logged, and its state and its result keep it."""
    if how == "key":
        return await generate.with_options(persist_result=True)(picture("crash"), credentials="wrong")
    if how == "password":
        return await generate(behind_password(locked, "crash", password("WRONG_PASSWORD")))
    return await generate(GraphInput(graph=graph, machine="proxy-plus"))


@flow
async def endless(locked: str, graph: dict[str, Any]) -> None:
    await asyncio.gather(
        generate(picture("without end")),
        generate(picture("without end, from the pool"), credentials="night"),
        generate(behind_password(locked, "without end", password())),
        generate(GraphInput(graph=graph, nodes={"6.text": "without end"})),
    )


@flow
async def resting() -> list[str]:
    """Suspends itself until webhooks wake it."""
    asked = [picture(f"asleep {number}") for number in range(2)]
    return [result.task_id for result in await generate_many(asked, wait="suspend")]


@flow
async def one() -> Result:
    return await generate(picture("in the spool"))
