from __future__ import annotations

import gc
import threading

from rh_prefect.runs.ordinals import Ordinals, PerObject, Unit


class Try:
    """Stands for one try of something."""


def test_calls_in_the_run_itself_are_counted_by_base() -> None:
    ordinals = Ordinals()
    assert [ordinals.next(base, ()) for base in "aabab"] == [1, 2, 1, 3, 2]


def test_a_new_try_is_given_the_numbers_again_and_then_new_ones() -> None:
    ordinals = Ordinals()
    first, second = Unit("t", Try()), Unit("t", Try())
    assert [ordinals.next("a", [first]) for _ in range(2)] == [1, 2]
    assert ordinals.next("a", ()) == 3
    assert [ordinals.next("a", [second]) for _ in range(3)] == [1, 2, 4]


def test_a_task_with_a_new_id_in_a_child_tried_again_has_the_childs_numbers() -> None:
    ordinals = Ordinals()
    first, second = Unit("child", Try()), Unit("child", Try())
    assert ordinals.next("a", [Unit("t1", Try()), first]) == 1
    assert ordinals.next("a", [Unit("t2", Try()), first]) == 2
    assert ordinals.next("a", [Unit("t3", Try()), second]) == 1
    assert ordinals.next("a", [Unit("t4", Try()), second]) == 2


def test_equal_calls_in_many_threads_have_different_numbers() -> None:
    ordinals, got = Ordinals(), []
    barrier = threading.Barrier(16)

    def call(number: int) -> None:
        unit = Unit(f"t{number}", Try())
        barrier.wait()
        got.extend(ordinals.next("a", [unit]) for _ in range(50))

    threads = [threading.Thread(target=call, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(1, 801))


def test_a_value_goes_with_its_object() -> None:
    values = PerObject(list)
    owner, other = Try(), Try()
    values[owner].append(1)
    assert values[owner] == [1]
    assert values[other] == []
    del owner
    gc.collect()
    assert len(values) == 1
