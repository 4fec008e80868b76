"""Scripted faults: which requests fail, and how."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from typing import Final, Literal, get_args

from rh_prefect.emulator.request_texts import words
from rh_prefect.errors import InputError

Route = Literal[
    "submit",
    "query",
    "status",
    "outputs",
    "upload",
    "legacy-upload",
    "lora",
    "download",
    "cancel",
    "queue",
    "price",
    "account",
    "keys",
    "resources",
    "assets",
    "workflow",
    "app",
    "apps",
    "quick-create",
    "event",
    "resend",
    "webhook",
    "progress",
]
"""The requests that a fault can match.

`submit` is every start of a paid task: of a model, a workflow or an app, in v1 and v2; `endpoint` distinguishes them.
`query`, `status` and `outputs` are the three polls. `workflow` is a workflow's JSON, `app` a call example, `apps` the
list of apps, `event` and `resend` the detail and the repetition of a webhook. `webhook` is a delivery by the emulator,
`progress` a connection at `netWssUrl`.
"""

Kind = Literal[
    "cut",
    "half",
    "stall",
    "hold",
    "slow",
    "html",
    "empty",
    "429",
    "500",
    "502",
    "503",
    "504",
    "code",
    "fail",
    "node-errors",
    "at-once",
    "expired",
    "wrong-length",
    "short",
    "changed",
    "no-results",
    "odd-link",
    "lost",
    "late",
    "doubled",
    "forged",
    "drop",
]
"""The effect of a fault.

- `cut`: the connection closes without a response; a download is cut at the share `at`.
- `half`: the connection closes in the middle of the response.
- `stall`: no response, or no more of it, for `seconds` (default 600); then the connection closes.
- `hold`: the response waits for `rh.held.release()`, at most `seconds` (default 300).
- `slow`: the response comes `seconds` (default 1) later.
- `html`, `empty`: HTTP 200 with a web page, or without a body. `429` and `50x`: that HTTP status.
- `code`: RunningHub's error `code`, in the format of the route.
- Only for a submit: `fail`: the task will fail; a graph fails in the node `node`. `node-errors`: accepted, with
  `promptTips` that name invalid nodes; then the task fails. `at-once`: the response has the status SUCCESS.
- Only for a download: `expired`: the link has expired. `wrong-length`: Content-Length is larger than the body. `short`:
  half of the file, with a matching Content-Length. `changed`: another ETag, so that If-Range does not match.
- Only for a query: `no-results`: a success without results. `odd-link`: the `url` of each result is `link`.
- Only for a webhook: `lost`: not sent. `late`: sent `seconds` (default 1) of real time later. `doubled`: sent twice.
  `forged`: a forged event is sent before the real one.
