from __future__ import annotations

import json
import keyword
import subprocess
import sys
from collections import Counter
from dataclasses import fields

import pytest

from rh_prefect import catalog
from rh_prefect.catalog import InputWarning
from rh_prefect.catalog.model import Model, Param, PriceTable, Rule, class_name, decode_model, param_name, snake_name
from rh_prefect.catalog.registry import SLIM_FILE
from rh_prefect.errors import InputError, UnknownModelError


def test_the_whole_catalogue_is_there() -> None:
    models = catalog.models()
    assert len(models) == len(json.loads(SLIM_FILE.read_bytes())["models"]) >= 505
    assert {model.output for model in models} == {"video", "image", "text", "3d", "audio"}
    assert Counter(model.status for model in models).keys() == {"current", "deprecated", "gone"}
    assert catalog.models() is models


def test_every_model_is_found_by_all_its_names_in_any_case() -> None:
    for model in catalog.models():
        for name in (model.name, model.endpoint, model.class_name, model.snake_name):
            assert catalog.get(name) is catalog.get(name.upper()) is catalog.get(f" /{name}") is model
        assert model.class_name.isidentifier() and model.snake_name.isidentifier()


def test_a_wrong_name_gets_the_three_nearest() -> None:
    with pytest.raises(UnknownModelError) as caught:
        catalog.get("kling-2.6-pro-image-to-vidoe")
    assert caught.value.nearest[0] == "kling-v2.6-pro-image-to-video"
    assert len(caught.value.nearest) == 3
    assert all(name in str(caught.value) for name in caught.value.nearest)


def test_every_spelling_of_an_endpoint_is_found() -> None:
    model = catalog.get("rhart-video-s/text-to-video-pro-deprecated")
    assert (model.endpoint, model.status) == ("rhart-video-s/text-to-video-pro", "deprecated")


def test_an_old_model_warns_and_still_works() -> None:
    with pytest.warns(InputWarning, match="skyreels-v4/text-to-video: Deprecated; use skyreels-v4/text-to-video-std"):
        sent = catalog.read_parameters(catalog.get("skyreels-v4/text-to-video"), {"prompt": "a lighthouse"}).sent
    assert sent["prompt"] == "a lighthouse"
    with pytest.warns(InputWarning, match="f-2-dev/edit: Not in RunningHub's newest lists"):
        catalog.read_parameters(catalog.get("f-2-dev/edit"), {"image_url": "https://example.com/a.png", "prompt": "x"})


def test_a_parameter_is_found_by_name_and_by_key() -> None:
    model = catalog.get("f-2-dev/edit")
    assert model.param("custom_hight") is model.param("customHight")
    assert model.find_param("custom_height") is None
    with pytest.raises(InputError, match="nearest is custom_hight"):
        model.param("custom_height")


def test_importing_the_catalogue_reads_no_data_and_importing_the_models_neither() -> None:
    code = (
        "import sys, rh_prefect.catalog, rh_prefect.models\n"
        "from rh_prefect.catalog import registry\n"
        "assert registry._raws.cache_info().currsize == 0\n"
        "rh_prefect.models.ZImageTurbo\n"
        "assert registry._raws.cache_info().currsize == 1\n"
        "assert registry._model.cache_info().currsize == 1, registry._model.cache_info()\n"
        "assert 'prefect' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_front_door_is_complete() -> None:
    assert all(hasattr(catalog, name) for name in catalog.__all__)


@pytest.mark.parametrize(
    ("name", "cls", "snake"),
    [
        ("kling-v2.6-pro-image-to-video", "KlingV26ProImageToVideo", "kling_v2_6_pro_image_to_video"),
        ("z-image/turbo", "ZImageTurbo", "z_image_turbo"),
        (
            "topazlabs-image-upscale low resolution v2",
            "TopazlabsImageUpscaleLowResolutionV2",
            "topazlabs_image_upscale_low_resolution_v2",
        ),
        ("Vidu-image-to-video-q2-pro", "ViduImageToVideoQ2Pro", "vidu_image_to_video_q2_pro"),
        ("3d-thing", "Model3dThing", "model_3d_thing"),
        ("Decimal", "ModelDecimal", "decimal"),  # what the module of the classes holds already
    ],
)
def test_names_of_models(name: str, cls: str, snake: str) -> None:
    assert class_name(name) == cls
    assert snake_name(name) == snake


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("imageUrl", "image_url"),
        ("imageUrl2", "image_url2"),
        (" resolution", "resolution"),
        ("customHight", "custom_hight"),
        ("voice_id", "voice_id"),
        ("URLList", "url_list"),
        ("model", "model_"),
        ("class", "class_"),
        ("copy", "copy_"),
        ("2x", "p_2x"),
    ],
)
def test_names_of_parameters(key: str, name: str) -> None:
    assert param_name(key) == name


def test_every_parameter_has_a_name_of_its_own_that_python_can_say() -> None:
    for model in catalog.models():
        names = [param.name for param in model.params]
        assert len(set(names)) == len(names), model.name
        assert all(name.isidentifier() and name == name.lower() and not keyword.iskeyword(name) for name in names)


def test_models_that_the_lists_lack_are_there() -> None:
    names = [f"bytedance/seedance-2.5-global-token/{one}-video" for one in ("text-to", "image-to", "multimodal")]
    names += ["bytedance/seedance-2.0-fast-token/multimodal-video", "rhart-video/minimax-h3-rh-enhanced/ref2va"]
    assert all(catalog.get(name).params for name in names)


_RAW = {"name": "acme/x", "endpoint": "acme/x", "output": "image", "family": "acme"}


def test_each_part_of_a_model_may_have_keys_of_another_version() -> None:
    def read(more: dict[str, object]) -> Model:
        price, rule = {"unit": "call", "fixed": 1, **more}, {"kind": "one", "params": ["a", "b"], **more}
        param = {"key": "a", "type": "string", **more}
        return decode_model({**_RAW, "price": price, "rules": [rule], "params": [param], **more})

    assert read({"later": 1}) == read({})


def test_the_packages_own_data_has_only_keys_that_are_read() -> None:
    raws = json.loads(SLIM_FILE.read_bytes())["models"]
    parts = {
        Model: raws,
        Param: [param for raw in raws for param in raw["params"]],
        Rule: [rule for raw in raws for rule in raw.get("rules", ())],
        PriceTable: [raw["price"] for raw in raws if "price" in raw],
    }
    for kind, found in parts.items():
        assert {key for raw in found for key in raw} <= {field.name for field in fields(kind)}


@pytest.mark.parametrize(
    "wrong", [{"groups": None}, {"price": {"unit": "call", "fixed": 1, "by": None}}, {"fed": [[["a"]]]}]
)
def test_a_model_of_a_wrong_shape_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        decode_model({**_RAW, **wrong})
