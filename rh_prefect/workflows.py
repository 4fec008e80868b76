"""What a ComfyUI workflow or an AI app on RunningHub is asked to do: its id, and the values of some of its nodes.

    WorkflowInput(id="1904136902449209346", nodes={"6.text": "a lighthouse", "10.image": photo}, seed=7)

A node's value is named `<node id>.<field name>`, as in the workflow's API-format JSON or in the app's call example.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator

from rh_prefect.errors import InputError
from rh_prefect.media.ref import Media, as_media_input

InstanceType = Literal["default", "plus", "ultra"]
"""The machine: `default` has a 24 GB card, `plus` 48 GB; `ultra` (84 GB) is not documented."""

_NAME = re.compile(r"[^.\s]+\.\S.*")


def _value(value: object) -> object:
    """Media in any of its forms becomes a `Media`; everything else stays as it is."""
    if isinstance(value, str | int | float | bool | Media):
        return value
    # A text may be the name of a file that RunningHub has; a path is the caller's own file, also a missing one.
    return Path(value).absolute().as_uri() if isinstance(value, Path) else as_media_input(value)


NodeValue = Annotated[Media | bool | int | float | str, BeforeValidator(_value)]
"""What a node's field can be set to; a file may be a Media, a path, a URI or the result of another job."""


class NodesInput(BaseModel):
    """What workflows and apps have in common.

    Attributes:
        id: RunningHub's id: 19 digits, as a string.
        nodes: `<node id>.<field name>` -> value; what is not named stays as it is saved.
        instance_type: The machine.
        retain_seconds: How long the machine is kept warm after the end, 10 to 180; it costs.
        use_personal_queue: Queue when the account's own machines are busy; exclusive keys only.
        seed: Sets every seed that `nodes` does not set; RunningHub draws new seeds for each run otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[0-9]{1,20}$")
    nodes: dict[str, NodeValue] = Field(default_factory=dict)
    instance_type: InstanceType = "default"
    retain_seconds: int | None = Field(default=None, ge=10, le=180)
    use_personal_queue: bool = False
    seed: int | None = Field(default=None, ge=0)

    def __init__(self, **given: Any) -> None:  # the fields above
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise InputError(f"{type(self).__name__}: {_problems(error)} Nothing was sent.") from None

    @model_validator(mode="after")
    def _check_names(self) -> NodesInput:
        wrong = [name for name in self.nodes if not _NAME.fullmatch(name)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} names no node's field; write <node id>.<field name>, as in '6.text'")
        return self


class WorkflowInput(NodesInput):
    """A run of a saved ComfyUI workflow.

    The site must have run it once (else RunningHub answers 810).

    Attributes:
        workflow: A whole API-format graph to run in place of the saved one; `nodes` are set in it.
        add_metadata: Whether pictures carry the graph in their metadata.
        access_password: Of an encrypted workflow; it never reaches a record.
    """

    workflow: dict[str, Any] | None = None
    add_metadata: bool = True
    access_password: SecretStr | None = Field(default=None, exclude=True)

    @property
    def model(self) -> str:
        """What records and tables call it."""
        return f"workflow {self.id}"


class AppInput(NodesInput):
    """A run of an AI app.

    Attributes:
        access_password: Of an encrypted app; it never reaches a record.
    """

    access_password: SecretStr | None = Field(default=None, exclude=True)

    @property
    def model(self) -> str:
        """What records and tables call it."""
        return f"app {self.id}"


class QuickCreateInput(BaseModel):
    """A run of one of the modules of the site's quick create.

    Attributes:
        id: The module's `webappId`.
        code: Its `quickCreateCode`, such as `002`; only the module's own page names it.
        nodes: Its whole `nodeInfoList`, as the module's page shows it; a value may be a file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[0-9]{1,20}$")
    code: str = Field(min_length=1)
    nodes: tuple[dict[str, NodeValue], ...] = Field(min_length=1)

    @property
    def model(self) -> str:
        """What records and tables call it."""
        return f"quick create {self.id}/{self.code}"


def _problems(error: ValidationError) -> str:
    found = []
    for one in error.errors():
        where = ".".join(map(str, one["loc"])) or "the call"
        found.append(f"{where}: {one['msg']}.")
    return " ".join(found)
