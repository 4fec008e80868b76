"""Calls of endpoints that the catalogue does not know, and values that it does not know yet."""

from __future__ import annotations

import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from rh_prefect import catalog, models
from rh_prefect.cli.argument_checks import batch_values
from rh_prefect.errors import InputError, UnknownModelError
from rh_prefect.media.media import Media
from rh_prefect.models import CustomInput, FileValue, ModelInput

PHOTO = Media(uri="s3://b/a.png", kind="image", mime="image/png", size=3, sha256="0" * 64)
ENDPOINT = "luma/uni-9/text-to-image"


@pytest.mark.parametrize(
    "endpoint",
    [ENDPOINT, f"/{ENDPOINT}/", f"openapi/v2/{ENDPOINT}", f"https://www.runninghub.ai/openapi/v2/{ENDPOINT}"],
)
def test_an_endpoint_is_named_as_the_vendors_page_shows_it(endpoint: str) -> None:
    asked = models.custom(endpoint, prompt="x")
    assert (asked.endpoint, asked.model) == (ENDPOINT, ENDPOINT)


CALLS = ["query", "task/openapi/cancel", "run/workflow/1", "media/upload/binary"]


@pytest.mark.parametrize("endpoint", ["", "a b", "a//b", "a/b?c=d", "../a", "http://", *CALLS])
def test_what_is_no_model_s_endpoint_is_refused(endpoint: str) -> None:
    said = "is a RunningHub API call, not a model" if endpoint in CALLS else "endpoint: .* is not a valid endpoint"
    with pytest.raises(InputError, match=said):
        models.custom(endpoint, prompt="x")


def test_paths_media_and_results_are_files_and_texts_are_texts() -> None:
    class Finished:
        first_output = PHOTO

    asked = models.custom(
        ENDPOINT,
        prompt="photo.jpg",
        image=Path("photo.jpg"),
        more=[PHOTO, {"deep": Finished()}],
        link="https://x/y.png",
    )
    assert asked.params == {
        "prompt": "photo.jpg",
        "image": FileValue(file="photo.jpg"),
        "more": [FileValue(file=PHOTO), {"deep": FileValue(file=PHOTO)}],
        "link": "https://x/y.png",
    }


def test_it_goes_to_json_and_back_and_is_told_from_other_inputs() -> None:
    asked = models.custom(ENDPOINT, price=0.1, seed=7, image=Path("photo.jpg"), params={"price": 3, "x-y": None})
    assert asked.price == Decimal("0.1")
    stored = asked.model_dump(mode="json")
    assert stored["params"]["image"] == {"file": "photo.jpg"}
    assert CustomInput.model_validate(stored) == asked
    assert pickle.loads(pickle.dumps(asked)) == asked


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"image": {1, 2}}, "type set cannot be sent as JSON"),
        ({"prompt": "\ud800"}, "an incomplete character"),
        ({"n": float("nan")}, "is not a number"),
        ({"price": 0, "prompt": "x"}, "greater than 0"),
        ({"params": {"prompt": "x"}, "prompt": "y"}, "parameters are given twice: prompt"),
        ({"image": {"file": ""}}, "empty path"),
    ],
)
def test_what_cannot_be_sent_is_refused_at_once(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason) as refused:
        models.custom(ENDPOINT, **given)
    assert ENDPOINT in str(refused.value)


def test_a_name_is_a_model() -> None:
    known = models.any_input("z-image/turbo", {"prompt": "x"})
    assert isinstance(known, ModelInput)
    photo = models.any_input("kling-v2.6-pro/image-to-video", {"image_url": {"file": "a.png"}, "prompt": "x"})
    assert isinstance(photo, ModelInput)
    assert photo.params()["image_url"] == "a.png"
    with pytest.raises(UnknownModelError, match="Similar names"):
        models.any_input(ENDPOINT, {"image": {"file": "a.png"}})


