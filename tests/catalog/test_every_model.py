"""What holds for each model, without a network."""

from __future__ import annotations

from typing import Any

import pytest

from rh_prefect import catalog
from rh_prefect.catalog import Model, Param
from rh_prefect.errors import InputError, MediaError
from tests.support.samples.each_model import for_each_model


def refuse(model: Model, reason: str, **params: object) -> None:
    given = {name: value for name, value in (catalog.example(model) | params).items() if value is not None}
    with pytest.raises(InputError) as caught:
        catalog.validate(model, given)
    assert model.name in str(caught.value)
    assert reason in str(caught.value)


@for_each_model
def test_the_smallest_valid_input_passes(model: Model) -> None:
    sent = catalog.validate(model, catalog.example(model))
    keys = {param.key for param in model.params}
    assert sent.keys() <= keys
    assert {param.key for param in model.params if param.required} <= sent.keys()
    assert None not in sent.values()
    assert catalog.validate(model, sent) == sent  # the wire form is itself a valid input


@for_each_model
def test_all_defaults_together_pass(model: Model) -> None:
    defaults = {param.name: param.wire_default for param in model.params if param.default is not None}
    catalog.validate(model, catalog.example(model) | defaults)


@for_each_model
def test_a_wrong_choice_is_refused_with_the_allowed_ones(model: Model) -> None:
    for param in (param for param in model.params if param.type == "enum"):
        refuse(model, f"{param.name} must be one of", **{param.name: "no such choice"})
        for option in param.options:
            refuse(model, f'"{option}"', **{param.name: "no such choice"})


@for_each_model
def test_each_missing_requirement_is_refused(model: Model) -> None:
    for param in (param for param in model.params if param.required and param.default is None):
        refuse(model, f"{param.name} is missing", **{param.name: None})


@for_each_model
def test_numbers_out_of_range_are_refused(model: Model) -> None:
    for param in (param for param in model.params if param.type in ("int", "float")):
        for limit, wrong in ((param.min, -1), (param.max, 1)):
            if limit is not None:
                refuse(model, f"{param.name} must be", **{param.name: limit + wrong})
        refuse(model, f"{param.name} must be", **{param.name: "many"})


@for_each_model
def test_what_is_too_long_is_refused(model: Model) -> None:
    for param in model.params:
        if param.max_length is not None and not param.multiple:
            refuse(model, f"at most {param.max_length}", **{param.name: "x" * (param.max_length + 1)})
        if param.max_items is not None:
            item = "https://example.com/a.png" if param.is_media else (param.options or ("x",))[0]
            refuse(model, f"at most {param.max_items}", **{param.name: [item] * (param.max_items + 1)})


def _file(param: Param, **facts: object) -> dict[str, Any]:
    extension = param.accept[0] if param.accept else "png"
    return {"extension": extension, "size": 1000, "kind": param.type} | facts


@for_each_model
def test_files_of_the_wrong_size_kind_and_format_are_refused(model: Model) -> None:
    for param in model.media_params:
        catalog.check_file(model, param, **_file(param))
        bad: list[dict[str, object]] = [{"kind": "text"}, {"size": 0}]
        bad += [{"size": param.max_size_mb * 1024 * 1024 + 1}] if param.max_size_mb else []
        bad += [{"extension": "exe"}] if param.accept else []
        for facts in bad:
            with pytest.raises(MediaError, match=param.name):
                catalog.check_file(model, param, **_file(param, **facts))


@for_each_model
def test_it_says_what_it_is(model: Model) -> None:
    text = catalog.summary(model)
    assert model.name in text
    assert model.endpoint in text
    assert str(model.price or "not published") in text
    for param in model.params:
        assert param.note.lower() in catalog.describe(param).lower()
