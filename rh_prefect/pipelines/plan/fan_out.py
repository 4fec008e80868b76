"""The items of a fan-out: from rows, files, lists, answers or a matrix; selected, ordered and named."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal
from itertools import product
from typing import Any

from rh_prefect.pipelines.conditions import truth
from rh_prefect.pipelines.file_model import Step
from rh_prefect.pipelines.plan.identity import mark
from rh_prefect.pipelines.plan.planned_steps import Instance, id_part
from rh_prefect.pipelines.planning_values import (
    ABSENT,
    File,
    Frame,
    Group,
    Items,
    Made,
    Unknown,
    evaluate,
    number_of,
    part,
    results,
)
from rh_prefect.pipelines.references import references_in


def is_selected(step: Step, frame: Frame) -> bool:
    """Whether `where` is true for an item; an item for which that is unknown is kept as uncertain."""
    found = truth(step.where, frame)
    frame.is_sure &= found is True
    frame.is_pending |= found is None
    return found is not False


def items_of(step: Step, frame: Frame) -> list[Frame]:
    """Returns the items of `foreach`, each with the names that it can reference."""
    value = evaluate(step.foreach, frame)
    if isinstance(value, Made):
        value = value.value
    items = value if isinstance(value, Items) else Items(tuple(value) if isinstance(value, list) else ())
    return [
        Frame(
            frame,
            {"item": one, **({step.as_: one} if step.as_ else {})},
            is_sure=frame.is_sure and is_sure,
            row=one.get("\0row", "") if isinstance(one, dict) else "",
            is_pending=items.count is not None,
        )
        for one, _, is_sure in items.pairs()
    ]


def matrix_of(step: Step, frame: Frame) -> list[Frame]:
    """The items of `matrix`: all combinations of its lists."""
    lists = {name: evaluate(value, frame) for name, value in (step.matrix or {}).items()}
    found = []
    for pairs in product(*map(_certainties, lists.values())):
        values = dict(zip(lists, (value for value, _ in pairs), strict=True))
        is_sure = all(is_sure for _, is_sure in pairs)
        found.append(Frame(frame, {"matrix": values}, is_sure=frame.is_sure and is_sure, is_pending=not is_sure))
    return found


def _certainties(listed: Any) -> list[tuple[Any, bool]]:
    """Returns the values of a list, each with whether it is there in the cheapest course of the run, too."""
    if isinstance(listed, Items):
        return [(value, is_sure) for value, (_, _, is_sure) in zip(results(listed), listed.pairs(), strict=True)]
    return [(value, True) for value in listed]


def name_item(step: Step, one: Frame, outer: Frame) -> bool:
    """Sets an item's id: the value of `id`, else the matrix values, the file's stem, or the item's number.

    Returns:
        Whether the id stays; it changes when a step has made the value that it is taken from.
    """
    source: list[Any] = []
    if step.id is not None:
        name = evaluate(step.id, one)
        source = [name]
        name = "" if isinstance(name, Unknown | File) or name is ABSENT else str(name)
    elif "matrix" in one.names:
        source = list(one.names["matrix"].values())
        name = "-".join(str(mark(value)) for value in source)
    else:
        stem = part(one.names["item"], "stem") if isinstance(one.names.get("item"), File) else ABSENT
        source = [stem]
        name = stem if isinstance(stem, str) else ""
    name = name or str(one.number)
    rename(one, name, outer)
    return not any(isinstance(value, Unknown) for value in source)


def rename(one: Frame, name: str, outer: Frame) -> None:
    """Gives an item an id, and the part of addresses that is made of it.

    Args:
        one: The item.
        name: Its id.
        outer: The frame around it.
    """
    one.names["id"] = name
    one.id = f"{outer.id}/{id_part(name)}" if outer.id else id_part(name)


def uses_previous(step: Step) -> bool:
    """Checks whether anything in a group refers to the previous item, so that items must run in order."""
    return any(
        option[0] == "previous"
        for _, one in step.walk(())
        for _, reference in references_in(one.model_dump(exclude={"steps"}))
        for option in reference.options
    )


def candidates(frames: list[Frame], limit: int | None, doubtful: Sequence[Frame]) -> list[Frame]:
    """Returns the items that `limit` can leave; those behind the first ones are kept while earlier ones are doubtful.

    Args:
        frames: The items in their order.
        limit: The most items.
        doubtful: The items of which it is not known yet whether, or where in the order, they are there.
    """
    found, sure = list[Frame](), 0
    for one in frames:
        if limit is not None and sure >= limit:
            break
        if limit is not None and len(found) >= limit:
            one.is_sure, one.is_pending = False, True
        found.append(one)
        sure += all(one is not each for each in doubtful)
    return found


def mark_spare(group: Group, instances: Sequence[Instance]) -> None:
    """Marks the steps of the items that are not the dearest selection; a work of two items could make another one so.

    Args:
        group: Its items may be more than there will be.
        instances: The steps of its items.
    """
    steps = {frame.id: list[Instance]() for frame in group.frames}
    for frame in group.frames:
        frame.is_sure = False
        steps[frame.id] = [one for one in instances if one.item == frame.id or one.item.startswith(f"{frame.id}/")]
    works = {name: {work.key: work for one in of for work in one.works} for name, of in steps.items()}
    if sum(map(len, works.values())) > len({key for of in works.values() for key in of}):
        return
    prices = {
        name: sum((work.price.most for work in of.values() if work.is_paid), Decimal(0)) for name, of in works.items()
    }
    for name in sorted(prices, key=lambda name: prices[name], reverse=True)[group.chosen :]:
        for one in steps[name]:
            one.is_spare = True


def is_order_known(frames: list[Frame], column: str, failed: Collection[str]) -> bool:
    """Checks whether the values that items are sorted by are known, except those of failed steps, which come last.

    Args:
        frames: The items.
        column: The field.
        failed: The addresses of failed steps.
    """
    unknown = [value for one in frames if isinstance(value := part(one.names.get("item"), column), Unknown)]
    return len(frames) < 2 or not any(value.maker is None or value.maker.address not in failed for value in unknown)


def ordered(frames: list[Frame], column: str, *, descending: bool) -> list[Frame]:
    """Items in the order of a column; those without a value come last."""

    def key(frame: Frame) -> tuple[bool, float, str]:
        value = part(frame.names.get("item"), column)
        number = number_of(value) if not isinstance(value, Unknown) else None
        is_missing = value is ABSENT or isinstance(value, Unknown)
        return is_missing is not descending, number.expected if number else 0.0, "" if is_missing else str(value)

    return sorted(frames, key=key, reverse=descending)
