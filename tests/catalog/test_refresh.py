"""A user's own, newer models: taken from a public list, preferred from then on, and given up again."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.catalog import registry
from rh_prefect.catalog.model import decode_model
from rh_prefect.catalog.registry import SLIM_FILE, is_older
from rh_prefect.catalog.user_catalog_merge import Refreshed, changes, reset
from rh_prefect.errors import InputError
from tests.support.processes import warm_process
from tests.support.samples.registry_file import refresh
from tests.support.samples.registry_file import registry as written

TODAY = datetime.now(UTC).date().isoformat()
OWN = json.loads(SLIM_FILE.read_bytes())
SHOW = "from rh_prefect import catalog; m = catalog.get('z-image/turbo'); print(len(catalog.models()), m.price)"
PACKAGES_OWN = f"{len(OWN['models'])} 0.04 CNY per call\n"


def marked(sign: str, done: Refreshed) -> list[str]:
    """Returns the changes with this sign, without it."""
    return [line[2:] for line in done.changes if line.startswith(sign)]


class Mine:
    """A user's own models: a file that is not there yet."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, registry.user_file()

    def take(self, content: object, *, date: str | None = None) -> Refreshed:
        """Refreshes the user's models from a list, or from a text."""
        text = content if isinstance(content, str) else json.dumps(content)
        (self.folder / "list.json").write_text(text, encoding="utf-8")
        return refresh(str(self.folder / "list.json"), date=date)

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        """By endpoint, as the file has them."""
        return {model["endpoint"]: model for model in json.loads(self.file.read_bytes())["models"]}

    def found(self, *names: str) -> list[str]:
        """The endpoints that the names lead to."""
        models = json.loads(self.file.read_bytes())["models"]
        index = registry.index_of(models)
        return [models[index.get(name, index[name.lower()])]["endpoint"] for name in names]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mine:
    monkeypatch.setenv("RH_STATE_DIR", str(tmp_path / "state"))
    assert registry.user_file() == tmp_path / "state" / "models.json"
    return Mine(tmp_path)


