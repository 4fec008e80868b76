"""`Planner`: plans a file in parts, and plans a part again when its results change.

A part is a step outside of fan-outs with its inner steps, or one item of an outermost fan-out. Parts are connected only
by names, by shared works, and by the needs of steps. So a part changes only with its own results, and with the steps to
which it refers; then the part is planned again as a whole.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from rh_prefect.pipelines.check.checked_file import report_items
from rh_prefect.pipelines.evaluation import evaluate
from rh_prefect.pipelines.file_model import FanOutStep, Step
from rh_prefect.pipelines.parsed_document import Problems
from rh_prefect.pipelines.plan.expander import AT_ONCE, Expander
from rh_prefect.pipelines.plan.name_clashes import NameClashes
from rh_prefect.pipelines.plan.needed_steps import Needs
from rh_prefect.pipelines.plan.part_data import PartFindings
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.pipelines.plan.planning import Planning
from rh_prefect.pipelines.plan.size_limits import PlanTooLarge, Size
from rh_prefect.pipelines.planning_values import Frame, Group, makers, maybe
from rh_prefect.pipelines.references import references_in

SHARE = 20
"""Planning again the steps that depend on many results takes at most one SHARE-th of the time."""


class Pace:
    """Limits a repeated action to one `share`-th of the time, with a pause after each execution."""

    def __init__(self, share: int) -> None:
        self._share, self._began, self.due = share, 0.0, 0.0

    def is_due(self) -> bool:
        """Returns whether the pause is over and the action may start again."""
        return time.monotonic() >= self.due

    def __enter__(self) -> None:
        """Records when the action starts."""
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        """Sets when the pause after the action ends."""
        now = time.monotonic()
        self.due = now + self._share * (now - self._began)


PartKey: TypeAlias = tuple[str, int]
"""The name of a step outside of fan-outs or of an outermost fan-out, and an item's number; 0 for the step itself."""


@dataclass(slots=True, repr=False)
class Part:
    """The data of one part of a plan."""

    frame: Frame | None = None  # For an item: its names
    names: Mapping[str, Any] = field(default_factory=dict)  # For an item: its names before its steps are expanded
    is_sure: bool = True  # For an item: whether it exists even in the cheapest course of the run, by its fan-out alone
    instances: list[PlannedStep] = field(default_factory=list)  # Its steps
    findings: Sequence[PartFindings] = ()  # What there is besides the steps


