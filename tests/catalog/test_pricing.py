from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from rh_prefect import catalog
from rh_prefect.catalog.model import money
from rh_prefect.catalog.registry import SLIM_FILE
from tests.support.each_case import each_case


@pytest.mark.parametrize(
    ("name", "payload", "seconds", "amount"),
    [
        ("z-image/turbo", {}, None, "0.04"),
        ("kling-v2.6-pro-image-to-video", {}, None, "3.5"),  # 5 s with sound
        ("kling-v2.6-pro-image-to-video", {"duration": "10", "sound": "false"}, None, "3.5"),
        ("kling-v3.0-pro-image-to-video", {"duration": "8", "sound": False}, None, "5.52"),
        ("kling-video-o3-pro-text-to-video", {"duration": 7}, None, "6.09"),
        ("topazlabs-video-upscale", {"targetResolution": "4k", "targetFps": "60"}, 10.5, "26.25"),
        ("topazlabs-video-upscale", {}, None, None),
        ("kling-v2.6-pro-motion-control", {}, 12.0, "6.72"),
        ("kling-lip-sync/lip-sync-video", {}, 5.0, "0.35"),
        ("kling-lip-sync/lip-sync-video", {}, 5.1, "0.7"),  # begun blocks of five seconds
        ("kling-lip-sync/lip-sync-video", {}, None, None),
        ("qwen-image-2.0/text-to-image", {"imageNum": "4"}, None, "0.52"),
        ("wan-2.5-preview/text-to-image", {"n": 3}, None, "0.39"),
        ("wan-2.5-preview/text-to-image", {}, None, "0.13"),
        ("seedream-v4/text-to-image", {"sequentialImageGeneration": "auto", "maxImages": 5}, None, "0.7"),
        ("seedream-v4/text-to-image", {"maxImages": 5}, None, "0.14"),  # no series was asked for
        ("minimax/speech-2.8-hd", {"text": "x" * 1500}, None, "0.93"),
        ("minimax/speech-02-turbo", {"text": "x" * 100}, None, "0.019"),
        ("seedance-2.0/text-to-video", {"duration": "-1"}, None, None),
        ("seedance-2.0/text-to-video", {"duration": "6", "resolution": "native1080p"}, None, "18"),
        ("seedance-2.0-fast/text-to-video", {"resolution": "native1080p"}, None, None),  # no row for it
        ("wan-2.2/text-to-video", {}, None, None),
        *[(f"rhart-video/minimax-h3-oss/fl2va{one}", {"duration": 10}, None, "1.50") for one in ("", "-advanced")],
    ],
)
def test_prices_by_hand(name: str, payload: dict[str, object], seconds: float | None, amount: str | None) -> None:
    price = catalog.estimate(catalog.get(name), payload, seconds=seconds)
    assert (None if price is None else price.amount) == (None if amount is None else Decimal(amount))


def test_a_price_that_may_be_higher_says_so() -> None:
    price = catalog.estimate(catalog.get("seedance-2.0/multimodal-video"), {"duration": "5", "resolution": "720p"})
    assert price is not None
    assert price.lower_bound
    assert str(price) == "from 6.00 CNY"
    exact = catalog.estimate(catalog.get("seedance-2.0/text-to-video"), {})
    assert exact is not None
    assert not exact.lower_bound


def test_prices_in_words() -> None:
    assert str(catalog.get("kling-v3.0-pro-image-to-video").price) == "0.69 to 1.04 CNY per second"
    assert str(catalog.get("z-image/turbo").price) == "0.04 CNY per call"
    assert str(catalog.get("seedance-2.0/multimodal-video").price) == "from 0.60 to 3.00 CNY per second"
    assert [money(Decimal(text)) for text in ("5", "0.5", "0.035", "9999")] == ["5.00", "0.50", "0.035", "9999.00"]


def units(raw: dict[str, Any], payload: dict[str, object]) -> Decimal | None:
    """How many units a call with the defaults takes, worked out without the code under test."""
    defaults = {param["key"]: param.get("default") for param in raw["params"]}
    match raw["price"]["unit"]:
        case "call":
            return Decimal(1)
        case "image":
            return Decimal(str(defaults.get("imageNum") or defaults.get("n") or 1))
        case "1000 characters":
            return Decimal("0.02")
        case _ if "duration" in payload or "duration" in defaults:
            return Decimal(str(payload.get("duration", defaults.get("duration"))))
        case "5 seconds":
            return Decimal(2)
        case _:
            return Decimal(7)


def test_every_row_of_every_model() -> None:
    written = {raw["name"]: raw for raw in json.loads(SLIM_FILE.read_text(encoding="utf-8"))["models"]}
    with each_case() as case:
        for model in (one for one in catalog.models() if one.price):
            with case(model.name):
                raw = written[model.name]
                price = raw["price"]
                for *values, amount in price.get("rows") or [[price.get("fixed")]]:
                    types = {param["key"]: param["type"] for param in raw["params"]}
                    payload: dict[str, object] = {
                        key: value == "true" if types[key] == "bool" else value
                        for key, value in zip(price.get("by", []), values)
                    }
                    asked = [one for one in raw["params"] if one["key"] == "duration" and one.get("required")]
                    payload |= {one["key"]: one["min"] for one in asked if "default" not in one}
                    count = units(raw, payload)
                    payload |= {"text": "x" * 20} if "text" in types else {}
                    got = catalog.estimate(model, payload, seconds=7.0)
                    assert got is not None
                    assert got.amount == Decimal(str(amount)) * (count or 0)
                    assert got.lower_bound == ("from" in price["unit"] or "price_note" in raw)


def test_models_by_tokens_say_that_a_preview_of_zero_is_not_their_price() -> None:
    found = [model for model in catalog.models() if "seedance-2.5" in model.endpoint]
    assert len(found) == 6
    for model in found:
        assert (model.price, "shows 0, which is not the price" in model.price_note) == (None, True)
