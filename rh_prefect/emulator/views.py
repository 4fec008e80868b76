"""How a task looks on the wire: the v2 task object at submit and in the query."""

from __future__ import annotations

import json
from decimal import Decimal

from rh_prefect.emulator.assumptions import MODEL_SECONDS, TEXT_OUTPUT_TYPE
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
    usage = _usage(task.cost)
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


def breakdown(fault: Fault, *, code: str) -> Breakdown:
    """Makes the failure that a fault scripts, with ComfyUI's account of the failing node."""
    words = fault.message or "Generation failed"
    frame = f'  File "/srv/ComfyUI/execution.py", line 10, in execute\n    {fault.node}\n'
    reason = {
        "current_outputs": "{}",
        "exception_type": fault.exception,
        "node_name": fault.node,
        "current_inputs": "{}",
        "traceback": json.dumps([frame]),
        "node_id": "3",
        "exception_message": words,
    }
    return Breakdown(fault.code or code, words, reason)


def _results(task: Task) -> list[dict[str, object]]:
    return [_result(output) for output in task.outputs.result(timeout=0)]


def _result(output: Output) -> dict[str, object]:
    kind = output.extension or TEXT_OUTPUT_TYPE
    return {"url": output.url, "outputType": kind, "text": output.text}


def _usage(cost: Decimal | None) -> dict[str, object]:
    spent = None if cost is None else f"{cost.normalize():f}"
    return {"consumeMoney": None, "consumeCoins": None, "taskCostTime": MODEL_SECONDS, "thirdPartyConsumeMoney": spent}
