"""Programs of paid calls that are interrupted at any point and resumed until they are done.

A program is a tree of branches. Each makes a chain of calls, in which every request contains the result of the call
before; equal requests give unlike results. So a branch that is once given another one's result asks for something new,
and pays for it. The address of a call is computed here as `rh_prefect.flow_runs` does in Prefect's runs.

Every I/O may fail, take effect without an answer, or come in another order, and the process may die between any two.

One thing is left out, and is labelled here as users are told to: runs that are given a client. Where only one of
several such branches was recorded, another one takes its result. No person makes a mistake either.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from rh_prefect.errors import AmbiguousCall, JournalError, RunningHubError, StoreError
from rh_prefect.works.journal.call_assignment import Caller, CallRegistry, Try
from rh_prefect.works.journal.call_matching import Equal
from rh_prefect.works.journal.identity import Address, Place, Step
from rh_prefect.works.journal.job_records import Submit
from rh_prefect.works.lifecycle import Policy
from tests.support.servers.minimal_api import MinimalApi
from tests.support.world.fault_machine import ROUNDS, Course, numbers, pick
from tests.support.world.payment_checks import PaymentChecks
from tests.support.world.simulated_process import SCOPE, Process, order_of

MOST_RUNS = 2
"""How many processes run the program at the same time."""


@dataclass(frozen=True, repr=False)
class Branch:
    """A part of a program: a chain of paid calls, then parts of its own, which are given its last result.

    Attributes:
        kind: A task, a child flow, or calls that the run around it makes itself.
        name: Of the task or flow.
        given: Its argument: none, one that no other branch has, a client, or the result of the branch around it.
        asks: How the requests of the chain begin.
        has_label: Whether all calls in it have a label that no other branch has.
        at_once: Whether it is started beside what follows; else it is awaited.
        is_kept: Whether Prefect keeps its result, and does not run it again.
        tries: How often it is tried.
        parts: What it starts after its chain.
    """

    kind: Literal["task", "flow", "calls"]
    name: str
    given: Literal["nothing", "own", "client", "result"]
    asks: tuple[str, ...]
    has_label: bool = False
    at_once: bool = False
    is_kept: bool = False
    tries: int = 1
    parts: tuple[Branch, ...] = ()

    def __repr__(self) -> str:
        what = "calls" if self.kind == "calls" else f"{self.kind} {self.name}({self.given})"
        more = [
            word for word, is_so in [("labelled", self.has_label), ("kept", self.is_kept), ("retried", self.tries > 1)]
            if is_so
        ]  # fmt: skip
        words = " ".join(["start" if self.at_once else "await", what, *more])
        return f"<{words}: {' > '.join(self.asks)}{f' then {list(self.parts)}' if self.parts else ''}>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        # Hypothesis would print all fields.
        printer.text(repr(self))


Program = tuple[Branch, ...]
NAMES = {"task": ("shot", "scene"), "flow": ("film", "trailer"), "calls": ("",)}


@st.composite
def branches(draw: st.DrawFn, *, depth: int = 1) -> Branch:
    """Random branches; the simplest is an awaited task with one call."""
    kind: Any = draw(st.sampled_from([*NAMES]))
    is_run = kind != "calls"
    given: Any = draw(st.sampled_from(["nothing", "own", "client", "result"])) if is_run else "nothing"
    at_once = draw(st.booleans())
    # See the module.
    needs_label = given == "client"
    return Branch(
        kind=kind,
        name=draw(st.sampled_from(NAMES[kind])),
        given=given,
        asks=tuple(draw(st.lists(st.sampled_from("aab"), min_size=1, max_size=3))),
        has_label=needs_label or draw(st.sampled_from([False, False, True])),
        at_once=at_once,
        is_kept=is_run and draw(st.sampled_from([False, False, True])),
        tries=draw(st.sampled_from([1, 1, 2])) if is_run else 1,
        parts=_several(draw, branches(depth=0), most=1) if depth and draw(st.booleans()) else (),
    )


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Random programs, often with several equal branches; the simplest has one branch."""
    return _several(draw, branches(), most=2)


