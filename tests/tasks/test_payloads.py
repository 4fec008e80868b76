"""What of an input arrives at RunningHub, for values whose spelling differs from the usual one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rh_prefect import catalog
from rh_prefect.emulator import Emulator
from rh_prefect.errors import InputError, RunningHubError
from rh_prefect.tasks import model_tasks
from tests.support.samples import media as samples
from tests.support.samples.minimal_calls import smallest


async def sent(rh: Emulator, name: str, **given: Any) -> Mapping[str, Any]:
    """The body of the request that a call makes, whatever becomes of it."""
    count = len(rh.recorder.submissions)
    with suppress(RunningHubError):
        await getattr(model_tasks, catalog.get(name).snake_name).fn(**given, scope="s")
    (row,) = rh.recorder.submissions[count:]
    return row.payload


def is_upload(link: object) -> bool:
    return isinstance(link, str) and link.startswith("http://127.0.0.1:")


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return [samples.png(tmp_path / f"{text}.png", text=text) for text in ("a", "b", "c")]


async def test_an_asset_is_passed_on_as_it_is(rh: Emulator, photos: list[Path]) -> None:
    asset = "asset://asset-2026-abc"
    one = await sent(rh, "seedance-2.0/image-to-video", prompt="x", first_frame_url=asset)
    assert one["firstFrameUrl"] == asset
    several = await sent(rh, "seedance-2.0/multimodal-video", prompt="x", image_urls=[asset, photos[0]])
    assert several["imageUrls"][0] == asset
    assert is_upload(several["imageUrls"][1])


@pytest.mark.parametrize("given", [False, "false"])
async def test_booleans_go_as_the_model_has_them(rh: Emulator, photos: list[Path], given: Any) -> None:
    text = await sent(rh, "kling-v2.6-pro-image-to-video", image_url=photos[0], prompt="x", sound=given)
    assert text["sound"] == "false"
    if given is False:
        real = await sent(rh, "kling-v3.0-pro-image-to-video", first_image_url=photos[0], prompt="x", sound=given)
        assert real["sound"] is False
    else:
        with pytest.raises(InputError, match="sound must be true or false"):
            await model_tasks.kling_v3_0_pro_image_to_video.fn(
                first_image_url=photos[0], prompt="x", sound=given, scope="s"
            )


async def test_numbers_go_as_the_model_has_them(rh: Emulator) -> None:
    for given in (7, "8"):
        text = await sent(rh, "seedance-2.0/text-to-video", prompt="x", duration=given)
        assert text["duration"] == str(given)
    number = await sent(rh, "kling-video-o3-pro-text-to-video", prompt="x", duration=7)
    assert number["duration"] == 7


@pytest.mark.parametrize("given", [[{"prompt": "a", "duration": "5"}], '[{"prompt": "a", "duration": "5"}]'])
async def test_json_goes_as_itself_and_not_as_a_string(rh: Emulator, photos: list[Path], given: Any) -> None:
    payload = await sent(
        rh, "kling-v3.0-pro-image-to-video", first_image_url=photos[0], prompt="x", multi_shot=True, multi_prompt=given
    )
    assert payload["multiPrompt"] == [{"prompt": "a", "duration": "5"}]
    assert payload["multiShot"] is True


async def test_several_files_go_as_a_list_in_their_order(rh: Emulator, photos: list[Path]) -> None:
    name = "nano-banana/edit-official-stable"
    many = await sent(rh, name, prompt="x", image_urls=photos)
    assert len(many["imageUrls"]) == len(set(many["imageUrls"])) == 3
    assert all(map(is_upload, many["imageUrls"]))
    turned = await sent(rh, name, prompt="y", image_urls=photos[::-1])
    assert turned["imageUrls"] == many["imageUrls"][::-1]
    alone = await sent(rh, name, prompt="z", image_urls=photos[0])
    assert alone["imageUrls"] == many["imageUrls"][:1]


@pytest.mark.parametrize(
    ("model", "start", "end"),
    [
        ("google/veo3.1-fast/start-end-to-video-channel-low-price", "firstFrameUrl", "lastFrameUrl"),
        ("google/veo3.1-pro/image-to-video-official-stable", "imageUrl", "lastImageUrl"),
        ("kling-v3.0-4k-image-to-video", "imageUrl", "endImageUrl"),
        ("kling-v3.0-pro-image-to-video", "firstImageUrl", "lastImageUrl"),
        ("pixverse-v6/transition", "firstImageUrl", "endImageUrl"),
        ("seedance-2.0/image-to-video", "firstFrameUrl", "lastFrameUrl"),
        ("wan-2.2-video/start-to-end", "imageUrl", "lastImageUrl"),
    ],
)
async def test_start_and_end_frames_go_under_the_models_own_names(
    rh: Emulator, photos: list[Path], tmp_path: Path, model: str, start: str, end: str
) -> None:
    entry = catalog.get(model)
    frames = {entry.param(start).name: photos[0], entry.param(end).name: photos[1]}
    payload = await sent(rh, model, **{**smallest(entry, tmp_path), **frames})
    assert is_upload(payload[start])
    assert is_upload(payload[end])
    assert payload[start] != payload[end]


async def test_a_key_with_a_space_before_it_keeps_it(rh: Emulator) -> None:
    (option, *_) = catalog.get("wan-2.2/text-to-video").param("resolution").options
    payload = await sent(rh, "wan-2.2/text-to-video", prompt="x", resolution=option)
    assert payload[" resolution"] == option
    assert "resolution" not in payload


async def test_a_misspelt_key_stays_misspelt(rh: Emulator) -> None:
    payload = await sent(rh, "f-2-dev/text-to-image", prompt="x", aspect_ratio="custom", custom_hight=512)
    assert payload["customHight"] == 512


async def test_one_of_two_is_enough_and_both_are_too_many(rh: Emulator, tmp_path: Path) -> None:
    task = model_tasks.kling_lip_sync_identify_face
    payload = await sent(rh, "kling-lip-sync/identify-face", video_id="v-1")
    assert payload["videoId"] == "v-1"
    wrong: tuple[dict[str, Any], ...] = ({}, {"video_id": "v-1", "video_url": samples.mp4(tmp_path / "a.mp4")})
    for given in wrong:
        with pytest.raises(InputError, match="video_url and video_id"):
            await task.fn(**given, scope="s")
    assert len(rh.recorder.submissions) == 1
