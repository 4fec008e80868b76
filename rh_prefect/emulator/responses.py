"""The envelopes of RunningHub's responses, and the exception that becomes an error response."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final

from starlette.responses import JSONResponse, Response

from rh_prefect.emulator.assumptions import Assumptions

Envelope = Callable[[Assumptions, str, str], Response]
"""Returns a refusal in the format of one family of endpoints."""

WORDS: Final[dict[str, str]] = {
    "301": "PARAMS_INVALID",
    "380": "WORKFLOW_NOT_EXISTS",
    "412": "TOKEN_INVALID",
    "414": "TASK_CREATE_FAILED_BY_NOT_ENOUGH_POWER_VALUE",
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
    "812": "Insufficient corporate funds, please top up | 企业版余额不足，请充值",
    "813": "APIKEY_TASK_IS_QUEUED",
    "814": "PERSONAL_QUEUE_COUNT_LIMIT",
    "901": "WEBAPP_NOT_EXISTS",
    "1000": "Unknown error, please retry or contact support",
    "1001": "Invalid URL, please check your link",
    "1002": "Invalid API Key, please check your credentials",
    "1003": "Rate limit exceeded, please slow down requests",
    "1004": "Task not found, please check the task ID",
    "1005": "Internal server error, please retry later",
    "1006": "Task execution timed out, please retry",
    "1007": "Invalid parameters, please check your input",
    "1008": "File size limit exceeded",
    "1009": "HTTP method not supported, please check documentation",
    "1010": "Service unavailable, please retry later",
    "1011": "System is currently busy, please retry later",
    "1012": "Service response exception, please contact support or retry later",
    "1013": "File processing failed, please check the URL or retry",
    "1014": "Access Denied: Standard Model API is restricted to Enterprise-Shared API Keys only.",
    "1015": "Generation failed, please try again.",
    "1101": "Node info error",
    "1501": "Content verification failed, please modify your prompt or images",
    "1504": "Model timed out, please retry later",
    "1505": "Photorealistic real people are prohibited, please modify your prompt or image",
    "1601": "param apiKey is required",
}
"""The published text for each code; the texts for v2 are from the official English table."""


class Refused(Exception):
    """A request is refused, in the format of `envelope`, by default that of the route."""

    def __init__(self, code: str, words: str = "", *, envelope: Envelope | None = None) -> None:
        self.code = code
        self.words = words
        self.envelope = envelope
        super().__init__(f"{code} {words or WORDS.get(code, '')}")


def message_of(assumptions: Assumptions, code: str, words: str = "") -> str:
    """Returns the message of a refusal: the message of the check, or the text of the code."""
    return words or WORDS.get(code) or assumptions.unpublished_words.get(code) or "error"


def success(data: object = None, *, msg: str = "success") -> Response:
    """Responds in the v1 envelope."""
    return JSONResponse({"code": 0, "msg": msg, "errorMessages": None, "data": data})


def v1(assumptions: Assumptions, code: str, words: str) -> Response:
    """Refuses in the v1 envelope."""
    return state(assumptions, code, None, words=words)


def state(assumptions: Assumptions, code: str, data: object, *, words: str = "") -> Response:
    """Responds in the v1 envelope with the code of a state and with data."""
    msg = message_of(assumptions, code, words)
    return _refusal(assumptions, code, {"code": int(code), "msg": msg, "errorMessages": None, "data": data})


def bare(assumptions: Assumptions, code: str, words: str) -> Response:
    """Refuses as the gateway does, with nothing but `code` and `msg`."""
    return _refusal(assumptions, code, {"code": int(code), "msg": message_of(assumptions, code, words)})


def v2(assumptions: Assumptions, code: str, words: str) -> Response:
    """Refuses as a task object with `errorCode` and `errorMessage`."""
    return task_refusal(assumptions, code, words)


def task_refusal(assumptions: Assumptions, code: str, words: str, **known: object) -> Response:
    """Refuses as a task object in which some fields are known."""
    full_code, full_words = assumptions.queue_full_v2
    own = words or (full_words if code == full_code else "")
    error = {"errorCode": code, "errorMessage": message_of(assumptions, code, own)}
    return _refusal(assumptions, code, {**assumptions.refused_task, **known, **error})


def uploaded(assumptions: Assumptions, data: object) -> Response:
    """Responds in the new upload's envelope, with `message` in place of `msg`."""
    return JSONResponse({"code": assumptions.upload_success_code, "message": "success", "data": data})


def upload(assumptions: Assumptions, code: str, words: str) -> Response:
    """Refuses in the new upload's envelope."""
    message = message_of(assumptions, code, words)
    return _refusal(assumptions, code, {"code": int(code), "message": message, "data": None})


def priced(assumptions: Assumptions, amount: Decimal) -> Response:
    """Responds to a price preview: a bare object without an envelope."""
    shown = {"amount": f"{amount.normalize():f}", "currency": assumptions.currency}
    told = {
        "estimatedPrice": float(amount),
        "currency": assumptions.currency,
        "priceText": assumptions.price_text.format(**shown),
        "priceTextEn": assumptions.price_text_en.format(**shown),
    }
    return JSONResponse(_preview(assumptions, told))


def price(assumptions: Assumptions, code: str, words: str) -> Response:
    """Refuses a price preview."""
    error = {"errorCode": code, "errorMessage": message_of(assumptions, code, words)}
    return _refusal(assumptions, code, _preview(assumptions, error))


def _preview(assumptions: Assumptions, known: Mapping[str, object]) -> dict[str, object]:
    prices = dict.fromkeys(("estimatedPrice", "currency", "priceText", "priceTextEn"))
    none = "0" if assumptions.preview_counts_as_text else 0
    free = {"freeLimit": False, "freeLimitCount": none, "remainingFreeLimitCount": none, "isFreeThisCall": False}
    return {"errorCode": "", "errorMessage": "", **prices, **free, **known}


def _refusal(assumptions: Assumptions, code: str, body: dict[str, object]) -> Response:
    return JSONResponse(body, status_code=assumptions.status_of(code))