def _several(draw: st.DrawFn, of: st.SearchStrategy[Branch], *, most: int) -> Program:
    runs = draw(st.lists(st.tuples(of, st.sampled_from([1, 2, 2, 3])), min_size=1, max_size=most))
    return tuple(branch for branch, times in runs for _ in range(times))


def calls_of(program: Program, around: str = "") -> Iterator[str]:
    """All calls of a program, by the numbers of their branches and their own: `2.1#3`."""
    for number, branch in enumerate(program, 1):
        path = f"{around}{number}"
        yield from (f"{path}#{n}" for n in range(1, len(branch.asks) + 1))
        yield from calls_of(branch.parts, f"{path}.")


@dataclass(frozen=True)
class Frame:
    """A run of the program, or a coroutine of the caller's own in it, with what it has called so far."""

    steps: tuple[Step, ...] = ()
    tries: tuple[Try, ...] = ()
    label: str = ""
    is_flow: bool = True
    in_order: bool = True
    counts: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    flows: Counter[str] = field(default_factory=Counter)

    def place(self, name: str, given: str | None) -> Place:
        self.counts[name, given] += 1
        return Place(in_order=self.in_order, given=given, number=self.counts[name, given])

    def inside(self, branch: Branch, path: str, result: str) -> Frame:
        """Calls a branch: its place is taken now, whenever it begins."""
        label = path if branch.has_label else self.label
        if branch.kind == "calls" and not branch.at_once:
            return replace(self, label=label)
        if branch.kind == "calls":
            # Nothing but a label tells apart what coroutines ask for that a program runs at the same time.
            return replace(self, label=path, in_order=False, counts=Counter())
        step = self._step(branch, _arguments(branch, path, result))
        return Frame((*self.steps, step), (*self.tries, Try(path, 1)), label, is_flow=branch.kind == "flow")

    def again(self, number: int) -> Frame:
        """A try of this run."""
        return replace(
            self, tries=(*self.tries[:-1], replace(self.tries[-1], number=number)), counts=Counter(), flows=Counter()
        )

    def _step(self, branch: Branch, arguments: dict[str, str | None]) -> Step:
        given = None if None in arguments.values() else str(arguments)
        place = self.place(branch.name, given)
        if branch.kind == "flow" and self.is_flow and not self.in_order:
            # Prefect's own number, which counts all calls of a flow in the run around it.
            self.flows[branch.name] += 1
            place = place.model_copy(update={"concurrent": self.flows[branch.name]})
        return Step(name=branch.name, place=place, arguments=arguments)


def _arguments(branch: Branch, path: str, result: str) -> dict[str, str | None]:
    match branch.given:
        case "own":
            return {"x": path}
        case "client":
            return {"client": None}
        case "result" if result:
            return {"picture": result}
        case _:
            return {}


class Chains:
    """What each call of the program was given and what was paid for it, in all attempts."""

    def __init__(self, hub: MinimalApi) -> None:
        self._hub = hub
        self.results: dict[str, str] = {}
        self.jobs: dict[tuple[str, str], str] = {}
        self.paid: set[str] = set()
        self.wrongs: list[str] = []
        self.is_refused = False

    def has_job(self, process: Process, call: str, key: str) -> None:
        if (other := self.jobs.setdefault((process.name, key), call)) != call:
            self.wrongs.append(f"{process}: {call} has the job of {other}")

    def is_about_to_be_accepted(self, process: Process, key: str) -> None:
        call = self.jobs[process.name, key]
        if call in self.paid:
            self.wrongs.append(f"{process}: {call} is paid for a second time")
        self.paid.add(call)

    def has_result(self, process: Process, call: str, request: str, result: str) -> None:
        made_of = next(task.prompt for task in self._hub.tasks if result_of(task.task_id) == result)
        if made_of != request:
            self.wrongs.append(f"{process}: {call} asked for {request} and was given what was made of {made_of}")
        if (before := self.results.setdefault(call, result)) != result:
            self.wrongs.append(f"{process}: {call} had the result {before} and now has {result}")
        for other, its in self.results.items():
            if its == result and other != call:
                self.wrongs.append(f"{process}: {call} is given the result of {other}")

    def is_ambiguous(self, process: Process, call: str, error: AmbiguousCall) -> None:
        if "they cannot be distinguished" in error.message:
            self.wrongs.append(f"{process}: {call} is refused though no other call is like it")
        self.is_refused = True


