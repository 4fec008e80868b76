from __future__ import annotations

import pytest

from rh_prefect.works.accounts.ended_task_estimator import DurationHistory, Search, counting_gap

FAILED_SEARCHES, MARGIN = 5, 1.008
"""After how many failed searches counts are not trusted, and how much later than the estimated end a task is polled."""


def durations_of(*seconds: float) -> DurationHistory:
    durations = DurationHistory()
    for duration in seconds:
        durations.note(duration)
    return durations


@pytest.mark.parametrize("length", [120.0, 600.0, 3600.0])
@pytest.mark.parametrize("slots", [50, 200])
def test_the_number_of_counts_per_job_is_independent_of_the_number_of_tasks(length: float, slots: int) -> None:
    mean_age = length / 2
    between_ends = length / slots
    assert 2 <= between_ends / counting_gap([mean_age] * slots, shortest=0.1) <= 8


def test_short_tasks_are_counted_more_often_than_one_task_is_polled() -> None:
    assert counting_gap([3.0] * 50, shortest=2.0) == pytest.approx(2.0 / 12)


def test_counts_are_more_frequent_while_a_task_that_has_ended_is_not_found() -> None:
    usual, quick = (counting_gap([60.0] * 50, shortest=2.0, is_missing=is_missing) for is_missing in (False, True))
    assert [usual, quick] == pytest.approx([0.6, 0.15]), "four counts for each job, or a quarter of it"
    assert counting_gap([3.0] * 50, shortest=2.0, is_missing=True) == pytest.approx(2.0 / 30)


def test_the_gap_between_counts_is_limited_by_the_youngest_task() -> None:
    assert counting_gap([3600.0, 1.0], shortest=2.0) == 2.0
    assert counting_gap([600.0, 600.0], shortest=2.0) == pytest.approx(0.03 * 600)


def test_without_durations_the_task_that_was_polled_the_longest_ago_is_likeliest() -> None:
    durations = DurationHistory()
    probabilities = [durations.end_probability(last_running, 10.0) for last_running in (0.0, 5.0, 9.0)]
    assert probabilities == sorted(set(probabilities), reverse=True)


def test_with_durations_the_task_at_a_usual_age_is_likeliest() -> None:
    durations = durations_of(*[6.1] * 60, *[40.2] * 30, *[180.3] * 10)
    at_six, at_twenty, at_forty = (
        durations.end_probability(last_running, age) for last_running, age in ((4.0, 6.5), (8.0, 20.0), (20.0, 41.0))
    )
    assert at_six > 0.5
    assert at_forty > 0.5
    assert at_twenty < 0.1


def test_the_estimate_is_the_median_of_the_longer_durations() -> None:
    durations = durations_of(*[6.0] * 60, *[40.0] * 30, *[180.0] * 10)
    assert durations.estimate(0.0) == pytest.approx(6.0 * MARGIN)
    assert durations.estimate(6.2) == pytest.approx(40.0 * MARGIN)
    assert durations.estimate(41.0) == pytest.approx(180.0 * MARGIN)
    assert durations.estimate(181.0) is None


def test_few_durations_give_no_estimate() -> None:
    few, enough = (durations_of(*[6.0] * count) for count in (4, 5))
    assert few.estimate(0.0) is None
    assert [few.is_known, enough.is_known] == [False, True]


def test_only_the_latest_durations_are_stored() -> None:
    for count, most in ((100, 60.0), (99, 6.0)):
        durations = durations_of(*[6.0] * 200, *[60.0] * count)
        assert durations.estimate(0.0) == pytest.approx(most * MARGIN), "the median of the latest 200"


def test_the_search_polls_more_tasks_while_it_finds_no_end() -> None:
    search = Search()
    looks = [search.polls(1, ends=0) for _ in range(FAILED_SEARCHES - 1)]
    assert looks == sorted(looks)
    assert looks[-1] > 3 * looks[0]
    assert search.polls(1, ends=1) == looks[0]


def test_counts_are_not_trusted_while_their_missing_tasks_are_not_found() -> None:
    search = Search()
    for _ in range(FAILED_SEARCHES):
        search.polls(2, ends=0)
    assert not search.is_trusted
    assert search.polls(2, ends=1) == 0
    assert not search.is_trusted
    assert search.polls(0, ends=1) == 0
    assert search.is_trusted


def test_counts_are_trusted_again_when_they_miss_many_more_tasks() -> None:
    search = Search()
    for _ in range(FAILED_SEARCHES):
        search.polls(2, ends=0)
    assert search.polls(4, ends=0) == 0
    assert search.polls(5, ends=0) >= 5
    assert search.is_trusted
