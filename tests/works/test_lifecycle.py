"""The rules about payments in each state: the test drives the lifecycle without I/O."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import pytest

from rh_prefect.errors import (
    CODES,
    HTTP_401,
    AccountError,
    ConnectFailed,
    InputError,
    JobCancelled,
    JobFailed,
    JournalError,
    KeyRejected,
    ModerationError,
    RequestRejected,
    RunningHubError,
    SubmissionUnknown,
)
from rh_prefect.works.journal.job_records_and_state import RESUBMITTED, Submit
from rh_prefect.works.journal.record_types import (
    BROKEN,
    GAVE_UP,
    NOT_DELIVERED,
    NOT_SENT,
    Answer,
    End,
    Lost,
    Resolution,
)
from rh_prefect.works.lifecycle import Invalid, Policy
from tests.support.world.asked_steps import Step, life_of, lifecycle
from tests.support.world.job_records import TASK, failed, intent, refused, ticket, unknown

POLICY = Policy(job="run/key", endpoint="some/model")
SECOND = replace(POLICY, run="second")
SEVERAL_ACCOUNTS = replace(POLICY, may_switch_account=True)
INTENT, TICKET, UNKNOWN, BUSY = intent(), ticket(), unknown(), refused("421", "TASK_QUEUE_MAXED")
THEIRS = intent(flow_run="first")
PAID = Submit(1, INTENT, TICKET)
SUCCESS = End(status="SUCCESS", task_id=TASK)
GIVEN_UP = Answer(outcome="refused", code=GAVE_UP, reason="never begun", retry="throttled")
AWAY = Answer(outcome="refused", code=NOT_DELIVERED, reason="connection refused", retry="throttled")


Raised = TypeVar("Raised", bound=RunningHubError)


class Life:
    """Drives one lifecycle through an expected list of steps."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.generator = lifecycle(policy)
        self.step: Any = next(self.generator)

    def answers(self, *pairs: tuple[object, object]) -> Life:
        for expected, came in pairs:
            assert self.step == expected
            self.step = self.generator.send(came)
        return self

    def reads(self, *submits: Submit) -> Life:
        """Reads the recorded submissions, and that there is no other."""
        for submit in submits:
            self.answers((("read_submission", submit.n), submit))
        return self.answers((("read_submission", len(submits) + 1), None))

    def ends(self, expected: object, came: object) -> Submit | None:
        assert self.step == expected
        with pytest.raises(StopIteration) as over:
            self.generator.send(came)
        if over.value.value is None:
            return None
        submit: Submit
        submit, end = over.value.value
        return replace(submit, end=end)

    def reads_and_raises(self, kind: type[Raised], *submits: Submit) -> Raised:
        """Reads the recorded submissions; the last one raises."""
        *earlier, last = submits
        self.answers(*((("read_submission", one.n), one) for one in earlier))
        return self.raises(kind, ("read_submission", last.n), last)

    def raises(self, kind: type[Raised], expected: object, came: object) -> Raised:
        """Answers a step; the work ends with an error, after it has read that there is no later submission."""
        assert self.step == expected
        with pytest.raises(kind) as caught:
            if self.generator.send(came)[0] == "read_submission":
                self.generator.send(None)
        return caught.value


def posts(n: int, answer: Answer) -> list[tuple[object, object]]:
    """The steps of submit n, up to its recorded answer."""
    return [
        (("read_submission", n), None),
        (("prepare",), None),
        (("await_slot",), None),
        (("prepare",), None),
        (("is_cancelled", False), False),
        (("claim", n), INTENT),
        (("post", INTENT, n), answer),
        (("record_answer", INTENT, n, answer), Submit(n, INTENT, answer)),
    ]


def test_a_new_job_is_claimed_then_posted_then_recorded_then_waited_for() -> None:
    life = Life().answers(*posts(1, TICKET), (("is_cancelled", True), False))
    ended = life.ends(("await_end", PAID, False), SUCCESS)
    assert ended == Submit(1, INTENT, TICKET, end=SUCCESS)


@pytest.mark.parametrize(
    "submit",
    [PAID, Submit(1, INTENT, UNKNOWN, Resolution(outcome="adopted", task_id="7"))],
    ids=["a ticket", "adopted"],
)
def test_a_task_is_waited_for_and_never_submitted_again(submit: Submit) -> None:
    life = Life().answers((("read_submission", 1), submit), (("is_cancelled", True), False))
    assert life.ends(("await_end", submit, True), SUCCESS) == replace(submit, end=SUCCESS)


