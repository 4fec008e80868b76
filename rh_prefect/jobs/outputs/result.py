"""The result of a job, and the record of its task's end."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, Protocol, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from rh_prefect.client import TaskView
from rh_prefect.errors import InputError
from rh_prefect.jobs.journal.costs import COINS, CURRENCY
from rh_prefect.jobs.journal.job_records import Submit
from rh_prefect.jobs.journal.record_types import BROKEN, End, Link
from rh_prefect.media.media import Media

_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)


class Result(BaseModel):
    """A finished job: its files, already in the store, and what it cost.

    A result, or one of its outputs, can be given wherever a call takes media.

    Attributes:
        model: The model's name in RunningHub's documentation.
        endpoint: Path below `/openapi/v2/`.
        job: The job's full name, `<scope>/<key>`, as `rh-prefect jobs` takes it.
        key: The job's key.
        task_id: RunningHub's task id.
        outputs: Its files, in the order of RunningHub's answer; `Media.defect` names what is wrong with one.
        texts: Its texts; text models have nothing else.
        cost: What this call paid; 0 where an earlier result was reused, None where RunningHub does not say.
        currency: Of the cost.
        queued_seconds: Time in RunningHub's queue, as it was seen.
        run_seconds: Time that the task ran.
        reused: Whether an identical earlier request was served from the store.
        manifest: URI of the job's manifest.
        label: The caller's name for the output.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    endpoint: str
    job: str
    key: str
    task_id: str
    outputs: tuple[Media, ...] = ()
    texts: tuple[str, ...] = ()
    cost: Decimal | None = None
    currency: str | None = None
    queued_seconds: float | None = None
    run_seconds: float | None = None
    reused: bool = False
    manifest: str = ""
    label: str | None = None

    @property
    def first_output(self) -> Media:
        """The first file.

        Raises:
            InputError: The job made no file.
        """
        if not self.outputs:
            raise InputError(f"{self.job}: {self.model} made no file. What to do: read `.text`, or use another model.")
        return self.outputs[0]

    @property
    def damaged(self) -> tuple[Media, ...]:
        """The files that were damaged in every download; no paid step uses them, and a later run tries again."""
        return tuple(media for media in self.outputs if media.defect is not None)

    @property
    def text(self) -> str:
        """All texts, joined by blank lines."""
        return "\n\n".join(self.texts)

    def json(self) -> Any:  # type: ignore[override]  # pydantic's own method of this name is deprecated
        """Parses the JSON answer of a model, even if a language model added text around it.

        Raises:
            InputError: No text of the result holds JSON; the texts are paid for and stay in `texts`.
        """
        for text in self.texts:
            try:
                return _parse(text)
            except ValueError:
                continue
        raise InputError(
            f"{self.job}: {self.model} did not return JSON but {self.text[:200]!r}. What to do: ask for "
            "JSON, or read `.text`."
        )


def _parse(text: str) -> Any:
    fenced = _FENCE.search(text)
    for part in (text, *([fenced[1]] if fenced else []), *_bracketed(text)):
        try:
            return json.loads(part)
        except ValueError:
            continue
    raise ValueError("no JSON")


def _bracketed(text: str) -> list[str]:
    """The parts of a text from the first bracket to the last, objects and lists in the order in which they begin."""
    spans = [(text.find(left), text.rfind(right) + 1) for left, right in ("{}", "[]")]
    return [text[start:end] for start, end in sorted(spans) if 0 <= start < end]


class Attempt(Protocol):
    """The attempt in which a task's end was recorded; every scope provides it."""

    @property
    def attempt(self) -> int:
        """The flow-run attempt."""
        ...

    @property
    def task_attempt(self) -> int:
        """The task-run attempt."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """The attempt in which a task's end was recorded, for use without a scope."""

    attempt: int
    task_attempt: int = 1


