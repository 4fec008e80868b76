"""The emulator's recorder: who submitted what, what was charged, what went over the wire. No key's value is in them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from typing import Final

_LONGEST_DATA: Final = 200
_LOOK_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Submission:
    """One submit of a task.

    Attributes:
        number: Which submit it was, from 1.
        task_id: Its task; empty where it was not accepted.
        endpoint: What was asked: a model's endpoint, `run/workflow/…`, or the whole path of a v1 start.
        payload: The request's body; data URIs are shortened.
        key_name: Whose key.
        accepted: Whether there is a task, and it was charged.
        charged: What it cost at acceptance, in money.
        time: When, by the emulator's clock.
        code: Why it was not accepted: RunningHub's code, or the kind of the fault.
        coins: What it cost at acceptance, in RH coins.
        inputs: The SHA-256 of the files that a model was given, by wire key, in the order of the request.
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


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; `status` is 0 until it was answered, and stays 0 where it never was."""

    number: int
    method: str
    path: str
    status: int
    time: float


@dataclass(frozen=True, slots=True)
class Upload:
    """One file that a client sent."""

    file_name: str
    size: int
    sha256: str
    key_name: str
    time: float


@dataclass(frozen=True, slots=True)
class Download:
    """One request for a file; `sent` are the bytes of the body that went out so far."""

    number: int
    path: str
    task_id: str
    status: int
    sent: int
    time: float


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task as it stands now; `coins` are those that were not paid back."""

    task_id: str
    endpoint: str
    status: str
    charged: Decimal
    refunded: Decimal
    coins: int = 0


@dataclass(frozen=True, slots=True)
class Delivery:
    """One POST of a webhook; `status` is the receiver's HTTP status, or 0 where it gave none."""

    number: int
    task_id: str
    url: str
    body: Mapping[str, object]
    status: int
    time: float


class Recorder:
    """Everything that happened, readable at any time from any thread.

    Args:
        tasks: Lists the tasks as they stand.
        mask: Writes names instead of keys.
        lock: Guards the tasks too: one lock, so that a condition may look at both.
    """

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

    @property
    def submissions(self) -> list[Submission]:
        """All submits, refused ones too."""
        return list(self._submissions)

    @property
    def paid(self) -> list[Submission]:
        """The submits that were accepted, and so paid for."""
        return [submission for submission in self._submissions if submission.accepted]

    @property
    def charged(self) -> Decimal:
        """What all accounts paid, less what was paid back."""
        return sum((task.charged - task.refunded for task in self.tasks), Decimal(0))

    @property
    def coins(self) -> int:
        """What all accounts paid in RH coins, less what was paid back."""
        return sum(task.coins for task in self.tasks)

    @property
    def deliveries(self) -> list[Delivery]:
        """All webhooks that were sent, retries too."""
        return list(self._deliveries)

    @property
    def tasks(self) -> list[TaskRow]:
        """All tasks as they stand now."""
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
        """All files that clients sent."""
        return list(self._uploads)

    @property
    def downloads(self) -> list[Download]:
        """All requests for result files."""
        return list(self._downloads)

    def served(self, task_id: str) -> int:
        """Counts the bytes of a task's results that were sent."""
        return sum(download.sent for download in self.downloads if download.task_id == task_id)

    def wait(self, condition: Callable[[Recorder], bool], *, seconds: float = 10.0) -> bool:
        """Blocks until something is in the recorder, as in `recorder.wait(lambda b: len(b.paid) == 1)`.

        Returns:
            Whether it was, in time.
        """
        end = time.monotonic() + seconds
        while not condition(self):
            if time.monotonic() > end:
                return False
            with self._changed:  # tasks also move without an entry in the recorder, hence the short time
                self._changed.wait(_LOOK_SECONDS)
        return True

    def add_submission(self, submission: Submission) -> None:
        """Writes a submit down, with its number."""
        plain = self._plain(submission.payload)
        payload = plain if isinstance(plain, dict) else {}
        endpoint = self._mask(submission.endpoint)
        with self._changed:
            number = len(self._submissions) + 1
            self._submissions.append(replace(submission, number=number, endpoint=endpoint, payload=payload))
            self._changed.notify_all()

    def add_upload(self, upload: Upload) -> None:
        """Writes an upload down."""
        with self._changed:
            self._uploads.append(upload)
            self._changed.notify_all()

    def add_delivery(self, delivery: Delivery) -> None:
        """Writes a webhook down, with its number."""
        with self._changed:
            self._deliveries.append(replace(delivery, number=len(self._deliveries) + 1))
            self._changed.notify_all()

    def add_download(self, path: str, *, task_id: str, status: int, at: float) -> int:
        """Writes a download down when its answer begins.

        Returns:
            Its number.
        """
        with self._changed:
            number = len(self._downloads) + 1
            self._downloads.append(Download(number, path, task_id, status, 0, at))
            self._changed.notify_all()
            return number

    def update_download(self, number: int, sent: int) -> None:
        """Writes down how much of a download has gone out."""
        with self._changed:
            self._downloads[number - 1] = replace(self._downloads[number - 1], sent=sent)
            self._changed.notify_all()

    def add_request(self, method: str, path: str, *, at: float) -> int:
        """Writes a request down when it comes in.

        Returns:
            Its number.
        """
        with self._changed:
            number = len(self._requests) + 1
            self._requests.append(Request(number, method, self._mask(path), 0, at))
            self._changed.notify_all()
            return number

    def update_request(self, number: int, status: int) -> None:
        """Writes down how a request was answered."""
        with self._changed:
            self._requests[number - 1] = replace(self._requests[number - 1], status=status)
            self._changed.notify_all()

    def to_json(self) -> dict[str, object]:
        """Writes the recorder as JSON; amounts are strings."""
        return {
            "charged": str(self.charged),
            "coins": self.coins,
            "submissions": _rows(self.submissions),
            "tasks": _rows(self.tasks),
            "cancelled": self.cancelled,
            "requests": _rows(self.requests),
            "uploads": _rows(self.uploads),
            "downloads": _rows(self.downloads),
            "deliveries": _rows(self.deliveries),
        }

    def _plain(self, value: object) -> object:
        """Takes keys and the bulk of data URIs out of a payload."""
        if isinstance(value, str):
            long = value.startswith("data:") and len(value) > _LONGEST_DATA
            return self._mask(f"{value[:_LONGEST_DATA]}… ({len(value)} characters)" if long else value)
        if isinstance(value, Mapping):
            return {key: self._plain(item) for key, item in value.items()}
        return [self._plain(item) for item in value] if isinstance(value, list) else value


Row = Submission | Request | Upload | Download | TaskRow | Delivery


def _rows(rows: Iterable[Row]) -> list[dict[str, object]]:
    return [{key: _json(value) for key, value in asdict(row).items()} for row in rows]


def _json(value: object) -> object:
    return str(value) if isinstance(value, Decimal) else value
