"""The journal's records about one paid job, each created once and never changed.

Keys of a job's records are `<job key>-<what>-<n>`, where n counts the submissions; `job_records_and_state` makes and
reads them.
docs/never-pay-twice.md lists these records, and says what each contains and when it is created.

Besides the jobs, a scope contains `format-1`, its first record, and `media-<hash of a name>-<n>`, n from 1 without
gaps: a `MediaRecord` for each content of an input. The name is the input's address as the caller gave it, without a
signature.

A scope also contains `cancel-<attempt>`, after which that attempt of the run submits nothing more. A named scope
outside of flows contains `attempt-<n>` for each process that has opened it.
"""

from __future__ import annotations

import os
import re
import socket
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rh_prefect.display_texts import beginning_of_prompt, cut_middle, with_prompt
from rh_prefect.errors import ApiError, ConnectFailed, InputError, NextTask, RefusalScope, ResponseLost, Retry
from rh_prefect.media.media import Media
from rh_prefect.redaction import mask

_PROMPT_SHOWN = 80
"""Number of characters of a prompt in messages about an unknown submission; prompts of a run often begin alike."""

_FILE_SHOWN = 32
"""Number of characters of a file name in such a message; of a longer name, the beginning and the end are shown."""


class Owner(BaseModel):
    """Identifies a process; a later process with the same pid has another identity."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str
    boot: str  # The host's boot id; a pid identifies nothing after a reboot or in another container
    pid: int
    started: str  # When the kernel started it, in clock ticks since boot


def current_owner() -> Owner:
    """Returns the identity of this process, even after a fork."""
    return _owner_of(os.getpid())


@cache
def _owner_of(pid: int) -> Owner:
    return Owner(host=socket.gethostname(), boot=_boot_id(), pid=pid, started=_start_time(pid) or "")


# The kernel may give a child the pid of an ancestor that has ended; with the ancestor's start it would count as dead.
os.register_at_fork(after_in_child=_owner_of.cache_clear)


def is_visible(owner: Owner) -> bool:
    """Returns whether this process can tell if another process has ended, as processes of one boot of a host can."""
    current = current_owner()
    return bool(owner.boot and owner.started) and (owner.host, owner.boot) == (current.host, current.boot)


def is_surely_dead(owner: Owner) -> bool:
    """Returns whether a process on this host has certainly ended."""
    if not is_visible(owner):
        return False
    started = _start_time(owner.pid)
    if started is None:
        # A /proc that is mounted with hidepid hides the processes of other users.
        return not _exists(owner.pid)
    return started != owner.started


def _boot_id() -> str:
    """Returns the boot's id and the pid namespace, because two containers of a host may have equal pids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it belongs to another user
    return True


def _start_time(pid: int) -> str | None:
    """Returns field 22 of /proc/<pid>/stat, or the state Z for a zombie; None if no such process is visible."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command's name stands in brackets and may itself hold brackets and blanks.
    state, *fields = text.rpartition(")")[2].split()
    return state if state == "Z" else fields[18]


class Record(BaseModel):
    """The fields that every record has."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    # Identifies this creation, so that one whose response was lost is recognised
    token: str = Field(default_factory=lambda: uuid.uuid4().hex)
    # When it was written, ISO 8601 in UTC by the writer's clock. The ages of results and of rounds, which can decide
    # what is paid, are counted from it
    at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))


class Requested(BaseModel):
    """The request of a submission, and its account."""

    account: str  # The account that pays, by name or by fingerprint of its key; never the key
    site: str  # RunningHub's host
    model: str  # The model's name in RunningHub's documentation
    endpoint: str  # Path below `/openapi/v2/`
    payload: dict[str, Any]  # The request's parameters; files by content, as `sha256:…`
    take: int = 1  # Which of several results of the request
    label: str | None = None  # The caller's name for the output
    flow: str = ""  # Name of the flow or the pipeline, used in file names
    pipeline: str = ""  # Name of the pipeline; empty for a call
    graph: str = ""  # For a saved workflow or an app, a fingerprint of the graph that the site had under its id

    @property
    def requested(self) -> dict[str, Any]:
        """Returns the fields of `Requested` by name, for another record."""
        return {name: getattr(self, name) for name in Requested.model_fields}