def end_of(submit: Submit, view: TaskView, *, scope: Attempt, queued: float | None, ran: float | None) -> End:
    """Makes the record of a task's end.

    Args:
        submit: The submit that the task came from.
        view: Its terminal view.
        scope: The run that saw the end.
        queued: Seconds in the queue, as they were seen; None where it was not polled.
        ran: Seconds that it ran, as they were seen; RunningHub's own figure comes first.
    """
    return End(
        status=_status(view),
        task_id=submit.task_id or view.task_id,
        links=tuple(Link.model_validate(output.model_dump()) for output in view.outputs),
        code=view.code,
        reason=str(view.failure) if view.failure else view.reason,
        cost=view.cost,
        # A task's usage names no currency: it is the one of the account's wallet, which the intent has.
        currency=COINS if view.unit == "coins" else submit.intent.currency or CURRENCY,
        coins=view.usage.coins if view.unit == "money" else None,
        queued_seconds=_rounded(queued),
        # Standard models report a run time of 0.
        run_seconds=view.usage.seconds or _rounded(ran),
        attempt=scope.attempt,
        task_attempt=scope.task_attempt,
    )


def broken_end(submit: Submit, view: TaskView, *, scope: Attempt) -> End:
    """Makes the end of a task that was cancelled because RunningHub found broken nodes in its graph.

    Args:
        submit: The submit, whose answer names the nodes.
        view: What became of the task; one that had succeeded all the same is kept.
        scope: The run that saw the end.
    """
    end = end_of(submit, view, scope=scope, queued=0.0, ran=0.0)
    errors = submit.answer.node_errors if submit.answer else {}
    if end.status == "SUCCESS" or not errors:
        return end
    said = "; ".join(f"node {node}: {why}" if node else why for node, why in errors.items())
    return end.model_copy(update={"status": "FAILED", "code": BROKEN, "reason": said})


def with_times(end: End, *, queued: float, ran: float) -> End:
    """Adds times to an end record of another process that did not monitor the task.

    Args:
        end: What it recorded.
        queued: Seconds until the task ran, as seen here.
        ran: Seconds that it ran, as seen here.
    """
    seen = {"queued_seconds": round(queued, 3), "run_seconds": round(ran, 3)}
    return end.model_copy(update={name: value for name, value in seen.items() if getattr(end, name) is None})


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _status(view: TaskView) -> Literal["SUCCESS", "FAILED", "CANCELLED"]:
    if view.status == "SUCCESS" or view.status == "CANCELLED":
        return view.status
    return "FAILED"


class Face(BaseModel):
    """The face that `kling-lip-sync/identify-face` found in a video; `kling-lip-sync/lip-sync-video` takes both ids.

        face = Face.of(await generate(models.KlingLipSyncIdentifyFace(video_url=clip)))

    RunningHub does not describe this answer. Its ids are read in the spellings of its own parameters and of Kling's
    API; of several faces the first counts. The ids live for a limited time.

    Attributes:
        session_id: Names the analysed video.
        face_id: Names the face in it.
        start_ms: When the face comes into view, in milliseconds; 0 where the answer does not say.
        end_ms: When it leaves; None where the answer does not say.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    session_id: str = Field(min_length=1, validation_alias=AliasChoices("sessionId", "session_id"))
    face_id: str = Field(min_length=1, validation_alias=AliasChoices("faceId", "face_id"))
    start_ms: int = Field(0, validation_alias=AliasChoices("startTime", "start_time"))
    end_ms: int | None = Field(None, validation_alias=AliasChoices("endTime", "end_time"))

    @classmethod
    def of(cls, result: Result) -> Self:
        """Reads the answer of `kling-lip-sync/identify-face`.

        Args:
            result: Its result.

        Raises:
            InputError: The answer names no session or no face; it is paid for, and kept as `result.text`.
        """
        answer = result.json()
        first: dict[str, object] = next(
            (answer[name][0] for name in ("faceData", "face_data", "faces") if _has_items(answer, name)), {}
        )
        try:
            return cls.model_validate(answer | first)
        except (ValidationError, TypeError) as error:
            raise InputError(
                f"{result.job}: {result.model} returned no session or no face: {result.text[:200]!r}. "
                "What to do: use a video that shows one face from the front. The response is stored; it "
                "is not paid for again."
            ) from error


def _has_items(answer: object, name: str) -> bool:
    return isinstance(answer, dict) and isinstance(answer.get(name), list) and bool(answer[name])