def new_process(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return warm_process.run(["-c", code], env={**os.environ, **env})


def own(endpoint: str) -> dict[str, Any]:
    return next(model for model in OWN["models"] if model["endpoint"] == endpoint)


def capabilities(*endpoints: dict[str, Any], version: str = TODAY) -> dict[str, Any]:
    return {"version": version, "total": len(endpoints), "endpoints": list(endpoints)}


def fixed(endpoint: str, price: object, **more: object) -> dict[str, Any]:
    return {"endpoint": endpoint, "pricing_type": "fixed", "unit": "/次", "price": price, **more}


def prices(*rows: dict[str, Any], version: str = f"public-{TODAY}") -> dict[str, Any]:
    return {"version": version, "pricing": list(rows)}


def entry(endpoint: str, *params: dict[str, Any], output: str = "image") -> dict[str, Any]:
    return {"endpoint": endpoint, "name_en": endpoint, "output_type": output, "params": list(params)}


def of_mine(**more: object) -> str:
    """The text of a user's file with one model."""
    facts = {"name": "new", "endpoint": "z-image/new", "output": "image", "family": "z-image", "params": [], **more}
    return json.dumps({"version": "2999-01-01", "source": "x", "models": [facts]})


TURBO = "rhart-image/z-image/turbo"
PROMPT = {"key": "prompt", "type": "STRING", "required": True, "maxLength": 7, "default": "a sample"}


def changed(models: dict[str, Any]) -> None:
    turbo = models["z-image/turbo"]
    turbo["price"]["fixed"] = 0.05
    turbo["params"][0]["max_length"] = 7
    turbo["params"].append({"key": "styleName", "type": "string", "required": False})
    models["z-image/ultra"] = {**turbo, "name": "z-image/ultra", "endpoint": "z/ultra"}
    del models["suno-lyrics"]


def test_the_difference_is_told_and_the_next_process_has_it(mine: Mine) -> None:
    refresh(str(written(mine.folder / "first.json")))
    done = refresh(str(written(mine.folder / "second.json", version=f"{TODAY}+1", change=changed)))
    assert done.changes == [
        "+ z-image/ultra",
        "- suno-lyrics",
        "~ z-image/turbo: ~prompt (max_length), +styleName",
        "$ z-image/turbo: 0.04 CNY per call -> 0.05 CNY per call",
    ]
    assert str(done.changes) == "1 new, 1 gone, 1 changed, 1 with a different price"
    code = (
        "from rh_prefect import models\nfrom rh_prefect.tasks import model_tasks\n"
        "assert models.ZImageUltra(prompt='a', style_name='b').params() == {'prompt': 'a', 'style_name': 'b'}\n"
        "assert model_tasks.z_image_ultra.name == 'z-image/ultra'\n"
        "from rh_prefect import catalog\nassert catalog.get('suno-lyrics').status == 'gone'\n"
    )
    there = new_process(code)
    assert there.returncode == 0, there.stderr
    assert [reset(), reset()] == [True, False]


def test_a_newer_list_changes_what_it_tells_and_keeps_what_it_does_not_know(mine: Mine) -> None:
    veo = "rhart-video-v3.1-fast/image-to-video"
    new = entry("z-image/ultra", PROMPT)
    done = mine.take(capabilities(entry(TURBO, PROMPT), new, entry(veo)))
    now = mine.models
    params, removed = now[TURBO]["params"], now[TURBO]["removed"]
    assert now[TURBO] == own(TURBO) | {"params": params, "removed": removed, "seen": TODAY}
    assert [param["key"] for param in removed] == [param["key"] for param in own(TURBO)["params"][1:]]
    assert now[TURBO]["params"][0] == {**own(TURBO)["params"][0], "max_length": 7}
    assert now["z-image/ultra"]["family"] == "z-image"
    assert {now[e].get("status", "current") for e in (TURBO, veo, "z-image/ultra")} == {"current"}
    assert now["rhart-audio/suno/lyrics"]["status"] == "gone"
    assert now[veo]["params"] == own(veo)["params"]
    assert (done.format, done.date, done.is_addition, done.flaws) == ("capabilities", TODAY, False, ())
    assert not marked("$", done)


def test_structured_parameters_rules_and_notes_are_in_no_list_and_stay(mine: Mine) -> None:
    face, elements = "kling-lip-sync/identify-face", "kling-elements"
    params: list[dict[str, Any]] = [
        {"key": "videoUrl", "type": "VIDEO", "required": False},
        {"key": "videoId", "type": "STRING"},
    ]
    mine.take(capabilities(entry(face, *params), entry(elements, PROMPT)))
    now = mine.models
    assert now[face]["rules"] == own(face)["rules"]
    assert [param.get("note") for param in now[face]["params"]] == [param["note"] for param in own(face)["params"]]
    assert now[face]["params"][0]["accept"] == own(face)["params"][0]["accept"]
    assert "max_size_mb" not in now[face]["params"][0]  # this form tells it, and says that there is no such limit
    assert next(param for param in now[elements]["params"] if param["type"] == "json")["key"] == "tagList"


def test_a_rule_follows_the_spelling_of_its_parameters_and_leaves_out_those_that_are_gone(mine: Mine) -> None:
    face = "kling-lip-sync/identify-face"
    assert own(face)["rules"] == [{"kind": "one", "params": ["videoUrl", "videoId"]}]
    for keys in (["VideoURL", "videoId"], ["videoId"]):
        listed = capabilities(entry(face, *({"key": key, "type": "STRING"} for key in keys)))
        mine.take(listed)
        assert mine.models[face]["rules"] == [{"kind": "one", "params": keys}]


def test_an_older_list_adds_what_is_missing_and_changes_nothing_else(mine: Mine) -> None:
    old = capabilities(entry(TURBO, PROMPT), entry("z-image/antique", PROMPT), version="2020-01-01")
    done = mine.take(old)
    assert done.is_addition
    assert done.changes == ["+ z-image/antique"]
    assert mine.models[TURBO] == own(TURBO)


def test_a_list_without_a_date_only_adds_unless_its_date_is_given(mine: Mine) -> None:
    new = {**entry("z-image/ultra"), "params": [{"fieldKey": "prompt", "type": "STRING"}]}
    listed = [{**new, "endpoint": TURBO}, new]
    undated = mine.take(listed)
    assert (undated.is_addition, undated.changes) == (True, ["+ z-image/ultra"])
    assert len(marked("-", mine.take(listed, date=TODAY))) > 400
    for day in ("soon", "2999-01-01", "20261101"):
        with pytest.raises(InputError, match=f"'{day}' is not a past date"):
            mine.take(listed, date=day)


def test_prices_alone_are_taken_and_a_placeholder_changes_nothing(mine: Mine) -> None:
    wan = "alibaba/wan-2.6/image-to-video"
    rows = [fixed(TURBO, 0.07), fixed("rhart-audio/suno/lyrics", 9999), fixed("acme/none", 1)]
    when = [{"when": {"resolution": "1080P", "duration": "5"}, "price": 9.5}]
    rows.append({"endpoint": wan, "pricing_type": "parameter_based", "unit": "/次", "rules": when})
    done = mine.take(prices(*rows))
    assert marked("$", done) == [
        f"{wan}: 2.25 to 11.25 CNY per call -> 9.50 CNY per call",
        "z-image/turbo: 0.04 CNY per call -> 0.07 CNY per call",
    ]
    assert mine.models[wan]["price"]["rows"] == [["1080p", "5", 9.5]]
    assert mine.models[TURBO]["price_seen"] == TODAY
    assert done.flaws == ("acme/none: the price is ignored, because the catalogue does not have the model",)
    assert marked("-", done) == []


def test_an_older_price_replaces_no_newer_one_and_none_that_a_note_calls_unknown(mine: Mine) -> None:
    assert not marked("$", mine.take(prices(fixed(TURBO, 0.01, updated_at="2020-01-01"))))
    noted = next(model for model in OWN["models"] if "price_note" in model and "price" not in model)
    plain = next(model for model in OWN["models"] if "price_note" not in model and "price" not in model)
    rows = [fixed(one["endpoint"], 0.5) for one in (noted, plain)]
    for version in ("public-2026-04-29", ""):
        mine.take(prices(*rows, version=version))
        assert "price" not in mine.models[noted["endpoint"]]
    assert mine.models[plain["endpoint"]]["price"] == {"unit": "call", "fixed": 0.5}
    mine.take(prices(*rows))
    assert mine.models[noted["endpoint"]]["price"] == {"unit": "call", "fixed": 0.5}


def test_a_list_does_not_say_that_a_model_is_on_cn(mine: Mine) -> None:
    there = own("rhart-image-n-pro/edit")
    assert there["on_cn"] is False
    params = [{"fieldKey": param["key"], "type": "STRING"} for param in there["params"]]
    mine.take([{**entry(there["endpoint"]), "params": params}], date=TODAY)
    assert mine.models[there["endpoint"]]["on_cn"] is False


def test_a_new_model_with_a_taken_name_is_called_by_its_endpoint(mine: Mine) -> None:
    twin = {**entry("z-image/twin"), "name_en": "Z-Image_Turbo"}
    mine.take(capabilities(entry(TURBO), twin))
    assert [mine.models[endpoint]["name"] for endpoint in (TURBO, "z-image/twin")] == ["z-image/turbo", "z-image/twin"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not a list of models"),
        ("[]", "not a list of models"),
        ('{"version": "2026-11-01", "source": "x", "models": []}', "its format is unknown"),
        ('[{"name": "a"}]', "has no usable model"),
        ("", "not a list of models"),
    ],
)
def test_a_file_that_cannot_be_used_leaves_all_as_it_was(mine: Mine, content: str, reason: str) -> None:
    refresh(str(written(mine.folder / "first.json", change=changed)))
    before = mine.file.read_bytes()
    with pytest.raises(InputError, match=reason):
        mine.take(content)
    assert mine.file.read_bytes() == before
    assert [path.name for path in mine.file.parent.iterdir()] == ["models.json"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ('{"version": "2020-01-01", "models": []}', "has newer ones"),
        (of_mine(price={"unit": "call", "fixed": "abc"}), "cannot be read"),
        (
            of_mine(params=[{"key": key, "type": "image"} for key in ("imageUrl", "image_url")]),
            "'image_url' would both be called image_url in Python",
        ),
    ],
)
def test_a_users_file_that_cannot_be_used_is_left_aside_with_a_warning(mine: Mine, content: str, said: str) -> None:
    mine.file.parent.mkdir()
    mine.file.write_text(content)
    done = new_process(SHOW)
    assert done.stdout == PACKAGES_OWN
    assert said in done.stderr
    assert "models refresh" in done.stderr


