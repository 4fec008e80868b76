"""What records of RunningHub's pages and answers say of single models, beyond its lists."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rh_prefect import catalog, models
from rh_prefect.errors import InputError
from rh_prefect.media.media import Media

H3 = "rhart-video/minimax-h3-oss/fl2va"
OMNI = ("skyreels-v4/omni-reference-fast", "skyreels-v4/omni-reference-std")


@pytest.mark.parametrize("given", ["3", 3, 3.0])
@pytest.mark.parametrize("name", ["alibaba/qwen-image-3.0-pro/text-to-image", "alibaba/qwen-image-3.0/text-to-image"])
def test_an_option_that_the_page_shows_as_a_number_is_sent_as_one(name: str, given: Any) -> None:
    model = catalog.get(name)
    read = catalog.read_parameters(model, {"prompt": "x", "image_num": given})
    assert read.sent["imageNum"] == 3
    assert isinstance(read.sent["imageNum"], int)
    assert read.given["imageNum"] == "3"
    assert models.input_for(model)(prompt="x", image_num=given).params()["image_num"] == "3"


@pytest.mark.parametrize("wrong", ["banana", 4, 16, 5.5])
def test_the_duration_of_h3_is_checked(wrong: object) -> None:
    with pytest.raises(InputError, match="duration must be"):
        catalog.validate(catalog.get(H3), {"prompt": "x", "duration": wrong})


@pytest.mark.parametrize("name", [H3, f"{H3}-advanced"])
def test_h3_costs_its_preview_each_second(name: str) -> None:
    model = catalog.get(name)
    price = catalog.estimate(model, catalog.validate(model, {"prompt": "x", "duration": 10}))
    assert (price.amount, price.lower_bound) == (Decimal("1.50"), True)  # type: ignore[union-attr]
    assert "one second" in model.price_note


def test_models_by_tokens_say_that_a_preview_of_zero_is_not_their_price() -> None:
    found = [model for model in catalog.models() if "seedance-2.5" in model.endpoint]
    assert len(found) == 6
    for model in found:
        assert (model.price, "shows 0, which is not the price" in model.price_note) == (None, True)


@pytest.mark.parametrize("name", OMNI)
def test_reference_images_of_skyreels_are_links(name: str) -> None:
    model = catalog.get(name)
    images = [{"type": "image", "tag": "image_1", "url": "https://example.com/a.png"}]
    assert catalog.validate(model, {"prompt": "x", "ref_images": images})["refImages"] == images
    local = Media(uri="/a.png", kind="image", mime="image/png", size=1, sha256="0" * 64)
    for url in (
        "photo.jpg",
        "/home/me/photo",
        "./photo",
        "~/photo",
        "s3://bucket/a.png",
        "file:///a.png",
        Path("a"),
        local,
    ):
        with pytest.raises(InputError, match="link"):
            catalog.validate(model, {"prompt": "x", "ref_images": [{"type": "image", "url": url}]})


@pytest.mark.parametrize(
    ("name", "param"),
    [
        ("marble-1.1/image-to-world", "image_url"),
        ("alibaba/wan-3.0/reference-to-video", "file_url"),
        ("seedance2.0/upload-asset", "url"),
    ],
)
def test_a_local_path_is_not_sent_as_a_text(name: str, param: str) -> None:
    model = catalog.get(name)
    base = catalog.example(model) | {"prompt": "x"} if model.find_param("prompt") else catalog.example(model)
    for path in ("photo.jpg", "/home/me/photo.jpg", "C:\\photo.jpg", "a/b"):
        with pytest.raises(InputError, match="takes a link, not the local file"):
            catalog.validate(model, {**base, param: path})
    for link in ("https://example.com/a.png", "asset://7", "data:image/png;base64,AAAA"):
        assert link in catalog.validate(model, {**base, param: link}).values()
    if name.startswith("marble"):
        assert "3f2a-asset-id" in catalog.validate(model, {**base, param: "3f2a-asset-id"}).values()


@pytest.mark.parametrize(
    "endpoint",
    [
        *(f"bytedance/seedance-2.5-global-token/{kind}" for kind in ("text", "image", "multimodal")),
        "bytedance/seedance-2.0-fast-token/multimodal",
        "rhart-video/minimax-h3-rh-enhanced/ref2va",
    ],
)
def test_models_that_the_lists_lack_are_there(endpoint: str) -> None:
    suffix = {"multimodal": "-video", "text": "-to-video", "image": "-to-video"}.get(endpoint.rpartition("/")[2], "")
    assert catalog.get(endpoint + suffix).params
