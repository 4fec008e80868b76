"""The result of a job, and the record of its task's end."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from html import escape
from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from rh_prefect.client import TaskView
from rh_prefect.display_texts import shortened
from rh_prefect.errors import InputError, explain
from rh_prefect.media.media import Media
from rh_prefect.works.journal.costs_and_budget import COINS, CURRENCY
from rh_prefect.works.journal.job_records_and_state import Submit
from rh_prefect.works.journal.record_types import BROKEN, End, Link

_T = TypeVar("_T")
_TEXT_SHOWN = 60
_SHOWN = 3
"""Maximum number of faults in an answer that an error lists."""

_FENCE = re.compile(r"```(?:json)?[^\S\n]*\n(.*?)```", re.DOTALL)


class Result(BaseModel):
    """A finished job: its files, already in the store, and its cost.

    A result, or one of its outputs, can be passed as any media parameter.

    Attributes:
        model: The model's name in RunningHub's documentation.
        endpoint: Path below `/openapi/v2/`.
        job: The job's full name, `<scope>/<key>`, as used by `rh-prefect jobs`.
        key: The job's key.
        task_id: RunningHub's task id.
        outputs: The task's files, in the order of RunningHub's response; a damaged file has a `Media.defect`.
        texts: The task's texts; text models return nothing else.
        cost: What this task cost; 0 if another run has paid for it, None if RunningHub does not report it. The job's
            failed tasks are not included; `rh-prefect jobs list` shows the cost of all tasks.
        currency: The currency of `cost`.
        queued_seconds: Measured time in RunningHub's queue.
        run_seconds: Time for which the task ran.
        reused: Whether another run has paid for the result. Outside of flows, all processes of a named scope are one
            run.
        record: URI of the JSON file that describes the result: request, cost, times and files.
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
    record: str = ""
    label: str | None = None

    @property
    def first_output(self) -> Media:
        """The first output file.

        Raises:
            InputError: The job has no file.
        """
        if not self.outputs:
            raise InputError(
                f"{self.job}: {self.model} made no file. The task was paid for. What to do: read `.text`, or use "
                "another model."
            )
        return self.outputs[0]

    @property
    def damaged(self) -> tuple[Media, ...]:
        """Files that were damaged in every download; no paid step uses them, and a later run downloads them again."""
        return tuple(media for media in self.outputs if media.defect is not None)

    @property
    def text(self) -> str:
        """All texts, joined by blank lines."""
        return "\n\n".join(self.texts)

    def json(self) -> Any:  # type: ignore[override]  # pydantic's own method of this name is deprecated
        """Parses the JSON in the texts, even if a language model added text around it.

        Raises:
            InputError: No text of the result contains JSON; the texts are paid for and remain in `texts`.
        """
        for text in self.texts:
            try:
                return _parse(text)
            except ValueError:
                continue
        raise InputError(
            f"{self.job}: {self.model} did not return JSON but {self.text[:200]!r}. The answer was paid "
            "for. What to do: ask for JSON in the prompt, or read `.text`."
        )

    def parse(self, kind: type[_T]) -> _T:
        """Reads the JSON in the texts as a type, as in `result.parse(list[Shot])` with a pydantic model `Shot`.

        Args:
            kind: Any type that pydantic validates.

        Raises:
            InputError: The texts contain no JSON that fits `kind`; the texts are paid for and remain in `texts`.
        """
        value = self.json()
        try:
            return TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            wrong = "; ".join(f"{_path(one['loc'])}{one['msg']}" for one in error.errors()[:_SHOWN])
            raise InputError(
                f"{self.job}: the answer of {self.model} does not have the expected form: {wrong}. The answer was paid "
                "for, and is in `.text`. What to do: describe the form in the prompt, and pass take=2 for a new result."
            ) from None

    def _repr_html_(self) -> str:
        """Shows the files and the texts in a notebook, with the cost."""
        head = ", ".join(filter(None, [self.label, self.model, self._cost, f"job {self.job}"]))
        texts = "".join(f"<pre>{escape(text)}</pre>" for text in self.texts)
        return f"<div><p>{escape(head)}</p>{''.join(one._repr_html_() for one in self.outputs)}{texts}</div>"

    def __repr__(self) -> str:
        """Names the model, the first output, the cost and the job."""
        more = f" and {len(self.outputs) - 1} more" if len(self.outputs) > 1 else ""
        made = f"{self.outputs[0].uri}{more}" if self.outputs else repr(shortened(self.text, _TEXT_SHOWN))
        return f"<Result of {self.model}: {made}, {self._cost}, job {self.job}>"

    __str__ = __repr__

    @property
    def _cost(self) -> str:
        if self.reused:
            return "reused"
        return "cost unknown" if self.cost is None else f"{self.cost} {self.currency or ''}".strip()


