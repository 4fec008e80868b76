"""What the contract suite of the stores does not reach: places of other kinds, and connections that break."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from rh_prefect.media.store import MediaStore
from rh_prefect.media.writers import PART_SIZE, to_other, writer_for
from tests.support.servers.s3 import S3Server


class Breaks(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        raise OSError("broken")


def test_an_unknown_kind_of_place_is_written_beside_and_moved(tmp_path: Path) -> None:
    assert writer_for("sftp") is to_other
    path = f"{tmp_path}/a/b.txt"
    tally = to_other(LocalFileSystem(), path, io.BytesIO(b"new"), "text/plain")
    assert tally.size == 3
    to_other(LocalFileSystem(), path, io.BytesIO(b"newer"), "text/plain")
    assert Path(path).read_bytes() == b"newer"
    with pytest.raises(OSError, match="broken"):
        to_other(LocalFileSystem(), path, Breaks(), "text/plain")
    assert Path(path).read_bytes() == b"newer"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


class BreakingWay:
    """A way to the S3 server that breaks in the middle of the first large requests, and is fine from then on."""

    def __init__(self, target: tuple[str, int], *, after: int, times: int) -> None:
        self.target = target
        self.after = after
        self.left = times
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self.listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(self.target)
                threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, to: socket.socket, asking: bool) -> None:
        passed = 0
        with suppress(OSError), source, to:
            while data := source.recv(65536):
                passed += len(data)
                if asking and passed > self.after and self.left > 0:
                    self.left -= 1
                    # The rest is taken and lost: to close at once would look like a server that is not there.
                    source.settimeout(0.1)
                    while source.recv(65536):
                        pass
                to.sendall(data)


@pytest.fixture
def way(s3: S3Server) -> Iterator[BreakingWay]:
    host, port = s3.endpoint.removeprefix("http://").split(":")
    with closing(BreakingWay((host, int(port)), after=PART_SIZE // 2, times=4)) as way:
        yield way


@pytest.mark.s3
def test_a_part_that_is_sent_again_is_sent_whole(s3: S3Server, way: BreakingWay) -> None:
    # aiohttp repeats a request once, and without botocore's own retries it is s3fs that repeats the call.
    options = {**s3.options, "endpoint_url": way.url, "config_kwargs": {"retries": {"max_attempts": 0}}}
    url, data = s3.url(), os.urandom(2 * PART_SIZE + 1000)
    MediaStore(url, options=options).write_stream("a.bin", io.BytesIO(data))
    assert not way.left
    assert MediaStore(url, options=s3.options).read_bytes("a.bin") == data
