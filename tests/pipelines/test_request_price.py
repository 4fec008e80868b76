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
from rh_prefect.pipelines.plan.planned_steps import PlannedStep, PriceRange, Work
from rh_prefect.pipelines.plan.request_price import input_seconds, output_seconds, price_of
from rh_prefect.pipelines.planning_values import FRAME_SECONDS, File, Span, Unknown, exactly


def model(price: PriceTable | None, *params: Param, output: Any = "video", note: str = "") -> Model:
    return Model("test", "test/model", output, "test", params=params, price=price, price_note=note)


def figures(price: PriceRange) -> str:
    """The least, the expected and the highest price, and whether it can be more."""
    amounts = (price.least, price.expected, price.most)
    return " / ".join(f"{one.normalize():f}" for one in amounts) + " or more" * price.is_open


def total(*prices: tuple[PriceRange, bool]) -> PriceRange:
    works = [Work(f"{n}", True, 1, "+", price, is_sure=is_sure) for n, (price, is_sure) in enumerate(prices)]
    step: Any = None
    return Plan("film", instances=[PlannedStep("a", "", step, (), works=works)]).price


def cost(
    made: Model | None, payload: dict[str, Any], *, length: Span | None = None, attempts: int = 1, **assume: Any
) -> str:
    claim = Assume.model_validate(assume) if assume else None
    return figures(price_of(made, payload, seconds=length, assume=claim, attempts=attempts))


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


OTHER_SIZE = model(BY_SIZE, Param("size", "size", "enum", options=("1k", "2k", "8k")))
OF_LENGTHS = model(PriceTable("call", by=("duration",), rows=((("5",), Decimal(1)), (("10",), Decimal(2)))), LENGTH)
LONGER = Param("duration", "duration", "int", min=5, default=8)
SHORTER = Param("duration", "duration", "int", max=5, default=4)
IMAGES = model(BY_IMAGES, NUMBER, SEVERAL)
LIMITED = model(BY_TEXT, replace(WORDS, max_length=10_000))

