"""Parses a task's state from every format that RunningHub sends, and parses webhook deliveries."""

from __future__ import annotations

import logging
import mimetypes
import re
from decimal import Decimal
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr

from rh_prefect.client.json_values import (
    Number,
    Text,
    Upper,
    Value,
    amount,
    compact,
    first_text,
    rows,
    table,
    text,
    unfold,
    wire,
)
from rh_prefect.redaction import mask

_log = logging.getLogger("rh_prefect.client")

TaskStatus = Literal["QUEUED", "RUNNING", "SUCCESS", "FAILED", "CANCELLED"]

_LINKS: Final = ("url", "outputUrl", "fileUrl")
"""The names of the fields that can contain a file's link in a row of `results`."""

_STATUSES: Final[dict[str, TaskStatus]] = {
    "CREATE": "QUEUED",
    "QUEUED": "QUEUED",
    "RUNNING": "RUNNING",
    "SUCCESS": "SUCCESS",
    "FAILED": "FAILED",
    "CANCEL": "CANCELLED",
    "CANCELED": "CANCELLED",
    "CANCELLED": "CANCELLED",
}


_TASK_ID: Final = re.compile(r"[0-9]{1,40}|proxy(?:-plus)?\.[A-Za-z0-9][A-Za-z0-9-]{0,99}")
_EXTENSION: Final = re.compile(r"[a-z0-9]{1,16}")


def is_task_id(text: str) -> bool:
    """Returns whether a string is a task id: only digits, or a machine's name, a dot and a prompt id.

    Ids become parts of file names and addresses, so any other string is refused.
    """
    return bool(_TASK_ID.fullmatch(text) and text.strip("0"))


class RemoteOutput(Value):
    """One result of a task: a file to download, or text.

    Attributes:
        url: An http(s) link to the file, valid for about a day, or a `data:` URL.
        text: The text that a text model wrote.
        type: The file's extension: at most 16 lower-case letters and digits, or None.
        node_id: The workflow node that saved the result.
    """

    url: str | None = None
    text: str | None = None
    type: str | None = None
    node_id: str | None = None

    @property
    def is_usable(self) -> bool:
        """Whether the output is text, or a link that can be downloaded."""
        return self.url is None or _is_link(self.url)


class Usage(Value):
    """The resources and money that a task used.

    Attributes:
        money: Wallet money for run time.
        third_party_money: Wallet money for a third-party model.
        coins: RunningHub coins for run time.
        seconds: Run time; 0 for standard models.
    """

    money: Decimal | None = None
    third_party_money: Decimal | None = None
    coins: Decimal | None = None
    seconds: float | None = None

    @property
    def total(self) -> Decimal | None:
        """The sum of `money` and `third_party_money`, or None if neither was used. Graphs with paid nodes use both."""
        parts = [part for part in (self.money, self.third_party_money) if part is not None]
        return sum(parts, Decimal(0)) if parts else None


Masked = Annotated[str, BeforeValidator(lambda value: mask(text(value).strip()))]


class Failure(Value):
    """The reason why a task failed, as reported by ComfyUI; `str()` is one readable line."""

    node_id: Text = wire("node_id", "nodeId")
    node_name: Text = wire("node_name", "nodeName")
    exception_type: Text = wire("exception_type", "exceptionType")
    exception_message: Masked = wire("exception_message", "exceptionMessage", "message")
    traceback: tuple[str, ...] = ()

    def __str__(self) -> str:
        node = _joined(" ", self.node_id, f"({self.node_name})" if self.node_name else "")
        message = " ".join(self.exception_message.split())
        return _joined(": ", f"node {node}" if node else "", self.exception_type, message) or "no reason given"


