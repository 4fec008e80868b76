"""Every public form of a list of models is read as it is, and a bad entry costs that entry alone."""

from __future__ import annotations

from typing import Any

import pytest

from rh_prefect.catalog.public_list_parser import read_list
from rh_prefect.errors import InputError


def node(endpoint: str, *params: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An entry of the registry of nodes."""
    facts = {
        "class_name": "Some",
        "name_cn": "x",
        "name_en": endpoint,
        "output_type": "image",
        "category": "RunningHub/X",
    }
    return {"endpoint": endpoint, **facts, "params": list(params), **more}


def field(key: str, type_: str, **more: Any) -> dict[str, Any]:
    return {"fieldKey": key, "type": type_, "label": key, "description": "x", **more}


def option(value: str | int) -> dict[str, Any]:
    return {"value": value, "description": "x", "descriptionEn": "x"}


PARAMS = (
    field("prompt", "STRING", required=True, defaultValue="a kite", maxLength=900),
    field("ratio", "LIST", defaultValue="empty", options=[option("empty"), option("1:1"), option("3:2")]),
    field("imageUrls", "IMAGE", accept='["PNG","JPG"]', maxSize=7, maxInputNum=4),
    field("seed", "INT", defaultValue=0, min=0, max=999999, step=1),
    field("conversionSlots", "LIST", defaultValue="all", options=[option("all"), option("image1")]),
    field("number", "LIST", defaultValue=2, options=[option(1), option(2)]),
    field("sound", "BOOLEAN", defaultValue=True),
    field("size", "SIZE", defaultValue="1024*1024"),
)
READ = [
    {"key": "prompt", "type": "string", "required": True, "max_length": 900},
    {"key": "ratio", "type": "enum", "options": ["1:1", "3:2"]},
    {"key": "imageUrls", "type": "image", "multiple": True, "max_items": 4, "accept": ["png", "jpg"], "max_size_mb": 7},
    {"key": "seed", "type": "int", "min": 0, "max": 999999, "default": 0},
    {"key": "conversionSlots", "type": "enum", "multiple": True, "options": ["all", "image1"], "default": ["all"]},
    {"key": "number", "type": "enum", "options": ["1", "2"], "default": "2"},
    {"key": "sound", "type": "bool", "default": True},
    {"key": "size", "type": "string"},
]


@pytest.mark.parametrize(
    ("content", "date"),
    [
        ([node("acme/picture/draw", *PARAMS)], ""),
        (
            {"version": "public-2026-02-03", "model_count": 1, "models": [node("acme/picture/draw", *PARAMS)]},
            "2026-02-03",
        ),
    ],
)
def test_the_registry_of_nodes_is_read_as_a_list_and_as_an_object(content: Any, date: str) -> None:
    found = read_list(content)
    assert (found.format, found.date, found.flaws) == ("registry", date, [])
    assert found.models["acme/picture/draw"] == {
        "name": "acme/picture/draw",
        "endpoint": "acme/picture/draw",
        "output": "image",
        "params": READ,
    }


def test_capabilities_say_the_same_in_other_words() -> None:
    params = [
        {"key": "imageUrl", "type": "IMAGE", "required": True, "maxSizeMB": 12},
        {"key": "prompt", "type": "STRING", "default": "a sample", "maxLength": 700},
        {"key": "duration", "type": "LIST", "required": True, "options": ["3", 6], "default": 6},
        {"key": "refs", "type": "VIDEO", "multiple": True, "maxCount": 2, "maxSizeMB": 40},
        {"key": "any", "type": "CommonMedia"},
    ]
    entry = {
        "endpoint": "acme/film",
        "name_en": "acme-film",
        "output_type": "string",
        "params": params,
        "popularity": 99,
    }
    found = read_list({"version": "2026-01-31", "total": 1, "endpoints": [entry]})
    assert (found.format, found.date, found.flaws) == ("capabilities", "2026-01-31", [])
    model = found.models["acme/film"]
    assert (model["name"], model["output"]) == ("acme-film", "text")
    assert model["params"] == [
        {"key": "imageUrl", "type": "image", "required": True, "max_size_mb": 12},
        {"key": "prompt", "type": "string", "max_length": 700},
        {"key": "duration", "type": "enum", "required": True, "options": ["3", "6"], "default": "6"},
        {"key": "refs", "type": "video", "multiple": True, "max_items": 2, "max_size_mb": 40},
        {"key": "any", "type": "string"},
    ]


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("acme/old/edit-[Deprecated]", "acme/old/edit-[Deprecated] use acme/new"),
        ("acme/old/edit-deprecated", "acme/old/edit"),
    ],
)
def test_a_marked_endpoint_is_deprecated_and_an_alias(endpoint: str, name: str) -> None:
    model = read_list([node(endpoint, name_en=name)]).models["acme/old/edit"]
    assert model["status"] == "deprecated"
    assert model["aliases"] == [endpoint]
    assert model["name"] == "acme/old/edit"
    assert model["incomplete"] is True


@pytest.mark.parametrize(
    ("param", "read", "flaw"),
    [
        (field("mode", "LIST"), {"type": "string"}, "a choice without options"),
        (field("colour", "PALETTE"), {"type": "string"}, "type 'PALETTE' is unknown"),
        (field("n", "INT", min=1, max=4, defaultValue=9), {"type": "int", "min": 1, "max": 4}, "default 9"),
        (field("n", "INT", max="many"), {"type": "int"}, "max 'many' is not a possible limit"),
        (field("n", "INT", min=5, max=1), {"type": "int"}, "min 5 is greater than max 1"),
        (field("p", "STRING", maxLength=-1), {"type": "string"}, "max_length -1 is not a possible limit"),
        (field("i", "IMAGE", maxSize=0.5), {"type": "image"}, "max_size_mb 0.5 is not a possible limit"),
        (field("i", "IMAGE", accept='"PNG"'), {"type": "image"}, "accept '\"PNG\"' is not a readable list"),
        (field("m", "LIST", options=7), {"type": "string"}, "a choice without options"),
        (field("i", "IMAGE", accept="PNG, JPG"), {"type": "image"}, "accept 'PNG, JPG' is not a readable list"),
    ],
)
def test_a_part_that_cannot_be_used_is_named_and_the_parameter_kept(
    param: dict[str, Any], read: dict[str, Any], flaw: str
) -> None:
    found = read_list([node("acme/a", param), node("acme/b")])
    assert found.models["acme/a"]["params"] == [{"key": param["fieldKey"], **read}]
    assert [flaw in told for told in found.flaws] == [True]
    assert found.flaws[0].startswith(f"acme/a: {param['fieldKey']}: ")


@pytest.mark.parametrize(
    ("entry", "flaw"),
    [
        ("no object", "entry 1: it has no valid endpoint"),
        ({"endpoint": "a b"}, "entry 1: it has no valid endpoint"),
        (node("acme/a", output_type="smell"), "acme/a: output_type 'smell' is unknown"),
        ({**node("acme/a"), "params": "none"}, "acme/a: params is not a list"),
        (
            node("acme/a", name_en="\ud800"),
            "entry 1: it contains an incomplete character (a lone surrogate), which is not valid text",
        ),
        (node("acme/a", field("n", "INT", max=10**400)), "entry 1: it contains a number of more than 300 digits"),
        (node("acme/../b"), "entry 1: it has no valid endpoint"),
        (node("acme/b"), "acme/b: it is listed twice; another entry is used"),
        (
            node("acme/a", field("imageUrl", "IMAGE"), field("image_url", "IMAGE")),
            "acme/a: image_url: it has the name of imageUrl in Python, and is left out",
        ),
        (node("acme/a", {"type": "INT"}), "acme/a: a parameter without a usable key (None) is left out"),
    ],
)
def test_a_bad_entry_costs_that_entry_alone(entry: Any, flaw: str) -> None:
    found = read_list([entry, node("acme/b"), node("acme/c")])
    assert {"acme/b", "acme/c"} <= set(found.models)
    assert found.flaws == [flaw]


def price(endpoint: str, **facts: Any) -> dict[str, Any]:
    return {"endpoint": endpoint, "name_en": endpoint, "currency": "CNY", "unit": "/次", **facts}


FIXED = {"pricing_type": "fixed", "price": 1}
RULE = {"when": {"resolution": "1080P"}, "price": 2.5}


@pytest.mark.parametrize(
    ("row", "read"),
    [
        ({"pricing_type": "fixed", "price": 0.5}, {"unit": "call", "fixed": 0.5}),
        ({"pricing_type": "fixed", "price": 3, "unit": "/秒起"}, {"unit": "second, from", "fixed": 3}),
        ({"pricing_type": "fixed", "price": 3, "unit": "/1000char"}, {"unit": "1000 characters", "fixed": 3}),
        (
            {"pricing_type": "fixed", "price": 3, "updated_at": "2026-05-06T07:08:09"},
            {"unit": "call", "fixed": 3, "seen": "2026-05-06"},
        ),
        (
            {"pricing_type": "parameter_based", "depends_on": ["resolution"], "rules": [RULE]},
            {"unit": "call", "by": ["resolution"], "rows": [["1080P", 2.5]]},
        ),
        ({"pricing_type": "fixed", "price": 0}, None),
        ({"pricing_type": "fixed", "price": 9999.0}, None),
        ({"pricing_type": "unparsed"}, None),
    ],
)
def test_a_price_is_read_and_a_placeholder_is_none(row: dict[str, Any], read: dict[str, Any] | None) -> None:
    found = read_list({"version": "public-2026-02-03", "pricing": [price("acme/a", **row)]})
    assert (found.format, found.date, found.flaws) == ("prices", "2026-02-03", [])
    assert found.prices == {"acme/a": read}


@pytest.mark.parametrize(
    ("row", "flaw"),
    [
        ({"pricing_type": "fixed", "price": 1, "unit": "/moon"}, "unit '/moon' is unknown"),
        ({"pricing_type": "auction"}, "pricing_type 'auction' is unknown"),
        *[({**FIXED, "currency": one}, "the price is ignored") for one in ("x", "-1", ["CNY"])],
        ({**FIXED, "currency": float("nan")}, "nan, which is not a number"),
        ({"pricing_type": "parameter_based", "rules": [{"when": {"n": ""}, "price": 1}]}, "catalogue cannot express"),
        ({"pricing_type": "parameter_based", "rules": [RULE, {"when": {"n": 1}, "price": 1}]}, "in different entries"),
        (
            {"pricing_type": "parameter_based", "rules": [RULE, {**RULE, "price": 3}]},
            "two prices for one condition",
        ),
    ],
)
def test_a_price_that_cannot_be_read_counts_as_unknown(row: dict[str, Any], flaw: str) -> None:
    found = read_list({"pricing": [price("acme/a", **row), price("acme/b", pricing_type="fixed", price=1)]})
    assert found.prices.get("acme/a") is None
    assert found.prices["acme/b"] is not None
    assert [flaw in told for told in found.flaws] == [True]


@pytest.mark.parametrize("content", [None, 3, [], {}, {"models": []}, {"endpoints": 3}, "text", {"pricing": None}])
def test_what_has_no_known_form_is_refused(content: object) -> None:
    with pytest.raises(InputError, match="its format is unknown"):
        read_list(content)


def test_an_entry_without_a_mark_goes_before_one_with_it() -> None:
    old, new = node("acme/x-[Deprecated]", field("old", "INT")), node("acme/x", field("new", "INT"))
    for entries in ([old, new], [new, old]):
        model = read_list(entries).models["acme/x"]
        assert ("status" in model, [param["key"] for param in model["params"]]) == (False, ["new"])
    lora = read_list([node("acme/x-deprecated-lora/edit")]).models
    assert list(lora) == ["acme/x-deprecated-lora/edit"]


def test_the_first_price_of_an_endpoint_counts() -> None:
    rows = [price("acme/a", pricing_type="fixed", price=amount) for amount in (0.77, 0.01)]
    marked = price("acme/a-[Deprecated]", pricing_type="fixed", price=0.001)
    found = read_list({"pricing": [marked, *rows]})
    assert found.prices["acme/a"] == {"unit": "call", "fixed": 0.77}
    why = "it is listed twice; this entry is not used"
    assert found.flaws == [f"acme/a: {why}", f"acme/a-[Deprecated]: {why}"]


@pytest.mark.parametrize("version", ["9999-99-99", "2999-01-01", "public-2026-13-01"])
def test_a_day_that_has_not_been_is_no_date(version: str) -> None:
    found = read_list({"version": version, "models": [node("acme/a")]})
    assert found.date == ""
    assert "not a past date" in found.flaws[0]
