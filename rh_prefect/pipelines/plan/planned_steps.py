"""Defines the parts of a plan: works with prices, and the steps of all items with their states."""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, Literal

from rh_prefect.media.media import Media
from rh_prefect.pipelines.file_model import Step
from rh_prefect.pipelines.parsed_answers import shape_of
from rh_prefect.pipelines.parsed_document import Path
from rh_prefect.pipelines.planning_values import EMPTY, Unknown

State = Literal["=", "…", "+", "~", ">", "?", "!", "r", "x"]
"""The state of a step or of a work."""

SIGNS: dict[State, str] = {
    "=": "existing",
    "…": "in progress",
    "+": "new",
    "~": "changed",
    ">": "waiting for a result",
    "?": "with an unknown response",
    "!": "without its files",
    "r": "waiting for a review",
    "x": "absent",
}
"""Short descriptions of the states, for the line below a table and for the boxes of a graph.

`~`: the request differs from that of the last run. `x`: a condition is false, the item is invalid, or a step that the
step needs is absent.
"""

HINTS: dict[State, str] = {
    "…": "submitted earlier, not finished; the run waits",
    "?": "the response to a submission was lost: first run `rh-prefect jobs adopt` or `jobs mark-refused`",
    "!": "files are missing and are downloaded again, or no file has the step's kind; --retake makes a new result",
    "r": "waits for a review, or depends on a review",
}
"""Descriptions of the states that need an explanation below a table."""

PAYING: frozenset[State] = frozenset({"+", "~", ">", "r"})
"""States of steps that the run pays for; after a review, the next run pays."""


@dataclass(frozen=True, slots=True)
class PriceRange:
    """The minimum, expected and maximum price of a work, a step or a plan."""

    least: Decimal = Decimal(0)  # Everything at its minimum
    expected: Decimal = Decimal(0)  # What it will probably be
    most: Decimal = Decimal(0)  # What it can be at most, each attempt counted
    is_open: bool = False  # Whether a price is unknown or assumed, so that it can be more

    def __add__(self, other: PriceRange) -> PriceRange:
        """Returns the sum; it is open if one of the amounts is open."""
        return PriceRange(
            self.least + other.least,
            self.expected + other.expected,
            self.most + other.most,
            self.is_open or other.is_open,
        )


FREE = PriceRange()


@dataclass(frozen=True, slots=True)
class KnownWork:
    """The recorded data of a work or of an edit."""

    # `=` the result exists, `…` in flight, `?` no known answer, `!` its files are missing or short, `+` its tasks have
    # failed
    state: Literal["=", "…", "?", "!", "+"]
    outputs: tuple[Media, ...] = ()  # Its files
    texts: tuple[str, ...] = ()
    value: Any = None  # The answer as `parse` read it
    cost: Decimal | None = None  # What it cost; of a work without a result, what its tasks have cost or may cost
    currency: str = ""  # The currency of `cost` of a result
    coins: Decimal | None = None  # The coins that a result cost beside the money
    at: datetime | None = None  # When it was recorded, by its writer's clock; it may be in the future of this machine
    record: str = ""  # Where its record is
    task_id: str = ""  # RunningHub's task
    run_seconds: float | None = None  # How long its task ran
    is_lost: bool = False  # Whether the file of an edit is missing; it is made again when something needs it
    # For files that were made or downloaded again with other bytes: own hash -> the hash of the first one, which stands
    # for it in requests
    counts_as: Mapping[str, str] = field(default_factory=lambda: EMPTY)

    def output(self, kind: str) -> Media | None:
        """Returns the file that is the result of a step: the first file of the step's kind.

        Other files of a graph, such as a preview, are not the result. If there is no file of this kind, a file of
        unknown kind counts, such as an archive with a 3D model.
        """
        ranked = (one for kinds in ((kind,), ("other",)) for one in self.outputs if one.kind in kinds)
        return next(iter(self.outputs if kind == "file" else ranked), None)

    def lack(self, kind: str) -> str:
        """Returns a clause if the task made no result of a step's kind; empty otherwise."""
        if self.texts or self.value is not None if kind == "string" else self.output(kind) is not None:
            return ""
        made = [*(f"a file of kind {one.kind}" for one in self.outputs), *(["text"] if self.texts else [])]
        wanted = "text" if kind == "string" else kind
        return f"its task made {' and '.join(made)}, but no {wanted}" if made else "its task made nothing"


