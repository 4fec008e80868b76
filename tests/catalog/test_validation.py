from __future__ import annotations

from typing import Any

import pytest

from rh_prefect import catalog
from rh_prefect.catalog import Model, Param
from rh_prefect.errors import InputError, MediaError

KLING = "kling-v2.6-pro-image-to-video"
PICTURE = "https://example.com/a.png"


def payload(name: str, **params: object) -> dict[str, object]:
    return catalog.validate(catalog.get(name), params)


def refusal(name: str, **params: object) -> str:
    with pytest.raises(InputError) as caught:
        payload(name, **params)
    return str(caught.value)


def test_names_become_wire_keys_and_required_defaults_are_filled_in() -> None:
    assert payload(KLING, image_url=PICTURE, prompt="waves") == {
        "prompt": "waves",
        "imageUrl": PICTURE,
        "sound": "true",
        "duration": "5",
    }


def test_wire_keys_are_taken_too() -> None:
    assert payload(KLING, imageUrl=PICTURE, prompt="waves", duration="10")["duration"] == "10"


def test_odd_keys_stay_as_they_are_on_the_wire() -> None:
    wan = payload("wan-2.2/text-to-video", prompt="waves", resolution="1280×720")  # the API's own sign
    assert " resolution" in wan
    assert "resolution" not in wan
    assert (
        payload("f-2-dev/edit", image_url=PICTURE, prompt="x", aspect_ratio="custom", custom_hight=512)["customHight"]
        == 512
    )


def test_a_parameter_that_is_called_model_has_an_underscore_in_python_and_none_on_the_wire() -> None:
    assert payload("grok-image/text-to-image/channel-low-price", prompt="x", model_="g-4")["model"] == "g-4"


@pytest.mark.parametrize(
    ("given", "sent"),
    [({"duration": 10}, "10"), ({"duration": 10.0}, "10"), ({"sound": False}, "false"), ({"sound": "true"}, "true")],
)
def test_a_number_or_boolean_is_taken_for_the_string_that_it_spells(given: dict[str, object], sent: str) -> None:
    assert payload(KLING, image_url=PICTURE, prompt="x", **given)[next(iter(given))] == sent


@pytest.mark.parametrize("given", [7, "7", True, 5.5, ["5"], {"a": 1}, "5 "])
def test_everything_else_is_refused_and_the_allowed_values_are_named(given: object) -> None:
    assert 'duration must be one of "5", "10"' in refusal(KLING, image_url=PICTURE, prompt="x", duration=given)


def test_all_problems_are_in_one_error() -> None:
    with pytest.raises(InputError) as caught:
        payload(KLING, image_url=5, duration="7", sound="maybe")
    text = str(caught.value)
    for part in (
        KLING,
        "prompt is missing",
        "image_url is not a file",
        "duration must be",
        "sound must be",
        "Nothing was sent",
    ):
        assert part in text
    assert text.count("image_url") == 1
    assert vars(caught.value)["model"] == KLING
    assert len(vars(caught.value)["problems"]) == 4


def test_none_and_empty_values_count_as_not_given() -> None:
    sent = payload(KLING, image_url=PICTURE, prompt="x", negative_prompt="", duration=None)
    assert "negativePrompt" not in sent
    assert sent["duration"] == "5"
    assert "prompt is missing" in refusal(KLING, image_url=PICTURE, prompt="")
    assert "image_urls is missing" in refusal("nano-banana/edit-official-stable", prompt="x", image_urls=[])


def test_a_single_value_is_taken_for_a_list_of_one() -> None:
    sent = payload("nano-banana/edit-official-stable", prompt="x", image_urls=PICTURE)
    assert sent["imageUrls"] == [PICTURE]


def test_a_list_of_choices_goes_as_a_list() -> None:
    base = {"first_frame_url": PICTURE}
    sent = payload("seedance-2.0-global/image-to-video", **base, conversion_slots=["firstFrameUrl"])
    assert sent["conversionSlots"] == ["firstFrameUrl"]
    assert "conversionSlots" not in payload("seedance-2.0-global/image-to-video", **base)
    assert 'one of "all"' in refusal("seedance-2.0-global/image-to-video", **base, conversion_slots=["nope"])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (2, "between 3 and 15"),
        (16, "between 3 and 15"),
        ("5", "a whole number"),
        (True, "a whole number"),
        (5.5, "a whole number"),
        (float("nan"), "not a number"),
    ],
)
def test_numbers(given: object, reason: str) -> None:
    assert reason in refusal("kling-video-o3-pro-text-to-video", prompt="x", duration=given)


def test_a_whole_float_is_taken_for_an_integer() -> None:
    sent = payload("kling-video-o3-pro-text-to-video", prompt="x", duration=6.0)["duration"]
    assert sent == 6
    assert isinstance(sent, int)