@pytest.mark.parametrize("content", ["{", json.dumps({**OWN, "version": "2020-01-01"})])
def test_a_users_file_that_is_left_aside_is_replaced_by_the_next_refresh(mine: Mine, content: str) -> None:
    """The warning advises this command; it wrote no file if the list had nothing new, and the warning came again."""
    mine.file.parent.mkdir()
    mine.file.write_text(content)
    mine.take({"version": OWN["version"], "models": OWN["models"]})
    told: list[str] = []
    assert registry.in_use(told.append)["models"] == OWN["models"]
    assert told == []


def test_a_package_with_new_models_adds_them_to_a_users_later_file(mine: Mine) -> None:
    mine.file.parent.mkdir()
    older = [model for model in OWN["models"] if model["endpoint"] != TURBO]
    mine.file.write_text(json.dumps({**OWN, "version": "2999-01-01", "models": older}))
    used = registry.in_use(pytest.fail)
    assert (used["version"], used["models"]) == ("2999-01-01", OWN["models"])


@pytest.mark.parametrize(
    "change",
    [
        {"provenance": "third-party"},
        {"price": {"unit": "call", "fixed": 9999}},
        {"price": {"unit": "call", "fixed": 0}},
        {"price": {"unit": "call"}},
        {"price": {"unit": "call", "by": ["size"], "rows": [["1k", 9999], ["2k", 1]]}},
    ],
)
def test_a_users_file_of_an_earlier_version_is_still_read(mine: Mine, change: dict[str, Any]) -> None:
    """Without it, the user's models are unknown, and renamed parameters make other requests, which pay again."""
    models = [model | change if model["endpoint"] == TURBO else model for model in OWN["models"]]
    mine.file.parent.mkdir()
    mine.file.write_text(json.dumps({**OWN, "version": "2999-01-01", "models": models}))
    expected = {key: fact for key, fact in own(TURBO).items() if key not in change}
    used = registry.in_use(pytest.fail)
    assert used["version"] == "2999-01-01"
    assert [decode_model(one) for one in used["models"] if one["endpoint"] == TURBO] == [decode_model(expected)]
    assert [line for line in changes(used, OWN) if line[0] != "$"] == []


