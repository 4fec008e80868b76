"""A refresh, whatever it says, does not change which request a call makes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rh_prefect import catalog
from rh_prefect.catalog import registry
from rh_prefect.catalog.hash_compatibility import as_given, keep_model
from rh_prefect.catalog.model import Model, decode_model, param_name
from rh_prefect.catalog.public_list_parser import read_list
from rh_prefect.catalog.user_catalog_merge import merge
from rh_prefect.errors import InputError
from rh_prefect.input_class_builder import build_input
from rh_prefect.pipelines.model_arguments import feed
from rh_prefect.works.checked_request import as_request
from rh_prefect.works.journal.identity import base_hash
from tests.support.hypothesis_settings import search
from tests.support.processes import warm_process
from tests.support.samples.media import png
from tests.support.samples.registry_file import refresh

KLING = "kling-v2.6-pro-image-to-video"
SITE = "www.runninghub.cn"
MODEL: dict[str, Any] = {
    "name": "acme-film",
    "endpoint": "acme/film",
    "output": "video",
    "family": "acme",
    "aliases": ["acme/old-film"],
    "params": [
        {"key": "prompt", "type": "string"},
        {"key": "imageUrl", "type": "image"},
        {"key": "refUrls", "type": "image", "multiple": True},
        {"key": "duration", "type": "enum", "options": ["5", "10"], "default": "5"},
        {"key": "imageNum", "type": "int"},
        {"key": "cfgScale", "type": "float"},
        {"key": "sound", "type": "bool"},
        {"key": "shots", "type": "json", "shape": "list"},
    ],
}
VALUES: dict[str, list[Any]] = {
    "prompt": ["5", "true", "a kite", "a boat", "", None],
    "image_url": ["asset://1", "asset://2", None],
    "ref_urls": [["asset://1"], "asset://1", ["asset://1", "asset://2"], ["asset://2", "asset://1"], []],
    "duration": ["5", 5, 5.0, "10"],
    "image_num": [1, 2, 2.0],
    "cfg_scale": [1, 1.0, 0.5],
    "sound": [True, False],
    "shots": [[{"prompt": "a"}], '[{"prompt": "a"}]', [{"prompt": "b"}], []],
}
LIST_TYPES = {"string": "STRING", "enum": "LIST", "bool": "BOOLEAN", "int": "INT", "float": "FLOAT", "image": "IMAGE"}


def spellings(key: str) -> list[str]:
    """The key, and others of the same Python name."""
    return [key, f" {key}", key.replace("Url", "URL"), param_name(key), key[0].upper() + key[1:]]


calls = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in VALUES.items()})


@st.composite
def listed_params(draw: st.DrawFn) -> list[dict[str, Any]]:
    """What a list may say of the model's parameters: renamed, widened, narrowed, of another type, removed, new."""
    found = []
    for raw in MODEL["params"]:
        if raw["type"] == "json" or draw(st.booleans(), label=f"{raw['key']} stays") is False:
            continue
        kind = draw(st.sampled_from([raw["type"], raw["type"], *LIST_TYPES]))
        options = [
            str(value) for one in VALUES[param_name(raw["key"])] for value in (one if isinstance(one, list) else [one])
        ]
        found.append(
            {
                "key": draw(st.sampled_from(spellings(raw["key"]))),
                "type": LIST_TYPES[kind],
                "required": draw(st.booleans()),
                "multiple": draw(st.booleans()),
                **({"options": [*options, "true", "false", "1", "2", "0.5", "more"]} if kind == "enum" else {}),
            }
        )
    return found + draw(
        st.sampled_from([[], [{"key": "newOne", "type": "INT"}], [{"key": "image_url", "type": "INT"}]])
    )


entries = st.fixed_dictionaries(
    {
        "endpoint": st.sampled_from([*["acme/film"] * 4, "acme/moved", "acme-film", "AcmeFilm", "acme/old-film"]),
        "name_en": st.sampled_from(["acme-film", "other", "acme/old-film"]),
        "output_type": st.just("video"),
        "params": listed_params(),
    }
)
refreshes = st.lists(st.lists(entries, min_size=1, max_size=2), min_size=1, max_size=3)


