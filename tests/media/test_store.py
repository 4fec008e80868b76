"""The contract of a store, over a local folder, memory and a real S3 server."""

from __future__ import annotations

import asyncio
import errno
import gc
import hashlib
import io
import os
import threading
import tracemalloc
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fsspec
import pytest
from botocore.exceptions import ClientError
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from s3fs.errors import translate_boto_error

from rh_prefect.errors import MediaError, StoreError
from rh_prefect.media.storage_errors import as_store_error
from rh_prefect.media.store import MediaStore
from rh_prefect.media.writers import PART_SIZE, Tally, to_other, writer_for
from tests.support.samples import media as samples
from tests.support.servers.faulty_proxy import FaultyProxy
from tests.support.servers.s3 import S3Server
from tests.support.servers.unreadable_folders import unreadable


class BreaksAfter(io.BytesIO):
    """A source whose disk fails in the middle."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.left = size

    def read(self, size: int | None = -1) -> bytes:
        if not self.left:
            raise OSError(5, "the source broke")
        size = min(self.left, self.left if size is None else size)
        self.left -= size
        return b"x" * size


class Drips(io.BytesIO):
    """A source that gives less than it is asked for, as sockets do."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 1, 300_001))


def test_publish_and_move_tell_what_a_file_is(store: MediaStore, tmp_path: Path) -> None:
    local = samples.mp4(tmp_path / "clip.mp4")
    content, media = local.read_bytes(), store.publish(local, "shots/1.mp4")
    assert media.uri == store.uri("shots/1.mp4")
    assert (media.kind, media.mime, media.width, media.height) == ("video", "video/mp4", 64, 48)
    assert (media.seconds, media.fps, media.has_audio) == (1.0, 12.0, True)
    assert media.sha256 == hashlib.sha256(content).hexdigest()
    assert media.size == len(content) == store.size("shots/1.mp4")
    assert store.describe(local, "shots/1.mp4") == media
    store.write_bytes("shots/2.mp4", b"what was there before")
    assert store.move(local, "shots/2.mp4") == media.at(store.uri("shots/2.mp4"))
    assert store.read_bytes("shots/1.mp4") == store.read_bytes("shots/2.mp4") == content


def test_take_moves_a_file_within_one_disk_and_copies_what_a_link_leads_to(tmp_path: Path) -> None:
    store, local = MediaStore(tmp_path / "out"), samples.png(tmp_path / "1.png")
    link = tmp_path / "link.png"
    link.symlink_to(local)
    store.move(link, "linked.png")
    assert not (tmp_path / "out" / "linked.png").is_symlink()
    file = local.stat().st_ino
    assert store.move(local, "new/1.png").kind == "image"
    assert not local.exists()
    assert (tmp_path / "out" / "new" / "1.png").stat().st_ino == file


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second disk")
def test_take_copies_from_another_disk(tmp_path: Path) -> None:
    with TemporaryDirectory(dir="/dev/shm") as other:
        local = samples.png(Path(other) / "1.png")
        content = local.read_bytes()
        store = MediaStore(tmp_path / "out")
        assert store.move(local, "1.png").sha256 == hashlib.sha256(content).hexdigest()
        assert store.read_bytes("1.png") == content


def test_take_into_a_place_that_refuses_keeps_the_file(tmp_path: Path) -> None:
    local = samples.png(tmp_path / "1.png")
    (tmp_path / "out").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match="is a file, not a folder"):
        MediaStore(tmp_path / "out").move(local, "1.png")
    assert local.exists()


def test_publish_keeps_a_broken_file_without_facts(store: MediaStore, tmp_path: Path) -> None:
    local = tmp_path / "cut.mp4"
    local.write_bytes(samples.film("mp4")[:5000])
    media = store.publish(local, "cut.mp4")
    assert (media.kind, media.mime, media.width, media.size) == ("video", "video/mp4", None, 5000)
    assert store.read_bytes("cut.mp4") == local.read_bytes()
    local.write_bytes(b"")
    assert store.publish(local, "empty.bin").size == store.size("empty.bin") == 0
    with pytest.raises(MediaError, match=r"nothing\.mp4 cannot be read: the file does not exist"):
        store.publish(tmp_path / "nothing.mp4", "a.mp4")
    store.check()
    assert store.list() == ["cut.mp4", "empty.bin"]


