"""What a paid job comes back as."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict

from rh_prefect.errors import InputError
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
            raise InputError(f"{self.job}: {self.model} made no file. What to do: read `.text`, or name another model.")
        return self.outputs[0]

    @property
    def damaged(self) -> tuple[Media, ...]:
        """The files that RunningHub gave damaged each time; no paid step takes them, and a later run tries again."""
        return tuple(media for media in self.outputs if media.defect is not None)

    @property
    def text(self) -> str:
        """All texts, joined by blank lines."""
        return "\n\n".join(self.texts)

    def json(self) -> Any:  # type: ignore[override]  # pydantic's own method of this name is deprecated
        """Reads the answer of a model that answers with data, also where a language model put words around it.

        Raises:
            InputError: No text of the result holds JSON; the texts are paid for and stay in `texts`.
        """
        for text in self.texts:
            try:
                return _parse(text)
            except ValueError:
                continue
        raise InputError(
            f"{self.job}: {self.model} did not answer with JSON but with {self.text[:200]!r}. What to do: ask for "
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