- Only for progress: `drop`: the connection closes at the share `at` of the frames.
"""

Phase = Literal["before", "after"]
"""Whether the request fails before it has an effect, or its response is lost after the task was paid for."""

_ONLY: Final[dict[str, Route]] = {
    **dict.fromkeys(("fail", "node-errors", "at-once"), "submit"),
    **dict.fromkeys(("expired", "wrong-length", "short", "changed"), "download"),
    **dict.fromkeys(("no-results", "odd-link"), "query"),
    **dict.fromkeys(("lost", "late", "doubled", "forged"), "webhook"),
    "drop": "progress",
}
TOO_FAST: Final = "TASK_CREATE_TOO_FAST"
"""The message of a refusal whose number is not published; a fault names the refusal by its message."""

_ONLY_THESE: Final = ("webhook", "progress")
_BEFORE: Final = ("429", "code")
_LOSES: Final = ("cut", "half", "stall", "html", "empty", "429", "500", "502", "503", "504", "code")


@dataclass(frozen=True, slots=True)
class Fault:
    """An error that the emulator produces on purpose, and the requests that this error affects.

    A fault counts the matching requests since the fault was added, including refused requests; `number`, `every` and
    `times` choose among them. If none of these three is set, every matching request fails.

    Attributes:
        on: The requests that can fail.
        number: Only the n-th matching request fails, counted from 1.
        kind: The effect.
        every: Only each n-th matching request fails.
        times: The maximum number of requests that fail.
        endpoint: Only requests whose endpoint fits this pattern, as in `kling-*`, `run/workflow/*` or
            `/task/openapi/*`.
        prompt: Only requests with this string in one of their values; links and the webhook's address do not count.
        phase: See `Phase`; by default `after`, but `before` for `429` and `code`.
        seconds: See `Kind`.
        code: RunningHub's code, for `code` and `fail`; `TASK_CREATE_TOO_FAST` has no known number.
        message: The code's message; by default the published text.
        node: The node that fails, for `node-errors`, and for `fail` if a graph runs.
        exception: The exception of the node.
        at: The share at which a download, or a connection at `netWssUrl`, is cut.
        link: The `url` of results, for `odd-link`.
    """

    on: Route
    number: int | None = None
    kind: Kind = "cut"
    every: int | None = None
    times: int | None = None
    endpoint: str | None = None
    prompt: str | None = None
    phase: Phase | None = None
    seconds: float | None = None
    code: str = ""
    message: str = ""
    node: str = "KSampler"
    exception: str = "RuntimeError"
    at: float = 0.5
    link: str = ""

    def __post_init__(self) -> None:
        counts = (self.number, self.every, self.times)
        if any(count is not None and (type(count) is not int or count < 1) for count in counts):
            raise InputError("`number`, `every` and `times` of a fault are whole numbers from 1.")
        texts = (self.endpoint or "", self.prompt or "", self.code, self.message, self.node, self.exception, self.link)
        if not all(isinstance(text, str) for text in texts) or self.phase not in (None, *get_args(Phase)):
            raise InputError("`phase` of a fault is a `Phase`; its filters, code, message, node and link are texts.")
        if not (self.seconds is None or _is_number(self.seconds, most=math.inf)) or not _is_number(self.at, most=1):
            raise InputError("`seconds` of a fault is a number from 0, and `at` a number from 0 to 1.")
        if self.phase == "before" and self.kind not in _LOSES:
            raise InputError(f"The fault {self.kind!r} loses no request, so that its phase cannot be 'before'.")
        if self.on not in get_args(Route) or self.kind not in get_args(Kind):
            raise InputError(
                f"Unknown fault {self.kind!r} on {self.on!r}. What to do: use a `Kind` and a `Route` from "
                "rh_prefect.emulator.faults."
            )
        if _ONLY.get(self.kind, self.on) != self.on:
            raise InputError(f"The fault {self.kind!r} applies only to {_ONLY[self.kind]!r}, not to {self.on!r}.")
        if self.on in _ONLY_THESE and self.kind not in _ONLY:
            raise InputError(f"The fault {self.kind!r} does not apply to {self.on!r}; see rh_prefect.emulator.faults.")
        if self.kind == "code" and (not _is_code(self.code) or self.on == "download"):
            raise InputError("A fault of the kind 'code' needs a code, and does not apply to a download.")

    @property
    def is_early(self) -> bool:
        """Whether the fault happens before the request takes effect."""
        return (self.phase or ("before" if self.kind in _BEFORE else "after")) == "before"

    def fits(self, subject: Subject) -> bool:
        """Returns whether a request matches this fault."""
        if self.on != subject.route:
            return False
        if self.endpoint is not None and not fnmatchcase(subject.endpoint, self.endpoint):
            return False
        return self.prompt is None or any(self.prompt in said for said in words(subject.payload))


def _is_number(value: object, *, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most


def _is_code(code: object) -> bool:
    return isinstance(code, str) and (code.isdecimal() or code == TOO_FAST)


@dataclass(frozen=True, slots=True)
class Subject:
    """The properties of a request that a fault can match."""

    route: Route
    endpoint: str
    payload: Mapping[str, object]


def fault_from_json(raw: Mapping[str, object]) -> Fault:
    """Reads a fault from JSON."""
    unknown = set(raw) - {field.name for field in fields(Fault)}
    if unknown or "on" not in raw:
        raise InputError(f"A fault needs the field `on`; unknown fields: {', '.join(sorted(unknown)) or 'none'}.")
    return Fault(**raw)  # type: ignore[arg-type]  # __post_init__ checks the values


class Faults:
    """All scripted faults, with their counts."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._entries: list[_Entry] = [_Entry(fault) for fault in faults]
        self._seen: dict[Route, int] = {}

    def add(self, *faults: Fault) -> None:
        """Adds faults; each counts the requests that follow."""
        with self._lock:
            self._entries += [_Entry(fault) for fault in faults]

    def clear(self) -> int:
        """Removes all faults; returns the number of removed faults."""
        with self._lock:
            count = len(self._entries)
            self._entries.clear()
        return count

    def seen(self, route: Route) -> int:
        """Returns the number of requests that a route has received."""
        return self._seen.get(route, 0)

    def fired(self) -> list[tuple[Fault, int]]:
        """Lists every fault with the number of times that it applied."""
        with self._lock:
            return [(entry.fault, entry.fired) for entry in self._entries]

    def to_json(self) -> list[dict[str, object]]:
        """Lists every fault as JSON."""
        return [{**asdict(fault), "fired": fired} for fault, fired in self.fired()]

    def match(self, subject: Subject) -> Fault | None:
        """Counts a request and returns the fault that applies; of several faults, the one that was added first."""
        with self._lock:
            self._seen[subject.route] = self._seen.get(subject.route, 0) + 1
            fitting = [entry for entry in self._entries if entry.fault.fits(subject)]
            due = [entry for entry in fitting if entry.counts()]
            if not due:
                return None
            due[0].fired += 1
            return due[0].fault


@dataclass(slots=True)
class _Entry:
    fault: Fault
    met: int = 0
    fired: int = 0

    def counts(self) -> bool:
        """Counts one matching request and returns whether the fault applies to it."""
        self.met += 1
        fault = self.fault
        if fault.times is not None and self.fired >= fault.times:
            return False
        if fault.number is not None:
            return self.met == fault.number
        return fault.every is None or self.met % fault.every == 0
