"""`rh-prefect doctor`: checks everything that a run needs, and prints how to fix problems."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from rh_prefect.cli.options import Credentials, Json, Storage
from rh_prefect.cli.output import print_json
from rh_prefect.cli.prefect_server import WITHOUT_SERVER
from rh_prefect.errors import ConfigError, RunningHubError, StoreError
from rh_prefect.media.storage_errors import as_store_error
from rh_prefect.media.storage_urls import open_filesystem, protocol_of, shown_url
from rh_prefect.settings import get_settings
from rh_prefect.works.journal.costs_and_budget import amount_text

if TYPE_CHECKING:
    from rh_prefect.client import Client


Check: TypeAlias = tuple[str, Callable[[], Awaitable[str]]]
"""The name of a check and its function, which returns a message or raises an error."""


def doctor(*, credentials: Credentials = None, storage: Storage = None, as_json: Json = False) -> None:
    """Check key, site, account, storage and Prefect, and print how to fix problems. Nothing is paid."""
    found = asyncio.run(_examine(credentials, storage, say=not as_json))
    if as_json:
        print_json(found)
    if not all(one["ok"] for one in found):
        raise SystemExit(1)


async def _examine(credentials: str | None, storage: str | None, *, say: bool) -> list[dict[str, Any]]:
    """Runs all checks, and prints the result of each check as soon as it has ended."""
    checks: list[Check] = [
        ("Prefect", _prefect),
        *await _checks_of_accounts(credentials),
        ("storage", lambda: _storage(storage)),
        ("records", lambda: _records(storage)),
        ("webhook", _webhook),
        ("this machine", _machine),
    ]
    found: list[dict[str, Any]] = []
    for name, check in checks:
        try:
            is_well, message = True, await check()
        except RunningHubError as error:
            is_well, message = False, str(error)
            if name.startswith("account") and found[-1]["message"] == message:
                continue  # the check of this account's key has failed for the same reason
        found.append({"check": name, "ok": is_well, "message": message})
        if say:
            print(f"{'✓' if is_well else '✗'} {name}: {message}")
    return found


async def _checks_of_accounts(credentials: str | None) -> list[Check]:
    """Returns the checks for the account, or for the pool as a whole and for each account in it."""
    members = await _members(credentials)
    if credentials is None or not members:
        return [("key and site", partial(_key, credentials)), ("account", partial(_account, credentials))]
    checks: list[Check] = [("pool", partial(_pool, credentials))]
    for one in members:
        checks += [(f"key and site of {one}", partial(_key, one)), (f"account {one}", partial(_account, one))]
    return checks


async def _members(credentials: str | None) -> list[str]:
    """Returns the block names of a pool's accounts; empty if no pool has this name."""
    from rh_prefect.blocks import RunningHubPool
    from rh_prefect.blocks.lookup import find_block

    try:
        pool = None if credentials is None else await find_block(RunningHubPool, credentials)
    except RunningHubError:
        return []  # the checks that follow raise and report the same error
    return [] if pool is None else pool.credentials


async def _pool(name: str) -> str:
    from rh_prefect.blocks.lookup import load_pool_context

    pool = (await load_pool_context(name)).pool
    return f"{name} has {len(pool.accounts)} account(s) on {pool.site}, each with its own limit"


async def _prefect() -> str:
    from prefect.settings import PREFECT_API_URL

    from rh_prefect.prefect_api import connect

    url = PREFECT_API_URL.value()
    if not url:
        return (
            "PREFECT_API_URL is not set; pipelines run without a server, but "
            "flows, blocks and deployments need one: `prefect server start`, then "
            "`prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api`"
        )
    connection = await connect()
    failure = await connection.client.api_healthcheck()
    if failure is not None:
        raise ConfigError(
            f"the Prefect API at {url} does not answer ({failure}). What to do: start the API (`prefect server "
            f"start`), or correct the address; {WITHOUT_SERVER}."
        )
    version: object = await connection.client.api_version()
    if not isinstance(version, str):
        raise ConfigError(f"{url} is not the address of a Prefect API. What to do: correct PREFECT_API_URL.")
    return f"{url}, version {version}. Deleting a flow run deletes its journal; the results in the storage are kept."


async def _client(credentials: str | None) -> Client:
    from rh_prefect.blocks.lookup import load_credentials

    return (await load_credentials(credentials)).get_client()


async def _key(credentials: str | None) -> str:
    async with await _client(credentials) as client:
        status = await client.queue_status()
    limit = "no limit known"
    if status.limit:
        limit = f"{status.running} of {status.limit} task(s) running, {status.queued} waiting"
    key = f"{status.key_type or 'type unknown'}, fingerprint {client.account_id}"
    return f"{client.site} accepts the key ({key}); {limit}"


async def _account(credentials: str | None) -> str:
    async with await _client(credentials) as client:
        account = await client.account()
    money = "no wallet"
    if account.money is not None:
        money = f"{amount_text(account.money)} {account.currency or ''}".strip()
    coins = f", {account.coins} coins" if account.coins is not None else ""
    return f"{money}{coins}{_limits_of(account.key_type)}"


def _limits_of(key_type: str) -> str:
    if key_type.upper() in ("SHARED", "ENTERPRISE", ""):
        return ""
    return (
        f". Note: the key is a {key_type} key, which runs workflows and AI apps; "
        "models need an enterprise shared key (RunningHub answers with code 1014)"
    )


