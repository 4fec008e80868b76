from __future__ import annotations

from importlib.metadata import entry_points

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite

import rh_prefect.collection
from rh_prefect.blocks import MediaStorage, RunningHubCredentials, RunningHubPool


@pytest.mark.parametrize("block", [MediaStorage, RunningHubCredentials, RunningHubPool])
class TestBlockStandards(BlockStandardTestSuite):
    @pytest.fixture
    def block(self, block: type[Block]) -> type[Block]:
        return block

    @pytest.mark.skip(reason="downloads the logo; the tests need no network")
    def test_has_a_valid_image(self, block: type[Block]) -> None: ...


def test_prefect_finds_the_blocks_by_their_entry_point() -> None:
    (found,) = entry_points(group="prefect.collections", name="rh_prefect")
    assert found.load() is rh_prefect.collection
    assert {"MediaStorage", "RunningHubCredentials", "RunningHubPool"} < set(rh_prefect.collection.__all__)


@pytest.mark.parametrize(
    ("block", "slug"),
    [
        (MediaStorage, "media-storage"),
        (RunningHubCredentials, "runninghub-credentials"),
        (RunningHubPool, "runninghub-account-pool"),
    ],
)
def test_a_slug_never_changes(block: type[Block], slug: str) -> None:
    # Saved blocks are found by it.
    assert block.get_block_type_slug() == slug
