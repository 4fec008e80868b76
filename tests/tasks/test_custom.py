"""Endpoints and values that the catalogue does not know, on the paid path against an emulator that is ahead of it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from rh_prefect import catalog, generate, models
from rh_prefect.catalog import Param
from rh_prefect.emulator import Emulator
from rh_prefect.errors import BudgetExceeded, RequestRejected
from tests.support.samples import media as samples
from tests.support.servers.link_server import sha256

ENDPOINT = "luma/uni-9/image-edit"
PROMPT = Param(key="prompt", name="prompt", type="string", required=True)
PICTURES = Param(key="imageUrls", name="image_urls", type="image", multiple=True)


@pytest.fixture
def ahead(rh: Emulator) -> Emulator:
    """An emulator with a model that the catalogue lacks."""
    rh.add_model(ENDPOINT, params=[PROMPT, PICTURES], price="0.30")
    return rh


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    samples.jpg(path, size=(64, 48))
    return path


async def test_files_are_uploaded_outputs_are_stored_and_it_is_paid_once(ahead: Emulator, photo: Path) -> None:
    asked = models.custom(ENDPOINT, prompt="photo.jpg", imageUrls=[photo])
    result = await generate.fn(asked, scope="night")
    again = await generate.fn(asked, scope="night")
    (paid,) = ahead.recorder.paid
    assert (paid.endpoint, paid.payload["prompt"]) == (ENDPOINT, "photo.jpg")
    assert paid.inputs["imageUrls"] == (sha256(photo.read_bytes()),)
    assert (result.model, result.cost, again.task_id) == (ENDPOINT, Decimal("0.30"), result.task_id)
    assert Path(result.first_output.uri).name.startswith("luma-uni-9-image-edit-")
    assert Path(result.first_output.uri).exists()


async def test_a_result_feeds_it(ahead: Emulator) -> None:
    first = await generate.fn(models.ZImageTurbo(prompt="a lighthouse"), scope="night")
    await generate.fn(models.custom(ENDPOINT, prompt="at night", imageUrls=[first]), scope="night")
    assert ahead.recorder.paid[-1].inputs["imageUrls"] == (first.first_output.sha256,)


async def test_the_price_that_is_given_counts_in_the_budget(ahead: Emulator) -> None:
    with pytest.raises(BudgetExceeded):
        await generate.fn(models.custom(ENDPOINT, prompt="x", price=5), scope="night", budget=1)
    assert not ahead.recorder.paid


async def test_an_endpoint_that_runninghub_does_not_know_either_costs_nothing(rh: Emulator) -> None:
    with pytest.raises(RequestRejected, match="1001"):
        await generate.fn(models.custom("luma/uni-8/image-edit", prompt="x"), scope="night")
    assert not rh.recorder.paid


async def test_a_value_that_is_newer_than_the_catalogue_is_sent(rh: Emulator) -> None:
    known = catalog.get("z-image/turbo")
    wider = [replace(one, options=(*one.options, "32:9")) if one.key == "aspectRatio" else one for one in known.params]
    rh.add_model(known.endpoint, params=wider, price="0.04")
    await generate.fn(models.ZImageTurbo(prompt="x", unchecked={"aspect_ratio": "32:9"}), scope="night")
    assert rh.recorder.paid[0].payload["aspectRatio"] == "32:9"
