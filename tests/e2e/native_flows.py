"""A flow that runs graphs on ComfyUI's own API, for the child processes of tests."""

from __future__ import annotations

import asyncio
from typing import Literal

from rh_prefect import flow, generate
from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from rh_prefect.workflows import GraphInput
from rh_prefect.works.result import Result

MODULE = "tests.e2e.native_flows"


@flow
async def graphs(prompts: list[str]) -> list[Result]:
    """One graph on each of the machines, which take one at a time."""
    machines: tuple[Literal["proxy", "proxy-plus"], ...] = ("proxy", "proxy-plus")
    calls = (
        generate(GraphInput(graph=TEXT_TO_IMAGE, nodes={"6.text": prompt}, machine=machine))
        for prompt, machine in zip(prompts, machines, strict=False)
    )
    return list(await asyncio.gather(*calls))