class Planner:
    """Plans one file with its parameters."""

    def __init__(self, planning: Planning, params: Mapping[str, Any]) -> None:
        self.planning = planning  # What all parts share
        self._top = Frame(names={"params": dict(params), "run": planning.options.run})
        self._parts: dict[str, list[Part]] = {}
        self._groups: dict[str, Group] = {}
        self._needs = Needs()
        self._stale: dict[str, None] = {}
        self._paces: dict[str, Pace] = defaultdict(lambda: Pace(SHARE))
        self._later: dict[str, list[str]] = defaultdict(list)
        for name, step in self._steps.items():
            for other in step.names & self._steps.keys():
                self._later[other].append(name)
        self._ranks = {path: rank for rank, (path, _) in enumerate(planning.checked.walk())}
        self.clashes = NameClashes(self._ranks)  # The names that steps are saved under
        self._named: dict[str, list[Any]] = defaultdict(list)  # the outputs that refer to each step
        self._chosen = set[str]()  # steps in outputs with several options, so that another step may be the output
        for value in planning.checked.file.outputs.values():
            references = [one for _, one in references_in(value)]
            names = {option[0] for one in references for option in one.options}
            for name in names:
                self._named[name].append(value)
            self._chosen |= names if any(len(one.options) > 1 for one in references) else set()
        self._outputs: set[PlannedStep] = set()
        self._too_large: PlanTooLarge | None = None
        self._changed: dict[PartKey, None] = {}

    @property
    def _steps(self) -> Mapping[str, Step]:
        return self.planning.checked.file.steps

    # -- planning ----------------------------------------------------------------------------------------------------

    async def plan(self) -> None:
        """Plans all parts."""
        try:
            for name in self._steps:
                await self._plan_step(name)
        except PlanTooLarge as error:
            self._too_large = error
        else:
            await asyncio.to_thread(self._add_up)

    def _add_up(self) -> None:
        self._mark_outputs()
        steps = [one for parts in self._parts.values() for part in parts for one in part.instances]
        self._needs.replace([], steps)
        self.clashes.replace([], steps)
        self._changed.clear()

    async def update(
        self, works: Iterable[str], failed: Collection[str] = (), *, is_all: bool = True
    ) -> dict[PartKey, Sequence[PlannedStep]]:
        """Plans again the parts that depend on new results or failed steps; returns the steps of changed parts.

        Failed steps are given by address, because an item may have another number than when its step began.
        """
        self.planning.missing.failed.update(failed)
        users = self.planning.works.outdate(set(works))
        dirty: dict[str, set[int]] = defaultdict(set)
        for name, number in map(self._part_of, [*users, *filter(None, map(self.step, failed))]):
            if number:
                dirty[name].add(number)
            else:
                self._stale[name] = None
        for name in self._steps:
            if name in self._stale and (is_all or self._paces[name].is_due()):
                del self._stale[name]
                await self._plan_again(name, range(len(self._parts[name])))
            elif name in dirty:
                await self._plan_again(name, sorted(dirty[name]))
        changed = {key: self._parts[key[0]] for key in self._changed}
        self._changed.clear()
        return {key: parts[key[1]].instances if key[1] < len(parts) else () for key, parts in changed.items()}

    def free(self) -> None:
        """Frees the plan's memory at once, because its items and the names around them refer to each other."""
        self._top.names.clear()

    def due_in(self) -> float:
        """Returns the seconds until steps that depend on many results are planned again; infinite if there are none."""
        return min((self._paces[name].due for name in self._stale), default=float("inf")) - time.monotonic()

    async def _plan_again(self, name: str, numbers: Collection[int]) -> None:
        before = self._parts[name]
        old = [one for number in numbers for one in before[number].instances]
        self._changed.update(((name, number), None) for number in numbers)
        self._forget(old)
        self.planning.size, items = Size(), list[Part]()
        if 0 in numbers:
            with self._paces[name]:
                await self._plan_step(name)
            new = [one for part in self._parts[name] for one in part.instances]
            self._changed.update(((name, number), None) for number in range(len(self._parts[name])))
        else:
            items = parts = [before[number] for number in numbers]
            await self._expand(name, parts)
            new = [one for part in parts for one in part.instances]
        self._stale.update(dict.fromkeys(self._later[name]))
        self._replace(old, new, outputs=self._mark_outputs_of(name, items, old))

    async def _plan_step(self, name: str) -> None:
        """Plans a step outside of fan-outs, or all items of an outermost fan-out."""
        step, at = self._steps[name], ("steps", name)
        expander, part = Expander(self.planning), Part()
        parts = [part]  # if the records cannot be read, the report of the run has the steps of the earlier plan
        self._groups.pop(name, None)
        self._top.names.pop(name, None)
        self._top.undecided.pop(at, None)
        # Items that use `previous` depend on each other, so all of them are one part.
        if not isinstance(step, FanOutStep) or "previous" in step.names:
            await expander.step(name, step, self._top)
        elif (group := expander.fan_out(name, step, self._top)) is not None:
            self._groups[name], self._top.names[name] = group, maybe(group, self._top.undecided.get(at))
            parts += [Part(one, dict(one.names), one.is_sure) for one in group.frames]
            await self._expand(name, parts[1:])
            if group.chosen is not None:
                expander.findings.of(()).chosen.append((name, group))
        # The findings of inner items come first, as `PartFindings.chosen` must be
        inner = [found for number, found in expander.findings.parts.items() if number]
        part.instances, part.findings = expander.instances, [*inner, expander.findings.of(())]
        self._parts[name] = parts

    async def _expand(self, name: str, parts: Sequence[Part]) -> None:
        step = self._steps[name]
        assert isinstance(step, FanOutStep)  # noqa: S101 - it has items
        for start in range(0, len(parts), AT_ONCE):
            some = {part.frame.numbers[0]: part for part in parts[start : start + AT_ONCE] if part.frame is not None}
            frames = [part.frame for part in some.values() if part.frame is not None]
            for frame, part in zip(frames, some.values(), strict=True):
                frame.names, frame.undecided, frame.is_sure = dict(part.names), {}, part.is_sure
            expander = Expander(self.planning)
            await expander.items(name, step, self._groups[name], frames)
            for part in some.values():
                part.instances, part.findings = [], ()
            for one in expander.instances:
                some[one.numbers[0]].instances.append(one)
            for number, findings in expander.findings.parts.items():
                some[number].findings = [findings]
            await asyncio.sleep(0)

    def _part_of(self, one: PlannedStep) -> PartKey:
        name = one.path.partition(".")[0]
        return name, one.numbers[0] if one.numbers and name in self._groups else 0

    @property
    def parts(self) -> dict[PartKey, Sequence[PlannedStep]]:
        """The steps of each part."""
        return {(name, n): part.instances for name, parts in self._parts.items() for n, part in enumerate(parts)}

    def has(self, one: PlannedStep) -> bool:
        """Returns whether a step is still part of the plan."""
        return self._needs.steps.get(one.address) is one

    def step(self, address: str) -> PlannedStep | None:
        """Returns the step that has an address in the current plan; None if there is none."""
        return self._needs.steps.get(address)

    # -- what parts have in common -----------------------------------------------------------------------------------

    def _forget(self, old: Sequence[PlannedStep]) -> None:
        for one in old:
            self.planning.missing.lost.pop(one.address, None)
        self.planning.works.forget(old)

    def _replace(
        self, old: Sequence[PlannedStep], new: Sequence[PlannedStep], *, outputs: Iterable[PlannedStep] = ()
    ) -> None:
        works = self.planning.works
        self.clashes.replace(old, new)
        flipped = self._needs.replace(old, new, outputs=outputs)
        self._changed.update((self._part_of(one), None) for one in flipped)
        for key in {work.key: None for one in (*old, *new, *flipped) for work in one.works}:
            if works.share(key):
                self._changed.update((self._part_of(one), None) for one in works.users[key])

    def count(self) -> None:
        """Combines the data of all works from all steps."""
        for key in self.planning.works.users:
            self.planning.works.share(key)

    def _mark_outputs(self) -> set[PlannedStep]:
        """Marks the steps that are outputs of the file; returns the steps whose mark changed."""
        written = self.planning.checked.file.outputs
        made = {one for value in written.values() for one in makers(evaluate(value, self._top))}
        changed = made ^ self._outputs
        for one in changed:
            one.is_output = one in made
        self._outputs = made
        return changed

    def _mark_outputs_of(self, name: str, items: Sequence[Part], old: Sequence[PlannedStep]) -> set[PlannedStep]:
        """Marks those steps of the given fan-out items that make outputs; see `_mark_outputs`."""
        if name not in self._named:
            return set()
        if name in self._chosen or not items:
            return self._mark_outputs()
        group = replace(self._groups[name], frames=[part.frame for part in items if part.frame is not None])
        frame = Frame(names={**self._top.names, name: group})
        self._outputs.difference_update(old)
        for one in (one for value in self._named[name] for one in makers(evaluate(value, frame))):
            one.is_output = True
            self._outputs.add(one)
        return set()

    # -- the whole ---------------------------------------------------------------------------------------------------

    @property
    def instances(self) -> list[PlannedStep]:
        """Every step of every item, in the order of the file and of the items."""
        found: list[PlannedStep] = []
        for parts in self._parts.values() if self._too_large is None else ():
            by_path: dict[str, list[PlannedStep]] = {}
            for part in parts:
                for one in part.instances:
                    by_path.setdefault(one.path, []).append(one)
            found += [one for path in sorted(by_path, key=self._ranks.__getitem__) for one in by_path[path]]
        return found

    @property
    def outputs(self) -> dict[str, Any]:
        """The outputs of the file, as far as they are known."""
        written = self.planning.checked.file.outputs if self._too_large is None else {}
        return {name: evaluate(value, self._top) for name, value in written.items()}

    def _note_invalid_items(self, notes: dict[str, None]) -> None:
        """Adds the invalid items that are not paid for, with the reasons."""
        invalid: dict[str, list[PlannedStep]] = defaultdict(list)
        for one in (one for steps in self.parts.values() for one in steps if one.is_invalid_item):
            invalid[one.note].append(one)
        for clause, steps in invalid.items():
            more = f" (and {len(steps) - 1} further steps)" if len(steps) > 1 else ""
            first = steps[0].row or steps[0].address
            notes[f"{first}: {clause}; the item is invalid and is not paid for{more}."] = None

    def report(self, problems: Problems) -> PartFindings:
        """Adds the problems of all parts to a report; returns what there is besides the steps."""
        found = self.findings
        report_items(problems, found.problems)
        self._note_invalid_items(found.notes)
        if (error := self._too_large) is not None:
            problems.add(self.planning.checked.document, error.at, error.message)
        return found

    @property
    def findings(self) -> PartFindings:
        """What there is in all parts besides the steps, with the findings of an item before those of its fan-out."""
        whole = PartFindings()
        for step, *items in self._parts.values():
            for one in (one for part in (*items, step) for one in part.findings):
                whole.add(one)
        return whole
