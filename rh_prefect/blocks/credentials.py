"""`RunningHubCredentials`: one RunningHub account; `RunningHubPool`: several accounts that share the jobs of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from prefect.blocks.abstract import CredentialsBlock
from prefect.blocks.core import Block
from pydantic import AfterValidator, ConfigDict, Field, SecretStr, field_validator

from rh_prefect.errors import ConfigError
from rh_prefect.settings import usable_site

if TYPE_CHECKING:
    from rh_prefect.client import Client


class RunningHubCredentials(CredentialsBlock):
    """A RunningHub API key and the site that it belongs to.

    Flows and tasks take the block's *name*: if a block itself is passed as a parameter, its key is masked when
    Prefect retries the run.

    Example:
        Load a saved block and print how many tasks the account is running and may run:
        ```python
        from rh_prefect.blocks import RunningHubCredentials

        credentials = RunningHubCredentials.load("BLOCK_NAME")

        async def show_limit() -> None:
            async with credentials.get_client() as client:
                print(await client.queue_status())
        ```
    """

    # A wrong field's value may be the key: it must not be in the error.
    model_config = ConfigDict(hide_input_in_errors=True)

    _block_type_name = "RunningHub Credentials"
    _block_type_slug = "runninghub-credentials"
    _logo_url = "https://www.runninghub.cn/favicon.png"  # type: ignore[assignment]  # Prefect turns it into a URL
    _documentation_url = "https://www.runninghub.cn/runninghub-api-doc-cn/"  # type: ignore[assignment]  # as above
    _description = "A RunningHub API key and the site (.cn, .ai or an emulator) that it belongs to."

    api_key: SecretStr = Field(
        title="API key", description="The account's API key (32 characters), from the site's API console."
    )
    base_url: str = Field(
        default="https://www.runninghub.cn",
        title="Site",
        description="The site: https://www.runninghub.cn, https://www.runninghub.ai, or an emulator.",
    )
    account: str | None = Field(
        default=None,
        title="Account name",
        description="A name for the account in records and reports; by default a fingerprint of the key.",
    )

    @field_validator("api_key")
    @classmethod
    def _strip_key(cls, value: SecretStr) -> SecretStr:
        """Removes the line break that is often copied together with a key."""
        return SecretStr(value.get_secret_value().strip())

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        return usable_site(value)

    def get_client(self) -> Client:
        """Opens a client for this account.

        Returns:
            A new async client; close it with `aclose()` or use it in `async with`.

        Raises:
            ConfigError: The key is empty or masked.
        """
        from rh_prefect.client import Client

        if set(self.api_key.get_secret_value()) == {"*"}:
            raise ConfigError(
                "The API key of this block is masked, because the block was passed as a flow parameter and Prefect "
                "ran the flow again. What to do: pass the block's name and let the task load it."
            )
        return Client(self.api_key, base_url=self.base_url)


def _distinct(names: list[str]) -> list[str]:
    names = [name.strip() for name in names]
    if not names or not all(names):
        raise ValueError("a pool needs at least one account; give each as the name of its credentials block")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"each account may be listed only once; listed twice: {', '.join(twice)}")
    return names


class RunningHubPool(Block):
    """Several RunningHub accounts; each job goes to the first account with free capacity.

    The block contains the *names* of `RunningHubCredentials` blocks, but no keys. Flows and tasks accept a pool's name
    in place of an account's name: `credentials="night"`.

    Example:
        Load a saved pool and print its accounts; then use all of them by passing the pool's name:
        ```python
        from rh_prefect import flow, generate_many, models
        from rh_prefect.blocks import RunningHubPool

        pool = RunningHubPool.load("BLOCK_NAME")
        print(pool.credentials)

        @flow
        async def night(prompts: list[str]) -> None:
            await generate_many([models.ZImageTurbo(prompt=one) for one in prompts], credentials="BLOCK_NAME")
        ```
    """

    _block_type_name = "RunningHub Account Pool"
    _block_type_slug = "runninghub-account-pool"
    _logo_url = "https://www.runninghub.cn/favicon.png"  # type: ignore[assignment]  # Prefect turns it into a URL
    _documentation_url = "https://www.runninghub.cn/runninghub-api-doc-cn/"  # type: ignore[assignment]  # as above
    _description = "Several RunningHub accounts on one site that share the jobs of a run, and thus their cost."

    credentials: Annotated[list[str], AfterValidator(_distinct)] = Field(
        title="Accounts",
        description="Names of the accounts' RunningHub Credentials blocks, all for one site; each name only once.",
    )