def refreshed(content: dict[str, Any], listed: list[dict[str, Any]], day: int) -> dict[str, Any]:
    date = f"2026-10-{day:02}"
    merged = merge(content, read_list({"version": date, "endpoints": listed}), date=date)
    return json.loads(json.dumps({**merged, "version": f"{date}+0"}))  # type: ignore[no-any-return]


def found(content: dict[str, Any]) -> Model:
    index = registry.index_of(content["models"])
    (position,) = {index[name] for name in ("acme-film", "acmefilm", "acme_film", "acme/film", "acme/old-film")}
    return decode_model(content["models"][position])


def hash_in_plan(model: Model, call: dict[str, Any]) -> str:
    return base_hash(site=SITE, endpoint=model.endpoint, payload=as_request(as_given(model, call)))


def hash_of_call(model: Model, call: dict[str, Any]) -> str:
    made = build_input(model)(**call)
    stored = type(made).model_validate(made.model_dump(mode="json"))
    read = catalog.read_parameters(model, stored.params(), unchecked=stored.unchecked)
    return base_hash(site=SITE, endpoint=model.endpoint, payload=as_request(read.given))


def without_required(model: Model) -> Model:
    """A call from before a parameter was required is refused, which is right, and not what is looked at here."""
    return dataclasses.replace(model, params=tuple(dataclasses.replace(one, required=False) for one in model.params))


@search(60)
@given(calls, calls, refreshes)
def test_a_call_is_the_same_request_after_any_refresh(
    call: dict[str, Any], other: dict[str, Any], lists: list[list[dict[str, Any]]]
) -> None:
    content: dict[str, Any] = {"version": "2026-09-21", "source": "a test", "models": [MODEL]}
    before = found(content)
    hashes = [hash_of_call(before, call), hash_of_call(before, other)]
    for day, listed in enumerate(lists, 1):
        content = refreshed(content, listed, day)
        now = without_required(found(content))
        assert now.endpoint == before.endpoint
        assert [hash_in_plan(now, call), hash_in_plan(now, other)] == hashes
        for one, earlier in zip((call, other), hashes):
            try:
                assert hash_of_call(now, one) == earlier
            except InputError as error:
                assert "must be" in str(error)  # a value that the newer list does not have


@search(25)
@given(calls, st.sampled_from(sorted(VALUES)), st.lists(listed_params(), min_size=1, max_size=2))
def test_a_call_is_accepted_after_a_refresh_that_keeps_its_types(
    call: dict[str, Any], name: str, lists: list[list[dict[str, Any]]]
) -> None:
    call = {name: VALUES[name][0], **call}
    before = decode_model(MODEL)
    types = {param.name: LIST_TYPES.get(param.type) for param in before.params}
    content: dict[str, Any] = {"version": "2026-09-21", "source": "a test", "models": [MODEL]}
    for day, params in enumerate(lists, 1):
        kept = [param for param in params if types.get(param_name(param["key"])) == param["type"]]
        content = refreshed(content, [{"endpoint": "acme/film", "output_type": "video", "params": kept}], day)
        assert hash_of_call(without_required(found(content)), call) == hash_of_call(before, call)


@pytest.mark.parametrize(
    ("one", "other", "are_equal"),
    [
        ({"duration": 5}, {"duration": "5"}, True),
        ({"duration": 5.0}, {"duration": "5"}, True),
        ({"image_num": 1.0}, {"image_num": 1}, True),
        ({"image_url": ["asset://1"]}, {"image_url": "asset://1"}, True),
        ({"image_url": ["asset://1", "asset://2"]}, {"image_url": ["asset://2", "asset://1"]}, False),
        ({"ref_urls": ["asset://1"]}, {"ref_urls": "asset://1"}, True),
        ({"prompt": ""}, {}, True),
        ({"imageUrl": "asset://1"}, {"image_url": "asset://1"}, True),
        ({"duration": "5"}, {}, False),
        ({"sound": True}, {"sound": False}, False),
        ({"prompt": "5"}, {"duration": "5"}, False),
        ({"shots": '[{"a": 1.0}]'}, {"shots": [{"a": 1}]}, True),
        ({"shots": "[" * 100_000}, {"shots": "["}, False),
    ],
)
def test_what_counts_as_the_same_call(one: dict[str, Any], other: dict[str, Any], are_equal: bool) -> None:
    model = decode_model(MODEL)
    assert (hash_in_plan(model, one) == hash_in_plan(model, other)) is are_equal


