"""Tasks for files at RunningHub: uploads, registered assets and their groups, and price previews.

`credentials` names a `RunningHubCredentials` or `RunningHubPool` block; by default RH_API_KEY and RH_BASE_URL are used.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from rh_prefect import catalog
from rh_prefect.blocks.lookup import load_storage
from rh_prefect.client import Asset, AssetGroup, AssetKind, Client, Page, PricePreview, Upload
from rh_prefect.client.request_sender import usable_id
from rh_prefect.errors import InputError
from rh_prefect.media.input_files import Source, shown
from rh_prefect.media.media import Media, as_media_input
from rh_prefect.media.probe import Facts, probe
from rh_prefect.media.store import MediaStore
from rh_prefect.models import ModelInput
from rh_prefect.settings import get_settings
from rh_prefect.tasks.platform_calls import ask, once, one_of, repeatable, require_text
from rh_prefect.works.input_identification import open_local

LegacyType = Literal["input", "image", "video", "audio"]

_LINKS = ("http://", "https://", "asset://")


@dataclass(frozen=True, slots=True)
class Local:
    """A file to send, under a plain ASCII name; RunningHub detects the type from the extension."""

    source: str
    path: Path
    name: str
    size: int
    facts: Facts


def _name(parameters: Mapping[str, Any]) -> str:
    # A link's signature is a key to the file, and a task run's name is shown to every user.
    return f"upload of {Path(shown(as_media_input(parameters['source']))).name}"


@repeatable(_name)
async def upload_file(source: Source, *, credentials: str | None = None, storage: str | None = None) -> Upload:
    """Uploads a file, which RunningHub keeps for a day; costs nothing.

    Paid tasks upload their inputs automatically. Use this task for graphs, node lists and assets that you build
    yourself.

    Args:
        source: A `Media`, a path, any fsspec URI, a link, or the result of a job.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
        storage: Name of the `MediaStorage` block whose options open the file; by default RH_STORAGE_OPTIONS.

    Returns:
        The upload: `url` for models, `file_name` for the loader nodes of workflows and apps.

    Raises:
        MediaError: The file is missing, empty or broken; nothing was sent.
    """
    store = await load_storage(storage)

    async def send(client: Client) -> Upload:
        async with local_copy(source, store=store) as file:
            return await client.upload(file.path, name=file.name, mime=file.facts.mime)

    return await ask(send, credentials)


@repeatable(_name)
async def upload_file_legacy(
    source: Source,
    *,
    file_type: LegacyType = "input",
    credentials: str | None = None,
    storage: str | None = None,
) -> Upload:
    """Uploads a file of up to 30 MB to the deprecated v1 endpoint.

    The result has a `file_name` for loader nodes, and no `url`. `upload_file` has no such limit. Older documentation of
    the API requires a `file_type`.
    """
    one_of("file_type", file_type, get_args(LegacyType))
    store = await load_storage(storage)

    async def send(client: Client) -> Upload:
        async with local_copy(source, store=store) as file:
            return await client.upload_legacy(file.path, name=file.name, mime=file.facts.mime, file_type=file_type)

    return await ask(send, credentials)


@repeatable("upload of LoRA {name}")
async def upload_lora(path: str | os.PathLike[str], *, name: str, credentials: str | None = None) -> str:
    """Uploads a LoRA, unless RunningHub has it already, and returns the `file_name` for a RHLoraLoader node."""
    require_text("name", name)
    return await ask(lambda client: client.upload_lora(Path(path), name=name), credentials)


@asynccontextmanager
async def local_copy(source: Source, *, store: MediaStore) -> AsyncIterator[Local]:
    """Provides a local copy of a file for an `async with` block; a local file is used without a copy."""
    media = as_media_input(source)
    uri = media.uri if isinstance(media, Media) else media
    copy = open_local(uri, get_settings().state_dir / "inputs", options=store.options_for(uri))
    held = await asyncio.to_thread(copy.__enter__)
    try:
        facts = await asyncio.to_thread(probe, held.path)
        # By its content, not by its name; an unknown kind keeps the name's own extension.
        extension = facts.extension if facts.extension != "bin" else Path(shown(uri)).suffix.lower().lstrip(".")
        yield Local(shown(uri), held.path, f"{held.sha256[:32]}.{extension or 'bin'}", held.size, facts)
    finally:
        await asyncio.to_thread(copy.__exit__, None, None, None)


async def link_to(
    source: Source, *, client: Client, store: MediaStore, check: Callable[[Local], None] = lambda _: None
) -> str:
    """Returns a link that RunningHub can read: the given link, or the link of an uploaded copy."""
    media = as_media_input(source)
    if isinstance(media, str) and media.lower().startswith(_LINKS):
        return media
    async with local_copy(media, store=store) as file:
        check(file)
        return (await client.upload(file.path, name=file.name, mime=file.facts.mime)).url


@once("asset {name}")
async def register_asset(
    source: Source,
    *,
    group_id: str,
    kind: AssetKind,
    name: str,
    credentials: str | None = None,
    storage: str | None = None,
) -> Asset:
    """Registers media, so that Seedance accepts real people in it, and waits until the asset is usable.

    Args:
        source: A link that RunningHub can read; any other file is uploaded first.
        group_id: The group of the asset.
        kind: The kind of media.
        name: The name of the asset.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
        storage: Name of the `MediaStorage` block whose options open the file.

    Returns:
        The asset; pass its `uri` to a model's parameter for media.

    Raises:
        InputError: An invalid kind or name, or an unreadable file; nothing was registered.
        RequestRejected: RunningHub could not use the file.
        ResponseLost: The response to the registration was lost, or the registered asset, which the error names, is not
            ready yet.
    """
    one_of("kind", kind, get_args(AssetKind))
    require_text("name", name)
    usable_id(group_id, of="an asset group")
    store = await load_storage(storage)

    async def register(client: Client) -> Asset:
        url = await link_to(source, client=client, store=store)
        asset = await client.assets.create(url, group_id=group_id, kind=kind, name=name)
        return await client.assets.wait(asset.asset_id)

    return await ask(register, credentials)


@repeatable("asset {asset_id}")
async def query_asset(asset_id: str, *, credentials: str | None = None) -> Asset:
    """Returns the state of an asset; costs nothing."""
    return await ask(lambda client: client.assets.query(asset_id), credentials)


@repeatable("assets, page {page}")
async def list_assets(
    *,
    group_id: str = "",
    status: str = "",
    name: str = "",
    page: int = 1,
    size: int = 20,
    credentials: str | None = None,
) -> Page[Asset]:
    """Lists all assets, or only the assets with a given group, status or name, at most 100 on a page."""
    return await ask(
        lambda client: client.assets.list(page=page, size=size, group_id=group_id, status=status, name=name),
        credentials,
    )


@repeatable("renaming of asset {asset_id}")
async def update_asset(asset_id: str, *, name: str, credentials: str | None = None) -> Asset:
    """Renames a registered asset, and returns it."""
    require_text("name", name)
    return await ask(lambda client: client.assets.update(asset_id, name=name), credentials)


@once("deletion of asset {asset_id}")
async def delete_asset(asset_id: str, *, credentials: str | None = None) -> None:
    """Deletes a registered asset at RunningHub."""
    await ask(lambda client: client.assets.delete(asset_id), credentials)


@once("asset group {name}")
async def create_asset_group(name: str, *, description: str = "", credentials: str | None = None) -> AssetGroup:
    """Creates a group for registered assets; pass its `group_id` to `register_asset`."""
    require_text("name", name)
    return await ask(lambda client: client.assets.groups.create(name, description=description), credentials)


@repeatable("asset group {group_id}")
async def query_asset_group(group_id: str, *, credentials: str | None = None) -> AssetGroup:
    """Returns the data of a group of assets; costs nothing."""
    return await ask(lambda client: client.assets.groups.query(group_id), credentials)


@repeatable("asset groups, page {page}")
async def list_asset_groups(
    *, name: str = "", page: int = 1, size: int = 20, credentials: str | None = None
) -> Page[AssetGroup]:
    """Lists all groups of assets, or only the groups with a given name, at most 100 on a page; costs nothing."""
    return await ask(lambda client: client.assets.groups.list(page=page, size=size, name=name), credentials)


@repeatable("update of asset group {group_id}")
async def update_asset_group(
    group_id: str, *, name: str | None = None, description: str | None = None, credentials: str | None = None
) -> AssetGroup:
    """Renames a group of assets, or changes its description, and returns the group."""
    if name is None and description is None:
        raise InputError(
            f"asset group {group_id}: no change was given. Nothing was sent. What to do: give a name or a description."
        )
    if name is not None:
        require_text("name", name)
    return await ask(
        lambda client: client.assets.groups.update(group_id, name=name, description=description), credentials
    )


@once("deletion of asset group {group_id}")
async def delete_asset_group(group_id: str, *, credentials: str | None = None) -> None:
    """Deletes a group of registered assets at RunningHub."""
    await ask(lambda client: client.assets.groups.delete(group_id), credentials)


def _price_name(parameters: Mapping[str, Any]) -> str:
    request = parameters["request"]
    return f"price of {request.entry.name if isinstance(request, ModelInput) else type(request).__name__}"


@repeatable(_price_name)
async def price_preview(
    request: ModelInput, *, credentials: str | None = None, storage: str | None = None
) -> PricePreview:
    """Requests the price of a model with these parameters; nothing is created, and nothing is paid.

    Args:
        request: The model and its parameters, from `rh_prefect.models`; files that are not links are uploaded first.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
        storage: Name of the `MediaStorage` block whose options open the files.

    Returns:
        The price, and whether this call would be free.

    Raises:
        InputError: A parameter or a file is not valid for the model; nothing was sent.
    """
    if not isinstance(request, ModelInput):
        raise InputError(
            f"Only a model has a price preview; {type(request).__name__} has none. Nothing was sent. What to do: pass "
            "a model's input, as in models.ZImageTurbo(prompt=...)."
        )
    # All but the files is checked before one of them is uploaded.
    _payload(request, await _with_files(request, _stand_in))
    store = await load_storage(storage)

    async def question(client: Client) -> PricePreview:
        params = await _with_files(request, partial(_link, request.entry, client=client, store=store))
        return await client.price_preview(request.entry.endpoint, _payload(request, params))

    return await ask(question, credentials)


def _payload(request: ModelInput, params: Mapping[str, Any]) -> dict[str, object]:
    return catalog.read_parameters(request.entry, params, unchecked=request.unchecked).sent


async def _with_files(request: ModelInput, link: Callable[[catalog.Param, Any], Awaitable[str]]) -> dict[str, Any]:
    params = request.params()
    for param in request.entry.file_params:
        value = params.get(param.name)
        if isinstance(value, list | tuple):
            params[param.name] = [await link(param, source) for source in value]
        elif value is not None:
            params[param.name] = await link(param, value)
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