@pytest.mark.parametrize("given", [{"styleImage": {"file": "a.png"}}, {"styleImage": [Path("a.png")]}])
@pytest.mark.parametrize("is_unchecked", [False, True])
def test_a_file_for_an_unknown_parameter_of_a_known_model_is_refused(given: dict[str, Any], is_unchecked: bool) -> None:
    """It would go out as a local name, and be paid for."""
    params = {"unchecked": given} if is_unchecked else given
    with pytest.raises(InputError, match=r"styleImage is a file.*models\.custom"):
        models.any_input("z-image/turbo", {"prompt": "x", **params})


def test_the_error_that_refuses_a_value_says_how_to_send_it() -> None:
    with pytest.raises(InputError, match=r"unchecked=\{'aspect_ratio': '7:3'\}"):
        models.ZImageTurbo(prompt="x", aspect_ratio="7:3")  # type: ignore[arg-type]  # the mistake is the test


def test_a_value_that_the_catalogue_does_not_know_is_sent_knowingly() -> None:
    asked = models.ZImageTurbo(prompt="x", unchecked={"aspectRatio": "7:3"})
    assert asked.params() == {"prompt": "x", "aspect_ratio": "7:3"}
    assert asked.unchecked == {"aspect_ratio": "7:3"}
    entry = catalog.get("z-image/turbo")
    read = catalog.read_parameters(entry, asked.params(), unchecked=asked.unchecked)
    assert read.sent["aspectRatio"] == "7:3"
    with pytest.raises(InputError, match="must be one of"):
        catalog.read_parameters(entry, asked.params())


def test_only_what_is_named_goes_unchecked() -> None:
    with pytest.raises(InputError, match="prompt is missing"):
        models.ZImageTurbo(unchecked={"aspect_ratio": "7:3"})  # type: ignore[call-arg]  # the mistake is the test
    with pytest.raises(InputError, match="aspect_ratio is given twice"):
        models.ZImageTurbo(prompt="x", aspect_ratio="1:1", unchecked={"aspectRatio": "7:3"})
    with pytest.raises(InputError, match="`unchecked` must map parameter names to values"):
        models.ZImageTurbo(prompt="x", unchecked=["aspect_ratio"])  # type: ignore[arg-type]  # the mistake is the test


def test_an_unchecked_input_is_stored_pickled_and_compared_as_any_other() -> None:
    asked = models.ZImageTurbo(prompt="x", unchecked={"aspect_ratio": "7:3"})
    stored = asked.model_dump(mode="json")
    assert stored == {"model": "z-image/turbo", "prompt": "x", "unchecked": {"aspect_ratio": "7:3"}}
    assert TypeAdapter(ModelInput).validate_python(stored) == asked
    assert pickle.loads(pickle.dumps(asked)) == asked
    assert hash(asked) == hash(models.ZImageTurbo(prompt="x", unchecked={"aspect_ratio": "7:3"}))
    assert asked != models.ZImageTurbo(prompt="x")
    assert "unchecked" not in models.ZImageTurbo.model_json_schema()["properties"]


def test_a_required_parameter_can_go_unchecked() -> None:
    long = "x" * 3000
    name = "kling-v2.6-pro-image-to-video"
    asked = models.input_for(name)(image_url="a.avif", unchecked={"prompt": long, "image_url": None})
    assert asked.params() == {"image_url": "a.avif", "prompt": long}
    assert asked.model_dump(mode="json")["unchecked"] == {"prompt": long}
    film = models.input_for(name)(prompt="x", unchecked={"image_url": Path("a.avif")})
    assert film.params() == {"prompt": "x", "image_url": "a.avif"}


def test_a_custom_call_of_a_known_endpoint_warns() -> None:
    with pytest.warns(catalog.InputWarning, match="rhart-image/z-image/turbo is in the catalogue"):
        models.custom("rhart-image/z-image/turbo", prompt="x")


def test_the_values_of_a_batch_are_files_lists_and_texts_for_its_plan() -> None:
    given = ["duration=5", "image_urls=a.png", "image_urls=@b.png", "prompt=@prompt.txt", "prompt=[1]", "prompt=c"]
    assert batch_values(given) == {
        "duration": "5",
        "image_urls": ["a.png", {"file": "b.png"}],
        "prompt": [{"file": "prompt.txt"}, "[1]", "c"],
    }