def test_collecting_waits_for_the_task_of_a_cancelled_run() -> None:
    life = Life(replace(POLICY, may_submit=False)).answers((("read_submission", 1), PAID))
    assert life.ends(("await_end", PAID, True), SUCCESS) == replace(PAID, end=SUCCESS)


@pytest.mark.parametrize(
    "submit",
    [Submit(1, INTENT, TICKET, lost=Lost()), Submit(1, INTENT, UNKNOWN, Resolution(outcome="forgotten"))],
    ids=["lost", "forgotten"],
)
def test_what_a_person_has_given_up_is_paid_for_again_with_the_next_number(submit: Submit) -> None:
    life = Life().answers((("read_submission", 1), submit), *posts(2, TICKET))
    assert life.step == ("is_cancelled", True)


def test_a_successful_end_needs_no_further_steps() -> None:
    submit = Submit(1, INTENT, TICKET, end=SUCCESS)
    assert Life().ends(("read_submission", 1), submit) == submit


def test_a_process_that_loses_the_claim_reads_again_and_does_not_post() -> None:
    life = Life().answers(*posts(1, TICKET)[:5], (("claim", 1), None), (("free_slot", False), None))
    theirs = Submit(1, INTENT)
    life.answers((("read_submission", 1), theirs))
    assert life.step == ("watch", theirs)


def test_an_open_intent_is_watched_until_it_has_a_ticket_or_is_unknown() -> None:
    theirs = Submit(1, INTENT)
    life = Life().answers((("read_submission", 1), theirs), (("watch", theirs), None))
    life.answers((("read_submission", 1), PAID), (("is_cancelled", True), False))
    assert life.step == ("await_end", PAID, True)
    dead = Life().answers((("read_submission", 1), theirs), (("watch", theirs), None))
    dead.raises(SubmissionUnknown, ("read_submission", 1), Submit(1, INTENT, UNKNOWN))


def test_an_unknown_answer_is_raised_with_both_actions_and_not_resubmitted() -> None:
    life = Life().answers(*posts(1, UNKNOWN)[:-1])
    error = life.raises(SubmissionUnknown, ("record_answer", INTENT, 1, UNKNOWN), Submit(1, INTENT, UNKNOWN))
    assert "jobs adopt run/key TASK_ID" in error.message
    assert "jobs mark-refused run/key" in error.message
    assert "read timeout" in error.message


def test_resubmit_marks_the_submission_forgotten_and_pays_again() -> None:
    life = Life(replace(POLICY, on_unknown="resubmit"))
    unknown = Submit(1, INTENT, UNKNOWN)
    forgotten = replace(unknown, resolution=Resolution(outcome="forgotten"))
    life.answers(
        (("read_submission", 1), unknown), (("forget", 1), None), (("read_submission", 1), forgotten), *posts(2, TICKET)
    )
    assert life.step == ("is_cancelled", True)


def test_resubmissions_are_limited_by_attempts() -> None:
    life = Life(replace(POLICY, on_unknown="resubmit", attempts=2))
    first = Submit(1, INTENT, UNKNOWN, Resolution(outcome="forgotten", by=RESUBMITTED))
    life.answers((("read_submission", 1), first), *posts(2, UNKNOWN)[:-1])
    life.raises(SubmissionUnknown, ("record_answer", INTENT, 2, UNKNOWN), Submit(2, INTENT, UNKNOWN))


def test_a_stopped_process_takes_what_another_one_has_recorded_of_its_submission() -> None:
    adopted = Submit(1, INTENT, UNKNOWN, Resolution(outcome="adopted", task_id="1"), SUCCESS)
    life = Life().answers(*posts(1, TICKET)[:-1])
    assert life.ends(("record_answer", INTENT, 1, TICKET), adopted) == adopted
    forgotten = Submit(1, INTENT, UNKNOWN, Resolution(outcome="forgotten"))
    given_up = Submit(1, INTENT, GIVEN_UP)
    for recorded, step in ((forgotten, ("read_submission", 2)), (given_up, ("free_slot", False))):
        life = Life().answers(*posts(1, TICKET)[:-1], (("record_answer", INTENT, 1, TICKET), recorded))
        assert life.step == step
    assert life.answers((("free_slot", False), None)).step == ("pause", 1, GIVEN_UP)


