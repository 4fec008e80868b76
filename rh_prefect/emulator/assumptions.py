"""Assumptions about behaviour that RunningHub has not published; each field of `Assumptions` is one assumption.

An emulator can have other values, as in `Emulator(assumptions=replace(DEFAULT, cancelled_status="CANCELLED"))`. All
modules read the assumptions from the emulator's state. `Evidence` names the source of a value: "measured" means that a
third party recorded a live response.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Literal

Refusal = tuple[str, str]
"""RunningHub's code and its message; an empty message means the published text for the code."""

Check = Literal["tier", "webhook", "params", "content", "people", "files", "gate"]
"""One check of a submission to a model."""


def _refused_task() -> dict[str, object]:
    empty = dict.fromkeys(("taskId", "status", "errorCode", "errorMessage"), "")
    known: dict[str, object] = {**empty, "results": None, "clientId": "", "promptTips": "", "failedReason": {}}
    return {**known, **dict.fromkeys(("usage", "parentTaskId", "taskUsageList"))}


def _upload_extensions() -> dict[str, str]:
    return {
        **dict.fromkeys(("jpg", "jpeg", "png", "webp", "bmp", "gif", "tiff"), "image"),
        **dict.fromkeys(("mp4", "avi", "mov", "mkv", "webm"), "video"),
        **dict.fromkeys(("mp3", "wav", "flac", "m4a"), "audio"),
        "zip": "zip",
    }


