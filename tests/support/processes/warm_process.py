"""Python programs in processes of their own, forked from one that has imported Prefect and the package.

A new interpreter needs 1.4 s of CPU for these imports, more than most commands do. A forked process has its own pid,
environment, working folder, streams, signals and exit code, and ends as an interpreter does. What depends on the
start of an interpreter needs `subprocess`: its options, what is imported, closed streams, and `PYTHON…` variables other
than `PYTHONPATH`.
"""

from __future__ import annotations

import atexit
import io
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any, NoReturn, Self

from rh_prefect.cli import quiet_prefect
from tests.support.processes.end_with_parent import end_with_parent
from tests.support.processes.forkserver import FORKS

RH = ("-m", "rh_prefect.cli")
"""The command `rh-prefect`."""

_PATIENCE = 600.0


class WarmProcess:
    """A running program; used like `subprocess.Popen`, with text in all streams."""

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stderr: IO[Any] | None = None,
    ) -> None:
        to_child, from_child, errors = os.pipe(), os.pipe(), os.pipe()
        theirs = [to_child[0], from_child[1], errors[1]]
        if stderr is not None:
            theirs[2] = stderr.fileno()
        self._process = FORKS.Process(
            target=_be,
            args=(list(map(str, arguments)), dict(os.environ if env is None else env), str(cwd or Path.cwd())),
            kwargs={"streams": [DupFd(one) for one in theirs]},
        )
        self._process.start()
        for end in (to_child[0], from_child[1], errors[1]):
            os.close(end)
        self.stdin = open(to_child[1], "w", encoding="utf-8")  # noqa: PTH123, SIM115
        self.stdout = open(from_child[0], encoding="utf-8", errors="replace")  # noqa: PTH123, SIM115
        self.stderr = open(errors[0], encoding="utf-8", errors="replace")  # noqa: PTH123, SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.join()
        for stream in (self.stdin, self.stdout, self.stderr):
            with suppress(OSError):
                stream.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, or the negative number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float = _PATIENCE) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("a forked program", timeout)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, text: str = "", *, timeout: float = _PATIENCE) -> tuple[str, str]:
        """Sends a text as the rest of its input, waits until it has ended, and returns what it wrote."""
        with suppress(OSError):
            self.stdin.write(text)
            self.stdin.close()
        out, errors = _Reader(self.stdout), _Reader(self.stderr)
        self.wait(timeout)
        return out.text(), errors.text()


def run(
    arguments: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end; see `WarmProcess`."""
    with WarmProcess(arguments, env=env, cwd=cwd) as process:
        out, errors = process.communicate(text)
        return subprocess.CompletedProcess(list(map(str, arguments)), process.wait(), out, errors)


class _Reader(threading.Thread):
    def __init__(self, stream: IO[str]) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._text = ""
        self.start()

    def run(self) -> None:
        if not self._stream.closed:
            with suppress(OSError, ValueError):
                self._text = self._stream.read()

    def text(self) -> str:
        self.join(60)
        assert not self.is_alive(), "a process that the program has left behind holds its output open"
        return self._text


def _be(arguments: list[str], env: dict[str, str], cwd: str, *, streams: Sequence[Any]) -> NoReturn:
    """Becomes the program, in the forked process."""
    end_with_parent()  # the fork server, which ends with the tests
    for target, stream in enumerate(streams):
        source = stream.detach()
        os.dup2(source, target)
        os.close(source)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = _writer(1, errors="strict")
    sys.stderr = _writer(2, errors="backslashreplace")
    os.environ.clear()
    # Cyclopts warns of an application that a test calls without arguments.
    os.environ.update({name: value for name, value in env.items() if not name.startswith("PYTEST_")})
    os.chdir(cwd)
    _add_paths(env.get("PYTHONPATH", ""))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under `nohup`, a program would hear nothing of a closed terminal
    _set_up_prefect(arguments)
    _end(_call(arguments))


def _add_paths(paths: str) -> None:
    """Adds the folders of `PYTHONPATH`, and runs their `sitecustomize.py`, as an interpreter does when it starts."""
    folders = [Path(folder).resolve() for folder in paths.split(os.pathsep) if folder]
    sys.path[:0] = map(str, folders)
    for script in (folder / "sitecustomize.py" for folder in folders):
        if script.exists():
            runpy.run_path(str(script))


def _writer(number: int, *, errors: str) -> io.TextIOWrapper:
    raw = open(number, "wb", closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(raw, encoding="utf-8", errors=errors, line_buffering=number == 2)


def _set_up_prefect(arguments: list[str]) -> None:
    """Has Prefect read the environment and set its logging up, as at its import."""
    from prefect.context import refresh_global_settings_context
    from prefect.logging.configuration import setup_logging

    if tuple(arguments[: len(RH)]) == RH:
        quiet_prefect()  # a command makes Prefect quiet before it imports it
    refresh_global_settings_context()
    setup_logging(incremental=False)


def _call(arguments: list[str]) -> int:
    """Runs the program as the interpreter does; its exit code."""
    flag, *more = arguments
    try:
        if flag == "-m":
            sys.argv = more
            sys.path.insert(0, str(Path.cwd()))
            runpy.run_module(more[0], run_name="__main__", alter_sys=True)
        elif flag == "-c":
            sys.argv = ["-c", *more[1:]]
            sys.path.insert(0, "")
            exec(compile(more[0], "<string>", "exec"), sys.modules["__main__"].__dict__)
        else:
            sys.argv = arguments
            sys.path.insert(0, str(Path(flag).resolve().parent))
            runpy.run_path(flag, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return -signal.SIGINT
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> NoReturn:
    """Ends the process as an interpreter ends: threads, exit handlers, streams."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 120
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        time.sleep(60)
    os._exit(code)
