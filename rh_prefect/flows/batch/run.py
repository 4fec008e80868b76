"""The Python function `batch`, which runs the same work for many rows and reports the result of each row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rh_prefect.blocks.lookup import load_pool_context, load_storage
from rh_prefect.errors import ConfigError, PipelineIncomplete, RunningHubError
from rh_prefect.flow_runs.flow_scope import current_scope
from rh_prefect.flows.batch.report import BatchReport
from rh_prefect.flows.local_pipeline import run_here
from rh_prefect.flows.pipeline import Pipeline, run_in_flow
from rh_prefect.media.input_access_policy import allow_below
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.batch import BatchFile, BatchOptions, RowInput, write_batch
from rh_prefect.pipelines.batch_models import ChainStep
from rh_prefect.pipelines.file_model import Param
from rh_prefect.pipelines.input_reader import Inputs, input_roots
from rh_prefect.pipelines.plan.plan import Plan
from rh_prefect.pipelines.plan.planned_steps import KnownWorks, Selection
from rh_prefect.pipelines.run.options import RunOptions
from rh_prefect.pipelines.run.surroundings import Pages
from rh_prefect.table_files import form_of
from rh_prefect.works.journal.costs import CURRENCY
from rh_prefect.works.loop_thread import LOOP
from rh_prefect.works.options import Options, Reuse, Wait


async def batch(
    rows: RowInput,
    *,
    model: str,
    chain: Sequence[ChainStep] = (),
    values: Mapping[str, object] | None = None,
    label_column: str | None = None,
    ignore_columns: Iterable[str] = (),
    budget: float | None = None,
    strict: bool = False,
    attempts: int = 1,
    reuse: Reuse = "never",
    wait: Wait = "poll",
    only: Sequence[str] = (),
    items: Sequence[str] = (),
    sample: int = 0,
    credentials: str | None = None,
    storage: str | None = None,
) -> BatchReport:
    """Runs a model, or a short chain of models, on many rows, and returns a report; call it in a flow.

    It writes a pipeline and runs it. A row that fails does not stop the others. Running the same batch again, in the
    same flow run or in a new one, makes only what is missing; what failed is paid for again.

        report = await batch("s3://bucket/photos", model="kling-v2.6-pro-image-to-video",
                              values={"prompt": "waves"}, chain=["rhart-video/video-upscaler"], budget=25)

    Args:
        rows: A table (.csv, .tsv, .jsonl, .parquet), a folder or S3 prefix, a glob, or a list of parameters or
            files. A table's columns are parameters of the models, its relative paths start from its own folder.
        model: The model, by any of its names.
        chain: Further models, each a name or an object with `model` and parameters; each takes the output of the one
            before.
        values: Parameters for every row; a name is of the first model that has it, `2.name` is the second's.
        label_column: The column that names outputs.
        ignore_columns: Columns that are not parameters.
        budget: What the rows may cost together, in all runs of the batch.
        strict: Whether one invalid row, or one invalid file, stops the batch before anything is paid.
        attempts: Maximum number of tasks paid for one job in one run, failed ones included; the next run of the
            batch makes failed rows again.
        reuse: `always` shares results with all runs, and takes those of identical earlier requests from the storage.
        wait: How to wait: `suspend` suspends the run when every row's job is submitted, so that it holds no worker, and
            continues when these have ended; once for each step of a chain. See `generate_many`.
        only: Steps to make, as in `["rows.clip"]`; empty for all.
        items: Rows to make, by their labels or numbers; empty for all.
        sample: Make only the first rows; 0 for all.
        credentials: Name of a `RunningHubCredentials` or `RunningHubPool` block; by default RH_API_KEY and RH_BASE_URL.
        storage: Name of a `MediaStorage` block; by default RH_STORAGE_URL.

    Raises:
        InputError: The rows cannot be read, or, where it is strict, one of them is invalid.
        RunningHubError: The batch as a whole cannot be run; see `rh_prefect.errors`.
    """
    arguments = dict(locals())
    if current_scope() is None:
        raise ConfigError("batch: called outside of a flow. What to do: call it in a flow, or: rh-prefect batch ROWS.")
    return await Batch(**arguments).run()


@dataclass
class Batch:
    """A batch with its options; see `batch`. `file` is its pipeline, once it is written."""

    rows: RowInput
    model: str
    chain: Sequence[ChainStep] = ()
    values: Mapping[str, object] | None = None
    label_column: str | None = None
    ignore_columns: Iterable[str] = ()
    budget: float | None = None
    strict: bool = False
    attempts: int = 1
    reuse: Reuse = "never"
    wait: Wait = "poll"
    only: Sequence[str] = ()
    items: Sequence[str] = ()
    sample: int = 0
    credentials: str | None = None
    storage: str | None = None
    file: BatchFile = field(init=False)
    _inputs: Inputs = field(init=False)

    async def write(self, site: str, store: MediaStore, *, whole_items: bool = True) -> None:
        """Writes the pipeline; see `write_batch`."""
        # Here, and not row by row: an invalid option is invalid for all rows.
        Options(budget=self.budget, attempts=self.attempts, reuse=self.reuse)
        place = self.rows if isinstance(self.rows, str) else None
        self._inputs = Inputs(options=store.options_for(place) if place else None, own=store.url, is_open=True)
        if place is not None:
            kind = "table" if form_of(place) is not None else "files"
            allow_below(*input_roots({"rows": Param(type=kind)}, {"rows": place}))
        self.file = await write_batch(
            self.rows,
            self.model,
            chain=self.chain,
            values=self.values,
            options=BatchOptions(
                label_column=self.label_column,
                ignored=tuple(self.ignore_columns),
                budget=self.budget,
                whole_items=whole_items,
                strict=self.strict,
                attempts=self.attempts,
                is_shared=self.reuse == "always",
            ),
            place_of_results=f"{site} {store.url}",
            inputs=self._inputs,
        )

    async def plan(self, known: KnownWorks) -> Plan:
        """Returns what the batch would make and pay."""
        selection = Selection(frozenset(self.only), frozenset(self.items), self.sample)
        more: dict[str, Any] = {"known": known, "selection": selection, "inputs": self._inputs}
        return await self._pipeline().plan(self.file.arguments, **more)

    async def run(self) -> BatchReport:
        """Runs the batch in the flow run that the caller is in."""
        await self._write()
        surroundings: dict[str, Any] = {"inputs": self._inputs, "reuse": self.reuse}
        state = await run_in_flow(self._pipeline(), self.file.arguments, RunOptions(**self._options()), **surroundings)
        found: Any = await state.aresult(raise_on_failure=False)
        if isinstance(found, RunningHubError) and not isinstance(found, PipelineIncomplete):
            raise found
        return BatchReport.of(found.result if isinstance(found, PipelineIncomplete) else found, self.file)

    async def run_here(self, pages: Pages) -> BatchReport:
        """Runs the batch in this process, without Prefect's engine."""
        await self._write()
        values = {**self.file.arguments, **self._options()}
        end = await run_here(self._pipeline(), values, pages=pages, inputs=self._inputs, reuse=self.reuse)
        return BatchReport.of(end.result, self.file)

    def _options(self) -> dict[str, Any]:
        return {
            "only": list(self.only) or None,
            "items": list(self.items) or None,
            "sample": self.sample,
            "credentials": self.credentials or "",
            "storage": self.storage or "",
            "wait": self.wait,
        }

    async def _write(self) -> None:
        engine, store = await load_pool_context(self.credentials), await load_storage(self.storage)
        # Prices of plans are in CNY: in another currency, the price of a whole row is not known.
        is_foreign = self.budget is not None and await LOOP.call(engine.pool.currency()) not in (None, CURRENCY)
        await self.write(engine.pool.site, store, whole_items=not is_foreign)

    def _pipeline(self) -> Pipeline:
        return Pipeline.from_text(self.file.text, name=f"{self.file.name}.yaml")
