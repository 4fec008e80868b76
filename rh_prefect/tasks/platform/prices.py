"""What a model would cost, as RunningHub itself says, before anything is paid."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from prefect.runtime import task_run

from rh_prefect import catalog
from rh_prefect.blocks.lookup import load_storage
from rh_prefect.client import Client, PricePreview
from rh_prefect.errors import InputError
from rh_prefect.media.store import MediaStore
from rh_prefect.models import ModelInput
from rh_prefect.tasks.platform.base import ask, repeatable
from rh_prefect.tasks.platform.uploads import Local, Source, link_to


def _name() -> str:
    asked = task_run.parameters["asked"]
    return f"price of {asked.entry.name if isinstance(asked, ModelInput) else type(asked).__name__}"


@repeatable(_name)
async def price_preview(
    asked: ModelInput, *, credentials: str | None = None, storage: str | None = None
) -> PricePreview:
    """Asks RunningHub what a model would cost with these parameters; nothing is created, and nothing is paid.

    Args:
        asked: The model and its parameters, from `rh_prefect.models`; files that are no links are uploaded first.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
        storage: Name of the `MediaStorage` block whose options open the files.

    Returns:
        The price, and whether this very call would be free.

    Raises:
        InputError: A parameter or a file is not what the model takes; nothing was asked.
    """
    if not isinstance(asked, ModelInput):
        raise InputError(f"Only a model has a price preview, not {type(asked).__name__}. Nothing was asked.")
    # All but the files is checked before one of them is uploaded.
    catalog.validate(asked.entry, await _with_files(asked, _stand_in))
    store = await load_storage(storage)

    async def question(client: Client) -> PricePreview:
        params = await _with_files(asked, partial(_link, asked.entry, client=client, store=store))
        return await client.price_preview(asked.entry.endpoint, catalog.validate(asked.entry, params))

    return await ask(question, credentials)


async def _with_files(asked: ModelInput, link: Callable[[catalog.Param, Any], Awaitable[str]]) -> dict[str, Any]:
    params = asked.params()
    for param in asked.entry.media_params:
        given = params.get(param.name)
        if isinstance(given, list | tuple):
            params[param.name] = [await link(param, source) for source in given]
        elif given is not None:
            params[param.name] = await link(param, given)
    return params


async def _stand_in(param: catalog.Param, _: Source) -> str:
    return f"a file for {param.name}"


async def _link(
    model: catalog.Model, param: catalog.Param, source: Source, *, client: Client, store: MediaStore
) -> str:
    def check(file: Local) -> None:
        facts = file.facts
        catalog.check_file(model, param, extension=facts.extension, size=file.size, kind=facts.kind, source=file.source)

    return await link_to(source, client=client, store=store, check=check)
