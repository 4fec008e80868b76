"""AI apps: a graph with a short list of typed fields."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from rh_prefect.emulator.comfy import workflows
from rh_prefect.emulator.comfy.graph import Graph, class_type, inputs_of, link_of
from rh_prefect.emulator.comfy.nodes import CLASSES, Field, spec
from rh_prefect.emulator.comfy.workflows import SavedGraph, SavedGraphs, read_graph
from rh_prefect.errors import InputError

FieldType = Literal["STRING", "INT", "FLOAT", "BOOLEAN", "LIST", "SWITCH", "IMAGE", "AUDIO", "VIDEO"]
_MEDIA_TYPES: Final[dict[str, FieldType]] = {"image": "IMAGE", "video": "VIDEO", "audio": "AUDIO", "zip": "IMAGE"}
_PLAIN_TYPES: Final[dict[str, FieldType]] = {
    "INT": "INT",
    "FLOAT": "FLOAT",
    "BOOLEAN": "BOOLEAN",
    "COMBO": "LIST",
}


@dataclass(frozen=True, slots=True)
class AppField:
    """A value in an app's graph that a request may set.

    Attributes:
        node_id: The node that has the field.
        field_name: The node's input.
        field_type: The type in a form.
        description: The field's label.
        options: For a LIST or SWITCH: each value with its description, in the format that ends with the default;
            without options, ComfyUI's own specification is shown.
    """

    node_id: str
    field_name: str
    field_type: FieldType
    description: str = ""
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class App(SavedGraph):
    """An AI app of the site.

    Attributes:
        fields: The fields that can be set.
        ran: Whether the app has been run on the site; until then, the call example lists no fields.
        quick_code: The `quickCreateCode` if the app is a module of quick create.
        uses: The number of uses, for the order of the list.
    """

    fields: tuple[AppField, ...] = ()
    ran: bool = True
    quick_code: str = ""
    uses: int = 0

    def node_list(self) -> list[dict[str, object]]:
        """Returns the fields in the format of the call example."""
        return [self._shown(item) for item in self.fields] if self.ran else []

    def _shown(self, item: AppField) -> dict[str, object]:
        node = self.graph[item.node_id]
        value = inputs_of(node)[item.field_name]
        return {
            "nodeId": item.node_id,
            "nodeName": class_type(node),
            "fieldName": item.field_name,
            "fieldValue": str(value).lower() if isinstance(value, bool) else str(value),
            "fieldData": json.dumps(_field_data(item, node, value), ensure_ascii=False),
            "fieldType": item.field_type,
            "description": item.description,
            "descriptionEn": item.description,
        }


def _field_data(item: AppField, node: Mapping[str, object], value: object) -> list[object]:
    if item.options:
        listed = [{"name": name, "index": name, "description": words} for name, words in item.options]
        return [*listed, {"default": str(value), "description": item.description}]
    known = CLASSES.get(class_type(node))
    return spec(known.fields[item.field_name] if known and item.field_name in known.fields else Field("STRING"))


_STYLES: Final = AppField(
    "4",
    "ckpt_name",
    "LIST",
    "Model",
    (("sd_xl_base_1.0.safetensors", "balanced"), ("flux1-dev-fp8.safetensors", "photographic")),
)
_BUILT_IN: Final = (
    App(
        "2030000000000000101",
        "Portrait restyle",
        workflows.RESTYLE,
        fields=(
            AppField("10", "image", "IMAGE", "Upload image"),
            AppField("6", "text", "STRING", "Style"),
            _STYLES,
            AppField("3", "sampler_name", "LIST", "Sampler"),
            AppField("3", "denoise", "FLOAT", "Strength"),
            AppField("3", "seed", "INT", "Seed"),
        ),
        uses=3400,
    ),
    App(
        "2030000000000000102",
        "Still to clip",
        workflows.IMAGE_TO_VIDEO,
        fields=(
            AppField("52", "image", "IMAGE", "First frame"),
            AppField("6", "text", "STRING", "Motion"),
            AppField("50", "length", "INT", "Frames"),
            AppField("60", "pingpong", "BOOLEAN", "There and back"),
        ),
        uses=1200,
    ),
    App(
        "2030000000000000103",
        "Quick picture",
        workflows.QUICK,
        fields=(
            AppField("20", "Input", "SWITCH", "Mode", (("1", "first text"), ("2", "second text"))),
            AppField("20", "text1", "STRING", "First text"),
            AppField("20", "text2", "STRING", "Second text"),
            AppField("5", "batch_size", "INT", "Pictures"),
        ),
        quick_code="002",
        uses=90,
    ),
)


class Apps(SavedGraphs[App]):
    """All apps of the site."""

    def __init__(self) -> None:
        super().__init__(_BUILT_IN, first_id=2_050_000_000_000_000_000)

    def add(
        self,
        graph: Mapping[str, object] | str,
        fields: Iterable[AppField] | None = None,
        *,
        name: str = "An app",
        password: str = "",
        ran: bool = True,
        quick_code: str = "",
    ) -> str:
        """Publishes an app.

        Args:
            graph: The graph in API format.
            fields: The fields that can be set; by default every value of the graph that is not a link.
            name: The app's title.
            password: The required `accessPassword`.
            ran: Whether the app was run once on the site.
            quick_code: The app's `quickCreateCode`.

        Returns:
            The app's id.

        Raises:
            InputError: The graph is invalid, or lacks a field.
        """
        read = read_graph(graph)
        shown = tuple(_all_fields(read) if fields is None else fields)
        for item in shown:
            if item.field_name not in inputs_of(read.get(item.node_id, {})):
                raise InputError(
                    f"The graph has no node {item.node_id} with a field {item.field_name}. What to do: correct the "
                    "fields."
                )
        with self._lock:
            app = App(next(self._ids), name, read, password, shown, ran, quick_code)
            self._known[app.id] = app
        return app.id


def _all_fields(graph: Graph) -> Iterator[AppField]:
    for node_id, node in graph.items():
        known = CLASSES.get(class_type(node))
        for name, value in inputs_of(node).items():
            if link_of(value) is None:
                yield AppField(node_id, name, _type_of(known.fields.get(name) if known else None), name)


def _type_of(item: Field | None) -> FieldType:
    if item is None:
        return "STRING"
    return _MEDIA_TYPES[item.media] if item.media else _PLAIN_TYPES.get(item.kind, "STRING")
