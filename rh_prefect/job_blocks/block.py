"""What the job blocks have in common: whose account pays, where files go, and how a job is started."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from prefect.blocks.abstract import JobBlock
from pydantic import ConfigDict, Field, model_validator

from rh_prefect.errors import InputError
from rh_prefect.job_blocks.job_run import RunningHubJobRun
from rh_prefect.jobs.loop_thread import LOOP
from rh_prefect.jobs.outputs.result import Result

if TYPE_CHECKING:
    from rh_prefect.jobs.journal.call_path import Place
    from rh_prefect.jobs.options import Options, Request

LOGO = "https://www.runninghub.cn/favicon.png"
DOCUMENTATION = "https://www.runninghub.cn/runninghub-api-doc-cn/"


class RunningHubJob(JobBlock[Result], ABC):
    """The base of the job blocks; it is no block type of its own."""

    # A wrong field's value may be a password: it must not be in the error.
    model_config = ConfigDict(hide_input_in_errors=True)

    label: str | None = Field(
        default=None, description="A name for the output, in its file's name; other labels make other jobs."
    )
    credentials: str | None = Field(
        default=None,
        description="Name of the RunningHub Credentials block that pays; by default RH_API_KEY and RH_BASE_URL.",
    )
    storage: str | None = Field(
        default=None, description="Name of the Media Storage block that the outputs go to; by default RH_STORAGE_URL."
    )

    @model_validator(mode="after")
    def _check_defaults(self) -> Self:
        """Refuses to save what could never be started."""
        try:
            self._check()
        except InputError as error:
            raise ValueError(error.message) from None
        return self

    @abstractmethod
    def _check(self) -> None:
        """Raises `InputError` where the saved values are wrong whatever `trigger` adds to them."""

    @abstractmethod
    def _request(self, overrides: Mapping[str, Any]) -> Request:
        """Makes the request of the saved values, overridden by the arguments of `trigger`."""

    def _trigger(self, overrides: Mapping[str, Any]) -> RunningHubJobRun:
        return LOOP.call_sync(self._start(overrides, self._place(overrides)))

    async def _trigger_async(self, overrides: Mapping[str, Any]) -> RunningHubJobRun:
        return await LOOP.call(self._start(overrides, self._place(overrides)))

    def _place(self, overrides: Mapping[str, Any]) -> Place:
        """The place of this call in its run, which only the caller's own thread can tell."""
        from rh_prefect.flow_runs.call_positions import NOT_OF_THE_REQUEST, take_place

        saved = {name: getattr(self, name) for name in type(self).model_fields}
        values = {name: value for name, value in {**saved, **overrides}.items() if name not in NOT_OF_THE_REQUEST}
        return take_place(type(self).__name__, values)

    async def _start(self, overrides: Mapping[str, Any], place: Place) -> RunningHubJobRun:
        # Heavy, and needed by none who only looks a block type up, as Prefect's server does at its start.
        from rh_prefect.job_blocks.job_handle import start
        from rh_prefect.jobs.options import JobOptions

        values = dict(overrides)
        scope = values.pop("scope", None)
        options = self._options({name: values.pop(name) for name in JobOptions.__annotations__ if name in values})
        return RunningHubJobRun(await start(self._request(values), options, scope=scope, place=place))

    def _options(self, overrides: Mapping[str, Any]) -> Options:
        from rh_prefect.jobs.options import Options

        saved = {"label": self.label, "credentials": self.credentials, "storage": self.storage}
        return Options(**{**saved, **overrides})
