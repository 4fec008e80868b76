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

V1_STATUSES: Final[dict[str, str]] = {"CANCEL": "FAILED"}
"""What the v1 status says instead, where it documents no word of its own; `outputs` then gives 805 without a reason."""

V1_UNKNOWN_TASK: Final = ("807", "APIKEY_TASK_NOT_FOUND")
"""A v1 request for a task that does not exist; for the cancel it is the newer of two published answers."""

CANCEL_FINISHED: Final[tuple[str, str] | None] = None
"""Cancelling a task that has ended: None is a success without effect; a code and words would refuse it."""

FAILED_CODE: Final = "1015"
"""The code of a task that failed in the making."""

RUN_FAILED: Final = ("1000", "unknown error")
"""Code and words of the v2 query for a graph that failed in the making; its `failedReason` says why."""

MODERATED: Final = ("1501", "The content check failed")
"""The content check answers at submit, before anything is charged."""

QUEUE_FULL: Final = ("421", "TASK_QUEUE_MAXED")
"""A v2 submit over the key's concurrency: the v1 number in `errorCode`. Two clients also know 1520."""

COUNTED: Final = ("QUEUED", "RUNNING")
"""The states of a task that take one of the key's slots."""

MODEL_SECONDS: Final = "0"
"""`taskCostTime` of standard models, as seen in published answers."""

MACHINES_FULL: Final = ("415", "TASK_INSTANCE_MAXED")
"""A submit with an exclusive key whose machines are all busy, and which does not queue."""

QUEUE_OVERFLOW: Final = ("814", "PERSONAL_QUEUE_COUNT_LIMIT")
"""A submit to a personal queue that is full."""

PERSONAL_QUEUE: Final = 1000
"""How many tasks may wait in a personal queue."""

DEFAULT_LIMITS: Final[dict[str, int]] = {"FREE": 0, "NORMAL": 1, "SHARED": 50, "EXCLUSIVE": 1}
"""Tasks that a key of each tier may have at once, where the test does not say."""

# --- money ---------------------------------------------------------------------------------------------------------

CURRENCY: Final = "CNY"
"""The wallet's currency; `.ai` may use another."""

UNPRICED: Final = Decimal(1)
"""What a model costs here that has no published price."""

EMPTY_WALLET: Final = ("812", "CORPAPIKEY_INSUFFICIENT_FUNDS")
"""A submit that the wallet cannot pay. 416 is the other published code with this meaning."""

EMPTY_COINS: Final = ("416", "TASK_CREATE_FAILED_BY_NOT_ENOUGH_POWER_VALUE")
"""A submit that a consumer's coins cannot pay. The message is known, its number is not."""

COINS_PER_SECOND: Final = Decimal("0.2")
"""What a consumer pays for a second of a 24 GB card, rounded up to whole coins: fits both published answers."""

MONEY_PER_SECOND: Final = Decimal("0.001")
"""What a shared key pays for a second of a 24 GB card; the true rate is not published with the API."""

MONEY_STEP: Final = Decimal("0.001")
"""To what money for run time is rounded up."""

MACHINE_FACTORS: Final[dict[str, int]] = {"default": 1, "plus": 2, "ultra": 4}
"""How much dearer the larger cards are; of `ultra` even the name is unconfirmed."""

RETAIN_SECONDS: Final = range(10, 181)
"""What `retainSeconds` may be, besides 0. It is paid for on shared keys, and without effect on others."""

START_MONEY: Final = 10_000
"""What a new account's wallet holds, where the test does not say."""

START_COINS: Final[dict[str, int]] = {"NORMAL": 10_000}
"""What a new account has in coins, by the tier of its first key, where the test does not say."""

REFUND_FAILED: Final = True
"""A failed task costs nothing: published answers of failed tasks show no money."""

REFUND_CANCELLED: Final[dict[Literal["QUEUED", "RUNNING"], bool]] = {"QUEUED": True, "RUNNING": False}
"""Whether a cancelled model task is paid back, by the state in which the cancel met it."""

CANCEL_STOPS_CHARGING: Final = True
"""Whether a graph that is cancelled while it runs costs only the seconds that it ran, on a clock that tells them."""

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