class Intent(Record, Requested):
    """The record that is created before a POST. If it exists, the job may have been paid for."""

    owner: Owner  # The process that posts
    credentials: str | None = None  # Name of the credentials block, if one was named
    storage: str | None = None  # Name of the storage block, if one was named
    store: str = ""  # URL of the storage for the files
    base: str  # Hash of all that makes two calls equal
    run: str = ""  # Short name of the run, used in file names
    flow_run: str = ""  # The flow run that submits a work of a pipeline; empty for a job of a scope
    estimate: Decimal | None = None  # Expected price
    currency: str | None = None  # The currency of the estimate
    give_up: float = 30.0  # Seconds in which the POST must begin, from before the claim was written
    submit_timeout: float = 60.0  # Seconds that the POST may take
    attempt: int = 1  # The flow-run attempt
    # Whether RunningHub was requested to send a webhook at the end; its secret address is not recorded
    webhook: bool = False
    files: tuple[str, ...] = ()  # Names of its input files, for messages; `payload` has only their content hashes

    @property
    def request_words(self) -> str:
        """Returns the endpoint, with the label, prompt and files by which a person recognises the request."""
        prompt = beginning_of_prompt(self.payload, _PROMPT_SHOWN)
        files = ", ".join(cut_middle(name, _FILE_SHOWN) for name in self.files)
        shown = (self.label, prompt and f'prompt "{prompt}"', files and f"input files {files}")
        return mask(with_prompt(self.endpoint, ", ".join(filter(None, shown))))

    @property
    def account_words(self) -> str:
        """Describes the paying account in messages; see `account_words`."""
        return account_words(self.account, self.credentials)


def account_words(account: str, block: str | None) -> str:
    """Returns the words after "account" in a message: the name or fingerprint, and the source of the key."""
    source = "RH_API_KEY" if block is None else f"block {block!r}"
    return f"of {source} (key fingerprint {account})" if is_fingerprint(account) else f"{account} ({source})"


def is_fingerprint(account: str) -> bool:
    """Returns whether a record names an account by the fingerprint of its key."""
    return re.fullmatch("[0-9a-f]{12}", account) is not None


FORMAT = 7
"""The format of the records. Raise it when the meaning of a record changes."""

FORMAT_KEY = "format-1"


class Format(Record):
    """The first record of a scope: the format version of all its records. Its token is the id of a shared place."""

    format: int = FORMAT


NOT_DELIVERED = "not-delivered"
"""This package's code for a request that did not leave this machine."""

NOT_SENT = "not-sent"
"""This package's code for a request that could not be serialised."""

BROKEN = "node-errors"
"""This package's code for a workflow in which RunningHub found broken nodes at the submission."""

GAVE_UP = "gave-up"
"""This package's code for a claim without a POST, because the process was stopped or slow, or the run was cancelled."""


class Answer(Record):
    """The record of the answer to a POST."""

    outcome: Literal["ticket", "refused", "unknown"]  # `ticket`, `refused` (definitely not accepted) or `unknown`
    task_id: str | None = None  # RunningHub's task id; with `ticket`
    code: str = ""  # RunningHub's code, or this package's for a request that was never sent
    reason: str = ""  # RunningHub's message
    retry: Retry = "final"  # How to continue after a refusal
    no_slot: bool = False  # Whether the account had no free slot
    # What the account refuses, if another account may accept the request; None if none would
    account_scope: RefusalScope | None = None
    # With a ticket: the nodes of a workflow that RunningHub reports as broken, with the reason
    node_errors: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def of(cls, error: Exception) -> Answer:
        """Returns the record for a failed request; the recorded outcome is `unknown` if it may have been accepted."""
        match error:
            case ConnectFailed():
                reason = error.what or error.message
                return cls(outcome="refused", code=NOT_DELIVERED, reason=reason, retry="throttled")
            case InputError():
                return cls(outcome="refused", code=NOT_SENT, reason=error.message, retry="final")
            case ResponseLost():
                return cls(outcome="unknown", reason=error.what or error.message, retry="unknown")
            case ApiError():  # only the code decides how to continue
                return cls(
                    outcome="unknown" if error.retry in ("unknown", "pending") else "refused",
                    code=error.code,
                    reason=error.reason,
                    retry=error.retry,
                    no_slot=error.no_slot,
                    account_scope=error.account_scope,
                )
            case _:
                return cls(outcome="unknown", reason=f"{type(error).__name__}: {error}", retry="unknown")


