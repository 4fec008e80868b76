"""What RunningHub has never published, decided here: when the truth is known, one line of this module changes.

Each constant answers one open question about the service. The emulator reads them; nothing else decides.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal

# --- the shape of refusals ---------------------------------------------------------------------------------------

REFUSAL_STATUS: Final = 200
"""HTTP status of every business error, 412 and 401 included. Documented failures all stand under 200."""

REFUSED_TASK: Final[dict[str, object]] = {
    "taskId": "",
    "status": "",
    "errorCode": "",
    "errorMessage": "",
    "results": None,
    "clientId": "",
    "promptTips": "",
}
"""The empty values of a refused v2 submit."""

UNKNOWN_TASK: Final = ("1004", "Task not found or expired")
"""What the v2 query says of a task that it does not know, or that another account paid for."""

UNKNOWN_TASK_STATUS: Final = ""
"""The status that goes with it."""

UPLOAD_KEY_WORDS: Final = "ApiKey verification failed: invalid api key"
"""The upload checks the key itself: a missing and a wrong key both give its own 401 envelope with these words."""

V1_BLANK: Final = "{field} must not be blank"
"""The validator's words for a missing field of a v1 body; measured in part only."""

ACCOUNT_KEY_FIELDS: Final = ("apikey",)
"""How the account endpoint's key field may be spelled. Whether `apiKey` works too is not known: refused."""

MISSING_DEFAULT_IS_REFUSED: Final = True
"""Whether a required parameter with a published default must be sent all the same."""

BAD_FILE: Final = "1013"
"""An input that is no media file, or not of a kind or format that the parameter takes."""

# --- the life of a task -------------------------------------------------------------------------------------------

CANCELLED_STATUS: Final = "CANCEL"
"""What the query says after a cancel. Only official code knows this word."""

CANCEL_UNKNOWN: Final = ("807", "APIKEY_TASK_NOT_FOUND")
"""Cancelling a task that does not exist: the newer of two published answers."""

CANCEL_FINISHED: Final[tuple[str, str] | None] = None
"""Cancelling a task that has ended: None is a success without effect; a code and words would refuse it."""

FAILED_CODE: Final = "1015"
"""The code of a task that failed in the making."""

MODERATED: Final = ("1501", "The content check failed")
"""The content check answers at submit, before anything is charged."""

QUEUE_FULL: Final = ("421", "TASK_QUEUE_MAXED")
"""A v2 submit over the key's concurrency: the v1 number in `errorCode`. Two clients also know 1520."""

COUNTED: Final = ("QUEUED", "RUNNING")
"""The states of a task that take one of the key's slots."""

MODEL_SECONDS: Final = "0"
"""`taskCostTime` of standard models, as seen in published answers."""

DEFAULT_LIMITS: Final[dict[str, int]] = {"FREE": 0, "NORMAL": 1, "SHARED": 50, "EXCLUSIVE": 1}
"""Tasks that a key of each tier may have at once, where the test does not say."""

# --- money ---------------------------------------------------------------------------------------------------------

CURRENCY: Final = "CNY"
"""The wallet's currency; `.ai` may use another."""

UNPRICED: Final = Decimal(1)
"""What a model costs here that has no published price."""

EMPTY_WALLET: Final = ("812", "CORPAPIKEY_INSUFFICIENT_FUNDS")
"""A model submit that the wallet cannot pay. 416 is the other published code with this meaning."""

REFUND_FAILED: Final = True
"""A failed task costs nothing: published answers of failed tasks show no money."""

REFUND_CANCELLED: Final[dict[Literal["QUEUED", "RUNNING"], bool]] = {"QUEUED": True, "RUNNING": False}
"""Whether a cancelled task is paid back, by the state in which the cancel met it."""

# --- files ---------------------------------------------------------------------------------------------------------

LINK_SECONDS: Final = 86_400
"""How long links live, of uploads and of results; measured for uploads only."""

EXPIRED_UPLOAD_STATUS: Final = 403
"""HTTP status of an upload link whose signature has run out."""

EXPIRED_RESULT_STATUS: Final = 404
"""HTTP status of a result after a day; result links carry no signature, so the file itself is gone."""

UPLOAD_MAX_BYTES: Final = 1 << 30
"""The largest upload; no limit is published for the new upload."""

UPLOAD_EXTENSIONS: Final[dict[str, str]] = {
    **dict.fromkeys(("jpg", "jpeg", "png", "webp", "bmp", "gif", "tiff"), "image"),
    **dict.fromkeys(("mp4", "avi", "mov", "mkv", "webm"), "video"),
    **dict.fromkeys(("mp3", "wav", "flac", "m4a"), "audio"),
    "zip": "zip",
}
"""What may be uploaded, and the `type` that the answer names: the published list, and what models say they accept."""

UPLOAD_REFUSED_TYPE: Final = ("1007", "Unsupported file type")
"""An upload of anything else."""

TEXT_OUTPUT_TYPE: Final = "txt"
"""`outputType` of an answer in words."""