class TaskView(Value):
    """The state of a task as RunningHub reported it at one moment.

    Attributes:
        task_id: RunningHub's id, with all its digits.
        status: One of the known statuses; an undocumented status is read as RUNNING.
        code: RunningHub's code; empty if there is no error.
        reason: RunningHub's message for the code.
        outputs: All results; empty until the task ends, and sometimes for some seconds longer.
        usage: What the task has cost so far.
        failure: The reason why the task failed, if RunningHub gives one.
        node_errors: The error for each rejected node; the task then fails, or only a part of its workflow runs.
        progress_url: The address of a running workflow's progress. The address contains a secret of the account, and is
            in no repr and no dump.
        ahead: The number of tasks before this one in the queue, if known.
    """

    task_id: str
    status: TaskStatus
    code: str = ""
    reason: str = ""
    outputs: tuple[RemoteOutput, ...] = ()
    usage: Usage = Usage()
    failure: Failure | None = None
    node_errors: dict[str, str] = Field(default_factory=dict)
    progress_url: SecretStr | None = Field(default=None, exclude=True, repr=False)
    ahead: int | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether the task has ended, successfully or not."""
        return self.status in {"SUCCESS", "FAILED", "CANCELLED"}

    @property
    def cost(self) -> Decimal | None:
        """The cost of the task: wallet money, or coins if no money was used."""
        return self.usage.total if self.usage.total is not None else self.usage.coins

    @property
    def unit(self) -> Literal["money", "coins"] | None:
        """The unit of `cost`, `money` or `coins`; the currency of money depends on the account. None without a cost."""
        if self.usage.total is not None:
            return "money"
        return None if self.usage.coins is None else "coins"


def read_task(source: dict[str, object], *, task_id: str, code: str = "", reason: str = "") -> TaskView | None:
    """Reads a v2 task object, as from `/openapi/v2/query`; returns None if the object has no task state."""
    status = read_status(first_text(source, "status", "taskStatus"))
    if status is None:
        return None
    return TaskView(
        task_id=task_id,
        status=status,
        code=code,
        reason=reason,
        outputs=read_outputs(source.get("results")),
        usage=read_usage(source.get("usage")),
        failure=read_failure(source.get("failedReason")),
        node_errors=read_node_errors(source.get("promptTips")),
        progress_url=read_progress_url(source.get("netWssUrl")),
    )


def read_progress_url(value: object) -> SecretStr | None:
    """Reads `netWssUrl`, which is null while a task is queued."""
    url = text(value).strip()
    return SecretStr(url) if url.startswith(("ws://", "wss://")) else None


def read_status(name: str) -> TaskStatus | None:
    """Maps a status to one of the defined states; None for an empty string."""
    if not name:
        return None
    status = _STATUSES.get(name.upper())
    if status is None:
        _note_unknown_status(name[:40])
    return status or "RUNNING"


@lru_cache(maxsize=64)  # once a process, not once a poll
def _note_unknown_status(name: str) -> None:
    _log.warning("RunningHub reports a task status that is not documented, %r; it is treated as RUNNING.", name)


def read_task_id(source: dict[str, object]) -> str:
    """Returns the unchecked value of the task id, under either of its field names; see `is_task_id`.

    A number with an exponent was rounded by the sender; it is returned unchanged, and is not a valid id. A fraction of
    0 is removed.
    """
    values = (source.get(name) for name in ("taskId", "task_id"))
    texts = (str(value).removesuffix(".0") if isinstance(value, Decimal) else text(value).strip() for value in values)
    found = next(filter(None, texts), "")
    return found if found.strip("0") else ""


def read_outputs(results: object) -> tuple[RemoteOutput, ...]:
    """Reads `results` in every format that clients have received."""
    found = (output for row in rows(results) for output in _outputs_of(row))
    return tuple(output for output in found if output.url is not None or output.text)


def _outputs_of(row: object) -> list[RemoteOutput]:
    if not isinstance(row, dict):
        return [_output(row)]
    node_id = first_text(row, "nodeId") or None
    kind = read_extension(first_text(row, "outputType", "fileType"))
    links = _values(row, *_LINKS)
    words = _values(row, "text") if links else _values(row, "text", "content")
    either = [] if links or words else _values(row, "output")
    if not (links or words or either) and any(isinstance(row.get(name), str) for name in _LINKS):
        links = [""]
    # The name decides. A link read as a text would lose a file; a text read as a link would lose the answer of a
    # language model, and download from an address that the model wrote.
    files = [_link(compact(value).strip(), kind=kind, node_id=node_id) for value in links]
    texts = [RemoteOutput(text=compact(value), type=kind, node_id=node_id) for value in words]
    return [*files, *texts, *(_output(value, kind=kind, node_id=node_id) for value in either)]


def _values(row: dict[str, object], *names: str) -> list[object]:
    for name in names:
        value = row.get(name)  # not unfolded: a text model may well answer JSON
        found = [each for each in (value if isinstance(value, list) else [value]) if compact(each).strip()]
        if found:
            return found
    return []


def _output(value: object, *, kind: str | None = None, node_id: str | None = None) -> RemoteOutput:
    content = compact(value)
    if not content.strip().lower().startswith(("http://", "https://")) or len(content.split()) != 1:
        return RemoteOutput(text=content or None, type=kind, node_id=node_id)
    return _link(content.strip(), kind=kind, node_id=node_id)


def _link(url: str, *, kind: str | None, node_id: str | None) -> RemoteOutput:
    return RemoteOutput(url=url, type=kind or extension_of_link(url), node_id=node_id)


def _is_link(url: str) -> bool:
    if url[:5].lower() == "data:":
        return "," in url
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def extension_of_link(url: str) -> str | None:
    """Returns the file extension in a link or a `data:` URL; None if there is no valid extension."""
    if url[:5].lower() == "data:":
        mime = url[5:].partition(",")[0].partition(";")[0].lower()
        return read_extension(mimetypes.guess_extension(mime) or "")
    try:
        return read_extension(PurePosixPath(urlsplit(url).path).suffix)
    except ValueError:
        return None


def read_extension(name: str) -> str | None:
    """Reads a file extension, with or without its dot; returns None for an invalid extension."""
    extension = name.strip().lower().lstrip(".")
    return extension if _EXTENSION.fullmatch(extension) else None


def read_usage(usage: object) -> Usage:
    """Reads the four billing fields, each of which is a string, a number or null."""
    source = table(usage)
    seconds = amount(source.get("taskCostTime"))
    return Usage(
        money=_billed(source, "consumeMoney"),
        third_party_money=_billed(source, "thirdPartyConsumeMoney"),
        coins=_billed(source, "consumeCoins"),
        seconds=None if seconds is None else float(seconds),
    )


def _billed(source: dict[str, object], name: str) -> Decimal | None:
    """Reads an amount of a task; treats a negative amount as unknown, because it would lower the sums of a run."""
    billed = amount(source.get(name))
    if billed is not None and billed < 0:
        _log.warning("RunningHub reports a negative %s for a task (%s); the cost is treated as unknown.", name, billed)
        return None
    return billed


def read_item_usage(items: list[object]) -> Usage:
    """Reads the billing fields of `/task/openapi/outputs`, where each item repeats the cost of the whole task."""
    usages = (read_usage(item) for item in items)
    return next((usage for usage in usages if usage != Usage()), Usage())


def read_failure(reason: object) -> Failure | None:
    """Reads `failedReason`: an object, a string, an object in a string, or nothing."""
    found = unfold(reason)
    if not isinstance(found, dict):
        message = mask(compact(found)).strip() if found else ""
        return Failure(exception_message=message) if message else None
    failure = Failure.read(found, traceback=_read_traceback(found.get("traceback")))
    if failure != Failure():
        return failure
    return Failure(exception_message=mask(compact(found))) if found else None


def _read_traceback(value: object) -> tuple[str, ...]:
    lines = (mask(text(row)).rstrip() for row in rows(value))
    return tuple(line for line in lines if line)


def read_node_errors(tips: object) -> dict[str, str]:
    """Reads `promptTips`: ComfyUI's validation result for the graph, as JSON in a string."""
    source = table(tips)
    errors = unfold(source.get("node_errors"))
    if errors and isinstance(errors, dict):
        return {mask(text(node)): mask(_node_error(error)) for node, error in errors.items()}
    if whole := errors or source.get("error"):
        return {"": mask(compact(whole))}
    return {"": "the graph is not valid"} if source.get("result") is False else {}


