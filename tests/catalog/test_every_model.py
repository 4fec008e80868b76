"""What holds for each model, without a network."""

from __future__ import annotations

from rh_prefect import catalog
from rh_prefect.catalog import Model
from tests.support.samples.each_model import for_each_model


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
def test_it_says_what_it_is(model: Model) -> None:
    text = catalog.summary(model)
    assert model.name in text
    assert model.endpoint in text
    assert str(model.price or "not published") in text
    for param in model.params:
        assert param.note.lower() in catalog.describe(param).lower()
