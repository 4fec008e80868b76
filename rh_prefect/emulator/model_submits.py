"""Handles submissions: checks and prices requests to models, and creates and charges tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Final

from rh_prefect.catalog.model import Model
from rh_prefect.emulator import task_formats
from rh_prefect.emulator.accounts import Charge
from rh_prefect.emulator.endpoint import Call
from rh_prefect.emulator.faults import Fault
from rh_prefect.emulator.inputs import Inputs, gather, sha256_of
from rh_prefect.emulator.model_checks import sent_params, violations
from rh_prefect.emulator.models_and_prices import price_of
from rh_prefect.emulator.recorder import Submission
from rh_prefect.emulator.request_texts import texts, words
from rh_prefect.emulator.responses import Refused
from rh_prefect.emulator.tasks import Failure, OutputSpec, Status, Task, TaskSpec

if TYPE_CHECKING:
    from rh_prefect.emulator.state import State


def accept(call: Call, spec: TaskSpec, *, failure: Failure | None = None, may_wait: bool = False) -> Task:
    """Creates, charges and records a task, and starts the rendering of its results."""
    state = call.state
    scripted = _scripted(call, is_graph=spec.graph is not None)
    with state.lock:
        task = state.tasks.accept(spec, failure=scripted or failure, may_wait=may_wait)
        task.done_at_submit = has(call.fault, "at-once")
        state.recorder.add_submission(replace(_entry(call, task_id=task.id, charge=spec.charge), inputs=spec.inputs))
    if spec.webhook:
        state.webhooks.watch(task)
    state.render_queue.begin(task)
    return task


async def first_status(call: Call, task: Task) -> Status:
    """Returns the status for the response to the submit."""
    if task.done_at_submit:
        await call.state.render_queue.settle(task)
        return call.state.tasks.status(task)
    return "RUNNING" if call.state.clock.mode == "instant" and not task.is_waiting else "QUEUED"


def tips(call: Call, otherwise: str = "") -> str:
    """Returns the `promptTips` of the response: a fault's, or else the result of validation, by default no error."""
    broken = call.fault if has(call.fault, "node-errors") else None
    return task_formats.prompt_tips(broken) if broken or not otherwise else otherwise


def has(fault: Fault | None, kind: str) -> bool:
    """Returns whether a fault is of a kind."""
    return fault is not None and fault.kind == kind


def record_refusal(call: Call, code: str) -> None:
    """Records a refused submit."""
    call.state.recorder.add_submission(_entry(call, code=code))


def _scripted(call: Call, *, is_graph: bool) -> Failure | None:
    fault = call.fault
    if fault is None or fault.kind not in ("fail", "node-errors"):
        return None
    return (task_formats.run_failure if is_graph else task_formats.model_failure)(call.state.assumptions, fault)


def _entry(call: Call, *, task_id: str = "", charge: Charge | None = None, code: str = "") -> Submission:
    paid = charge or Charge()
    now = call.state.clock.now()
    return Submission(
        0, task_id, call.endpoint, plain(call.body), call.key.name, bool(task_id), paid.wallet, now, code, paid.coins
    )


def plain(body: Mapping[str, object]) -> dict[str, object]:
    """Removes the key from a v1 body."""
    return {name: value for name, value in body.items() if name != "apiKey"}


@dataclass(frozen=True)
class ModelSubmit:
    """A submission to a model: the request, and the values that the emulator computes from it."""

    call: Call
    model: Model

    @cached_property
    def payload(self) -> dict[str, object]:
        """The parameters of the model that the request contains."""
        return sent_params(self.model, self.call.body)

    @cached_property
    def webhook(self) -> str:
        """The webhook URL; empty if the request has none."""
        return webhook_of(self.call.body, code="1007")

    @cached_property
    def inputs(self) -> Inputs:
        """The input files."""
        return gather(self.call.state, self.call.key, self.model, self.payload)

    @cached_property
    def price(self) -> Decimal | None:
        """The cost of the task, if it is known."""
        listed = price_of(self.model, self.payload, seconds=self.inputs.seconds)
        per_second, seconds = self._preview_per_second, self.call.body.get("duration")
        if listed is not None or per_second is None or isinstance(seconds, bool):
            return listed
        return per_second * Decimal(str(seconds)) if isinstance(seconds, int | float) else None

    @property
    def _preview_per_second(self) -> Decimal | None:
        rates = self.call.state.assumptions.preview_per_second
        return next((rate for pattern, rate in rates.items() if fnmatchcase(self.model.endpoint, pattern)), None)

    def quote(self) -> Decimal:
        """Returns the amount of a price preview, which is not always the cost; raises `Refused` without a price."""
        known = self.call.state.assumptions
        unpriced = known.preview_unpriced
        if unpriced is not None and self._is_one_of(known.preview_lacking):
            raise Refused(*unpriced)
        if (per_second := self._preview_per_second) is not None:
            return per_second
        if self._is_one_of(known.preview_zero):
            return Decimal(0)
        if self.price is None and unpriced is not None:
            raise Refused(*unpriced)
        return known.unpriced if self.price is None else self.price

    def _is_one_of(self, patterns: Iterable[str]) -> bool:
        return any(fnmatchcase(self.model.endpoint, pattern) for pattern in patterns)

    def spec(self) -> TaskSpec:
        """Returns the task to create."""
        queued, seconds = self.call.state.durations(self.model, self.payload)
        output = OutputSpec(self.model, self.payload, self.inputs.files)
        received = {name: tuple(map(sha256_of, paths)) for name, paths in self.inputs.files.items()}
        charge = Charge(third_party=self.call.state.assumptions.unpriced if self.price is None else self.price)
        return TaskSpec(
            self.call.key,
            self.call.endpoint,
            self.payload,
            (output,),
            charge,
            seconds,
            queued,
            self.webhook,
            inputs=received,
        )