@pytest.mark.parametrize("size", [0, 1000, 1_100_000, 20_000_000])
def test_a_source_that_breaks_leaves_what_was_there_and_nothing_else(
    store: MediaStore, size: int, request: pytest.FixtureRequest
) -> None:
    store.write_bytes("old.mp4", b"first")
    for name in ("new.mp4", "old.mp4"):
        with pytest.raises(StoreError):
            store.write_stream(name, BreaksAfter(size))
    gc.collect()  # which closes files that are still open: fsspec would store what was written
    assert not store.exists("new.mp4")
    assert store.read_bytes("old.mp4") == b"first"
    assert store.list() == ["old.mp4"]
    if store.protocol == "file":
        assert [path.name for path in Path(store.url).rglob("*") if path.is_file()] == ["old.mp4"]
    if store.protocol == "s3":
        place = {"Bucket": "media", "Prefix": store.url.removeprefix("s3://media/")}
        s3 = request.getfixturevalue("s3").filesystem()
        assert not s3.call_s3("list_multipart_uploads", **place).get("Uploads"), "half an upload"


def test_nobody_sees_a_file_being_written(store: MediaStore) -> None:
    store.write_bytes("a.bin", b"old")
    middle, go_on = threading.Event(), threading.Event()

    class Waits(BreaksAfter):
        def read(self, size: int | None = -1) -> bytes:
            if self.left <= 2 * PART_SIZE:
                middle.set()
                assert go_on.wait(300)
            return super().read(size) if self.left else b""

    writer = threading.Thread(target=store.write_stream, args=("a.bin", Waits(5 * PART_SIZE)))
    writer.start()
    try:
        assert middle.wait(300)
        assert store.read_bytes("a.bin") == b"old"
        assert store.list() == ["a.bin"]
    finally:
        go_on.set()
        writer.join()
    assert store.size("a.bin") == 5 * PART_SIZE


@pytest.mark.parametrize("size", [PART_SIZE - 1, PART_SIZE, PART_SIZE + 1, 2 * PART_SIZE, 3 * PART_SIZE + 7])
def test_every_byte_arrives(store: MediaStore, size: int) -> None:
    data = os.urandom(1009) * (size // 1009 + 1)
    assert store.write_stream("a.bin", Drips(data[:size])) == size
    assert store.read_bytes("a.bin") == data[:size]


def test_lists_what_is_in_a_folder(store: MediaStore) -> None:
    for name in ("b.txt", "shots/1.txt", "shots/2/x.txt", "shotsother.txt"):
        store.write_bytes(name, b"x")
    assert store.list() == ["b.txt", "shots/1.txt", "shots/2/x.txt", "shotsother.txt"]
    assert store.list("shots") == store.list("shots/") == ["shots/1.txt", "shots/2/x.txt"]
    assert not store.exists("shots")
    assert store.list("nothing") == []


@pytest.mark.parametrize("folder", ["", "a/unreadable", "a"])
def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(tmp_path: Path, folder: str) -> None:
    """A stored result that is not found is paid for again."""
    store = MediaStore(unreadable(tmp_path))
    store.write_bytes("a/unreadable/1.json", b"x")
    with pytest.raises(StoreError, match=r"Could not list .*: the disk or the service reported an error"):
        store.list(folder)
    assert store.list("missing") == []


def test_sees_at_once_what_another_wrote_and_deleted(store: MediaStore) -> None:
    def seen() -> tuple[bool, list[str]]:
        return store.exists("a.txt"), store.list()

    other = MediaStore(store.url, options=store.options_for(store.url))
    assert seen() == (False, [])
    other.write_bytes("a.txt", b"1")
    assert seen() == (True, ["a.txt"])
    other.delete("a.txt")
    assert seen() == (False, [])


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("SlowDown", "the service is overloaded.*wait some minutes"),
        ("ServiceUnavailable", "the service is overloaded.*wait some minutes"),
        ("InternalError", "the service is overloaded.*wait some minutes"),
        ("ExpiredToken", "the credentials have expired.*renew"),
        ("RequestTimeTooSkewed", "this machine's clock is wrong"),
    ],
)
def test_what_s3_answers_for_a_time_asks_for_no_other_address_or_rights(code: str, said: str) -> None:
    answer: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": 503}}
    with pytest.raises(StoreError, match=said), as_store_error("write a", "s3://media"):
        raise translate_boto_error(ClientError(answer, "PutObject"))


