"""The tree of errors and the table of codes."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterator
from typing import Any, get_args

from rh_prefect import errors
from rh_prefect.errors import CODES, ApiError, Retry, RunningHubError, api_error, explain
from tests.support.each_case import each_case

REFERENCE = (
    "1 301 380 401 412 414 415 416 421 423 433 435 436 500"
    " 801 802 803 804 805 806 807 808 809 810 811 812 813 814 901 1601"
    " 1000 1001 1002 1003 1004 1005 1006 1007 1008 1009 1010 1011 1012 1013 1014 1015 1101 1501 1504 1505"
    " 1516 1517 1519 1520 40310"
    " TASK_CREATE_TOO_FAST TASK_CREATE_FAILED_BY_NOT_ENOUGH_POWER_VALUE"
)

ALLOWED: dict[type[ApiError], set[Retry]] = {
    errors.RequestRejected: {"final"},
    errors.ModerationError: {"final"},
    errors.GenerationFailed: {"final"},
    errors.TaskNotFound: {"final"},
    errors.KeyRejected: {"action_required"},
    errors.AccountError: {"action_required"},
    errors.Busy: {"throttled"},
    errors.TaskState: {"pending"},
    errors.OutcomeUnknown: {"unknown"},
}


def family(root: type[RunningHubError] = RunningHubError) -> Iterator[type[RunningHubError]]:
    yield root
    for each in root.__subclasses__():
        if each.__module__ == errors.__name__:
            yield from family(each)


def test_the_table_holds_every_code_of_the_reference() -> None:
    assert set(REFERENCE.split()) <= CODES.keys()


def test_every_row_is_of_the_closed_set_and_says_what_to_do() -> None:
    with each_case() as case:
        for code in CODES:
            with case(code):
                row = CODES[code]
                assert row.retry in ALLOWED[row.error]
                assert row.retry in get_args(Retry)
                assert row.meaning
                assert row.advice
                assert not row.new_task or row.error is errors.GenerationFailed


def test_what_may_be_sent_again_is_transient() -> None:
    assert {code for code, row in CODES.items() if row.retry == "throttled"} == {
        code for code, row in CODES.items() if issubclass(row.error, errors.Transient)
    }
    assert {each for each in family() if issubclass(each, errors.Transient)} == {errors.ConnectFailed, errors.Busy}
    assert not issubclass(errors.ResponseLost, errors.Transient)


def test_only_a_refusal_that_is_not_repeated_moves_a_job_to_another_account() -> None:
    assert [code for code, row in CODES.items() if row.account_scope and row.retry == "throttled"] == []


def test_codes_that_nobody_can_explain_are_unknown() -> None:
    unknown = {code for code, row in CODES.items() if row.retry == "unknown"}
    assert unknown == {"500", "1000", "1005", "1012", "1516", "1517", "1518", "1519"}


def test_a_new_task_is_paid_for_only_where_it_may_help() -> None:
    assert {code for code, row in CODES.items() if row.new_task} == {"1006", "1015", "1504"}


def test_a_code_without_a_row_is_unclear_only_on_a_submit() -> None:
    assert explain("4711", submitting=True).retry == "unknown"
    assert explain("4711").retry == "final"


def test_an_error_without_a_number_is_found_by_its_message() -> None:
    assert explain("", "TASK_CREATE_TOO_FAST").retry == "throttled"
    assert explain("4711", " TASK_CREATE_TOO_FAST ", submitting=True).retry == "throttled"


def test_a_message_says_what_happened_and_what_to_do() -> None:
    error = api_error("1501", "nsfw", doing="submit to a/b", task_id="7")
    assert str(error).startswith("submit to a/b: the content check refused the prompt or a file (code 1501).")
    assert 'RunningHub said: "nsfw".' in str(error)
    assert str(error).endswith("What to do: change the prompt or the file.")
    assert vars(error)["task_id"] == "7"


def test_every_class_survives_pickling() -> None:
    with each_case() as case:
        for kind in family():
            with case(kind.__name__):
                made = kind("what happened", job="scope/key", task_id="7", code="1501")
                made.__cause__ = None
                again: Any = pickle.loads(pickle.dumps(made))
                assert (again.job, again.task_id, again.code) == ("scope/key", "7", "1501")
                assert str(again) == "what happened"
                assert type(again) is kind


def test_every_class_is_described() -> None:
    for kind in family():
        assert inspect.getdoc(kind) != inspect.getdoc(kind.__bases__[0])


def test_a_group_says_each_cause_once_with_the_steps_that_it_ended() -> None:
    missing = errors.ConfigError("There is no block 'studoi'. What to do: save it.")
    failed = errors.JobFailed("run/abc: the task failed.", job="run/abc", new_task=True)
    found = [missing.of_step("picture"), missing.of_step("music"), failed.of_step("clip")]
    group = errors.jobs_failed(found, total=4, what="steps")
    assert str(group) == (
        "3 of 4 steps failed. picture, music: There is no block 'studoi'. What to do: save it. "
        "clip: run/abc: the task failed."
    )
    assert isinstance(group, ExceptionGroup)
    copied = pickle.loads(pickle.dumps(group))
    assert str(copied) == str(group)
    assert [one.step for one in copied.exceptions] == ["picture", "music", "clip"]
    assert copied.exceptions[2].new_task


def test_an_error_names_its_step_unless_it_does_so_already() -> None:
    error = errors.BudgetExceeded("z-image/turbo was not started.")
    assert str(error.of_step("still")) == "still: z-image/turbo was not started."
    assert str(error.of_step("z-image/turbo")) == "z-image/turbo was not started."
    assert str(error.of_step("still").of_step("other")) == "still: z-image/turbo was not started."
