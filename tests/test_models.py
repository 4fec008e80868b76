from __future__ import annotations

import ast
import json
import pickle
import re
import warnings
from pathlib import Path
from typing import Any, get_args

import cloudpickle
import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from rh_prefect import catalog, estimate, models
from rh_prefect.catalog import InputWarning, Model
from rh_prefect.errors import InputError
from rh_prefect.media.media import Media
from rh_prefect.models import KlingV26ProImageToVideo, ModelInput
from tests.support.processes import warm_process
from tests.support.samples import media as samples
from tests.support.samples.each_model import for_each_model

ROOT = Path(__file__).parents[1]
KLING = "kling-v2.6-pro-image-to-video"


def photo() -> Media:
    return Media(uri="memory://a.png", kind="image", mime="image/png", size=3, sha256="ab")


def anything(model: str, /, **params: Any) -> ModelInput:
    """An input whose types are not for the type checker to see."""
    return models.input_for(model)(**params)


def test_an_input_holds_what_was_given_and_knows_its_model() -> None:
    given = KlingV26ProImageToVideo(image_url="a.png", prompt="waves", duration="10")
    assert given.entry is catalog.get(KLING)
    assert given.params() == {"prompt": "waves", "image_url": "a.png", "duration": "10"}
    assert (given.duration, given.sound, given.negative_prompt) == ("10", "true", None)
    assert repr(given) == "KlingV26ProImageToVideo(prompt='waves', image_url='a.png', duration='10')"


def test_a_price_is_known_before_the_call(tmp_path: Path) -> None:
    clip = Media(uri="s3://clips/a.mp4", kind="video", mime="video/mp4", size=3, sha256="ab", seconds=7.5)
    control = models.BytedanceDreamactorV2(image_url=photo(), video_url=clip)
    local = samples.mp4(tmp_path / "a.mp4", seconds=2)
    link = models.BytedanceDreamactorV2(image_url=photo(), video_url="https://files.example/a.mp4")
    assert str(models.ZImageTurbo(prompt="kite").estimate()) == "0.04 CNY"
    assert str(estimate(KLING, {"image_url": {"file": "a.png"}, "prompt": "waves", "duration": 10})) == "7.00 CNY"
    assert str(control.estimate()) == "2.40 CNY"
    assert str(models.BytedanceDreamactorV2(image_url=photo(), video_url=local).estimate()) == "0.64 CNY"
    assert (link.estimate(), models.ArklinVideoSuperResolution(resolution="2k").estimate()) == (None, None)
    with pytest.raises(InputError, match="duration"):
        estimate(KLING, {"image_url": "a.png", "prompt": "waves", "duration": 7})


class Result:
    first_output = photo()


def test_a_file_may_be_a_path_a_media_a_result_or_the_json_of_a_media() -> None:
    for source in (photo(), Result(), photo().model_dump()):
        assert anything(KLING, image_url=source, prompt="x").params()["image_url"] == photo()
    assert anything(KLING, image_url=Path("a.png"), prompt="x").params()["image_url"] == "a.png"
    several = anything("nano-banana/edit-official-stable", prompt="x", image_urls=["a.png", Result()])
    assert several.params()["image_urls"] == ["a.png", photo()]


def test_an_input_is_frozen_and_comparable() -> None:
    given, same = (KlingV26ProImageToVideo(image_url="a.png", prompt="x") for _ in range(2))
    assert given == same
    assert hash(given) == hash(same)
    with pytest.raises(ValidationError, match="frozen"):
        given.prompt = "y"  # type: ignore[misc]  # the type checker knows it, too


def test_wrong_input_is_one_error_of_ours_that_names_every_problem() -> None:
    with pytest.raises(InputError) as caught:
        anything(KLING, image_url=5, duration=7)
    text = str(caught.value)
    for part in (KLING, "image_url is not a file", "prompt is missing", 'duration must be one of "5", "10", not 7'):
        assert part in text
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (type(caught.value), text)
    assert vars(again)["problems"] == vars(caught.value)["problems"]


