"""Creates the items of a fan-out from rows, files, lists, answers or a matrix; selects, orders and names the items."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, count, dropwhile, product
from math import prod
from typing import Any

from rh_prefect.media.file_name_templates import folded
from rh_prefect.pipelines.check.checked_file import Checked
from rh_prefect.pipelines.conditions import truth
from rh_prefect.pipelines.evaluation import evaluate, part, results, wrong_texts
from rh_prefect.pipelines.file_model import FanOutStep, GroupStep, Step
from rh_prefect.pipelines.parsed_document import Path, visible
from rh_prefect.pipelines.plan.part_data import Findings
from rh_prefect.pipelines.plan.planned_steps import PlannedStep, Work, id_part
from rh_prefect.pipelines.plan.planning import Planning
from rh_prefect.pipelines.plan.size_limits import MOST_STEPS, PlanTooLarge, Size, count_of
from rh_prefect.pipelines.plan.undecided_steps import condition_steps, is_open, is_unmade, undecided_parts
from rh_prefect.pipelines.plan.work_identity import mark, without_places
from rh_prefect.pipelines.planning_values import (
    ABSENT,
    File,
    Frame,
    Group,
    Items,
    Maybe,
    Span,
    Unknown,
    as_items,
    certain,
    characters,
    content,
    deciders_of,
    digest,
    makers,
    maybe,
    number_of,
    problems_of,
)
from rh_prefect.pipelines.references import references_in


@dataclass(slots=True, eq=False, repr=False)
class _Taken:
    frames: list[Frame]  # The items
    doubtful: set[Frame] = field(default_factory=set)  # The items whose existence or position is not known yet
    may_change: bool = False  # Whether other items may take their places


class FanOuts:
    """Counts and makes the items of the fan-outs in one plan."""

    def __init__(self, planning: Planning, findings: Findings) -> None:
        self._planning, self._missing, self._findings = planning, planning.missing, findings

    def count(self, step: FanOutStep, at: Path, frame: Frame, path: str, size: Size) -> int:
        """Returns the maximum number of items of a fan-out in one frame, by its lists and `limit`; creates no items."""
        if step.matrix is not None:
            number, key = prod(len(one.values) for one in _matrix_lists(step, frame).values()), "matrix"
        else:
            number, key = len(_list_of(step, frame).values), "foreach"
        size.items[path] += number
        if size.items[path] > MOST_STEPS:
            raise PlanTooLarge(
                (*at, key),
                f"before `where` and `limit`, {path} has {size.items[path]} items, but at most {MOST_STEPS} are "
                f"allowed; shorten the lists of {path}, or use `limit` or `where` in its enclosing groups",
            )
        limit, _ = count_of("limit", step.limit, frame)
        return number if limit is None else min(number, limit)

    def count_all(self, steps: Mapping[str, Step], at: Path, frames: Sequence[Frame], path: str, size: Size) -> None:
        """Counts the items of the fan-outs among the given steps, as far as their lists are known."""
        for name, step in steps.items():
            if isinstance(step, FanOutStep) and step.when is None:
                for frame in frames:
                    self.count(step, (*at, name), frame, f"{path}.{name}", size)
            elif isinstance(step, GroupStep) and step.when is None:
                self.count_all(step.steps, (*at, name, "steps"), frames, f"{path}.{name}", size)

    def group(self, step: GroupStep, at: Path, frame: Frame, path: str, checked: Checked) -> Group:
        """Returns the items of a group for one item of the group around it; a group without fan-out has one item."""
        if not isinstance(step, FanOutStep):
            waits_for = self._missing.waits_for(step, frame)
            pending, by = is_open(step, frame, waits_for), frame.undecided.get(at)
            one = Frame(frame, {}, frame.id, frame.is_sure, frame.row, pending, waits_for, by=by)
            one.numbers, one.meaning, one.is_named = frame.numbers, frame.meaning, frame.is_named
            return Group([one], is_fan_out=False)
        lists = _matrix_lists(step, frame) if step.matrix is not None else {"item": _list_of(step, frame)}
        items = self._taken(step, lists, frame)
        gaps = self._gaps(step, at, frame, path, checked)
        for one in items.frames:
            one.problems = [*one.problems, *gaps]
        self._select(step, at, items, checked)
        self._sort(step, items)
        limit = self._limit(step, at, frame, path, checked)
        chosen = limit if self._cut(step, items, limit) else None
        for number, one in enumerate(items.frames, 1):
            one.names["number"], one.numbers = number, (*frame.numbers, number)
            unnamed = _name_item(step, one, frame)
            one.is_named = frame.is_named and unnamed is None
            if unnamed is not None:
                items.may_change = True
                # Its steps have no address before, and so no take. It is not pending: it certainly exists, and counts.
                one.waits_for = list(dict.fromkeys([*one.waits_for, *filter(None, [unnamed.maker])]))
            if at in frame.undecided:
                one.wait_for(frame.undecided[at])
        if items.may_change:
            self._findings.of(frame.numbers).open_fan_outs[path] = not frame.id
        self._check_ids(step, at, items.frames, path, frame, checked)
        _set_meanings(items.frames, frame)
        return Group(items.frames, is_fan_out=True, chosen=chosen, count=_size_of(lists, len(items.frames)))

    def _taken(self, step: FanOutStep, lists: Mapping[str, Items], frame: Frame) -> _Taken:
        """Returns all items of a fan-out, each with the steps for which it waits."""
        waits_for = self._missing.waits_for(step, frame)
        pending = is_open(step, frame, waits_for)
        frames = _matrix_of(lists, frame) if step.matrix is not None else _items_of(step, lists["item"], frame)
        is_answer, items = any(one.is_pending for one in frames), _Taken(frames)
        for one in frames:
            lost = [maker for maker in makers(one.names) if maker.address in self._missing.lost]
            waits = [*waits_for, *lost, *(one.by or ()), *condition_steps(step.where, one)]
            one.waits_for = list(dict.fromkeys(waits))
            one.is_pending |= pending or one.by is not None or is_unmade(one.waits_for)
            one.is_sure &= one.by is None
            if not is_answer and (one.by is not None or (frame.is_sure and not one.is_sure)):
                items.doubtful.add(one)
        written = (one for _, one in references_in([step.foreach, step.matrix]))
        undecided = undecided_parts(written, frame, self._missing)
        items.may_change = is_answer or bool(undecided)
        return items

    def _select(self, step: FanOutStep, at: Path, items: _Taken, checked: Checked) -> None:
        """Keeps the items for which `where` is true or not known yet."""
        if step.where is None:
            return
        found = list[Frame]()
        for one in items.frames:
            holds = truth(step.where, one)
            if holds is None:
                wrong = self._findings.not_numbers(checked, step.where, (*at, "where"), one)
                one.problems = [*one.problems, *wrong]
            if holds is not False or one.problems:  # the steps of an item with problems fail
                found.append(one)
            if holds is None:
                one.is_sure, one.is_pending = one.is_sure and bool(one.problems), one.is_pending or not one.problems
                one.wait_for(condition_steps(step.where, one))
                items.doubtful.add(one)
        items.frames = found

    def _sort(self, step: FanOutStep, items: _Taken) -> None:
        """Orders the items; while the order is not known, all items wait."""
        if step.sort is None:
            return
        if _is_order_known(items.frames, step.sort.by, self._missing):
            items.frames = _ordered(items.frames, step.sort.by, descending=step.sort.descending)
            return
        order = list(makers([part(one.names.get("item"), step.sort.by) for one in items.frames]))
        for one in items.frames:
            one.is_pending = True
            one.wait_for(order)
            items.doubtful.add(one)

    def _cut(self, step: FanOutStep, items: _Taken, limit: int | None) -> bool:
        """Keeps the items that `limit` may select; returns whether the selection is not known yet."""
        self._hold_back(step, items.frames)
        items.frames = _candidates(items.frames, limit, items.doubtful)
        if limit is None or len(items.frames) <= limit:
            return False
        items.may_change = True
        # Each once: after `sort`, every item has all steps of the others
        deciders = dict.fromkeys(step for one in items.frames if one in items.doubtful for step in one.by or ())
        for one in items.frames[limit:]:
            one.wait_for(deciders)
        return True

    def _hold_back(self, step: FanOutStep, frames: Sequence[Frame]) -> None:
        """Makes items wait for earlier items that may be absent, if ids or steps use the numbers of items."""
        failed = self._missing  # what waits for a failed step stays undecided, and keeps its number
        after = dropwhile(lambda one: one.by is None or any(step in failed for step in _deciders(one)), frames)
        behind = list(after)[1:]
        if behind and (step.id is None or "number" in step.names):
            decide = [
                step for step in dict.fromkeys(step for one in frames for step in one.by or ()) if step not in failed
            ]
            for one in behind:
                one.is_pending = True
                # A tuple, which the steps of the item have in common
                one.waits_for = tuple(dict.fromkeys([*one.waits_for, *decide]))

    def _gaps(self, step: FanOutStep, at: Path, frame: Frame, path: str, checked: Checked) -> list[str]:
        """Returns a clause for each gap in a text of the lists, if only the items fail; reports other gaps."""
        if frame.problems_around:  # the steps of the items fail already
            return []
        lists = (("foreach", step.foreach), ("matrix", step.matrix))
        found = [(key, clause) for key, written in lists for clause in wrong_texts(written, frame)]
        if frame.id and self._planning.skips_items:
            return [clause for _, clause in found]
        for key, clause in found:
            address = PlannedStep(path, frame.id, step, at).address if frame.id else ""
            self._findings.wrong(frame.numbers, checked, (*at, key), clause, address)
        return []

    def _limit(self, step: FanOutStep, at: Path, frame: Frame, path: str, checked: Checked) -> int | None:
        limit, wrong = count_of("limit", step.limit, frame)
        if wrong and not any(maker.address in self._missing.lost for maker in makers(evaluate(step.limit, frame))):
            address = PlannedStep(path, frame.id, step, at).address if frame.id else ""
            self._findings.wrong(frame.numbers, checked, (*at, "limit"), wrong, address)
        return limit

    def _check_ids(
        self, step: FanOutStep, at: Path, frames: list[Frame], path: str, outer: Frame, checked: Checked
    ) -> None:
        key = folded if self._planning.skips_items and _names_files(step) else str
        alike = defaultdict[str, list[Frame]](list)
        for one in frames:
            alike[key(one.id)].append(one)
        twice, taken = [group for group in alike.values() if len(group) > 1], set(alike)
        for group in twice:
            # Stems of files in several folders, or a model's answers, may be equal: a number distinguishes them.
            for one in group[1:]:
                own, number = one.names["id"], count(one.numbers[-1])
                base = one.numbers[-1] if isinstance(own, Unknown) else own
                while key(one.id) in taken:
                    _rename(one, f"{base}-{next(number)}", outer)
                taken.add(key(one.id))
                one.names["id"] = own if isinstance(own, Unknown) else one.names["id"]
                one.is_numbered = True
        if not twice or step.id is None or self._planning.skips_items:
            return
        rows = [one.row for one in twice[0] if one.row]
        where = f" ({' and '.join(rows[:2])})" if len(rows) > 1 else ""
        name = visible(twice[0][0].id)
        message = f"{len(twice[0])} items of {path} have the id {name}{where}; each item needs a different id"
        self._findings.wrong(outer.numbers, checked, (*at, "id"), message)


def _names_files(step: GroupStep) -> bool:
    """Returns whether ids, and no numbers of items, are parts of the names of files."""
    for one in step.steps.values():
        if isinstance(one, GroupStep) and not isinstance(one, FanOutStep) and _names_files(one):
            return True
        names = {option[0] for reference in one.named_by for option in reference.options}
        if "id" in names and "number" not in names:
            return True
    return False


def _deciders(frame: Frame) -> tuple[PlannedStep, ...]:
    return (*(frame.by or ()), *frame.waits_for)


def _size_of(lists: Mapping[str, Items], size: int) -> Unknown | None:
    """Returns the unknown number of items if one of the lists is not known yet; None otherwise."""
    count = next((one.count for one in lists.values() if one.count is not None), None)
    if count is None:
        return None
    return Unknown("integer", f"count:{digest([count.key, size])}", Span(0, size, size), count.maker)


def _list_of(step: FanOutStep, frame: Frame) -> Items:
    return _given_items(evaluate(step.foreach, frame))


def _given_items(given: Any) -> Items:
    """Returns the items of a list; if the list may be absent, each item may be absent."""
    value, by = content(given), given.by if isinstance(given, Maybe) else None
    items = as_items(value) if isinstance(value, Items | list) else Items(())
    return items if by is None else replace(items, values=tuple(maybe(one, by) for one in items.values))


def _items_of(step: FanOutStep, items: Items, frame: Frame) -> list[Frame]:
    """Returns the items of `foreach`, each with its names for references."""
    found = []
    for given, _, is_sure in items.pairs():
        one, by = certain(given), given.by if isinstance(given, Maybe) else None
        names = {"item": one, **({step.as_: one} if step.as_ else {})}
        row = one.get("\0row", "") if isinstance(one, dict) else ""
        is_pending = items.count is not None
        item = Frame(frame, names, is_sure=frame.is_sure and is_sure, row=row, is_pending=is_pending, by=by)
        item.problems = problems_of(one)
        found.append(item)
    return found


def _matrix_lists(step: FanOutStep, frame: Frame) -> dict[str, Items]:
    return {name: _given_items(evaluate(value, frame)) for name, value in (step.matrix or {}).items()}


def _matrix_of(lists: Mapping[str, Items], frame: Frame) -> list[Frame]:
    """Returns the items of `matrix`: all combinations of the values of its lists."""
    found, is_pending = [], any(one.count is not None for one in lists.values())
    for combined in product(*(zip(results(one), one.pairs(), strict=True) for one in lists.values())):
        values = {name: certain(value) for name, (value, _) in zip(lists, combined, strict=True)}
        is_sure = frame.is_sure and all(is_sure for _, (_, _, is_sure) in combined)
        undecided = [value for value, _ in combined if isinstance(value, Maybe)]
        by = tuple(deciders_of(undecided)) if undecided else None
        found.append(Frame(frame, {"matrix": values}, is_sure=is_sure, is_pending=is_pending, by=by))
    return found


def _set_meanings(frames: Sequence[Frame], outer: Frame) -> None:
    """Sets the hash of each item whose number is in an address; equal items are counted, so that each has another."""
    times = Counter[str]()
    for one in frames:
        if one.is_numbered or outer.meaning:
            own = without_places(mark(one.names.get("item"))) if one.is_numbered else mark(one.names["id"])
            found = digest([outer.meaning, own])
            times[found] += 1
            one.meaning = (found if times[found] == 1 else digest([found, times[found]]))[:8]


def _name_item(step: FanOutStep, one: Frame, outer: Frame) -> Unknown | None:
    """Sets an item's id (`id`, else matrix values, the file's stem or the number); returns the id if it is unknown."""
    source: list[Any] = []
    if step.id is not None:
        given = evaluate(step.id, one)
        if isinstance(given, Maybe):
            given = Unknown("string", f"id:{digest(mark(given))}", maker=next(iter(given.by), None))
        source = [given]
    elif "matrix" in one.names:
        source = [part(value, "stem") if isinstance(value, File) else value for value in one.names["matrix"].values()]
    elif isinstance(one.names["item"], File):
        source = [part(one.names["item"], "stem")]
    is_known = not any(isinstance(value, Unknown | File) or value is ABSENT for value in source)
    name = "-".join(str(mark(value)) for value in source) if is_known else ""
    options = (option for _, reference in references_in(step.id) for option in reference.options)
    one.is_numbered = not name or any(option[0] == "number" for option in options)
    name = name or str(one.numbers[-1])
    _rename(one, name, outer)
    # An expiring id of the site, which is known by what is sent, never becomes a part of an address.
    unmade = next((value for value in source if isinstance(value, Unknown) and value.sent is None), None)
    if unmade is not None:
        # The address has the number until then.
        one.names["id"] = Unknown("string", f"id:{digest(list(map(mark, source)))}", characters(unmade), unmade.maker)
    return unmade


def _rename(one: Frame, name: str, outer: Frame) -> None:
    """Sets the id of an item, as a name for references and as a part of addresses."""
    one.names["id"] = name
    one.id = f"{outer.id}/{id_part(name)}" if outer.id else id_part(name)


def _candidates(frames: list[Frame], limit: int | None, doubtful: Collection[Frame]) -> list[Frame]:
    """Returns the items that `limit` may select; if an earlier item may be absent, a later one may take its place."""
    if limit is None:
        return frames
    found, sure = list[Frame](), 0
    for one in frames:
        if sure >= limit:
            break
        one.is_pending |= len(found) >= limit
        found.append(one)
        sure += one not in doubtful
    return found


def mark_chosen(fan_outs: Sequence[tuple[str, Group]], instances: Sequence[PlannedStep]) -> None:
    """Marks which items' works count in the minimum and in the maximum price, if `limit` may select different items.

    A work that several steps share counts in the maximum price, but in the minimum price only if it is certainly made.
    """
    users = Counter(work.key for one in instances for work in one.works)
    by_item = _steps_by_item(instances) if fan_outs else {}
    choices = [
        (group.chosen, {each.id: _steps_below(path, by_item.get(each.id, ())) for each in group.frames})
        for path, group in fan_outs
    ]
    inside = {id(one) for _, items in choices for steps in items.values() for one in steps}
    sure = {work.key for one in instances if one.is_sure and id(one) not in inside for work in one.works}
    for chosen, items in choices:
        own: dict[str, list[Work]] = {}
        for name, steps in items.items():
            works = [work for one in steps for work in one.works if work.is_paid]
            own[name] = [work for work in works if users[work.key] == 1]
            for work in works:
                work.is_sure &= users[work.key] == 1 or work.key in sure
        least = {name: sum(work.price.least for work in works if work.is_sure) for name, works in own.items()}
        most = {name: sum(work.price.most for work in works if not work.is_spare) for name, works in own.items()}
        cheapest = set(sorted(own, key=lambda name: least[name])[:chosen])
        dearest = set(sorted(own, key=lambda name: most[name], reverse=True)[:chosen])
        for name, works in own.items():
            for work in works:
                work.is_sure &= name in cheapest
                work.is_spare |= name not in dearest


def _steps_by_item(instances: Sequence[PlannedStep]) -> dict[str, list[PlannedStep]]:
    """Returns the steps of each item of all fan-outs, including those of its inner fan-outs."""
    found = defaultdict[str, list[PlannedStep]](list)
    for one in instances:
        for name in accumulate(one.item.split("/"), "{}/{}".format):
            found[name].append(one)
    return found


def _steps_below(path: str, steps: Iterable[PlannedStep]) -> list[PlannedStep]:
    return [one for one in steps if one.path.startswith(f"{path}.")]


def _is_order_known(frames: list[Frame], column: str, failed: Container[PlannedStep]) -> bool:
    """Returns whether the values for sorting are known, except those of failed steps, which come last."""
    unknown = [value for one in frames if isinstance(value := part(one.names.get("item"), column), Unknown)]
    return len(frames) < 2 or not any(value.maker is None or value.maker not in failed for value in unknown)


def _ordered(frames: list[Frame], column: str, *, descending: bool) -> list[Frame]:
    """Returns the items in the order of a column; items without a value come last."""

    def key(frame: Frame) -> tuple[bool, float, str]:
        value = part(frame.names.get("item"), column)
        number = number_of(value) if not isinstance(value, Unknown) else None
        is_missing = value is ABSENT or isinstance(value, Unknown)
        return is_missing is not descending, number.expected if number else 0.0, "" if is_missing else str(mark(value))

    return sorted(frames, key=key, reverse=descending)
