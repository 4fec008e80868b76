"""Routes for the account: queue status, balance and list of keys; and for the public library of models."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from rh_prefect.emulator import auth, responses
from rh_prefect.emulator.accounts import ApiKey
from rh_prefect.emulator.comfy.nodes import RESOURCE_TYPES, Resource, find
from rh_prefect.emulator.endpoint import Call, Endpoint
from rh_prefect.emulator.responses import Refused
from rh_prefect.emulator.routes.graphs import page_of


async def queue_status(call: Call) -> Response:
    """Returns the number of tasks and the limit of the key; counts are strings, and the limit is a number."""
    counts = call.state.tasks.counts(call.key)
    return responses.success(
        {
            "apiKeyType": call.state.assumptions.api_types[call.key.tier],
            "concurrentLimit": call.key.limit,
            "runningCount": str(counts["RUNNING"]),
            "queuedCount": str(counts["QUEUED"]),
            "totalCurrentTasks": str(sum(counts.values())),
        }
    )


async def account_status(call: Call) -> Response:
    """Returns the balance; a consumer key has coins and no money."""
    account, has_wallet = call.key.account, call.key.tier != "NORMAL"
    counts = call.state.tasks.counts_of_account(call.key)
    return responses.success(
        {
            "remainCoins": str(account.coins),
            "currentTaskCounts": str(sum(counts.values())),
            "remainMoney": f"{account.money.normalize():f}" if has_wallet else None,
            "currency": account.currency if has_wallet else None,
            "apiType": call.state.assumptions.api_types[call.key.tier],
        }
    )


async def key_list(call: Call) -> Response:
    """Lists the keys of the account, masked."""
    mine = [key for key in call.state.keys if key.account is call.key.account]
    return responses.success([_key(call, key) for key in mine])


def _key(call: Call, key: ApiKey) -> dict[str, object]:
    return {
        "key": f"{key.secret[:4]}{'*' * 24}{key.secret[-4:]}",
        "apiKeyName": key.name,
        "status": 1,
        "quotaLimit": None,
        "quotaUsed": float(call.state.tasks.spent(key)),
        "visible": True,
        "expireAt": None,
        "expireInMinute": None,
        "createdAt": "2026-01-01 00:00:00",
    }


async def resource_list(call: Call) -> Response:
    """Searches the public library; `nodeModelName` is the name for a loader node."""
    body = call.body
    kind, bases, tags = body.get("resourceType"), body.get("baseModels") or [], body.get("tags") or []
    if kind not in RESOURCE_TYPES:
        raise Refused(call.state.assumptions.list_refusal, f"resourceType must be one of {', '.join(RESOURCE_TYPES)}")
    if not isinstance(bases, list) or not isinstance(tags, list):
        raise Refused(call.state.assumptions.list_refusal, "baseModels and tags must be arrays")
    found = find(str(kind), name=str(body.get("resourceName") or ""), bases=bases, tags=tags)
    return responses.success(page_of(call, [_resource(number, item) for number, item in enumerate(found)], size=10))


def _resource(number: int, resource: Resource) -> dict[str, object]:
    version = {
        "id": str(1_990_000_000_000_000_000 + number),
        "version": "v1",
        "versionResourceName": resource.file,
        "baseModel": resource.base,
        "baseModelSubtype": "",
        "triggerWords": "",
        "desc": "",
        "posterInfos": [],
    }
    return {
        "id": str(1_980_000_000_000_000_000 + number),
        "resourceName": resource.title,
        "resourceType": resource.kind,
        "createTime": "2026-01-01 00:00:00",
        "desc": "",
        "nodeModelName": resource.file,
        "posterUrl": "",
        "thumbnailUrl": "",
        "owner": {"name": "RunningHub", "avatar": ""},
        "tags": [{"id": tag, "name": name} for tag, name in resource.tags],
        "versions": [version],
    }


ENDPOINTS: Final = (
    Endpoint("/openapi/v2/api-key/list", key_list, auth.bearer, responses.v1, on="keys", reads="nothing", method="GET"),
    Endpoint("/openapi/v2/resource/list", resource_list, auth.bearer, responses.v1, on="resources"),
    Endpoint(
        "/openapi/v2/queue/status", queue_status, auth.bearer, responses.v1, on="queue", reads="nothing", method="GET"
    ),
    Endpoint("/uc/openapi/accountStatus", account_status, auth.account_key, responses.v1, on="account"),
)
"""The routes of this family."""
