"""Checks a model's submit as the service does, and prices it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Final

from rh_prefect.catalog.model import Model
from rh_prefect.emulator.answers import Refused
from rh_prefect.emulator.charges import Charge
from rh_prefect.emulator.inputs import Inputs, gather, sha256_of
from rh_prefect.emulator.keys import ApiKey
from rh_prefect.emulator.model_checks import sent_params, violations
from rh_prefect.emulator.pricing import price_of
from rh_prefect.emulator.request_texts import texts, words
from rh_prefect.emulator.tasks import Order, Piece

if TYPE_CHECKING:
    from rh_prefect.emulator.state import State


@dataclass(frozen=True)
class _Submit:
    """A model's request while it is checked."""

    state: State
    key: ApiKey
    model: Model
    body: Mapping[str, object]

    @cached_property
    def payload(self) -> dict[str, object]:
        return sent_params(self.model, self.body)

    @cached_property
    def webhook(self) -> str:
        return webhook_of(self.body, code="1007")

    @cached_property
    def inputs(self) -> Inputs:
        return gather(self.state.sources(self.key), self.model, self.payload)

    def charge(self) -> Charge:
        price = price_of(self.model, self.payload, seconds=self.inputs.seconds)
        return Charge(third_party=self.state.assumptions.unpriced if price is None else price)


def take_order(state: State, key: ApiKey, endpoint: str, body: Mapping[str, object]) -> Order:
    """Checks a request, in the order of `Assumptions.model_checks`, and prices it; call it from a thread.

    Args:
        state: The emulator.
        key: Whose request it is.
        endpoint: What came after `/openapi/v2/`.
        body: The request's JSON object.

    Raises:
        Refused: The service would refuse it.
    """
    model = state.models.find(endpoint)
    if model is None:
        raise Refused("1001")
    submit = _Submit(state, key, model, body)
    for check in state.assumptions.model_checks:
        _CHECKS[check](submit)
    payload, inputs = submit.payload, submit.inputs
    queued, seconds = state.durations(model, payload)
    piece = Piece(model, payload, inputs.files)
    received = {name: tuple(map(sha256_of, paths)) for name, paths in inputs.files.items()}
    charge, webhook = submit.charge(), submit.webhook
    return Order(key, endpoint, payload, (piece,), charge, seconds, queued, webhook, inputs=received)


def webhook_of(body: Mapping[str, object], *, code: str) -> str:
    """Reads a request's `webhookUrl`; empty where it has none.

    Args:
        body: The request.
        code: What a bad one is refused with.

    Raises:
        Refused: It is not a web address.
    """
    url = body.get("webhookUrl") or ""
    if url and not (isinstance(url, str) and url.startswith(("http://", "https://"))):
        raise Refused(code, "webhookUrl must be an http or https address")
    return str(url)


def _check_tier(submit: _Submit) -> None:
    known, endpoint = submit.state.assumptions, submit.model.endpoint
    if submit.key.tier not in known.model_tiers:
        raise Refused("1014")
    if any(fnmatchcase(endpoint, pattern) for pattern in known.not_offered):
        raise Refused("40310")


def _check_webhook(submit: _Submit) -> None:
    _ = submit.webhook  # reading it checks it


def _check_params(submit: _Submit) -> None:
    found = violations(submit.state.assumptions, submit.model, submit.body)
    if found:
        raise Refused("1007", "; ".join(found))


def _check_content(submit: _Submit) -> None:
    check_content(submit.state, submit.payload)


def check_content(state: State, payload: Mapping[str, object]) -> None:
    """Looks for words that the content check does not let pass.

    Raises:
        Refused: There is one.
    """
    said = "\n".join(words(payload)).lower()
    if any(word.lower() in said for word in state.moderated):
        raise Refused(*state.assumptions.moderated)


def _check_people(submit: _Submit) -> None:
    """Refuses files of a model that knows real people, unless they are assets or its own mode is on."""
    model, payload, families = submit.model, submit.payload, submit.state.assumptions.real_people_families
    if not submit.state.switches.real_people or not any(name in model.endpoint for name in families):
        return
    mode = next((param for param in model.params if param.key == "realPersonMode"), None)
    if mode is not None and payload.get(mode.key, mode.default) is True:
        return
    links = [link for param in model.media_params for link in texts(payload.get(param.key))]
    if any(not link.startswith("asset://") for link in links):
        raise Refused("1505")


def _check_files(submit: _Submit) -> None:
    _ = submit.inputs  # finding them checks them


def _check_gate(submit: _Submit) -> None:
    key = submit.key
    key.account.check(Charge(), tier=key.tier, assumptions=submit.state.assumptions)


_CHECKS: Final[dict[str, Callable[[_Submit], None]]] = {
    "tier": _check_tier,
    "webhook": _check_webhook,
    "params": _check_params,
    "content": _check_content,
    "people": _check_people,
    "files": _check_files,
    "gate": _check_gate,
}
