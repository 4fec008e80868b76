"""The moment at which a submit becomes a paid task, whatever it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rh_prefect.emulator import views
from rh_prefect.emulator.charges import Charge
from rh_prefect.emulator.faults import Fault
from rh_prefect.emulator.recorder import Submission
from rh_prefect.emulator.serving import Call
from rh_prefect.emulator.tasks import Breakdown, Order, Status, Task


def accept(call: Call, order: Order, *, breakdown: Breakdown | None = None, may_wait: bool = False) -> Task:
    """Takes a task on, books it, charges for it, and starts to make what it asks for.

    Args:
        call: The submit; the fault of it may let the task fail, or be done at once.
        order: What it asks for.
        breakdown: Why the task will fail all the same.
        may_wait: Whether it waits where the key has as many tasks as it may.

    Raises:
        Refused: The account cannot pay, or the key has as many tasks as it may.
    """
    state, repeated = call.state, _repeated(call)
    if repeated is not None:
        return repeated
    scripted = _scripted(call, is_graph=order.graph is not None)
    with state.lock:
        task = state.tasks.accept(order, breakdown=scripted or breakdown, may_wait=may_wait)
        state.tasks.remember(task, _repeat_name(call))
        task.hurried = has(call.fault, "at-once")
        state.books.submitted(replace(_entry(call, task_id=task.id, charge=order.charge), inputs=order.inputs))
    if order.webhook:
        state.webhooks.watch(task)
    state.workshop.begin(task)
    return task


def _repeat_name(call: Call) -> str:
    field = call.state.assumptions.idempotency_field
    return str(call.body.get(field) or "") if field else ""


def _repeated(call: Call) -> Task | None:
    """Finds the task of an earlier submit with the same name, where submits have names."""
    name = _repeat_name(call)
    return call.state.tasks.remembered(call.key, name) if name else None


async def first_status(call: Call, task: Task) -> Status:
    """Tells the status that the answer to the submit names."""
    if task.hurried:
        await call.state.workshop.settle(task)
        return call.state.tasks.status(task)
    return "RUNNING" if call.state.clock.mode == "instant" and not task.is_waiting else "QUEUED"


def tips(call: Call, otherwise: str = "") -> str:
    """Writes the `promptTips` of the answer.

    Args:
        call: The submit; the fault of it may name broken nodes.
        otherwise: What validation said; default that all is well.
    """
    broken = call.fault if has(call.fault, "node-errors") else None
    return views.prompt_tips(broken) if broken or not otherwise else otherwise


def has(fault: Fault | None, kind: str) -> bool:
    """Tells whether a fault is of a kind."""
    return fault is not None and fault.kind == kind


def book_refusal(call: Call, code: str) -> None:
    """Writes a refused submit down; one that is refused after acceptance is in the books already."""
    accepted = call.fault is not None and call.fault.kind == "code" and not call.fault.is_early
    if not accepted:
        call.state.books.submitted(_entry(call, code=code))


def _scripted(call: Call, *, is_graph: bool) -> Breakdown | None:
    fault = call.fault
    if fault is None or fault.kind not in ("fail", "node-errors"):
        return None
    return (views.run_breakdown if is_graph else views.model_breakdown)(call.state.assumptions, fault)


def _entry(call: Call, *, task_id: str = "", charge: Charge | None = None, code: str = "") -> Submission:
    paid = charge or Charge()
    now = call.state.clock.now()
    return Submission(
        0, task_id, call.endpoint, plain(call.body), call.key.name, bool(task_id), paid.wallet, now, code, paid.coins
    )


def plain(body: Mapping[str, object]) -> dict[str, object]:
    """Takes the key out of a v1 body."""
    return {name: value for name, value in body.items() if name != "apiKey"}