def test_unchecked_values_are_compared_as_they_are_under_the_parameters_own_key() -> None:
    model = decode_model(MODEL)
    assert as_given(model, {"duration": "7"}, unchecked=["duration"]) == as_given(model, {"duration": "7"})
    assert as_given(model, {"duration": 7}, unchecked=["duration"]) == {"duration": 7}
    assert as_given(model, {"imageUrl": ["a"], "refUrls": "a"}) == {"imageUrl": "a", "refUrls": ["a"]}
    assert as_given(model, {"imageUrl": ["a"]}, unchecked=["image_url"]) == {"imageUrl": ["a"]}
    assert as_given(model, {"someThing": "7"}, unchecked=["someThing"]) == {"someThing": "7"}


def test_only_what_differs_from_the_definition_is_stored() -> None:
    flaws: list[str] = []
    later = {
        **MODEL,
        "params": [{"key": "ImageUrl", "type": "image", "multiple": True}, {"key": "prompt", "type": "string"}],
    }
    kept = keep_model(MODEL, later, flaws=flaws)
    assert kept["params"] == [
        {"key": "ImageUrl", "type": "image", "multiple": True, "frozen": {"key": "imageUrl", "multiple": False}},
        {"key": "prompt", "type": "string"},
    ]
    assert [param["key"] for param in kept["removed"]] == [
        *("refUrls", "duration", "imageNum", "cfgScale", "sound", "shots")
    ]
    assert keep_model(kept, MODEL, flaws=flaws) == MODEL
    assert flaws == []


def test_a_text_does_not_become_a_file_and_a_file_no_text() -> None:
    """The same value would be uploaded, or its name would be sent."""
    flaws: list[str] = []
    later = {
        **MODEL,
        "params": [{"key": "imageUrl", "type": "string"}, {"key": "prompt", "type": "image", "required": True}],
    }
    image, prompt = keep_model(MODEL, later, flaws=flaws)["params"]
    assert (image["type"], prompt) == ("image", {"key": "prompt", "type": "string", "required": True})
    assert [flaw.partition(", because")[0] for flaw in flaws] == [
        "acme/film: imageUrl: its type was image and is not changed to string",
        "acme/film: prompt: its type was string and is not changed to image",
    ]


def test_a_call_is_sent_in_the_form_of_the_newest_list() -> None:
    content = {"version": "2026-09-21", "source": "a test", "models": [MODEL]}
    call = {"prompt": "x", "image_url": "asset://1", "duration": "5"}
    image = {"key": "imageURL", "type": "IMAGE", "multiple": True}
    entry = {"endpoint": "acme/film", "output_type": "video", "params": [image, {"key": "duration", "type": "INT"}]}
    model = found(refreshed(content, [entry], 1))
    with pytest.warns(catalog.InputWarning, match="prompt is no longer in"):
        sent = catalog.read_parameters(model, call).sent
    assert sent == {"imageURL": ["asset://1"], "duration": 5, "prompt": "x"}