def result_of(task_id: str) -> str:
    """Stands for a task's file: bytes of which nobody could have known."""
    return hashlib.sha256(task_id.encode()).hexdigest()[:6]


@dataclass
class Shelf:
    """Where files and what Prefect keeps lie, for all attempts."""

    files: dict[str, str] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)


class Attempt:
    """One attempt of a program in one process."""

    def __init__(
        self,
        program: Program,
        process: Process,
        policy: Policy,
        *,
        chains: Chains,
        shelf: Shelf,
        calls: CallRegistry,
        equal: Equal,
    ) -> None:
        self._program, self._process, self._policy = program, process, policy
        self._chains, self._shelf, self._calls, self._equal = chains, shelf, calls, equal

    async def run(self) -> None:
        """Runs the program to its end, or to the first error."""
        await self._run_all(self._program, Frame(), "", "")

    async def _run_all(self, program: Program, frame: Frame, around: str, result: str) -> None:
        started: list[asyncio.Task[None]] = []
        try:
            for number, branch in enumerate(program, 1):
                work = self._call(branch, frame, f"{around}{number}", result)
                if branch.at_once:
                    started.append(asyncio.create_task(work))
                else:
                    await work
        finally:
            ends = await asyncio.gather(*started, return_exceptions=True)
        for end in ends:
            if end is not None:
                raise end

    def _call(self, branch: Branch, frame: Frame, path: str, result: str) -> Coroutine[Any, Any, None]:
        inside = frame.inside(branch, path, result)
        work = partial(self._chain, branch, path=path, result=result)
        return work(inside) if branch.kind == "calls" else self._run(branch, path, inside, work)

    async def _run(self, branch: Branch, path: str, frame: Frame, work: Any) -> None:
        # With Prefect's own I/O before it, a run that is called later may begin first.
        if await self._ask_prefect(f"begin {path}", lambda: path in self._shelf.kept):
            return
        for number in range(1, branch.tries + 1):
            try:
                await work(frame.again(number))
                break
            except RunningHubError:
                if number == branch.tries:
                    raise
        if branch.is_kept:
            await self._ask_prefect(f"keep {path}", lambda: self._shelf.kept.add(path))

    async def _chain(self, branch: Branch, frame: Frame, *, path: str, result: str) -> None:
        for n, words in enumerate(branch.asks, 1):
            result = await self._pay(f"{path}#{n}", f"{words}+{result}" if result else words, frame)
        await self._run_all(branch.parts, frame, f"{path}.", result)

    async def _pay(self, call: str, request: str, frame: Frame) -> str:
        address = Address(steps=frame.steps, place=frame.place("generate", f"{request}/{frame.label}"))
        order = replace(order_of(request), label=frame.label or None)
        caller, process = Caller(address, frame.tries, version="1", equal=self._equal), self._process
        was_empty = await process.was_empty()
        try:
            found = await self._calls.find(
                order.request_id, caller, journal=process.journal, attempt=process.attempt, is_empty=was_empty
            )
        except AmbiguousCall as error:
            self._chains.is_ambiguous(process, call, error)
            raise
        self._chains.has_job(process, call, found.key)
        policy = replace(
            self._policy,
            job=f"{SCOPE}/{found.key}",
            attempt=process.attempt,
            first_attempt=process.attempt,
        )
        recorded = {"address": address, "version": "1", "order": found.order, "label": order.label}
        submit = await process.run_job(order, found.key, policy, is_new=found.is_new, recorded=recorded)
        assert submit is not None
        result = await self._collect(found.key, submit)
        self._chains.has_result(process, call, request, result)
        return result

    async def _collect(self, key: str, submit: Submit) -> str:
        files = self._shelf.files
        if (there := await self._ask_store(f"look for {key}", lambda: files.get(key))) is not None:
            return str(there)
        file = str(await self._ask_store(f"download {key}", lambda: result_of(submit.task_id or "")))
        return str(await self._ask_store(f"publish {key}", lambda: files.setdefault(key, file)))

    async def _ask_prefect(self, name: str, effect: Any) -> Any:
        return await self._process.io(name, effect, lost=lambda: JournalError(f"{name}: the Prefect API is away"))

    async def _ask_store(self, name: str, effect: Any) -> Any:
        return await self._process.io(name, effect, lost=lambda: StoreError(f"{name}: the store is away"))


