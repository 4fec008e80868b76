from __future__ import annotations

import keyword

import pytest

from rh_prefect import catalog
from rh_prefect.catalog.model import class_name, param_name, param_names, snake_name


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


def test_a_plain_key_keeps_its_name_before_one_that_would_get_the_same() -> None:
    assert param_names([" resolution", "resolution", "Resolution"]) == ["resolution_2", "resolution", "resolution_3"]


def test_every_name_is_unique_and_usable() -> None:
    models = catalog.models()
    for names in ([m.class_name for m in models], [m.snake_name for m in models], [m.endpoint for m in models]):
        assert len({name.lower() for name in names}) == len(models)
    assert all(m.class_name.isidentifier() and m.snake_name.isidentifier() for m in models)


def test_every_parameter_has_a_name_of_its_own_that_python_can_say() -> None:
    for model in catalog.models():
        names = [param.name for param in model.params]
        assert len(set(names)) == len(names), model.name
        assert all(name.isidentifier() and name == name.lower() and not keyword.iskeyword(name) for name in names)