def _path(place: tuple[int | str, ...]) -> str:
    return f"{'.'.join(map(str, place))}: " if place else ""


def _parse(text: str) -> Any:
    fenced = _FENCE.search(text)
    for part in (text, *([fenced[1]] if fenced else []), *_bracketed(text)):
        try:
            return json.loads(part)
        except (ValueError, RecursionError):
            continue
    raise ValueError("no JSON")


def _bracketed(text: str) -> list[str]:
    """Returns the parts of a text from the first to the last bracket of each kind: the object, unless a list has it.

    A list beside the object is a reference, such as `[1]`, or a list of sources.
    """
    parts = [text[text.find(left) : text.rfind(right) + 1] for left, right in ("{}", "[]")]
    return parts[::-1] if parts[0] in parts[1] else parts


def end_of(submit: Submit, view: TaskView, *, attempt: int, currency: str | None = None) -> End:
    """Returns the record of a task's end from its terminal status.

    `currency` is the account's; by default, the currency that was known at the submission.
    """
    return End(
        **_how(view, submit.answer.node_errors if submit.answer else {}),
        task_id=submit.task_id or view.task_id,
        links=tuple(Link.model_validate(output.model_dump()) for output in view.outputs),
        cost=view.cost,
        # A task's usage has no currency. That of the intent is the catalogue's, if the account could not be read then.
        currency=COINS if view.unit == "coins" else currency or submit.intent.currency or CURRENCY,
        coins=view.usage.coins if view.unit == "money" else None,
        run_seconds=view.usage.seconds or None,  # standard models report 0
        attempt=attempt,
    )


def _how(view: TaskView, node_errors: Mapping[str, str]) -> dict[str, Any]:
    """Returns the fields of an `End` that say how a task has ended."""
    reason = str(view.failure) if view.failure else view.reason
    if view.status == "SUCCESS":
        return {"status": view.status, "code": view.code, "reason": reason}
    if node_errors:
        # The task was cancelled because its graph has invalid nodes, which the answer to the submission lists.
        nodes = [f"node {node}: {error}" if node else error for node, error in node_errors.items()]
        return {"status": "FAILED", "code": BROKEN, "reason": "; ".join(nodes), "next_task": "never"}
    if view.status == "CANCELLED":
        return {"status": view.status, "code": view.code, "reason": reason}
    row = explain(view.code, view.reason)
    failure = {"next_task": row.next_task, "advice": row.failure_advice}
    return {"status": "FAILED", "code": view.code, "reason": reason or (row.meaning if view.code else ""), **failure}


def with_times(end: End, *, queued: float, ran: float) -> End:
    """Adds measured times, in seconds, to an end that lacks them; RunningHub's own run time takes precedence."""
    measured = {"queued_seconds": round(queued, 3), "run_seconds": round(ran, 3)}
    return end.model_copy(update={name: value for name, value in measured.items() if getattr(end, name) is None})


class Face(BaseModel):
    """The face that `kling-lip-sync/identify-face` found in a video; `kling-lip-sync/lip-sync-video` takes both ids.

        face = (await generate(models.KlingLipSyncIdentifyFace(video_url=clip))).parse(Face)

    RunningHub does not document this response. The ids are read under the names in RunningHub's parameters and in
    Kling's API; if there are several faces, the first one is used. The ids expire.

    Attributes:
        session_id: Id of the analysed video.
        face_id: Id of the face in the video.
        start_ms: Time in milliseconds at which the face appears; 0 if the response does not contain it.
        end_ms: Time in milliseconds at which the face disappears; None if the response does not contain it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    session_id: str = Field(min_length=1, validation_alias=AliasChoices("sessionId", "session_id"))
    face_id: str = Field(min_length=1, validation_alias=AliasChoices("faceId", "face_id"))
    start_ms: int = Field(0, validation_alias=AliasChoices("startTime", "start_time"))
    end_ms: int | None = Field(None, validation_alias=AliasChoices("endTime", "end_time"))

    @model_validator(mode="before")
    @classmethod
    def _with_first_face(cls, answer: Any) -> Any:
        lists = [answer.get(name) for name in ("faceData", "face_data", "faces")] if isinstance(answer, dict) else []
        found = next((one[0] for one in lists if isinstance(one, list) and one and isinstance(one[0], dict)), {})
        return answer | found if found else answer
