"""Which arguments are equal the next time, and which cannot be compared."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from pydantic import SecretStr

from rh_prefect import models
from rh_prefect.flow_runs.argument_hashes import argument_hash, arguments_of
from rh_prefect.media.media import Media
from rh_prefect.works.outputs.result import Result


@dataclass(frozen=True)
class Shot:
    name: str
    parts: tuple[str, ...] = ()


class Mood(Enum):
    CALM = "calm"


class Point(NamedTuple):
    x: int
    y: int


def picture(sha256: str, uri: str = "/a.png") -> Media:
    return Media(uri=uri, kind="image", mime="image/png", size=1, sha256=sha256)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a lighthouse", "a harbour"),
        (7, 8),
        (1, True),
        (0.5, 0.25),
        (None, ""),
        (Decimal("0.1"), Decimal("0.2")),
        (date(2026, 1, 1), date(2026, 1, 2)),
        (Path("shots/1.png"), Path("shots/2.png")),
        ([1, [2]], [1, [3]]),
        ({"a": {"b": 1}}, {"a": {"b": 2}}),
        (Shot("a"), Shot("b")),
        (Shot("a", ("x",)), Shot("a", ("y",))),
        (Point(1, 2), Point(1, 3)),
        (b"one", b"two"),
        (picture("a" * 64), picture("b" * 64)),
        (models.ZImageTurbo(prompt="a"), models.ZImageTurbo(prompt="b")),
        ("2026-01-01", "2026-01-02"),
    ],
)
def test_what_differs_tells_branches_apart_and_what_is_equal_is_the_same(one: Any, other: Any) -> None:
    assert argument_hash(one) is not None
    assert argument_hash(one) == argument_hash(one) != argument_hash(other)


def test_a_file_is_its_content_wherever_it_lies_and_however_it_is_given() -> None:
    here, there = picture("a" * 64), picture("a" * 64, "/mnt/other/b.png")
    assert argument_hash(here) == argument_hash(there)
    results = [Result(model="m", endpoint="e", job="j", key=key, task_id=key, outputs=(here,)) for key in "ab"]
    assert argument_hash(results[0]) == argument_hash(results[1])


@pytest.mark.parametrize(
    "value",
    [
        datetime.now(UTC),
        datetime.now(UTC).isoformat(),
        datetime.now(UTC).strftime("night-%Y%m%d-%H%M%S"),
        time.time(),
        int(time.time() * 1000),
        uuid4(),
        str(uuid4()),
        uuid4().hex,
        object(),
        {"a", "b"},
        len,
        f"{tempfile.gettempdir()}/x/photo.png",
        [1, {"at": time.time()}],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_another_value_each_time_is_not_compared(value: Any) -> None:
    assert argument_hash(value) is None
    assert arguments_of({"name": "a", "value": value})["name"] is not None


def test_a_secret_is_in_no_hash() -> None:
    assert argument_hash(SecretStr("one")) == argument_hash(SecretStr("two"))


def test_an_enum_is_its_value() -> None:
    assert argument_hash(Mood.CALM) == argument_hash("calm")
