"""A flow in a separate process, in which every result is persisted: what Prefect's cache could mix up, it would."""

from __future__ import annotations

import json
import sys

from rh_prefect import flow
from rh_prefect.tasks import endpoints
from rh_prefect.works.outputs.result import Result


@flow(name="two-endpoints", persist_result=True)
async def two_endpoints() -> list[Result]:
    first = await endpoints.z_image_turbo(prompt="a cat", aspect_ratio="1:1")
    second = await endpoints.f_dev(prompt="a cat", aspect_ratio="1:1")
    third = endpoints.seedream_v4_text_to_image.submit(prompt="a cat")
    again = await endpoints.z_image_turbo.with_options(persist_result=True)(prompt="a cat", aspect_ratio="1:1", take=2)
    mapped = endpoints.z_image_turbo.map(prompt=["a dog", "a bird"])
    return [first, second, third.result(), again, *(one.result() for one in mapped)]


if __name__ == "__main__":
    import asyncio

    results = asyncio.run(two_endpoints())
    json.dump([[one.model, one.key, one.task_id] for one in results], sys.stdout)
