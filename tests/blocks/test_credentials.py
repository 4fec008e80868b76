from __future__ import annotations

import pytest
from pydantic import ValidationError

from rh_prefect.blocks import RunningHubCredentials
from rh_prefect.errors import ConfigError

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


@pytest.mark.parametrize("url", ["www.runninghub.cn", "ftp://x", ""])
def test_a_site_is_a_url(url: str) -> None:
    with pytest.raises(ValidationError, match="starts with https"):
        RunningHubCredentials(api_key=KEY, base_url=url)


def test_a_masked_key_says_where_it_comes_from() -> None:
    with pytest.raises(ConfigError, match="pass the block's name"):
        RunningHubCredentials(api_key="**********").get_client()


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="RH_API_KEY"):
        RunningHubCredentials(api_key=" ").get_client()
