"""The block of several accounts: what it takes, and who pays where one is named."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import pytest
from pydantic import SecretStr, ValidationError

from rh_prefect.blocks import RunningHubCredentials, RunningHubPool
from rh_prefect.blocks.lookup import load_credentials, load_pool_context
from rh_prefect.client import Client
from rh_prefect.errors import ConfigError
from rh_prefect.prefect_api import ask
from rh_prefect.works.pool_services import PoolServices

SITE = "https://www.runninghub.ai"


def key(mark: str) -> str:
    return f"canary{mark}".ljust(32, "0")


async def _credentials(pool: str) -> list[str]:
    saved: RunningHubPool = await RunningHubPool.aload(pool)
    return saved.credentials


def accounts(payer: PoolServices) -> list[tuple[str, str | None]]:
    """Names of its accounts and of their blocks."""
    return [(one.name, one.block) for one in payer.pool.accounts]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "at least one"),
        (["studio", " "], "at least one"),
        (["studio", "spare", " studio"], "listed twice: studio"),
    ],
)
def test_a_pool_names_accounts_each_once(names: list[str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RunningHubPool(credentials=names)


def test_names_are_taken_without_what_is_around_them() -> None:
    assert RunningHubPool(credentials=[" studio\n", "spare"]).credentials == ["studio", "spare"]


Save = Callable[..., Awaitable[str]]


@pytest.mark.prefect
class TestSaved:
    @pytest.fixture
    def save(self) -> Save:
        """Saves accounts by name and key, and a pool of all of them; gives the pool's name."""
        mark = uuid.uuid4().hex[:8]

        async def saved(*accounts: tuple[str, str], site: str | dict[str, str] = SITE) -> str:
            for name, api_key in accounts:
                base_url = site if isinstance(site, str) else site[name]
                block = RunningHubCredentials(api_key=api_key, base_url=base_url, account=f"the {name}")
                await block.asave(f"{name}-{mark}")
            await RunningHubPool(credentials=[f"{name}-{mark}" for name, _ in accounts]).asave(f"night-{mark}")
            return f"night-{mark}"

        return saved

    async def test_it_holds_no_key_and_its_name_stands_for_its_accounts_in_order(self, save: Save) -> None:
        name = await save(("studio", key("a")), ("spare", key("b")))
        document = await ask(lambda api: api.read_block_document_by_name(name, "runninghub-account-pool"))
        assert "canary" not in document.model_dump_json()
        payer = await load_pool_context(name)
        assert (payer.pool.name, payer.pool.site) == (name, "www.runninghub.ai")
        blocks = await _credentials(name)
        assert accounts(payer) == [("the studio", blocks[0]), ("the spare", blocks[1])]
        expected = [Client(SecretStr(key(mark)), base_url=SITE).account_id for mark in "ab"]
        assert [one.provider.account_id for one in payer.pool.accounts] == expected
        alone = await load_pool_context(blocks[1])
        assert (alone.pool.name, accounts(alone)) == (None, [("the spare", blocks[1])])
        assert alone.pool.accounts[0].limiter is payer.pool.accounts[1].limiter, "one account has one set of slots"

    async def test_without_a_name_the_environment_pays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RH_API_KEY", key("e"))
        payer = await load_pool_context()
        expected = Client(SecretStr(key("e")), base_url=SITE).account_id
        assert accounts(payer) == [(expected, None)]

    async def test_one_name_for_a_pool_and_an_account_is_refused(self, save: Save) -> None:
        name = await save(("studio", key("a")), ("spare", key("b")))
        await RunningHubCredentials(api_key=key("c")).asave(name)
        with pytest.raises(ConfigError, match=r"name of two blocks: one pool of accounts.*another name"):
            await load_pool_context(name)

    async def test_a_pool_that_is_saved_after_an_error_is_found_at_once(self, save: Save) -> None:
        """For a minute, the error named the pool and said that one account is needed."""
        name = f"late-{uuid.uuid4().hex[:8]}"
        with pytest.raises(ConfigError, match=f"no block '{name}'"):
            await load_pool_context(name)
        blocks = await _credentials(await save(("studio", key("a"))))
        await RunningHubPool(credentials=blocks).asave(name)
        assert (await load_pool_context(name)).pool.name == name

    async def test_accounts_of_two_sites_are_refused(self, save: Save) -> None:
        site = {"studio": SITE, "spare": "https://www.runninghub.cn"}
        name = await save(("studio", key("a")), ("spare", key("b")), site=site)
        with pytest.raises(ConfigError, match=r"several sites .*runninghub\.ai.*runninghub\.cn.*pool for each site"):
            await load_pool_context(name)

    async def test_two_accounts_with_one_key_are_refused(self, save: Save) -> None:
        name = await save(("studio", key("a")), ("spare", key("b")), ("copy", key("a")))
        with pytest.raises(ConfigError, match=r"'studio-\w+' and 'copy-\w+' of the pool .* the same key") as error:
            await load_pool_context(name)
        assert "canary" not in str(error.value)

    async def test_an_account_that_is_gone_is_named_and_once_it_is_back_it_pays(self, save: Save) -> None:
        name = await save(("studio", key("a")), ("spare", key("b")))
        spare = (await _credentials(name))[1]
        await RunningHubCredentials.adelete(spare)
        with pytest.raises(ConfigError, match=rf"pool '{name}' contains the account '{spare}'.*no block '{spare}'"):
            await load_pool_context(name)
        await RunningHubCredentials(api_key=key("c"), base_url=SITE).asave(spare)
        assert len(accounts(await load_pool_context(name))) == 2, "what went wrong is not remembered"

    async def test_a_pool_of_pools_is_refused(self, save: Save) -> None:
        name = await save(("studio", key("a")), ("spare", key("b")))
        await RunningHubPool(credentials=[name]).asave(f"{name}-all")
        with pytest.raises(ConfigError, match=rf"contains the account '{name}'.*is a pool of accounts"):
            await load_pool_context(f"{name}-all")

    async def test_where_one_account_is_needed_a_pool_says_which_there_are(self, save: Save) -> None:
        name = await save(("studio", key("a")), ("spare", key("b")))
        with pytest.raises(
            ConfigError, match=r"is a pool of accounts.*use the name of one of its accounts: studio-\w+, spare-\w+"
        ):
            await load_credentials(name)

    async def test_many_jobs_ask_prefect_once_who_the_accounts_are(self, save: Save) -> None:
        name = await save(("studio", key("a")), ("spare", key("b")))
        first = await load_pool_context(name)
        for _, block in accounts(first):
            await RunningHubCredentials.adelete(block or "")
        await RunningHubPool.adelete(name)
        again = await asyncio.gather(*(load_pool_context(name) for _ in range(20)))
        assert all(payer is first for payer in again), "for a while it is remembered, whatever becomes of the blocks"


KEY = "canary0123456789abcdef0123456789"


async def test_the_client_is_of_this_key_and_site() -> None:
    block = RunningHubCredentials(api_key=f" {KEY}\n", base_url="https://www.runninghub.ai/")
    async with block.get_client() as client:
        assert client.site == "www.runninghub.ai"
        same = RunningHubCredentials(api_key=KEY).get_client()
        assert client.account_id == same.account_id, "the same key, the same account"
        await same.aclose()


def test_the_key_is_never_shown() -> None:
    block = RunningHubCredentials(api_key=KEY)
    assert KEY not in f"{block!r} {block} {block.model_dump()} {block.model_dump_json()}"
    with pytest.raises(ValidationError) as error:
        RunningHubCredentials(api_key={"key": KEY}, base_url=KEY)
    assert KEY not in str(error.value)


@pytest.mark.parametrize(("key", "said"), [("**********", "pass the block's name"), (" ", "RH_API_KEY")])
def test_a_key_that_is_masked_or_empty_is_refused(key: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RunningHubCredentials(api_key=key).get_client()
