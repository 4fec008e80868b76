"""Searching for models by what they do."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, get_args

import pytest

from rh_prefect import catalog
from rh_prefect.catalog.model import Output
from rh_prefect.catalog.search import _LONGEST, _phrases
from rh_prefect.catalog.tags import TAGS, Input, inputs_of, tags_of
from rh_prefect.errors import InputError


def names(query: str, **filters: Any) -> list[str]:
    return [model.name for model in catalog.find(query, **filters)]


def endpoints(query: str) -> list[str]:
    return [model.endpoint for model in catalog.find(query)]


def notes(query: str, **options: Any) -> str:
    return " ".join(catalog.find(query, **options).notes)


def of(*parts: str, output: Iterable[str] = get_args(Output)) -> set[str]:
    """The endpoints of the current models that have one of these in their endpoint."""
    return {
        model.endpoint
        for model in catalog.models()
        if model.status == "current" and model.output in output and any(part in model.endpoint for part in parts)
    }


LIP_SYNC = {"kling-lip-sync/identify-face", "kling-lip-sync/lip-sync-video"}
AVATARS = {"kling-v2-ai-avatar-pro/image-audio-to-video", "kling-v2-ai-avatar-standard/image-audio-to-video"}
DUBBING = {"volc-drama/video-translate", "volc-drama/serial-video-translate"}
SPEECH = {
    "bytedance/doubao-seed-tts-2.0",
    "bytedance/doubao-seed-icl-2.0",
    "bytedance/doubao-seed-audio-1.0",
    "alibaba/qwen3-tts-flash",
    "alibaba/qwen3-tts-instruct-flash",
    "kling-lip-sync/tts",
}

FIRST: dict[str, set[str]] = {
    "lipsync": LIP_SYNC,
    "lip sync": LIP_SYNC,
    "Lip-Sync": LIP_SYNC,
    "talking": AVATARS,
    "avatar": AVATARS,
    "digital human": AVATARS,
    "dub": DUBBING,
    "translate a video": DUBBING,
    "remove background": {"seedream-v5-pro/layer-decomposition"},
    "lyrics": {"mureka-ai/generate-lyrics", "mureka-ai/extend-lyrics", "rhart-audio/suno/lyrics"},
    "remove subtitles": {"volc-subtitle-erase/video", "volc-subtitle-erase-pro/video"},
    "voice clone": {"rhart-audio/text-to-audio/voice-clone", "bytedance/doubao-voice-clone"},
    "remove image background": {"seedream-v5-pro/layer-decomposition"},
    "slow motion": {"rhart-video/video-fps-increaser", "topazlabs/video-frame-interpolation"},
    "extract vocal": {"rhart-audio/extract-vocal"},
    "anime": {"youchuan/text-to-image-niji6", "youchuan/text-to-image-niji7"},
}


@pytest.mark.parametrize("query", FIRST)
def test_what_does_it_comes_first(query: str) -> None:
    assert set(endpoints(query)[: len(FIRST[query])]) == FIRST[query]


def test_everything_that_does_it_is_found() -> None:
    upscalers = of("upscale", "enhance", "super-resolution", "hypir", "tilesr", "topazlabs")
    assert len(upscalers) >= 27
    assert {one for one in upscalers if "rh-enhanced" not in one} <= set(endpoints("upscale"))  # a variant of a model
    songs = of("suno", "mureka", "minimax/music", "text-to-audio/music")
    assert len(songs) >= 28
    assert songs == set(endpoints("music"))
    speech = of("text-to-audio/speech") | SPEECH
    for query in ("speech", "tts", "voice", "text to speech", "voiceover"):
        assert set(endpoints(query)[: len(speech)]) == speech
    solids = {model.endpoint for model in catalog.find(output="3d")}
    assert solids == set(endpoints("3d")[: len(solids)])
    assert set(endpoints("llm")) == of("to-text", "/chat", output=["text"])
    assert of("image-to-video", output=["video"]) <= set(endpoints("img2vid"))
    assert of("text-to-image") <= set(endpoints("t2i"))
    assert of("motion-control", "motion-transfer", "dreamactor") == set(endpoints("motion control"))


def test_what_is_near_comes_after() -> None:
    assert endpoints("lipsync")[2] == "kling-lip-sync/tts"
    assert set(endpoints("lipsync")[3:]) == AVATARS
    found = catalog.find("music")
    outputs = ["lyrics" in model.name or model.output == "text" for model in found]
    assert outputs == sorted(outputs)
    assert {"suno-lyrics", "mureka-ai/generate-lyrics"} <= {model.name for model in found[-7:]}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("lipsync", "lip sync"),
        ("enhance video", "video enhancer"),
        ("i2v", "img2vid"),
        ("text to speech", "tts"),
        ("matting", "remove bg"),
        ("dubbing", "translation"),
        ("song", "songs"),
        ("3d", "the 3D"),
        ("kling", "a Kling model"),
    ],
)
def test_synonyms_find_the_same(one: str, other: str) -> None:
    assert set(names(one)) == set(names(other)) != set()


TYPOS = {
    "lipsnyc": "lipsync",
    "lip synk": "lip sync",
    "upsclae": "upscale",
    "musci": "music",
    "remvoe backgroud": "remove background",
    "speach": "speech",
    "kilng image to vidoe": "kling image to video",
    "trasnlate": "translate",
}


@pytest.mark.parametrize("typed", TYPOS)
def test_typing_errors_are_understood_and_said(typed: str) -> None:
    assert names(typed) == names(TYPOS[typed]) != []
    assert "is interpreted as" in notes(typed)
    assert "is interpreted as" not in notes(TYPOS[typed])


def test_a_search_finds_what_a_person_expects_first() -> None:
    found = names("kling image to video")
    assert found[:2] == ["kling-v3.0-pro-image-to-video", "kling-v3.0-std-image-to-video"]
    assert all("kling" in name and name.endswith("image-to-video") for name in found[:10])
    assert "kling-v2.6-pro-image-to-video" in found[:6]
    assert names("z image turbo")[0] == "z-image/turbo"
    assert names("Z-Image") == names("z image")
    assert set(names("nano banana")) == {model.name for model in catalog.find(family="nano-banana")}
    assert "kling-v2.6-pro-image-to-video" in names("kling 2.6")


def test_other_words_are_not_taken_for_typing_errors() -> None:
    for word in ("relight", "product", "cheap", "lighthouse", "horse"):
        assert "is interpreted as" not in notes(f"{word} video")


def test_a_part_of_a_word_is_enough() -> None:
    assert {model.family for model in catalog.find("seedan")} == {"seedance"}


def test_a_search_where_no_model_has_everything_gives_those_with_most() -> None:
    assert names("kling video upscale zzz") == names("kling video upscale") != []
    assert '"zzz" is unknown and is ignored.' in notes("kling video upscale zzz")
    assert 'No model has all of "kling", "upscale"' in notes("kling upscale")
    assert {model.output for model in catalog.find("music for a video")} == {"audio", "text"}


def test_nothing_is_claimed_that_no_model_does() -> None:
    said = notes("remove background")
    assert (
        said
        == 'No model is known to do "remove background"; the most similar models do: layers, transparent background.'
    )
    assert not any("remove background" in tags_of(model) for model in catalog.models())
    assert {model.output for model in catalog.find("remove background")} == {"image"}
    assert all("background" in {param.name for param in model.params} for model in catalog.find("cutout")[1:])
    assert 'No model is known to do "inpaint"' in notes("inpaint")
    assert 'No model is known to do "virtual try on"; the most similar models do: image edit' in notes("virtual try on")
    assert notes("music") == ""


def test_a_search_without_a_match_names_the_nearest_words() -> None:
    assert names("zzz") == names("?!") == names("音乐") == []
    assert "Known words: image, video" in notes("zzz")
    assert notes("qwxz") == 'No model matches "qwxz". Similar words: qwen.'
    assert 'No model matches "speech" with these options' in notes("speech", output="3d")


def test_relevance_goes_before_date_and_date_before_status() -> None:
    found = catalog.find("skyreels text to video", with_old=True)
    flags = [model.status != "current" for model in found]
    assert flags == sorted(flags)
    assert any(flags)
    assert {model.status for model in catalog.find("skyreels text to video")} == {"current"}
    solids = [model.seen for model in catalog.find("3d", output="3d") if not model.incomplete]
    assert solids == sorted(solids, reverse=True)
    assert len(set(solids)) == 2
    assert names("jimeng upscale")[0] == "jimeng-seed3-tilesr/image-upscale"


def test_filters_alone() -> None:
    assert len(catalog.find(with_old=True)) == len(catalog.models())
    assert {model.family for model in catalog.find(family="Kling")} == {"kling"}
    assert {model.output for model in catalog.find(output="3d")} == {"3d"}


@pytest.mark.parametrize("kind", ["image", "video", "audio"])
def test_models_are_found_by_what_they_take(kind: Input) -> None:
    found = catalog.find(takes=kind, with_old=True)
    takers = [model for model in catalog.models() if any(param.type == kind for param in model.params)]
    assert {model.name for model in takers} <= {model.name for model in found}
    for model in found:
        assert model in takers or f"{kind}-to-" in f"{model.name} {model.endpoint}".lower().replace(" ", "-")


def test_inputs_are_read_from_parameters_and_names() -> None:
    assert inputs_of(catalog.get("kling-v2.6-pro-image-to-video")) == ("image", "text")
    assert inputs_of(catalog.get("marble-1.0/image-to-world")) == ("image", "text")
    assert inputs_of(catalog.get("hitem3d-v3/image-to-3d")) == ("image",)
    assert inputs_of(catalog.get("rh-video-upscaler")) == ("video",)
    assert "text" in inputs_of(catalog.get("suno-single-v5"))


def test_a_greatest_price_leaves_out_unknown_ones_and_says_how_many() -> None:
    all_speech = catalog.find("speech")
    prices = {model.name: model.price.least for model in all_speech if model.price}
    most = sorted(prices.values())[len(prices) // 2]
    cheap = {name for name, price in prices.items() if price <= most}
    assert {model.name for model in catalog.find("speech", max_price=most)} == cheap
    unknown = sum(model.price is None for model in all_speech)
    assert f"no price is known: {unknown} models." in notes("speech", max_price=Decimal("0.25"))
    assert "none has a known price of 0 or less" in notes("speech", max_price=Decimal(0))


def test_a_search_is_sorted() -> None:
    prices = [
        model.price.least if model.price else Decimal("Infinity") for model in catalog.find("music", sort="price")
    ]
    assert prices == sorted(prices)
    assert len(set(prices)) > 2
    dates = [model.seen for model in catalog.find("upscale", sort="date")]
    assert dates == sorted(dates, reverse=True)
    found = names("upscale", sort="name")
    assert found == sorted(found, key=str.lower)
    with pytest.raises(
        InputError, match=r"cannot be sorted by 'size'. What to do: choose one of relevance, price, date, name"
    ):
        catalog.find("upscale", sort="size")  # type: ignore[arg-type]  # the mistake is the test


def test_other_orders_leave_out_what_only_comes_near() -> None:
    assert set(endpoints("lipsync")) == {*LIP_SYNC, "kling-lip-sync/tts", *AVATARS}
    assert {model.endpoint for model in catalog.find("lipsync", sort="price")} == LIP_SYNC
    assert "match only in part: 3 models; sort by relevance" in notes("lipsync", sort="price")
    assert {"kling", "topazlabs"} <= {model.family for model in catalog.find("kling upscale", sort="price")}
    assert names("remove background", sort="name") == sorted(names("remove background"), key=str.lower)


def test_the_vocabulary_is_consistent() -> None:
    known = [tag.name for tag in TAGS]
    assert len(set(known)) == len(known)
    asked = [phrase for tag in TAGS for phrase in (tag.name, *tag.synonyms)]
    assert len(set(asked)) == len(asked)
    assert {near for tag in TAGS for near in tag.near} <= set(known)
    assert max(len(phrase.split()) for phrase, _ in _phrases().values()) <= _LONGEST
    assert {output for tag in TAGS for output in tag.makes} <= set(get_args(Output))