async def _storage(storage: str | None) -> str:
    from rh_prefect.blocks.lookup import load_storage

    store = await load_storage(storage)
    await asyncio.to_thread(store.check)
    return f"files in {store.url} can be written, read and deleted"


async def _records(storage: str | None) -> str:
    """Checks the locations of records and results, because works whose records or files are lost are paid for again."""
    from rh_prefect.blocks.lookup import load_storage
    from rh_prefect.works.journal.works_journal import options_of_records, records_url

    store, settings = await load_storage(storage), get_settings()
    url = records_url(store, settings)
    where = shown_url(url)
    places = {store.url: store.options_for(store.url), url: options_of_records(url, store, settings)}
    note = "; no rule of the bucket deletes them" if protocol_of(url) == "s3" else ""
    for place, options in places.items():
        try:
            rules = await asyncio.to_thread(expiry_rules, place, options)
        except StoreError as error:
            note, rules = f". The bucket's rules could not be read: {error.message}", []
        if not rules:
            continue
        listed = "; ".join(f"rule {one.name or '(no id)'}, prefix {one.prefix or '(all)'}: {one.when}" for one in rules)
        raise ConfigError(
            f"the bucket has a rule that deletes records and results in {shown_url(place)} ({listed}). Deleted "
            "results are paid for again. What to do: remove the rule; or restrict it to a prefix without "
            f"{', '.join(_KEPT[:-1])} and {_KEPT[-1]}; or set RH_STORAGE_URL and RH_RECORDS to other places."
        )
    return f"records of paid results are in {where}{note}"


async def _webhook() -> str:
    from rh_prefect.works.work_in_progress import callback_of

    settings = get_settings()
    callback = callback_of(settings)
    if callback is not None:
        return (
            f"RunningHub reports the end of each task to {callback.url}; `rh-prefect webhook serve` must be "
            "reachable at that address"
        )
    if settings.webhook_token is not None:
        raise ConfigError(
            "RH_WEBHOOK_TOKEN is set and RH_WEBHOOK_URL is not, so no webhook arrives. What to do: set RH_WEBHOOK_URL "
            "to the address at which RunningHub reaches `rh-prefect webhook serve`; or unset the token to poll instead."
        )
    return "RH_WEBHOOK_URL is not set; RunningHub is polled to find out whether a task has ended"


async def _machine() -> str:
    from rh_prefect.works.journal.spool import Spool

    folder = get_settings().state_dir
    waiting = [one for one in Spool(folder / "spool").entries() if one.answer.task_id]
    if waiting:
        raise ConfigError(
            f"{len(waiting)} task id(s) in {folder / 'spool'} are not yet in the records of their jobs. What to do: "
            "run `rh-prefect jobs adopt --spool`."
        )
    return f"temporary files are in {folder}; no task id waits there to be recorded"


_NO_RULES = "NoSuchLifecycleConfiguration"

_KEPT = ("works/", "results/", "scopes/", "rounds/", "edits/", "names/", "pipelines/")
"""Folders of records and results."""


@dataclass(frozen=True, slots=True)
class ExpiryRule:
    """A rule that deletes objects with a prefix (empty: all); `when` is like `after 30 days` or `on 2027-01-01`."""

    name: str
    prefix: str
    when: str


def expiry_rules(url: str, options: Mapping[str, object]) -> list[ExpiryRule]:
    """Returns the rules of an S3 bucket that may delete records or results at a location.

    Raises a `StoreError` if the rules cannot be read; the key may lack the right `s3:GetLifecycleConfiguration`.
    """
    if protocol_of(url) != "s3":
        return []
    fs, root = open_filesystem(url, options)
    bucket, _, prefix = root.partition("/")
    with as_store_error("read the expiry rules", shown_url(url), options=options):
        try:
            found = fs.call_s3("get_bucket_lifecycle_configuration", Bucket=bucket)
        except Exception as error:
            if _has_no_rules(error):
                return []
            raise
    kept = [f"{prefix}/{folder}" if prefix else folder for folder in _KEPT]
    rules = (rule for one in found.get("Rules", ()) if one.get("Status") == "Enabled" for rule in _expiry_rules_of(one))
    return [rule for rule in rules if any(rule.prefix.startswith(one) or one.startswith(rule.prefix) for one in kept)]


def _has_no_rules(error: Exception) -> bool:
    """Returns whether the error says that the bucket has no rules."""
    causes = (error, error.__cause__, error.__context__)
    codes = [getattr(one, "response", {}).get("Error", {}).get("Code") for one in causes if one is not None]
    return _NO_RULES in codes or _NO_RULES in str(error)


def _expiry_rules_of(one: Mapping[str, Any]) -> Iterator[ExpiryRule]:
    expiration, chosen = one.get("Expiration") or {}, one.get("Filter") or {}
    both = chosen.get("And") or {}
    if "Tag" in chosen or both.get("Tags"):
        return  # objects of this package have no tags
    prefix = chosen.get("Prefix") or both.get("Prefix") or one.get("Prefix") or ""
    if expiration.get("Days"):
        yield ExpiryRule(one.get("ID", ""), prefix, f"after {expiration['Days']} days")
    elif expiration.get("Date"):
        yield ExpiryRule(one.get("ID", ""), prefix, f"on {expiration['Date']:%Y-%m-%d}")
