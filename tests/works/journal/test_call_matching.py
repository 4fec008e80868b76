"""Which record a call matches: each rule, then their guarantee for any order of the calls."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from rh_prefect.works.journal.call_matching import Equal, Match, RecordedCall, find_record
from rh_prefect.works.journal.identity import Address, Place, Step
from tests.support.each_case import each_case

V1, V2 = "before", "after an edit"


def place(number: int = 1, *, in_order: bool = True, given: str | None = "g") -> Place:
    return Place(in_order=in_order, given=given, number=number)


def step(name: str, number: int = 1, *, in_order: bool = True, **arguments: str | None) -> Step:
    return Step(name=name, place=place(number, in_order=in_order), arguments=arguments)


def at(*steps: Step, number: int = 1, in_order: bool = True) -> Address:
    return Address(steps=steps, place=place(number, in_order=in_order))


def recorded(*addresses: Address, version: str = V1, taken: Sequence[int] = ()) -> list[RecordedCall]:
    return [
        RecordedCall(f"job-{n}", address, version, n, taken_at=address if n in taken else None)
        for n, address in enumerate(addresses, 1)
    ]


def find(call: Address, records: list[RecordedCall], *, version: str = V1, equal: Equal = "refuse") -> tuple[str, str]:
    match: Match = find_record(call, records, version=version, equal=equal)
    return match.verdict, match.record.key if match.record else ""


def test_each_of_several_equal_calls_finds_the_call_at_its_address() -> None:
    records = recorded(at(number=1), at(number=2), at(number=3))
    assert find(at(number=2), records) == ("found", "job-2")


def test_a_second_call_at_one_address_in_one_attempt_is_repeated() -> None:
    records = recorded(at(in_order=False), taken=[1])
    assert find(at(in_order=False), records) == ("repeated", "job-1")


def test_a_second_call_at_an_address_is_repeated_if_the_first_has_moved() -> None:
    now = at(step("helper"), in_order=False)
    moved = RecordedCall("job-1", at(), V1, taken_at=now)
    assert find(now, [moved], version=V2) == ("repeated", "job-1")
    others = [moved, *recorded(at(number=2), at(number=3))[1:]]
    assert find(now, others, version=V2, equal="by order") == ("found", "job-2")


def concurrent(number: int, *, within: int = 1, beside: int = 1) -> Address:
    """A call of a child flow from an asyncio task of the caller."""
    counted = Place(given="g", number=within, concurrent=beside)
    return Address(steps=(Step(name="film", place=counted),), place=place(number))


def test_a_concurrent_child_flow_is_found_by_its_own_count() -> None:
    records = recorded(concurrent(1, within=1, beside=1), concurrent(1, within=2, beside=3))
    assert find(concurrent(1, within=1, beside=3), records) == ("found", "job-1")
    assert find(concurrent(1, within=2, beside=1), records) == ("found", "job-2")
    assert find(concurrent(1, within=3, beside=1), records) == ("unclear", "job-1")
    assert find(concurrent(2, within=1, beside=1), records) == ("new", "")


def test_a_child_flow_that_another_asyncio_task_calls_now_is_refused() -> None:
    records = recorded(concurrent(1, within=1, beside=1), concurrent(1, within=2, beside=2))
    first, second = concurrent(1, within=1, beside=1), concurrent(1, within=1, beside=2)
    assert find(first, records) == ("found", "job-1")
    taken = [RecordedCall("job-1", records[0].address, V1, 1, taken_at=first), records[1]]
    assert find(second, taken) == ("unclear", "job-2")


def test_equal_child_flows_of_several_asyncio_tasks_are_refused_in_a_later_attempt() -> None:
    records = recorded(concurrent(1, beside=1), concurrent(1, beside=2))
    assert find(concurrent(1, beside=1), records) == ("unclear", "job-1")
    assert find(concurrent(1, beside=3), records) == ("unclear", "job-1")
    assert find(concurrent(1, beside=3), records, equal="by order") == ("found", "job-1")
    assert find(concurrent(1, beside=3), recorded(concurrent(1), concurrent(1, beside=3), taken=[1, 2])) == (
        "repeated",
        "job-2",
    )
    assert find(concurrent(1, beside=3), recorded(concurrent(1), taken=[1])) == ("new", "")


def test_another_equal_call_of_the_same_program_is_a_new_job() -> None:
    assert find(at(number=3), recorded(at(number=1), at(number=2))) == ("new", "")


def test_an_equal_call_of_another_branch_is_a_new_job() -> None:
    records = recorded(at(step("branch", x="1")), at(step("branch", x="2")))
    assert find(at(step("branch", x="3")), records) == ("new", "")


def test_a_branch_that_was_moved_is_found_by_its_arguments() -> None:
    records = recorded(at(step("branch", 1, x="1")), at(step("branch", 2, x="2")))
    moved = at(Step(name="branch", place=place(3, given=None), arguments={"x": "2"}))
    assert find(moved, records) == ("found", "job-2")


def test_incomparable_arguments_are_matched_by_position() -> None:
    records = recorded(at(step("branch", 1, client=None)), at(step("branch", 2, client=None)))
    assert find(at(step("branch", 2, client="5")), records) == ("found", "job-2")


def test_the_only_address_of_a_request_has_moved() -> None:
    """An edit may change an argument, a name or the depth; otherwise only values that are not compared may differ."""
    was = at(step("branch", 4, at=None))
    for now in (at(step("branch", 5, at="10:05")), at(step("other")), at(), at(step("a"), step("b"))):
        assert find(now, recorded(was), version=V2) == ("moved", "job-1")
    moved = at(Step(name="branch", place=place(9, given=None), arguments={"at": "10:05"}), number=3)
    assert find(moved, recorded(was)) == ("moved", "job-1")


@pytest.mark.parametrize("now", [at(step("cover")), at(step("poster", x="2")), at()])
def test_the_same_program_gives_no_job_to_another_task_or_branch(now: Address) -> None:
    """Another task, or the branch with other arguments, may make an equal call: it must not get this call's result."""
    was = at(step("poster", x="1"))
    assert find(now, recorded(was)) == ("unclear", "job-1")
    assert find(now, recorded(was), equal="new") == ("new", "")
    assert find(now, recorded(was), equal="by order") == ("found", "job-1")