def test_a_request_that_is_not_json_is_an_input_error() -> None:
    unsent = Answer(outcome="refused", code=NOT_SENT, reason="a parameter cannot be written as JSON", retry="final")
    life = Life().answers(*posts(1, unsent))
    assert "run/key: a parameter" in life.raises(InputError, ("free_slot", False), None).message


def test_a_full_queue_is_recorded_before_each_wait_and_never_fails_the_job() -> None:
    life = Life()
    for n in range(1, 200):
        life.answers(*posts(n, BUSY), (("free_slot", True), None), (("pause", n, BUSY), None))
    assert life.answers(*posts(200, TICKET)).step == ("is_cancelled", True)


@pytest.mark.parametrize(
    ("refusal", "has_no_slot"),
    [(BUSY, True), (refused("1520"), True), (refused("1003"), False), (GIVEN_UP, False)],
    ids=["full", "full, of a model", "too fast", "given up"],
)
def test_a_temporary_refusal_is_followed_by_a_new_claim(refusal: Answer, has_no_slot: bool) -> None:
    """And is no reason for another account."""
    life = Life(SEVERAL_ACCOUNTS).answers(*posts(1, refusal), (("free_slot", has_no_slot), None))
    assert life.answers((("pause", 1, refusal), None), *posts(2, TICKET)).step == ("is_cancelled", True)


def test_a_cancellation_that_comes_with_the_ticket_cancels_the_task() -> None:
    life = Life().answers(*posts(1, TICKET), (("is_cancelled", True), True))
    life.raises(JobCancelled, ("cancel_task", PAID), End(status="CANCELLED", task_id="1"))


@pytest.mark.parametrize(
    ("code", "kind", "advice"),
    [
        ("1501", ModerationError, "change the prompt or the file"),
        ("1014", AccountError, "use an enterprise shared key"),
        (HTTP_401, KeyRejected, "check that the key is complete"),
        ("HTTP 308", RequestRejected, "correct RH_BASE_URL"),
    ],
)
def test_a_definite_refusal_is_recorded_and_raised(code: str, kind: type[RunningHubError], advice: str) -> None:
    lost = Submit(1, INTENT, TICKET, lost=Lost())  # paid for, so that not the whole job is free
    life = Life().answers((("read_submission", 1), lost), *posts(2, refused(code)))
    error = life.raises(kind, ("free_slot", False), None)
    assert f" Nothing was paid for this submission. What to do: {advice}" in error.message


def test_a_request_that_cannot_be_sent_is_an_error_after_five_tries_in_a_row() -> None:
    for answers in ([AWAY] * 4, [AWAY, BUSY, *[AWAY] * 4]):
        life = Life()
        for n, answer in enumerate(answers, 1):
            pause = ("pause", n, answer)
            life.answers(*posts(n, answer), (("free_slot", answer is BUSY), None), (pause, None))
        life.answers(*posts(n + 1, AWAY))
        assert "Nothing was paid" in life.raises(ConnectFailed, ("free_slot", False), None).message


@pytest.mark.parametrize("first", [GIVEN_UP, AWAY])
def test_a_claim_that_is_given_up_is_an_error_after_five_tries_in_a_row(first: Answer) -> None:
    """The reading of the cancellation may take too long each time."""
    life = Life()
    for n, answer in enumerate([GIVEN_UP, GIVEN_UP, BUSY, *[first] * 3, GIVEN_UP], 1):
        life.answers(*posts(n, answer), (("free_slot", answer is BUSY), None), (("pause", n, answer), None))
    life.answers(*posts(n + 1, GIVEN_UP))
    message = life.raises(JournalError, ("free_slot", False), None).message
    assert "5 consecutive tries; the last reason: never begun. Nothing was paid for this submission" in message


REFUSED = refused("812", "no money")


def test_a_refused_work_is_submitted_on_another_account_at_once() -> None:
    life = Life(SEVERAL_ACCOUNTS).answers(
        *posts(1, REFUSED), (("free_slot", False), None), (("switch_account", REFUSED), True)
    )
    life.answers(*posts(2, TICKET))
    assert life.step == ("is_cancelled", True)