class Resolution(Record):
    """The record that resolves an unknown answer."""

    outcome: Literal["adopted", "forgotten"]  # `adopted`, with the task, or `forgotten`: the next call pays again
    task_id: str | None = None  # The adopted task
    by: str = ""  # Who settled it: a person, the late owner, or the `on_unknown` option


class Lost(Record):
    """Records that the result of an accepted and paid task is lost; another task may then be paid for."""

    by: str = ""  # Who has confirmed it
    # Whether the task had succeeded, and its files can be downloaded no more; else RunningHub has lost the task itself
    of_result: bool = False


class Link(BaseModel):
    """One output in RunningHub's list: the link of a file, or a text."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str | None = None
    text: str | None = None
    type: str | None = None
    node_id: str | None = None


class Charged(Record):
    """The cost and the durations of a task."""

    cost: Decimal | None = None  # Its cost, if RunningHub reports it
    currency: str | None = None  # The currency of the cost
    coins: Decimal | None = None  # The coins of a task that cost coins beside its money
    queued_seconds: float | None = None  # Time from the answer to the first poll in which it ran
    run_seconds: float | None = None  # Time that it ran, as RunningHub reports it or as it was measured here

    @property
    def charged(self) -> dict[str, Any]:
        """Returns the fields of `Charged` by name, for another record of the task."""
        return {name: getattr(self, name) for name in Charged.model_fields.keys() - Record.model_fields.keys()}


class End(Charged):
    """The record of a task's terminal state."""

    status: Literal["SUCCESS", "FAILED", "CANCELLED"]  # `SUCCESS`, `FAILED` or `CANCELLED`
    task_id: str  # RunningHub's task id
    links: tuple[Link, ...] = ()  # Its outputs; links expire after about a day
    code: str = ""  # RunningHub's code of a failure
    reason: str = ""  # What failed, in one line, with the node and its exception
    next_task: NextTask = "later"  # When another task is paid for after this failure
    advice: str = ""  # What a person does about the failure; empty if only another task helps
    attempt: int = 1  # The flow-run attempt that recorded the end


class ResultRecord(Charged):
    """The record of a work's result. An `End` says that a work is paid for; this record says that the work is done."""

    task_id: str  # RunningHub's task id
    n: int = 1  # The number of its submission
    # The flow run that paid for a work that runs share; empty in the scope of one run. Of a stored result of another
    # work, that work's full name
    flow_run: str = ""
    base: str = ""  # Hash of the request
    store: str = ""  # URL of the storage of its files
    outputs: tuple[Media, ...] = ()  # Its files; `uri` is the name in the store
    # The state in which the store reported each file right after it was published; a file in the same state is not read
    # to check it
    states: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    value: Any = None  # The answer as `parse` of a pipeline's step read it

    @property
    def is_adopted(self) -> bool:
        """Whether the record refers to the stored result of another work; this work then cost nothing."""
        return "/" in self.flow_run

    @property
    def is_damaged(self) -> bool:
        """Whether one of the files was damaged in each download from RunningHub."""
        return any(file.defect is not None for file in self.outputs)


class MediaRecord(Record):
    """An input's content at the time of reading, and the name under which the input was read."""

    uri: str  # Where it was read, without user and query, for display
    sha256: str  # Hex digest of the content
    size: int  # Bytes
    kind: str  # Its kind of media, by its content
    mime: str  # Its MIME type, by its content
    extension: str  # Its usual extension, without a dot
    seconds: float | None = None  # Duration of a video or audio
    stamp: str = ""  # The state in which it was read, if an equal stamp proves an equal content; else empty
    stored: str = ""  # Name of its copy in the store; only of a link whose host gives no strong ETag


class Cancelled(Record):
    """The record of a cancelled attempt: once it exists, this attempt of the run submits nothing more."""

    by: str = ""
