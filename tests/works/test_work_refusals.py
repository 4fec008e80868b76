"""What a run does after each refusal of a work's submission: it waits, takes another account, or gives up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest

from rh_prefect.errors import AccountError, ConnectFailed, RequestRejected, RunningHubError
from rh_prefect.works.journal.job_records import Submit
from rh_prefect.works.journal.record_types import NOT_DELIVERED, Answer
from rh_prefect.works.lifecycle import Policy
from tests.support.world import job_records
from tests.support.world.asked_steps import life_of
from tests.support.world.works_world import intent_of

POLICY = Policy(name="clip", job="works/clip", endpoint="a/b", run="one", budget=Decimal(1))


@dataclass
class Course:
    """The course of a work whose submissions are all refused.

    Attributes:
        posts: How many submissions were made.
        pauses: The pauses between them.
        slots: Whether the account was full, for each slot that was given back.
        asked: The codes for which another account was looked for.
        order: The names of all steps.
        error: How it ended.
    """

    posts: int = 0
    pauses: list[tuple[int, str]] = field(default_factory=list)
    slots: list[bool] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    error: RunningHubError | None = None


def refused(code: str) -> Answer:
    if code != NOT_DELIVERED:
        return job_records.refused(code, f"reason of {code}")
    return Answer(outcome="refused", code=code, reason=f"reason of {code}", retry="throttled")


def course_of(codes: Iterable[str], *, policy: Policy = POLICY, has_others: bool = False) -> Course:
    """Runs a work whose submissions are refused with these codes."""
    left, found, life = iter(codes), Course(), life_of(policy)
    try:
        step: Any = life.send(None)
        while True:
            step = life.send(_done(step, left, found, has_others))
    except RunningHubError as error:
        found.error = error
    return found


def _done(step: Any, left: Iterator[str], found: Course, has_others: bool) -> Any:
    found.order.append(step[0])
    match step:
        case ("is_cancelled", _):
            return False
        case ("claim", n):
            return intent_of(n, "a", "one")
        case ("post", *_):
            found.posts += 1
            return refused(next(left))
        case ("record_answer", intent, n, answer):
            return Submit(n, intent, answer=answer)
        case ("switch_account", answer):
            found.asked.append(answer.code)
            return has_others
        case ("free_slot", full):
            found.slots.append(full)
        case ("pause", refusals, answer):
            found.pauses.append((refusals, answer.code))
    return None


def test_a_network_that_does_not_open_is_tried_five_times() -> None:
    found = course_of([NOT_DELIVERED] * 9)
    assert isinstance(found.error, ConnectFailed)
    assert found.posts == 5
    assert [number for number, _ in found.pauses] == [1, 2, 3, 4]


def test_a_refusal_in_between_starts_the_count_again() -> None:
    found = course_of([*[NOT_DELIVERED] * 4, "421", *[NOT_DELIVERED] * 4, "301"])
    assert isinstance(found.error, RequestRejected)
    assert found.posts == 10
    assert [number for number, _ in found.pauses] == list(range(1, 10)), "the pauses grow all the same"


def test_each_refused_submission_gives_back_its_slot() -> None:
    found = course_of(["421", "1003", "301"])
    assert found.slots == [True, False, False], "a full account is not asked again at once"
    assert found.pauses == [(1, "421"), (2, "1003")]
    assert course_of(["421", "301"], policy=replace(POLICY, budget=None)).slots == [True, False]


@pytest.mark.parametrize("may_switch", [True, False])
def test_another_account_is_looked_for_only_where_one_may_pay_and_the_refusal_is_final(may_switch: bool) -> None:
    policy = replace(POLICY, may_switch_account=may_switch)
    found = course_of(["421", "416"], policy=policy)
    assert isinstance(found.error, AccountError)
    assert found.asked == (["416"] if may_switch else [])
    assert found.posts == 2


def test_another_account_is_tried_at_once() -> None:
    policy = replace(POLICY, may_switch_account=True)
    found = course_of(["416", "416", *[NOT_DELIVERED] * 5], policy=policy, has_others=True)
    assert isinstance(found.error, ConnectFailed)
    assert found.asked == ["416", "416"]
    assert [number for number, _ in found.pauses] == [1, 2, 3, 4]


def test_inputs_are_uploaded_before_the_wait_for_a_slot_and_looked_at_again_after_it() -> None:
    """What is wrong with them is said at once, and a link that has grown old during the wait is renewed."""
    order = course_of(["301"]).order
    wait, paid = order.index("await_slot"), order.index("post")
    assert "prepare" in order[:wait]
    assert "prepare" in order[wait:paid]
    assert order.index("reserve") > wait, "the price is that of the account that has the slot"
    assert order[wait:paid].index("is_cancelled") < order[wait:paid].index("claim")