PRICES: list[tuple[Model | None, dict[str, Any], int, str]] = [
    # The attempts count for the most alone.
    (model(CALL), {}, 1, "0.5 / 0.5 / 0.5"),
    (model(CALL), {}, 3, "0.5 / 0.5 / 1.5"),
    # A price that is not known, or that may be more, is open.
    (model(CALL, note="tokens come on top"), {}, 1, "0.5 / 0.5 / 0.5 or more"),
    (None, {}, 1, "0 / 0 / 0 or more"),
    (model(None), {}, 1, "0 / 0 / 0 or more"),
    (model(BY_INPUT), {}, 1, "0 / 0 / 0 or more"),
    # A value that is not known costs what the cheapest and the dearest one cost.
    (model(BY_SIZE, SIZE), {"size": unknown("string")}, 1, "1 / 4 / 4"),
    (model(BY_SIZE, SIZE), {"size": "2k"}, 1, "2 / 2 / 2"),
    (model(BY_SOUND, SOUND), {"sound": unknown("boolean")}, 1, "1 / 3 / 3"),
    (model(BY_LENGTH, LENGTH), {"duration": unknown("integer", 6, 8, 9)}, 1, "0.6 / 0.8 / 0.9"),
    (model(BY_LENGTH, LENGTH), {"duration": unknown("integer")}, 1, "0.5 / 1.5 / 1.5"),
    (model(BY_LENGTH, LENGTH), {"duration": 10}, 1, "1 / 1 / 1"),
    (model(BY_TEXT, WORDS), {"text": unknown("string", 100, 1000, 2000)}, 1, "0.1 / 1 / 2"),
    (model(BY_TEXT, WORDS), {"text": "x" * 500}, 1, "0.5 / 0.5 / 0.5"),
    # A text without a limit makes the price open; a number is a short text.
    (model(BY_TEXT, WORDS), {"text": unknown("string")}, 2, "0 / 0.3 / 0.6 or more"),
    (model(BY_TEXT, WORDS), {"text": unknown("any")}, 2, "0 / 0.3 / 0.6 or more"),
    (model(BY_TEXT, WORDS), {"text": unknown("number", 1, 5000, 90000)}, 2, "0.001 / 0.005 / 0.05"),
    (model(BY_TEXT, WORDS), {"text": unknown("integer")}, 2, "0.001 / 0.005 / 0.05"),
    (LIMITED, {"text": unknown("string")}, 1, "0 / 0.3 / 10"),
    # A value that does not count changes nothing.
    (model(BY_SIZE, SIZE, WORDS), {"size": "1k", "text": unknown("string")}, 1, "1 / 1 / 1"),
    (model(BY_SIZE, SIZE, WORDS), {"size": "1k", "other": unknown("string")}, 1, "1 / 1 / 1"),
    # A number of images counts only under its condition.
    (IMAGES, {"number": 3, "several": True}, 1, "3 / 3 / 3"),
    (IMAGES, {"number": unknown("integer"), "several": False}, 1, "1 / 1 / 1"),
    (IMAGES, {"number": unknown("integer"), "several": True}, 1, "1 / 4 / 4"),
    (IMAGES, {"number": 3, "several": unknown("boolean")}, 1, "1 / 3 / 3"),
    # A value without both bounds makes the price open; none would have the price of the default.
    (model(BY_LENGTH, LOOSE), {"duration": unknown("integer")}, 2, "0 / 0 / 0 or more"),
    (model(BY_LENGTH, LONGER), {"duration": unknown("integer")}, 1, "0 / 0 / 0 or more"),
    (model(BY_LENGTH, SHORTER), {"duration": unknown("integer")}, 1, "0 / 0 / 0 or more"),
    # An option without a price costs at least the cheapest one, unless a unit may be less than one.
    (OTHER_SIZE, {"size": "8k"}, 2, "1 / 1 / 2 or more"),
    (OTHER_SIZE, {"size": unknown("string")}, 2, "1 / 1 / 2 or more"),
    (model(replace(BY_SIZE, unit="image"), SIZE), {"size": "8k"}, 2, "1 / 1 / 2 or more"),
    (model(replace(BY_SIZE, unit="second"), SIZE), {"size": "8k"}, 2, "0 / 0 / 0 or more"),
    # A length between two that have a price has none.
    (OF_LENGTHS, {"duration": unknown("integer", 5, 10, 10)}, 1, "1 / 2 / 2"),
    (OF_LENGTHS, {"duration": unknown("integer", 5, 7, 10)}, 2, "1 / 1 / 2 or more"),
    (OF_LENGTHS, {"duration": unknown("integer", 4, 5, 10)}, 2, "1 / 1 / 2 or more"),
    (OF_LENGTHS, {"duration": unknown("integer", 5, 10, 11)}, 2, "1 / 2 / 4 or more"),
]


@pytest.mark.parametrize(("made", "payload", "attempts", "expected"), PRICES)
def test_what_a_request_costs(made: Model | None, payload: dict[str, Any], attempts: int, expected: str) -> None:
    assert cost(made, payload, attempts=attempts) == expected


def test_an_assumed_price_is_open() -> None:
    assumed: dict[str, Any] = {"price": {"expected": 2, "most": 3}}
    for made in (None, model(None), model(CALL)):
        assert cost(made, {}, attempts=2, **assumed) == "0 / 2 / 6 or more"
    assert cost(model(CALL), {}, seconds=7) == "0.5 / 0.5 / 0.5", "an assumed length"


def test_the_price_of_a_sound_of_a_text_without_a_limit_is_open() -> None:
    speech = output_seconds(model(BY_TEXT, WORDS, output="audio"), {"text": unknown("string")}, [], None)
    assert speech == Span(0, 20, math.inf)
    assert cost(model(BY_INPUT), {}, length=speech).endswith(" / 2 / 2 or more")


def test_the_length_of_the_input_counts_and_the_most_is_a_begun_second() -> None:
    made = model(BY_INPUT)
    assert cost(made, {}, length=Span(2.5, 3.5, 4.2), attempts=2) == "0.25 / 0.35 / 1"
    assert cost(made, {}, length=exactly(4 + 1e-12)).endswith(" / 0.4"), "a rounding error is no second"
    least, *others = cost(made, {}, length=Span(0, 1, 2)).split(" / ")
    assert 0 < Decimal(least) < Decimal("0.01"), "an input that may be empty has at least a frame"
    assert others == ["0.1", "0.2"]


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


