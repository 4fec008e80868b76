"""How the addresses of two calls are compared, without the rules that use the comparison."""

from __future__ import annotations

from typing import Any

import pytest

from rh_prefect.works.journal.identity import Address, Likeness, Place, Step


def place(number: int = 1, *, in_order: bool = True, given: str | None = "g") -> Place:
    return Place(in_order=in_order, given=given, number=number)


def step(name: str = "shot", at: Place | None = None, **arguments: str | None) -> Step:
    return Step(name=name, place=at or place(), arguments=arguments)


@pytest.mark.parametrize(
    ("one", "two", "likeness"),
    [
        (place(2), place(2), "same"),
        (place(2, given=None), place(2, given=None), "same"),
        (place(1), place(2), "other"),
        (place(1, given=None), place(2, given=None), "unclear"),
        (place(1), place(1, given="h"), "unclear"),
        (place(1), place(1, given=None), "unclear"),
        (place(1), place(2, given="h"), "unclear"),
        (place(1), place(1, in_order=False), "unclear"),
        (place(1), place(2, in_order=False), "unclear"),
        (place(1, in_order=False), place(1, in_order=False), "unclear"),
        (place(1, in_order=False), place(2, in_order=False), "other"),
        (place(1, in_order=False, given=None), place(2, in_order=False, given=None), "unclear"),
    ],
)
def test_two_positions_are_equal_only_in_program_order(one: Place, two: Place, likeness: Likeness) -> None:
    assert (one.likeness(two), two.likeness(one)) == (likeness, likeness)


SAME, OTHER, UNCLEAR = place(1), place(2), place(1, given="h")


@pytest.mark.parametrize(
    ("steps", "call", "likeness"),
    [
        ([], SAME, "same"),
        ([], OTHER, "other"),
        ([], UNCLEAR, "unclear"),
        ([SAME, SAME], SAME, "same"),
        ([SAME, UNCLEAR], SAME, "unclear"),
        ([OTHER, UNCLEAR], UNCLEAR, "other"),
        ([UNCLEAR], OTHER, "other"),
    ],
)
def test_a_different_position_is_another_call_and_an_unclear_one_is_unclear(
    steps: list[Place], call: Place, likeness: Likeness
) -> None:
    mine = Address(steps=tuple(step() for _ in steps), place=place())
    theirs = Address(steps=tuple(step(at=one) for one in steps), place=call)
    assert mine.places_like(theirs) == likeness


@pytest.mark.parametrize(
    ("mine", "theirs", "exactly", "in_common"),
    [
        ({}, {}, "same", "same"),
        ({"x": "1"}, {"x": "1"}, "same", "same"),
        ({"x": "1"}, {"x": "2"}, "other", "other"),
        ({"x": "1"}, {"x": None}, "unclear", "unclear"),
        ({"x": None}, {"x": None}, "unclear", "unclear"),
        ({"x": None, "y": "1"}, {"x": "3", "y": "2"}, "other", "other"),
        ({"x": "1"}, {"x": "1", "mode": "d"}, "other", "same"),
        ({"x": "1"}, {"x": "2", "mode": "d"}, "other", "other"),
        ({"x": "1"}, {"y": "1"}, "other", "same"),
    ],
)
def test_arguments_are_compared_by_name(
    mine: dict[str, Any], theirs: dict[str, Any], exactly: Likeness, in_common: Likeness
) -> None:
    one, two = Address(steps=(step(**mine),)), Address(steps=(step(**theirs),))
    assert one.arguments_like(two, common_only=False) == exactly
    assert one.arguments_like(two, common_only=True) == in_common


def test_addresses_of_different_depth_are_not_compared() -> None:
    deep, flat = Address(steps=(step(),)), Address()
    with pytest.raises(ValueError, match="shorter"):
        deep.places_like(flat)
    with pytest.raises(ValueError, match="shorter"):
        deep.arguments_like(flat, common_only=True)


def test_an_address_lists_its_runs_from_the_outermost_one() -> None:
    address = Address(steps=(step("night", place(4)), step("shot", place(2, in_order=False))), place=place(3))
    assert address.names == ("night", "shot")
    assert (*(step.place.number for step in address.steps), address.place.number) == (4, 2, 3)
    assert str(address) == "night #4 > shot #2? > call #3"
    assert str(Address()) == "call #1?"


def test_the_digest_of_an_address_is_stable() -> None:
    """Another digest would make each paid job of a resumed run a new job."""
    assert Address().digest == "105f37306065"
    assert Address(steps=(step(x="1"),), place=place(3)).digest == "6660e6bd92a2"
    assert len(Address(steps=(step("half an emoji \ud83d"),)).digest) == 12
