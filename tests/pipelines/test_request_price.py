"""What a request costs at least, probably and at most, where some of its values are not known yet."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from rh_prefect.catalog import Model, Param, PriceTable
from rh_prefect.media.media import Media
from rh_prefect.pipelines.file_model import Assume
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import PriceRange, Work
from rh_prefect.pipelines.plan.request_price import input_seconds, output_seconds, price_of
from rh_prefect.pipelines.planning_values import FRAME_SECONDS, File, Span, Unknown, exactly


def model(price: PriceTable | None, *params: Param, output: Any = "video", note: str = "") -> Model:
    return Model("test", "test/model", output, "test", params=params, price=price, price_note=note)


def figures(price: PriceRange) -> tuple[str, str, str, bool]:
    return str(price.least), str(price.expected), str(price.most), price.is_open


def total(*prices: tuple[PriceRange, bool]) -> PriceRange:
    works = [Work(f"{n}", True, 1, "+", price, is_sure=is_sure) for n, (price, is_sure) in enumerate(prices)]
    return Plan("film", works=works).price


def cost(
    made: Model | None, payload: dict[str, Any], *, seconds: Span | None = None, attempts: int = 1, **assume: Any
) -> tuple[str, str, str, bool]:
    claim = Assume.model_validate(assume) if assume else None
    return figures(price_of(made, payload, seconds=seconds, assume=claim, attempts=attempts))


def unknown(kind: str, *span: float) -> Unknown:
    return Unknown(kind, "s", span=Span(*span) if span else None)


CALL = PriceTable("call", fixed=Decimal("0.5"))
SIZE = Param("size", "size", "enum", options=("1k", "2k", "4k"))
SOUND = Param("sound", "sound", "bool")
LENGTH = Param("duration", "duration", "int", min=5, max=15)
LOOSE = Param("duration", "duration", "int")
WORDS = Param("text", "text", "string")
BY_SIZE = PriceTable("call", by=("size",), rows=((("1k",), Decimal(1)), (("2k",), Decimal(2)), (("4k",), Decimal(4))))
BY_SOUND = PriceTable("call", by=("sound",), rows=((("true",), Decimal(3)), (("false",), Decimal(1))))
BY_LENGTH = PriceTable("second", per="duration", fixed=Decimal("0.1"))
BY_INPUT = PriceTable("second", fixed=Decimal("0.1"))
BY_TEXT = PriceTable("1000 characters", per="text", fixed=Decimal(1))
BY_IMAGES = PriceTable("image", per="number", per_when=(("several", "true"),), fixed=Decimal(1))
NUMBER, SEVERAL = Param("number", "number", "int", min=1, max=4), Param("several", "several", "bool", default=False)


def test_the_attempts_count_for_the_most_alone() -> None:
    assert cost(model(CALL), {}) == ("0.5", "0.5", "0.5", False)
    assert cost(model(CALL), {}, attempts=3) == ("0.5", "0.5", "1.5", False)


def test_a_price_that_may_be_more_is_open() -> None:
    assert cost(model(CALL, note="tokens come on top"), {}) == ("0.5", "0.5", "0.5", True)


def test_what_has_no_price_is_open_and_an_assumed_price_stays_so() -> None:
    assert cost(None, {}) == cost(model(None), {}) == ("0", "0", "0", True)
    assumed: dict[str, Any] = {"price": {"expected": 2, "most": 3}}
    for made in (None, model(None), model(CALL)):
        assert cost(made, {}, attempts=2, **assumed) == ("0", "2.0", "6.0", True)
    length = Assume.model_validate({"seconds": 7})
    assert figures(price_of(model(CALL), {}, seconds=None, assume=length, attempts=1)) == ("0.5", "0.5", "0.5", False)


@pytest.mark.parametrize(
    ("table", "param", "value", "expected"),
    [
        (BY_SIZE, SIZE, unknown("string"), ("1", "4", "4", False)),
        (BY_SIZE, SIZE, "2k", ("2", "2", "2", False)),
        (BY_SOUND, SOUND, unknown("boolean"), ("1", "3", "3", False)),
        (BY_LENGTH, LENGTH, unknown("integer", 6, 8, 9), ("0.6", "0.8", "0.9", False)),
        (BY_LENGTH, LENGTH, unknown("integer"), ("0.5", "1.5", "1.5", False)),
        (BY_LENGTH, LENGTH, 10, ("1.0", "1.0", "1.0", False)),
        (BY_TEXT, WORDS, unknown("string", 100, 1000, 2000), ("0.1", "1", "2", False)),
        (BY_TEXT, WORDS, "x" * 500, ("0.5", "0.5", "0.5", False)),
    ],
)
def test_an_unknown_value_costs_what_the_cheapest_and_the_dearest_one_cost(
    table: PriceTable, param: Param, value: Any, expected: tuple[str, str, str, bool]
) -> None:
    made = model(table, param)
    least, *others, is_open = cost(made, {param.key: value})
    assert (*map(Decimal, (least, *others)), is_open) == (*map(Decimal, expected[:3]), expected[3])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (unknown("string"), ("0", "0.3", "0.6", True)),
        (unknown("any"), ("0", "0.3", "0.6", True)),
        (unknown("number", 1, 5000, 90000), ("0.001", "0.005", "0.05", False)),
        (unknown("integer"), ("0.001", "0.005", "0.05", False)),
    ],
)
def test_a_text_without_a_limit_makes_the_price_open_and_a_number_is_a_short_text(
    text: Unknown, expected: tuple[str, str, str, bool]
) -> None:
    *sums, is_open = cost(model(BY_TEXT, WORDS), {"text": text}, attempts=2)
    assert (*map(Decimal, sums), is_open) == (*map(Decimal, expected[:3]), expected[3])
    limited = replace(WORDS, max_length=10_000)
    assert cost(model(BY_TEXT, limited), {"text": unknown("string")}) == ("0", "0.3", "10", False)


def test_the_price_of_a_sound_of_a_text_without_a_limit_is_open() -> None:
    speech = output_seconds(model(BY_TEXT, WORDS, output="audio"), {"text": unknown("string")}, [], None)
    assert speech == Span(0, 20, math.inf)
    assert cost(model(BY_INPUT), {}, seconds=speech)[1:] == ("2.00", "2.00", True)


def test_an_unknown_value_that_does_not_count_changes_nothing() -> None:
    made = model(BY_SIZE, SIZE, WORDS)
    assert cost(made, {"size": "1k", "text": unknown("string")}) == ("1", "1", "1", False)
    assert cost(made, {"size": "1k", "other": unknown("string")}) == ("1", "1", "1", False)


def test_a_number_of_images_counts_only_under_its_condition() -> None:
    made = model(BY_IMAGES, NUMBER, SEVERAL)
    assert cost(made, {"number": 3, "several": True}) == ("3", "3", "3", False)
    assert cost(made, {"number": unknown("integer"), "several": False}) == ("1", "1", "1", False)
    assert cost(made, {"number": unknown("integer"), "several": True}) == ("1", "4", "4", False)
    assert cost(made, {"number": 3, "several": unknown("boolean")}) == ("1", "3", "3", False)


def test_a_value_without_bounds_makes_the_price_open() -> None:
    assert cost(model(BY_LENGTH, LOOSE), {"duration": unknown("integer")}, attempts=2) == ("0", "0", "0", True)
    # None would have the price of the default.
    lower = Param("duration", "duration", "int", min=5, default=8)
    assert cost(model(BY_LENGTH, lower), {"duration": unknown("integer")}) == ("0", "0", "0", True)
    upper = Param("duration", "duration", "int", max=5, default=4)
    assert cost(model(BY_LENGTH, upper), {"duration": unknown("integer")}) == ("0", "0", "0", True)


def test_an_option_without_a_price_costs_at_least_the_cheapest_one() -> None:
    made = model(BY_SIZE, Param("size", "size", "enum", options=("1k", "2k", "8k")))
    assert cost(made, {"size": "8k"}, attempts=2) == ("1", "1", "2", True)
    assert cost(made, {"size": unknown("string")}, attempts=2) == ("1", "1", "2", True)
    images = model(replace(BY_SIZE, unit="image"), SIZE)
    assert cost(images, {"size": "8k"}, attempts=2) == ("1", "1", "2", True)
    seconds = model(replace(BY_SIZE, unit="second"), SIZE)
    assert cost(seconds, {"size": "8k"}, attempts=2) == ("0", "0", "0", True), "it may last less than a second"


def test_a_length_between_two_that_have_a_price_has_none() -> None:
    table = PriceTable("call", by=("duration",), rows=((("5",), Decimal(1)), (("10",), Decimal(2))))
    made = model(table, LENGTH)
    assert cost(made, {"duration": unknown("integer", 5, 10, 10)}) == ("1", "2", "2", False)
    for span in ((5, 7, 10), (4, 5, 10)):
        assert cost(made, {"duration": unknown("integer", *span)}, attempts=2) == ("1", "1", "2", True)
    assert cost(made, {"duration": unknown("integer", 5, 10, 11)}, attempts=2) == ("1", "2", "4", True)


def test_an_input_of_unknown_length_has_no_least_price() -> None:
    assert cost(model(BY_INPUT), {}, seconds=None) == ("0", "0", "0", True)


def test_the_length_of_the_input_counts_and_the_most_is_a_begun_second() -> None:
    made = model(BY_INPUT)
    once, twice = (price_of(made, {}, seconds=Span(2.5, 3.5, 4.2), assume=None, attempts=n) for n in (1, 2))
    least, expected, most = once.least, once.expected, twice.most
    assert (least, expected, most) == (Decimal("0.25"), Decimal("0.35"), Decimal("1.0"))
    whole = price_of(made, {}, seconds=exactly(4 + 1e-12), assume=None, attempts=1)
    assert whole.most == Decimal("0.4"), "a rounding error is no second"


def test_an_input_that_may_be_empty_has_at_least_a_frame() -> None:
    price = price_of(model(BY_INPUT), {}, seconds=Span(0, 1, 2), assume=None, attempts=1)
    assert 0 < price.least < Decimal("0.01")
    assert (price.expected, price.most, price.is_open) == (Decimal("0.1"), Decimal("0.2"), False)


ONE, TWO = File("video", "one", seconds=Span(1, 2, 3)), File("video", "two", seconds=Span(4, 5, 6))
UNSURE = File("video", "three")


def test_of_several_inputs_the_shortest_is_the_least_and_the_longest_the_most() -> None:
    assert input_seconds([ONE, TWO], None) == (1, 5, 6)
    assert input_seconds([TWO, ONE], None) == (1, 5, 6)
    assert input_seconds([], None) is None
    assert input_seconds([], exactly(7)) == (7, 7, 7)
    assert input_seconds([ONE, UNSURE], None) is None


def test_an_assumed_length_counts_as_far_as_the_files_do_not_say_more() -> None:
    assert input_seconds([ONE, UNSURE], exactly(2)) == (1, 2, 2)
    assert input_seconds([ONE, TWO], exactly(2)) == (1, 4, 4)
    assert input_seconds([TWO], Span(1, 7, 9)) == (1, 7, 9)
    assert input_seconds([TWO], Span(5, 7, 9)) == (4, 7, 9)
    assert input_seconds([UNSURE], exactly(2)) == (2, 2, 2)


def test_an_output_is_as_long_as_it_is_asked_for_and_a_frame_longer() -> None:
    made = model(CALL, LENGTH)
    assert output_seconds(made, {"duration": 5}, [], None) == (5, 5 + FRAME_SECONDS, 5 + FRAME_SECONDS)
    clip = output_seconds(made, {"duration": unknown("integer", 5, 8, 10)}, [], None)
    assert clip == (5, 8 + FRAME_SECONDS, 10 + FRAME_SECONDS)
    assert output_seconds(made, {"duration": 5}, [], exactly(9)) == (9, 9, 9)
    default = Param("seconds", "seconds", "enum", options=("4", "8"), default="8")
    assert output_seconds(model(CALL, default), {}, [], None) == (8, 8 + FRAME_SECONDS, 8 + FRAME_SECONDS)


@pytest.mark.parametrize("value", [-1, "-1", 0, "auto", None, unknown("integer")])
def test_a_length_that_the_model_chooses_is_that_of_an_input_of_its_kind(value: Any) -> None:
    made = model(CALL, LOOSE)
    assert output_seconds(made, {"duration": value}, [], None) is None
    sound = File("audio", "sound", seconds=exactly(30))
    assert output_seconds(made, {"duration": value}, [sound, TWO, ONE], None) == TWO.seconds
    assert output_seconds(made, {"duration": value}, [sound], None) is None
    assert output_seconds(made, {"duration": value}, [UNSURE], None) is None


def test_the_next_parameter_of_a_length_counts_where_the_first_one_says_nothing() -> None:
    both = model(CALL, LOOSE, Param("videoDuration", "video_duration", "int"))
    clip = output_seconds(both, {"duration": -1, "videoDuration": 1}, [], None)
    assert clip == (1, 1 + FRAME_SECONDS, 1 + FRAME_SECONDS)


def test_a_picture_has_no_length() -> None:
    assert output_seconds(model(CALL, LENGTH, output="image"), {"duration": 5}, [ONE], None) is None
    assert output_seconds(None, {"duration": 5}, [ONE], None) is None


def test_speech_is_as_long_as_its_text() -> None:
    voice = model(BY_TEXT, WORDS, output="audio")
    assert output_seconds(voice, {"text": "x" * 300}, [], None) == (10, 20, 100)
    assert output_seconds(voice, {"text": unknown("string", 30, 60, 90)}, [], None) == (1, 4, 30)
    assert output_seconds(voice, {}, [], None) is None
    assert output_seconds(model(BY_TEXT, WORDS), {"text": "x" * 300}, [], None) is None, "a video"
    assert output_seconds(model(CALL, WORDS, output="audio"), {"text": "x" * 300}, [], None) is None, "a song"
    assert output_seconds(model(None, WORDS, output="audio"), {"text": "x" * 300}, [], None) is None
    other = Param("script", "script", "string")
    table = PriceTable("1000 characters", per="script", fixed=Decimal(1))
    spoken = output_seconds(model(table, other, output="audio"), {"script": "x" * 300, "text": "x"}, [], None)
    assert spoken == (10, 20, 100)
    nowhere = PriceTable("1000 characters", fixed=Decimal(1))
    assert output_seconds(model(nowhere, WORDS, output="audio"), {"text": "x" * 300}, [], None) == (10, 20, 100)


def test_a_step_that_may_be_skipped_is_not_in_the_least() -> None:
    one, two = (
        PriceRange(Decimal(1), Decimal(2), Decimal(3)),
        PriceRange(Decimal(10), Decimal(20), Decimal(30), is_open=True),
    )
    assert figures(total()) == ("0", "0", "0", False)
    assert figures(total((one, True), (one, False))) == ("1", "4", "6", False)
    assert figures(total((one, True), (two, False))) == ("1", "22", "33", True)
    assert figures(total((two, True), (one, True))) == ("11", "22", "33", True)


def test_the_length_of_a_file_that_exists_is_exact() -> None:
    film = Media(uri="a.mp4", kind="video", mime="video/mp4", seconds=7.5, sha256="0" * 64, size=1)
    assert input_seconds([File("video", "film", media=film)], None) == (7.5, 7.5, 7.5)
