"""Values from responses about AI apps and quick create's styles."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final, Literal

from rh_prefect.client.json_values import (
    Amount,
    Count,
    Flag,
    Page,
    Text,
    Upper,
    Value,
    amount,
    compact,
    count,
    first_text,
    rows,
    shown,
    table,
    text,
    unfold,
    wire,
)

_APP_IN_CURL: Final = re.compile(r"""run\\?/ai-app\\?/(\d+)|webapp_?id\\?["']?\s*[:=]\s*\\?["']?(\d+)""", re.IGNORECASE)

_MEDIA: Final[dict[str, Literal["image", "video", "audio"]]] = {"IMAGE": "image", "VIDEO": "video", "AUDIO": "audio"}


class AppOption(Value):
    """One allowed value for a field of an app; `value` is what is sent."""

    value: str
    name: str = ""
    description: str = ""


class AppNode(Value):
    """One field that can be set in an app; `nodeInfoList` takes its `node_id` and `field_name`.

    `field_value` is the author's value as a string, and `default` the node's default. `field_type` is STRING, INT,
    FLOAT, BOOLEAN, LIST, SWITCH, IMAGE, AUDIO or VIDEO, as far as is known. Without `options`, any value is allowed;
    numbers must be multiples of `step`.
    """

    node_id: Text = wire("nodeId")
    node_name: Text = wire("nodeName")
    field_name: Text = wire("fieldName")
    field_value: str = ""
    field_type: Upper = wire("fieldType")
    options: tuple[AppOption, ...] = ()
    default: str | None = None
    minimum: Amount = None
    maximum: Amount = None
    step: Amount = None
    description: Text = wire("description")
    description_en: Text = wire("descriptionEn")

    @property
    def media(self) -> Literal["image", "video", "audio"] | None:
        """The kind of file that the field takes, as an upload's `file_name`; None if the field takes no file."""
        return _MEDIA.get(self.field_type)


class App(Value):
    """The fields and files that an AI app accepts as input; `nodes` is empty if the app was never run on the site.

    A run of an `encrypted` app needs `accessPassword`. Each of the `tags` is in English if it has an English name.
    """

    webapp_id: str
    name: Text = wire("webappName")
    nodes: tuple[AppNode, ...] = ()
    encrypted: Flag = wire("accessEncrypted", default=False)
    covers: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    uses: int | None = None


class AppListing(Value):
    """One app of the public list."""

    webapp_id: Text = wire("webappId", "id")
    title: Text = wire("title")
    description: Text = wire("description")
    cover: Text = wire("cover")


class AppPage(Page[AppListing]):
    """A page of the app list."""


class StyleLora(Value):
    """A LoRA of a style, and its strength."""

    file_name: str
    weight: Decimal | None = None


class Style(Value):
    """One style of quick create's library.

    `key` is the input that the style is for; the words in `trigger` activate the style if a prompt contains them.
    """

    style_id: Text = wire("id")
    webapp_id: Text = wire("webappId")
    kind: Count = wire("type", default=None)
    category: Count = wire("modelCategory", default=None)
    name: Text = wire("modelName")
    key: Text = wire("modelKey")
    preview_url: Text = wire("modelPreviewUrl")
    prompt: Text = wire("content")
    trigger: Text = wire("modelTrigger")
    loras: tuple[StyleLora, ...] = ()


def read_app(data: dict[str, object], *, webapp_id: str) -> App:
    """Reads an app's call example (`/api/webapp/apiCallDemo`)."""
    tags = (first_text(table(tag), "nameEn", "name") or text(tag) for tag in rows(data.get("tags")))
    covers = (first_text(table(cover), "url", "thumbnailUri") for cover in rows(data.get("covers")))
    nodes = (_read_node(table(node)) for node in rows(data.get("nodeInfoList")))
    return App.read(
        data,
        webapp_id=webapp_id,
        nodes=[node for node in nodes if node.node_id and node.field_name],
        covers=tuple(filter(None, covers)),
        tags=tuple(filter(None, tags)),
        uses=count(table(data.get("statisticsInfo")).get("useCount")),
    )


def _read_node(source: dict[str, object]) -> AppNode:
    value = shown(source.get("fieldValue"))
    options, settings = _read_field_data(source.get("fieldData"), current=value)
    return AppNode.read(
        source,
        field_value=value,
        options=options,
        default=None if settings.get("default") is None else shown(settings["default"]),
        minimum=settings.get("min"),
        maximum=settings.get("max"),
        step=settings.get("step"),
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
    found = (_read_listing(table(row)) for row in rows(data.get("records")))
    items = [listing for listing in found if listing.webapp_id]
    return AppPage.read(data, number=count(data.get("current")) or number, items=items)


def _read_listing(source: dict[str, object]) -> AppListing:
    named = _APP_IN_CURL.search(first_text(source, "invokeExample"))
    return AppListing.read(source | {"webappId": named[1] or named[2]} if named else source)


def read_style(row: dict[str, object]) -> Style:
    """Reads one of quick create's styles (`/api/fast/creation/model/params`)."""
    pairs = (  # "Loar" is how the API spells it
        (first_text(row, f"modelLoar{n}FileName"), amount(row.get(f"modelLoar{n}Weight"))) for n in range(1, 10)
    )
    return Style.read(row, loras=[StyleLora(file_name=name, weight=weight) for name, weight in pairs if name])
