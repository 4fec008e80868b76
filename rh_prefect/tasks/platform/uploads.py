"""Files that RunningHub is to have, from wherever they are."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from prefect.runtime import task_run

from rh_prefect.blocks.lookup import load_storage
from rh_prefect.client import Client, Upload
from rh_prefect.jobs.requests.inputs import fetched
from rh_prefect.media.media import Media, as_media_input
from rh_prefect.media.probe import Facts, probe
from rh_prefect.media.source import shown
from rh_prefect.media.store import MediaStore
from rh_prefect.settings import get_settings
from rh_prefect.tasks.platform.base import ask, one_of, repeatable, words

Source: TypeAlias = Media | str | os.PathLike[str]
LegacyType = Literal["input", "image", "video", "audio"]

_LINKS = ("http://", "https://", "asset://")


@dataclass(frozen=True, slots=True)
class Local:
    """A file as it is sent.

    Attributes:
        source: Where it comes from, for messages.
        path: Where it is on this machine.
        name: Its name on the wire: RunningHub goes by the extension, and only plain ASCII is safe there.
        size: Bytes.
        facts: What it is, by its content.
    """

    source: str
    path: Path
    name: str
    size: int
    facts: Facts


def _name() -> str:
    return f"upload of {_told(task_run.parameters)}"


def _told(parameters: dict[str, Any]) -> str:
    # A link's signature is a key to the file, and a task run's name is for everybody to read.
    return Path(shown(as_media_input(parameters["source"]))).name


@repeatable(_name)
async def upload_file(source: Source, *, credentials: str | None = None, storage: str | None = None) -> Upload:
    """Uploads a file, which RunningHub keeps for a day; costs nothing.

    Paid tasks upload their inputs by themselves. This is for what is built by hand: a graph, a node list, an asset.

    Args:
        source: A `Media`, a path, any fsspec URI, a link, or the result of a job.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
        storage: Name of the `MediaStorage` block whose options open the file; by default RH_OUT_OPTIONS.

    Returns:
        The upload: `url` for models, `file_name` for the loader nodes of workflows and apps.

    Raises:
        MediaError: The file is missing, empty or broken; nothing was sent.
    """
    store = await load_storage(storage)

    async def send(client: Client) -> Upload:
        async with local_copy(source, store=store) as file:
            return await client.upload(file.path, name=file.name, mime=file.facts.mime)

    return await ask(send, credentials)


@repeatable(_name)
async def upload_file_legacy(
    source: Source,
    *,
    file_type: LegacyType = "input",
    credentials: str | None = None,
    storage: str | None = None,
) -> Upload:
    """Uploads a file of at most 30 MB by the deprecated v1 endpoint; `upload_file` takes larger ones, and gives a link.

    Args:
        source: As of `upload_file`.
        file_type: What older texts of the API want to be told.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.
        storage: As of `upload_file`.

    Returns:
        The upload: its `file_name` is what loader nodes take; it has no `url`.

    Raises:
        MediaError: The file is too large, missing, empty or broken; nothing was sent.
    """
    one_of("file_type", file_type, get_args(LegacyType))
    store = await load_storage(storage)

    async def send(client: Client) -> Upload:
        async with local_copy(source, store=store) as file:
            return await client.upload_legacy(file.path, name=file.name, mime=file.facts.mime, file_type=file_type)

    return await ask(send, credentials)


@repeatable("upload of LoRA {name}")
async def upload_lora(path: str | os.PathLike[str], *, name: str, credentials: str | None = None) -> str:
    """Uploads a LoRA for a RHLoraLoader node; one that RunningHub has already is not sent again.

    Args:
        path: The file on this machine.
        name: Its name at RunningHub.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block.

    Returns:
        What the node's `file_name` takes.
    """
    words("name", name)
    return await ask(lambda client: client.upload_lora(Path(path), name=name), credentials)


@asynccontextmanager
async def local_copy(source: Source, *, store: MediaStore) -> AsyncIterator[Local]:
    """Has a file on this machine for the length of an `async with` block; what is local already stays where it is.

    Args:
        source: As of `upload_file`.
        store: Its options open a file of the same kind of place.

    Raises:
        MediaError: It is missing, empty, broken or cannot be read.
    """
    given = as_media_input(source)
    uri = given.uri if isinstance(given, Media) else given
    copy = fetched(uri, get_settings().state_dir / "inputs", options=store.options_for(uri))
    held = await asyncio.to_thread(copy.__enter__)
    try:
        facts = await asyncio.to_thread(probe, held.path)
        # By its content, not by its name; a kind that nobody knows keeps the name's own extension.
        extension = facts.extension if facts.extension != "bin" else Path(shown(uri)).suffix.lower().lstrip(".")
        yield Local(shown(uri), held.path, f"{held.sha256[:32]}.{extension or 'bin'}", held.size, facts)
    finally:
        await asyncio.to_thread(copy.__exit__, None, None, None)


async def link_to(
    source: Source, *, client: Client, store: MediaStore, check: Callable[[Local], None] = lambda _: None
) -> str:
    """Gives a link that RunningHub can read: a link as it is, any other file's after it was uploaded.

    Args:
        source: As of `upload_file`.
        client: Uploads.
        store: As of `local_copy`.
        check: Raises where a file that would be uploaded will not do.
    """
    given = as_media_input(source)
    if isinstance(given, str) and given.lower().startswith(_LINKS):
        return given
    async with local_copy(given, store=store) as file:
        check(file)
        return (await client.upload(file.path, name=file.name, mime=file.facts.mime)).url