def test_what_is_missing_is_said(store: MediaStore) -> None:
    with pytest.raises(StoreError, match=r"Could not read no\.txt in .*: the file does not exist"):
        store.read_bytes("no.txt")
    with pytest.raises(StoreError, match="the file does not exist"), store.open("no.txt"):
        pass


@pytest.mark.parametrize("name", ["镜头 1/été.txt", "a b/c%20d.txt", "a#b.txt", "a+b&c=d.txt", "a?b.txt", "[x]*.txt"])
def test_any_name_comes_back(store: MediaStore, name: str) -> None:
    uri = store.write_bytes(name, name.encode())
    assert store.exists(name)
    assert store.read_bytes(name) == name.encode()
    assert store.list() == [name]
    assert store.name_of(uri) == name
    for _ in range(2):  # a missing file is not an error
        store.delete(name)
        assert store.list() == []


def test_reads_in_pieces_and_lets_an_error_of_the_reading_code_through(store: MediaStore) -> None:
    data = os.urandom(5_000_000)
    store.write_bytes("a.bin", data)
    with store.open("a.bin") as reader:
        assert reader.read(10) == data[:10]
        assert reader.read() == data[10:]
    with pytest.raises(ZeroDivisionError), store.open("a.bin"):
        1 / 0  # noqa: B018


@pytest.mark.long
def test_a_large_file_takes_little_memory(store: MediaStore, tmp_path: Path) -> None:
    if store.protocol == "memory":
        pytest.skip("it is kept in memory")
    local = tmp_path / "big.bin"
    local.write_bytes(os.urandom(64 * 2**20))
    store.check()
    tracemalloc.start()
    try:
        media = store.publish(local, "big.bin")
        with store.open("big.bin") as reader:
            digest = hashlib.sha256()
            while block := reader.read(2**20):
                digest.update(block)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert digest.hexdigest() == media.sha256 == hashlib.sha256(local.read_bytes()).hexdigest()
    assert peak < 24 * 2**20


async def test_many_threads_share_a_store(store: MediaStore, tmp_path: Path) -> None:
    local = samples.png(tmp_path / "photo.png")

    async def one(number: int) -> None:
        name = f"{number}.png"
        await asyncio.to_thread(store.publish, local, name)
        assert await asyncio.to_thread(store.read_bytes, name) == local.read_bytes()
        await asyncio.to_thread(store.delete, name)

    await asyncio.gather(*(one(number) for number in range(24)))
    assert store.list() == []


def test_name_of_knows_its_own(store: MediaStore) -> None:
    for other in (store.url, store.url + "x/b.png", "https://example.com/a/b.png"):
        assert store.name_of(other) is None


def test_signs_nothing_unless_public(store: MediaStore, tmp_path: Path) -> None:
    store.write_bytes("a.txt", b"1")
    assert store.signed_url("a.txt") is None
    assert MediaStore(tmp_path, signed_inputs=True).signed_url("a.txt") is None


class CountedFiles(MemoryFileSystem):
    """Files in memory, and how often their file system was opened."""

    protocol = "counted"
    opened = 0

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        type(self).opened += 1