@dataclass(frozen=True, slots=True)
class WorkQuery:
    """A query for the recorded data of one work."""

    work: str  # Its id
    shape: str = ""  # How its answer is read; empty without `parse`
    is_edit: bool = False  # Whether it is an edit's recipe


def id_part(name: str) -> str:
    """Returns an item's id as a part of an address, where `/` separates the ids of nested items."""
    return re.sub("%(?=(25)*2F)", "%25", name).replace("/", "%2F")


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of a pipeline that a run makes."""

    # Names of steps, as in `each.clip`, or of single items, as in `each[A-17].clip`; empty for all
    steps: frozenset[str] = frozenset()
    items: frozenset[str] = frozenset()  # Ids of items; empty for all
    sample: int = 0  # Only the first items of each outermost fan-out; 0 for all

    def as_json(self) -> dict[str, Any]:
        """Returns the selection as plain JSON data, with the names of the run options as keys."""
        return {"only": sorted(self.steps), "items": sorted(self.items), "sample": self.sample}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Selection:
        """Reads the result of `as_json`; a missing key selects everything."""
        return cls(frozenset(data.get("only", ())), frozenset(data.get("items", ())), data.get("sample", 0))

    @property
    def words(self) -> str:
        """Returns the selection as options of a command, as in `--only each.clip`."""
        options = [("--only", one) for one in sorted(self.steps)] + [("--items", one) for one in sorted(self.items)]
        options += [("--sample", str(self.sample))] if self.sample else []
        return shlex.join(word for option in options for word in option)

    @property
    def top_items(self) -> frozenset[str]:
        """Returns the items in the form of `PlannedStep.top_item`."""
        return frozenset(map(id_part, self.items))

    def has(self, one: PlannedStep) -> bool:
        """Returns whether a step is selected."""
        return self.has_item(one) and (not self.steps or bool({one.path, one.address} & self.steps))

    def has_item(self, one: PlannedStep) -> bool:
        """Returns whether the item of a step is selected; steps outside of fan-outs have no item, and are included."""
        in_items = not self.items or not one.item or one.top_item in self.top_items
        return in_items and (not self.sample or not one.numbers or one.numbers[0] <= self.sample)


@dataclass(frozen=True, slots=True)
class Round:
    """The round of a run; see `rounds_across_runs`."""

    scope: str  # Its name, a part of the identity of the works that belong to it, and valid in a record's key
    began: datetime  # When it began: the age of an earlier result counts at this time
    note: str = ""  # What a person should know of it


class KnownWorks:
    """A source of recorded works. This base class has none, so every work is new."""

    async def find(self, queries: Sequence[WorkQuery]) -> Sequence[KnownWork | None]:
        """Looks up works; the result is None for a work without records."""
        return [None] * len(queries)

    async def new_take(self, base: str, scope: str = "") -> int:  # noqa: ARG002
        """Returns the number of a take that was never submitted for a request."""
        return 1

    async def round(self, pipeline: str) -> Round:
        """Returns the round of a run, which the first call begins; for a plan, the round that a run would have."""
        return Round(f"{pipeline}-1", datetime.now(UTC))

    async def takes_of(self, choice: str, new: Sequence[int] = ()) -> Sequence[int]:  # noqa: ARG002
        """Returns the takes that runs use for a step: those recorded first, else `new`, which a run records."""
        return new


@dataclass(slots=True, eq=False, repr=False)
class Work:
    """One request with one take, and the structure of its answer.

    Works that differ only in this structure are paid for only once.
    """

    key: str  # Its id; if its inputs do not exist yet, a key that is valid only in this plan
    is_settled: bool  # Whether `key` is its id
    take: int  # Which result of the request it is
    state: State  # See `SIGNS`
    price: PriceRange = FREE  # What it costs
    known: KnownWork | None = None  # What the records say
    shape: str = ""  # How its answer is read; see `parsed_answers.shape_of`
    attempts: int = 1  # How many tasks it may pay for
    is_sure: bool = False  # Whether it is also made in the cheapest course of the run
    is_needed: bool = True  # Whether one of its steps is needed
    # Whether all items that need it are left out of the highest price; see `fan_out.mark_chosen`
    is_spare: bool = False
    scope: str = ""  # The round that it belongs to; empty for one that all runs share

    @property
    def is_paid(self) -> bool:
        """Whether this plan pays for the work."""
        return self.state in PAYING and self.is_needed


@dataclass(slots=True, eq=False, repr=False)
class PlannedStep:
    """One step of one item."""

    path: str  # The step with the groups around it: `each.clip`
    # The item's id with those of the items around it, as in `anna/calm-5`; empty outside of fan-outs. A `/` in an id is
    # written as `%2F`
    item: str
    step: Step  # Its declaration
    at: Path  # Its path in the file
    model: str = ""  # The model's name, or the edit's
    state: State = "+"  # See `SIGNS`
    works: Sequence[Work] = ()  # A work of each take
    # The parameters by their Python names: plain values, files as `planning_values.File`, and `planning_values.Unknown`
    # for what a step has yet to make. A run calls the model, or the edit, with these
    values: dict[str, Any] = field(default_factory=dict)
    # The parameters that are given, under their names in the request; files by content
    request: dict[str, Any] = field(default_factory=dict)
    kind: str = ""  # The kind of its result
    endpoint: str = ""  # The endpoint of its model
    at_most: int | None = None  # The most items of a list that `parse` reads
    is_pending: bool = False  # Whether a condition on it, or the list that it is an item of, is not known yet
    seconds: float | None = None  # How long the result is, if that is known or estimated
    needs: Sequence[PlannedStep] = ()  # The steps whose results it uses
    # The steps that its conditions refer to, and those of its groups
    waits_for: Sequence[PlannedStep] = ()
    why: Sequence[dict[str, Any]] = ()  # What differs from the last run: `{param, was, is, from}`
    save_as: str = ""  # The name that the result is saved under
    is_sure: bool = True  # Whether it exists even in the cheapest course of the run
    may_be_free: bool = False  # Whether it may cost nothing in this run, by an undecided condition
    is_needed: bool = True  # Whether the run uses its result; see `needed_steps`
    is_output: bool = False  # Whether it is an output of the file
    is_lost: bool = False  # Whether it is an edit without its file, which no step makes again; see `needed_steps`
    attempts: int = 1  # How many tasks one take may pay for
    reuse: str = "always"  # Which earlier results it may use: `always`, `never`, or at most how old ones
    note: str = ""  # Why it is in this state, if the state does not say
    # The nodes of its graph, of its workflow's or of its app's; see `site_graphs.SavedGraph`
    graph: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    saved_graph: str = ""  # The fingerprint of the whole graph that the site has under its id
    # Short hashes of these nodes, without the fields that it sets
    nodes: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    is_unread: bool = False  # Whether its graph was not read, so that its works are not known
    unread_graph: str = ""  # Why its graph could not be read, and what to do; empty if it was
    forbidden: str = ""  # Why it must not be paid for; see `lifecycle.Policy`
    row: str = ""  # The row of a table that its item comes from, for messages
    # What is wrong with its values, of which those from a model are known only during the run; it is not made then
    problems: Sequence[str] = ()
    candidates: Sequence[Any] = ()  # The results that a review shows, in the order of their numbers
    ask: str = ""  # The question of a review
    chosen: Any = None  # The result that a review has; None if none is chosen yet
    used_at: Path = ()  # The path of the step with `use` that it comes from, in the file that is planned
    stops_run: bool = False  # Whether the run starts no more steps after its failure; see `on_error`
    # The number of its item, after those of the items around it; empty outside of fan-outs
    numbers: tuple[int, ...] = ()
    blocked_by: str = ""  # The address of the failed step without which it cannot be made; empty if there is none
    item_meaning: str = ""  # See `Frame.meaning`
    is_invalid_item: bool = False  # Whether its item is skipped because it is invalid
    # The state by the records alone, before it is known whether anything needs the step
    found: State = field(init=False)
    price: PriceRange = FREE  # What one take costs
    price_note: str = ""  # Why the price is open, and what to do; empty if it is not, or if the file assumes it
    is_quoted: bool = False  # Whether the price is RunningHub's, from `quote`
    weight: int | None = None  # How the step counts for the steps before it; see `needed_steps`
    address: str = field(init=False)  # Its name in reports: `each[A-17].clip`

    def __post_init__(self) -> None:
        """Copies the given state to `found`, the state that the records alone show, and sets the address."""
        self.found = self.state
        group, _, name = self.path.rpartition(".")
        self.address = f"{group}[{self.item}].{name}" if self.item else self.path

    def settle(self, state: State) -> None:
        """Sets both `state` and `found` to the state that the records show."""
        self.state = self.found = state

    @property
    def saved_names(self) -> list[str]:
        """The names under which the step's takes are saved; the second take has `-2` before the extension."""
        if not self.save_as:
            return []
        path, further = PurePosixPath(self.save_as), range(2, len(self.works) + 1)
        return [self.save_as, *(str(path.with_name(f"{path.stem}-{number}{path.suffix}")) for number in further)]

    def no_candidate(self, chosen: object) -> str:
        """Returns a clause that says that a review has no candidate with the chosen number, and which numbers exist."""
        count = len(self.candidates)
        there = {0: "none", 1: "1", 2: "1 and 2"}.get(count, f"1 to {count}")
        return f"there is no candidate {json.dumps(chosen, default=str)[:80]}; valid numbers: {there}"

    @property
    def file_kind(self) -> str:
        """The kind of the step's result file; `file` for an edit, whose only file is the result."""
        return self.kind if self.is_paid else "file"

    @property
    def shows_texts(self) -> bool:
        """Whether the step is a review of texts; `choose --text`, which replaces a reviewed text, needs one."""
        return all(isinstance(one, str | Unknown) for one in self.candidates)

    @property
    def waits_for_choice(self) -> bool:
        """Whether the step is a review without a choice, and all its candidates exist."""
        needs = (*self.needs, *self.waits_for)
        return self.model == "review" and self.state == "r" and all(need.state == "=" for need in needs)

    @property
    def numbered_candidates(self) -> list[tuple[str, Any]]:
        """The candidates of a review, each with the argument of `rh-prefect choose` that chooses it."""
        return [(f"{self.address}={number}", one) for number, one in enumerate(self.candidates, 1)]

    @property
    def next_takes(self) -> dict[str, int]:
        """For each paid step that made the candidates of a review, the take that makes another one.

        Without steps of `same: separate`, whose next take may be the result of another item.
        """
        made = (one for one in paid_steps(self.needs) if one.works and one.step.get("same") != "separate")
        return {one.address: one.works[-1].take + 1 for one in made}

    @property
    def top_item(self) -> str:
        """The item of the outermost fan-out around the step."""
        return self.item.partition("/")[0]

    @property
    def has_failed(self) -> bool:
        """Whether one of the step's tasks has failed in an earlier run."""
        return any(work.known is not None and work.known.state == "+" for work in self.works)

    @property
    def shape(self) -> str:
        """The structure of the step's answer; see `parsed_answers.shape_of`."""
        return shape_of(self.step.get("parse"), at_most=self.at_most)

    @property
    def is_paid(self) -> bool:
        """Whether the step sends a request to RunningHub."""
        return self.step.is_paid


def paid_steps(steps: Iterable[PlannedStep]) -> Iterator[PlannedStep]:
    """Yields the paid steps that make the results of steps; for an edit, the paid steps that make its inputs."""
    for one in steps:
        yield from (one,) if one.is_paid else paid_steps(one.needs)


def own_works(instances: Iterable[PlannedStep]) -> dict[str, list[str]]:
    """Returns the keys of works that belong to only one item of an outermost fan-out, by item."""
    owners: dict[str, str | None] = {}
    for one in instances:
        for work in one.works:
            if owners.setdefault(work.key, one.top_item) != one.top_item:
                owners[work.key] = None
    found: dict[str, list[str]] = defaultdict(list)
    for key, item in owners.items():
        if item:
            found[item].append(key)
    return found


def grouped(instances: Sequence[PlannedStep]) -> dict[str, list[PlannedStep]]:
    """Returns the steps of all items by path, as in `each.clip`, in the order of the file."""
    found: dict[str, list[PlannedStep]] = defaultdict(list)
    for instance in instances:
        found[instance.path].append(instance)
    return dict(found)
