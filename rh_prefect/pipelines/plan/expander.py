"""Expands fan-outs into the steps of all items, and looks up existing results."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rh_prefect.catalog.model import text_of
from rh_prefect.media.file_name_templates import folded, wrong_part
from rh_prefect.pipelines.check.checked_file import Checked
from rh_prefect.pipelines.check.values import RESERVED_FOLDERS
from rh_prefect.pipelines.conditions import truth
from rh_prefect.pipelines.evaluation import evaluate, lookup, no_text, wrong_texts
from rh_prefect.pipelines.file_model import (
    EditStep,
    FanOutStep,
    GraphStep,
    GroupStep,
    ModelStep,
    ReviewStep,
    Step,
    UseStep,
)
from rh_prefect.pipelines.parsed_document import Path, visible
from rh_prefect.pipelines.plan.edit_recipes import draft_edit
from rh_prefect.pipelines.plan.fan_out import FanOuts
from rh_prefect.pipelines.plan.name_clashes import is_too_long
from rh_prefect.pipelines.plan.part_data import Findings
from rh_prefect.pipelines.plan.planned_steps import PlannedStep
from rh_prefect.pipelines.plan.planning import Planning
from rh_prefect.pipelines.plan.results import placeholder, undecided_result, value_of
from rh_prefect.pipelines.plan.review_drafts import chosen_result, draft_review
from rh_prefect.pipelines.plan.shared_works import state_of
from rh_prefect.pipelines.plan.size_limits import Size
from rh_prefect.pipelines.plan.step_drafts import Draft, planned
from rh_prefect.pipelines.plan.step_requests import draft_paid
from rh_prefect.pipelines.plan.take_chooser import TakeChooser, query_of
from rh_prefect.pipelines.plan.undecided_steps import condition_steps, is_open, undecided_parts
from rh_prefect.pipelines.plan.work_identity import UNSETTLED, mark, recipe_id, request_base
from rh_prefect.pipelines.planning_values import (
    ABSENT,
    File,
    Frame,
    Group,
    Items,
    Maybe,
    StepOutput,
    as_items,
    certain,
    deciders_of,
    digest,
    maybe,
    undecided_in,
)
from rh_prefect.pipelines.references import references_in
from rh_prefect.pipelines.types import Type

AT_ONCE = 50
"""Number of steps that are planned before the thread runs other tasks."""


class Expander:
    """Expands parts of a plan: a step outside of fan-outs, or some items of an outermost fan-out."""

    def __init__(self, planning: Planning) -> None:
        self.instances: list[PlannedStep] = []  # Its steps
        self.findings = Findings()  # The data of its parts
        self._planning, self._checked, self._missing = planning, planning.checked, planning.missing
        self._takes, self._fan_outs = TakeChooser(planning, self.findings), FanOuts(planning, self.findings)
        self._used_at: Path = ()
        self._stops_run = False

    async def step(self, name: str, step: Step, frame: Frame) -> None:
        """Expands a step outside of fan-outs, with all inner steps."""
        await self._step(step, ("steps", name), [frame], name)

    def fan_out(self, name: str, step: FanOutStep, frame: Frame) -> Group | None:
        """Returns the items of an outermost fan-out without expanding them; None if the fan-out is absent."""
        at = ("steps", name)
        if not self._is_live(step, at, frame, name):
            return None
        [group] = self._groups(step, at, [frame], name)
        # With another size, because inner fan-outs are counted again when the items are expanded
        self._fan_outs.count_all(step.steps, (*at, "steps"), group.frames, name, Size())
        return group

    async def items(self, name: str, step: GroupStep, group: Group, frames: list[Frame]) -> None:
        """Expands items of an outermost fan-out."""
        await self._steps(step.steps, ("steps", name, "steps"), frames, name)
        for frame in frames:
            _close(step, group, frame)

    def _note(self, instance: PlannedStep, note: str) -> None:
        self.findings.of(instance.numbers).notes[note] = None

    def _wrong(self, one: PlannedStep | Frame, at: Path, clause: str, address: str) -> None:
        self.findings.wrong(one.numbers, self._checked, at, clause, address)

    async def _steps(self, steps: Mapping[str, Step], at: Path, frames: list[Frame], path: str) -> None:
        for name, step in steps.items():
            await self._step(step, (*at, name), frames, f"{path}.{name}" if path else name)

    async def _step(self, step: Step, at: Path, frames: list[Frame], path: str) -> None:
        live = [frame for frame in frames if self._is_live(step, at, frame, path)]
        if not live:
            return
        if isinstance(step, GroupStep):
            outputs: list[Any] = await self._group(step, at, live, path)
        elif isinstance(step, UseStep):
            outputs = await self._use(step, at, live, path)
        elif isinstance(step, ReviewStep):
            outputs = [self._review(step, at, frame, path) for frame in live]
        elif isinstance(step, EditStep | ModelStep | GraphStep):
            outputs = []
            for start in range(0, len(live), AT_ONCE):
                drafts = [self._draft(step, at, path, frame) for frame in live[start : start + AT_ONCE]]
                outputs += await self._work_out(drafts, step)
                if start:
                    await asyncio.sleep(0)
        for frame, value in zip(live, outputs, strict=True):
            frame.names[str(at[-1])] = maybe(value, frame.undecided.get(at))

    def _draft(self, step: EditStep | ModelStep | GraphStep, at: Path, path: str, frame: Frame) -> Draft:
        draft = Draft(planned(step, at, path, frame), frame)
        if isinstance(step, EditStep):
            draft_edit(draft, step, self._missing)
        else:
            draft_paid(draft, step, self._checked, self._missing, self._planning.options.saved_graphs or {})
            draft.is_settled &= frame.is_named
        return draft

    def _is_live(self, step: Step, at: Path, frame: Frame, path: str) -> bool:
        """Returns whether a step may be made, by its conditions; adds a step that is absent or fails to the plan."""
        found = True if step.when is None else truth(step.when, frame)
        expect = step.get("expect")
        held = True if expect is None or found is False else truth(expect, frame)
        if found is None:
            frame.undecided[at] = tuple(condition_steps(step.when, frame))
        wrong = list[str]()
        for key in (key for key, holds in (("when", found), ("expect", held)) if holds is None):
            wrong += self.findings.not_numbers(self._checked, step.get(key), (*at, key), frame)
        if found is not False and held is not False and not wrong:
            return True
        model = step.get("model") or step.get("edit") or step.action
        instance = planned(step, at, path, frame, model)
        instance.settle("x")
        output = ABSENT if found is False else self._missing_output(instance)
        frame.names[str(at[-1])] = maybe(output, frame.undecided.get(at))
        if found is not False:
            self._fail_unmet(instance, wrong or ["the expect condition is false"], is_run=bool(wrong) or found is True)
        if not isinstance(step, GroupStep) or wrong:
            self._add(instance)
        return False

    def _fail_unmet(self, instance: PlannedStep, causes: list[str], *, is_run: bool) -> None:
        """Fails a step whose `expect` is false, or whose conditions compare values that are not numbers.

        While `when` is not known, nothing fails; the run decides later.
        """
        if not is_run:
            instance.is_pending = True
            return
        instance.problems = (*instance.problems, *causes)
        self._explain(instance, f"{causes[0]}; this item fails before anything is paid for it")
        self._missing.lost[instance.address] = instance

    # -- steps that need one whose `expect` is false -----------------------------------------------------------------

    def _block(self, instance: PlannedStep, cause: PlannedStep) -> StepOutput:
        """Removes a step from the run, because it needs another step that was removed."""
        first = self._missing.lost[cause.address]
        instance.works, instance.blocked_by = (), first.address
        instance.needs = tuple(dict.fromkeys([*instance.needs, cause]))
        return self._lose(instance, first, f"it needs {first.address}, which fails: {first.problems[0]}")

    def _lose(self, instance: PlannedStep, cause: PlannedStep, note: str) -> StepOutput:
        """Adds a step that fails because of `cause`; returns a placeholder for its result."""
        instance.settle("x")
        instance.note, self._missing.lost[instance.address] = note, cause
        self._add(instance)
        return self._missing_output(instance)

    def _missing_output(self, instance: PlannedStep) -> StepOutput:
        kind = self._checked.types.get(instance.at, Type("any"))
        value = placeholder(kind, instance, f"not made:{digest(instance.address)}")
        return StepOutput(value, label=instance.model, maker=instance)

    def _add(self, instance: PlannedStep) -> None:
        instance.used_at = self._used_at
        instance.stops_run = self._stops_run or self._is_strict(instance.at)
        self.instances.append(instance)

    def _is_strict(self, at: Path) -> bool:
        """Returns whether a step, or a group around it in its file, has `on_error: fail`."""
        strict = self._checked.strict
        return bool(strict) and any(at[:end] in strict for end in range(len(at) + 1))

    # -- works -----------------------------------------------------------------------------------------------------

    async def _work_out(self, drafts: list[Draft], step: Step) -> list[StepOutput]:
        """Determines the works of many items at once, and looks up their results."""
        lost = {draft: output for draft in drafts if (output := self._lost(draft, step)) is not None}
        made = [draft for draft in drafts if draft not in lost]
        await self._look_up(made)
        outputs = {draft: self._output(draft) for draft in made} | lost
        return [outputs[draft] for draft in drafts]

    def _lost(self, draft: Draft, step: Step) -> StepOutput | None:
        """Adds a step to the plan; returns the placeholder for its result if it cannot be made."""
        instance, frame = draft.instance, draft.frame
        instance.item_meaning, instance.waits_for = frame.meaning, self._missing.waits_for(step, frame)
        cause = self._missing.mark(instance, is_open=self._missing.keep_open(draft, step))
        if cause is not None:
            return self._block(instance, cause)
        if wrong := self._skipped(draft):
            return self._skip(instance, wrong)
        self._take(draft, step)
        return None

    def _take(self, draft: Draft, step: Step) -> None:
        instance = draft.instance
        for where, clause in draft.problems:
            instance.problems = (*instance.problems, clause)
            self._wrong(instance, self._nearest(instance, where), clause, instance.address if instance.item else "")
        for note in filter(None, (*draft.notes, instance.price_note, instance.forbidden, instance.unread_graph)):
            self._note(instance, f"{instance.path}: {note}")
        instance.problems = (*instance.problems, *draft.frame.problems_around)
        instance.is_pending = is_open(step, draft.frame, instance.waits_for) or not draft.frame.is_named
        instance.is_sure &= instance.at not in draft.frame.undecided
        instance.seconds = draft.seconds.expected if draft.seconds is not None else None
        self._add(instance)
        self._save_as(instance, draft.frame)

    def _skipped(self, draft: Draft) -> list[str]:
        """Returns why an item is skipped; empty if the item is valid, or if the file does not skip invalid items."""
        if not self._planning.skips_items or not draft.instance.item:
            return []
        clauses = (clause for _, clause in draft.problems)
        return draft.frame.problems_around or [*clauses, *_wrong_name(draft.instance.step.get("save_as"), draft.frame)]

    def _skip(self, instance: PlannedStep, wrong: list[str]) -> StepOutput:
        """Fails a step of an invalid item before anything is paid for the item; other items continue."""
        instance.problems, instance.is_invalid_item = wrong, True
        return self._lose(instance, instance, wrong[0])

    def _nearest(self, instance: PlannedStep, where: Path) -> Path:
        """Returns the path of a value in the file, or the path of `from` if the value comes from there."""
        document = self._checked.document
        at = (*instance.at, *where)
        if where[-1] in document.node(at[:-1]).keys:
            return at
        return (*instance.at, "from") if instance.step.get("from_") is not None else instance.at

    async def _look_up(self, drafts: list[Draft]) -> None:
        """Sets the works of steps, with the data in the records."""
        for draft in drafts:
            draft.base, draft.is_in_order = self._base(draft), self._is_in_order(draft.instance)
        await self._takes.choose(drafts)
        queries = [query_of(draft, take) for draft in drafts if draft.is_settled for take in draft.takes]
        answers = iter(await self._planning.known.find(queries)) if queries else iter(())
        add, size = self._planning.works.add, self._planning.size
        for draft in drafts:
            known = (next(answers) if draft.is_settled else None for _ in draft.takes)
            draft.instance.works = [add(draft, take, one, size) for take, one in zip(draft.takes, known, strict=True)]

    def _is_in_order(self, one: PlannedStep) -> bool:
        """Returns whether neither the items of a step nor its requests depend on results."""
        outer = self._checked.file.steps.get(str(one.at[1])) if len(one.at) == len(one.numbers) * 2 + 2 else None
        if self._used_at or len(one.numbers) != 1 or not isinstance(outer, FanOutStep):
            return False
        around = references_in([outer.when, outer.foreach, outer.where, outer.limit, outer.matrix])
        used = (*(each for _, each in around), *one.step.taken, *one.step.conditions)
        return all(names[0] in ("params", "item", "number", "id", "matrix") for each in used for names in each.options)

    def _base(self, draft: Draft) -> str:
        request = draft.instance.request
        if not draft.endpoint:
            base = recipe_id(draft.instance.model, request)
        else:
            base = request_base(site=self._planning.options.site, endpoint=draft.endpoint, params=request)
        return base if draft.is_settled else UNSETTLED + base

    def _output(self, draft: Draft) -> StepOutput:
        instance, works = draft.instance, draft.instance.works
        # A step that waits for a review may share its work with one that does not.
        found = (state_of(one.known, [instance], is_settled=draft.is_settled) for one in works)
        instance.settle(min(found, key="?!r>+…=".index))
        known = (work.known for work in works if work.known is not None and work.known.state == "=")
        if draft.endpoint and (lack := next(filter(None, (one.lack(instance.kind) for one in known)), "")):
            instance.settle("!")
            instance.problems = (*instance.problems, lack)
            self._explain(instance, lack)
        takes = tuple(value_of(draft, work) for work in works)
        label = f"{instance.model}, take {works[0].take}" if len(works) > 1 else instance.model
        return StepOutput(takes[0], takes, label, instance)

    def _save_as(self, instance: PlannedStep, frame: Frame) -> None:
        save_as = instance.step.get("save_as")
        if save_as is None:
            return
        wrong_parts = _wrong_parts(save_as, frame)
        for wrong in wrong_parts:
            self._refuse_name(instance, wrong)
        instance.save_as = _name(save_as, frame)
        if "::" in instance.save_as and not wrong_parts:
            self._refuse_name(instance, f"{instance.save_as} contains ::, which a name in the storage must not contain")
        first = instance.save_as.partition("/")[0]
        if folded(first) in RESERVED_FOLDERS:
            self._refuse_name(instance, f"{first}/ is a folder for this package's own records; choose another folder")

    def _refuse_name(self, instance: PlannedStep, problem: str) -> None:
        instance.problems = (*instance.problems, problem)
        self._wrong(instance, (*instance.at, "save_as"), problem, instance.address)

    # -- reviews and other files -------------------------------------------------------------------------------------

    def _review(self, step: ReviewStep, at: Path, frame: Frame, path: str) -> StepOutput:
        instance = draft_review(step, at, path, frame)
        undecided = undecided_parts((one for _, one in references_in(step.sources)), frame)
        waits_for = [*self._missing.waits_for(step, frame), *deciders_of(undecided)]
        instance.waits_for = tuple(dict.fromkeys(waits_for))
        if (cause := self._missing.mark(instance, is_open=bool(undecided))) is not None:
            return self._block(instance, cause)
        self._add(instance)
        self._save_as(instance, frame)
        chosen, wrong = chosen_result(instance, self._planning.choices.choices.get(instance.address))
        if wrong:
            self._explain(instance, wrong)
        instance.settle("r" if chosen is None else "=")
        instance.chosen = chosen
        shown = tuple(instance.candidates)
        value = chosen if chosen is not None else next(iter(shown), ABSENT)
        if isinstance(value, File):
            value = replace(value, review=instance)
        if chosen is None or undecided:  # until the choice, later steps are priced with the first candidate
            value = undecided_result((value, *shown), instance, f"review:{instance.address}:")
        return StepOutput(value, shown, "review", maker=instance)

    def _explain(self, instance: PlannedStep, note: str) -> None:
        """Sets the reason for a step's state, and adds the reason to the notes."""
        instance.note = note
        self._note(instance, f"{instance.address}: {note}.")

    async def _use(self, step: UseStep, at: Path, frames: list[Frame], path: str) -> list[StepOutput]:
        used = self._checked.uses[at]
        self._planning.size.add_steps(used.file.steps, len(frames), at, path)
        inner = [await self._bound(step, at, path, used, frame) for frame in frames]
        outer = self._checked, self._used_at, self._stops_run
        stops_run = self._stops_run or self._is_strict(at)
        self._checked, self._used_at, self._stops_run = used, self._used_at or at, stops_run
        try:
            await self._steps(used.file.steps, ("steps",), inner, path)
        finally:
            self._checked, self._used_at, self._stops_run = outer
        return [_outputs(used, frame) for frame in inner]

    async def _bound(self, step: UseStep, at: Path, path: str, used: Checked, frame: Frame) -> Frame:
        arguments, is_undecided = _arguments(step, frame)
        params, wrong = await self._planning.bind_used(used, arguments)
        gaps = {name: clause for name, value in step.with_.items() for clause in wrong_texts(value, frame)}
        address = PlannedStep(path, frame.id, step, at).address if frame.id else ""
        is_skipped = frame.id and self._planning.skips_items
        wrong |= gaps
        for name, clause in wrong.items():
            # A gap fails its item alone. Another wrong value refuses the plan: maybe no inner step is made for it.
            if not (is_skipped and (name in gaps or frame.problems_around)):
                self._wrong(frame, (*at, "with", name), clause, address)
        waits_for, names = self._missing.waits_for(step, frame), {"params": params, "run": self._planning.options.run}
        pending = is_open(step, frame, waits_for)
        # If an argument is undecided, the steps that use it may not be made.
        is_sure = frame.is_sure and at not in frame.undecided and not is_undecided
        found = Frame(None, names, frame.id, is_sure, row=frame.row_around, is_pending=pending, waits_for=waits_for)
        found.numbers, found.meaning, found.is_named = frame.numbers, frame.meaning, frame.is_named
        found.by = frame.deciders(at) or None
        found.problems = (*frame.problems_around, *wrong.values())
        return found

    # -- groups ----------------------------------------------------------------------------------------------------

    async def _group(self, step: GroupStep, at: Path, frames: list[Frame], path: str) -> list[Group]:
        steps, groups = step.steps, self._groups(step, at, frames, path)
        if step.is_fan_out and "previous" in step.names:
            await self._in_order(steps, at, groups, path)
        else:
            inner = [one for group in groups for one in group.frames]
            if inner:
                await self._steps(steps, (*at, "steps"), inner, path)
        for group, outer in zip(groups, frames, strict=True):
            for frame in group.frames:
                _close(step, group, frame)
            if group.chosen is not None:
                self.findings.of(outer.numbers).chosen.append((path, group))
        return groups

    def _groups(self, step: GroupStep, at: Path, frames: list[Frame], path: str) -> list[Group]:
        """Returns a group for each frame, without expanding its items."""
        steps, size = step.steps, self._planning.size
        if isinstance(step, FanOutStep):
            items = sum(self._fan_outs.count(step, at, frame, path, size) for frame in frames)
            if step.where is None:
                size.count_steps(steps, items, at, path)
        groups = [self._fan_outs.group(step, at, frame, path, self._checked) for frame in frames]
        if step.is_fan_out:
            inner = [one for group in groups for one in group.frames]
            size.add_steps(steps, len(inner), at, path)
            if inner and not self._used_at:
                size.count_works(steps, (*at, "steps"), inner, path)
        for group, outer in zip(groups, frames, strict=True):
            for one in group.frames:
                one.is_sure &= at not in outer.undecided
        return groups

    async def _in_order(self, steps: Mapping[str, Step], at: Path, groups: list[Group], path: str) -> None:
        # The items with one number in all groups are expanded together, each after the item that is its `previous`.
        longest = max((len(group.frames) for group in groups), default=0)
        for number in range(longest):
            row = [group.frames[number] for group in groups if number < len(group.frames)]
            for group in groups:
                if number < len(group.frames):
                    before = group.frames[number - 1] if number else None
                    names = ABSENT if before is None else maybe(before.names, before.by)
                    group.frames[number].names["previous"] = names
            await self._steps(steps, (*at, "steps"), row, path)
        for group in groups:
            for frame in group.frames:
                frame.names.pop("previous", None)


