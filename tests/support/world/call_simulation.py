"""Simulates crashes and edits of programs: which calls find which jobs, by the rule of 0.1.0 and by the current rule.

Each branch of a program makes two calls: one with a request that all branches share, and one that takes the first
one's result. Results are random, and the order in which calls are made is another one in every attempt.

    python -m tests.support.world.call_simulation        prints the table of shapes and drifts
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from rh_prefect.errors import AmbiguousCall
from rh_prefect.works.journal.call_assignment import Caller, CallRegistry
from rh_prefect.works.journal.identity import Address, Place, Step, request_id
from rh_prefect.works.journal.process_identity import current_owner
from rh_prefect.works.journal.record_types import Intent
from tests.support.world.memory_journal import MemoryJournal, MemoryPlace

BRANCHES = 5
SHARED = "picture"


@dataclass(frozen=True)
class Branch:
    """One branch of a program.

    Attributes:
        name: The same branch in every attempt, whatever is edited; the program does not know it.
        steps: The runs that its calls are in.
        number: Number of its first call.
        in_order: Whether that number is one of program order.
    """

    name: str
    steps: tuple[Step, ...] = ()
    number: int = 1
    in_order: bool = True

    def address(self, *, is_second: bool) -> Address:
        # The second call's arguments hold the first one's result, so it is the first of its kind wherever it stands.
        given, number = ("second", 1) if is_second else ("first", self.number)
        return Address(steps=self.steps, place=Place(in_order=self.in_order, given=given, number=number))


Program = list[Branch]
Shape = Callable[[int, random.Random], Program]
"""Makes the program of an attempt; what it draws by chance differs between attempts."""


def _branches(make: Callable[[int], Branch]) -> Program:
    return [make(number) for number in range(1, BRANCHES + 1)]


def submits(attempt: int, chance: random.Random) -> Program:
    return _branches(lambda n: Branch(f"b{n}", number=n))


def tasks_with_arguments(attempt: int, chance: random.Random) -> Program:
    return _branches(lambda n: Branch(f"b{n}", (_step("branch", 1, x=f"{n}"),)))


def equal_tasks(attempt: int, chance: random.Random) -> Program:
    return _branches(lambda n: Branch(f"b{n}", (_step("branch", n, x="0"),)))


def gathered_tasks(attempt: int, chance: random.Random) -> Program:
    return _branches(lambda n: Branch(f"b{n}", (_step("branch", 1, in_order=False, x=f"{n}"),)))


def tasks_with_clients(attempt: int, chance: random.Random) -> Program:
    return _branches(lambda n: Branch(f"b{n}", (_step("branch", n, given=None, client=None),)))


def child_flows(attempt: int, chance: random.Random) -> Program:
    return _branches(lambda n: Branch(f"b{n}", (_step("child", n, given=None, x=f"{n}"), _step("branch", 1, x="0"))))


def helpers(attempt: int, chance: random.Random) -> Program:
    return _branches(lambda n: Branch(f"b{n}", in_order=False))


def times(attempt: int, chance: random.Random) -> Program:
    return _branches(lambda n: Branch(f"b{n}", (_step("branch", n, given=None, x=f"{n}", at=None),)))


SHAPES: dict[str, Shape] = {
    "generate.submit": submits,
    "tasks, other arguments": tasks_with_arguments,
    "tasks, equal arguments": equal_tasks,
    "tasks in gather": gathered_tasks,
    "tasks with a client": tasks_with_clients,
    "tasks with a time": times,
    "child flows": child_flows,
    "coroutines in gather": helpers,
}


def _step(name: str, number: int, *, in_order: bool = True, given: str | None = "g", **arguments: str | None) -> Step:
    return Step(name=name, place=Place(in_order=in_order, given=given, number=number), arguments=arguments)


def nothing(program: Program) -> Program:
    return program


def rename(program: Program) -> Program:
    return [
        replace(one, steps=tuple(step.model_copy(update={"name": f"new_{step.name}"}) for step in one.steps))
        for one in program
    ]


def add_default(program: Program) -> Program:
    def added(step: Step) -> Step:
        return step.model_copy(update={"arguments": {**step.arguments, "mode": "default"}})

    return [replace(one, steps=tuple(map(added, one.steps))) for one in program]


def wrap(program: Program) -> Program:
    return [replace(one, steps=(*one.steps, _step("helper", one.number)), number=1) for one in program]


def append(program: Program) -> Program:
    return [*program, replace(_moved(program[-1]), name="new")]


def insert(program: Program) -> Program:
    """Before all others; where arguments tell them apart it stands beside the first and moves no other."""
    first, *others = program
    is_numbered = first.steps[:1] == () or first.steps[0].arguments.get("x", "0") in ("0", None)
    return [replace(first, name="new"), _moved(first), *(map(_moved, others) if is_numbered else others)]


def _moved(branch: Branch) -> Branch:
    steps = tuple(_later(step, 1) for step in branch.steps[:1]) + branch.steps[1:]
    return replace(branch, steps=steps, number=branch.number + (not branch.steps))


def _later(step: Step, by: int) -> Step:
    """The next call with the same name and the same arguments."""
    return step.model_copy(update={"place": step.place.model_copy(update={"number": step.place.number + by})})


DRIFTS: dict[str, Callable[[Program], Program]] = {
    "none": nothing,
    "rename": rename,
    "add a default": add_default,
    "wrap": wrap,
    "append an equal call": append,
    "insert an equal call": insert,
}


@dataclass
class Books:
    """What was paid for: a random result for each payment."""

    chance: random.Random
    results: dict[str, str] = field(default_factory=dict)

    def pay(self, key: str) -> None:
        self.results[key] = f"{self.chance.getrandbits(64):016x}"


@dataclass
class Outcome:
    """What came of one story."""

    extra: int = 0
    exchanged: int = 0
    refused: int = 0


class Ordinals:
    """The rule of 0.1.0: the n-th of the equal calls of an attempt, in the order in which they are made."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._counts: Counter[str] = Counter()

    async def result(self, request: str, branch: Branch, *, version: str, is_second: bool) -> str:
        self._counts[request] += 1
        key = f"{request}/{self._counts[request]}"
        if key not in self._books.results:
            self._books.pay(key)
        return self._books.results[key]


