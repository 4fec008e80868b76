"""Routes for assets and groups: media registered for models that otherwise reject real people."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, cast, get_args

from starlette.responses import Response

from rh_prefect.emulator import auth, responses
from rh_prefect.emulator.assets import Asset, AssetType, Group, page
from rh_prefect.emulator.endpoint import Call, Endpoint, Handler
from rh_prefect.emulator.inputs import local
from rh_prefect.emulator.responses import Refused
from rh_prefect.errors import MediaError
from rh_prefect.media.probe import probe

_MOST: Final = 100


async def create(call: Call) -> Response:
    """Creates an asset; an invalid file appears only in its status."""
    group = _group(call)
    kind, url = _text(call, "assetType"), _text(call, "url")
    if kind not in get_args(AssetType):
        raise _invalid(call, f"assetType must be one of {', '.join(get_args(AssetType))}")
    path = await asyncio.to_thread(_fetch, call, url, kind)
    asset = call.state.assets.create(group, name=_text(call, "name"), kind=cast(AssetType, kind), url=url, path=path)
    return responses.success({"assetId": asset.id, "status": call.state.assumptions.asset_statuses["QUEUED"]})


def _fetch(call: Call, url: str, kind: str) -> Path | None:
    try:
        path = local(call.state, call.key, url, "url")
        return path if probe(path).kind == kind.lower() else None
    except (MediaError, Refused):
        return None


async def query(call: Call) -> Response:
    """Returns the status of an asset; counts as a poll."""
    asset = _asset(call)
    return responses.success(_shown(call, asset, call.state.assets.poll(asset)))


async def browse(call: Call) -> Response:
    """Lists assets."""
    filters = {name: str(call.body.get(key) or "") for name, key in _FILTERS.items()}
    found = call.state.assets.of(call.key.account, **filters)
    number, size = _page(call)
    return responses.success(
        page(found, number=number, size=size, shown=lambda asset: _shown(call, asset, call.state.assets.status(asset)))
    )


async def update(call: Call) -> Response:
    """Renames an asset."""
    asset, name = _asset(call), _text(call, "name")
    asset.name = name
    status = call.state.assets.status(asset)
    return responses.success({"assetId": asset.id, "name": asset.name, "status": status})


async def delete(call: Call) -> Response:
    """Deletes an asset."""
    call.state.assets.delete(_asset(call))
    return responses.success()


async def create_group(call: Call) -> Response:
    """Creates a group."""
    description = str(call.body.get("description") or "")
    group = call.state.assets.create_group(call.key.account, _text(call, "name"), description)
    return responses.success(_group_shown(group))


async def browse_groups(call: Call) -> Response:
    """Lists groups."""
    found = call.state.assets.groups(call.key.account, name=str(call.body.get("name") or ""))
    number, size = _page(call)
    return responses.success(page(found, number=number, size=size, shown=_group_shown))


async def query_group(call: Call) -> Response:
    """Returns a group, with the number of its assets."""
    group = _group(call)
    count = len(call.state.assets.of(call.key.account, group_id=group.id))
    return responses.success({**_group_shown(group), "assetCount": count})


async def update_group(call: Call) -> Response:
    """Changes a group's name, its description, or both."""
    group = _group(call)
    changes = {name: str(call.body[name]) for name in ("name", "description") if call.body.get(name) is not None}
    if not changes:
        raise Refused("1007", "Invalid parameters: name or description is required")
    for name, value in changes.items():
        setattr(group, name, value)
    return responses.success(_group_shown(group))


async def delete_group(call: Call) -> Response:
    """Deletes a group with its assets."""
    call.state.assets.delete_group(_group(call))
    return responses.success()


_FILTERS: Final = {"group_id": "groupId", "name": "name", "status": "status"}


def _text(call: Call, name: str) -> str:
    value = call.body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _invalid(call, f"{name} must not be blank")
    return value


def _invalid(call: Call, words: str) -> Refused:
    return Refused(call.state.assumptions.asset_invalid, words)


def _asset(call: Call) -> Asset:
    asset = call.state.assets.find(call.key.account, _text(call, "assetId"))
    if asset is None:
        raise Refused(*call.state.assumptions.asset_unknown)
    return asset


def _group(call: Call) -> Group:
    group = call.state.assets.group(call.key.account, _text(call, "groupId"))
    if group is None:
        raise Refused(*call.state.assumptions.asset_group_unknown)
    return group


def _page(call: Call) -> tuple[int, int]:
    number, size = (call.body.get(name) for name in ("pageNumber", "pageSize"))
    if not isinstance(number, int) or not isinstance(size, int) or number < 1 or not 1 <= size <= _MOST:
        raise _invalid(call, "pageNumber must be at least 1, and pageSize between 1 and 100")
    return number, size


def _shown(call: Call, asset: Asset, status: str) -> dict[str, object]:
    known = {
        "assetId": asset.id,
        "groupId": asset.group_id,
        "name": asset.name,
        "status": status,
        "previewUrl": asset.url,
        "assetType": asset.type,
    }
    return {name: known[name] for name in call.state.assumptions.asset_fields}


def _group_shown(group: Group) -> dict[str, object]:
    return {"groupId": group.id, "name": group.name, "description": group.description}


def _endpoint(path: str, handler: Handler) -> Endpoint:
    return Endpoint(f"/openapi/v2/assets/{path}", handler, auth.bearer, responses.v1, on="assets")


ENDPOINTS: Final = (
    _endpoint("create", create),
    _endpoint("query", query),
    _endpoint("list", browse),
    _endpoint("update", update),
    _endpoint("delete", delete),
    _endpoint("groups/create", create_group),
    _endpoint("groups/list", browse_groups),
    _endpoint("groups/query", query_group),
    _endpoint("groups/update", update_group),
    _endpoint("groups/delete", delete_group),
)
"""The routes of this family."""
