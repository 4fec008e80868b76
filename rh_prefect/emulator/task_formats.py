"""Formats tasks for responses: the v2 task object for submissions and queries, and the v1 formats."""

from __future__ import annotations

import json
from decimal import Decimal

from rh_prefect.emulator.assumptions import Assumptions
from rh_prefect.emulator.faults import Fault
from rh_prefect.emulator.responses import message_of
from rh_prefect.emulator.tasks import Failure, Output, Status, Task


def word_of(assumptions: Assumptions, status: Status) -> str:
    """Returns v2's word for a status."""
    return assumptions.cancelled_status if status == "CANCELLED" else status


def v1_word_of(assumptions: Assumptions, status: Status) -> str:
    """Returns v1's word for a status."""
    return assumptions.v1_cancelled_status if status == "CANCELLED" else status


def submitted(assumptions: Assumptions, task: Task, status: Status, *, tips: str) -> dict[str, object]:
    """Returns a task for the response to its submit."""
    return {
        "taskId": task.id,
        "status": word_of(assumptions, status),
        **_error(assumptions, task, status),
        "results": _results(assumptions, task) if status == "SUCCESS" else None,
        "clientId": task.client_id,
        "promptTips": tips,
    }


def queried(assumptions: Assumptions, task: Task, status: Status) -> dict[str, object]:
    """Returns a task for the response to a query."""
    usage, word = usage_of(assumptions, task), word_of(assumptions, status)
    return {
        "taskId": task.id,
        "status": word,
        **_error(assumptions, task, status),
        "results": _results(assumptions, task) if status == "SUCCESS" else None,
        "clientId": "",
        "promptTips": "",
        "failedReason": dict(task.failure.reason) if task.failure and status == "FAILED" else {},
        "usage": None if _is_moderated(assumptions, task, status) else usage,
        "parentTaskId": None,
        # The inner id is a number on the wire, too large for a double.
        "taskUsageList": [{"taskId": int(task.id), "parentTaskId": None, "taskStatus": word, "usage": usage}],
    }


def _is_moderated(assumptions: Assumptions, task: Task, status: Status) -> bool:
    """Returns whether the content check has failed a model's task; recorded answers about such tasks have no usage."""
    failure = task.failure if status == "FAILED" and task.spec.graph is None else None
    return failure is not None and failure.code == assumptions.moderated[0]


def _error(assumptions: Assumptions, task: Task, status: Status) -> dict[str, object]:
    failure = task.failure if status == "FAILED" else None
    message = message_of(assumptions, failure.code, failure.words) if failure else ""
    return {"errorCode": failure.code if failure else "", "errorMessage": message}


def prompt_tips(broken: Fault | None = None) -> str:
    """Returns ComfyUI's validation result, as a JSON string."""
    tips: dict[str, object] = {"result": True, "error": None, "outputs_to_execute": ["1"], "node_errors": {}}
    if broken is not None:
        words = broken.message or "Value not in list"
        error = {"type": "value_not_in_list", "message": words, "details": "", "extra_info": {}}
        node = {"errors": [error], "dependent_outputs": ["1"], "class_type": broken.node}
        tips |= {"result": False, "error": error, "node_errors": {"3": node}}
    return json.dumps(tips)


def model_failure(assumptions: Assumptions, fault: Fault) -> Failure:
    """Returns the scripted failure of a standard model, which names no node."""
    return Failure(fault.code or assumptions.failed_model, fault.message)


def run_failure(assumptions: Assumptions, fault: Fault) -> Failure:
    """Returns the scripted failure of a graph, with ComfyUI's report of the failing node."""
    code, words = assumptions.failed_run
    message = fault.message or message_of(assumptions, "1015")
    reason = node_failure("3", fault.node, message, exception=fault.exception)
    return Failure(fault.code, fault.message, reason) if fault.code else Failure(code, words, reason)


def node_failure(node_id: str, node: str, message: str, *, exception: str) -> dict[str, object]:
    """Returns ComfyUI's report of a failing node, in which lists and objects are JSON strings."""
    frame = f'  File "/srv/ComfyUI/execution.py", line 10, in execute\n    {node}\n'
    return {
        "current_outputs": "{}",
        "exception_type": exception,
        "node_name": node,
        "current_inputs": "{}",
        "traceback": json.dumps([frame]),
        "node_id": node_id,
        "exception_message": message,
    }


def _results(assumptions: Assumptions, task: Task) -> list[dict[str, object]]:
    return [_result(assumptions, output) for output in task.outputs.result(timeout=0)]


def _result(assumptions: Assumptions, output: Output) -> dict[str, object]:
    kind = output.extension if output.text is None else assumptions.text_output_type
    node = {} if output.node_id is None else {"nodeId": output.node_id}
    return {"url": output.url, **node, "outputType": kind, "text": output.text}


def usage_of(assumptions: Assumptions, task: Task) -> dict[str, object]:
    """Returns the usage of a task, less refunds; empty before the task has ended."""
    cost = task.cost
    ran = task.spec.graph is not None and (cost.wallet or cost.coins or task.ended == "SUCCESS")
    seconds = str(cost.seconds) if ran else assumptions.model_seconds
    return {
        "consumeMoney": _money(cost.money),
        "consumeCoins": str(cost.coins) if cost.coins else None,
        "taskCostTime": seconds,
        "thirdPartyConsumeMoney": _money(cost.third_party),
    }


def _money(amount: Decimal) -> str | None:
    return f"{amount.normalize():f}" if amount else None


def started(
    assumptions: Assumptions, task: Task, status: Status, *, tips: str, progress: str | None
) -> dict[str, object]:
    """Returns a task for the response to a v1 start request; a queued task has no progress URL."""
    return {
        "netWssUrl": progress,
        "taskId": task.id,
        "clientId": task.client_id,
        "taskStatus": v1_word_of(assumptions, status),
        "promptTips": tips,
    }


def v1_outputs(assumptions: Assumptions, task: Task, *, seconds_as_number: bool = False) -> list[dict[str, object]]:
    """Returns the results of a task in the v1 format, each with the cost of the whole task."""
    usage = usage_of(assumptions, task)
    if seconds_as_number:
        usage["taskCostTime"] = int(str(usage["taskCostTime"]))
    return [
        {"fileUrl": output.url, "fileType": output.extension, "nodeId": output.node_id, **usage}
        for output in task.outputs.result(timeout=0)
    ]


def v1_failure(task: Task) -> dict[str, object] | None:
    """Returns the failure of a task in the v1 format; a cancelled task has no reason."""
    return {"failedReason": dict(task.failure.reason)} if task.failure else None