def test_a_data_file_of_an_earlier_version_is_a_list_too(mine: Mine) -> None:
    facts = {"name": "new", "endpoint": "z-image/new", "output": "image", "family": "z-image", "params": []}
    done = mine.take({"version": TODAY, "source": "x", "models": [{**facts, "provenance": "third-party"}]})
    assert (done.flaws, marked("+", done)) == ((), ["new"])
    assert decode_model(mine.models["z-image/new"]) == decode_model(facts)


@pytest.mark.parametrize(
    ("one", "other", "older"),
    [
        ("2026-04-29", "2026-04-29+1", True),
        ("2026-04-29+9", "2026-04-29+10", True),
        ("2026-04-29+1", "2026-04-29+1", False),
        ("2026-05-01", "2026-04-29+1", False),
        ("mine", "2026-04-29+1", False),
    ],
)
def test_versions_are_compared_where_they_can_be(one: str, other: str, older: bool) -> None:
    assert is_older(one, other) is older


@pytest.mark.usefixtures("mine")
def test_the_packages_own_data_file_is_a_list_too() -> None:
    """As for a worker on another machine, which is given this user's file."""
    done = refresh(str(SLIM_FILE))
    assert (done.format, done.flaws) == ("catalogue", ())
    assert str(done.changes) == "0 new, 0 gone, 0 changed, 0 with a different price"


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        ({"aliases": [1, None]}, "should be a valid string"),
        ({"groups": [5]}, "should be a valid string"),
        ({"family": 5}, "should be a valid string"),
        ({"output": "smell"}, "output: Input should be 'image'"),
        ({"endpoint": "../etc"}, "has no valid endpoint"),
        ({"price": {"unit": "call", "currency": "CNY", "fixed": "abc"}}, "cannot be read"),
        ({"price": {"unit": "call", "fixed": 1e-9}}, "a price is missing, below 0.0001, or 9999 or more"),
        ({"price": {"unit": "call"}}, "a price is missing"),
        ({"price": {"unit": "call", "by": ["size"], "rows": [["1k", 9999], ["2k", 1]]}}, "or 9999 or more"),
        ({"params": [{"key": "a", "type": "enum", "required": False}]}, "no options"),
        ({"params": [{"key": "a", "type": "int", "required": False, "min": 5, "max": 1}]}, "greater than its maximum"),
        ({"params": [{"key": "a", "type": "string", "required": False, "max_length": -1}]}, "a limit allows no value"),
        ({"params": [{"key": "a", "type": "int", "required": False}] * 2}, "both be called a in Python"),
    ],
)
def test_an_entry_that_would_break_later_is_refused_now(mine: Mine, change: dict[str, Any], flaw: str) -> None:
    facts = {"name": "new", "endpoint": "z-image/new", "output": "image", "family": "z-image", "params": []}
    good = {**facts, "name": "good", "endpoint": "z-image/good"}
    content = {"version": TODAY, "source": "x", "models": [{**facts, **change}, good]}
    done = mine.take(content)
    assert marked("+", done) == ["good"]
    assert [flaw in told for told in done.flaws] == [True]