class Addresses:
    """Our rule, with the package's own registry and records."""

    def __init__(self, books: Books, place: MemoryPlace, attempt: int) -> None:
        self._books = books
        self._journal = MemoryJournal(place, "run")
        self._attempt = attempt
        self._calls = CallRegistry()

    async def result(self, request: str, branch: Branch, *, version: str, is_second: bool) -> str:
        caller = Caller(branch.address(is_second=is_second), version=version)
        found = await self._calls.find(
            request_id(request, None), caller, journal=self._journal, attempt=self._attempt, is_empty=self._attempt == 1
        )
        if found.key not in self._books.results:
            intent = Intent(
                owner=current_owner(), account="a", site="s", model="m", endpoint="e", payload={}, base=request,
                address=caller.address, version=version, order=found.order, attempt=self._attempt,
            )  # fmt: skip
            await self._journal.create(f"{found.key}-intent-1", intent.model_dump(mode="json"))
            self._books.pay(found.key)
        return self._books.results[found.key]


async def story(shape: Shape, drift: Callable[[Program], Program], seed: int, *, rule: str) -> Outcome:
    """Runs a program until it is broken off, edits it, and runs it three times more, the last time to its end."""
    chance = random.Random(seed)
    books, place, outcome = Books(chance), MemoryPlace(), Outcome()
    firsts: dict[str, str] = {}
    program: Program = []
    for attempt in range(1, 5):
        program = shape(attempt, chance)
        if attempt > 1:
            program = drift(program)
        side = Ordinals(books) if rule == "0.1.0" else Addresses(books, place, attempt)
        version = "1" if attempt == 1 or drift is nothing else "2"
        stops_after = 10**9 if attempt == 4 else chance.randint(1, 2 * len(program))
        for branch, result in await _run(program, side, version, stops_after, chance, outcome):
            if firsts.setdefault(branch, result) != result:
                outcome.exchanged += 1
                firsts[branch] = result
    wanted = 2 * len(program)
    outcome.extra = max(0, len(books.results) - wanted)
    return outcome


async def _run(
    program: Program,
    side: Ordinals | Addresses,
    version: str,
    stops_after: int,
    chance: random.Random,
    outcome: Outcome,
) -> list[tuple[str, str]]:
    """One attempt: the branches go on in any order; gives the result that each has received first."""
    had: dict[str, str] = {}
    left = [(branch, False) for branch in program]
    for _ in range(stops_after):
        if not left:
            break
        branch, is_second = left.pop(chance.randrange(len(left)))
        request = f"{branch.name}+{had[branch.name]}" if is_second else SHARED
        try:
            result = await side.result(request, branch, version=version, is_second=is_second)
        except AmbiguousCall:
            outcome.refused += 1
            continue
        if not is_second:
            had[branch.name] = result
            left.append((branch, True))
    return list(had.items())


def table(seeds: Sequence[int]) -> list[tuple[str, str, str, Outcome]]:
    """Shape, drift, rule, and the sum of what came of all seeds."""
    rows = []
    for shape_name, shape in SHAPES.items():
        for drift_name, drift in DRIFTS.items():
            for rule in ("0.1.0", "ours"):
                sums = Outcome()
                for seed in seeds:
                    one = asyncio.run(story(shape, drift, seed, rule=rule))
                    sums.extra += one.extra
                    sums.exchanged += one.exchanged
                    sums.refused += one.refused
                rows.append((shape_name, drift_name, rule, sums))
    return rows


def main() -> None:
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
    print(f"{len(seeds)} stories each, {BRANCHES} branches of two calls")
    print("extra payments / exchanged results / refused calls")
    print(f"{'shape':24} {'drift':22} {'0.1.0':>18} {'ours':>18}")
    rows = table(seeds)
    for before, after in zip(rows[::2], rows[1::2], strict=True):
        cells = [f"{one.extra} / {one.exchanged} / {one.refused}" for one in (before[3], after[3])]
        print(f"{before[0]:24} {before[1]:22} {cells[0]:>18} {cells[1]:>18}")


if __name__ == "__main__":
    main()
