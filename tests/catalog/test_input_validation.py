"""What a model's parameters may be, alone and together, and what is sent of them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from rh_prefect import catalog, models
from rh_prefect.catalog import InputWarning, Model, Param
from rh_prefect.errors import InputError, MediaError
from rh_prefect.media.media import Media

KLING = "kling-v2.6-pro-image-to-video"
EDIT = "nano-banana/edit-official-stable"
SLOTS = "seedance-2.0-global/image-to-video"
O3 = "kling-video-o3-pro-text-to-video"
V3 = "kling-v3.0-pro-text-to-video"
SHOTS_OR_PROMPT = "kling-v3.0-4k-image-to-video"
OMNI = "skyreels-v4/omni-reference"
OMNI_FAST, OMNI_STD = "skyreels-v4/omni-reference-fast", "skyreels-v4/omni-reference-std"
MARBLE = "marble-1.1/image-to-world"
H3 = "rhart-video/minimax-h3-oss/fl2va"
FACE = "kling-lip-sync/identify-face"
VOICE = "minimax/voice-clone"
V7 = "midjourney-text-to-image-v7"
REFERENCES = "wan-2.6-reference-to-video"
WAN = "wan-2.7/text-to-image-pro"
SEEDANCE, MULTIMODAL = "seedance-2.0/image-to-video", "seedance-2.0/multimodal-video"
PIXVERSE = "pixverse-v5.6/text-to-video"
PICTURE, CLIP, SOUND = (f"https://example.com/a.{extension}" for extension in ("png", "mp4", "mp3"))
LINKED = {"type": "image", "tag": "image_1", "url": PICTURE}
LOCAL = ("photo.jpg", "/home/me/photo", "./photo", "~/photo", "s3://bucket/a.png", "file:///a.png", Path("a"))
SHOTS = [{"prompt": "a", "duration": 5}]
WAVES: dict[str, Any] = {"image_url": PICTURE, "prompt": "waves"}
HELLO = {"audio": SOUND, "text": "hello"}
REFERENCE = {"type": "reference", "tag": "a", "url": CLIP}
ANY: dict[str, Any] = {"prompt": "x"}
FRAME = {"first_frame_url": PICTURE}
HEARD = {**ANY, "audio_urls": [SOUND]}
MULTI = {**ANY, "multi_shot": True}


def payload(name: str, params: dict[str, Any]) -> dict[str, object]:
    return catalog.read_parameters(catalog.get(name), params).sent


def refusal(name: str, params: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        payload(name, params)
    return str(caught.value)


SENT: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "a wire key": (KLING, {"imageUrl": PICTURE, "prompt": "x", "duration": "10"}, {"duration": "10"}),
    "an odd key": (  # the API's own sign
        "wan-2.2/text-to-video",
        {**ANY, "resolution": "1280×720"},
        {" resolution": "1280×720", "resolution": None},
    ),
    "a misspelt key": ("f-2-dev/edit", {**WAVES, "aspect_ratio": "custom", "custom_hight": 512}, {"customHight": 512}),
    "a parameter that is called model": (
        "grok-image/text-to-image/channel-low-price",
        {**ANY, "model_": "g-4"},
        {"model": "g-4", "model_": None},
    ),
    "a number for a choice": (KLING, {**WAVES, "duration": 10}, {"duration": "10"}),
    "a float for a choice": (KLING, {**WAVES, "duration": 10.0}, {"duration": "10"}),
    "a boolean for a choice": (KLING, {**WAVES, "sound": False}, {"sound": "false"}),
    "the text of a boolean for a choice": (KLING, {**WAVES, "sound": "true"}, {"sound": "true"}),
    "a choice that only the note names": ("seedance-2.0/text-to-video", {**ANY, "duration": -1}, {"duration": "-1"}),
    "none and empty count as not given": (
        KLING,
        {**WAVES, "negative_prompt": "", "duration": None},
        {"negativePrompt": None, "duration": "5"},
    ),
    "one value for a list": (EDIT, {**ANY, "image_urls": PICTURE}, {"imageUrls": [PICTURE]}),
    "a list of choices": (
        SLOTS,
        {**FRAME, "conversion_slots": ["firstFrameUrl"]},
        {"conversionSlots": ["firstFrameUrl"]},
    ),
    "no choices": (SLOTS, FRAME, {"conversionSlots": None}),
    "a boolean": (V3, {**ANY, "sound": False}, {"sound": False}),
    **{
        f"the name {name}": (VOICE, {**HELLO, "custom_voice_id": name}, {"custom_voice_id": name})
        for name in ("narrator1", "Elegant_Man")  # which fit the pattern, the second as the registry's own sample
    },
    "JSON": (V3, {**MULTI, "multi_prompt": [{"prompt": "a"}]}, {"multiPrompt": [{"prompt": "a"}]}),
    "the text of JSON": (V3, {**MULTI, "multi_prompt": '[{"prompt": "a"}]'}, {"multiPrompt": [{"prompt": "a"}]}),
    "a tuple for JSON": (V3, {**MULTI, "multi_prompt": ({"prompt": "a"},)}, {"multiPrompt": [{"prompt": "a"}]}),
    "one object": (OMNI, {**ANY, "ref_videos": REFERENCE}, {"refVideos": REFERENCE}),
    "one object in a list": (OMNI, {**ANY, "ref_videos": [REFERENCE]}, {"refVideos": [REFERENCE]}),
    "an asset for a file": (SEEDANCE, {"first_frame_url": "asset://1"}, {"firstFrameUrl": "asset://1"}),
    **{
        f"{link} for a link in a text": (MARBLE, {"image_url": link}, {"imageUrl": link})
        for link in (PICTURE, "asset://7", "data:image/png;base64,AAAA", "3f2a-asset-id")
    },
    **{
        f"a link of a reference image of {name}": (name, {**ANY, "ref_images": [LINKED]}, {"refImages": [LINKED]})
        for name in (OMNI_FAST, OMNI_STD)
    },
    "a prompt without shots": (SHOTS_OR_PROMPT, WAVES, {"prompt": "waves", "multiPrompt": None}),
    "shots without a prompt": (
        SHOTS_OR_PROMPT,
        {"image_url": PICTURE, "multi_shot": True, "multi_prompt": SHOTS},
        {"shotType": "customize", "multiPrompt": SHOTS},
    ),
    "both of at least one": (OMNI, {**ANY, "ref_images": [LINKED], "ref_videos": REFERENCE}, {"refImages": [LINKED]}),
    "what becomes necessary": ("kling-video-o3-4k-text-to-video", MULTI, {"shotType": "customize"}),
    "what does not": ("kling-video-o3-4k-text-to-video", ANY, {"shotType": None}),
    "a number with what it needs": (V7, {**ANY, "sref": PICTURE, "sw": 50}, {"sw": 50}),
    "the untouched default of a form": (V7, {**ANY, "sw": 100}, {"sw": None}),
    "sound with a video": (MULTIMODAL, {**HEARD, "video_urls": [CLIP]}, {"audioUrls": [SOUND]}),
    "lists within their common limit": (
        REFERENCES,
        {**ANY, "image_urls": [PICTURE] * 3, "video_urls": [CLIP] * 2},
        {"imageUrls": [PICTURE] * 3},
    ),
    "values that go together": (PIXVERSE, {**ANY, "resolution": "1080p", "duration": 8}, {"duration": "8"}),
}
"""A model, what is given, and a part of what is sent; None: not sent."""


@pytest.mark.parametrize("name", SENT)
def test_what_is_sent(name: str) -> None:
    model, given, expected = SENT[name]
    sent = payload(model, given)
    assert {key: sent.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "given", "sent"),
    [
        (KLING, WAVES, {"prompt": "waves", "imageUrl": PICTURE, "sound": "true", "duration": "5"}),
        (FACE, {"video_url": CLIP}, {"videoUrl": CLIP}),
        (FACE, {"video_id": "1"}, {"videoId": "1"}),
        (WAN, {**ANY, "width": 2048}, {"prompt": "x", "width": 2048, "height": 1024}),
        (WAN, ANY, ANY),
    ],
)
def test_only_required_defaults_are_filled_in_and_sent(name: str, given: dict[str, Any], sent: dict[str, Any]) -> None:
    assert payload(name, given) == sent


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    *[
        (KLING, {**WAVES, "duration": wrong}, 'duration must be one of "5", "10"')
        for wrong in (7, "7", True, 5.5, ["5"], {"a": 1}, "5 ")
    ],
    *[(H3, {**ANY, "duration": wrong}, "duration must be") for wrong in ("banana", 4, 16, 5.5)],
    *[
        (name, {**ANY, "ref_images": [{"type": "image", "url": url}]}, "link")
        for name in (OMNI_FAST, OMNI_STD)
        for url in (*LOCAL, Media(uri="/a.png", kind="image", mime="image/png", size=1, sha256="0" * 64))
    ],
    *[
        (name, {**catalog.example(catalog.get(name)), param: path}, "takes a link, not the local file")
        for name, param in (
            (MARBLE, "image_url"),
            ("alibaba/wan-3.0/reference-to-video", "file_url"),
            ("seedance2.0/upload-asset", "url"),
        )
        for path in ("photo.jpg", "/home/me/photo.jpg", "C:\\photo.jpg", "a/b")
    ],
    (KLING, {**WAVES, "prompt": ""}, "prompt is missing"),
    (EDIT, {**ANY, "image_urls": []}, "image_urls is missing"),
    (SLOTS, {**FRAME, "conversion_slots": ["nope"]}, 'one of "all"'),
    *[(O3, {**ANY, "duration": wrong}, "between 3 and 15") for wrong in (2, 16)],
    *[(O3, {**ANY, "duration": wrong}, "a whole number") for wrong in ("5", True, 5.5)],
    (O3, {**ANY, "duration": float("nan")}, "not a number"),
    *[(V3, {**ANY, "cfg_scale": wrong}, "cfg_scale must be between 0 and 1") for wrong in (-1, 1.5)],
    (V3, {**ANY, "cfg_scale": "many"}, "cfg_scale must be a number"),
    (EDIT, {**ANY, "image_urls": [PICTURE] * 99}, "image_urls takes at most 5 items, not 99"),
    (KLING, {**WAVES, "prompt": "x" * 2001}, "has 2001 characters; at most 2000"),
    (KLING, {**WAVES, "prompt": 5}, "must be a string, not 5"),
    (V3, {**ANY, "sound": "true"}, "must be true or false"),
    *[(VOICE, {**HELLO, "custom_voice_id": one}, "8+ characters, letter first") for one in ("short1", "1narrator")],
    *[
        (V3, {**MULTI, "multi_prompt": wrong}, "multi_prompt must be a list of objects")
        for wrong in ({"prompt": "a"}, "not json", "5", ["a"], 5)
    ],
    (OMNI, {**ANY, "ref_videos": [REFERENCE] * 2}, "must be an object"),
    (
        KLING,
        {**WAVES, "durations": 3},
        "durations is not a parameter; the nearest is duration (pass a newer parameter with unchecked=",
    ),
    (KLING, {**WAVES, "imageUrl": PICTURE}, "given twice"),
    (FACE, {}, "one of video_url and video_id is needed"),
    (FACE, {"video_url": CLIP, "video_id": "1"}, "video_url and video_id cannot be combined"),
    (SHOTS_OR_PROMPT, {"image_url": PICTURE}, "is needed"),
    (SHOTS_OR_PROMPT, {**WAVES, "multi_shot": True, "multi_prompt": SHOTS}, "cannot be combined"),
    (OMNI, ANY, "one of ref_images and ref_videos is needed"),
    (V7, {**ANY, "sw": 50}, "sw is valid only when sref is given"),
    (V7, {**ANY, "ow": 50}, "ow is valid only when oref is given"),
    (MULTIMODAL, HEARD, "audio_urls is valid only when image_urls or video_urls is given"),
    (
        REFERENCES,
        {**ANY, "image_urls": [PICTURE] * 4, "video_urls": [CLIP] * 2},
        "image_urls and video_urls may have at most 5 items together, not 6",
    ),
    (PIXVERSE, {**ANY, "resolution": "1080p", "duration": 10}, "duration 10 with resolution 1080p is not offered"),
]


@pytest.mark.parametrize(("name", "given", "reason"), REFUSED)
def test_what_is_refused(name: str, given: dict[str, Any], reason: str) -> None:
    assert reason in refusal(name, given)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "is not JSON"),
        (f"[{'[' * 300}{']' * 300}]", "nested more than"),
        ('[{"a": NaN}]', "contains nan"),
    ],
)
def test_a_json_text_that_cannot_be_sent_is_refused(text: str, reason: str) -> None:
    assert reason in refusal(V3, {**MULTI, "multi_prompt": text})


def test_all_problems_are_in_one_error() -> None:
    with pytest.raises(InputError) as caught:
        payload(KLING, {"image_url": 5, "duration": "7", "sound": "maybe"})
    text = str(caught.value)
    problems = ("prompt is missing", "image_url is not a file", "duration must be", "sound must be")
    assert [part for part in (KLING, *problems, "Nothing was sent") if part not in text] == []
    assert text.count("image_url") == 1
    assert (vars(caught.value)["model"], len(vars(caught.value)["problems"])) == (KLING, 4)


def test_a_whole_float_is_taken_for_an_integer() -> None:
    sent = payload(O3, {**ANY, "duration": 6.0})["duration"]
    assert sent == 6
    assert isinstance(sent, int)


@pytest.mark.parametrize("given", ["3", 3, 3.0])
@pytest.mark.parametrize("name", ["alibaba/qwen-image-3.0-pro/text-to-image", "alibaba/qwen-image-3.0/text-to-image"])
def test_an_option_that_the_page_shows_as_a_number_is_sent_as_one(name: str, given: Any) -> None:
    model = catalog.get(name)
    read = catalog.read_parameters(model, {"prompt": "x", "image_num": given})
    assert read.sent["imageNum"] == 3
    assert isinstance(read.sent["imageNum"], int)
    assert read.given["imageNum"] == "3"
    assert models.input_for(model)(prompt="x", image_num=given).params()["image_num"] == "3"


def test_an_unchecked_value_is_sent_unchanged_and_takes_nothing_from_the_others() -> None:
    qwen = {"prompt": "x", "image_urls": [PICTURE], "prompt_extend_mode": "agent", "prompt_extend": "auto"}
    sent = catalog.read_parameters(catalog.get("qwen-image-3.0/image-edit"), qwen, unchecked=["prompt_extend"]).sent
    assert (sent["promptExtend"], sent["promptExtendMode"]) == ("auto", "agent")
    niji = catalog.get("midjourney-text-to-image-niji7")
    assert catalog.read_parameters(niji, {"prompt": "x", "sw": "9999"}, unchecked=["sw"]).sent["sw"] == "9999"


def test_an_unknown_parameter_of_a_partly_known_model() -> None:
    partly_known = next(model for model in catalog.models() if model.incomplete)
    assert "RunningHub publishes only some of them" in refusal(partly_known.name, {"zoom": 3})


def test_what_has_no_effect_is_sent_with_a_warning() -> None:
    model = "wan-2.2/image-to-image"
    with pytest.warns(InputWarning, match="custom_width has no effect unless aspect_ratio is custom"):
        assert payload(model, {**WAVES, "custom_width": 512})["customWidth"] == 512
    with pytest.warns(InputWarning, match="multi_prompt has no effect unless multi_shot is true"):
        payload(V3, {**ANY, "multi_prompt": [{"prompt": "a"}]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        payload(model, {**WAVES, "aspect_ratio": "custom", "custom_width": 512})
        payload(model, {**WAVES, "custom_width": 1024, "custom_height": 1024})  # a form's defaults


def test_every_rule_is_about_parameters_that_the_model_has() -> None:
    for model in catalog.models():
        for rule in model.rules:
            for key in (*rule.params, *rule.given, *(key for key, _ in rule.when)):
                assert model.param(key).key == key


def check(param: str, **facts: object) -> None:
    given: dict[str, Any] = {"extension": "png", "size": 1000, "kind": "image"} | facts
    catalog.check_file(catalog.get(KLING), catalog.get(KLING).param(param), **given)


@pytest.mark.parametrize("extension", ["png", "jpg", "JPG", ".jpeg"])
def test_files_that_are_accepted(extension: str) -> None:
    check("image_url", extension=extension)
    check("imageUrl", extension=extension, kind=None, size=20 * 1024 * 1024)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"size": 20 * 1024 * 1024 + 1}, "at most 20 MB"),
        ({"extension": "gif"}, "takes jpg, png, but the format of this file is gif"),
        ({"extension": ""}, "the format of this file is unknown"),
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