PLACES = """
import asyncio, json, sys
from rh_prefect import catalog
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.batch_model_columns import file_param, place, stages_of
from rh_prefect.pipelines.batch_pipeline import Batch, write_batch
from rh_prefect.pipelines.pipeline import Pipeline

TURBO, KLING, QWEN = "z-image/turbo", "kling-v2.6-pro-image-to-video", "qwen-image-2.0/text-to-image"
steps = {
    "clip": {"model": KLING, "from": "$(params.photo)", "with": {"prompt": "x", "duration": 5}},
    "each": {
        "matrix": {"m": [TURBO, QWEN]},
        "steps": {"a": {"model": "$(matrix.m)", "with": {"prompt": "x", "negative_prompt": "y"}}},
    },
}
head = {"photo": {"type": "image", "default": sys.argv[1]}}
plan = Pipeline.from_dict({"params": head, "steps": steps}).plan_now(site="www.runninghub.cn")
assert not plan.problems, plan.problems
chain = stages_of(TURBO, [KLING], {})
number, param = place(chain, "negative_prompt")
found = [chain[1].fed.name, number, param.name, file_param(catalog.get(KLING)).name]
batch = Batch([{"prompt": "x", "image_url": sys.argv[1]}], model=KLING, values={"duration": "5"})
found.append(asyncio.run(write_batch(batch, "www.runninghub.cn", MediaStore("out"))).name)
print(json.dumps([[work.key for one in plan.instances for work in one.works], found]))
"""


def test_a_refresh_moves_no_value_to_another_parameter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `from`, a row that is a file, a chain and `model: $(…)` leave open which parameters a call gives.

    A batch keeps its scope, which its values for all rows identify.
    """
    monkeypatch.setenv("RH_STATE_DIR", str(tmp_path))
    png(tmp_path / "a.png", size=(400, 400))

    def places() -> object:
        done = warm_process.run(["-c", PLACES, tmp_path / "a.png"])
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    before = places()
    style, image = ({"key": key, "type": "IMAGE"} for key in ("styleImageUrl", "imageUrl"))
    prompt = {"key": "prompt", "type": "STRING", "required": True}
    kling = {"endpoint": "kling-v2.6-pro/image-to-video", "output_type": "video"}
    turbo = {"endpoint": "rhart-image/z-image/turbo", "output_type": "image"}
    listed = tmp_path / "list.json"
    for day, files in enumerate([[style, image], [{"key": "aUrl", "type": "IMAGE"}, image, style], [style]], 1):
        models = [
            {**kling, "params": [*files, prompt, {"key": "duration", "type": "INT"}]},
            {**turbo, "params": [prompt, {"key": "negativePrompt", "type": "STRING"}]},
        ]
        listed.write_text(json.dumps({"version": f"2026-11-0{day}", "endpoints": models}))
        refresh(str(listed))
        assert places() == before


def test_a_file_goes_where_the_first_list_that_decided_it_put_it() -> None:
    content = {"version": "2026-09-01", "source": "x", "models": [{**MODEL, "params": MODEL["params"][:1]}]}
    entry = {"endpoint": "acme/film", "name_en": "acme-film", "output_type": "video"}
    first, last = ({"key": key, "type": "IMAGE", "required": key == "lastUrl"} for key in ("firstUrl", "lastUrl"))
    assert feed(found(content), "image", set())[0] is None
    retyped = {**first, "type": "VIDEO"}
    for day, params in enumerate([[first], [last, first], [last], [retyped, last]], 1):
        content = refreshed(content, [{**entry, "params": params}], day)
        param, _ = feed(found(content), "image", set())
        assert param is not None and param.name == "first_url", day
    second, _ = feed(found(content), "image", {"first_url"})
    assert second is not None and second.name == "last_url"


def test_a_newer_package_keeps_the_forms_and_models_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RH_STATE_DIR", str(tmp_path))
    package = json.loads(registry.SLIM_FILE.read_bytes())
    turbo = next(model for model in package["models"] if model["name"] == "z-image/turbo")
    first = {**turbo["params"][0], "frozen": {"key": "text"}}
    mine = [{**turbo, "params": [first, *turbo["params"][1:]]}, {**MODEL, "name": "acme-film"}]
    registry.user_file().write_text(json.dumps({"version": "2020-01-01", "source": "x", "models": mine}))
    told: list[str] = []
    content = registry.in_use(told.append)
    models = {model["endpoint"]: model for model in content["models"]}
    assert ["has newer ones" in text for text in told] == [True]
    assert len(models) == len(package["models"]) + 1
    assert models["acme/film"] == MODEL
    assert as_given(decode_model(models[turbo["endpoint"]]), {"prompt": "x"}) == {"text": "x"}
