"""Registered media of Seedance and SparkVideo, and the groups that they are kept in."""

from __future__ import annotations

import os
from typing import get_args

from rh_prefect.blocks.lookup import load_storage
from rh_prefect.client import Asset, AssetGroup, AssetKind, Client, Page
from rh_prefect.client.session import usable_id
from rh_prefect.errors import InputError
from rh_prefect.media.media import Media
from rh_prefect.tasks.platform.base import ask, once, one_of, repeatable, words
from rh_prefect.tasks.platform.uploads import link_to


@once("asset {name}")
async def register_asset(
    source: Media | str | os.PathLike[str],
    *,
    group_id: str,
    kind: AssetKind,
    name: str,
    credentials: str | None = None,
    storage: str | None = None,
) -> Asset:
    """Registers media once, so that Seedance takes real persons in it, and waits until it can be used.

    Args:
        source: A link that RunningHub can read; any other file is uploaded first.
        group_id: The group that it belongs to.
        kind: What it is.
        name: Its name.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
        storage: Name of the `MediaStorage` block whose options open the file.

    Returns:
        The asset; give its `uri` where a model takes media.

    Raises:
        InputError: A kind or a name that is none, or a file that cannot be read; nothing was registered.
        RequestRejected: RunningHub could not use the file.
    """
    one_of("kind", kind, get_args(AssetKind))
    words("name", name)
    usable_id(group_id, of="an asset group")
    store = await load_storage(storage)

    async def register(client: Client) -> Asset:
        url = await link_to(source, client=client, store=store)
        made = await client.assets.create(url, group_id=group_id, kind=kind, name=name)
        return await client.assets.wait(made.asset_id)

    return await ask(register, credentials)


@repeatable("asset {asset_id}")
async def query_asset(asset_id: str, *, credentials: str | None = None) -> Asset:
    """Reads how an asset is; costs nothing.

    Args:
        asset_id: Its id.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
    """
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
    """Lists assets, a page at a time; costs nothing.

    Args:
        group_id: Only those of this group.
        status: Only those of this status, in RunningHub's word.
        name: Only those of this name.
        page: From 1.
        size: 100 at most.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
    """
    return await ask(
        lambda client: client.assets.list(page=page, size=size, group_id=group_id, status=status, name=name),
        credentials,
    )


@repeatable("renaming of asset {asset_id}")
async def update_asset(asset_id: str, *, name: str, credentials: str | None = None) -> Asset:
    """Renames an asset.

    Args:
        asset_id: Its id.
        name: Its new name.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
    """
    words("name", name)
    return await ask(lambda client: client.assets.update(asset_id, name=name), credentials)


@once("deletion of asset {asset_id}")
async def delete_asset(asset_id: str, *, credentials: str | None = None) -> None:
    """Deletes an asset.

    Args:
        asset_id: Its id.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
    """
    await ask(lambda client: client.assets.delete(asset_id), credentials)


@once("asset group {name}")
async def create_asset_group(name: str, *, description: str = "", credentials: str | None = None) -> AssetGroup:
    """Makes a group for assets.

    Args:
        name: Its name.
        description: What it is for.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
    """
    words("name", name)
    return await ask(lambda client: client.assets.groups.create(name, description=description), credentials)


@repeatable("asset group {group_id}")
async def query_asset_group(group_id: str, *, credentials: str | None = None) -> AssetGroup:
    """Reads about a group of assets; costs nothing.

    Args:
        group_id: Its id.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
    """
    return await ask(lambda client: client.assets.groups.query(group_id), credentials)


@repeatable("asset groups, page {page}")
async def list_asset_groups(
    *, name: str = "", page: int = 1, size: int = 20, credentials: str | None = None
) -> Page[AssetGroup]:
    """Lists groups of assets, a page at a time; costs nothing.

    Args:
        name: Only those of this name.
        page: From 1.
        size: 100 at most.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
    """
    return await ask(lambda client: client.assets.groups.list(page=page, size=size, name=name), credentials)


@repeatable("update of asset group {group_id}")
async def update_asset_group(
    group_id: str, *, name: str | None = None, description: str | None = None, credentials: str | None = None
) -> AssetGroup:
    """Renames a group of assets, or describes it anew.

    Args:
        group_id: Its id.
        name: Its new name.
        description: What it is for.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.

    Raises:
        InputError: There is nothing to update; nothing was sent.
    """
    if name is None and description is None:
        raise InputError(f"asset group {group_id}: give a name or a description to update. Nothing was sent.")
    if name is not None:
        words("name", name)
    return await ask(
        lambda client: client.assets.groups.update(group_id, name=name, description=description), credentials
    )


@once("deletion of asset group {group_id}")
async def delete_asset_group(group_id: str, *, credentials: str | None = None) -> None:
    """Deletes a group of assets.

    Args:
        group_id: Its id.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
    """
    await ask(lambda client: client.assets.groups.delete(group_id), credentials)
