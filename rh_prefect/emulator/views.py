"""How a task looks on the wire: the v2 task object at submit and in the query."""

from __future__ import annotations

import json
from decimal import Decimal

from rh_prefect.emulator.assumptions import MODEL_SECONDS, TEXT_OUTPUT_TYPE, V1_STATUSES
from rh_prefect.emulator.faults import Fault
from rh_prefect.emulator.tasks import Breakdown, Output, Status, Task


def submitted(task: Task, status: Status, *, tips: str) -> dict[str, object]:
    """Shows a task in the answer to its submit."""
    return {
        "taskId": task.id,
        "status": status,
        "errorCode": "",
        "errorMessage": "",
        "results": _results(task) if status == "SUCCESS" else None,
        "clientId": task.client_id,
        "promptTips": tips,
    }


def queried(task: Task, status: Status) -> dict[str, object]:
    """Shows a task in the answer to a query."""
    failure = task.breakdown if status == "FAILED" else None
    usage = usage_of(task)
    return {
        "taskId": task.id,
        "status": status,
        "errorCode": failure.code if failure else "",
        "errorMessage": failure.words if failure else "",
        "results": _results(task) if status == "SUCCESS" else None,
        "clientId": "",
        "promptTips": "",
        "failedReason": dict(failure.reason) if failure else {},
        "usage": usage,
        "parentTaskId": None,
        # The inner id is a number on the wire, too large for a double.
        "taskUsageList": [{"taskId": int(task.id), "parentTaskId": None, "taskStatus": status, "usage": usage}],
    }


def prompt_tips(broken: Fault | None = None) -> str:
    """Writes ComfyUI's validation answer, which travels as a JSON string."""
    tips: dict[str, object] = {"result": True, "error": None, "outputs_to_execute": ["1"], "node_errors": {}}
    if broken is not None:
        words = broken.message or "Value not in list"
        error = {"type": "value_not_in_list", "message": words, "details": "", "extra_info": {}}
        node = {"errors": [error], "dependent_outputs": ["1"], "class_type": broken.node}
        tips |= {"result": False, "error": error, "node_errors": {"3": node}}
    return json.dumps(tips)


def breakdown(fault: Fault, *, code: str, words: str = "") -> Breakdown:
    """Makes the failure that a fault scripts, with ComfyUI's account of the failing node.

    Args:
        fault: What is scripted.
        code: The query's code, where the fault names none.
        words: The query's words, where they do not tell the fault's message.
    """
    message = fault.message or "Generation failed"
    reason = node_failure("3", fault.node, message, exception=fault.exception)
    return Breakdown(fault.code or code, words or message, reason)


def node_failure(node_id: str, node: str, message: str, *, exception: str) -> dict[str, object]:
    """Writes ComfyUI's account of a failing node, in which lists and objects are JSON strings."""
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


def _results(task: Task) -> list[dict[str, object]]:
    return [_result(output) for output in task.outputs.result(timeout=0)]


def _result(output: Output) -> dict[str, object]:
    kind = output.extension or TEXT_OUTPUT_TYPE
    node = {} if output.node_id is None else {"nodeId": output.node_id}
    return {"url": output.url, **node, "outputType": kind, "text": output.text}


def usage_of(task: Task) -> dict[str, object]:
    """Shows what a task used: nothing before its end, and nothing where it was paid back."""
    cost = task.cost
    seconds = str(cost.seconds) if cost.wallet or cost.coins or task.ended == "SUCCESS" else MODEL_SECONDS
    return {
        "consumeMoney": _money(cost.money),
        "consumeCoins": str(cost.coins) if cost.coins else None,
        "taskCostTime": seconds,
        "thirdPartyConsumeMoney": _money(cost.third_party),
    }


def _money(amount: Decimal) -> str | None:
    return f"{amount.normalize():f}" if amount else None


def started(task: Task, status: Status, *, tips: str, progress: str | None) -> dict[str, object]:
    """Shows a task in the answer to a v1 start; there is no progress to watch while it is queued."""
    return {
        "netWssUrl": progress,
        "taskId": task.id,
        "clientId": task.client_id,
        "taskStatus": V1_STATUSES.get(status, status),
        "promptTips": tips,
    }


def v1_outputs(task: Task, *, seconds_as_number: bool = False) -> list[dict[str, object]]:
    """Shows the results of a task as v1 does, each with the cost of the whole task."""
    usage = usage_of(task)
    if seconds_as_number:
        usage["taskCostTime"] = int(str(usage["taskCostTime"]))
    return [
        {"fileUrl": output.url, "fileType": output.extension, "nodeId": output.node_id, **usage}
        for output in task.outputs.result(timeout=0)
    ]


def v1_failure(task: Task) -> dict[str, object] | None:
    """Shows why a task failed as v1 does; a cancelled one gives no reason."""
    return {"failedReason": dict(task.breakdown.reason)} if task.breakdown else None
