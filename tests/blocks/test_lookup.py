from __future__ import annotations

import asyncio
import traceback
import uuid
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate
from prefect.settings import PREFECT_API_URL, temporary_settings

from rh_prefect.blocks import MediaStorage, RunningHubCredentials, RunningHubPool
from rh_prefect.blocks.lookup import load_credentials, load_pool_context, load_storage, missing
from rh_prefect.errors import ConfigError, InputError
from rh_prefect.prefect_api import ask
from tests.support.servers.faulty_proxy import FaultyProxy, Kind
from tests.support.servers.prefect_server import PrefectServer

KEY = "canary0123456789abcdef0123456789"


@pytest.fixture
def name() -> str:
    return f"b-{uuid.uuid4().hex[:8]}"


async def test_the_environment_is_used_where_no_block_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RH_API_KEY", KEY)
    monkeypatch.setenv("RH_BASE_URL", "https://www.runninghub.ai")
    monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path))
    block = await load_credentials()
    assert (block.api_key.get_secret_value(), block.base_url) == (KEY, "https://www.runninghub.ai")
    (await load_storage()).write_bytes("x", b"1")
    assert (tmp_path / "x").exists()
    monkeypatch.setenv("RH_STORAGE_URL", "memory://out")
    monkeypatch.setenv("RH_STORAGE_OPTIONS", '{"skip_instance_cache": true}')
    assert (await load_storage()).protocol == "memory"


async def test_no_key_says_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RH_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"RH_API_KEY, in the environment of .*the worker.*RunningHubCredentials"):
        await load_credentials()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("RH_STORAGE_URL", url) for url in (f"sftp://me:{KEY}@host/x", f"abfs://c@a.dfs.x/x?sig={KEY}&sv=1", " ")),
        *(("RH_BASE_URL", site) for site in ("www.runninghub.ai", f"me:{KEY}@x.ai", "ftp://www.runninghub.ai", "")),
    ],
)
async def test_a_setting_that_is_no_url_is_not_shown(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("RH_API_KEY", KEY)
    monkeypatch.setenv(name, value)
    words = {"RH_STORAGE_URL": "What to do", "RH_BASE_URL": r"starts with https.*What to do.*https://www\."}
    with pytest.raises(ConfigError, match=f"{name}.*{words[name]}") as error:
        await (load_storage() if name == "RH_STORAGE_URL" else load_credentials())
    shown = "".join(traceback.format_exception(error.value))
    assert KEY not in shown
    assert "pydantic" not in shown


HEX = "0123456789abcdef"


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (RunningHubCredentials(api_key=KEY), "not a value of type RunningHubCredentials"),
        (MediaStorage(url="s3://bucket", options={"secret": KEY}), "not a value of type MediaStorage"),
        ({"$ref": {"block_document_id": KEY}}, "not a value of type dict"),
        *(
            (text, "looks like a key")
            for text in (
                *(HEX * 2, f" {HEX * 2}", f"{HEX * 2}\n", f'"{HEX * 2}"', f"Bearer {HEX * 2}", f"sk-{HEX * 2}"),
                *(HEX * 4, HEX.upper() * 2, f"Authorization: Bearer {HEX}", f"api_key={HEX}"),
                *("01234567-89ab-cdef-0123-456789abcdef", f"zx{HEX}wy{HEX}"),
            )
        ),
        (f"s3://me:{KEY}@bucket/x", "looks like an address"),
    ],
)
async def test_what_is_no_name_of_a_block_is_refused_and_not_shown(given: Any, what: str) -> None:
    for load in (load_pool_context, load_credentials, load_storage):
        option = "storage" if load is load_storage else "credentials"
        with pytest.raises(InputError, match=rf"^{option} takes the name of a block.*{what}.*What to do") as error:
            await load(given)
        shown = "".join(traceback.format_exception(error.value))
        assert not [secret for secret in (KEY, "01234567-", HEX) if secret in shown.lower()]


