"""Registers media as assets; Seedance and SparkVideo reject unregistered media that shows people."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from rh_prefect.client import responses
from rh_prefect.client.json_values import Page, count, rows, table
from rh_prefect.client.request_sender import Requests, Session, usable_id, usable_page
from rh_prefect.client.responses import ApiResponse, RequestInfo
from rh_prefect.client.wire.account_files_and_assets import Asset, AssetGroup, AssetKind, AssetPage, GroupPage
from rh_prefect.errors import Busy, ConnectFailed, InputError, RequestRejected, ResponseLost

SECONDS: Final[dict[str, float]] = {"Image": 180.0, "Audio": 180.0, "Video": 300.0}
"""How long RunningHub's official code waits for an asset of each kind, in seconds."""

_BLIPS: Final = 5
"""Maximum number of consecutive queries without an answer."""


class Assets(Requests):
    """Requests about registered files; errors as in `Client`. A model takes an asset's `uri` in place of a link.

    RunningHub does not publish which codes these endpoints return.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.groups = AssetGroups(session)

    async def create(self, url: str, *, group_id: str, kind: AssetKind, name: str) -> Asset:
        """Registers the file at an upload's `url`. The asset is ready some time later; see `wait`."""
        ask = RequestInfo(f"registration of asset {name!r}", makes=True)
        known = Asset(asset_id="", kind=kind, name=name, group_id=usable_id(group_id, of="an asset group"))
        body = {"groupId": known.group_id, "url": url, "assetType": kind, "name": name}
        answer = await self._session.make("openapi/v2/assets/create", body, ask)
        return _asset(answer, ask, known=known)

    async def query(self, asset_id: str) -> Asset:
        """Returns the state of an asset."""
        ask = RequestInfo(f"query of asset {asset_id}")
        known = Asset(asset_id=usable_id(asset_id, of="an asset"))
        answer = await self._session.call("openapi/v2/assets/query", {"assetId": known.asset_id}, ask)
        return _asset(answer, ask, known=known)

    async def wait(
        self,
        asset_id: str,
        *,
        timeout: float | None = None,
        pause: float = 2.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> Asset:
        """Waits until an asset can be used, for at most `timeout` seconds (default: the `SECONDS` for its kind)."""
        ask, waited, blips = RequestInfo(f"waiting for asset {asset_id}"), 0.0, 0
        limit = SECONDS["Video"] if timeout is None else timeout
        while True:
            try:
                asset = await self.query(asset_id)
            except (ConnectFailed, ResponseLost, Busy) as error:
                blips += 1
                if blips >= _BLIPS or waited >= limit:
                    if isinstance(error, ConnectFailed):  # with which the task would register the asset again
                        raise responses.no_answer(ask, error.what) from error
                    raise
            else:
                blips, limit = 0, SECONDS.get(asset.kind, limit) if timeout is None else limit
                if asset.state == "ready":
                    return asset
                if asset.state == "failed":
                    raise _refused(asset, ask)
                if waited >= limit:
                    raise responses.no_answer(
                        ask, f"the asset is not ready after {waited:g} s (status {asset.status or 'unknown'})"
                    )
            await sleep(pause)
            waited += pause

    async def list(
        self, *, page: int = 1, size: int = 20, group_id: str = "", status: str = "", name: str = ""
    ) -> Page[Asset]:
        """Lists assets, at most 100 on a page; `group_id`, `status` and `name` are filters."""
        usable_page(page, size, largest=100)
        ask = RequestInfo(f"page {page} of the assets")
        filters = {"groupId": group_id and usable_id(group_id, of="an asset group"), "status": status, "name": name}
        body = {"pageNumber": page, "pageSize": size, **{key: value for key, value in filters.items() if value}}
        answer = await self._session.call("openapi/v2/assets/list", body, ask)
        data = responses.with_data(answer, ask)
        found = (Asset.read(table(row)) for row in rows(data.get("items")))
        items = [asset for asset in found if asset.asset_id]
        return AssetPage.read(data, items=items, number=page, has_next=_has_next(data, page * size))

    async def update(self, asset_id: str, *, name: str) -> Asset:
        """Renames an asset."""
        ask = RequestInfo(f"renaming of asset {asset_id}")
        known = Asset(asset_id=usable_id(asset_id, of="an asset"), name=name)
        body = {"assetId": known.asset_id, "name": name}
        answer = await self._session.call("openapi/v2/assets/update", body, ask)
        return _asset(answer, ask, known=known)

    async def delete(self, asset_id: str) -> None:
        """Deletes an asset."""
        ask = RequestInfo(f"deletion of asset {asset_id}")
        body = {"assetId": usable_id(asset_id, of="an asset")}
        responses.checked(await self._session.call("openapi/v2/assets/delete", body, ask), ask)


class AssetGroups(Requests):
    """Requests about groups of assets; errors as in `Assets`."""

    async def create(self, name: str, *, description: str = "") -> AssetGroup:
        """Creates a group."""
        ask = RequestInfo(f"creation of asset group {name!r}", makes=True)
        body = {"name": name, **({"description": description} if description else {})}
        answer = await self._session.make("openapi/v2/assets/groups/create", body, ask)
        return _group(answer, ask, known=AssetGroup(group_id="", name=name, description=description))

    async def list(self, *, page: int = 1, size: int = 20, name: str = "") -> Page[AssetGroup]:
        """Lists groups, at most 100 on a page."""
        usable_page(page, size, largest=100)
        ask = RequestInfo(f"page {page} of the asset groups")
        body = {"pageNumber": page, "pageSize": size, **({"name": name} if name else {})}
        answer = await self._session.call("openapi/v2/assets/groups/list", body, ask)
        data = responses.with_data(answer, ask)
        found = (AssetGroup.read(table(row)) for row in rows(data.get("items")))
        items = [group for group in found if group.group_id]
        return GroupPage.read(data, items=items, number=page, has_next=_has_next(data, page * size))

    async def query(self, group_id: str) -> AssetGroup:
        """Returns the data of a group."""
        ask = RequestInfo(f"query of asset group {group_id}")
        known = AssetGroup(group_id=usable_id(group_id, of="an asset group"))
        answer = await self._session.call("openapi/v2/assets/groups/query", {"groupId": known.group_id}, ask)
        return _group(answer, ask, known=known)

    async def update(self, group_id: str, *, name: str | None = None, description: str | None = None) -> AssetGroup:
        """Changes a group's name, description, or both."""
        ask = RequestInfo(f"update of asset group {group_id}")
        changes = {key: value for key, value in (("name", name), ("description", description)) if value is not None}
        if not changes:
            raise InputError(
                f"{ask.doing}: neither a name nor a description was given. Nothing was sent. What to do: pass a name "
                "or a description."
            )
        known = AssetGroup(group_id=usable_id(group_id, of="an asset group"), **changes)
        answer = await self._session.call(
            "openapi/v2/assets/groups/update", {"groupId": known.group_id, **changes}, ask
        )
        return _group(answer, ask, known=known)

    async def delete(self, group_id: str) -> None:
        """Deletes a group."""
        ask = RequestInfo(f"deletion of asset group {group_id}")
        body = {"groupId": usable_id(group_id, of="an asset group")}
        responses.checked(await self._session.call("openapi/v2/assets/groups/delete", body, ask), ask)


def _asset(answer: ApiResponse, ask: RequestInfo, *, known: Asset) -> Asset:
    asset = Asset.read(responses.checked(answer, ask).data, **known.model_dump())  # most responses are partial
    if not asset.asset_id:
        raise responses.no_answer(ask, "the response contains no asset id")
    return asset


def _group(answer: ApiResponse, ask: RequestInfo, *, known: AssetGroup) -> AssetGroup:
    group = AssetGroup.read(responses.checked(answer, ask).data, **known.model_dump())
    if not group.group_id:
        raise responses.no_answer(ask, "the response contains no group id")
    return group


def _has_next(data: dict[str, object], seen: int) -> bool:
    return (count(data.get("totalCount")) or 0) > seen


def _refused(asset: Asset, ask: RequestInfo) -> RequestRejected:
    advice = "check the file against the limits for assets and register it again"
    message = f"{ask.doing}: RunningHub could not use the file (status {asset.status}). What to do: {advice}."
    return RequestRejected(message, code=asset.status, reason=asset.status, retry="final", advice=advice)
