"""The envelopes of RunningHub's answers, and the refusal that a check raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.responses import JSONResponse, Response

from rh_prefect.emulator.assumptions import CURRENCY, REFUSAL_STATUS, REFUSED_TASK

Envelope = Callable[[str, str], Response]
"""Turns a code and its words into one family's form of a refusal."""

WORDS: Final[dict[str, str]] = {
    "301": "PARAMS_INVALID",
    "380": "WORKFLOW_NOT_EXISTS",
    "415": "TASK_INSTANCE_MAXED",
    "416": "TASK_CREATE_FAILED_BY_NOT_ENOUGH_WALLET",
    "421": "TASK_QUEUE_MAXED",
    "423": "TASK_NOT_FOUNED",
    "433": "VALIDATE_PROMPT_FAILED",
    "435": "TASK_USER_EXCLAPI_INSTANCE_NOT_FOUND",
    "436": "TASK_USER_EXCLAPI_REQUIRED",
    "500": "UNKNOWN_ERROR",
    "801": "APIKEY_UNSUPPORTED_FREE_USER",
    "802": "APIKEY_UNAUTHORIZED",
    "803": "APIKEY_INVALID_NODE_INFO",
    "804": "APIKEY_TASK_IS_RUNNING",
    "805": "APIKEY_TASK_STATUS_ERROR",
    "806": "APIKEY_USER_NOT_FOUND",
    "807": "APIKEY_TASK_NOT_FOUND",
    "808": "APIKEY_UPLOAD_FAILED",
    "809": "APIKEY_FILE_SIZE_EXCEEDED",
    "810": "WORKFLOW_NOT_SAVED_OR_NOT_RUNNING",
    "811": "CORPAPIKEY_INVALID",
    "812": "CORPAPIKEY_INSUFFICIENT_FUNDS",
    "813": "APIKEY_TASK_IS_QUEUED",
    "814": "PERSONAL_QUEUE_COUNT_LIMIT",
    "901": "WEBAPP_NOT_EXISTS",
    "1000": "Unknown error",
    "1001": "Invalid URL",
    "1002": "Invalid API key",
    "1003": "Rate limit exceeded",
    "1004": "Task not found or expired",
    "1005": "Internal error",
    "1006": "Task execution timed out",
    "1007": "Invalid parameters",
    "1008": "File too large",
    "1009": "HTTP method not supported",
    "1010": "Service unavailable",
    "1011": "System busy",
    "1012": "Upstream response exception",
    "1013": "File processing failed",
    "1014": "The model API is only for enterprise shared keys",
    "1015": "Generation failed",
    "1101": "Node info error",
    "1501": "The content check failed",
    "1504": "Model timed out",
    "1505": "Photorealistic real people are not allowed",
    "1520": "Concurrency limit reached",
}
"""What goes with a code where the refusing check has nothing more exact to say."""


class Refused(Exception):
    """A check said no.

    Args:
        code: RunningHub's code.
        words: Its message; default the reference's own.
        envelope: The form of the answer, where it is not the route's usual one.
    """

    def __init__(self, code: str, words: str = "", *, envelope: Envelope | None = None) -> None:
        self.code = code
        self.words = words or WORDS.get(code, "error")
        self.envelope = envelope
        super().__init__(f"{code} {self.words}")


def success(data: object = None, *, msg: str = "success") -> Response:
    """Answers in the v1 envelope."""
    return JSONResponse({"code": 0, "msg": msg, "errorMessages": None, "data": data})


def v1(code: str, words: str) -> Response:
    """Refuses in the v1 envelope."""
    return state(code, None, words=words)


def state(code: str, data: object, *, words: str = "") -> Response:
    """Answers in the v1 envelope with a code that stands for a state, and data."""
    body = {"code": int(code), "msg": words or WORDS[code], "errorMessages": None, "data": data}
    return JSONResponse(body, status_code=REFUSAL_STATUS)


def bare(code: str, words: str) -> Response:
    """Refuses as the gateway does: nothing but `code` and `msg`."""
    return JSONResponse({"code": int(code), "msg": words}, status_code=REFUSAL_STATUS)


def v2(code: str, words: str) -> Response:
    """Refuses as a task object with `errorCode` and `errorMessage`."""
    return JSONResponse({**REFUSED_TASK, "errorCode": code, "errorMessage": words}, status_code=REFUSAL_STATUS)


def uploaded(data: object) -> Response:
    """Answers in the new upload's envelope, which says `message` where others say `msg`."""
    return JSONResponse({"code": 0, "message": "success", "data": data})


def upload(code: str, words: str) -> Response:
    """Refuses in the new upload's envelope."""
    return JSONResponse({"code": int(code), "message": words, "data": None}, status_code=REFUSAL_STATUS)


def priced(amount: float | None, *, code: str = "", words: str = "") -> Response:
    """Answers a price preview: a bare object, without any envelope."""
    shown = None if amount is None else f"{amount:g}"
    return JSONResponse(
        {
            "errorCode": code,
            "errorMessage": words,
            "estimatedPrice": amount,
            "currency": None if amount is None else CURRENCY,
            "priceText": None if shown is None else f"¥{shown}/次",
            "priceTextEn": None if shown is None else f"{CURRENCY} {shown} per call",
            "freeLimit": False,
            "freeLimitCount": 0,
            "remainingFreeLimitCount": 0,
            "isFreeThisCall": False,
        }
    )


def price(code: str, words: str) -> Response:
    """Refuses a price preview."""
    return priced(None, code=code, words=words)
