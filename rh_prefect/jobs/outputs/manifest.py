"""Records of a job's outputs in the store: the manifest, and a small record of each output that is written first.

The manifest is one JSON file for each finished job; `reuse="always"` finds it by the request. A file at the name of an
output may be another job's, or incomplete. So each output's hash and size are recorded before it is published, as
`manifests/pending/<task id>-<index>.json`. After the manifest is written, the record is deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rh_prefect.errors import InputError, StoreError
from rh_prefect.jobs.journal.identity import Address, graph_base
from rh_prefect.jobs.outputs.result import Result
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore

FOLDER = "manifests"
PENDING = "manifests/pending"

_log = logging.getLogger("rh_prefect")


class Manifest(BaseModel):
    """The complete record of a finished job.

    Attributes:
        version: Of this format.
        key: The job's key.
        job: The job's full name.
        base: Hash of the request: equal for equal requests on one site.
        site: RunningHub's host.
        account: The account that paid: its name, or a fingerprint of its key.
        model: The model's name in RunningHub's documentation.
        endpoint: Path below `/openapi/v2/`.
        payload: The request's parameters; files by content, as `sha256:…`.
        address: Where in the run the call was made.
        flow_version: Version of the flow that made it.
        order: Number of the call among the calls with this request, in the order of the calls.
        label: The caller's name for the output.
        seed: The seed in the request, if there is one.
        graph: Of a saved workflow or an app: a fingerprint of what the site had under its id.
        task_id: RunningHub's task id.
        submitted_at: ISO 8601, UTC.
        ended_at: ISO 8601, UTC.
        queued_seconds: Time in RunningHub's queue.
        run_seconds: Time that the task ran.
        cost: The task's cost; None if RunningHub does not report it.
        currency: Of the cost.
        coins: The coins that the task cost in addition to money.
        outputs: The task's files; a damaged one has a `defect`.
        texts: The task's texts.
        run: Details of the run, such as the flow run's id and name.
        store: The URL of its store when it was written; empty in manifests of earlier versions.
        states: The state in which the store reported each file right after it was published; a file in the same
            state is not read again. Empty in manifests of earlier versions.
        is_moved: Whether its store has another URL now; `outputs` have the present one. Not written.
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
    store: str = ""
    states: tuple[str, ...] = ()
    is_moved: bool = Field(default=False, exclude=True)

    @property
    def name(self) -> str:
        """The manifest's path in its store."""
        return manifest_name(self.base, self.task_id)

    @property
    def damaged(self) -> bool:
        """Whether one of the files is damaged, so that a later run downloads it again."""
        return any(file.defect is not None for file in self.outputs)

    def result(self, store: MediaStore, *, reused: bool = False) -> Result:
        """The job as the `Result` that its caller receives.

        Args:
            store: The store of the manifest.
            reused: Whether an earlier request served this call, which then costs nothing.
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
    """Reads a manifest, with the present URIs of its files; returns None if it is missing or invalid."""
    if not store.exists(name):
        return None
    try:
        manifest = Manifest.model_validate_json(store.read_bytes(name))
    except ValidationError:
        return None
    outputs = tuple(_present(store, manifest, file) for file in manifest.outputs)
    is_moved = outputs != manifest.outputs
    return manifest.model_copy(update={"outputs": outputs, "is_moved": True}) if is_moved else manifest


def _present(store: MediaStore, manifest: Manifest, file: Media) -> Media:
    """Returns a file with its URI in this store, which may have been moved since the manifest was written.

    Whether the file is there, and is the same, is for `has_all_files` to check.
    """
    if store.name_of(file.uri) is not None:
        return file
    if manifest.store:
        root = manifest.store.rstrip("/") + "/"
        name = file.uri.removeprefix(root) if file.uri.startswith(root) else ""
    else:
        # A file has as many folders below its store as the naming template has.
        name = "/".join(file.uri.split("/")[-1 - store.template.count("/") :])
    try:
        return file.model_copy(update={"uri": store.uri(name)})
    except InputError:
        return file


def find(store: MediaStore, base: str, graph: str = "") -> Manifest | None:
    """Finds the newest finished job with an equal request whose files are all in the store and undamaged.

    Args:
        store: The store to search.
        base: Hash of the request.
        graph: Of a saved workflow or an app: the fingerprint of what the site has under its id now. Results of another
            graph are not found.
    """
    names = [name for folder in {base, graph_base(base, graph)} for name in store.list(f"{FOLDER}/{folder}")]
    manifests = [manifest for manifest in _read_valid(store, names) if manifest.graph == graph]
    newest_first = sorted(manifests, key=lambda manifest: manifest.ended_at, reverse=True)
    return next((manifest for manifest in newest_first if is_complete(store, manifest)), None)


def read_all(store: MediaStore) -> Iterator[Manifest]:
    """Reads all valid manifests of a store; the log names damaged ones."""
    return _read_valid(store, store.list(FOLDER))


def _read_valid(store: MediaStore, names: Iterable[str]) -> Iterator[Manifest]:
    for name in names:
        manifest = read(store, name)
        if manifest is not None:
            yield manifest
        elif not name.startswith(f"{PENDING}/") and store.exists(name):
            _log.warning(
                "The manifest %s is damaged and was left out: its task was paid for. What to do: restore the file from "
                "a backup, then run the command again.",
                store.uri(name),
            )


def is_complete(store: MediaStore, manifest: Manifest) -> bool:
    """Whether all files of a manifest are in the store and undamaged, so that nothing has to be downloaded."""
    return not manifest.damaged and has_all_files(store, manifest)


def has_all_files(store: MediaStore, manifest: Manifest) -> bool:
    """Whether all files of a manifest are in the store, each with its recorded size and content.

    A file whose state is not the recorded one is read and hashed. Its state is recorded then, so that it is read once.
    Of manifests of earlier versions in their own store, only the sizes are compared: nothing tells whether a file has
    changed, and reading thousands of films in each run costs too much.
    """
    checks = [_check(store, manifest, index) for index, _ in enumerate(manifest.outputs)]
    if "read" in checks and "missing" not in checks:
        with suppress(StoreError):  # the next lookup reads the files again
            write(store, noted(store, manifest))
    return "missing" not in checks


def noted(store: MediaStore, manifest: Manifest) -> Manifest:
    """Returns a manifest with the present place and states of its files, whose contents are known to be right."""
    stamps = [store.stamp(store.name_of(file.uri) or "") for file in manifest.outputs]
    states = tuple(stamp.text if stamp is not None else "" for stamp in stamps)
    return manifest.model_copy(update={"store": store.url, "states": states})


def _check(store: MediaStore, manifest: Manifest, index: int) -> Literal["same", "read", "missing"]:
    """Checks one file of a manifest; "read" if it had to be read for this."""
    file, name = manifest.outputs[index], store.name_of(manifest.outputs[index].uri)
    state = manifest.states[index] if index < len(manifest.states) else ""
    if name is None:
        return "missing"
    if state and (stamp := store.stamp(name)) is not None and stamp.text == state:
        return "same"
    if store.size(name) != file.size:
        return "missing"
    # Manifests that were copied to another store can name files of that store which are not theirs.
    if not state and not manifest.is_moved:
        return "same"
    return "read" if store.digest(name) == file.sha256 else "missing"


def write_record(store: MediaStore, task_id: str, index: int, media: Media) -> None:
    """Records a file before it is published.

    Args:
        store: The store of the file.
        task_id: The task that made the file.
        index: Index of the file among the task's files.
        media: The file, with its final name.
    """
    store.write_bytes(_pending_name(task_id, index), media.model_dump_json(exclude_none=True).encode())


def drop_record(store: MediaStore, task_id: str, index: int) -> None:
    """Deletes the record of a file that the manifest lists now."""
    store.delete(_pending_name(task_id, index))


def find_published(
    store: MediaStore, task_id: str, index: int, name: str, earlier: Sequence[Media] = ()
) -> Media | None:
    """Finds an output that was published before and whose content matches the job's own records.

    Args:
        store: The store of the file.
        task_id: The task that made the file.
        index: Index of the file among the task's files.
        name: The file's final name.
        earlier: The files of the job's manifest, if there is one.

    Returns:
        The file; None if the file is missing, damaged or has other content.
    """
    pending = read_pending(store, task_id, index)
    # By the end of the URI, since the store may have been moved; the content decides.
    named = [media for media in (pending, *earlier) if media and media.uri.endswith(f"/{name}")]
    candidates = [media for media in named if media.defect is None]
    if not candidates or store.size(name) not in {media.size for media in candidates}:
        return None
    sha256 = store.digest(name)
    found = next((media for media in candidates if media.sha256 == sha256), None)
    return None if found is None else found.model_copy(update={"uri": store.uri(name)})


def _pending_name(task_id: str, index: int) -> str:
    return f"{PENDING}/{task_id}-{index}.json"


def read_pending(store: MediaStore, task_id: str, index: int) -> Media | None:
    """Reads the record of an output that was published without a manifest yet."""
    name = _pending_name(task_id, index)
    if not store.exists(name):
        return None
    try:
        return Media.model_validate_json(store.read_bytes(name))
    except ValidationError:
        return None
