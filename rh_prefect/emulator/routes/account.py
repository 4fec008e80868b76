"""The account: queue status and balance."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from rh_prefect.emulator import answers, auth
from rh_prefect.emulator.assumptions import CURRENCY
from rh_prefect.emulator.serving import Call, Endpoint


async def queue_status(call: Call) -> Response:
    """Tells how many tasks the key has and may have; counts are strings, the limit is a number."""
    counts = call.state.tasks.counts(call.key)
    return answers.success(
        {
            "apiKeyType": call.key.tier,
            "concurrentLimit": call.key.limit,
            "runningCount": str(counts["RUNNING"]),
            "queuedCount": str(counts["QUEUED"]),
            "totalCurrentTasks": str(sum(counts.values())),
        }
    )


async def account_status(call: Call) -> Response:
    """Tells the balance; a consumer key has coins and no money."""
    account, has_wallet = call.key.account, call.key.tier != "NORMAL"
    counts = call.state.tasks.counts_of_account(call.key)
    return answers.success(
        {
            "remainCoins": str(account.coins),
            "currentTaskCounts": str(sum(counts.values())),
            "remainMoney": f"{account.money.normalize():f}" if has_wallet else None,
            "currency": CURRENCY if has_wallet else None,
            "apiType": call.key.tier,
        }
    )


ENDPOINTS: Final = (
    Endpoint(
        "/openapi/v2/queue/status", queue_status, auth.bearer, answers.v1, on="queue", reads="nothing", method="GET"
    ),
    Endpoint("/uc/openapi/accountStatus", account_status, auth.account_key, answers.v1, on="account"),
)
"""The routes of this family."""