def _arguments(step: UseStep, frame: Frame) -> tuple[dict[str, Any], bool]:
    """Returns the arguments of a used file, and whether one of them is undecided and has a placeholder in its place."""
    found = {name: evaluate(value, frame) for name, value in step.with_.items()}
    undecided = {name: some for name, one in found.items() if (some := list(undecided_in(one)))}
    for name, some in undecided.items():
        by, value = deciders_of(some), certain(found[name])
        if not isinstance(value, dict | list | Items):
            found[name] = undecided_result([value], next(iter(by), None), "undecided:")
        elif isinstance(found[name], Maybe):  # one of several lists or mappings, such as the options of a reference
            found[name] = _undecided_parts(value, by)
    return found, bool(undecided)


def _undecided_parts(value: Any, by: Sequence[PlannedStep]) -> Any:
    if isinstance(value, dict):
        return {name: maybe(one, by) for name, one in value.items()}
    items = as_items(value)
    return replace(items, values=tuple(maybe(one, by) for one in items.values))


def _outputs(used: Checked, frame: Frame) -> StepOutput:
    outputs = {name: evaluate(value, frame) for name, value in used.file.outputs.items()}
    return StepOutput({name: one for name, one in outputs.items() if one is not ABSENT})


def _close(step: GroupStep, group: Group, frame: Frame) -> None:
    """Stores the names of an expanded item for steps that use the results of all items."""
    frame.names = {name: frame.names.get(name, ABSENT) for name in (*frame.names, *step.steps)}
    frame.is_sure &= group.chosen is None


def _wrong_parts(save_as: str | None, frame: Frame) -> list[str]:
    """Returns a clause for each value in `save_as` that cannot be one part of a path."""
    found = [*references_in(save_as)]
    values = ((one.text, lookup(one, frame)) for _, one in found)
    texts = ((text, value) for text, value in values if isinstance(value, str))
    parts = [f"{text} is '{value}', and in save_as {wrong}" for text, value in texts if (wrong := wrong_part(value))]
    return [*filter(None, (no_text(one, frame) for _, one in found)), *parts]


def _wrong_name(save_as: str | None, frame: Frame) -> list[str]:
    """Returns clauses that say why no file can have the name in `save_as`."""
    wrong = _wrong_parts(save_as, frame)
    if wrong or save_as is None or not is_too_long(name := _name(save_as, frame)):
        return wrong
    return [f"the name {visible(name)} has a part longer than 255 bytes; use a shorter name"]


def _name(template: str, frame: Frame) -> str:
    value = certain(evaluate(template, frame))
    return text_of(value) if isinstance(value, str | int | float) else f"<{mark(value)}>"
