"""Finds the account and the place for files that a call names, or those that the environment sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from prefect.blocks.core import Block
from prefect.exceptions import ObjectNotFound
from prefect.types import SecretDict
from pydantic import ValidationError

from rh_prefect.blocks.credentials import RunningHubCredentials
from rh_prefect.blocks.pool import RunningHubPool
from rh_prefect.blocks.storage import MediaStorage
from rh_prefect.connection import connect
from rh_prefect.errors import ConfigError
from rh_prefect.settings import get_settings

if TYPE_CHECKING:
    from rh_prefect.media.store import MediaStore

_B = TypeVar("_B", bound=Block)


async def load_credentials(name: str | None = None) -> RunningHubCredentials:
    """Finds an account; for what may be a pool of them, see `rh_prefect.blocks.paying.load_engine`.

    Args:
        name: Name of a saved `RunningHubCredentials` block; None for `RH_API_KEY` and `RH_BASE_URL`.

    Raises:
        ConfigError: No such block, or no key in the environment.
    """
    if name is not None:
        found = await find_block(RunningHubCredentials, name)
        if found is None:
            raise await _no_account(name)
        return found
    settings = get_settings()
    if settings.api_key is None:
        raise ConfigError(
            "There is no API key of RunningHub. What to do: set RH_API_KEY in the environment of the process that runs "
            "the flow (the worker); or save a block once, "
            '`RunningHubCredentials(api_key="…").save("NAME")`, and pass credentials="NAME".'
        )
    return RunningHubCredentials(api_key=settings.api_key, base_url=settings.base_url)


async def load_storage(name: str | None = None) -> MediaStore:
    """Opens the place for files.

    Args:
        name: Name of a saved `MediaStorage` block; None for `RH_OUT` and `RH_OUT_OPTIONS`.

    Raises:
        ConfigError: No such block, or its URL or template cannot be used.
    """
    from rh_prefect.media.input_access import allow_below

    if name is not None:
        found = await find_block(MediaStorage, name)
        if found is None:
            raise missing(MediaStorage, name, ", ".join(await _names(MediaStorage)))
        store = found.get_store()
        # What earlier jobs have made is an input of later ones, in deployments, too.
        allow_below(store.url)
        return store
    settings = get_settings()
    return MediaStorage(url=settings.out, options=SecretDict(settings.out_options)).get_store()


async def find_block(kind: type[_B], name: str) -> _B | None:
    """Loads a saved block; None where there is none of this name.

    Args:
        kind: The block's class.
        name: Its name.

    Raises:
        ConfigError: It is there and cannot be used, or there is no Prefect API.
    """
    connection = await connect()
    try:
        async with connection.gate:
            return await kind.aload(name, client=connection.client)
    except RuntimeError as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        fields = ", ".join(sorted({".".join(map(str, wrong["loc"])) for wrong in error.__cause__.errors()}))
        raise ConfigError(
            f"The block {name!r} of type {kind.__name__} cannot be used: wrong or missing {fields}. "
            "What to do: open it in Prefect's dashboard, correct it and save it."
        ) from None
    except ValueError:
        return None


async def _no_account(name: str) -> ConfigError:
    pool = await find_block(RunningHubPool, name)
    if pool is not None:
        return ConfigError(
            f"The block {name!r} is a pool of accounts, and here one account is needed. What to do: name one of them: "
            f"{', '.join(pool.credentials)}."
        )
    # Where one account is needed, most often a pool could have been named too.
    named = {"accounts": await _names(RunningHubCredentials), "pools": await _names(RunningHubPool)}
    there = "; ".join(f"{what}: {', '.join(names)}" for what, names in named.items() if names)
    return missing(RunningHubCredentials, name, there)


def missing(kind: type[Block], name: str, there: str) -> ConfigError:
    """Says that there is no block of a name.

    Args:
        kind: Its type.
        name: The name.
        there: The blocks that there are, as they are to be listed; empty where there is none.
    """
    known = f"There are: {there}. What to do: name one of these, or" if there else "There are none yet. What to do:"
    return ConfigError(
        f'There is no block {name!r} of type {kind.__name__}. {known} save it: `{kind.__name__}(…).save("{name}")`.'
    )


async def _names(kind: type[Block]) -> list[str]:
    connection = await connect()
    try:
        async with connection.gate:
            found = await connection.client.read_block_documents_by_type(
                kind.get_block_type_slug(), include_secrets=False
            )
    except ObjectNotFound:
        return []
    return sorted(block.name for block in found if block.name)
