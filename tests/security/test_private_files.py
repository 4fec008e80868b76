"""What this package keeps on a machine can be read by nobody else on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rh_prefect.client import Client
from rh_prefect.errors import ResponseLost
from rh_prefect.media.store import MediaStore
from rh_prefect.works.journal.journal import FolderJournal
from rh_prefect.works.journal.spool import Spool, Spooled
from rh_prefect.works.store_checks_and_download_folder import check_folder, part_file
from tests.support.servers.scripted_server import WireServer, reply
from tests.support.world.job_records import KEY, ticket


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct, autouse=True)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    """The mode of all that is below a folder, and of the folder."""
    found = [folder, *folder.rglob("*")]
    return {str(path.relative_to(folder.parent)): oct(path.stat().st_mode & 0o777) for path in found}


def assert_private(folder: Path) -> None:
    for name, mode in modes(folder).items():
        assert mode == ("0o700" if (folder.parent / name).is_dir() else "0o600"), name


async def test_a_spool_is_private(tmp_path: Path) -> None:
    await Spool(tmp_path / "state" / "spool").save(Spooled("run", KEY, 1, "token", ticket()))
    assert_private(tmp_path / "state")


def test_the_scratch_folder_is_private(tmp_path: Path) -> None:
    check_folder(tmp_path / "state" / "parts")
    assert_private(tmp_path / "state")


async def test_an_unfinished_download_is_private_and_a_published_file_is_not(tmp_path: Path, umask: int) -> None:
    body = b"x" * 100
    async with WireServer() as wire, Client("key", base_url=wire.url) as client:
        wire.plays(reply(body[:40], length=100, headers={"ETag": '"1"'}))
        with part_file(tmp_path / "state" / "parts", "5-1") as part:
            with pytest.raises(ResponseLost):
                await client.download(f"{wire.url}/a.bin", part)
            assert part.read_bytes() == body[:40]
            assert_private(tmp_path / "state")
            wire.plays(reply(body, headers={"ETag": '"2"'}))
            await client.download(f"{wire.url}/a.bin", part)
            media = MediaStore(tmp_path / "out").move(part, "a.bin")
    assert oct(Path(media.uri).stat().st_mode & 0o777) == oct(0o666 & ~umask)


async def test_records_can_be_read_like_the_outputs_beside_them(tmp_path: Path, umask: int) -> None:
    journal = FolderJournal(str(tmp_path / "batches"), scope="run")
    assert await journal.create("state-1", {"token": "1"})
    assert set(modes(tmp_path / "batches").values()) == {oct(0o777 & ~umask), oct(0o666 & ~umask)}


def test_a_folder_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    before = folder.stat().st_mode
    check_folder(folder)
    assert folder.stat().st_mode == before
