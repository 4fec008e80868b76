"""Which files in the store are a job's outputs while its manifest is not written: a small record of each.

A file that merely lies at the name of an output may be another job's, or half of something. So each output's hash and
size are recorded before it is published, as `manifests/pending/<task id>-<index>.json`, and the record is deleted when
the manifest, which says the same, is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pydantic import ValidationError

from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore

FOLDER = "manifests/pending"
_BLOCK = 1 << 20


def write_record(store: MediaStore, task_id: str, index: int, media: Media) -> None:
    """Records what is about to be published.

    Args:
        store: Where it goes.
        task_id: The task that made it.
        index: Which of the task's files it is, from 0.
        media: The file, under its final name.
    """
    store.write_bytes(_name(task_id, index), media.model_dump_json(exclude_none=True).encode())


def drop_record(store: MediaStore, task_id: str, index: int) -> None:
    """Removes a record that the manifest has made superfluous."""
    store.delete(_name(task_id, index))


def find_published(
    store: MediaStore, task_id: str, index: int, name: str, earlier: Sequence[Media] = ()
) -> Media | None:
    """Finds an output that was published before; its content must be what the job's own records say.

    Args:
        store: Where it would be.
        task_id: The task that made it.
        index: Which of the task's files it is, from 0.
        name: Its final name.
        earlier: What the manifest says of the job's files, if there is one.

    Returns:
        The file; None where there is none, another one, or a damaged one.
    """
    uri = store.uri(name)
    recorded = [media for media in (_read(store, _name(task_id, index)), *earlier) if media is not None]
    fitting = [media for media in recorded if media.uri == uri and media.defect is None]
    if not fitting or not any(store.size(name) == media.size for media in fitting):
        return None
    sha256 = _hash(store, name)
    return next((media for media in fitting if media.sha256 == sha256), None)


def _name(task_id: str, index: int) -> str:
    return f"{FOLDER}/{task_id}-{index}.json"


def _read(store: MediaStore, name: str) -> Media | None:
    if not store.exists(name):
        return None
    try:
        return Media.model_validate_json(store.read_bytes(name))
    except ValidationError:
        return None


def _hash(store: MediaStore, name: str) -> str:
    digest = hashlib.sha256()
    with store.open(name) as reader:
        while block := reader.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
