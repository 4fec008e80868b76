"""Records of a job's outputs in the store: the manifest, and before it a small record of each output.

The manifest is one JSON file for each finished job; `reuse="always"` finds it by the request. A file at the name of an
output may be another job's, or incomplete. So each output's hash and size are recorded before it is published, as
`manifests/pending/<task id>-<index>.json`. After the manifest is written, the record is deleted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rh_prefect.jobs.journal.identity import Address, graph_base
from rh_prefect.jobs.outputs.result import Result
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore

FOLDER = "manifests"
PENDING = "manifests/pending"


class Manifest(BaseModel):
    """The complete record of a finished job.

    Attributes:
        version: Of this format.
        key: The job's key.
        job: The job's full name.
        base: Hash of what was asked for: equal for equal requests on one site.
        site: RunningHub's host.
        account: Who paid, by name or by fingerprint of the key.
        model: The model's name in RunningHub's documentation.
        endpoint: Path below `/openapi/v2/`.
        payload: The request's parameters; files by content, as `sha256:…`.
        address: Where in the run the call was made.
        flow_version: Version of the flow that made it.
        order: Which of the calls with this request it is, in the order in which they were asked for.
        label: The caller's name for the output.
        seed: The seed that was asked for, if any.
        graph: Of a saved workflow or an app: a fingerprint of what the site had under its id.
        task_id: RunningHub's task id.
        submitted_at: ISO 8601, UTC.
        ended_at: ISO 8601, UTC.
        queued_seconds: Time in RunningHub's queue.
        run_seconds: Time that the task ran.
        cost: What it cost, where RunningHub says.
        currency: Of the cost.
        coins: The coins of a task that cost coins beside its money.
        outputs: Its files; a damaged one has a `defect`.
        texts: Its texts.
        run: What the run says of itself, such as the flow run's id and name.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = 1
    key: str
    job: str
    base: str
    site: str
    account: str
    model: str
    endpoint: str
    payload: dict[str, Any]
    address: Address = Address()
    flow_version: str = ""
    order: int = 1
    label: str | None = None
    seed: int | None = None
    graph: str = ""
    task_id: str
    submitted_at: str
    ended_at: str
    queued_seconds: float | None = None
    run_seconds: float | None = None
    cost: Decimal | None = None
    currency: str | None = None
    coins: Decimal | None = None
    outputs: tuple[Media, ...] = ()
    texts: tuple[str, ...] = ()
    run: Mapping[str, str] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name in the store."""
        return manifest_name(self.base, self.task_id)

    @property
    def damaged(self) -> bool:
        """Whether one of its files is damaged, so that it is fetched again."""
        return any(file.defect is not None for file in self.outputs)

    def result(self, store: MediaStore, *, reused: bool = False) -> Result:
        """The job as the `Result` that its caller receives.

        Args:
            store: Where the manifest lies.
            reused: Whether this call paid nothing, being served by an earlier request.
        """
        return Result(
            model=self.model,
            endpoint=self.endpoint,
            job=self.job,
            key=self.key,
            task_id=self.task_id,
            outputs=self.outputs,
            texts=self.texts,
            cost=Decimal(0) if reused else self.cost,
            currency=self.currency,
            queued_seconds=self.queued_seconds,
            run_seconds=self.run_seconds,
            reused=reused,
            manifest=store.uri(self.name),
            label=self.label,
        )


def manifest_name(base: str, task_id: str) -> str:
    """Returns the path of a task's manifest in its store."""
    return f"{FOLDER}/{base}/{task_id}.json"


def write(store: MediaStore, manifest: Manifest) -> None:
    """Writes a manifest atomically."""
    text = manifest.model_dump_json(indent=1, exclude_none=True)
    store.write_bytes(manifest.name, text.encode())


def read(store: MediaStore, name: str) -> Manifest | None:
    """Reads a manifest; returns None if it is missing or invalid."""
    if not store.exists(name):
        return None
    try:
        return Manifest.model_validate_json(store.read_bytes(name))
    except ValidationError:
        return None


def find(store: MediaStore, base: str, graph: str = "") -> Manifest | None:
    """Finds the newest finished job with an equal request whose files are all still there, and none is damaged.

    Args:
        store: Where to look.
        base: Hash of the request.
        graph: Of a saved workflow or an app: the fingerprint of what the site has under its id now. What was made with
            another graph is not found.
    """
    names = [name for one in {base, graph_base(base, graph)} for name in store.list(f"{FOLDER}/{one}")]
    found = [one for one in (read(store, name) for name in names) if one is not None and one.graph == graph]
    newest_first = sorted(found, key=lambda one: one.ended_at, reverse=True)
    return next((one for one in newest_first if is_done(store, one)), None)


def everything(store: MediaStore) -> Iterator[Manifest]:
    """Reads every manifest of a store, for `spend`."""
    for name in store.list(FOLDER):
        manifest = read(store, name)
        if manifest is not None:
            yield manifest


def is_done(store: MediaStore, manifest: Manifest) -> bool:
    """Tells whether there is nothing left to fetch: all files are in the store, and none is damaged."""
    return not manifest.damaged and is_whole(store, manifest)


def is_whole(store: MediaStore, manifest: Manifest) -> bool:
    """Tells whether all files of a manifest are still in the store, each with the size that was recorded."""
    return all(_is_there(store, file) for file in manifest.outputs)


def _is_there(store: MediaStore, file: Media) -> bool:
    name = store.name_of(file.uri)
    return name is not None and store.size(name) == file.size


_BLOCK = 1 << 20


def write_record(store: MediaStore, task_id: str, index: int, media: Media) -> None:
    """Records what is about to be published.

    Args:
        store: Where it goes.
        task_id: The task that made it.
        index: Which of the task's files it is, from 0.
        media: The file, under its final name.
    """
    store.write_bytes(_pending_name(task_id, index), media.model_dump_json(exclude_none=True).encode())


def drop_record(store: MediaStore, task_id: str, index: int) -> None:
    """Removes a record that the manifest has made superfluous."""
    store.delete(_pending_name(task_id, index))


def find_published(
    store: MediaStore, task_id: str, index: int, name: str, earlier: Sequence[Media] = ()
) -> Media | None:
    """Finds an output that was published before and whose content matches the job's own records.

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
    recorded = [media for media in (_read_pending(store, _pending_name(task_id, index)), *earlier) if media is not None]
    fitting = [media for media in recorded if media.uri == uri and media.defect is None]
    if not fitting or not any(store.size(name) == media.size for media in fitting):
        return None
    sha256 = _hash(store, name)
    return next((media for media in fitting if media.sha256 == sha256), None)


def _pending_name(task_id: str, index: int) -> str:
    return f"{PENDING}/{task_id}-{index}.json"


def _read_pending(store: MediaStore, name: str) -> Media | None:
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
