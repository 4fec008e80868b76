"""What RunningHub has not published, decided in one place: each field of `Assumptions` answers one open question.

An emulator takes its own answers, as in `Emulator(assumptions=replace(DEFAULT, cancelled_status="CANCELLED"))`. Every
part of it reads them from the emulator's state; no other module decides an open question. `Evidence` in a field's text
says what its value rests on: "measured" means that a third party recorded a live answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Literal

Refusal = tuple[str, str]
"""RunningHub's code and its words; empty words stand for the published text of the code."""

Check = Literal["tier", "webhook", "params", "content", "people", "files", "gate"]
"""One check of a model's submit."""


def _refused_task() -> dict[str, object]:
    empty = dict.fromkeys(("taskId", "status", "errorCode", "errorMessage"), "")
    return {**empty, "results": None, "clientId": "", "promptTips": ""}


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
    """The answers; the fields stand in the order of the questions: refusals, tasks, money, files, graphs, the rest."""

    # --- refusals ----------------------------------------------------------------------------------------------------

    refusal_status: int = 200
    """HTTP status of a business error. Evidence: every documented failure stands under 200."""

    key_refusal_status: int = 200
    """HTTP status of 412 and 401. Evidence: 401 is documented under 200; none for 412."""

    rate_limit_status: int = 200
    """HTTP status of 1003. Evidence: none; official clients are also written for 429."""

    not_offered_status: int = 200
    """HTTP status of 40310. Evidence: none; a third party recorded the code and not the status."""

    proxy_key_status: int = 401
    """HTTP status of the native proxy for a wrong key, but of `object_info`. Evidence: none; 200 there was measured."""

    refused_task: Mapping[str, object] = field(default_factory=_refused_task)
    """The values of a refused v2 submit. Evidence: the shape was measured, the empty values were not."""

    unpublished_words: Mapping[str, str] = field(default_factory=_unpublished_words)
    """English words of codes whose text is not published. Evidence: 1520 has a Chinese text of that meaning; 40310 was
    measured with a text that points to .ai; none for the others."""

    too_fast: Refusal = ("422", "TASK_CREATE_TOO_FAST")
    """Number and words of a refusal by the rate of creation. Evidence: clients know the words; none for the number."""

    requests_per_minute: int = 0
    """How many requests a key may send in a minute before 1003; 0 for no limit. Evidence: a client says that 1003
    counts per key and minute; no number is known."""

    free_key: Refusal = ("801", "")
    """The refusal of a free account's key in v1. Evidence: the table of codes."""

    free_key_v2: Refusal = ("801", "")
    """The refusal of such a key in v2. Evidence: v2 carries other v1 numbers; none for this one."""

    upload_bad_key: Refusal = ("401", "ApiKey verification failed: invalid api key")
    """The new upload's refusal of a missing or wrong key. Evidence: documented with another end of the text; a second
    client recorded a Chinese text."""

    account_key_fields: tuple[str, ...] = ("apikey", "apiKey")
    """How the account endpoint's key may be spelled. Evidence: `apikey` was measured; RunningHub's own refusal names
    `apiKey`, and two clients in use send it."""

    wrong_host: Refusal | None = None
    """The refusal of a Host header of another host; None accepts it. Evidence: the documentation calls the header
    mandatory; a client that sends a wrong one works on .cn; no refusal was recorded."""

    v1_blank: str = "{field} must not be blank"
    """The words for a missing field of a v1 body, with code 301. Evidence: measured for `apiKey`."""

    v1_no_route: Refusal = ("412", "TOKEN_INVALID")
    """The answer to an unknown path or a wrong method outside v2. Evidence: 412 is documented for misspelt paths."""

    missing_task_id: Refusal = ("1007", "taskId must not be blank")
    """The answer to a v2 query without a task id. Evidence: a malformed id was measured as 1007."""

    unknown_task: Refusal = ("1004", "")
    """The answer to a v2 query of an unknown or foreign task. Evidence: the table of codes; the shape was measured."""

    unknown_task_status: str = ""
    """The status beside it. Evidence: none."""

    v1_unknown_task: Refusal = ("807", "APIKEY_TASK_NOT_FOUND")
    """The answer to a v1 request for an unknown task. Evidence: measured for the status; the newer of two documented
    answers for the cancel."""

    list_refusal: str = "301"
    """The code for wrong paging, sorting or filters of the app and resource lists. Evidence: none."""

    list_page: int = 50
    """The largest page of these lists; larger ones are cut to it. Evidence: official clients ask for no more."""

    # --- a model's request -------------------------------------------------------------------------------------------

    model_checks: tuple[Check, ...] = ("tier", "webhook", "params", "content", "people", "files")
    """The order of the checks of a model's submit; money comes last where `gate` is not named. Evidence: none; for
    workflows parameters come before money."""

    model_tiers: tuple[str, ...] = ("SHARED",)
    """Which keys may run models and preview prices; the others get 1014. Evidence: the text of 1014; measured for
    consumer keys, and for exclusive ones not."""

    not_offered: tuple[str, ...] = ()
    """Patterns of endpoints that this site answers with 40310. Evidence: three families were measured on .cn; no list
    is published, so every model is offered here."""

    missing_default_refused: bool = True
    """Whether a required parameter with a published default must be sent all the same. Evidence: none."""

    strict_types: bool = True
    """Whether a value must have the JSON type of its parameter: no `"0.5"` for a number, no `5` for the option `"5"`.
    Evidence: the official kit sends exact types; no refusal was recorded."""

    unknown_params_pass: bool = True
    """Whether a parameter that the catalogue does not list is ignored. Evidence: official nodes add `appCode`."""

    bad_file: str = "1013"
    """The code for an input of the wrong kind or format. Evidence: the meaning of 1013."""

    real_people_families: tuple[str, ...] = ("seedance-2.0", "sparkvideo-2.0")
    """Which models refuse pictures of real people (1505) unless they are assets. Evidence: official nodes."""

    id_answers: Literal["json", "lines"] = "json"
    """How a model answers whose result are ids: a JSON object in `text`, or lines of `name: id`. Evidence: none."""

    lyrics_as_text: bool = True
    """Whether a model of song words that is listed under audio answers in `text`. Evidence: none."""

    text_output_type: str = "txt"
    """`outputType` of an answer in words. Evidence: graphs that save texts name it so."""

    # --- the life of a task ------------------------------------------------------------------------------------------

    cancelled_status: str = "CANCEL"
    """What the v2 query says after a cancel. Evidence: official code knows the word; no run was recorded."""

    v1_cancelled_status: str = "FAILED"
    """What the v1 status says then. Evidence: the four documented words of v1 have none of its own."""

    v1_cancelled_outputs: str = "805"
    """The code of the v1 outputs then, without a reason. Evidence: 805 is said to cover cancelled tasks."""

    cancel_finished: Refusal | None = None
    """The refusal to cancel an ended task; None is a success without effect. Evidence: none."""

    cancel_models: bool = True
    """Whether the tasks of standard models can be cancelled; else the cancel does not find them. Evidence: none."""

    failed_model: str = "1015"
    """The code of a standard-model task that failed. Evidence: the meaning of 1015."""

    failed_run: Refusal = ("1000", "unknown error")
    """Code and words of the v2 query for a graph that failed. Evidence: a documented example."""

    moderated: Refusal = ("1501", "")
    """What the content check answers, at submit and before anything is charged. Evidence: official code reads it from
    the submit's answer."""

    queue_full_v2: Refusal = ("421", "TASK_QUEUE_MAXED")
    """The refusal of a v2 submit over the key's concurrency. Evidence: clients know 1520 as well."""

    machines_full: Refusal = ("415", "TASK_INSTANCE_MAXED")
    """The refusal of an exclusive key whose machines are busy. Evidence: the table of codes."""

    personal_queue: int = 1000
    """How many tasks wait in a personal queue before 814. Evidence: documented."""

    counted: tuple[str, ...] = ("QUEUED", "RUNNING")
    """The states of a task that take one of the key's slots. Evidence: the names of the counts in queue status."""

    default_limits: Mapping[str, int] = field(
        default_factory=lambda: {"FREE": 0, "NORMAL": 1, "SHARED": 50, "EXCLUSIVE": 1}
    )
    """Tasks that a key of each tier runs at once, where the test does not say. Evidence: 50 is documented for shared
    keys, and 100 was seen; consumers have 1 or 2."""

    api_types: Mapping[str, str] = field(
        default_factory=lambda: {"FREE": "FREE", "NORMAL": "NORMAL", "SHARED": "SHARED", "EXCLUSIVE": "EXCLUSIVE"}
    )
    """The words for the tiers in account and queue status. Evidence: NORMAL was measured; clients know the others."""

    model_seconds: str = "0"
    """`taskCostTime` of standard models. Evidence: published answers."""

    idempotency_field: str = ""
    """A field of a submit whose repeated value gives the first task again; empty for none. Evidence: one third party
    names `clientJobId`; nothing official supports it."""

    # --- money -------------------------------------------------------------------------------------------------------

    currency: str = "CNY"
    """The wallet's currency. Evidence: documented for .cn; none for .ai."""

    unpriced: Decimal = Decimal(1)
    """What a model without a published price costs here. Evidence: none."""

    empty_wallet: Refusal = ("812", "")
    """The refusal of a shared key that cannot pay. Evidence: recorded by a third party; 416 has the same meaning."""

    billing_gate_first: tuple[str, ...] = ("workflow", "app")
    """Starts that ask for money before the lookup and the graph, and after the parameters. Evidence: measured for
    workflows; none for apps."""

    billing_gate_tiers: tuple[str, ...] = ("NORMAL", "SHARED", "EXCLUSIVE")
    """The tiers for which money comes so early. Evidence: measured for consumer keys; none for enterprise keys."""

    coins_per_second: Decimal = Decimal("0.2")
    """Coins for a second of a 24 GB card, rounded up. Evidence: measured on three runs."""

    money_per_second: Decimal = Decimal("0.001")
    """Money for a second of a 24 GB card, of shared keys. Evidence: none."""

    money_step: Decimal = Decimal("0.001")
    """To what money for run time is rounded up. Evidence: none."""

    machine_factors: Mapping[str, int] = field(default_factory=lambda: {"default": 1, "plus": 2, "ultra": 4})
    """How much dearer the larger cards are. Evidence: `plus` was measured; of `ultra` only the name is known."""

    unknown_machine: str = "default"
    """Which machine an `instanceType` of another name runs on; empty refuses it. Evidence: a client in use sends
    `standard` every day."""

    retain_seconds: tuple[int, int] = (10, 180)
    """The least and the most `retainSeconds`, besides 0. Evidence: three clients."""

    start_money: Decimal = Decimal(10_000)
    """The money of a new account, where the test does not say. Evidence: none; it is a stand-in."""

    start_coins: Mapping[str, int] = field(default_factory=lambda: {"NORMAL": 10_000})
    """The coins of a new account, by the tier of its first key. Evidence: none; it is a stand-in."""

    refund_failed_models: bool = True
    """Whether a failed standard-model task costs nothing. Evidence: published answers of failed tasks show no money."""

    refund_failed_runs: bool = False
    """Whether a failed graph costs nothing; otherwise it is billed by its seconds. Evidence: two statements of a third
    party say that it is billed."""

    refund_cancelled: Mapping[str, bool] = field(default_factory=lambda: {"QUEUED": True, "RUNNING": False})
    """Whether a cancelled model task is paid back, by the state in which the cancel met it. Evidence: none."""

    cancel_stops_charging: bool = True
    """Whether a graph that is cancelled while it runs costs only its seconds. Evidence: documentation, second hand."""

    price_text: str = "¥{amount}/次"
    """`priceText` of a price preview. Evidence: the field is known to clients; none for the text."""

    price_text_en: str = "{currency} {amount} per call"
    """`priceTextEn` of it. Evidence: as for `price_text`."""

    # --- files -------------------------------------------------------------------------------------------------------

    upload_success_code: int = 0
    """`code` of a successful new upload. Evidence: every official client tests for 0; one reading of the English page
    shows 200."""

    upload_max_bytes: int = 1 << 30
    """The largest new upload. Evidence: none; the page states no limit."""

    upload_extensions: Mapping[str, str] = field(default_factory=_upload_extensions)
    """What may be uploaded, and the `type` in the answer. Evidence: the documented list, and what models accept."""

    upload_unsupported: Refusal = ("1007", "Unsupported file type")
    """The refusal of a new upload of another type. Evidence: none."""

    upload_empty: Refusal = ("1007", "The uploaded file is empty")
    """The refusal of a new upload of an empty file. Evidence: none."""

    upload_no_file: Refusal = ("1007", "Required request part 'file' is not present")
    """The refusal of a new upload without a file. Evidence: the usual words of such a server."""

    legacy_unsupported: Refusal = ("301", "Unsupported file type")
    """The refusal of a legacy upload of another type. Evidence: none."""

    legacy_no_file: Refusal = ("301", "Required request part 'file' is not present")
    """The refusal of a legacy upload without a file, or of an empty one. Evidence: none."""

    link_seconds: int = 86_400
    """How long links of uploads live. Evidence: documented, and measured by the window of a signature."""

    result_seconds: int = 86_400
    """How long links of results live. Evidence: 24 hours for models, second hand; none for graphs."""

    signed_results: bool = False
    """Whether links of results carry a signature. Evidence: observed links have none."""

    expired_upload_status: int = 403
    """HTTP status of an upload's link after its day. Evidence: the storage is of a known kind."""

    expired_result_status: int = 404
    """HTTP status of a result's link after its day. Evidence: without a signature the file itself is gone."""

    lora_link_seconds: int = 3600
    """How long a LoRA can be sent to its link. Evidence: the window in a documented sample."""

    lora_folder: str = "api-lora-cn"
    """Where LoRAs are stored. Evidence: documented samples of both sites; none for a real answer of .ai."""

    lora_checked: bool = True
    """Whether the storage refuses a LoRA with another MD5 than announced. Evidence: none; it finds a wrong sum."""

    bad_md5: Refusal = ("301", "md5Hex must be 32 hexadecimal digits")
    """The refusal of an `md5Hex` of another form. Evidence: none."""

    # --- graphs and apps ---------------------------------------------------------------------------------------------

    node_info_v2: Refusal = ("1101", "")
    """The refusal of a v2 start with a node list that does not fit. Evidence: the meaning of 1101."""

    wrong_password: Refusal = ("301", "accessPassword is missing or wrong")
    """The refusal of a protected workflow or app without its password. Evidence: none; clients send it."""

    v2_reads_password: bool = True
    """Whether a v2 start reads `accessPassword`; otherwise what is protected starts by v1 only. Evidence: none."""

    v2_reads_workflow: bool = True
    """Whether a v2 start reads `workflow`. Evidence: none."""

    placeholder_ids: tuple[str, ...] = ("1",)
    """Ids that a start with a whole graph in `workflow` may name without such a workflow. Evidence: measured."""

    node_list_beside_graph: bool = True
    """Whether the node list beside `workflow` is checked against the workflow of the id; it never changes the graph.
    Evidence: measured for the placeholder; a third party says that it is ignored."""

    override_keeps_seeds: bool = True
    """Whether the seeds of a graph in `workflow` stay. Evidence: none; there is no other way to set them."""

    reads_random_seed: bool = False
    """Whether `randomSeed: false` in a start keeps the seeds of the saved graph. Evidence: a server-side record shows
    the field; no client sends it."""

    app_fields_only: bool = True
    """Whether an app's node list may set only the fields that the app shows. Evidence: none."""

    wrong_quick_code: Refusal = ("301", "quickCreateCode does not belong to this app")
    """The refusal of a quick create with the code of another module. Evidence: none."""

    quick_params_key: bool = False
    """Whether the parameter data of quick create need a key. Evidence: the published page lists none."""

    ticket_seconds: int = 3600
    """How long the ticket in `netWssUrl` opens the connection. Evidence: tickets expire; none for their life."""

    # --- webhooks ----------------------------------------------------------------------------------------------------

    webhook_retries: int = 3
    """How often a delivery is tried again. Evidence: a documented event."""

    webhook_spacing: float = 60.0
    """Seconds between the tries, by the emulator's clock. Evidence: the times of a documented event."""

    webhook_timeout: float = 5.0
    """Seconds of real time in which a receiver must answer. Evidence: none."""

    webhook_data: Literal["object", "string"] = "object"
    """What `eventData` of v2 and model tasks is. Evidence: a published event, which was reformatted by hand."""

    webhook_v1_failed: Literal["outputs", "task"] = "outputs"
    """What the event of a failed v1 task holds: the answer of `outputs` (805), or the v2 task object. Evidence: events
    of v1 successes hold the answer of `outputs`."""

    webhook_on_cancel: bool = False
    """Whether a cancelled task has a delivery. Evidence: none."""

    webhook_waiting: str = "PENDING"
    """`callbackStatus` before the first try has ended. Evidence: a client's guess; FAILED and SUCCESS were seen."""

    webhook_unknown: Refusal = ("1", "webhook event not exists")
    """The answer to a request for an unknown event. Evidence: measured for the detail."""

    webhook_zone_hours: int = 8
    """The time zone of an event's times, which carry none. Evidence: none; the company's own zone."""

    # --- assets ------------------------------------------------------------------------------------------------------

    asset_statuses: Mapping[str, str] = field(
        default_factory=lambda: {"QUEUED": "Processing", "RUNNING": "Processing", "DONE": "Active"}
    )
    """The words for an asset's state. Evidence: official code takes several words for ready."""

    asset_failed: str = "Failed"
    """The word for an asset whose file is not such media. Evidence: official code knows it among others."""

    asset_seconds: float = 8.0
    """How long an asset is processed, on a clock that runs. Evidence: none; official code waits up to 180 s."""

    asset_fields: tuple[str, ...] = ("assetId", "groupId", "name", "status", "previewUrl", "assetType")
    """The fields of an asset in answers and lists. Evidence: official code reads four of them from a query; none for
    lists."""

    asset_invalid: str = "1007"
    """The code for a missing or wrong field in a request about assets. Evidence: a consumer's call without an asset id
    got a parameter error."""

    asset_unknown: Refusal = ("1004", "Asset not found")
    """The answer to a request for an unknown asset. Evidence: none."""

    asset_group_unknown: Refusal = ("1004", "Asset group not found")
    """The answer to a request for an unknown group. Evidence: none."""

    asset_refused: str = "1013"
    """The code for a model's input that is an unknown asset, or one that is not ready. Evidence: none."""

    def status_of(self, code: str) -> int:
        """Returns the HTTP status of a refusal.

        Args:
            code: RunningHub's code.
        """
        special = {
            "401": self.key_refusal_status,
            "412": self.key_refusal_status,
            "1003": self.rate_limit_status,
            "40310": self.not_offered_status,
        }
        return special.get(code, self.refusal_status)


DEFAULT: Final = Assumptions()
"""The present answers."""