def test_as_a_part_of_something_larger_the_error_is_pydantics() -> None:
    class Shot(BaseModel):
        clip: KlingV26ProImageToVideo

    with pytest.raises(ValidationError) as caught:
        Shot.model_validate({"clip": {"prompt": "x", "duration": 7}})
    assert caught.value.errors()[0]["loc"][0] == "clip"
    assert "duration must be one of" in str(caught.value)
    either = TypeAdapter(KlingV26ProImageToVideo | int)
    assert either.validate_python(5) == 5


def test_an_omitted_parameter_may_be_given_unchecked() -> None:
    """A model's task passes the parameters that its caller omits as None."""
    for omitted in ({"negative_prompt": None}, {"negativePrompt": None}):
        given = anything(KLING, image_url="a.png", prompt="x", **omitted, unchecked={"negative_prompt": ["y"]})
        assert given.params()["negative_prompt"] == ["y"]
    with pytest.raises(InputError, match="negative_prompt is given twice"):
        anything(KLING, image_url="a.png", prompt="x", negative_prompt="z", unchecked={"negativePrompt": "y"})


def test_a_warning_names_the_callers_line() -> None:
    with pytest.warns(InputWarning, match="Not in RunningHub's newest lists") as caught:
        anything("f-2-dev/edit", image_url="a.png", prompt="x")
    assert caught[0].filename == __file__


def test_a_wrong_class_names_the_nearest() -> None:
    with pytest.raises(AttributeError, match="KlingV26ProImageToVideo"):
        models.KlingV26ProImagToVideo  # type: ignore[attr-defined]  # noqa: B018  # the access is the test
    assert not hasattr(models, "__path__")


def test_the_base_class_cannot_be_used_itself() -> None:
    with pytest.raises(InputError, match="base class of all inputs"):
        ModelInput(model=KLING)


def test_dir_lists_every_class() -> None:
    listed = dir(models)
    assert {model.class_name for model in catalog.models()} < set(listed)
    assert listed == sorted(listed)


@for_each_model
def test_every_class_takes_the_smallest_input_which_survives_storage(model: Model) -> None:
    cls = getattr(models, model.class_name)
    assert cls is models.input_for(model) is models.input_for(model.endpoint)
    assert (cls.__module__, cls.__qualname__) == ("rh_prefect.models", model.class_name)
    given = cls(**catalog.example(model))
    sent = catalog.read_parameters(model, given.params()).sent
    assert all(catalog.read_parameters(model, same).sent == sent for same in (catalog.example(model), sent))
    assert {param.key for param in model.params if param.required} <= sent.keys() <= {one.key for one in model.params}
    assert None not in sent.values()
    stored = given.model_dump_json()
    assert json.loads(stored)["model"] == model.name
    for again in (
        cls.model_validate_json(stored),
        TypeAdapter(ModelInput).validate_json(stored),
        TypeAdapter(ModelInput).validate_python(given.model_dump()),
        pickle.loads(pickle.dumps(given)),
    ):
        assert type(again) is cls
        assert again == given
        assert again.params() == given.params()


@for_each_model
def test_every_model_says_what_it_is(model: Model) -> None:
    text = catalog.summary(model)
    assert all(part in text for part in (model.name, model.endpoint, str(model.price or "not published")))
    for param in model.params:
        assert param.note.lower() in catalog.describe(param).lower()


@for_each_model
def test_every_form_shows_choices_limits_and_defaults(model: Model) -> None:
    schema = models.input_for(model).model_json_schema()
    assert set(schema["properties"]) == {"model", *(param.name for param in model.params)}
    assert set(schema.get("required", ())) == {p.name for p in model.params if p.required and p.default is None}
    for param in model.params:
        shown = schema["properties"][param.name]
        text = json.dumps(shown, ensure_ascii=False)
        assert shown.get("default") == param.wire_default
        if len(param.options) > 1:
            assert json.dumps(list(param.options), ensure_ascii=False) in text
        for word, limit in (("minimum", param.min), ("maximum", param.max), ("maxItems", param.max_items)):
            assert limit is None or f'"{word}": {json.dumps(limit)}' in text
        assert param.note.lower() in shown.get("description", "").lower()


