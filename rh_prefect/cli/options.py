"""Options that several commands share; each field of a group is an option of every command that has the group."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.types import NonNegativeFloat, NonNegativeInt

from rh_prefect.cli.argument_checks import assigned, one_or_list, printable, text_in
from rh_prefect.errors import InputError
from rh_prefect.settings import get_settings

if TYPE_CHECKING:
    from rh_prefect.pipelines.file_model import PipelineFile
    from rh_prefect.pipelines.pipeline import Pipeline
    from rh_prefect.pipelines.plan.planned_steps import Selection
    from rh_prefect.pipelines.plan.reviewed_plan import ReviewedPlan

Json = Annotated[bool, Parameter(name="--json", help="JSON, and nothing else on stdout.")]
Quiet = Annotated[bool, Parameter(help="Print the results only, without progress.")]
DryRun = Annotated[bool, Parameter(help="Show what the run would make and cost. Nothing is submitted or paid.")]
Storage = Annotated[str | None, Parameter(help="Name of a MediaStorage block; by default RH_STORAGE_URL.")]
Credentials = Annotated[
    str | None, Parameter(help="Name of the block of an account or of a pool; by default RH_API_KEY.")
]
File = Annotated[Path, Parameter(help="The pipeline's file, or the name of a shipped pipeline or of a model.")]
Budget = Annotated[
    NonNegativeFloat | None,
    Parameter(
        help="Maximum cost of the run; by default the file's budget, otherwise the plan's highest price; never above "
        "RH_MAX_BUDGET."
    ),
]
More = Annotated[
    list[str],
    Parameter(
        help='A parameter of the pipeline, as in --prompt "a lighthouse"; repeat it for a list. For a parameter with '
        "the name of another option, use --set."
    ),
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """The parameters of a pipeline, except those that are options.

    Attributes:
        set: A parameter: `name=value`; repeat a name to pass a list.
        params: A YAML or JSON file of parameters; --set overrides it.
    """

    set: list[str] | None = None
    params: Path | None = None

    def arguments(self, pipeline: Pipeline, more: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """Returns the parameters; `--set` and options such as `--prompt` override the file given with `--params`."""
        return self._of_file() | {name: one_or_list(values) for name, values in self._texts(pipeline, more).items()}

    def words(self, pipeline: Pipeline, more: Mapping[str, Sequence[str]]) -> list[str]:
        """Returns the parameters as the words of a command line, for printing; see `words_of`.

        All are values of `--set`, as the printed command may have another option with the name of a parameter.
        """
        texts = self._texts(pipeline, more).items()
        return words_of(set=[f"{name}={value}" for name, values in texts for value in values], params=self.params)

    def _texts(self, pipeline: Pipeline, more: Mapping[str, Sequence[str]] | None) -> dict[str, Sequence[str]]:
        texts: dict[str, Sequence[str]] = {**assigned(self.set or ())}
        for option, values in (more or {}).items():
            texts[option if option in pipeline.file.params else option.replace("-", "_")] = values
        return texts

    def _of_file(self) -> dict[str, Any]:
        from rh_prefect.pipelines.yaml_reader import read

        if self.params is None:
            return {}
        data = read(text_in("--params", self.params), str(self.params), is_data=True).data
        if not isinstance(data, dict):
            raise InputError(
                f"{self.params} is not a mapping of parameters to values. Nothing was sent. What to do: write each "
                "parameter as `name: value`."
            )
        return data


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class Selected:
    """The selected steps of a run, and the steps that the run makes again.

    Attributes:
        new: Make and pay for new results for all paid steps.
        retake: Make and pay for a new result of a step, or of one item's step, as in 'each[A-17].picture'.
        only: Only this step; repeatable.
        items: Only this item; repeatable.
        sample: Only the first N items of each fan-out.
    """

    new: bool = False
    retake: list[str] | None = None
    only: list[str] | None = None
    items: list[str] | None = None
    sample: NonNegativeInt = 0

    @property
    def steps(self) -> Selection:
        """Returns the selection made with `--only`, `--items` and `--sample`."""
        from rh_prefect.pipelines.plan.planned_steps import Selection

        return Selection(frozenset(self.only or ()), frozenset(self.items or ()), self.sample)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The storage of a run, and the account that pays.

    Attributes:
        out: Where files go: a folder or an fsspec URL such as s3://bucket/prefix.
        storage: Name of a MediaStorage block, instead of --out.
    """

    out: str | None = None
    credentials: Credentials = None
    storage: str | None = None

    def blocks(self, command: str, file: PipelineFile | None = None) -> tuple[str | None, str | None]:
        """Returns the block names of the account and the storage, from the options or the file; None without a block.

        `--out` changes the environment. Raises an `InputError` for two storages, or a storage in this process's memory.
        """
        storage = self.storage or (file.storage if file is not None and self.out is None else None)
        refuse_two_places(command, self.out and f"--out {self.out}", storage, nothing="sent")
        if not storage:
            self._refuse_memory(command)
        if self.out is not None:
            os.environ["RH_STORAGE_URL"] = self.out
        return self.credentials or (file.credentials if file is not None else None), storage

    def _refuse_memory(self, command: str) -> None:
        from rh_prefect.media.storage_urls import protocol_of

        option, place = ("RH_STORAGE_URL=", get_settings().storage_url) if self.out is None else ("--out ", self.out)
        if protocol_of(place) == "memory":
            raise InputError(
                f"{command}: {option}{place} is in this process's memory: paid results would be lost when the command "
                "ends, and would be paid for again. Nothing was sent. What to do: set a folder, or a URL such as "
                "s3://bucket/prefix."
            )


GIVEN, SELECTED, PLACE = Given(), Selected(), Place()
"""The values of the groups for a command line without these options."""


def refuse_two_places(command: str, place: str | None, storage: str | None, *, nothing: str) -> None:
    """Raises an `InputError` if both a place and the block of a storage are given; says that nothing was `nothing`."""
    if place is not None and storage:
        raise InputError(
            f"{command}: {place} and --storage {storage} cannot both be given. Nothing was {nothing}. What to do: "
            "leave one of them out."
        )


def with_reviewed(command: str, arguments: dict[str, Any], reviewed: ReviewedPlan | None) -> dict[str, Any]:
    """Returns a command's parameters, completed with the parameters of the reviewed plan, if there is one."""
    if reviewed is None:
        return arguments
    missing = [name for name in reviewed.hidden_params if name not in arguments]
    if missing:
        raise InputError(
            f"{command}: {reviewed.name} does not contain the whole value of {missing[0]}, a link with a signature or "
            f"a password. Nothing was paid. What to do: give the value with --set {missing[0]}=…."
        )
    return {**reviewed.params, **arguments}


def words_of(**options: Any) -> list[str]:
    """Returns options as the words of a command line, for printing; see `printable`.

    A list becomes a repeated option, True a switch; options without a value are left out.
    """
    words: list[str] = []
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        for one in value if isinstance(value, list) else [value]:
            if one is True:
                words.append(option)
            elif one is not None and one is not False:
                text = f"{one:.12g}" if isinstance(one, float) else printable(str(one))
                # As a separate word, the value would be read as an option.
                words += [f"{option}={text}"] if text.startswith("-") else [option, text]
    return words
