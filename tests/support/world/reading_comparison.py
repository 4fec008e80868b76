"""Requests to a model on which the client's checks and the emulator's are compared.

Both read the same data, each with its own code. A request is compared as the client sends it: where the client repairs
what the caller gave (a single value for a list, a filled-in default), the repaired request goes to the wire; where it
refuses, what the caller gave goes there as it is.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from rh_prefect import catalog
from rh_prefect.catalog import Model, Param
from rh_prefect.emulator import Emulator
from rh_prefect.errors import InputError, MediaError
from rh_prefect.media.probe import Facts, probe
from tests.support.samples import media as samples
from tests.support.servers.caller import Caller

Payload = dict[str, object]
Links = Mapping[str, str]
"""A link for each kind of media."""

NOWHERE: Links = {kind: f"https://files.example/{kind}" for kind in ("image", "video", "audio")}


@dataclass(frozen=True)
class ClientReading:
    accepts: bool
    sent: Payload  # what goes to the wire: what it sends, or else what it was given

    def price(self, model: Model, *, seconds: float | None) -> Decimal | None:
        price = catalog.estimate(model, self.sent, seconds=seconds)
        return None if price is None else price.amount


def client_reading(model: Model, given: Payload) -> ClientReading:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", catalog.InputWarning)
        try:
            return ClientReading(True, _wire(catalog.read_parameters(model, given).sent))
        except InputError:
            return ClientReading(False, _wire(given))


def _wire(payload: Mapping[str, object]) -> Payload:
    sent: Payload = json.loads(json.dumps(payload))
    return sent


def requests(model: Model, links: Links = NOWHERE) -> Iterator[Payload]:
    """Lists the least request, a full one, and requests that differ from these in one thing each."""
    least = least_request(model, links)
    yield least
    yield full_request(model, links)
    yield {**least, **{param.key: param.wire_default for param in model.params if param.default is not None}}
    for base in (least_request(model, links), full_request(model, links)):
        for param in model.params:
            yield {key: value for key, value in base.items() if key != param.key}
            for value in _values(param, links):
                yield {**base, param.key: value}
        yield from _broken_rules(model, base, links)


def least_request(model: Model, links: Links) -> Payload:
    given = catalog.example(model)
    keys = {param.name: param for param in model.params}
    return {keys[name].key: _with_link(keys[name], value, links) for name, value in given.items()}


def _with_link(param: Param, value: object, links: Links) -> object:
    if not param.is_media:
        return value
    return [links[param.type]] if param.multiple else links[param.type]


def full_request(model: Model, links: Links) -> Payload:
    """A request with every parameter that goes together with those before it."""
    full = least_request(model, links)
    for param in model.params:
        more = {**full, param.key: _usual(param, links)}
        if param.key not in full and client_reading(model, more).accepts:
            full = more
    return full


def _usual(param: Param, links: Links) -> object:
    if param.default is not None:
        return param.wire_default
    one: object = {
        "string": "words",
        "enum": (param.options or ("",))[-1],
        "bool": True,
        "int": int(param.max or param.min or 1),
        "float": float(param.max or param.min or 1),
        "json": [{"a": 1}] if param.shape == "list" else {"a": 1},
    }.get(param.type, links.get(param.type))
    return [one] if param.multiple and param.type != "json" else one


def _values(param: Param, links: Links) -> Iterator[object]:
    """Values of one parameter: of other types, at its limits and beyond them."""
    yield from (None, "", [], {}, 7, 0.5, -1, True, [{}], {"a": 1}, [[]])
    if not param.is_media:  # a text in place of a link is a local file for the client, which it uploads
        yield from ("no such value", "5", ["x"])
    yield _usual(param, links)
    yield from param.options
    yield from ([option] for option in param.options if param.multiple)
    for limit in (param.min, param.max):
        if limit is not None:
            yield from (int(limit), int(limit) - 1, int(limit) + 1, float(limit), limit + 0.25)
    if param.max_length is not None:
        long = "x" * param.max_length
        yield from ([long], [long + "x"]) if param.multiple else (long, long + "x")
    if param.max_items is not None:
        usual = _usual(param, links)
        item = usual[0] if isinstance(usual, list) else usual
        yield from ([item] * param.max_items, [item] * (param.max_items + 1))


def _broken_rules(model: Model, base: Payload, links: Links) -> Iterator[Payload]:
    for rule in model.rules:
        met = {**base, **dict(rule.when)}
        yield met
        yield {key: value for key, value in met.items() if key not in rule.params}
        yield {**met, **{key: _usual(model.param(key), links) for key in (*rule.params, *rule.given)}}
        yield {**base, **{key: _changed(model.param(key), links) for key in rule.params}}
        yield {key: value for key, value in base.items() if key not in (*rule.params, *rule.given)}
        if rule.kind == "most":
            several = {key: [_changed(model.param(key), links)] * rule.limit for key in rule.params}
            yield {**base, **{key: value for key, value in several.items() if model.param(key).multiple}}


def _changed(param: Param, links: Links) -> object:
    """A value that is not the default, where there is one."""
    others = [option for option in param.options if option != param.default]
    if others:
        return others[0]
    if param.type == "bool":
        return param.default is not True
    return links[param.type] if param.is_media else _usual(param, links)


class WireReading:
    """Asks an emulator for the price of requests with files, which makes no task of them."""

    def __init__(self, rh: Emulator, folder: Path) -> None:
        self._caller = Caller(rh)
        paths = (
            samples.png(folder / "a.png"),
            samples.jpg(folder / "a.jpg"),
            samples.webp(folder / "a.webp"),
            samples.gif(folder / "a.gif"),
            samples.mp4(folder / "a.mp4"),
            samples.video(folder / "a.mov", container="mov"),
            samples.video(folder / "a.webm", container="webm"),
            samples.mp3(folder / "a.mp3"),
            samples.wav(folder / "a.wav"),
        )
        self._files: dict[str, Facts] = {self._caller.link(path): probe(path) for path in paths}
        self.links: dict[str, str] = {}
        for link, facts in self._files.items():
            self.links.setdefault(facts.kind, link)

    def disagreements_on_files(self, model: Model, param: Param) -> Iterator[str]:
        """Says of which files the client and the emulator think otherwise."""
        least = least_request(model, self.links)
        for link, facts in self._files.items():
            given = {**least, param.key: [link] if param.multiple else link}
            if not client_reading(model, given).accepts:  # another parameter excludes it
                continue
            answer = self._caller.preview(model.endpoint, client_reading(model, given).sent)
            code, words = answer["errorCode"], answer["errorMessage"]
            if _takes(model, param, facts) != (code == ""):
                yield f"{facts.kind} {facts.extension}: {code} {words}"


def _takes(model: Model, param: Param, facts: Facts) -> bool:
    try:
        catalog.check_file(model, param, extension=facts.extension, size=1000, kind=facts.kind)
    except MediaError:
        return False
    return True