def test_a_refused_work_ends_if_there_is_no_other_account() -> None:
    life = Life(SEVERAL_ACCOUNTS).answers(*posts(1, REFUSED), (("free_slot", False), None))
    error = life.raises(AccountError, ("switch_account", REFUSED), False)
    assert error.message.startswith("run/key: submit to some/model: ")
    named = Life(replace(POLICY, name="each[1].clip")).answers(*posts(1, REFUSED))
    assert named.raises(AccountError, ("free_slot", False), None).message.startswith(
        "each[1].clip: submit to some/model: "
    )


def test_an_unknown_submission_is_looked_for_in_the_list_that_the_policy_names() -> None:
    policy = replace(POLICY, task_list=("the list of a machine", "proxy.PROMPT_ID"))
    for reason, shown in (("", "accepted it. The request"), ("cut", "accepted it (cut). The request")):
        unknown = Submit(1, INTENT, UNKNOWN.model_copy(update={"reason": reason}))
        error = Life(policy).raises(SubmissionUnknown, ("read_submission", 1), unknown)
        place = f"look for the task of account {INTENT.account_words} in the list of a machine. If a task"
        assert place in error.message
        assert "jobs adopt run/key proxy.PROMPT_ID." in error.message
        assert shown in error.message


def test_nothing_is_submitted_after_a_cancellation() -> None:
    life = Life().answers(
        (("read_submission", 1), None), (("prepare",), None), (("await_slot",), None), (("prepare",), None)
    )
    life.answers((("is_cancelled", False), True), (("free_slot", False), None))
    error = life.raises(JobCancelled, ("read_submission", 1), None)
    assert "outside of flows, in a new process" in error.message, "a process is one attempt of a named scope"


def test_a_cancelled_run_cancels_the_task_that_another_run_has_left_to_it() -> None:
    """The other run was cancelled too, and has read that this one waits for the task."""
    theirs = Submit(1, THEIRS, TICKET)
    life = Life(SECOND).answers(*posts(1, TICKET)[:4], (("is_cancelled", False), True), (("free_slot", False), None))
    life.answers((("read_submission", 1), theirs), (("read_submission", 1), theirs), (("is_cancelled", True), True))
    life.raises(JobCancelled, ("cancel_task", theirs), End(status="CANCELLED", task_id="1"))


@pytest.mark.parametrize("policy", [POLICY, SECOND], ids=["of this run", "of another run"])
def test_a_cancelled_run_that_has_cancelled_a_task_pays_for_no_other_one(policy: Policy) -> None:
    life = Life(policy).answers((("read_submission", 1), PAID), (("is_cancelled", True), True))
    error = life.raises(JobCancelled, ("cancel_task", PAID), End(status="CANCELLED", task_id="1"))
    assert error.task_id == "1"


@pytest.mark.parametrize("policy", [POLICY, SECOND], ids=["of this run", "of another run"])
def test_a_task_that_succeeded_before_its_cancellation_is_not_lost(policy: Policy) -> None:
    life = Life(policy).answers((("read_submission", 1), PAID), (("is_cancelled", True), True))
    assert life.ends(("cancel_task", PAID), SUCCESS) == replace(PAID, end=SUCCESS)


def test_a_call_that_waits_for_a_failing_job_raises_its_code_and_advice() -> None:
    life = Life().answers(*posts(1, TICKET), (("is_cancelled", True), False))
    error = life.raises(JobFailed, ("await_end", PAID, False), failed("1000"))
    assert (error.code, error.new_task) == ("1000", False)
    assert "run again" in error.message


def paid_and_failed(*attempts: int, code: str = "1504", met_in: int = 0, run: str = "") -> list[Submit]:
    """One submission for each of these attempts, each with a failed task; its end was recorded in attempt `met_in`."""
    return [
        Submit(n, intent(attempt=attempt, flow_run=run), TICKET, end=failed(code, attempt=met_in or attempt))
        for n, attempt in enumerate(attempts, 1)
    ]