def _node_error(error: object) -> str:
    source = table(error)
    rejected = (row for row in rows(source.get("errors")) if isinstance(row, dict))
    messages = (_joined(": ", text(row.get("message")), text(row.get("details"))) for row in rejected)
    return _joined(": ", text(source.get("class_type")), _joined("; ", *messages)) or compact(error)


def _joined(separator: str, *parts: str) -> str:
    return separator.join(filter(None, parts))


class WebhookDelivery(Value):
    """A webhook's body. Webhooks are not signed: confirm the state with a query before you use it.

    Attributes:
        task_id: The task that the body names.
        event: The kind of event that the body names.
        view: The state of the task in the body; None if the state is not readable.
    """

    task_id: str
    event: str = ""
    view: TaskView | None = None


def _time(value: object) -> str:
    return "-".join(filter(None, (text(part).strip() for part in rows(value))))  # Java also writes a list of numbers


Time = Annotated[str, BeforeValidator(_time)]


class WebhookEvent(Value):
    """RunningHub's record of one task's webhook.

    Attributes:
        event_id: The id for `resend`.
        task_id: The id of the task.
        url: The receiver's address, which may contain the receiver's secret and is in no repr.
        event: The kind of the event.
        view: The task's state according to the event; not verified.
        status: The outcome of the delivery: SUCCESS and FAILED are known.
        response: The receiver's response, or the reason why there is none; in no repr, like `url`.
        retries: The number of repeated deliveries.
        created_at: The time of creation in RunningHub's format, without a time zone.
        updated_at: The time of the last delivery.
    """

    event_id: Text = wire("id", "webhookId")
    task_id: Text = wire("taskId")
    url: Text = wire("webhookUrl", repr=False)
    event: Text = wire("event")
    view: TaskView | None = None
    status: Upper = wire("callbackStatus")
    response: Masked = wire("callbackResponse", repr=False)
    retries: Number = wire("retryCount", default=0)
    created_at: Time = wire("createTime")
    updated_at: Time = wire("updateTime")