def test_strings() -> None:
    assert "has 2001 characters; at most 2000" in refusal(KLING, image_url=PICTURE, prompt="x" * 2001)
    assert "must be a string, not 5" in refusal(KLING, image_url=PICTURE, prompt=5)


def test_booleans_are_no_strings_and_strings_no_booleans() -> None:
    assert "must be true or false" in refusal("kling-v3.0-pro-text-to-video", prompt="x", sound="true")
    assert payload("kling-v3.0-pro-text-to-video", prompt="x", sound=False)["sound"] is False


def test_a_pattern_that_the_note_states() -> None:
    """`Elegant_Man` is the registry's own sample."""
    voice = {"audio": "https://example.com/a.mp3", "text": "hello"}
    for name in ("narrator1", "Elegant_Man"):
        assert payload("minimax/voice-clone", **voice, custom_voice_id=name)["custom_voice_id"] == name
    for wrong in ("short1", "1narrator"):
        assert "8+ characters, letter first" in refusal("minimax/voice-clone", **voice, custom_voice_id=wrong)


@pytest.mark.parametrize("shots", [[{"prompt": "a"}], '[{"prompt": "a"}]', ({"prompt": "a"},)])
def test_json_goes_as_itself(shots: object) -> None:
    sent = payload("kling-v3.0-pro-text-to-video", prompt="x", multi_shot=True, multi_prompt=shots)
    assert sent["multiPrompt"] == [{"prompt": "a"}]


@pytest.mark.parametrize("shots", [{"prompt": "a"}, "not json", "5", ["a"], 5])
def test_json_of_the_wrong_shape_is_refused(shots: object) -> None:
    text = refusal("kling-v3.0-pro-text-to-video", prompt="x", multi_shot=True, multi_prompt=shots)
    assert "multi_prompt must be a list of objects" in text


def test_json_that_holds_one_object() -> None:
    clip = {"type": "reference", "tag": "a", "url": "https://example.com/a.mp4"}
    for given in (clip, [clip]):
        assert payload("skyreels-v4/omni-reference", prompt="x", ref_videos=given)["refVideos"] == given
    assert "must be an object" in refusal("skyreels-v4/omni-reference", prompt="x", ref_videos=[clip, clip])


def test_a_choice_that_only_the_note_names() -> None:
    assert payload("seedance-2.0/text-to-video", prompt="x", duration=-1)["duration"] == "-1"


def test_an_unknown_parameter_is_refused_with_the_nearest_name() -> None:
    said = refusal(KLING, image_url=PICTURE, prompt="x", durations=3)
    assert "durations is not a parameter; the nearest is duration (pass a newer one with unchecked=" in said
    partly_known = next(model for model in catalog.models() if model.incomplete)
    assert "RunningHub publishes only some of them" in refusal(partly_known.name, zoom=3)


def test_a_parameter_given_twice_is_refused() -> None:
    assert "given twice" in refusal(KLING, image_url=PICTURE, imageUrl=PICTURE, prompt="x")


def test_asset_links_pass_as_files() -> None:
    sent = payload("seedance-2.0/image-to-video", first_frame_url="asset://asset-1")
    assert sent["firstFrameUrl"] == "asset://asset-1"


def check(param: str, **facts: object) -> None:
    given: dict[str, Any] = {"extension": "png", "size": 1000, "kind": "image"} | facts
    catalog.check_file(catalog.get(KLING), param, **given)


@pytest.mark.parametrize("extension", ["png", "jpg", "JPG", ".jpeg"])
def test_files_that_are_accepted(extension: str) -> None:
    check("image_url", extension=extension)
    check("imageUrl", extension=extension, kind=None, size=20 * 1024 * 1024)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"size": 20 * 1024 * 1024 + 1}, "at most 20 MB"),
        ({"extension": "gif"}, "takes jpg, png, but this is gif"),
        ({"extension": ""}, "an unknown format"),
        ({"kind": "video", "extension": "mp4"}, "takes an image file, but this is a video file"),
        ({"size": 0}, "empty"),
    ],
)
def test_files_that_are_refused(facts: dict[str, object], reason: str) -> None:
    with pytest.raises(MediaError, match=reason) as caught:
        check("image_url", **facts, source="photo.xyz")
    assert "photo.xyz" in str(caught.value)
    assert KLING in str(caught.value)


def test_a_parameter_without_limits_takes_any_file_of_its_kind() -> None:
    model = Model("m", "m", "image", "f", params=(Param("a", "a", "image"),))
    catalog.check_file(model, model.params[0], extension="xyz", size=10**12, kind="image")