class PaidBranches(Course):
    """See the module."""

    def new_registry(self) -> CallRegistry:
        return CallRegistry()

    @initialize(program=programs())
    def begin(self, program: Program) -> None:
        self.program = program
        self.policy = Policy(job="", endpoint="m", attempts=3)
        self.books, self.chains, self.shelf = (
            PaymentChecks(self.place, self.hub, self.policy),
            Chains(self.hub),
            Shelf(),
        )
        self.runs: list[Process] = []
        self._run_program(0)

    @precondition(lambda self: all(run.is_dead or run.is_over for run in self.runs))
    @rule(machine=numbers)
    def resume(self, machine: int) -> None:
        for run in self.runs:
            run.crash()
        self.attempt += 1
        self._run_program(machine)

    @precondition(lambda self: self.runs[-1] in self.at_work)
    @rule(machine=numbers, first=numbers, count=st.integers(1, 30))
    def break_off_and_resume(self, machine: int, first: int, count: int) -> None:
        run = self.runs[-1]
        for turn in range(count):
            if run.operations:
                self._deliver(run, pick(run.operations, first * turn))
            elif not run.is_over:
                self._time_goes_on()
        self.resume(machine)

    @precondition(lambda self: len([run for run in self.runs if not run.is_dead]) < MOST_RUNS)
    @rule(machine=numbers)
    def run_it_in_a_second_process(self, machine: int) -> None:
        self._run_program(machine)

    @precondition(lambda self: self.busy)
    @rule(which=numbers, first=numbers, count=st.integers(10, 60))
    def go_on_well(self, which: int, first: int, count: int) -> None:
        process = pick(self.busy, which)
        for _ in range(count):
            if process.operations:
                self._deliver(process, pick(process.operations, first))
            elif not process.is_over:
                self._time_goes_on()

    @precondition(lambda self: self.submitting)
    @rule(which=numbers, code=st.sampled_from(["421", "1003"]))
    def refuse(self, which: int, code: str) -> None:
        self._refuse(which, code)

    @property
    def wrongs(self) -> list[str]:
        return super().wrongs + self.chains.wrongs

    def _is_about_to_be_accepted(self, process: Process, job: str, n: int) -> None:
        super()._is_about_to_be_accepted(process, job, n)
        self.chains.is_about_to_be_accepted(process, job)

    def _come_to_an_end(self) -> None:
        for process in self.alive:
            process.crash()
        self._resume_until_done(newest_first=True)
        self._resume_until_done(newest_first=False)
        assert self.chains.results.keys() == self.chains.paid == set(calls_of(self.program))
        assert len(self.hub.tasks) == len(self.chains.paid)
        assert {result_of(task.task_id) for task in self.hub.tasks} == set(self.chains.results.values())

    def _resume_until_done(self, *, newest_first: bool) -> None:
        for _ in range(ROUNDS):
            self.attempt += 1
            run = self._run_program(self.attempt)
            self._run_to_the_end([run], newest_first=newest_first)
            run.crash()
            self.nothing_is_wrong()
            if run.outcomes["program"] is None:
                return
            for view in self.unclear:
                self._settle(view)
        raise AssertionError(f"after {ROUNDS} attempts in which nothing went wrong: {run.outcomes}")

    def _run_program(self, machine: int) -> Process:
        process = self._new_process(machine)
        self.runs.append(process)
        # Whoever wrote the program knows that a call which is refused is none of those before.
        equal: Equal = "new" if self.chains.is_refused else "refuse"
        attempt = Attempt(
            self.program,
            process,
            self.policy,
            chains=self.chains,
            shelf=self.shelf,
            calls=self.new_registry(),
            equal=equal,
        )
        process.start("program", attempt.run())
        return process

    def _say(self, text: str) -> None:
        for (_, key), call in self.chains.jobs.items():
            text = text.replace(key, f"[{call}]")
        super()._say(text)
