"""Typed values of answers that are data."""

from __future__ import annotations

from typing import Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from rh_prefect.errors import InputError
from rh_prefect.jobs.outputs.result import Result


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
                f"{result.job}: {result.model} answered without a session or a face: {result.text[:200]!r}. What to "
                "do: give a video that shows one face from the front. The answer is kept; it is not paid for again."
            ) from error


def _has_items(answer: object, name: str) -> bool:
    return isinstance(answer, dict) and isinstance(answer.get(name), list) and bool(answer[name])
