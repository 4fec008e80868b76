"""What the blocks of workflows and apps have in common: the machine that runs them, and what a run can be given."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, SecretStr

from rh_prefect.job_blocks.block import RunningHubJob
from rh_prefect.workflows import InstanceType

if TYPE_CHECKING:
    from rh_prefect.jobs.options import JobOptions

    class GraphOverrides(JobOptions, total=False):
        """What a run can be given; `nodes` are laid over the saved ones, all else replaces them."""

        nodes: Mapping[str, Any]  # media in any of its forms
        seed: int | None
        instance_type: InstanceType
        retain_seconds: int | None
        use_personal_queue: bool
        access_password: str | SecretStr | None
        scope: str | None


class RunningHubGraphJob(RunningHubJob, ABC):
    """The base of the blocks that run a graph on RunningHub's machines; it is no block type of its own."""

    instance_type: InstanceType = Field(
        default="default", title="Machine", description="The machine: default (24 GB), plus (48 GB) or ultra."
    )
    retain_seconds: int | None = Field(
        default=None, description="How long the machine is kept warm after the end, 10 to 180 seconds; it costs."
    )
    use_personal_queue: bool = Field(
        default=False, description="Whether to queue when the account's own machines are busy; exclusive keys only."
    )
    access_password: SecretStr | None = Field(
        default=None, description="The password, where it is encrypted; it reaches no record."
    )

    def _machine(self) -> dict[str, Any]:
        """The saved values of these fields, as inputs take them."""
        return {name: getattr(self, name) for name in RunningHubGraphJob.__annotations__}