FRAME = FRAME_SECONDS
EIGHT = Param("seconds", "seconds", "enum", options=("4", "8"), default="8")
NEXT, SCRIPT = Param("videoDuration", "video_duration", "int"), Param("script", "script", "string")
BY_SCRIPT = PriceTable("1000 characters", per="script", fixed=Decimal(1))
BY_NO_PARAM = PriceTable("1000 characters", fixed=Decimal(1))
LONG = "x" * 300
LENGTHS: list[tuple[Model, dict[str, Any], tuple[float, float, float] | None]] = [
    # As it is asked for, and a frame longer; the next parameter counts where the first one says nothing.
    (model(CALL, LENGTH), {"duration": 5}, (5, 5 + FRAME, 5 + FRAME)),
    (model(CALL, LENGTH), {"duration": unknown("integer", 5, 8, 10)}, (5, 8 + FRAME, 10 + FRAME)),
    (model(CALL, EIGHT), {}, (8, 8 + FRAME, 8 + FRAME)),
    (model(CALL, LOOSE, NEXT), {"duration": -1, "videoDuration": 1}, (1, 1 + FRAME, 1 + FRAME)),
    # Speech is as long as its text; a video or a song is not.
    (model(BY_TEXT, WORDS, output="audio"), {"text": LONG}, (10, 20, 100)),
    (model(BY_TEXT, WORDS, output="audio"), {"text": unknown("string", 30, 60, 90)}, (1, 4, 30)),
    (model(BY_TEXT, WORDS, output="audio"), {}, None),
    (model(BY_SCRIPT, SCRIPT, output="audio"), {"script": LONG, "text": "x"}, (10, 20, 100)),
    (model(BY_NO_PARAM, WORDS, output="audio"), {"text": LONG}, (10, 20, 100)),
    (model(BY_TEXT, WORDS), {"text": LONG}, None),
    (model(CALL, WORDS, output="audio"), {"text": LONG}, None),
    (model(None, WORDS, output="audio"), {"text": LONG}, None),
]


@pytest.mark.parametrize(("made", "payload", "expected"), LENGTHS)
def test_length_of_an_output(made: Model, payload: dict[str, Any], expected: tuple[float, float, float] | None) -> None:
    assert output_seconds(made, payload, [], None) == expected


@pytest.mark.parametrize("value", [-1, "-1", 0, "auto", None, unknown("integer")])
def test_a_length_that_the_model_chooses_is_that_of_an_input_of_its_kind(value: Any) -> None:
    made = model(CALL, LOOSE)
    assert output_seconds(made, {"duration": value}, [], None) is None
    sound = File("audio", "sound", seconds=exactly(30))
    assert output_seconds(made, {"duration": value}, [sound, TWO, ONE], None) == TWO.seconds
    assert output_seconds(made, {"duration": value}, [sound], None) is None
    assert output_seconds(made, {"duration": value}, [UNSURE], None) is None
    assert output_seconds(made, {"duration": value}, [UNSURE], exactly(9)) == (9, 9, 9)


def test_a_picture_has_no_length() -> None:
    assert output_seconds(model(CALL, LENGTH, output="image"), {"duration": 5}, [ONE], None) is None
    assert output_seconds(None, {"duration": 5}, [ONE], None) is None


def test_a_step_that_may_be_skipped_is_not_in_the_least() -> None:
    one = PriceRange(Decimal(1), Decimal(2), Decimal(3))
    two = PriceRange(Decimal(10), Decimal(20), Decimal(30), is_open=True)
    assert figures(total()) == "0 / 0 / 0"
    assert figures(total((one, True), (one, False))) == "1 / 4 / 6"
    assert figures(total((one, True), (two, False))) == "1 / 22 / 33 or more"
    assert figures(total((two, True), (one, True))) == "11 / 22 / 33 or more"


def test_the_length_of_a_file_that_exists_is_exact() -> None:
    film = Media(uri="a.mp4", kind="video", mime="video/mp4", seconds=7.5, sha256="0" * 64, size=1)
    assert input_seconds([File("video", "film", media=film)], None) == (7.5, 7.5, 7.5)
