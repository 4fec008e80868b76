from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from rh_prefect.errors import InputError
from rh_prefect.works.options import LONGEST_LABEL, Options

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
        {"label": "x" * (LONGEST_LABEL + 1)},
    ],
    ids=repr,
)
def test_an_invalid_option_is_refused_with_its_name(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"(?i){next(iter(given))}.*Nothing was sent"):
        Options(**given)


@pytest.mark.parametrize(
    "given",
    [
        {},
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
        {"label": "x" * LONGEST_LABEL},
    ],
    ids=repr,
)
def test_valid_options_are_accepted(given: dict[str, Any]) -> None:
    assert all(getattr(Options(**given), name) == value for name, value in given.items())
