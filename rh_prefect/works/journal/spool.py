"""A local folder for answers (task ids and refusals) that are not recorded in the journal yet.

An answer is written here when it arrives, and deleted when the journal contains it. So a paid task is not lost, and a
refusal does not become an unknown submission, if the process is killed before it has recorded RunningHub's answer, or
if the journal does not respond. The token of an intent identifies the submission of an answer, because scopes of one
name in several journals have jobs with the same keys.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rh_prefect.local_files import PART, write_atomic
from rh_prefect.works.journal.record_types import Answer
from rh_prefect.works.loop_thread import LOOP

_KEY_LENGTH, _TOKEN_LENGTH = 24, 12
"""Maximum lengths of a key and a token in a file name, which may have 255 characters."""

_log = logging.getLogger("rh_prefect")


@dataclass(frozen=True, slots=True)
class Spooled:
    """An answer that may not be in the journal yet."""

    scope: str  # The journal's scope
    key: str  # The job's key
    n: int  # The number of the submit
    token: str  # The token of its intent
    answer: Answer  # What RunningHub answered

    @property
    def submission(self) -> tuple[str, str, int, str]:
        """The scope, key, number and token, which identify the submission."""
        return self.scope, self.key, self.n, self.token


class Spool:
    """A folder with one small file for each answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def save(self, entry: Spooled) -> None:
        """Writes an answer in a thread, because a flush to the disk may take long; see `put`."""
        try:
            await LOOP.in_answer_thread(self.put, entry)
        except RuntimeError:  # at the end of a process no more threads start
            self.put(entry)

    def put(self, entry: Spooled) -> None:
        """Writes an answer atomically; the written answer survives a power failure."""
        head = {"scope": entry.scope, "key": entry.key, "n": entry.n, "token": entry.token}
        data = json.dumps({**head, "answer": entry.answer.model_dump(mode="json")}).encode()
        target = self._path(*entry.submission)
        try:
            write_atomic(target, data)
        except FileNotFoundError:
            # Another process has recorded the answer from the draft, and deleted the draft as that of a killed writer.
            write_atomic(target, data)

    def get(self, scope: str, key: str, n: int, token: str) -> Answer | None:
        """Returns the answer to a submission; None if the spool has no answer to it."""
        entry = _read(self._path(scope, key, n, token))
        if entry is None:
            entry = next((one for _, one in self._parts() if one.submission == (scope, key, n, token)), None)
        return entry.answer if entry and entry.token == token else None

    def drop(self, scope: str, key: str, n: int, token: str) -> None:
        """Deletes an answer that is in the journal."""
        parts = [part for part, one in self._parts() if one.submission == (scope, key, n, token)]
        for path in (self._path(scope, key, n, token), *parts):
            path.unlink(missing_ok=True)

    def entries(self) -> Iterator[Spooled]:
        """Yields the answers that are not in their journal yet."""
        for path in sorted(self.folder.glob("*.json")):
            entry = _read(path)
            if entry is not None:
                yield entry
        for _, entry in self._parts():
            yield entry

    def _parts(self) -> Iterator[tuple[Path, Spooled]]:
        """Yields answers whose writer was killed before it renamed their files, with the paths of these files."""
        for part in sorted(self.folder.glob(f".*{PART}")):
            with suppress(OSError, ValueError, KeyError, TypeError):  # without its end it says nothing
                yield part, _parsed(part)

    def _path(self, scope: str, key: str, n: int, token: str) -> Path:
        return self.folder / f"{scope}--{key[:_KEY_LENGTH]}--{n}--{token[:_TOKEN_LENGTH]}.json"


def _read(path: Path) -> Spooled | None:
    try:
        return _parsed(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        # Without the ticket the job is still safe: its intent stays open in the journal, then unknown.
        message = "%s may contain the id of a paid task, but cannot be read: %s. What to do: check the file."
        _log.error(message, path, error)
        return None


def _parsed(path: Path) -> Spooled:
    data = json.loads(path.read_text(encoding="utf-8"))
    answer = Answer.model_validate(data["answer"])
    return Spooled(scope=data["scope"], key=data["key"], n=data["n"], token=data["token"], answer=answer)
