"""Validation of graphs, as ComfyUI answers it."""

from __future__ import annotations

import copy
import json

import pytest

from rh_prefect.emulator.comfy.graph import Graph, in_order, inputs_of, parse
from rh_prefect.emulator.comfy.nodes import CLASSES, object_info
from rh_prefect.emulator.comfy.validation import Files, Verdict, validate
from rh_prefect.emulator.comfy.workflows import RESTYLE, TEXT_TO_IMAGE, WORKFLOWS

FILES = Files(has_media=lambda name: name == "example.png", has_lora=lambda name: name == "api-lora-cn/a.safetensors")


def changed(**values: object) -> Graph:
    """The picture graph with values of its sampler changed."""
    graph = copy.deepcopy(TEXT_TO_IMAGE)
    inputs_of(graph["3"]).update(values)
    return graph


def kinds(verdict: Verdict) -> list[tuple[str, str]]:
    told = json.loads(verdict.tips())
    return [(node, error["type"]) for node, found in told["node_errors"].items() for error in found["errors"]]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_built_in_graphs_are_good(name: str) -> None:
    verdict = validate(copy.deepcopy(WORKFLOWS[name][1]), FILES)
    assert (verdict.error, verdict.node_errors, bool(verdict.outputs)) == (None, {}, True)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"steps": 0}, "value_smaller_than_min"),
        ({"cfg": "1000"}, "value_bigger_than_max"),
        ({"steps": "many"}, "invalid_input_type"),
        ({"denoise": "inf"}, "value_bigger_than_max"),
        ({"scheduler": "Karras"}, "value_not_in_list"),
        ({"model": "sdxl"}, "bad_linked_input"),
        ({"model": ["400", 0]}, "bad_linked_input"),
        ({"model": ["4", 1]}, "return_type_mismatch"),
        ({"model": ["4", 7]}, "return_type_mismatch"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, object], kind: str) -> None:
    verdict = validate(changed(**values), FILES)
    assert kinds(verdict) == [("3", kind)]
    assert (verdict.outputs, verdict.is_hopeless) == ((), False)
    assert json.loads(verdict.tips())["error"]["type"] == "prompt_outputs_failed_validation"


def test_a_missing_input_and_a_missing_file() -> None:
    graph = copy.deepcopy(RESTYLE)
    del inputs_of(graph["12"])["vae"]
    inputs_of(graph["10"])["image"] = "api/none.png"
    verdict = validate(graph, FILES)
    assert set(kinds(verdict)) == {("12", "required_input_missing"), ("10", "custom_validation_failed")}
    assert verdict.node_errors["10"]["dependent_outputs"] == ["9", "14"]


def test_a_lora_must_have_been_sent() -> None:
    graph = changed(model=["20", 0])
    lora = {"strength_model": 1, "strength_clip": 1, "model": ["4", 0], "clip": ["4", 1]}
    graph["20"] = {"class_type": "RHLoraLoader", "inputs": {**lora, "file_name": "api-lora-cn/b.safetensors"}}
    assert kinds(validate(graph, FILES)) == [("20", "value_not_in_list")]
    inputs_of(graph["20"])["file_name"] = "api-lora-cn/a.safetensors"
    assert validate(graph, FILES).error is None


def test_a_circle_is_no_endless_loop() -> None:
    verdict = validate(changed(latent_image=["3", 0]), FILES)
    assert verdict.outputs == ()
    assert verdict.error is not None


def test_a_chain_that_is_too_long_is_refused_as_a_whole() -> None:
    graph = copy.deepcopy(TEXT_TO_IMAGE)
    for number in range(1000):
        before = [f"i{number - 1}", 0] if number else ["8", 0]
        graph[f"i{number}"] = {"class_type": "ImageInvert", "inputs": {"image": before}}
    inputs_of(graph["9"])["images"] = ["i999", 0]
    assert validate(graph, FILES).is_hopeless


def test_nodes_run_after_what_they_depend_on() -> None:
    order = in_order(TEXT_TO_IMAGE)
    assert sorted(order) == sorted(TEXT_TO_IMAGE)
    for before, after in (("4", "6"), ("6", "3"), ("5", "3"), ("3", "8"), ("8", "9")):
        assert order.index(before) < order.index(after)


def test_object_info_describes_every_class() -> None:
    described = object_info(frozenset({"MySaver"}))
    assert set(described) == {*CLASSES, "MySaver"}
    steps = json.loads(json.dumps(described))["KSampler"]["input"]["required"]["steps"]
    assert steps == ["INT", {"default": 20, "min": 1, "max": 10000}]


@pytest.mark.parametrize("text", ["", "[]", "1", "null", '{"1": []}', "{", "[" * 100_000])
def test_what_is_no_graph(text: str) -> None:
    assert parse(text) is None
