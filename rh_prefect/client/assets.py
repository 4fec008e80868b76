"""Registers media as assets; Seedance and SparkVideo reject unregistered media that shows people."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

from rh_prefect.client import responses
from rh_prefect.client.json_values import Page, compact, count, rows, table
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
        return _read(await self._session.make("openapi/v2/assets/create", body, ask), known)

    async def query(self, asset_id: str) -> Asset:
        """Returns the state of an asset."""
        ask = RequestInfo(f"query of asset {asset_id}")
        known = Asset(asset_id=usable_id(asset_id, of="an asset"))
        return _read(await self._session.call("openapi/v2/assets/query", {"assetId": known.asset_id}, ask), known)

    async def wait(
        self,
        asset_id: str,
        *,
        timeout: float | None = None,
        pause: float = 2.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> Asset:
        """Waits until an asset can be used, for at most `timeout` seconds (default: the `SECONDS` for its kind)."""
        ask, began, blips = RequestInfo(f"waiting for asset {asset_id}"), clock(), 0
        limit = SECONDS["Video"] if timeout is None else timeout
        while True:
            try:
                asset, waited = await self.query(asset_id), clock() - began
            except (ConnectFailed, ResponseLost, Busy) as error:
                blips += 1
                if blips >= _BLIPS or clock() - began >= limit:
                    # Not a `ConnectFailed`, after which the task would register the asset again.
                    what = error.reason if isinstance(error, Busy) else error.what
                    raise _not_ready(ask, f"its state is not known: {what}") from error
            else:
                blips, limit = 0, SECONDS.get(asset.kind, limit) if timeout is None else limit
                if asset.state == "ready":
                    return asset
                if asset.state == "failed":
                    raise _refused(asset, ask)
                if waited >= limit:
                    status = asset.status or "unknown"
                    raise _not_ready(ask, f"the asset is not ready after {waited:.0f} s (status {status})")
            await sleep(pause)

    async def list(
        self, *, page: int = 1, size: int = 20, group_id: str = "", status: str = "", name: str = ""
    ) -> Page[Asset]:
        """Lists assets, at most 100 on a page; `group_id`, `status` and `name` are filters."""
        filters = {"groupId": group_id and usable_id(group_id, of="an asset group"), "status": status, "name": name}
        ask = RequestInfo(f"page {page} of the assets")
        data = await _page(self._session, "openapi/v2/assets/list", filters, ask, number=page, size=size)
        found = map(Asset.read, map(table, rows(data.get("items"))))
        return AssetPage.read(data, items=[asset for asset in found if asset.asset_id], number=page)

    async def update(self, asset_id: str, *, name: str) -> Asset:
        """Renames an asset."""
        ask = RequestInfo(f"renaming of asset {asset_id}")
        known = Asset(asset_id=usable_id(asset_id, of="an asset"), name=name)
        body = {"assetId": known.asset_id, "name": name}
        return _read(await self._session.call("openapi/v2/assets/update", body, ask), known)

    async def delete(self, asset_id: str) -> None:
        """Deletes an asset."""
        ask = RequestInfo(f"deletion of asset {asset_id}")
        body = {"assetId": usable_id(asset_id, of="an asset")}
        (await self._session.call("openapi/v2/assets/delete", body, ask)).checked()


class AssetGroups(Requests):
    """Requests about groups of assets; errors as in `Assets`."""

    async def create(self, name: str, *, description: str = "") -> AssetGroup:
        """Creates a group."""
        ask = RequestInfo(f"creation of asset group {name!r}", makes=True)
        body = {"name": name, **({"description": description} if description else {})}
        answer = await self._session.make("openapi/v2/assets/groups/create", body, ask)
        return _read(answer, AssetGroup(group_id="", name=name, description=description))

    async def list(self, *, page: int = 1, size: int = 20, name: str = "") -> Page[AssetGroup]:
        """Lists groups, at most 100 on a page."""
        ask = RequestInfo(f"page {page} of the asset groups")
        data = await _page(self._session, "openapi/v2/assets/groups/list", {"name": name}, ask, number=page, size=size)
        found = map(AssetGroup.read, map(table, rows(data.get("items"))))
        return GroupPage.read(data, items=[group for group in found if group.group_id], number=page)

    async def query(self, group_id: str) -> AssetGroup:
        """Returns the data of a group."""
        ask = RequestInfo(f"query of asset group {group_id}")
        known = AssetGroup(group_id=usable_id(group_id, of="an asset group"))
        answer = await self._session.call("openapi/v2/assets/groups/query", {"groupId": known.group_id}, ask)
        return _read(answer, known)

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
        body = {"groupId": known.group_id, **changes}
        return _read(await self._session.call("openapi/v2/assets/groups/update", body, ask), known)

    async def delete(self, group_id: str) -> None:
        """Deletes a group."""
        ask = RequestInfo(f"deletion of asset group {group_id}")
        body = {"groupId": usable_id(group_id, of="an asset group")}
        (await self._session.call("openapi/v2/assets/groups/delete", body, ask)).checked()


def _not_ready(ask: RequestInfo, what: str) -> ResponseLost:
    advice = "query this asset with `query_asset` until it is ready; do not register it again"
    return ResponseLost(f"{ask.doing}: {what}. The asset exists. What to do: {advice}.", what=what)


Registered = TypeVar("Registered", Asset, AssetGroup)


def _read(answer: ApiResponse, known: Registered) -> Registered:
    """Reads an asset or a group; most responses are partial, so `known` supplies the rest."""
    found = type(known).read(answer.checked().data, **known.model_dump())
    kind, found_id = ("asset", found.asset_id) if isinstance(found, Asset) else ("group", found.group_id)
    if not found_id:
        raise responses.no_answer(answer.ask, f"the response contains no {kind} id")
    return found


async def _page(
    session: Session, path: str, filters: Mapping[str, str], ask: RequestInfo, *, number: int, size: int
) -> dict[str, object]:
    """Returns one page of a list, with the `hasNext` that follows from the total if RunningHub sends none."""
    usable_page(number, size, largest=100)
    body = {"pageNumber": number, "pageSize": size, **{key: value for key, value in filters.items() if value}}
    data = (await session.call(path, body, ask)).with_data()
    if not compact(data.get("hasNext")).strip():
        return {**data, "hasNext": (count(data.get("totalCount")) or 0) > number * size}
    return data


def _refused(asset: Asset, ask: RequestInfo) -> RequestRejected:
    advice = "check the file against the limits for assets and register it again"
    message = f"{ask.doing}: RunningHub could not use the file (status {asset.status}). What to do: {advice}."
    return RequestRejected(message, code=asset.status, reason=asset.status, retry="final", advice=advice)