LEGACY_MAX_BYTES: Final = 30 * 1024 * 1024
"""The largest file of the legacy upload."""

LORA_LINK_SECONDS: Final = 3600
"""How long a LoRA may be sent to its link."""

LORA_FOLDER: Final = "api-lora-cn"
"""Where LoRAs lie; the prefix on `.ai` is not known."""

LORA_CHECKED: Final = True
"""Whether the storage refuses a LoRA whose MD5 is not the one that was announced. Strict, to catch a wrong sum."""

TEXT_OUTPUT_TYPE: Final = "txt"
"""`outputType` of an answer in words."""

# --- graphs and apps ------------------------------------------------------------------------------------------------

NODE_INFO: Final = ("803", "APIKEY_INVALID_NODE_INFO")
"""A node list that does not fit, of a v1 start; why follows after a colon."""

NODE_INFO_V2: Final = ("1101", "Node info error")
"""The same of a v2 start; its other refusals carry the v1 numbers."""

BAD_GRAPH: Final = ("433", "VALIDATE_PROMPT_FAILED")
"""A graph that ComfyUI refuses as a whole; one with some bad nodes is accepted and fails."""

WRONG_PASSWORD: Final = ("301", "accessPassword is missing or wrong")
"""A protected workflow or app without its password."""

WRONG_QUICK_CODE: Final = ("301", "quickCreateCode does not belong to this app")
"""A quick create with another module's code."""

APP_FIELDS_ONLY: Final = True
"""Whether an app's node list may set only what the app shows, not every field of the graph behind it."""

OVERRIDE_KEEPS_SEEDS: Final = True
"""Whether seeds inside a `workflow` that comes with the request stay as they are: there is no other way to set them."""

QUICK_PARAMS_KEY: Final = False
"""Whether the parameter data of quick create needs a key; the published page lists none."""

APP_PAGE: Final = 50
"""The largest page of the app list, and of the resource list; larger ones are cut to it."""

# --- webhooks -------------------------------------------------------------------------------------------------------

WEBHOOK_RETRIES: Final = 3
"""How often a delivery is tried again."""

WEBHOOK_SPACING: Final = 60.0
"""Seconds between the tries, by the emulator's clock."""

WEBHOOK_TIMEOUT: Final = 5.0
"""Seconds of real time in which a receiver must have answered."""

WEBHOOK_DATA: Final[Literal["object", "string"]] = "object"
"""What `eventData` of v2 and model tasks is; of v1 tasks it is documented as a string."""

WEBHOOK_ON_CANCEL: Final = False
"""Whether a cancelled task has a delivery."""

WEBHOOK_WAITING: Final = "PENDING"
"""`callbackStatus` before the first try has ended; seen are only FAILED and SUCCESS."""

WEBHOOK_UNKNOWN: Final = ("1", "webhook event not exists")
"""Asking for a task without a webhook (measured), or one whose end is not yet told, or resending what is unknown."""

WEBHOOK_ZONE_HOURS: Final = 8
"""The time zone of an event's times, which carry none."""

# --- assets ---------------------------------------------------------------------------------------------------------

ASSET_STATUSES: Final[dict[str, str]] = {"QUEUED": "Processing", "RUNNING": "Processing", "DONE": "Active"}
"""The words for an asset's way."""

ASSET_FAILED: Final = "Failed"
"""The word for an asset whose file is no such media."""

ASSET_SECONDS: Final = 8.0
"""How long an asset is processed, on a clock that runs."""

ASSET_UNKNOWN: Final = ("1004", "Asset not found")
"""Asking for an asset or a group that does not exist."""

ASSET_REFUSED: Final = "1013"
"""A model's input that is an unknown asset, or one that is not ready."""

REAL_PEOPLE: Final = ("1505", "Photorealistic real people are not allowed")
"""What a picture of a real person is told, unless it is an asset or `realPersonMode` is on."""

# --- the native proxy and progress ----------------------------------------------------------------------------------

PROXY_BAD_KEY_STATUS: Final = 401
"""HTTP status of the proxy for a wrong key; `object_info` answers 200 all the same, as measured."""

TICKET_SECONDS: Final = 3600
"""How long the ticket inside `netWssUrl` opens the connection."""
