"""The models that an emulator runs: those of the catalogue, and those that a test adds."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from rh_prefect.catalog.model import Model, Output, Param, PriceTable, Rule
from rh_prefect.catalog.registry import models as catalogued


class Models:
    """All models by their endpoints; any other endpoint is 1001."""

    def __init__(self) -> None:
        self._added: dict[str, Model] = {}
        self._catalogued: dict[str, Model] = {}

    def find(self, endpoint: str) -> Model | None:
        """Finds a model; one that was added goes before one of the catalogue."""
        if not self._catalogued:  # at the first submit: reading the catalogue takes time
            self._catalogued = {model.endpoint: model for model in catalogued()}
        return self._added.get(endpoint) or self._catalogued.get(endpoint)

    def add(self, model: Model) -> None:
        """Adds a model, or replaces the one of its endpoint."""
        self._added[model.endpoint] = model


def new_model(
    endpoint: str,
    *,
    output: Output = "image",
    params: Iterable[Param] = (),
    rules: Iterable[Rule] = (),
    price: PriceTable | Decimal | str | int | None = None,
) -> Model:
    """Describes a model that the catalogue does not have.

    Args:
        endpoint: What comes after `/openapi/v2/`.
        output: What it makes.
        params: Its parameters.
        rules: What holds for several of them together.
        price: What it costs: a table, or the amount of each call; None for no published price.
    """
    table = price if isinstance(price, PriceTable | None) else PriceTable("call", fixed=Decimal(str(price)))
    family = endpoint.partition("/")[0]
    return Model(endpoint, endpoint, output, family, params=tuple(params), rules=tuple(rules), price=table)
