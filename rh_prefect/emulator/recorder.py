"""The recorder: submissions, charges, requests, uploads, downloads and webhooks. No record contains a key's value."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final, TypeVar

from pydantic_core import to_jsonable_python

_LONGEST_DATA: Final = 200
_LONGEST_PROMPT: Final = 40
_LOOK_SECONDS: Final = 0.02
_PROXY_KEY: Final = re.compile(r"^(/proxy(?:-plus)?/)(?!<)[^/]+")
"""A key in the path of the native proxy that is no key of the emulator."""


@dataclass(frozen=True, slots=True, repr=False)
class Submission:
    """A recorded submission, accepted or refused.

    Attributes:
        number: The submission's number, counted from 1.
        task_id: The id of the created task; empty if the submission was refused.
        endpoint: A model's endpoint, `run/workflow/…`, `/proxy`, or the full path of a v1 start request.
        payload: The request's body; data URIs are shortened.
        key_name: The name of the key.
        accepted: Whether a task exists and was charged.
        charged: The charge at acceptance, in money.
        time: The time by the emulator's clock.
        code: The reason for a refusal: RunningHub's code, or the kind of the fault.
        coins: The charge at acceptance, in RH coins.
        inputs: The SHA-256 of the model's input files, by wire key, in the order of the request.
    """

    number: int
    task_id: str
    endpoint: str
    payload: Mapping[str, object]
    key_name: str
    accepted: bool
    charged: Decimal
    time: float
    code: str = ""
    coins: int = 0
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Returns cost, endpoint and prompt in one short line, which a failed assertion shows."""
        cost = f"{self.coins} coins" if self.coins else f"cost {self.charged}"
        prompt = self.payload.get("prompt") or self.payload.get("text")
        words = f" {prompt[:_LONGEST_PROMPT]!r}" if isinstance(prompt, str) else ""
        return f"<{self.number}: {cost if self.accepted else f'refused {self.code}'}, {self.endpoint}{words}>"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; `status` is 0 if there was no response."""

    number: int
    method: str
    path: str
    status: int
    time: float


@dataclass(frozen=True, slots=True)
class Upload:
    """A recorded upload of a file."""

    file_name: str
    size: int
    sha256: str
    key_name: str
    time: float


@dataclass(frozen=True, slots=True)
class Download:
    """One download; `sent` is the number of body bytes sent so far."""

    number: int
    path: str
    task_id: str
    status: int
    sent: int
    time: float


@dataclass(frozen=True, slots=True)
class TaskRow:
    """The current state of a task; `coins` excludes refunds."""

    task_id: str
    endpoint: str
    status: str
    charged: Decimal
    refunded: Decimal
    coins: int = 0


@dataclass(frozen=True, slots=True)
class Delivery:
    """One POST of a webhook; `status` is the receiver's HTTP status, or 0 if there was none."""

    number: int
    task_id: str
    url: str
    body: Mapping[str, object]
    status: int
    time: float


R = TypeVar("R", Submission, Request, Download, Delivery)