def test_a_name_does_not_hide_another_models_endpoint(mine: Mine) -> None:
    odd = {**entry("acme/q", PROMPT), "name_en": TURBO}
    done = mine.take(capabilities(odd, entry("Acme/Q", PROMPT), entry(TURBO, PROMPT)))
    assert mine.found(TURBO, "acme/q", "Acme/Q") == [TURBO, "acme/q", "acme/q"]
    assert [flaw.partition(":")[0] for flaw in done.flaws] == ["Acme/Q"]


def test_no_entry_moves_a_name_of_a_known_model(mine: Mine) -> None:
    """The same call would be another request, and paid for again."""
    names = ["kling-v2.6-pro-image-to-video", "KlingV26ProImageToVideo", "kling_v2_6_pro_image_to_video"]
    names += ["rhart-video-s/text-to-video-pro-deprecated", "z-image/turbo"]
    before = ["kling-v2.6-pro/image-to-video"] * 3 + ["rhart-video-s/text-to-video-pro", TURBO]
    odd = [entry(name, PROMPT) for name in (names[0], names[1], names[3])]
    moved = {**entry("z-image/moved", PROMPT), "name_en": "z-image/turbo"}
    done = mine.take(capabilities(entry("z-image/new", PROMPT), moved, *odd))
    assert ["has this name already and keeps it" in flaw for flaw in done.flaws] == [True, True]
    assert marked("+", done) == ["z-image/moved", "z-image/new"]
    assert mine.found(*names) == before
    listed = {"name": "z-image/turbo", "endpoint": "z-image/moved-2", "output": "image", "family": "f", "params": []}
    renamed = {**listed, "name": "mine", "endpoint": TURBO}
    mine.take({"version": TODAY, "source": "x", "models": [renamed, listed]})
    assert mine.found(*names) == before


