"""Computes the cost of a request (minimum, expected and maximum) and the duration of its result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import product
from typing import Any

from rh_prefect import catalog
from rh_prefect.catalog.model import Model, PriceTable
from rh_prefect.pipelines.file_model import Assume
from rh_prefect.pipelines.plan.planned_steps import PriceRange
from rh_prefect.pipelines.planning_values import FRAME_SECONDS, File, Span, Unknown, characters, number_of

_DURATIONS = ("duration", "seconds", "videoDuration", "durationSeconds", "video_duration")
_UNKNOWN = "unknown"
"""A value that has no price in any model; None would get the price of the parameter's default."""

_CHARACTERS_PER_SECOND = Span(30, 15, 3)
"""Characters of speech per second, from fast to slow; in Chinese and Japanese, about four per second."""


def price_of(
    model: Model | None, payload: Mapping[str, Any], *, seconds: Span | None, assume: Assume | None, attempts: int
) -> PriceRange:
    """Returns the price range of one take; its maximum includes all attempts."""
    if assume is not None and assume.price is not None:
        price = assume.price
        return PriceRange(Decimal(0), Decimal(str(price.expected)), Decimal(str(price.most)) * attempts, is_open=True)
    if model is None or model.price is None:
        return PriceRange(is_open=True)
    if seconds is None and not any(isinstance(value, Unknown) for value in payload.values()):
        least = expected = most = catalog.estimate(model, payload)
    else:
        least, expected, most = (_estimate(model, payload, seconds, level) for level in range(3))
    if least is None or expected is None:
        return _by_table(model.price, attempts)
    is_open, most = most is None, most or expected  # such as that of a text without a limit
    is_open |= any(price.lower_bound for price in (least, expected, most))
    return _range(str(least.amount), str(expected.amount), str(most.amount * attempts), is_open=is_open)


@lru_cache(maxsize=1024)
def _range(least: str, expected: str, most: str, *, is_open: bool) -> PriceRange:
    """Returns one object for equal prices, to save memory in plans with thousands of steps."""
    # By their digits: 1 and 1.0 are equal, but are shown as they are
    return PriceRange(Decimal(least), Decimal(expected), Decimal(most), is_open)


def _by_table(table: PriceTable, attempts: int) -> PriceRange:
    """Returns an open price for an unknown length or option: the lowest price of a call or an image, else 0."""
    least = table.least if table.unit in ("call", "image") else Decimal(0)
    return PriceRange(least, least, least * attempts, is_open=True)


def _estimate(model: Model, payload: Mapping[str, Any], seconds: Span | None, level: int) -> catalog.Price | None:
    """Returns the price at a level: 0 minimum, 1 expected, 2 maximum; None if a possible value has no price."""
    length = None if seconds is None else seconds[level]
    if length == math.inf:
        return None
    if length is not None and level == 2:
        length = math.ceil(length - 1e-9)
    if length is not None and length <= 0 and level == 0:
        length = FRAME_SECONDS
    choices = (_at(model, name, value, level) for name, value in payload.items())
    found = [catalog.estimate(model, dict(zip(payload, one)), seconds=length) for one in product(*choices)]
    prices = [price for price in found if price is not None]
    if not prices or len(prices) < len(found):
        return None
    return (max if level else min)(prices, key=lambda price: price.amount)


def _at(model: Model, name: str, value: Any, level: int) -> Sequence[Any]:
    """Returns the possible values of a parameter for the least (0), expected (1) or highest (2) price.

    Returns an empty list if the values have no limit.
    """
    param, table = model.find_param(name), model.price
    if not isinstance(value, Unknown) or param is None or table is None:
        return [value]
    if name not in (*table.by, table.per, *dict(table.per_when)):
        return [value]
    if param.options or param.type == "bool":
        return param.options or [True, False]
    is_text = param.type == "string"
    span, limit = (characters(value), param.max_length) if is_text else (value.span, param.max)
    if span is not None:
        size = limit if span[level] == math.inf else span[level]
        return [] if size is None else ["x" * round(size) if is_text else size]
    return [_UNKNOWN] if param.min is None or param.max is None else [param.min, param.max]


def input_seconds(files: Iterable[File], assume: Span | None) -> Span | None:
    """Returns the input duration on which a model's price may depend; None if it is not known.

    RunningHub does not publish which of several files determines the price (the emulator takes the first video, else
    the first sound). So the minimum is the length of the shortest file, and the expected and the maximum value are
    the length of the longest file.
    """
    lengths = [one.length for one in files]
    known = [one for one in lengths if one is not None]
    if not known or (assume is None and len(known) < len(lengths)):
        return assume
    least = min(one.least for one in known)
    if assume is None:
        return Span(least, max(one.expected for one in known), max(one.most for one in known))
    sure = max(one.least for one in known)
    return Span(min(assume.least, least), max(assume.expected, sure), max(assume.most, sure))


def output_seconds(
    model: Model | None, payload: Mapping[str, Any], files: list[File], assume: Span | None
) -> Span | None:
    """Returns the duration of a model's output, as far as it can be known before the output is made."""
    if assume is not None:
        return assume
    if model is None or model.output not in ("video", "audio"):
        return None
    duration = _duration_of(model, payload)
    if duration is not None:
        return Span(duration.least, duration.expected + FRAME_SECONDS, duration.most + FRAME_SECONDS)
    same = [one for one in files if one.kind == model.output]
    if same:
        return same[0].length
    if model.output == "audio" and model.price is not None and model.price.unit == "1000 characters":
        return _spoken(payload.get(model.price.per or "text"))
    return None


def _duration_of(model: Model, payload: Mapping[str, Any]) -> Span | None:
    for key in _DURATIONS:
        param = model.find_param(key)
        if param is None:
            continue
        found = number_of(payload.get(param.key, param.default))
        if found is not None and found.least > 0:
            return found
    return None


def _spoken(text: Any) -> Span | None:
    if text is None:
        return None
    count = characters(text)
    slow = _CHARACTERS_PER_SECOND
    return Span(count.least / slow.least, count.expected / slow.expected, count.most / slow.most)
