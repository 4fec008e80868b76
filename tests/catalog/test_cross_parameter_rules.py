from __future__ import annotations

import warnings

import pytest

from rh_prefect import catalog
from rh_prefect.catalog import InputWarning
from rh_prefect.errors import InputError

PICTURE, CLIP = "https://example.com/a.png", "https://example.com/a.mp4"


def payload(name: str, **params: object) -> dict[str, object]:
    return catalog.validate(catalog.get(name), params)


def refusal(name: str, **params: object) -> str:
    with pytest.raises(InputError) as caught:
        payload(name, **params)
    return str(caught.value)


def test_exactly_one_of_two() -> None:
    assert payload("kling-lip-sync/identify-face", video_url=CLIP) == {"videoUrl": CLIP}
    assert payload("kling-lip-sync/identify-face", video_id="1") == {"videoId": "1"}
    assert "one of video_url and video_id is needed" in refusal("kling-lip-sync/identify-face")
    both = refusal("kling-lip-sync/identify-face", video_url=CLIP, video_id="1")
    assert "video_url and video_id exclude each other" in both


def test_prompt_or_shots_but_not_both() -> None:
    name, shots = "kling-v3.0-4k-image-to-video", [{"prompt": "a", "duration": 5}]
    assert payload(name, image_url=PICTURE, prompt="x")["prompt"] == "x"
    sent = payload(name, image_url=PICTURE, multi_shot=True, multi_prompt=shots)
    assert sent["shotType"] == "customize"
    assert sent["multiPrompt"] == shots
    assert "is needed" in refusal(name, image_url=PICTURE)
    assert "exclude each other" in refusal(name, image_url=PICTURE, prompt="x", multi_shot=True, multi_prompt=shots)


def test_at_least_one_of_two() -> None:
    assert "one of ref_images and ref_videos is needed" in refusal("skyreels-v4/omni-reference", prompt="x")
    given = {"type": "image", "tag": "a", "url": PICTURE}
    sent = payload("skyreels-v4/omni-reference", prompt="x", ref_images=[given], ref_videos=given)
    assert sent["refImages"] == [given]


def test_what_becomes_necessary_is_filled_in_with_its_default() -> None:
    name = "kling-video-o3-4k-text-to-video"
    assert payload(name, prompt="x", multi_shot=True)["shotType"] == "customize"
    assert "shotType" not in payload(name, prompt="x")
    assert payload("wan-2.7/text-to-image-pro", prompt="x", width=2048) == {
        "prompt": "x",
        "width": 2048,
        "height": 1024,
    }
    assert payload("wan-2.7/text-to-image-pro", prompt="x") == {"prompt": "x"}


def test_what_goes_only_with_another_is_refused_without_it() -> None:
    name = "midjourney-text-to-image-v7"
    assert payload(name, prompt="x", sref=PICTURE, sw=50)["sw"] == 50
    assert "sw is valid only when sref is given" in refusal(name, prompt="x", sw=50)
    assert "ow is valid only when oref is given" in refusal(name, prompt="x", ow=50)


def test_the_untouched_default_of_a_form_does_no_harm_and_is_not_sent() -> None:
    assert "sw" not in payload("midjourney-text-to-image-v7", prompt="x", sw=100)


def test_sound_needs_a_picture_or_a_video() -> None:
    name, sound = "seedance-2.0/multimodal-video", "https://example.com/a.mp3"
    assert "audio_urls is valid only when image_urls or video_urls is given" in refusal(
        name, prompt="x", audio_urls=[sound]
    )
    assert payload(name, prompt="x", audio_urls=[sound], video_urls=[CLIP])["audioUrls"] == [sound]


def test_what_has_no_effect_is_sent_with_a_warning() -> None:
    model, base = "wan-2.2/image-to-image", {"image_url": PICTURE, "prompt": "x"}
    with pytest.warns(InputWarning, match="custom_width has no effect unless aspect_ratio is custom"):
        assert payload(model, **base, custom_width=512)["customWidth"] == 512
    with pytest.warns(InputWarning, match="multi_prompt has no effect unless multi_shot is true"):
        payload("kling-v3.0-pro-text-to-video", prompt="x", multi_prompt=[{"prompt": "a"}])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        payload(model, **base, aspect_ratio="custom", custom_width=512)
        payload(model, **base, custom_width=1024, custom_height=1024)  # a form's defaults


def test_lists_with_a_common_limit() -> None:
    name = "wan-2.6-reference-to-video"
    assert payload(name, prompt="x", image_urls=[PICTURE] * 3, video_urls=[CLIP] * 2)["imageUrls"] == [PICTURE] * 3
    text = refusal(name, prompt="x", image_urls=[PICTURE] * 4, video_urls=[CLIP] * 2)
    assert "image_urls and video_urls may have at most 5 items together, not 6" in text


def test_values_that_exclude_each_other() -> None:
    name = "pixverse-v5.6/text-to-video"
    assert payload(name, prompt="x", resolution="1080p", duration=8)["duration"] == "8"
    assert "duration 10 with resolution 1080p is not offered" in refusal(
        name, prompt="x", resolution="1080p", duration=10
    )


def test_every_rule_is_about_parameters_that_the_model_has() -> None:
    for model in catalog.models():
        for rule in model.rules:
            for key in (*rule.params, *rule.given, *(key for key, _ in rule.when)):
                assert model.param(key).key == key