@pytest.mark.parametrize("version", [V1, V2])
def test_the_first_of_equal_calls_does_not_get_the_job_of_the_second(version: str) -> None:
    """Branch 1 had made no call when the first attempt was interrupted: it must not get the job of branch 2."""
    assert find(at(number=1), recorded(at(number=2)), version=version) == ("new", "")


def test_a_call_with_incomparable_arguments_is_new_at_a_new_position() -> None:
    records = [
        RecordedCall(f"job-{n}", at(Step(name="b", place=place(n, given=None), arguments={"c": None}))) for n in (1, 2)
    ]
    call = at(Step(name="b", place=place(3, given=None), arguments={"c": None}))
    assert find(call, records, version="") == ("new", "")
    assert find(call, records, version=V2) == ("unclear", "job-1")


def test_equal_branches_of_a_task_with_a_client_keep_their_own_jobs() -> None:
    around = Step(name="shot", place=place(1, given=None), arguments={"client": None})
    records = recorded(at(around, step("take", 1)))
    assert find(at(around, step("take", 2)), records) == ("new", "")
    assert find(at(around, number=2), recorded(at(around))) == ("new", "")
    assert find(at(around, step("take", 1)), records) == ("found", "job-1")


def test_a_renamed_task_is_found_after_an_edit_only() -> None:
    records = recorded(at(step("branch", 1, x="1")), at(step("branch", 2, x="2")))
    renamed = at(step("shot", 2, x="2"))
    assert find(renamed, records, version=V2) == ("renamed", "job-2")
    assert find(renamed, records, version=V1) == ("new", "")


def test_an_added_default_does_not_change_a_call() -> None:
    records = recorded(at(step("branch", 1, x="1")), at(step("branch", 2, x="2")))
    added = at(step("branch", 2, x="2", mode="d"))
    assert find(added, records, version=V2) == ("found", "job-2")
    assert find(added, records, version=V1) == ("new", "")


def test_equal_calls_that_were_moved_into_a_helper_are_refused() -> None:
    records = recorded(at(number=1), at(number=2))
    wrapped = at(step("helper", 2))
    assert find(wrapped, records, version=V2) == ("unclear", "job-1")
    assert find(wrapped, records, version=V2, equal="new") == ("new", "")
    assert find(wrapped, records, version=V2, equal="by order") == ("found", "job-1")
    assert find(wrapped, recorded(at(number=1), at(number=2), taken=[1]), version=V2, equal="by order") == (
        "found",
        "job-2",
    )


def test_matching_by_position_uses_only_the_call_at_the_position() -> None:
    two = step("branch", 2, x=None)
    records = recorded(at(step("branch", 1, x="1")), at(two), at(two, number=2))
    call = at(Step(name="shot", place=place(2), arguments={"x": None}))
    assert find(call, records, version=V2, equal="by place") == ("found", "job-2")
    unclear = at(Step(name="shot", place=place(9, given=None), arguments={"x": None}))
    assert find(unclear, records, version=V2) == ("unclear", "job-1")
    assert find(unclear, records, version=V2, equal="by place") == ("new", "")


def test_a_call_of_another_process_of_the_attempt_is_found_only_by_its_address() -> None:
    there = at(step("branch", 1, x="1"))
    records = [RecordedCall("job-1", there, V1, is_elsewhere=True)]
    assert find(there, records) == ("found", "job-1")
    assert find(at(step("branch", 1, x="2")), records) == ("new", "")


def test_each_call_finds_its_own_job_in_any_order_of_the_calls() -> None:
    """Random trees of calls, made in one order, interrupted anywhere, and made in another order."""
    with each_case() as case:
        for seed in range(300):
            with case(f"seed {seed}"):
                chance = random.Random(seed)
                calls = _tree(chance)
                made = chance.sample(calls, len(calls))[: chance.randint(1, len(calls))]
                records = recorded(*made)
                taken: dict[str, Address] = {}
                for call in chance.sample(calls, len(calls)):
                    state = [
                        RecordedCall(one.key, one.address, one.version, one.order, taken.get(one.key))
                        for one in records
                    ]
                    match = find_record(call, state, version=V1)
                    if call in made:
                        assert match.verdict == "found" and match.record is not None and match.record.address == call
                        taken[match.record.key] = call
                    else:
                        # A request of only one address: it may be that one's, and is refused.
                        assert match.verdict == "new" or (match.verdict == "unclear" and len(made) == 1)


def _tree(chance: random.Random) -> list[Address]:
    """Calls with one request in a random program; no two have equal addresses."""
    calls: list[Address] = []
    for _ in range(chance.randint(1, 8)):
        steps = tuple(
            step(chance.choice("ab"), chance.randint(1, 3), x=str(chance.randint(1, 3)))
            for _ in range(chance.randint(0, 2))
        )
        call = Address(steps=steps, place=place(chance.randint(1, 3)))
        if all(call.digest != other.digest for other in calls):
            calls.append(call)
    return calls