def test_stores_of_one_place_share_its_file_system() -> None:
    """A store that is made for each flow run does not open a file system, which on S3 takes 1.5 MB."""
    fsspec.register_implementation("counted", CountedFiles, clobber=True)
    place = f"counted://{uuid.uuid4().hex}"
    for number in range(20):
        MediaStore(place).write_bytes(f"{number}.txt", b"x")
    assert CountedFiles.opened == 1
    MediaStore(place, options={"key": "another"}).write_bytes("other.txt", b"x")
    assert CountedFiles.opened == 2
    assert len(MediaStore(place).list()) == 21


def test_a_store_opens_its_file_system_once_however_many_stores_there_are() -> None:
    fsspec.register_implementation("counted", CountedFiles, clobber=True)
    before = CountedFiles.opened
    stores = [MediaStore(f"counted://{uuid.uuid4().hex}") for _ in range(17)]
    for number in range(3):
        for store in stores:
            store.write_bytes(f"{number}.txt", b"x")
    assert CountedFiles.opened == before + 17


def test_stores_share_no_file_system_of_another_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library reads the environment when it opens a file system, which may be long after the store was made."""
    fsspec.register_implementation("counted", CountedFiles, clobber=True)
    place, before = f"counted://{uuid.uuid4().hex}", CountedFiles.opened
    store = MediaStore(place)
    with monkeypatch.context() as other_account:
        other_account.setenv("AWS_PROFILE", "another")
        store.write_bytes("1.txt", b"x")
    MediaStore(place).write_bytes("2.txt", b"x")
    assert CountedFiles.opened == before + 2


def test_an_unknown_kind_of_place_is_written_beside_and_moved(tmp_path: Path) -> None:
    assert writer_for("sftp") is to_other
    path = f"{tmp_path}/a/b.txt"
    to_other(LocalFileSystem(), path, [b"new"], "text/plain")
    to_other(LocalFileSystem(), path, [b"new", b"er"], "text/plain")
    assert Path(path).read_bytes() == b"newer"
    with pytest.raises(OSError, match="the source broke"):
        to_other(LocalFileSystem(), path, Tally().chunks(BreaksAfter(2)), "text/plain")
    assert Path(path).read_bytes() == b"newer"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


class Interrupted(io.BytesIO):
    """A file whose first write is interrupted after it took the piece."""

    closed = False  # writable, as in fsspec's files

    def write(self, data: Any) -> int:
        size = super().write(data)
        if len(self.getvalue()) == size:
            raise InterruptedError(errno.EINTR, "interrupted")
        return size

    def discard(self) -> None:
        pass


class InterruptedFiles(MemoryFileSystem):
    file: Interrupted

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        self.file = Interrupted()
        return self.file


def test_an_interrupted_write_is_an_error_and_not_repeated() -> None:
    """`writelines` writes the same piece again after EINTR, so that S3 would have it twice."""
    fs = InterruptedFiles(skip_instance_cache=True)
    with pytest.raises(InterruptedError):
        writer_for("s3")(fs, "a.bin", [b"one", b"two"], "text/plain")
    assert fs.file.getvalue() == b"one"


@pytest.mark.s3
def test_a_part_that_is_sent_again_is_sent_whole(s3: S3Server) -> None:
    url, data = s3.url(), os.urandom(2 * PART_SIZE + 1000)
    with FaultyProxy(s3.endpoint) as way:
        fault = way.add_fault("^PUT .*partNumber", "cut", times=4)
        # aiohttp repeats a request once, and without botocore's own retries it is s3fs that repeats the call.
        options = {**s3.options, "endpoint_url": way.url, "config_kwargs": {"retries": {"max_attempts": 0}}}
        MediaStore(url, options=options).write_stream("a.bin", io.BytesIO(data))
    assert fault.happened == 4
    assert MediaStore(url, options=s3.options).read_bytes("a.bin") == data