class Recorder:
    """Records everything that happens; any thread may read the records at any time."""

    def __init__(
        self, tasks: Callable[[], list[TaskRow]], mask: Callable[[str], str], *, lock: threading.RLock
    ) -> None:
        self._tasks = tasks
        self._mask = mask
        self._changed = threading.Condition(lock)
        self._submissions: list[Submission] = []
        self._requests: list[Request] = []
        self._uploads: list[Upload] = []
        self._downloads: list[Download] = []
        self._deliveries: list[Delivery] = []

    def __repr__(self) -> str:
        """Returns the total cost and all submissions."""
        return f"<Recorder: cost {self.charged}, {self.coins} coins; {self.submissions}>"

    @property
    def submissions(self) -> list[Submission]:
        """All submissions, including refused ones."""
        return list(self._submissions)

    @property
    def paid(self) -> list[Submission]:
        """The accepted submissions, which are paid."""
        return [submission for submission in self._submissions if submission.accepted]

    @property
    def charged(self) -> Decimal:
        """The total cost in money, less refunds."""
        return sum((task.charged - task.refunded for task in self.tasks), Decimal(0))

    @property
    def coins(self) -> int:
        """The total cost in RH coins, less refunds."""
        return sum(task.coins for task in self.tasks)

    @property
    def deliveries(self) -> list[Delivery]:
        """All webhooks that were sent, including retries."""
        return list(self._deliveries)

    @property
    def tasks(self) -> list[TaskRow]:
        """All tasks in their current state."""
        return self._tasks()

    @property
    def cancelled(self) -> list[str]:
        """The ids of the tasks that were cancelled."""
        return [task.task_id for task in self.tasks if task.status == "CANCELLED"]

    @property
    def requests(self) -> list[Request]:
        """All requests to the API."""
        return list(self._requests)

    @property
    def uploads(self) -> list[Upload]:
        """All uploads."""
        return list(self._uploads)

    @property
    def downloads(self) -> list[Download]:
        """All downloads of result files."""
        return list(self._downloads)

    def served(self, task_id: str) -> int:
        """Returns the number of bytes of a task's results that were sent."""
        return sum(download.sent for download in self.downloads if download.task_id == task_id)

    def wait(self, condition: Callable[[Recorder], bool], *, seconds: float = 300.0) -> bool:
        """Blocks until a condition holds, as in `recorder.wait(lambda recorder: recorder.paid)`.

        Returns:
            Whether the condition held in time.
        """
        end = time.monotonic() + seconds
        while not condition(self):
            if time.monotonic() > end:
                return False
            with self._changed:  # tasks also move without an entry in the recorder, hence the short time
                self._changed.wait(_LOOK_SECONDS)
        return True

    def add_submission(self, submission: Submission) -> None:
        """Records a submission and numbers it."""
        plain = self._plain(submission.payload)
        payload = plain if isinstance(plain, dict) else {}
        self._add(self._submissions, replace(submission, endpoint=self._mask(submission.endpoint), payload=payload))

    def add_upload(self, upload: Upload) -> None:
        """Records an upload."""
        with self._changed:
            self._uploads.append(upload)
            self._changed.notify_all()

    def add_delivery(self, delivery: Delivery) -> None:
        """Records a webhook and numbers it."""
        self._add(self._deliveries, delivery)

    def add_download(self, path: str, *, task_id: str, status: int, at: float) -> int:
        """Records a download when its response begins, and returns its number."""
        return self._add(self._downloads, Download(0, self._masked_path(path), task_id, status, 0, at))

    def update_download(self, number: int, sent: int) -> None:
        """Records the number of bytes that were sent for a download."""
        self._update(self._downloads, number, sent=sent)

    def add_request(self, method: str, path: str, *, at: float) -> int:
        """Records a request on arrival, and returns its number."""
        return self._add(self._requests, Request(0, method, self._masked_path(path), 0, at))

    def update_request(self, number: int, status: int) -> None:
        """Records the status of a response."""
        self._update(self._requests, number, status=status)

    def _add(self, rows: list[R], row: R) -> int:
        with self._changed:
            rows.append(replace(row, number=len(rows) + 1))
            self._changed.notify_all()
            return len(rows)

    def _update(self, rows: list[R], number: int, **changes: Any) -> None:
        with self._changed:
            rows[number - 1] = replace(rows[number - 1], **changes)
            self._changed.notify_all()

    def to_json(self) -> dict[str, object]:
        """Returns all records as JSON; amounts are strings."""
        records: dict[str, object] = to_jsonable_python(
            {
                "charged": self.charged,
                "coins": self.coins,
                "submissions": self.submissions,
                "tasks": self.tasks,
                "cancelled": self.cancelled,
                "requests": self.requests,
                "uploads": self.uploads,
                "downloads": self.downloads,
                "deliveries": self.deliveries,
            }
        )
        return records

    def _masked_path(self, path: str) -> str:
        return _PROXY_KEY.sub(r"\1<unknown>", self._mask(path))

    def _plain(self, value: object) -> object:
        """Masks keys and shortens data URIs in a payload."""
        if isinstance(value, str):
            long = value.startswith("data:") and len(value) > _LONGEST_DATA
            return self._mask(f"{value[:_LONGEST_DATA]}… ({len(value)} characters)" if long else value)
        if isinstance(value, Mapping):
            return {key: self._plain(item) for key, item in value.items()}
        return [self._plain(item) for item in value] if isinstance(value, list) else value
