from __future__ import annotations

import resource
import signal
from contextlib import ExitStack
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest

from rh_prefect.errors import ConfigError, StoreError
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.works.journal.record_types import ResultRecord
from rh_prefect.works.store_checks_and_download_folder import StoreChecks, check_folder, part_file, remove
from tests.support.processes.forkserver import FORKS
from tests.support.world.filesystems import TwinFiles

NAME = "2031112223334445057-1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "parts"


def test_an_unfinished_download_is_resumed_by_the_next_run(folder: Path) -> None:
    with part_file(folder, NAME) as part:
        part.write_bytes(b"half")
    with part_file(folder, NAME) as again:
        assert again == part
        assert again.read_bytes() == b"half"


def test_a_second_holder_gets_a_private_file_that_is_removed(folder: Path) -> None:
    with part_file(folder, NAME) as part:
        part.write_bytes(b"mine")
        with part_file(folder, NAME) as private:
            assert private != part
            private.write_bytes(b"another")
            private.with_name(f"{private.name}.resume").write_text("{}")
        assert part.read_bytes() == b"mine"
        assert [path.name for path in folder.glob("*.part*")] == [part.name]
    with part_file(folder, NAME) as again:
        assert again == part


def test_removing_a_download_leaves_no_file(folder: Path) -> None:
    with part_file(folder, NAME) as part:
        part.write_bytes(b"whole")
        part.with_name(f"{part.name}.resume").write_text("{}")
        remove(part)
    assert list(folder.iterdir()) == []
    with part_file(folder, NAME) as fresh:
        assert fresh == part
        assert not fresh.exists()


def test_each_output_has_its_own_file_which_the_removal_of_another_one_keeps(folder: Path) -> None:
    names = ("1-1", "1-2", "11-1", "1-11")
    with part_file(folder, names[0]) as one, ExitStack() as stack:
        others = [stack.enter_context(part_file(folder, name)) for name in names[1:]]
        assert len({one, *others}) == 4
        others[-1].write_bytes(b"half")
        remove(one)
        assert others[-1].read_bytes() == b"half"


def _hold(folder: Path, held: SimpleQueue[str]) -> None:
    with part_file(folder, NAME) as part:
        part.write_bytes(b"half")
        held.put(str(part))
        signal.pause()


def test_the_download_of_a_killed_process_is_resumed(folder: Path) -> None:
    held = FORKS.SimpleQueue()
    holder = FORKS.Process(target=_hold, args=(folder, held))
    holder.start()
    path = Path(held.get())
    with part_file(folder, NAME) as private:
        assert private != path
    holder.kill()
    holder.join()
    with part_file(folder, NAME) as part:
        assert part == path
        assert part.read_bytes() == b"half"


def _take_turns(folder: Path, clashes: SimpleQueue[str]) -> None:
    shared = folder / f"{NAME}.part"
    for _ in range(400):
        with part_file(folder, NAME) as part:
            if part != shared:
                continue
            try:
                (folder / "taken").open("x").close()
            except FileExistsError:
                clashes.put("two at once")
            part.write_bytes(b"whole")
            (folder / "taken").unlink(missing_ok=True)
            remove(part)


def test_two_processes_never_write_into_one_file(folder: Path) -> None:
    clashes = FORKS.SimpleQueue()
    processes = [FORKS.Process(target=_take_turns, args=(folder, clashes)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert clashes.empty()
    assert [process.exitcode for process in processes] == [0] * 4


async def test_after_the_outputs_of_three_jobs_were_refused_a_run_pays_for_no_other_until_one_is_taken(
    tmp_path: Path,
) -> None:
    now = [1e6]
    checks, store, run = StoreChecks(tmp_path, clock=lambda: now[0]), MediaStore(tmp_path / "out"), ("night", 1)
    picture = Media(uri="a.png", kind="image", mime="image/png", size=1, sha256="a" * 64)

    async def refuse() -> ResultRecord:
        raise StoreError("the disk is full", is_permanent=True)

    async def take(*outputs: Media) -> ResultRecord:
        return ResultRecord(task_id="1", outputs=outputs)

    for job in ("a", "b", "b", "c"):
        checks.refuse_payment(run, store, "d")
        with pytest.raises(StoreError):
            await checks.storing(run, store, job, refuse())
    await checks.storing(run, store, "of text", take())
    now[0] += 59
    with pytest.raises(StoreError, match=r"not submitted, and nothing was paid\. .*the disk is full") as caught:
        checks.refuse_payment(run, store, "d")
    assert caught.value.is_permanent
    checks.refuse_payment(("another", 1), store, "d")
    now[0] += 2
    for _ in range(2):
        checks.refuse_payment(run, store, "d")  # one job tries the storage again, once a minute
    now[0] += 59
    with pytest.raises(StoreError):
        checks.refuse_payment(run, store, "e")
    with pytest.raises(StoreError):
        await checks.storing(run, store, "d", refuse())
    checks.refuse_payment(run, store, "d")
    with pytest.raises(StoreError):
        checks.refuse_payment(run, store, "e")
    await checks.storing(run, store, "a", take(picture))
    checks.refuse_payment(run, store, "d")


async def test_a_folder_or_a_storage_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder, store = tmp_path / "file" / "parts", MediaStore(tmp_path / "file" / "out")
    with pytest.raises(ConfigError, match=r"file/parts .* cannot be written to: .*Nothing was paid.*RH_STATE_DIR"):
        await StoreChecks(folder).check(store)
    with pytest.raises(StoreError, match="file/out"):
        await StoreChecks(tmp_path).check(store)
    writable, read_only = (
        MediaStore(f"{TwinFiles.protocol}://checked", options={"where": where}) for where in ("first", "read-only")
    )
    checks = StoreChecks(tmp_path)
    await checks.check(writable)
    with pytest.raises(StoreError):
        await checks.check(read_only)
    with pytest.raises(StoreError, match=r"file/parts .* cannot be written to: .*Records of paid jobs are kept"):
        part_file(folder, NAME).__enter__()


def _has_room(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    check_folder(folder)


def test_a_folder_on_a_full_disk_is_an_error(tmp_path: Path) -> None:
    check_folder(tmp_path)
    without_room = FORKS.Process(target=_has_room, args=(tmp_path,))
    without_room.start()
    without_room.join()
    assert without_room.exitcode == 1
