"""Requests for ComfyUI workflows and AI apps on RunningHub: an id, and values for some nodes.

    WorkflowInput(id="1904136902449209346", nodes={"6.text": "a lighthouse", "10.image": photo}, seed=7)

The name of a node's value is `<node id>.<field name>`, as in the workflow's API-format JSON or in the app's call
example.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from rh_prefect.custom_endpoint import CheckedInput
from rh_prefect.errors import InputError, RunningHubError
from rh_prefect.media.media import Media, as_media_input

InstanceType = Literal["default", "plus", "ultra"]
"""The machine: `default` has a 24 GB card, `plus` a 48 GB card; `ultra` (84 GB) is not documented."""

_NAME = re.compile(r"[^.\s]+\.\S.*")


def _value(value: object) -> object:
    """Converts media in any form to a `Media`; other values stay unchanged."""
    if isinstance(value, str | int | float | bool | Media):
        return value
    # A text may be the name of a file at RunningHub; a path is the caller's own file, even if it is missing.
    if isinstance(value, Path):
        return value.absolute().as_uri()
    try:
        return as_media_input(value)
    except InputError as error:  # pydantic names the field of a ValueError
        raise ValueError(error.message.rstrip(".")) from None


if TYPE_CHECKING:
    NodeValue: TypeAlias = Any  # a checker does not see what the validator converts, such as a path
else:
    NodeValue = Annotated[Media | bool | int | float | str, BeforeValidator(_value)]
"""A value for a node's field; a file may be a Media, a path, a URI or the result of another job."""


class NodeValues(CheckedInput):
    """The node values that are set in a graph.

    Attributes:
        nodes: `<node id>.<field name>` -> value; all other fields stay unchanged.
        seed: Sets every seed that `nodes` does not set; if `seed` is None, RunningHub generates new seeds for each run.
        opens_texts: Whether a string in a file field may be a path or link; otherwise, the string is the name of a file
            at RunningHub.
    """

    nodes: dict[str, NodeValue] = Field(default_factory=dict)
    seed: int | None = Field(default=None, ge=0)
    opens_texts: bool = Field(default=True, exclude=True)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        wrong = [name for name in self.nodes if not _NAME.fullmatch(name)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is not a field of a node; write <node id>.<field name>, as in '6.text'")
        return self


class NodesInput(NodeValues):
    """The base class of the inputs of workflows and apps.

    Attributes:
        id: The id at RunningHub: a string of digits, usually 19.
        instance_type: The machine.
        retain_seconds: Seconds, 10 to 180, for which the machine is kept for another run; this costs money.
        use_personal_queue: Whether a run waits while the account's own machines are busy; for exclusive keys only.
    """

    id: str = Field(pattern=r"^[0-9]{1,20}$")
    instance_type: InstanceType = "default"
    retain_seconds: int | None = Field(default=None, ge=10, le=180)
    use_personal_queue: bool = False


class WorkflowInput(NodesInput):
    """A run of a saved ComfyUI workflow.

    The workflow must have been run once on the site; otherwise, RunningHub answers with code 810.

    Attributes:
        workflow: A whole API-format graph to run in place of the saved one; `nodes` are set in this graph.
        add_metadata: Whether pictures contain the graph in their metadata.
        access_password: The password of an encrypted workflow; the password is never recorded.
    """

    workflow: dict[str, Any] | None = Field(default=None, min_length=1)
    add_metadata: bool = True
    access_password: SecretStr | None = Field(default=None, exclude=True)

    @property
    def model(self) -> str:
        """The name of the endpoint in records and tables."""
        return f"workflow/{self.id}"


class AppInput(NodesInput):
    """A run of an AI app.

    Attributes:
        access_password: The password of an encrypted app; the password is never recorded.
    """

    access_password: SecretStr | None = Field(default=None, exclude=True)

    @property
    def model(self) -> str:
        """The name of the endpoint in records and tables."""
        return f"app/{self.id}"


class QuickCreateInput(CheckedInput):
    """A run of one of the site's quick-create modules.

    Attributes:
        id: The module's `webappId`.
        code: The module's `quickCreateCode`, such as `002`, from the module's page.
        nodes: The module's whole `nodeInfoList`, from the module's page; a value may be a file.
    """

    id: str = Field(pattern=r"^[0-9]{1,20}$")
    code: str = Field(min_length=1)
    nodes: tuple[dict[str, NodeValue], ...] = Field(min_length=1)

    @property
    def model(self) -> str:
        """The name of the endpoint in records and tables."""
        return f"quick-create/{self.id}/{self.code}"


class GraphInput(NodeValues):
    """A whole graph that runs on ComfyUI's own API, without a saved workflow.

    Attributes:
        graph: The graph in ComfyUI's API format: node id -> `class_type` and `inputs`; its seeds are not changed. A
            value that is a `Media`, a `Path` or a job's result is moved to `nodes`.
        machine: `proxy` has a 24 GB card, `proxy-plus` a 48 GB card.
    """

    graph: dict[str, Any]
    machine: Literal["proxy", "proxy-plus"] = "proxy"

    @property
    def model(self) -> str:
        """The name of the endpoint in records and tables."""
        return f"graph/{self.machine}"

    @model_validator(mode="before")
    @classmethod
    def _find_files(cls, data: Any) -> Any:  # unchecked
        graph = data.get("graph") if isinstance(data, dict) else None
        if not isinstance(graph, dict):
            return data
        whole: dict[str, Any] = {}
        files: dict[str, object] = {}
        for node_id, node in graph.items():
            whole[str(node_id)], found = _without_files(node_id, _checked_node(node_id, node))
            files |= found
        return {**data, "graph": whole, "nodes": {**files, **(data.get("nodes") or {})}}


def _checked_node(node_id: object, node: object) -> dict[str, Any]:
    if isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict):
        return node
    raise ValueError(
        f"{str(node_id)[:40]!r} is not a node in API format: such a node has `class_type` and `inputs`. On the site, "
        "choose Export (API)"
    )


def _without_files(node_id: object, node: dict[str, Any]) -> tuple[dict[str, Any], dict[str, object]]:
    """Returns a node without its files, and these files by `<node id>.<field name>`."""
    files = {name: value for name, value in node["inputs"].items() if _is_file(value)}
    inputs = {name: "" if name in files else value for name, value in node["inputs"].items()}
    return {**node, "inputs": inputs}, {f"{node_id}.{name}": value for name, value in files.items()}


def _is_file(value: object) -> bool:
    """Returns whether a value is a file, or has a type that is not allowed, which the file check reports later."""
    return value is not None and not isinstance(value, bool | int | float | str | list | tuple | dict)


def unread_graph(what: str, error: RunningHubError) -> str:
    """Returns the message for a graph that cannot be read, with advice."""
    reason = error.message.partition(f"{what}: ")[2] or error.message
    remedy = "" if "What to do:" in reason else " What to do: run again."
    return f"the graph of {what} cannot be read: {reason}{remedy}"
