"""The emulator's reading of a request against the client's, over every model."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest

from rh_prefect import catalog, emulator
from rh_prefect.catalog import Model
from rh_prefect.emulator import DEFAULT
from rh_prefect.emulator.model_checks import sent_params, violations
from rh_prefect.emulator.models_and_prices import price_of
from tests.support.samples.each_model import for_each_model
from tests.support.world.reading_comparison import client_reading, requests

LENGTHS = (None, 0.0, 4.2, 11.0)
"""Seconds of the longest file: models that are priced by their input are priced by these."""


@pytest.mark.long
@for_each_model
def test_both_readings_agree(model: Model) -> None:
    """On what is taken, and on what it costs."""
    apart: list[object] = []
    for given in requests(model):
        client = client_reading(model, given)
        flaws = violations(DEFAULT, model, client.sent)
        if client.accepts == bool(flaws):
            apart.append((given, client.accepts, flaws))
        if not client.accepts:
            continue
        sent = sent_params(model, client.sent)
        for seconds in LENGTHS:
            prices = (client.price(model, seconds=seconds), price_of(model, sent, seconds=seconds))
            if prices[0] != prices[1]:
                apart.append((given, seconds, prices))
    assert apart == []


def test_the_emulator_uses_the_catalogue_as_data() -> None:
    """The package `rh_prefect.catalog` gives its checks by name; only its modules of data are imported."""
    sources = [source.read_text() for source in Path(emulator.__file__).parent.rglob("*.py")]
    imports = {name for source in sources for name in re.findall(r"rh_prefect\.catalog(\S*)", source)}
    assert imports == {".model", ".registry"}
    assert not any("import catalog" in source for source in sources)


def test_prices_differ_from_request_to_request() -> None:
    """Otherwise the comparison would say little."""
    seen: set[Decimal | None] = set()
    for model in catalog.models():
        seen |= {price_of(model, sent_params(model, given), seconds=4.2) for given in requests(model)}
    assert len(seen) > 100
