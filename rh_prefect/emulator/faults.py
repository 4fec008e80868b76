"""Faults that a test scripts: which request goes wrong, and how."""

from __future__ import annotations

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
"""Which requests count.

`submit` is every start of a paid task: of a model, a workflow, an app, of v1 and v2; `endpoint` tells them apart.
`query`, `status` and `outputs` are the three ways to ask for one. `workflow` is its JSON, `app` the call example,
`apps` their list, `event` and `resend` the detail of a webhook and its repetition. Two are no requests of a client:
`webhook` is a delivery that the emulator sends, `progress` a connection at `netWssUrl`.
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
"""What goes wrong.

- `cut`: the connection ends without an answer; a download ends midway. `half`: it ends in the middle of the answer.
- `stall`: no answer, or no more of it, for `seconds` (default 600); then the connection ends.
- `hold`: the response waits for `rh.held.release()`, at most `seconds` (default 30).
- `slow`: the response comes `seconds` (default 1) later.
- `html`, `empty`: HTTP 200 with a web page, or with nothing. `429` and `50x`: that HTTP status.
- `code`: RunningHub's error `code`, in the route's own form.
- Only of a submit: `fail`: the task will fail; a graph fails in the node `node`. `node-errors`: accepted, with
  `promptTips` that name broken nodes; then it fails. `at-once`: the answer says SUCCESS already.
- Only of a download: `expired`: the link is dead. `wrong-length`: Content-Length promises more than comes. `short`:
  half of the file, with a Content-Length that fits. `changed`: another ETag, so that If-Range finds another file.
- Only of a query: `no-results`: a success lists no results. `odd-link`: each result's `url` is `link`.
- Only of a webhook: `lost`: never sent. `late`: sent `seconds` (default 1) of real time later. `doubled`: sent twice.
  `forged`: a lie about the task comes before the truth.
- Only of progress: `drop`: the connection ends midway, at the share `at` of the frames.
"""

Phase = Literal["before", "after"]
"""Whether the request is lost before it has any effect, or its answer after it had it: accepted, booked and paid."""

_ONLY: Final[dict[str, Route]] = {
    **dict.fromkeys(("fail", "node-errors", "at-once"), "submit"),
    **dict.fromkeys(("expired", "wrong-length", "short", "changed"), "download"),
    **dict.fromkeys(("no-results", "odd-link"), "query"),
    **dict.fromkeys(("lost", "late", "doubled", "forged"), "webhook"),
    "drop": "progress",
}
_ONLY_THESE: Final = ("webhook", "progress")
_BEFORE: Final = ("429", "code")


@dataclass(frozen=True, slots=True)
class Fault:
    """One scripted fault.

    A fault counts the requests that fit it since it was added, refused ones too; `number`, `every` and `times` choose
    among them. Without all three, each one goes wrong.

    Attributes:
        on: Which requests.
        number: Only the n-th, from 1.
        kind: What goes wrong.
        every: Only each n-th.
        times: At most so often.
        endpoint: Only where the endpoint fits this pattern, as in `kling-*`, `run/workflow/*` or `/task/openapi/*`.
        prompt: Only of requests with this text in one of their values; links do not count, nor the webhook's address.
        phase: Default `after`; for `429` and `code` `before`.
        seconds: See `Kind`.
        code: RunningHub's code, of `code` and `fail`; `TASK_CREATE_TOO_FAST` has no known number.
        message: Its words; default the reference's own.
        node: The node that fails, of `node-errors`, and of `fail` where a graph runs.
        exception: What it raises.
        at: Where a download is cut, as a share of what was asked for; or a connection at `netWssUrl`.
        link: What stands in a result's `url`, of `odd-link`.
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
        if self.on not in get_args(Route) or self.kind not in get_args(Kind):
            raise InputError(f"There is no fault {self.kind!r} on {self.on!r}; see rh_prefect.emulator.faults.Kind.")
        if _ONLY.get(self.kind, self.on) != self.on:
            raise InputError(f"The fault {self.kind!r} can happen to a {_ONLY[self.kind]} only, not to a {self.on}.")
        if self.on in _ONLY_THESE and self.kind not in _ONLY:
            raise InputError(f"The fault {self.kind!r} cannot happen to a {self.on}; see rh_prefect.emulator.faults.")
        if self.kind == "code" and (not self.code or self.on == "download"):
            raise InputError("A fault of the kind 'code' needs a code, and an answer in RunningHub's own form.")

    @property
    def is_early(self) -> bool:
        """Whether the request has no effect."""
        return (self.phase or ("before" if self.kind in _BEFORE else "after")) == "before"

    def fits(self, subject: Subject) -> bool:
        """Tells whether a request counts for this fault."""
        if self.on != subject.route:
            return False
        if self.endpoint is not None and not fnmatchcase(subject.endpoint, self.endpoint):
            return False
        return self.prompt is None or any(self.prompt in said for said in words(subject.payload))


@dataclass(frozen=True, slots=True)
class Subject:
    """What a fault can know of a request."""

    route: Route
    endpoint: str
    payload: Mapping[str, object]


def fault_from_json(raw: Mapping[str, object]) -> Fault:
    """Reads a fault that came over HTTP."""
    unknown = set(raw) - {field.name for field in fields(Fault)}
    if unknown or "on" not in raw:
        raise InputError(f"A fault needs `on` and knows no {', '.join(sorted(unknown)) or 'more'}.")
    return Fault(**raw)  # type: ignore[arg-type]  # __post_init__ looks at the words


class Faults:
    """All scripted faults, and what became of them."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._entries: list[_Entry] = [_Entry(fault) for fault in faults]
        self._seen: dict[Route, int] = {}

    def add(self, *faults: Fault) -> None:
        """Scripts faults; each counts requests from now on."""
        with self._lock:
            self._entries += [_Entry(fault) for fault in faults]

    def clear(self) -> None:
        """Forgets all faults."""
        with self._lock:
            self._entries.clear()

    def seen(self, route: Route) -> int:
        """Tells how many requests there were."""
        return self._seen.get(route, 0)

    def fired(self) -> list[tuple[Fault, int]]:
        """Lists every fault with how often it happened."""
        with self._lock:
            return [(entry.fault, entry.fired) for entry in self._entries]

    def to_json(self) -> list[dict[str, object]]:
        """Lists every fault as JSON."""
        return [{**asdict(fault), "fired": fired} for fault, fired in self.fired()]

    def match(self, subject: Subject) -> Fault | None:
        """Counts a request, and finds the fault that happens to it; the first added wins."""
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
        """Counts one fitting request and tells whether it is the fault's turn."""
        self.met += 1
        fault = self.fault
        if fault.times is not None and self.fired >= fault.times:
            return False
        if fault.number is not None:
            return self.met == fault.number
        return fault.every is None or self.met % fault.every == 0