def check_submit(call: Call) -> ModelSubmit:
    """Checks a request in the order of `Assumptions.model_checks`; blocks, so call it from a thread.

    Raises `Refused` if the service would refuse the request.
    """
    known = call.state.assumptions
    if call.endpoint in known.withdrawn:
        raise Refused("1000")
    model = call.state.models.find(call.endpoint)
    if model is None:
        raise Refused("1001")
    submit = ModelSubmit(call, model)
    for check in known.model_checks:
        _CHECKS[check](submit)
    return submit


def webhook_of(body: Mapping[str, object], *, code: str) -> str:
    """Returns a request's `webhookUrl`; an empty string if the request has none.

    Args:
        body: The request.
        code: The code of a refusal.

    Raises:
        Refused: The URL is not an http or https URL.
    """
    url = body.get("webhookUrl") or ""
    if url and not (isinstance(url, str) and url.startswith(("http://", "https://"))):
        raise Refused(code, "webhookUrl must be an http or https address")
    return str(url)


def _check_tier(submit: ModelSubmit) -> None:
    known, endpoint = submit.call.state.assumptions, submit.model.endpoint
    if submit.call.key.tier not in known.model_tiers:
        raise Refused("1014")
    if any(fnmatchcase(endpoint, pattern) for pattern in known.not_offered):
        raise Refused("40310")


def _check_webhook(submit: ModelSubmit) -> None:
    _ = submit.webhook  # reading it checks it


def _check_params(submit: ModelSubmit) -> None:
    found = violations(submit.call.state.assumptions, submit.model, submit.call.body)
    if found:
        raise Refused("1007", "; ".join(found))


def _check_content(submit: ModelSubmit) -> None:
    content_failure(submit.call.state, submit.payload)


def content_failure(state: State, payload: Mapping[str, object]) -> Failure | None:
    """Returns the failure that the task of a request will have because of a moderated word, if there is one.

    Raises:
        Refused: The request contains a moderated word, and the content check is part of the submit.
    """
    said = "\n".join(words(payload)).lower()
    if not any(word.lower() in said for word in state.moderated):
        return None
    if state.assumptions.moderated_at_submit is not None:
        raise Refused(*state.assumptions.moderated_at_submit)
    return Failure(*state.assumptions.moderated)


def _check_people(submit: ModelSubmit) -> None:
    """Refuses real people in files that are not assets, unless the model's `realPersonMode` is on."""
    model, payload, families = submit.model, submit.payload, submit.call.state.assumptions.real_people_families
    if not submit.call.state.options.real_people or not any(name in model.endpoint for name in families):
        return
    mode = next((param for param in model.params if param.key == "realPersonMode"), None)
    if mode is not None and payload.get(mode.key, mode.default) is True:
        return
    links = [link for param in model.media_params for link in texts(payload.get(param.key))]
    if any(not link.startswith("asset://") for link in links):
        raise Refused("1505")


def _check_files(submit: ModelSubmit) -> None:
    _ = submit.inputs  # finding them checks them


def _check_gate(submit: ModelSubmit) -> None:
    key = submit.call.key
    key.account.check(Charge(), tier=key.tier, assumptions=submit.call.state.assumptions)


_CHECKS: Final[dict[str, Callable[[ModelSubmit], None]]] = {
    "tier": _check_tier,
    "webhook": _check_webhook,
    "params": _check_params,
    "content": _check_content,
    "people": _check_people,
    "files": _check_files,
    "gate": _check_gate,
}