@pytest.mark.parametrize(
    ("facts", "submits", "pays"),
    [
        # The same attempt: only if the code says that a new task helps.
        ({}, paid_and_failed(1, code="1000"), False),
        ({}, paid_and_failed(1, code="1006"), True),
        ({}, paid_and_failed(1, code="1015"), True),
        ({}, paid_and_failed(1, code="1504"), True),
        # A later attempt of the flow run: unless the same request would fail again.
        ({"attempt": 2}, paid_and_failed(1, code="1000"), True),
        ({"attempt": 2}, paid_and_failed(1, code="805"), True),
        ({"attempt": 2}, paid_and_failed(1, code="1007"), False),
        ({"attempt": 2}, paid_and_failed(1, code="1501"), False),
        ({"attempt": 9}, paid_and_failed(1, code="1505"), False),
        # The task was paid for in the first attempt; a call of the second one has waited for it, and is repeated.
        ({"attempt": 2, "first_attempt": 2, "attempts": 1}, paid_and_failed(1, code="805", met_in=2), False),
        ({"attempt": 2, "first_attempt": 2, "attempts": 1}, paid_and_failed(1, code="1504", met_in=2), False),
        # The end of a shared work has the attempt of the run that recorded it, which says nothing of this one.
        (
            {"run": "one", "attempt": 2, "first_attempt": 2, "attempts": 1},
            paid_and_failed(1, code="805", met_in=5, run="one"),
            True,
        ),
        # A deliberate rerun has fresh attempts; retries that Prefect makes by itself count together.
        ({"attempt": 2, "first_attempt": 2}, paid_and_failed(1, 1, 1), True),
        ({"attempt": 2, "first_attempt": 2}, paid_and_failed(1, 1, 1, 2, 2, 2), False),
        ({"attempt": 4, "first_attempt": 1}, paid_and_failed(1, 2, 3), False),
        # Refusals are no attempts.
        (
            {"attempt": 2, "attempts": 2},
            [*(Submit(n, INTENT, BUSY) for n in range(1, 6)), Submit(6, INTENT, TICKET, end=failed("1000"))],
            True,
        ),
    ],
)
def test_the_attempts_that_may_pay_for_a_failed_job_again(
    facts: dict[str, Any], submits: list[Submit], pays: bool
) -> None:
    life = Life(replace(POLICY, **facts))
    if pays:
        assert life.reads(*submits).step == ("prepare",)
    else:
        life.reads_and_raises(JobFailed, *submits)


def test_a_job_pays_for_at_most_attempts_tasks() -> None:
    """The error does not ask for a retry that cannot pay, and names what can."""
    submits = paid_and_failed(1, 1, 1)
    error = Life(POLICY).reads_and_raises(JobFailed, *submits)
    assert error.new_task is False
    assert "`attempts` allows 3" in error.message
    assert Life(POLICY).reads(*submits[:2]).step == ("prepare",)


def test_an_attempt_that_has_waited_for_a_failure_has_met_it_although_an_earlier_one_has_recorded_it() -> None:
    """Two attempts may wait at once; the failure of a task that the later one knows is no reason for another task."""
    life = Life(replace(POLICY, attempt=2)).answers((("read_submission", 1), PAID), (("is_cancelled", True), False))
    life.raises(JobFailed, ("await_end", PAID, True), failed("1000", attempt=1))


def test_a_cancelled_task_is_paid_for_again_only_by_a_later_attempt() -> None:
    submit = Submit(1, INTENT, TICKET, end=End(status="CANCELLED", task_id="1", attempt=1))
    Life().raises(JobCancelled, ("read_submission", 1), submit)
    assert Life(replace(POLICY, attempt=2)).reads(submit).step == ("prepare",)


def test_a_cancelled_task_counts_for_the_retries_of_prefect_and_not_for_those_of_a_person() -> None:
    submits = [
        Submit(n, intent(attempt=n), TICKET, end=End(status="CANCELLED", task_id="1", attempt=n)) for n in (1, 2)
    ]
    for attempts in (1, 2):
        retried = replace(POLICY, attempt=attempts + 1, first_attempt=1, attempts=attempts)
        Life(retried).reads_and_raises(JobCancelled, *submits[:attempts])
        by_a_person = replace(retried, first_attempt=attempts + 1)
        assert Life(by_a_person).reads(*submits[:attempts]).step == ("prepare",)


@pytest.mark.parametrize("end", [failed("1504"), failed("1501"), End(status="CANCELLED", task_id="1")])
def test_a_task_that_was_paid_for_after_one_that_failed_is_used_although_no_other_one_may_be_paid_for(end: End) -> None:
    """A person ran the flow again; that attempt paid for a task and crashed, and Prefect retries the flow by itself."""
    first, second = Submit(1, INTENT, TICKET, end=end), Submit(2, intent(attempt=2), TICKET)
    life = Life(replace(POLICY, attempt=3, first_attempt=1, attempts=1)).answers((("read_submission", 1), first))
    life.answers((("read_submission", 2), second), (("is_cancelled", True), False))
    assert life.ends(("await_end", second, True), SUCCESS) == replace(second, end=SUCCESS)