def test_a_form_that_sends_all_its_defaults_and_nulls_is_fine() -> None:
    for model in catalog.models():
        cls = models.input_for(model)
        shown = cls.model_json_schema()["properties"]
        filled = {name: field["default"] for name, field in shown.items() if "default" in field} | catalog.example(
            model
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", rf"{re.escape(model.name)}: .*(Deprecated|newest lists)")
            catalog.read_parameters(model, cls.model_validate(filled).params())


def test_any_input_is_told_by_its_model() -> None:
    any_input = TypeAdapter(ModelInput)
    for name in (KLING, "kling-v2.6-pro/image-to-video", "KlingV26ProImageToVideo", "kling_v2_6_pro_image_to_video"):
        given = any_input.validate_python({"model": name, "image_url": "a.png", "prompt": "x"})
        assert given == KlingV26ProImageToVideo(image_url="a.png", prompt="x")
    shown = any_input.json_schema()["properties"]["model"]["enum"]
    assert len(shown) == len(catalog.models())
    for wrong, reason in (
        ({"model": "klingg", "prompt": "x"}, "Similar names"),
        ({"prompt": "x"}, "z-image/turbo"),
        ({"model": KLING}, "prompt is missing"),
        ("text", "expected a model input"),
    ):
        with pytest.raises(ValidationError, match=reason):
            any_input.validate_python(wrong)


def test_the_input_of_another_model_is_refused() -> None:
    with pytest.raises(ValidationError, match="not of 'z-image/turbo'"):
        KlingV26ProImageToVideo.model_validate({"model": "z-image/turbo", "prompt": "x"})


def test_a_parameter_called_model_does_not_hide_the_model() -> None:
    name = "grok-image/text-to-image/channel-low-price"
    given = anything(name, prompt="x", model="g-4")
    assert given.params() == {"model_": "g-4", "prompt": "x"}
    assert given.model_dump() == {"model": name, "model_": "g-4", "prompt": "x"}
    assert catalog.read_parameters(given.entry, given.params()).sent["model"] == "g-4"


def test_inputs_are_parameters_of_a_flow() -> None:
    from prefect import flow  # a second, for this test only
    from prefect.utilities.callables import parameter_schema

    @flow
    def one(clip: KlingV26ProImageToVideo, other: ModelInput) -> None: ...

    raw = {"prompt": "x", "image_url": "a.png", "duration": "10"}
    checked = one.validate_parameters({"clip": raw, "other": {"model": "z-image/turbo", "prompt": "y"}})
    assert checked["clip"] == KlingV26ProImageToVideo(image_url="a.png", prompt="x", duration="10")
    assert checked["other"] == models.ZImageTurbo(prompt="y")
    stored = one.serialize_parameters(checked)
    assert one.validate_parameters(stored) == checked
    schema = parameter_schema(one).model_dump()
    assert schema["definitions"]["KlingV26ProImageToVideo"]["properties"]["duration"]["enum"] == ["5", "10"]


def test_an_input_pickles_into_a_fresh_interpreter(tmp_path: Path) -> None:
    given = anything(KLING, image_url=photo(), prompt="x", duration="10")
    (tmp_path / "input").write_bytes(cloudpickle.dumps([given, type(given)]))
    code = (
        "import pickle, sys\n"
        "given, cls = pickle.load(open(sys.argv[1], 'rb'))\n"
        "import rh_prefect.models as models\n"
        "assert cls is type(given) is models.KlingV26ProImageToVideo\n"
        "print(given.model_dump_json())\n"
    )
    done = warm_process.run(["-c", code, tmp_path / "input"])
    assert done.stdout.strip() == given.model_dump_json()


def test_the_stub_and_the_classes_agree() -> None:
    text = (ROOT / "rh_prefect" / "models.pyi").read_text(encoding="utf-8")
    for model in catalog.models():
        assert f"class {model.class_name}(ModelInput):" in text
    (base,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == "ModelInput")
    methods = {node.name for node in base.body if isinstance(node, ast.FunctionDef)}
    fields = {ast.unparse(node.target) for node in base.body if isinstance(node, ast.AnnAssign)}
    assert {*methods, *fields} <= {*dir(models.ZImageTurbo(prompt="x")), "model_fields"}
    annotation = models.KlingV26ProImageToVideo.model_fields["duration"].annotation
    assert get_args(annotation) == ("5", "10")