@pytest.mark.prefect
class TestSavedBlocks:
    async def test_they_are_found_by_a_name_of_any_length_and_on_any_loop(self, name: str, tmp_path: Path) -> None:
        long = f"production-credentials-for-the-video-team-{name}"
        await RunningHubCredentials(api_key=KEY, account="studio").asave(long)
        await MediaStorage(url=str(tmp_path), options={"auto_mkdir": True}, signed_inputs=True).asave(name)
        elsewhere = await asyncio.to_thread(lambda: asyncio.run(load_credentials(long)))
        for block in (elsewhere, await load_credentials(long)):
            assert (block.api_key.get_secret_value(), block.account) == (KEY, "studio")
        assert (await load_storage(name)).signed_inputs

    async def test_options_come_back_whole_and_are_kept_secret(self, name: str) -> None:
        saved = MediaStorage(url="s3://bucket", options={"secret": KEY, "client_kwargs": {"verify": False}})
        await saved.asave(name)
        loaded: MediaStorage = await MediaStorage.aload(name)
        assert loaded.options.get_secret_value() == saved.options.get_secret_value()
        document = await ask(lambda api: api.read_block_document_by_name(name, "media-storage", include_secrets=False))
        assert KEY not in document.model_dump_json()

    async def test_a_name_that_is_not_there_lists_those_that_are(self, name: str) -> None:
        await MediaStorage(url="s3://bucket").asave(name)
        with pytest.raises(ConfigError, match=f"no block 'nobody' of type MediaStorage.*{name}"):
            await load_storage("nobody")

    async def test_a_type_that_was_never_saved_is_no_other_error(self) -> None:
        with pytest.raises(ConfigError, match="no block 'nobody' of type RunningHubCredentials"):
            await load_credentials("nobody")

    @pytest.mark.parametrize("status", ["500", "503"])
    async def test_a_block_is_read_again_after_a_server_error(
        self, name: str, tmp_path: Path, prefect_server: PrefectServer, status: Kind
    ) -> None:
        """Prefect's client does not repeat a request that was answered with 500: the job failed."""
        await RunningHubCredentials(api_key=KEY).asave(name)
        await MediaStorage(url=str(tmp_path)).asave(name)
        with FaultyProxy(prefect_server.url) as proxy, temporary_settings({PREFECT_API_URL: f"{proxy.url}/api"}):
            faults = [
                proxy.add_fault(f"^GET .*/{kind}/block_documents/name/{name}", status, times=1)
                for kind in ("runninghub-credentials", "media-storage")
            ]

            @flow
            async def load() -> None:
                await load_pool_context(name)
                await load_storage(name)

            await load()
        assert [fault.happened for fault in faults] == [1, 1]

    async def test_a_mistyped_account_lists_accounts_and_pools(self, name: str) -> None:
        await RunningHubCredentials(api_key=KEY).asave(name)
        await RunningHubPool(credentials=[name]).asave(f"{name}-night")
        listed = rf"Existing blocks: accounts: .*{name}.*; pools: .*{name}-night.* use one of these names, or save the"
        with pytest.raises(ConfigError, match=listed):
            await load_credentials("nobody")

    async def test_a_block_that_someone_broke_names_the_field(self, name: str) -> None:
        block = RunningHubCredentials(api_key=KEY)
        document = await block.asave(name)
        async with get_client() as client:
            found = await client.read_block_document(document)
            found.data["base_url"] = KEY
            await client.update_block_document(document, BlockDocumentUpdate(data=found.data))
        with pytest.raises(ConfigError, match="wrong or missing: base_url") as error:
            await load_credentials(name)
        assert KEY not in str(error.value)


@pytest.mark.parametrize("kind", [RunningHubCredentials, MediaStorage])
def test_where_there_is_none_yet_none_is_to_be_named(kind: type[Block]) -> None:
    said = str(missing(kind, "nobody", ""))
    assert "No block of this type exists yet. What to do: save the block: `" in said
    assert "name one" not in said
