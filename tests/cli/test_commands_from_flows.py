"""The options of `rh-prefect run` and `rh-prefect batch` are the parameters of the flows."""

from __future__ import annotations

import inspect

import pytest

from rh_prefect import flows
from rh_prefect.cli.commands_from_flows import FlowSignature, composed_flows, flow_signature
from rh_prefect.cli.run_flow_and_batch import run_app

SIGNATURES = [*composed_flows(), flow_signature("models", "any_model"), flow_signature("batch/flow", "batch")]


@pytest.mark.parametrize("read", SIGNATURES, ids=lambda read: read.function)
def test_a_signature_is_read_from_the_source_as_python_reads_it(read: FlowSignature) -> None:
    flow = getattr(flows, read.function)
    real = {**inspect.signature(flow.fn, eval_str=True).parameters}
    real.pop("wait", None)
    assert list(read.parameters) == list(real)
    for name, parameter in read.parameters.items():
        assert parameter.default == real[name].default
        # Two `Field` objects are never equal.
        assert str(parameter.annotation) == str(real[name].annotation)
    assert inspect.cleandoc(read.doc) == inspect.getdoc(flow.fn)


def test_every_flow_that_pays_has_a_command() -> None:
    own = {name.replace("_", "-") for name in flows.__all__} - {
        "FilmResult",
        "for-model",
        "any-model",
        "batch",
        "reconcile",
    }
    assert {name for name in run_app if not name.startswith("-")} == own | {"model"}
