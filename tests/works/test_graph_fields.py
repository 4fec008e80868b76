"""The fields of graphs and of apps, and their valid values."""

from __future__ import annotations

from decimal import Decimal

import pytest

from rh_prefect.client import App, AppNode, AppOption
from rh_prefect.errors import InputError
from rh_prefect.works.runninghub.graph_request import AppFields, GraphFields

FIELDS = AppFields(
    App(
        webapp_id="1",
        nodes=(
            AppNode(node_id="3", field_name="steps", field_type="INT", minimum=Decimal(1), maximum=Decimal(50)),
            AppNode(node_id="3", field_name="denoise", field_type="FLOAT", minimum=Decimal(0), maximum=Decimal(1)),
            AppNode(node_id="3", field_name="seed", field_type="INT"),
            AppNode(
                node_id="3", field_name="mode", field_type="INT", options=(AppOption(value="2"),), maximum=Decimal(1)
            ),
            AppNode(node_id="6", field_name="text", field_type="STRING", maximum=Decimal(1)),
        ),
    )
)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("steps", 0, "3.steps cannot be 0; it must be at least 1. Nothing was sent"),
        ("steps", "51", "3.steps cannot be '51'; it must be at most 50"),
        ("steps", 2.5, "a whole number"),
        ("steps", "many", "must be a number"),
        ("steps", float("inf"), "must be a number"),
        ("steps", True, "must be a number"),
        ("denoise", 1.01, "at most 1"),
        ("denoise", "-0.1", "at least 0"),
        ("seed", "x", "must be a number"),
        ("mode", 1, "allowed values: 2"),
    ],
)
def test_a_number_that_the_app_does_not_accept_is_refused(field: str, value: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        FIELDS.check("3", field, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("3.steps", 1),
        ("3.steps", "50"),
        ("3.steps", 20.0),
        ("3.denoise", 0.75),
        ("3.denoise", "1"),
        ("3.seed", 2**64 - 1),
        ("3.mode", 2),
        ("6.text", "words"),
    ],
)
def test_a_value_that_the_app_accepts_is_sent_unchanged(name: str, value: object) -> None:
    node_id, _, field = name.partition(".")
    assert FIELDS.check(node_id, field, value) is value


def test_a_seed_of_a_graph_is_a_field_that_no_other_node_sets() -> None:
    inputs = {
        "3": {"seed": 5, "steps": 20},
        "4": {"seed": ["3", 0], "noise_seed": 1},
        "5": {"rand_seed": 2},
    }
    graph = {node: {"class_type": "KSampler", "inputs": fields} for node, fields in inputs.items()}
    fields = GraphFields({**graph, "6": {"class_type": "Note"}}, "WorkflowInput")
    assert list(fields.seeds()) == [("3", "seed"), ("4", "noise_seed"), ("5", "rand_seed")]
