"""Runs flows in processes that a test can kill: `FlowProcess` starts `python -m tests.support.processes.flow_process`.

The process prints `ready` after its imports, reads one order from its standard input, and prints one JSON object a line
for each event.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from prefect import Flow
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling
from pydantic import TypeAdapter

from rh_prefect import flows, tasks  # noqa: F401 - imports all that a run needs before the process is ready
from rh_prefect.flow_runs import progress_observer
from rh_prefect.flow_runs.flow import cancel_remote_jobs
from rh_prefect.flow_runs.resume_or_rerun import create, rerun
from rh_prefect.prefect_api import connect
from rh_prefect.prefect_internals import drain
from rh_prefect.works.events import JobEvent
from tests.support.processes.warm_process import WarmProcess

ROOT = Path(__file__).parents[3]
PATIENCE = 500.0

Said = dict[str, Any]

_lock = threading.Lock()
_out = sys.stdout


def say(event: str, **facts: object) -> None:
    with _lock:
        print(json.dumps({"event": event, "at": time.monotonic(), **facts}, default=str), file=_out, flush=True)


def take(event: JobEvent) -> None:
    say("job", state=event.state, job=event.job, task_id=event.task_id, label=event.label, message=event.message)


def leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from leaves(one)
    else:
        yield error


def told(error: BaseException) -> dict[str, str]:
    return {"type": type(error).__name__, "message": str(error), "job": str(getattr(error, "job", ""))}


def result_of(value: object) -> object:
    return TypeAdapter(object).dump_python(value, mode="json") if value is not None else None


async def run(flow: Flow[..., Any], order: dict[str, Any]) -> None:
    run_id = order.get("run") or str(await create(flow, order.get("parameters", {})))
    say("run", id=run_id)
    try:
        say("done", result=result_of(await rerun(flow, run_id)))
    except (Exception, BaseExceptionGroup) as error:
        say("failed", errors=[told(one) for one in leaves(error)])
        raise SystemExit(1) from None
    finally:
        await drain()


async def cancel(flow: Flow[..., Any], order: dict[str, Any]) -> None:
    """Calls the cancellation hook as Prefect's runner does: in a separate process, by keywords."""
    connection = await connect()
    flow_run: FlowRun = await connection.client.read_flow_run(order["run"])
    hook: Callable[..., Any]
    for hook in flow.on_cancellation_hooks:
        done: Any = hook(flow=flow, flow_run=flow_run, state=Cancelling())
        await done
    say("done", result=[getattr(hook, "__name__", "") for hook in flow.on_cancellation_hooks])
    assert cancel_remote_jobs in flow.on_cancellation_hooks
    await drain()


def main() -> None:
    say("ready")
    order = json.loads(sys.stdin.readline() or "null")
    if order is None:
        return
    os.environ.update(order.get("env", {}))
    progress_observer.listeners.append(take)
    module, _, name = order["flow"].partition(":")
    flow = getattr(importlib.import_module(module), name)
    asyncio.run({"run": run, "cancel": cancel}[order["do"]](flow, order))


class FlowProcess:
    """A process that imports the package and waits for an order."""

    def __init__(self, env: Mapping[str, str], *, log: Path) -> None:
        self.log = log
        self.said: list[Said] = []
        self._changed = threading.Condition()
        self._is_over = False
        with log.open("ab") as errors:
            self._process = WarmProcess(
                ["-m", "tests.support.processes.flow_process"], env=env, cwd=ROOT, stderr=errors
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.__exit__()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def order(self, do: str, flow: str, **more: object) -> None:
        self._process.stdin.write(json.dumps({"do": do, "flow": flow, **more}) + "\n")
        self._process.stdin.flush()

    def wait_for(self, event: str, **facts: object) -> Said:
        self.wait_until_heard(event, 1, **facts)
        return self.heard(event, **facts)[0]

    def wait_until_heard(self, event: str, count: int, **facts: object) -> None:
        """Blocks until the process has printed this event so many times."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.heard(event, **facts)) >= count or self._is_over, PATIENCE)
        heard = self.heard(event, **facts)
        assert len(heard) >= count, f"{len(heard)} of {count} {event} {facts}; {self.said[-3:]}\n{self.errors()}"

    def heard(self, event: str, **facts: object) -> list[Said]:
        return [one for one in self.said if one["event"] == event and facts.items() <= one.items()]

    def ended(self) -> int:
        code = self._process.wait(PATIENCE)
        self._reader.join(10)
        return code

    def kill(self) -> None:
        """Kills it, as `kill -9` does; nothing if it has ended."""
        self._process.kill()
        self._process.wait()
        self._reader.join(10)

    def errors(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def _read(self) -> None:
        for line in self._process.stdout:
            with self._changed:
                self.said.append(_parsed(line))
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


def _parsed(line: str) -> Said:
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    return said if isinstance(said, dict) and "event" in said else {"event": "line", "text": line}


class FlowProcesses:
    """The processes of one test; all are killed at its end."""

    def __init__(self, env: Mapping[str, str], folder: Path, stack: ExitStack) -> None:
        self.env = dict(env)
        self._folder = folder
        self._stack = stack
        self._spare: list[FlowProcess] = []
        self.children: list[FlowProcess] = []

    def spare(self, count: int = 1) -> None:
        """Starts processes before they are needed: each needs some seconds to import."""
        self._spare += [self._new() for _ in range(count)]

    def run(self, flow: str, **order: object) -> FlowProcess:
        """Runs a flow in a process; `run` names a flow run to run again."""
        return self._ordered("run", flow, **order)

    def cancel(self, flow: str, run: str) -> FlowProcess:
        """Calls the flow's cancellation hooks in a process."""
        return self._ordered("cancel", flow, run=run)

    def _ordered(self, do: str, flow: str, **order: object) -> FlowProcess:
        child = self._spare.pop(0) if self._spare else self._new()
        child.order(do, flow, **order)
        return child

    def _new(self) -> FlowProcess:
        log = self._folder / f"process-{len(self.children) + 1}.log"
        child = self._stack.enter_context(FlowProcess(self.env, log=log))
        self.children.append(child)
        return child


@contextmanager
def flow_processes(env: Mapping[str, str], folder: Path) -> Iterator[FlowProcesses]:
    """Starts processes and kills them at the end; see `FlowProcesses`."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        yield FlowProcesses(env, folder, stack)


if __name__ == "__main__":
    main()