def test_an_older_spelling_of_an_endpoint_is_no_new_model(mine: Mine) -> None:
    old = {**entry("rhart-video-s/text-to-video-pro-deprecated", PROMPT), "name_en": "old"}
    assert marked("+", mine.take(capabilities(old))) == []
    done = mine.take(prices(fixed(old["endpoint"], 7.5)))
    assert [prices.endswith("7.50 CNY per call") for prices in marked("$", done)] == [True]


def test_a_note_beside_a_price_stays(mine: Mine) -> None:
    noted = next(model for model in OWN["models"] if "price_note" in model and "fixed" in model.get("price", {}))
    mine.take(prices(fixed(noted["endpoint"], 77, unit="/秒", updated_at=TODAY)))
    assert mine.models[noted["endpoint"]]["price_note"] == noted["price_note"]


@pytest.mark.parametrize(
    "change",
    [
        {"name_en": "a\x1b[2Jb"},
        {"name_en": "a\u202eb"},
        {"params": [{"key": "size", "type": "LIST", "options": ["a\x07"]}]},
    ],
)
def test_a_text_that_a_terminal_would_execute_is_refused(mine: Mine, change: dict[str, Any]) -> None:
    bad = {**entry("z-image/bad", PROMPT), **change}
    done = mine.take(capabilities(bad, entry("z-image/good", PROMPT)))
    assert marked("+", done) == ["z-image/good"]
    assert ["contains the control character" in flaw for flaw in done.flaws] == [True]


def test_no_message_of_a_refresh_holds_a_control_character(mine: Mine) -> None:
    entries = [
        {"endpoint": "a\x1b[2J"},
        {**entry("z-image/a"), "output_type": "\x1b[2J"},
        entry("z-image/b", {"key": "\x1b[2J", "type": "\x1b[2J"}, {"key": "size", "type": "INT", "default": "\x1b[2J"}),
    ]
    done = mine.take(capabilities(*entries))
    assert len(done.flaws) >= 4
    assert "\x1b" not in "".join([*done.flaws, *done.changes])


@pytest.mark.parametrize("amount", [1e-300, 0.00001, -1, 10_000, "free", True, None, 1e300])
def test_an_amount_that_cannot_be_a_price_is_refused_with_a_reason(mine: Mine, amount: Any) -> None:
    wan = "alibaba/wan-2.6/image-to-video"
    when = [
        {"when": {"resolution": "1080p", "duration": one}, "price": price} for one, price in (("5", 1), ("10", amount))
    ]
    rules = {"endpoint": wan, "pricing_type": "parameter_based", "unit": "/次", "rules": when}
    done = mine.take(prices(fixed(TURBO, amount), rules))
    assert not marked("$", done)
    assert ["is not a possible amount" in flaw for flaw in done.flaws] == [True, True]


def test_a_call_of_the_api_does_not_become_a_model(mine: Mine) -> None:
    calls = ("query", "run/workflow/1", "task/openapi/create", "media/upload/binary", "Query")
    facts = [{**own(TURBO), "endpoint": endpoint, "name": f"odd {endpoint}"} for endpoint in calls]
    for content in (
        capabilities(*(entry(endpoint, PROMPT) for endpoint in calls), entry(TURBO, PROMPT)),
        {"version": TODAY, "source": "x", "models": [*facts, own(TURBO)]},
    ):
        done = mine.take(content)
        assert marked("+", done) == []
        assert ["is a RunningHub API call" in flaw for flaw in done.flaws] == [True] * len(calls)