def test_collecting_never_submits() -> None:
    policy = replace(POLICY, may_submit=False, attempt=9, on_unknown="resubmit")
    for submit in (
        Submit(1, INTENT, BUSY),
        Submit(1, INTENT, UNKNOWN, Resolution(outcome="forgotten")),
        Submit(1, INTENT, TICKET, end=failed("1000")),
    ):
        assert Life(policy).answers((("read_submission", 1), submit)).ends(("read_submission", 2), None) is None
    assert Life(policy).ends(("read_submission", 1), None) is None
    Life(policy).raises(SubmissionUnknown, ("read_submission", 1), Submit(1, INTENT, UNKNOWN))


@pytest.mark.parametrize("attempts", [1, 3])
def test_collecting_takes_the_task_that_was_paid_for_after_one_that_failed(attempts: int) -> None:
    policy = replace(POLICY, may_submit=False, attempts=attempts)
    first, second = Submit(1, INTENT, TICKET, end=failed("1504")), Submit(2, INTENT, TICKET, end=SUCCESS)
    life = Life(policy).answers((("read_submission", 1), first))
    assert life.ends(("read_submission", 2), second) == second
    life = Life(policy).answers((("read_submission", 1), first))
    life.raises(JobFailed, ("read_submission", 2), None)


def test_a_graph_with_invalid_nodes_is_cancelled_and_not_paid_for_again() -> None:
    broken = Answer(outcome="ticket", task_id="1", node_errors={"6": "prompt is empty"})
    submit = Submit(1, INTENT, broken)
    end = End(status="FAILED", task_id="1", code=BROKEN, reason="node 6: prompt is empty", next_task="never")
    life = Life().answers(*posts(1, broken))
    assert "node 6: prompt is empty" in life.raises(JobFailed, ("cancel_task", submit), end).message
    Life(replace(POLICY, attempt=2)).raises(JobFailed, ("read_submission", 1), replace(submit, end=end))


def steps_until(last: str, policy: Policy = POLICY, **results: Any) -> list[Step]:
    """The steps of a work up to one of this name, if each step has the result that its name has here."""
    life = life_of(policy)
    steps = [life.send(None)]
    while (name := steps[-1][0]) != last:
        came = results.get(name)
        steps.append(life.send(came(*steps[-1][1:]) if callable(came) else came))
    return steps


def test_the_journal_of_a_run_names_a_submission_before_the_intent_exists() -> None:
    """Otherwise a run that is killed in between has paid for what neither its budget nor its cancellation knows."""
    assert steps_until("post", claim=INTENT) == [
        ("read_result",),
        ("note_waiter",),
        ("read_submission", 1),
        ("prepare",),
        ("await_slot",),
        ("prepare",),
        ("is_cancelled", False),
        ("note_claim", 1),
        ("claim", 1),
        ("post", INTENT, 1),
    ]


@pytest.mark.parametrize(
    ("code", "has_waited", "attempts", "pays"),
    [
        ("1504", True, 1, False),
        ("1504", True, 2, True),
        ("805", True, 2, False),
        ("805", False, 1, True),
        ("1501", False, 3, False),
    ],
)
def test_a_failure_of_another_run_s_task_is_one_of_the_attempts_of_a_run_that_has_waited_for_it(
    code: str, has_waited: bool, attempts: int, pays: bool
) -> None:
    failure = Submit(1, THEIRS, TICKET, end=failed(code))
    results = {"read_submission": {1: failure}.get, "has_waited": has_waited}
    policy = replace(SECOND, attempts=attempts)
    if pays:
        assert ("read_submission", 2) in steps_until("prepare", policy, **results)
    else:
        with pytest.raises(JobFailed):
            steps_until("prepare", policy, **results)


CANCELLED = End(status="CANCELLED", task_id=TASK)