def _unpublished_words() -> dict[str, str]:
    return {
        "1516": "Unknown error",
        "1517": "Unknown error",
        "1519": "Unknown error",
        "1520": "The number of concurrent tasks of this user has reached its limit",
        "40310": "This model is no longer available on this site. Please use www.runninghub.ai",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """The emulator's answers to questions that RunningHub's documentation leaves open."""

    # --- refusals ----------------------------------------------------------------------------------------------------

    refusal_status: int = 200
    """HTTP status of a business error. Evidence: every documented failure has the status 200."""

    key_refusal_status: int = 200
    """HTTP status of 412 and 401. Evidence: 401 is documented with the status 200; none for 412."""

    rate_limit_status: int = 200
    """HTTP status of 1003. Evidence: none; official clients are also written for 429."""

    not_offered_status: int = 200
    """HTTP status of 40310. Evidence: none; a third party recorded the code without the status."""

    proxy_key_status: int = 401
    """HTTP status of the native proxy for an invalid key, except for `object_info`. Evidence: none; for
    `object_info`, 200 was measured."""

    refused_task: Mapping[str, object] = field(default_factory=_refused_task)
    """The field values in the response to a refused v2 submit or query. Evidence: measured for a query."""

    unpublished_words: Mapping[str, str] = field(default_factory=_unpublished_words)
    """English messages for codes without a published message. Evidence: 1520 has a Chinese text with that meaning;
    40310 was measured with a text that points to .ai; none for the others."""

    too_fast: Refusal = ("422", "TASK_CREATE_TOO_FAST")
    """The refusal if tasks are created too fast. Evidence: clients know the message; none for the code."""

    requests_per_minute: int = 0
    """Requests that a key may send in a minute before 1003 is returned; 0 for no limit. Evidence: according to a
    client, 1003 counts per key and minute; the number is unknown."""

    free_key: Refusal = ("801", "")
    """The refusal of a free account's key in v1. Evidence: the table of codes."""

    free_key_v2: Refusal = ("801", "")
    """The refusal of a free account's key in v2. Evidence: v2 uses other v1 codes; none for this code."""

    upload_bad_key: Refusal = ("401", "ApiKey verification failed: invalid api key")
    """The refusal of a missing or invalid key by the new upload. Evidence: documented with a different ending of the
    text; a second client recorded a Chinese text."""

    account_key_fields: tuple[str, ...] = ("apikey", "apiKey")
    """Accepted names of the key field of the account endpoint. Evidence: `apikey` was measured; RunningHub's own
    refusal names `apiKey`, and two clients in use send it."""

    wrong_host: Refusal | None = None
    """The refusal of a Host header that names another host; None accepts the header. Evidence: the documentation calls
    the header mandatory; a client that sends another host works on .cn; no refusal was recorded."""

    v1_blank: str = "{field} must not be blank"
    """The message for a missing field in a v1 body, with code 301. Evidence: measured for `apiKey`."""

    v1_no_route: Refusal = ("412", "TOKEN_INVALID")
    """The response to an unknown path or a wrong method outside v2. Evidence: 412 is documented for misspelt paths."""

    missing_task_id: Refusal = ("1007", "taskId must not be null")
    """The response to a v2 query without a task id. Evidence: the test data of a client."""

    malformed_task_id: Refusal = ("1007", "failed to parse request body")
    """The response to a v2 query whose task id is not a number. Evidence: measured."""

    unknown_task: Refusal = ("1004", "")
    """The response to a v2 query of a task that is unknown or another account's. Evidence: the table of codes; the
    shape was measured."""

    unknown_task_status: str = ""
    """The `status` in a v2 response about an unknown task. Evidence: none."""

    v1_unknown_task: Refusal = ("807", "APIKEY_TASK_NOT_FOUND")
    """The response to a v1 request for an unknown task. Evidence: measured for the status; the newer of two documented
    responses to a cancel."""

    list_refusal: str = "301"
    """The code for wrong paging, sorting or filters of the app and resource lists. Evidence: none."""

    list_page: int = 50
    """The maximum page size of the app and resource lists. Evidence: official clients request at most this size."""

    # --- a model's request -------------------------------------------------------------------------------------------

    model_checks: tuple[Check, ...] = ("tier", "webhook", "params", "content", "people", "files")
    """The order of the checks of a submission to a model; the wallet is checked last if `gate` is not listed. Evidence:
    none; for workflows, parameters are checked before the wallet."""

    model_tiers: tuple[str, ...] = ("SHARED",)
    """The tiers that may run models and preview prices; others get 1014. Evidence: the text of 1014; measured for
    consumer keys, not for exclusive ones."""

    not_offered: tuple[str, ...] = ()
    """Patterns of endpoints that get 40310. Evidence: three families were measured on .cn; no list is published, so
    the default offers every model."""

    param_required: str = "field '{field}' is required, can not be empty"
    """The message for a missing parameter, with code 1007. Evidence: the test data of a client."""

    param_option: str = "field '{field}' value {value} is not in the allowed options"
    """The message for a value that is not one of the options, with code 1007. Evidence: the test data of a client."""

    withdrawn: tuple[str, ...] = (
        "rhart-video-s/image-to-video-pro-deprecated",
        "rhart-video-s/text-to-video-pro-deprecated",
    )
    """Spellings of endpoints that get 1000; other spellings of the model are accepted. Evidence: measured for price
    previews; none for submits."""

    missing_default_refused: bool = True
    """Whether a required parameter with a published default must be sent. Evidence: none."""

    strict_types: bool = True
    """Whether a value must have the JSON type of its parameter: no `"0.5"` for a number, no `5` for the option `"5"`.
    Evidence: the official kit sends exact types; no refusal was recorded."""

    unknown_params_pass: bool = True
    """Whether a parameter that the catalogue does not list is ignored. Evidence: official nodes add `appCode`."""

    bad_file: str = "1013"
    """The code for an input of the wrong kind or format. Evidence: the meaning of 1013."""

    real_people_families: tuple[str, ...] = ("seedance-2.0", "sparkvideo-2.0")
    """Models that refuse pictures of real people (1505) unless they are assets. Evidence: official nodes."""

    id_answers: Literal["json", "lines"] = "json"
    """The format of results that are ids: a JSON object in `text`, or lines of `name: id`. Evidence: none."""

    lyrics_as_text: bool = True
    """Whether a lyrics model that is listed under audio returns its result in `text`. Evidence: none."""

    text_output_type: str = "txt"
    """`outputType` of text results. Evidence: graphs that save text use it."""

    # --- the life of a task ------------------------------------------------------------------------------------------

    cancelled_status: str = "CANCEL"
    """The status in a v2 query after a cancel. Evidence: official code knows the word; no run was recorded."""

    v1_cancelled_status: str = "FAILED"
    """The v1 status after a cancel. Evidence: the four documented v1 words include none for this."""

    v1_cancelled_outputs: str = "805"
    """The code of the v1 outputs after a cancel, without a reason. Evidence: 805 reportedly covers cancelled tasks."""

    cancel_finished: Refusal | None = None
    """The refusal to cancel an ended task; None means success without an effect. Evidence: none."""

    cancel_models: bool = True
    """Whether the tasks of standard models can be cancelled; otherwise, a cancel does not find them. Evidence: none."""

    failed_model: str = "1015"
    """The code of a standard-model task that failed. Evidence: the meaning of 1015."""

    failed_run: Refusal = ("1000", "unknown error")
    """Code and message of the v2 query for a failed graph. Evidence: a documented example."""

    moderated: Refusal = ("1501", "Content security audit did not pass | 内容安全审查未通过")
    """Code and message of a task that fails because of the content check. Evidence: measured by two clients."""

    moderated_at_submit: Refusal | None = None
    """The refusal of the content check at submit, before the charge; None accepts the task, which then fails. Evidence:
    official code reads 1501 from the response to the submit; two clients recorded failed tasks."""

    queue_full_v2: Refusal = (
        "421",
        "api queue limit reached, please retry later | API 并发数已达上线，请降低并发或稍后重试",
    )
    """The refusal of a v2 submit that exceeds the key's concurrency. Evidence: measured by two clients; others know
    1520 as well."""

    machines_full: Refusal = ("415", "TASK_INSTANCE_MAXED")
    """The refusal of an exclusive key whose machines are busy. Evidence: the table of codes."""

    personal_queue: int = 1000
    """Tasks that may wait in a personal queue before 814 is returned. Evidence: documented."""

    counted: tuple[str, ...] = ("QUEUED", "RUNNING")
    """The states in which a task takes one of the key's slots. Evidence: the names of the counts in queue status."""

    default_limits: Mapping[str, int] = field(
        default_factory=lambda: {"FREE": 0, "NORMAL": 1, "SHARED": 50, "EXCLUSIVE": 1}
    )
    """Tasks that a key of each tier may run at once, by default. Evidence: 50 is documented for shared keys, and 100
    was seen; consumers have 1 or 2."""

    api_types: Mapping[str, str] = field(
        default_factory=lambda: {"FREE": "FREE", "NORMAL": "NORMAL", "SHARED": "SHARED", "EXCLUSIVE": "EXCLUSIVE"}
    )
    """The words for the tiers in account and queue status. Evidence: NORMAL was measured; clients know the others."""

    model_seconds: str = "0"
    """`taskCostTime` of standard models. Evidence: published responses."""

    # --- money -------------------------------------------------------------------------------------------------------

    currency: str = "CNY"
    """The wallet's currency. Evidence: documented for .cn; none for .ai."""

    unpriced: Decimal = Decimal(1)
    """The price of a model without a published price. Evidence: none."""

    preview_unpriced: Refusal | None = ("1501", "PRICE_CONFIG_NOT_FOUND")
    """The response to a price preview of a model without a price; None quotes `unpriced`. Evidence: measured."""

    preview_lacking: tuple[str, ...] = (
        "kling-video-o3-pro/reference-to-video",
        "kling-video-o3-std/reference-to-video",
        "rhart-video-v3.1-fast-official/reference-to-video",
    )
    """Patterns of endpoints whose price previews get `preview_unpriced` although a price is published. Evidence:
    measured for three families; the endpoints follow from the names in that record."""

    preview_per_second: Mapping[str, Decimal] = field(
        default_factory=lambda: {"rhart-video/minimax-h3-oss/*": Decimal("0.15")}
    )
    """Amounts of price previews that quote only one second of `duration`, by endpoint pattern; the task costs all
    seconds. Evidence: recorded by a third party."""

    preview_zero: tuple[str, ...] = ("bytedance/seedance-2.5*",)
    """Patterns of endpoints whose price previews quote 0 although the calls are not free. Evidence: measured; these
    models are priced by tokens."""

    preview_bare_refusal: Refusal | None = None
    """The response, without an envelope, to a price preview with wrong parameters; None gives 1007. Evidence: a third
    party recorded 301 `PARAMS_INVALID` for some endpoints, and 1007 for others."""

    preview_counts_as_text: bool = True
    """Whether the numbers of free calls in a price preview are strings. Evidence: the test data of a client."""

    empty_wallet: Refusal = ("812", "")
    """The refusal of a shared key that cannot pay. Evidence: recorded by a third party; 416 has the same meaning."""

    billing_gate_first: tuple[str, ...] = ("workflow", "app")
    """Start requests that check the wallet after the parameters and before the lookup and the graph. Evidence: measured
    for workflows; none for apps."""

    billing_gate_tiers: tuple[str, ...] = ("NORMAL", "SHARED", "EXCLUSIVE")
    """The tiers whose wallet is checked as early as `billing_gate_first` says. Evidence: measured for consumer keys;
    none for enterprise keys."""

    coins_per_second: Decimal = Decimal("0.2")
    """Coins per second on a 24 GB card; the charge is rounded up. Evidence: measured on three runs."""

    money_per_second: Decimal = Decimal("0.001")
    """Money per second on a 24 GB card, for shared keys. Evidence: none."""

    money_step: Decimal = Decimal("0.001")
    """The step to which money for run time is rounded up. Evidence: none."""

    machine_factors: Mapping[str, int] = field(default_factory=lambda: {"default": 1, "plus": 2, "ultra": 4})
    """Price factors of machine types. Evidence: `plus` was measured; only the name of `ultra` is known."""

    unknown_machine: str = "default"
    """The machine type for an unknown `instanceType`; empty refuses it. Evidence: a client in use sends `standard`."""

    retain_seconds: tuple[int, int] = (10, 180)
    """Minimum and maximum of `retainSeconds`, apart from 0. Evidence: three clients."""

    start_money: Decimal = Decimal(10_000)
    """The default money of a new account. Evidence: none; a placeholder."""

    start_coins: Mapping[str, int] = field(default_factory=lambda: {"NORMAL": 10_000})
    """The coins of a new account, by the tier of its first key. Evidence: none; a placeholder."""

    refund_failed_models: bool = True
    """Whether a failed standard-model task costs nothing. Evidence: published failed tasks show no money."""

    refund_failed_runs: bool = False
    """Whether a failed graph costs nothing; otherwise, its seconds are billed. Evidence: according to two
    statements by a third party, they are billed."""

    refund_cancelled: Mapping[str, bool] = field(default_factory=lambda: {"QUEUED": True, "RUNNING": False})
    """Whether a cancelled model task is refunded, by the state in which it was cancelled. Evidence: none."""

    cancel_stops_charging: bool = True
    """Whether a graph that is cancelled while it runs costs only its seconds. Evidence: second-hand documentation."""

    price_text: str = "¥{amount}/次"
    """`priceText` of a price preview. Evidence: the field is known to clients; none for the text."""

    price_text_en: str = "{currency} {amount} per call"
    """`priceTextEn` of a price preview. Evidence: as for `price_text`."""

    # --- files -------------------------------------------------------------------------------------------------------

    upload_success_code: int = 0
    """`code` of a successful new upload. Evidence: every official client tests for 0; the English page
    shows 200."""

    upload_max_bytes: int = 1 << 30
    """The largest new upload. Evidence: none; the page states no limit."""

    upload_extensions: Mapping[str, str] = field(default_factory=_upload_extensions)
    """The accepted file types for uploads, and their `type` in the response. Evidence: the documented list, and the
    types that models accept."""

    upload_unsupported: Refusal = ("1007", "Unsupported file type")
    """The refusal of a new upload of another type. Evidence: none."""

    upload_empty: Refusal = ("1007", "The uploaded file is empty")
    """The refusal of a new upload of an empty file. Evidence: none."""

    upload_no_file: Refusal = ("1007", "Required request part 'file' is not present")
    """The refusal of a new upload without a file. Evidence: the usual message of such a server."""

    legacy_unsupported: Refusal = ("301", "Unsupported file type")
    """The refusal of a legacy upload of another type. Evidence: none."""

    legacy_no_file: Refusal = ("301", "Required request part 'file' is not present")
    """The refusal of a legacy upload without a file, or of an empty one. Evidence: none."""

    link_seconds: int = 86_400
    """Lifetime of links to uploads. Evidence: documented, and measured from a signature's period of validity."""

    result_seconds: int = 86_400
    """Lifetime of links to results. Evidence: 24 hours for models, second-hand; none for graphs."""

    signed_results: bool = False
    """Whether links to results have a signature. Evidence: observed links have none."""

    expired_upload_status: int = 403
    """HTTP status of an expired link to an upload. Evidence: the kind of storage is known."""

    expired_result_status: int = 404
    """HTTP status of an expired link to a result. Evidence: without a signature, the file itself must be deleted."""

    lora_link_seconds: int = 3600
    """Lifetime of the upload link of a LoRA. Evidence: the period of validity in a documented sample."""

    lora_folder: str = "api-lora-cn"
    """Where LoRAs are stored. Evidence: documented samples of both sites; no real response of .ai is known."""

    lora_checked: bool = True
    """Whether the storage refuses a LoRA whose MD5 differs from the announced one. Evidence: none."""

    bad_md5: Refusal = ("301", "md5Hex must be 32 hexadecimal digits")
    """The refusal of an invalid `md5Hex`. Evidence: none."""

    # --- graphs and apps ---------------------------------------------------------------------------------------------

    node_info_v2: Refusal = ("1101", "")
    """The refusal of a v2 start request whose node list does not match. Evidence: the meaning of 1101."""

    wrong_password: Refusal = ("301", "accessPassword is missing or wrong")
    """The refusal of a protected workflow or app without its password. Evidence: none; clients send it."""

    v2_reads_password: bool = True
    """Whether a v2 start request reads `accessPassword`; otherwise, only v1 starts protected graphs. Evidence: none."""

    v2_reads_workflow: bool = True
    """Whether a v2 start request reads `workflow`. Evidence: none."""

    placeholder_ids: tuple[str, ...] = ("1",)
    """Ids that need not exist if a start request has a whole graph in `workflow`. Evidence: measured."""

    node_list_beside_graph: bool = True
    """Whether a node list next to `workflow` is checked against the workflow with the id; it never changes the graph.
    Evidence: measured for the placeholder; according to a third party, the list is ignored."""

    override_keeps_seeds: bool = True
    """Whether the seeds of a graph in `workflow` stay unchanged. Evidence: none; there is no other way to set seeds."""

    reads_random_seed: bool = False
    """Whether `randomSeed: false` in a start request keeps the seeds of the saved graph. Evidence: a server-side record
    shows the field; no client sends it."""

    app_fields_only: bool = True
    """Whether an app's node list may set only the fields that the app shows. Evidence: none."""

    wrong_quick_code: Refusal = ("301", "quickCreateCode does not belong to this app")
    """The refusal of a quick create with the code of another module. Evidence: none."""

    quick_params_key: bool = False
    """Whether the parameter data of quick create requires a key. Evidence: the published page lists none."""

    interrupt_reads_id: bool = True
    """Whether the native proxy's interrupt stops only the prompt that the request names, and not any running prompt.
    Evidence: newer versions of ComfyUI read the id; none for the version that RunningHub runs."""

    ticket_seconds: int = 3600
    """Lifetime of the ticket in `netWssUrl`. Evidence: tickets expire; none for the lifetime."""

    # --- webhooks ----------------------------------------------------------------------------------------------------

    webhook_retries: int = 3
    """Number of retries of a delivery. Evidence: a documented event."""

    webhook_spacing: float = 60.0
    """Seconds between attempts, by the emulator's clock. Evidence: the times of a documented event."""

    webhook_timeout: float = 5.0
    """Seconds of real time within which a receiver must respond. Evidence: none."""

    webhook_data: Literal["object", "string"] = "object"
    """The type of `eventData` for v2 and model tasks. Evidence: a published event, which was reformatted by hand."""

    webhook_v1_failed: Literal["outputs", "task"] = "outputs"
    """The content of the event for a failed v1 task: the response of `outputs` (805), or the v2 task object. Evidence:
    events of v1 successes contain the response of `outputs`."""

    webhook_on_cancel: bool = False
    """Whether the end of a cancelled task is delivered. Evidence: none."""

    webhook_waiting: str = "PENDING"
    """`callbackStatus` before the first attempt ends. Evidence: a client's guess; FAILED and SUCCESS are known."""

    webhook_unknown: Refusal = ("1", "webhook event not exists")
    """The response to a request for an unknown event. Evidence: measured for the event detail."""

    webhook_zone_hours: int = 8
    """The time zone of an event's times, which do not state it. Evidence: none; the company's own zone."""

    # --- assets ------------------------------------------------------------------------------------------------------

    asset_statuses: Mapping[str, str] = field(
        default_factory=lambda: {"QUEUED": "Processing", "RUNNING": "Processing", "DONE": "Active"}
    )
    """The words for an asset's state. Evidence: official code takes several words for ready."""

    asset_failed: str = "Failed"
    """The word for an asset with an invalid file. Evidence: official code knows it among others."""

    asset_seconds: float = 8.0
    """Seconds for which an asset is processed if the clock runs. Evidence: none; official code waits up to 180 s."""

    asset_fields: tuple[str, ...] = ("assetId", "groupId", "name", "status", "previewUrl", "assetType")
    """The fields of an asset in responses and lists. Evidence: official code reads four of them from a query; none for
    lists."""

    asset_invalid: str = "1007"
    """The code for a missing or invalid field in a request about assets. Evidence: a consumer's call without an asset
    id got a parameter error."""

    asset_unknown: Refusal = ("1004", "Asset not found")
    """The response to a request for an unknown asset. Evidence: none."""

    asset_group_unknown: Refusal = ("1004", "Asset group not found")
    """The response to a request for an unknown group. Evidence: none."""

    asset_refused: str = "1013"
    """The code for a model's input that is an unknown asset, or an asset that is not ready. Evidence: none."""

    def status_of(self, code: str) -> int:
        """Returns the HTTP status of a refusal."""
        special = {
            "401": self.key_refusal_status,
            "412": self.key_refusal_status,
            "1003": self.rate_limit_status,
            "40310": self.not_offered_status,
        }
        return special.get(code, self.refusal_status)


DEFAULT: Final = Assumptions()
"""The default assumptions."""
