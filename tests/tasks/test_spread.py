"""Thirty models of all kinds, from the smallest valid input to the file in the storage; the long suite runs all."""

from __future__ import annotations

from pathlib import Path

from rh_prefect import catalog
from rh_prefect.catalog import Model, models
from tests.support.samples.minimal_calls import run_all, small_emulator

SPREAD = (
    "alibaba/wan-2.6/image-to-video",
    "bytedance/dreamactor-v2",
    "f-2-dev/edit",
    "google/veo3.1-fast/image-to-video-channel-low-price",
    "hitem3d-v2/image-to-3d",
    "kling-elements",
    "kling-lip-sync/identify-face",
    "kling-lip-sync/lip-sync-video",
    "kling-v2.6-pro-image-to-video",
    "kling-v3.0-pro-image-to-video",
    "kling-v3.0-pro-motion-control",
    "marble/upload-media-asset",
    "midjourney-image-to-video",
    "minimax/music-2.5",
    "minimax/speech-2.8-hd",
    "minimax/voice-clone",
    "nano-banana/edit-official-stable",
    "qwen-image-2.0/text-to-image",
    "rh-video-upscaler",
    "rhart-text-g-3-flash-preview/text-to-text",
    "seedance-2.0-global/multimodal-video",
    "seedance-2.0/multimodal-video",
    "seedream-v4/text-to-image",
    "skyreels-v4/omni-reference",
    "suno-lyrics",
    "suno-single-v5.5",
    "topazlabs-image-upscale-text refine",
    "Vidu-start-end-to-video-q2-pro",
    "wan-2.2/text-to-video",
    "z-image/turbo",
)


def chosen() -> list[Model]:
    return [catalog.get(name) for name in SPREAD]


def test_the_spread_has_every_kind_of_model_and_parameter() -> None:
    spread, every = chosen(), models()
    assert len(spread) == 30
    assert {model.output for model in spread} == {model.output for model in every}
    kinds = [{(param.type, param.multiple) for model in some for param in model.params} for some in (spread, every)]
    assert kinds[0] == kinds[1]
    units = [{model.price.unit if model.price else None for model in some} for some in (spread, every)]
    assert units[0] == units[1]
    assert any(param.key != param.key.strip() for model in spread for param in model.params)
    assert any(rule.kind in ("one", "any") for model in spread for rule in model.rules)


async def test_thirty_models_make_what_they_say_for_the_price_that_was_estimated(tmp_path: Path) -> None:
    with small_emulator(tmp_path) as rh:
        assert await run_all(rh, chosen(), tmp_path) == {}
        assert len(rh.recorder.paid) == 30