@pytest.mark.parametrize("end", [failed("805"), CANCELLED], ids=["failed", "cancelled"])
@pytest.mark.parametrize(
    ("made_in", "first_attempt", "waited_in", "pays"),
    [
        (2, 2, (), False),  # this attempt knows the failure, even if another run has recorded it
        (1, 1, (2,), False),  # also if it has only waited for the task
        (1, 2, (2,), False),  # as two processes do that use a named scope at once
        (1, 1, (), True),  # an automatic retry
        (1, 1, (1,), True),
        (1, 2, (), True),  # an attempt that a person started
    ],
)
def test_an_attempt_pays_for_no_other_task_after_a_failure_that_it_knows(
    made_in: int, first_attempt: int, waited_in: tuple[int, ...], pays: bool, end: End
) -> None:
    """The end of a shared work may have the attempt of the run that has recorded it."""
    submit = Submit(1, intent(flow_run="second", attempt=made_in), TICKET, end=end)
    policy = replace(SECOND, attempt=2, first_attempt=first_attempt)

    def has_waited(_n: int, since: int) -> bool:
        return any(since <= attempt for attempt in waited_in)

    results = {"read_submission": {1: submit}.get, "has_waited": has_waited}
    if pays:
        assert ("read_submission", 2) in steps_until("prepare", policy, **results)
    else:
        with pytest.raises((JobFailed, JobCancelled)):
            steps_until("prepare", policy, **results)


def test_that_a_run_waits_for_the_task_of_another_one_is_noted_before_it_may_be_suspended() -> None:
    submit = Submit(1, THEIRS, TICKET)
    assert steps_until("await_end", SECOND, read_submission=submit) == [
        ("read_result",),
        ("note_waiter",),
        ("read_submission", 1),
        ("note_wait", 1),
        ("accepted", submit),
        ("is_cancelled", True),
        ("await_end", submit, True),
    ]


PAY_AGAIN = "run again (this pays for a new task)"


@pytest.mark.parametrize(
    ("code", "another_task", "advice"),
    [
        ("812", "", CODES["812"].advice),
        ("805", "", CODES["805"].advice),
        ("1501", "", CODES["1501"].advice),
        ("1501", "run it with --retake", f"{CODES['1501'].advice}; run it with --retake"),
        (BROKEN, "", "repair the nodes; then, if you did so on the site, pass another `take` or start a new run"),
        (BROKEN, "run it with --retake", "repair the nodes; run it with --retake"),
        ("1000", "", PAY_AGAIN),
        ("421", "", PAY_AGAIN),
        ("unknown", "", PAY_AGAIN),
    ],
)
def test_the_error_of_a_failed_task_says_what_to_do(code: str, another_task: str, advice: str) -> None:
    submit = Submit(1, INTENT, TICKET, end=failed(code))
    error = Life(replace(POLICY, another_task=another_task)).raises(JobFailed, ("read_submission", 1), submit)
    assert error.message.endswith(f"(code {code}). What to do: {advice}.")


@pytest.mark.parametrize(
    ("facts", "reported"),
    [
        ({"reason": "the GPU is gone"}, "the GPU is gone"),
        ({"reason": ""}, "1504"),
        ({"reason": "", "code": ""}, "no reason given"),
    ],
)
def test_a_failure_is_reported_before_the_next_submission(facts: dict[str, str], reported: str) -> None:
    submit = Submit(1, INTENT, TICKET, end=failed("1504").model_copy(update=facts))
    steps = steps_until("report_failure", read_submission=submit)
    assert steps[-2:] == [("read_submission", 1), ("report_failure", submit, reported)]


def test_an_invalid_answer_is_reported_with_what_is_wrong_with_it() -> None:
    submit = Submit(1, INTENT, TICKET, end=SUCCESS)
    steps = steps_until("report_failure", read_submission=submit, publish=Invalid("it has no list"))
    assert steps[-1] == ("report_failure", submit, "it has no list")


def test_a_cancelled_run_waits_no_more_before_it_looks_for_another_run_that_waits() -> None:
    """Of two runs that are cancelled at once, one must cancel the task."""
    steps = steps_until("cancel_task", read_submission=PAID, is_cancelled=True)
    assert steps[-4:] == [("is_cancelled", True), ("release_waiter",), ("has_other_waiters",), ("cancel_task", PAID)]
    with pytest.raises(JobCancelled, match="because another run waits for it"):
        steps_until("cancel_task", read_submission=PAID, is_cancelled=True, has_other_waiters=True)


def test_a_run_that_is_cancelled_before_a_claim_frees_its_slot_and_waits_no_more() -> None:
    """Otherwise a run that is cancelled later leaves its task to this one, which does not wait."""
    steps = steps_until("release_waiter", is_cancelled=True)
    assert steps[-3:] == [("is_cancelled", False), ("free_slot", False), ("release_waiter",)]
