"""Parses AI apps, quick create styles and ComfyUI's responses."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final, Literal

from pydantic import Field

from rh_prefect.client.tolerant_json import (
    Page,
    Value,
    amount,
    compact,
    count,
    first_text,
    flag,
    rows,
    shown,
    table,
    text,
    unfold,
)
from rh_prefect.client.wire.task import Failure, read_failure, read_node_errors

_APP_IN_CURL: Final = re.compile(r"""run\\?/ai-app\\?/(\d+)|webapp_?id\\?["']?\s*[:=]\s*\\?["']?(\d+)""", re.IGNORECASE)

_MEDIA: Final[dict[str, Literal["image", "video", "audio"]]] = {"IMAGE": "image", "VIDEO": "video", "AUDIO": "audio"}


class AppOption(Value):
    """One value that a field of an app may have; `value` is sent."""

    value: str
    name: str = ""
    description: str = ""


class AppNode(Value):
    """One field of an app that can be set; `nodeInfoList` takes its `node_id` and `field_name`.

    `field_value` is what the author left, as text, and `default` the node's own. `field_type` is STRING, INT, FLOAT,
    BOOLEAN, LIST, SWITCH, IMAGE, AUDIO or VIDEO, as far as is known. Without `options`, any value may be given; numbers
    are multiples of `step`.
    """

    node_id: str
    node_name: str = ""
    field_name: str
    field_value: str = ""
    field_type: str = ""
    options: tuple[AppOption, ...] = ()
    default: str | None = None
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    step: Decimal | None = None
    description: str = ""
    description_en: str = ""

    @property
    def media(self) -> Literal["image", "video", "audio"] | None:
        """The kind of file that the field takes, as an upload's `file_name`; None if it takes no file."""
        return _MEDIA.get(self.field_type)


class App(Value):
    """The fields and files that an AI app accepts as input; no `nodes` if the app was never run on the site.

    A run of an `encrypted` app needs `accessPassword`. The `tags` are in English where they have an English name.
    """

    webapp_id: str
    name: str = ""
    nodes: tuple[AppNode, ...] = ()
    encrypted: bool = False
    covers: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    uses: int | None = None


class AppListing(Value):
    """One app of the public list."""

    webapp_id: str
    title: str = ""
    description: str = ""
    cover: str = ""


class AppPage(Page[AppListing]):
    """A page of the app list."""


class StyleLora(Value):
    """A LoRA of a style, and its strength."""

    file_name: str
    weight: Decimal | None = None


class Style(Value):
    """One style of quick create's library; `key` is the input that it is for, `trigger` the words that call it."""

    style_id: str
    webapp_id: str = ""
    kind: int | None = None
    category: int | None = None
    name: str = ""
    key: str = ""
    preview_url: str = ""
    prompt: str = ""
    trigger: str = ""
    loras: tuple[StyleLora, ...] = ()


def read_app(data: dict[str, object], *, webapp_id: str) -> App:
    """Reads an app's call example (`/api/webapp/apiCallDemo`)."""
    tags = (first_text(table(tag), "nameEn", "name") or text(tag) for tag in rows(data.get("tags")))
    covers = (first_text(table(cover), "url", "thumbnailUri") for cover in rows(data.get("covers")))
    nodes = (_read_node(table(node)) for node in rows(data.get("nodeInfoList")))
    return App(
        webapp_id=webapp_id,
        name=first_text(data, "webappName"),
        nodes=tuple(node for node in nodes if node is not None),
        encrypted=flag(data.get("accessEncrypted")),
        covers=tuple(filter(None, covers)),
        tags=tuple(filter(None, tags)),
        uses=count(table(data.get("statisticsInfo")).get("useCount")),
    )


def _read_node(source: dict[str, object]) -> AppNode | None:
    node_id, field_name = first_text(source, "nodeId"), first_text(source, "fieldName")
    if not node_id or not field_name:
        return None
    value = shown(source.get("fieldValue"))
    options, settings = _read_field_data(source.get("fieldData"), current=value)
    return AppNode(
        node_id=node_id,
        node_name=first_text(source, "nodeName"),
        field_name=field_name,
        field_value=value,
        field_type=first_text(source, "fieldType").upper(),
        options=options,
        default=None if settings.get("default") is None else shown(settings["default"]),
        minimum=amount(settings.get("min")),
        maximum=amount(settings.get("max")),
        step=amount(settings.get("step")),
        description=first_text(source, "description"),
        description_en=first_text(source, "descriptionEn"),
    )


def _read_field_data(data: object, *, current: str) -> tuple[tuple[AppOption, ...], dict[str, object]]:
    """Reads `fieldData`: a list of options that ends in the default, or ComfyUI's own `[type or choices, settings]`."""
    found = rows(data)
    tables = [table(row) for row in found]
    listed = [row for row in tables if "name" in row or "index" in row]
    if listed:
        settings = next((row for row in tables if row and "name" not in row and "index" not in row), {})
        return _listed_options(listed, current=current), settings
    settings = tables[1] if len(tables) > 1 else {}
    choices = unfold(found[0]) if found else None
    choices = choices if isinstance(choices, list) else unfold(settings.get("options"))
    named = [shown(choice) for choice in choices] if isinstance(choices, list) else []
    return tuple(AppOption(value=name, name=name) for name in named), settings


def _listed_options(listed: list[dict[str, object]], *, current: str) -> tuple[AppOption, ...]:
    # `index` is sent in every published sample; if the current value contradicts it, the current value counts.
    indexes, names = ([shown(row.get(key)) for row in listed] for key in ("index", "name"))
    values = names if current in names and current not in indexes else indexes
    return tuple(
        AppOption(value=value or name, name=name, description=compact(row.get("description")))
        for value, name, row in zip(values, names, listed, strict=True)
    )


def read_app_page(data: dict[str, object], *, number: int) -> Page[AppListing]:
    """Reads a page of the app list (`/openapi/v2/aiapp/list`); omits entries without an id."""
    items = (_read_listing(table(row)) for row in rows(data.get("records")))
    return AppPage(
        items=tuple(item for item in items if item is not None),
        number=count(data.get("current")) or number,
        total=count(data.get("total")),
        has_next=flag(data.get("hasNext")),
    )


def _read_listing(source: dict[str, object]) -> AppListing | None:
    named = _APP_IN_CURL.search(first_text(source, "invokeExample"))
    webapp_id = (named and (named[1] or named[2])) or first_text(source, "webappId", "id")
    if not webapp_id:
        return None
    return AppListing(
        webapp_id=webapp_id,
        title=first_text(source, "title"),
        description=first_text(source, "description"),
        cover=first_text(source, "cover"),
    )


def read_styles(found: list[dict[str, object]]) -> tuple[Style, ...]:
    """Reads quick create's styles (`/api/fast/creation/model/params`)."""
    return tuple(
        Style(
            style_id=first_text(row, "id"),
            webapp_id=first_text(row, "webappId"),
            kind=count(row.get("type")),
            category=count(row.get("modelCategory")),
            name=first_text(row, "modelName"),
            key=first_text(row, "modelKey"),
            preview_url=first_text(row, "modelPreviewUrl"),
            prompt=first_text(row, "content"),
            trigger=first_text(row, "modelTrigger"),
            loras=_read_loras(row),
        )
        for row in found
    )


def _read_loras(row: dict[str, object]) -> tuple[StyleLora, ...]:
    pairs = (  # "Loar" is how the API spells it
        (first_text(row, f"modelLoar{n}FileName"), amount(row.get(f"modelLoar{n}Weight"))) for n in range(1, 10)
    )
    return tuple(StyleLora(file_name=name, weight=weight) for name, weight in pairs if name)


class ComfyFile(Value):
    """A file on the machine that ran the graph."""

    name: str
    subfolder: str = ""
    kind: str = "output"
    node_id: str = ""


class ComfyPrompt(Value):
    """An accepted graph; with rejected nodes in `node_errors`, only a part of it runs."""

    prompt_id: str
    node_errors: dict[str, str] = Field(default_factory=dict)


class ComfyQueue(Value):
    """The ids of the graphs that a machine runs, and of those that wait."""

    running: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


class ComfyRun(Value):
    """The state of a graph; an `interrupted` one was cancelled.

    Nothing is written down about a graph before it ends, so a queued one is `pending` as well.
    """

    prompt_id: str
    state: Literal["pending", "succeeded", "failed", "interrupted"] = "pending"
    files: tuple[ComfyFile, ...] = ()
    failure: Failure | None = None


def read_comfy_prompt(source: dict[str, object]) -> ComfyPrompt | None:
    """Reads the response to a prompt; returns None if it has no id."""
    prompt_id = first_text(source, "prompt_id")
    return ComfyPrompt(prompt_id=prompt_id, node_errors=read_node_errors(source)) if prompt_id else None


def read_comfy_run(entry: dict[str, object], *, prompt_id: str) -> ComfyRun:
    """Reads one entry of the history."""
    status = table(entry.get("status"))
    files = tuple(file for node, saved in table(entry.get("outputs")).items() for file in _files_of(node, table(saved)))
    status_str = first_text(status, "status_str").lower()
    failure = _read_failure(status.get("messages"))
    if status_str == "error" or failure:
        state: Literal["failed", "interrupted"] = "interrupted" if _was_interrupted(status) else "failed"
        return ComfyRun(prompt_id=prompt_id, state=state, files=files, failure=failure)
    done = flag(status.get("completed")) or status_str == "success" or bool(files)
    return ComfyRun(prompt_id=prompt_id, state="succeeded" if done else "pending", files=files)


def read_comfy_queue(source: dict[str, object]) -> ComfyQueue:
    """Reads the queue: each entry begins with a number and the graph's id."""
    return ComfyQueue(running=_ids(source.get("queue_running")), waiting=_ids(source.get("queue_pending")))


def _ids(listed: object) -> tuple[str, ...]:
    entries = (rows(entry) for entry in rows(listed))
    return tuple(text(entry[1]) for entry in entries if len(entry) > 1 and text(entry[1]))


def _was_interrupted(status: dict[str, object]) -> bool:
    return any(rows(message)[:1] == ["execution_interrupted"] for message in rows(status.get("messages")))


def _files_of(node: str, saved: dict[str, object]) -> list[ComfyFile]:
    found = [read_comfy_file(table(row), node_id=node) for listed in saved.values() for row in rows(listed)]
    return [file for file in found if file is not None]


def read_comfy_file(row: dict[str, object], *, node_id: str = "") -> ComfyFile | None:
    """Reads one file; returns None if it has no name."""
    name = first_text(row, "filename", "name")
    kind = first_text(row, "type") or "output"
    return ComfyFile(name=name, subfolder=first_text(row, "subfolder"), kind=kind, node_id=node_id) if name else None


def _read_failure(messages: object) -> Failure | None:
    for message in rows(messages):
        event = rows(message)
        if len(event) > 1 and event[0] in {"execution_error", "execution_interrupted"}:
            return read_failure(event[1]) or Failure(exception_message=str(event[0]))
    return None
