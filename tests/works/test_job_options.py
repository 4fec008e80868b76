from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from rh_prefect.errors import InputError
from rh_prefect.works.job_options import Options

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    "given",
    [
        *({"deadline": one} for one in (-1, 0, -0.5, NAN, INFINITE, "soon")),
        *({"attempts": one} for one in (0, -1, 1.5, NAN, "three", None)),
        *({"take": one} for one in (0, -1, 1.5, True, "two", None)),
        *({"budget": one} for one in (-1, -0.01, NAN, INFINITE, "much", Decimal("NaN"), Decimal("sNaN"), Decimal(-1))),
        {"reuse": "sometimes"},
        {"on_unknown": "hope"},
        {"on_unknown": "resubmit", "reuse": "always"},
        {"label": "\ud800"},
        {"label": "x" * 1001},
        {"label": 5},
    ],
    ids=repr,
)
def test_an_invalid_option_is_refused_with_its_name(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"(?i){next(iter(given))}.*Nothing was sent"):
        Options(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"deadline": 0.5},
        {"deadline": 3600},
        {"attempts": 1},
        {"take": 3, "same": True},
        {"on_unknown": "resubmit"},
        {"reuse": "always"},
        {"budget": 0},
        {"budget": 0.1},
        {"budget": Decimal("25.50")},
        {"label": "a harbour"},
        {"label": "x" * 1000},
    ],
    ids=repr,
)
def test_valid_options_are_accepted(given: dict[str, Any]) -> None:
    assert all(getattr(Options(**given), name) == value for name, value in given.items())


def test_a_deadline_is_a_float_for_the_clock() -> None:
    """Decimal seconds cannot be added to a time: the call failed after the payment."""
    given = Options(deadline=Decimal("0.5")).deadline  # type: ignore[arg-type]  # a program without types
    assert (given, type(given)) == (0.5, float)


def test_without_options_a_job_is_paid_for_up_to_three_times_and_has_a_result_of_its_own() -> None:
    options = Options()
    assert (options.take, options.same, options.attempts, options.may_submit) == (1, False, 3, True)
