"""When two calls are one request: by the parameters of the caller, without defaults."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from rh_prefect import catalog
from rh_prefect.catalog import Model
from rh_prefect.errors import InputError, MediaError
from rh_prefect.input_class_builder import build_input
from rh_prefect.media.store import MediaStore
from rh_prefect.works.checked_request import JobRequest, as_request, prepare_request
from rh_prefect.works.input_identification import Inputs
from rh_prefect.works.journal.identity import graph_base, media_mark
from rh_prefect.works.journal.journal import FolderJournal
from tests.support.samples import media as samples
from tests.support.world.job_records import BASE, intent

SITE = "www.runninghub.cn"


@pytest.fixture
def inputs(journal: FolderJournal, tmp_path: Path) -> Inputs:
    return Inputs(journal, tmp_path / "scratch", MediaStore(tmp_path / "out"))


def with_default(model: Model, name: str, default: str) -> Model:
    """The model of another catalogue."""
    params = tuple(replace(param, default=default) if param.name == name else param for param in model.params)
    return replace(model, params=params)


async def order(model: Model, params: Mapping[str, object], inputs: Inputs) -> JobRequest:
    given: Any = build_input(model)(**params)
    return await prepare_request(given, site=SITE, inputs=inputs)


async def test_a_default_of_the_catalogue_does_not_change_the_request(inputs: Inputs) -> None:
    model = catalog.get("z-image/turbo")
    param = next(one for one in model.params if one.required and one.default is not None and one.type == "enum")
    other = next(option for option in param.options if option != param.default)
    before = await order(model, {"prompt": "a lighthouse"}, inputs)
    after = await order(with_default(model, param.name, other), {"prompt": "a lighthouse"}, inputs)
    assert (before.payload[param.key], after.payload[param.key]) == (param.default, other)
    assert before.base == after.base
    price = catalog.estimate(model, before.payload)
    assert price is not None
    assert (before.estimate, before.currency, before.model, before.site) == (price.amount, "CNY", "z-image/turbo", SITE)
    unpriced = await order(catalog.get("skyreels-v4/text-to-video-fast"), {"prompt": "a lighthouse"}, inputs)
    assert (unpriced.estimate, unpriced.currency) == (None, None)


async def test_a_parameter_of_the_caller_changes_the_request_but_trailing_line_breaks_do_not(inputs: Inputs) -> None:
    """A prompt from a file is equal to the prompt in a program."""
    model, bases = catalog.get("z-image/turbo"), set[str]()
    for prompt in ("a lighthouse", "a harbour", " a lighthouse", "a lighthouse "):
        for end in ("", "\n", "\r\n", "\n\n"):
            made = await order(model, {"prompt": prompt + end}, inputs)
            assert made.payload["prompt"] == prompt + end
            bases.add(made.base)
    assert len(bases) == 4


async def test_each_file_of_a_list_is_sent_in_its_place(inputs: Inputs, tmp_path: Path) -> None:
    files = [samples.png(tmp_path / f"{number}.png", text=f"{number}") for number in range(3)]
    model = catalog.get("bytedance/jimeng-4.6/image-to-image")
    made = await order(model, {"prompt": "all of them", "image_urls": [str(one) for one in files]}, inputs)
    assert made.payload["imageUrls"] == [media_mark(sha256(one.read_bytes()).hexdigest()) for one in files]


async def test_the_files_of_a_request_are_checked_and_priced_by_their_content(inputs: Inputs, tmp_path: Path) -> None:
    model = catalog.get("bytedance/dreamactor-v2")
    photo, clip = str(samples.png(tmp_path / "photo.png")), str(samples.mp4(tmp_path / "clip.mp4", seconds=2))
    made = await order(model, {"image_url": photo, "video_url": clip}, inputs)
    price = catalog.estimate(model, made.payload, seconds=made.inputs[made.payload["videoUrl"]].record.seconds)
    assert price is not None and made.estimate == price.amount > 0
    disguised, large = shutil.copy(clip, tmp_path / "clip.png"), tmp_path / "large.png"
    large.write_bytes(bytes(6 << 20))
    for file, fault in ((disguised, "takes an image file, but this is a video file"), (large, "takes at most 5 MB")):
        with pytest.raises(MediaError, match=fault):
            await order(model, {"image_url": str(file), "video_url": clip}, inputs)
    values = {"unchecked": {"image_url": str(disguised)}}, {"image_url": "asset://1"}
    sent = [(await order(model, {"video_url": clip, **one}, inputs)).payload["imageUrl"] for one in values]
    assert sent == [made.payload["videoUrl"], "asset://1"]


def test_texts_at_any_depth_lose_their_trailing_line_breaks_in_the_hash() -> None:
    given = {"a": "x\n", "b": ["y\r\n", {"c": " z \n", "d": None, "e": 1.5, "f": True}], "g": ("w\n", 3)}
    assert as_request(given) == {"a": "x", "b": ["y", {"c": " z ", "d": None, "e": 1.5, "f": True}], "g": ["w", 3]}
    with pytest.raises(InputError, match=r"a value of the type set, which cannot be sent as JSON. Nothing was sent"):
        as_request({"a": {1}})


def test_what_is_sent_has_links_in_place_of_files_a_graph_as_text_and_the_secrets() -> None:
    payload = {"workflow": {"6": {"text": "灯塔"}}, "image": "sha256:1", "more": ("sha256:1", 5, {"x": "no sha256:1"})}
    request = JobRequest("m", "/task/openapi/create", SITE, payload, "base", private={"accessPassword": "word"})
    links = {"sha256:1": "https://h/a.png"}
    assert request.sent(links) == {
        "workflow": '{"6": {"text": "灯塔"}}',
        "image": "https://h/a.png",
        "more": ["https://h/a.png", 5, {"x": "no sha256:1"}],
        "accessPassword": "word",
    }
    assert "word" not in repr(request)
    assert replace(request, payload={"workflow": "a text"}, private={}).sent(links) == {"workflow": "a text"}
    custom = replace(request, endpoint="luma/uni-1", payload={"workflow": {"a": 1}}, private={})
    assert custom.sent(links) == {"workflow": {"a": 1}}, "an object of a model's own parameter"


def test_a_request_is_built_again_from_its_record() -> None:
    request = JobRequest.of(intent(label="a pier", estimate=Decimal(2), currency="USD", graph="f" * 40))
    assert request.recorded == {
        "model": "some/model",
        "endpoint": "some/model",
        "site": "site",
        "payload": {"prompt": "a lighthouse"},
        "base": BASE,
        "label": "a pier",
        "estimate": Decimal(2),
        "currency": "USD",
        "graph": "f" * 40,
    }
    assert request.prompt == "a lighthouse"
    assert request.with_graph().base == graph_base(BASE, "f" * 40)
