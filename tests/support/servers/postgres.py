"""A PostgreSQL server for a test, if the machine has its programs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.processes.end_with_parent import end_with_parent
from tests.support.waiting import wait_until


def program(name: str) -> str | None:
    """Finds one of PostgreSQL's programs; Debian's package keeps them out of the PATH, by version."""
    found = [str(path) for path in Path("/usr/lib/postgresql").glob(f"*/bin/{name}")]
    return shutil.which(name) or max(found, default=None, key=_version)


def _version(path: str) -> tuple[int, ...]:
    return tuple(int(part) for part in Path(path).parts[4].split(".") if part.isdecimal())


PROGRAMS = all(program(name) for name in ("initdb", "postgres", "pg_isready", "pg_dump"))
WHY_NOT = "PostgreSQL is not installed; on Debian: apt-get install postgresql"


@contextmanager
def postgres(port: int) -> Iterator[str]:
    # PostgreSQL refuses to run as root; its package brings a user for it.
    user = "postgres" if os.geteuid() == 0 else None
    with TemporaryDirectory(prefix="postgres-") as folder:
        if user:
            shutil.chown(folder, user)
        initdb = _command("initdb", f"--pgdata={folder}", "--username=prefect", "--auth=trust", "--no-sync")
        command = [*initdb, "--encoding=UTF8", "--locale=C"]
        subprocess.run(command, user=user, check=True, stdout=subprocess.DEVNULL, cwd="/")
        # No socket file (its folder may not be writable), and no fsync: the data is thrown away.
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
        command = _command("postgres", "-D", folder, *(f"--{name}={value}" for name, value in settings.items()))
        off = subprocess.DEVNULL
        process = subprocess.Popen(command, user=user, stdout=off, stderr=off, cwd="/", preexec_fn=end_with_parent)
        try:
            ready = _command("pg_isready", "--quiet", "--host=127.0.0.1", f"--port={port}")
            wait_until(lambda: subprocess.run(ready, check=False).returncode == 0)
            yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(timeout=30)


def dump(port: int) -> bytes:
    """Writes out all that such a PostgreSQL holds, as text."""
    command = _command("pg_dump", "--host=127.0.0.1", f"--port={port}", "--username=prefect", "postgres")
    return subprocess.run(command, check=True, capture_output=True).stdout


def _command(name: str, *arguments: str) -> list[str]:
    return [program(name) or name, *arguments]
