from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest

from rh_prefect import catalog
from rh_prefect.catalog import InputWarning
from rh_prefect.catalog.registry import SLIM_FILE
from rh_prefect.errors import InputError, UnknownModelError


def test_the_whole_catalogue_is_there() -> None:
    models = catalog.models()
    assert len(models) == len(json.loads(SLIM_FILE.read_bytes())["models"]) >= 505
    assert {model.output for model in models} == {"video", "image", "text", "3d", "audio"}
    assert Counter(model.status for model in models).keys() == {"current", "deprecated", "gone"}
    assert catalog.models() is models


@pytest.mark.parametrize(
    "name",
    [
        "kling-v2.6-pro-image-to-video",
        "kling-v2.6-pro/image-to-video",
        "KlingV26ProImageToVideo",
        "kling_v2_6_pro_image_to_video",
        "KLING-V2.6-PRO-IMAGE-TO-VIDEO",
        " /kling-v2.6-pro/image-to-video",
    ],
)
def test_a_model_is_found_by_any_of_its_names(name: str) -> None:
    assert catalog.get(name).name == "kling-v2.6-pro-image-to-video"


def test_every_model_is_found_by_all_its_names() -> None:
    for model in catalog.models():
        for name in (model.name, model.endpoint, model.class_name, model.snake_name):
            assert catalog.get(name) is model


def test_a_wrong_name_gets_the_three_nearest() -> None:
    with pytest.raises(UnknownModelError) as caught:
        catalog.get("kling-2.6-pro-image-to-vidoe")
    assert caught.value.nearest[0] == "kling-v2.6-pro-image-to-video"
    assert len(caught.value.nearest) == 3
    assert all(name in str(caught.value) for name in caught.value.nearest)


def names(query: str, **filters: object) -> list[str]:
    return [model.name for model in catalog.find(query, **filters)]  # type: ignore[arg-type]  # filters by name


def test_a_search_finds_what_a_person_expects_first() -> None:
    found = names("kling image to video")
    assert found[:2] == ["kling-v3.0-pro-image-to-video", "kling-v3.0-std-image-to-video"]
    assert all("kling" in name and name.endswith("image-to-video") for name in found[:10])
    assert "kling-v2.6-pro-image-to-video" in found[:6]


def test_a_search_by_words_and_output() -> None:
    assert set(names("upscale", output="video")) == {"topazlabs-video-upscale", "rh-video-upscaler"}
    assert all(name.startswith("minimax/speech") for name in names("speech"))
    assert names("music")[0] == "minimax/music-2.5"
    assert names("z image turbo")[0] == "z-image/turbo"
    assert names("Z-Image") == names("z image")


def test_a_search_where_no_model_has_every_word_gives_those_with_most() -> None:
    assert names("kling video upscale zzz") == names("kling video upscale")
    assert names("zzz") == []


def test_filters_alone() -> None:
    assert len(catalog.find(with_old=True)) == len(catalog.models())
    assert {model.in_docs for model in catalog.find(in_docs=True)} == {True}
    assert {model.family for model in catalog.find(family="Kling")} == {"kling"}
    assert {model.output for model in catalog.find(output="3d")} == {"3d"}


def test_old_models_are_found_on_demand_and_come_last() -> None:
    assert {model.status for model in catalog.find("skyreels text to video")} == {"current"}
    flags = [model.status != "current" for model in catalog.find("skyreels text to video", with_old=True)]
    assert flags == sorted(flags)
    assert any(flags)


def test_every_spelling_of_an_endpoint_is_found() -> None:
    model = catalog.get("rhart-video-s/text-to-video-pro-deprecated")
    assert (model.endpoint, model.status) == ("rhart-video-s/text-to-video-pro", "deprecated")


def test_an_old_model_warns_and_still_works() -> None:
    with pytest.warns(InputWarning, match="skyreels-v4/text-to-video: Deprecated; use skyreels-v4/text-to-video-std"):
        sent = catalog.validate(catalog.get("skyreels-v4/text-to-video"), {"prompt": "a lighthouse"})
    assert sent["prompt"] == "a lighthouse"
    with pytest.warns(InputWarning, match="f-2-dev/edit: Gone from RunningHub's newest lists"):
        catalog.validate(catalog.get("f-2-dev/edit"), {"image_url": "https://example.com/a.png", "prompt": "x"})


def test_models_that_the_pages_of_cn_lack_are_marked() -> None:
    assert [catalog.get(name).on_cn for name in ("z-image/turbo", "rhart-image-n-pro/edit")] == [True, False]


def test_a_parameter_is_found_by_name_and_by_key() -> None:
    model = catalog.get("f-2-dev/edit")
    assert model.param("custom_hight") is model.param("customHight")
    assert model.find_param("custom_height") is None
    with pytest.raises(InputError, match="nearest is custom_hight"):
        model.param("custom_height")


def test_importing_the_catalogue_reads_no_data_and_importing_the_models_neither() -> None:
    code = (
        "import sys, rh_prefect.catalog\n"
        "assert not [name for name in sys.modules if name.startswith('rh_prefect.catalog.')], sys.modules\n"
        "import rh_prefect.models\n"
        "from rh_prefect.catalog import registry\n"
        "assert registry.models.cache_info().currsize == 0\n"
        "rh_prefect.models.ZImageTurbo\n"
        "assert registry.models.cache_info().currsize == 1\n"
        "assert 'prefect' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_front_door_is_sorted_and_complete() -> None:
    assert catalog.__all__ == sorted(catalog.__all__)
    assert dir(catalog) == catalog.__all__
    assert all(getattr(catalog, name) is not None for name in catalog.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        catalog.nothing  # type: ignore[attr-defined]  # noqa: B018  # the access is the test
