"""Mutation tests of the modules that decide about money: each mutant has one small fault, which a test must find.

    python -m benchmarks.mutation                           # 200 random mutants, the quick tests and then the wide ones
    python -m benchmarks.mutation --seed 7 --count 40 --quick --only works/journal/repeated_calls
    python -m benchmarks.mutation --quick --area pipelines  # the modules of one package
    python -m benchmarks.mutation --pick 3 17               # these of the same sample again, after a test was added

A mutant is written into a copy of the repository in a temporary folder. A process that is forked for it runs the tests
of its module there, the quickest first, and the wide ones only if all of these pass. Several mutants are tried at once,
each in a separate copy. What exceeds a time limit is counted apart: a mutant may wait for ever, and a busy machine may
be slow. A survivor is judged by hand: either it behaves like the original, or a test is missing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from benchmarks.mutants import ROOT, Mutant, mutants_of

QUICK = {
    "works/journal/identity": ["works/journal/test_identity.py"],
    "works/journal/repeated_calls": ["works/journal/test_repeated_calls.py"],
    "works/journal/record_types": ["works/journal/test_record_types.py", "works/test_lifecycle.py"],
    "works/journal/job_records": [
        "works/journal/test_record_types.py",
        "works/test_lifecycle.py",
        "works/journal/test_budget.py",
        "works/test_run_cancellation.py",
    ],
    "works/journal/budget": ["works/journal/test_budget.py", "works/test_lifecycle_steps.py"],
    "works/journal/costs": ["works/journal/test_costs.py", "works/journal/test_budget.py"],
    "works/journal/scope": ["works/test_scope_checks.py", "works/test_run_cancellation.py"],
    "works/journal/journal": ["works/journal/test_journal.py", "works/journal/test_works_journal.py"],
    "works/journal/works_journal": [
        "works/journal/test_works_journal.py",
        "works/test_work_records.py",
        "works/test_work_runner.py",
    ],
    "works/journal/spool": ["works/journal/test_spool.py", "works/test_submission.py"],
    "works/journal/process_identity": ["works/journal/test_process_identity.py", "works/journal/test_works_journal.py"],
    "works/journal/signs_of_life": ["works/journal/test_works_journal.py", "works/test_work_runner.py"],
    "works/lifecycle": [
        "works/test_lifecycle.py",
        "works/journal/test_budget.py",
        "works/test_work_refusals.py",
        "works/test_works_exploration.py",
        "works/test_work_records.py",
        "works/test_work_runner.py",
    ],
    "works/run_cancellation": [
        "works/test_run_cancellation.py",
        "works/test_suspension.py",
        "works/test_work_runner.py",
    ],
    "works/lifecycle_steps": [
        "works/test_submission.py",
        "works/test_lifecycle_steps.py",
        "works/journal/test_budget.py",
        "works/test_completion.py",
        "works/test_scope_checks.py",
        "works/accounts/test_poller_with_webhooks.py",
        "works/test_work_records.py",
        "works/test_work_runner.py",
    ],
    "works/work_spending": [
        "works/test_lifecycle_steps.py",
        "works/journal/test_budget.py",
        "works/test_work_runner.py",
    ],
    "works/completion": ["works/test_completion.py", "works/test_lifecycle_steps.py"],
    "works/delivery": [
        "works/outputs/test_collect.py",
        "works/test_lifecycle_steps.py",
        "works/test_work_records.py",
        "works/test_work_runner.py",
    ],
    "works/shared_records": ["works/test_run_ledger.py", "works/test_work_records.py", "works/test_work_runner.py"],
    "works/manual_repair": ["works/test_manual_repair.py", "works/test_submission.py", "works/test_scope_checks.py"],
    "works/outputs/collect": ["works/outputs/test_collect.py"],
    "works/outputs/stored_result": [
        "works/outputs/test_stored_result.py",
        "works/outputs/test_collect.py",
    ],
    "works/accounts/limiter": ["works/accounts/test_limiter.py", "works/accounts/test_first_free.py"],
    "works/accounts/pool": ["works/accounts/test_pool.py", "works/accounts/test_first_free.py"],
    "works/accounts/poller": ["works/accounts/test_poller.py", "works/accounts/test_poller_with_webhooks.py"],
    "works/accounts/prices": [
        "works/test_currency.py",
        "works/journal/test_budget.py",
        "works/test_lifecycle_steps.py",
    ],
    "works/options": ["works/test_options.py"],
    "works/requests/input_identification": [
        "works/requests/test_input_identification.py",
        "works/requests/test_paid_inputs.py",
    ],
    "works/requests/request_preparation": [
        "works/requests/test_request_preparation.py",
        "works/requests/test_graph_request.py",
        "works/test_submission.py",
    ],
    "works/run_ledger": ["works/test_run_ledger.py", "works/test_work_runner.py"],
    "works/work_runner": [
        "works/test_lifecycle_steps.py",
        "works/test_work_records.py",
        "works/test_work_runner.py",
        "works/test_currency.py",
        "works/requests/test_graph_request.py",
        "tasks/test_shared_jobs.py",
    ],
    "pipelines/rounds": ["pipelines/test_rounds.py"],
    "pipelines/plan/request_price": ["pipelines/test_request_price.py", "pipelines/test_prices.py"],
}
"""Module -> the tests that are run first: those without a Prefect server and S3."""

SLOW = ("works/test_work_runner.py::test_a_run_killed_before_any_operation_is_continued_by_a_new_one",)
"""Tests of the quick files that are left to the wide run."""

WIDE = {
    "works": [f"tests/{folder}" for folder in ("works", "client", "tasks", "flow_runs", "flows")],
    "pipelines": ["tests/pipelines", "tests/flows"],
}
"""Package -> the tests that are run after the quick ones."""

WARM = ("hypothesis", "prefect.main", "prefect.client.orchestration", "httpx", "fsspec", "s3fs", "av", "PIL.Image")
"""What every run of tests imports: this process does it once."""


IMPORTED = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
"""What this process has imported already is no error."""


SECONDS_OF_A_TEST = 20.0
"""Seconds that every test may take: what was measured once says little about a busy machine."""

SLOWER = 10.0
"""How many times longer than without a fault a test may take."""

Seconds = Mapping[str, float]
"""Test -> how long it takes without a fault."""


@dataclass(slots=True, eq=False)
class Order:
    """Runs the quickest tests first, limits the time of each, and measures them; a plugin of pytest.

    Attributes:
        seconds: What was measured before; empty to measure.
        measured: What was measured now.
    """

    seconds: Seconds
    measured: dict[str, float] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items if self.seconds else ():
            limit = max(SECONDS_OF_A_TEST, SLOWER * self.seconds.get(item.nodeid, 0.0))
            item.add_marker(pytest.mark.timeout(limit), append=False)
        items.sort(key=lambda item: self.seconds.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.measured[report.nodeid] = self.measured.get(report.nodeid, 0.0) + report.duration


class Bench:
    """A copy of the repository in which tests are run.

    Attributes:
        root: The copy.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "copy"
        self._temporary = folder / "tmp"
        self._output = folder / "output"
        self._measured = folder / "measured.json"
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0"):
            if name and (ROOT / name).exists():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)

    @contextmanager
    def changed(self, mutant: Mutant) -> Iterator[None]:
        """Has the copy contain a mutant."""
        path = self.root / mutant.path
        original = path.read_bytes()
        # Python takes a compiled file for a source of the same second and size.
        Path(cache_from_source(str(path))).unlink(missing_ok=True)
        path.write_bytes(mutant.source(self.root))
        try:
            yield
        finally:
            path.write_bytes(original)
            Path(cache_from_source(str(path))).unlink(missing_ok=True)

    def measure(self, tests: Sequence[str]) -> Seconds:
        """Runs tests without a fault, and returns how long each takes."""
        verdict, said = self.run(tests, seconds={}, limit=3600)
        if verdict != "passed":
            raise SystemExit(f"The tests do not pass without a fault: {said}. What to do: repair them first.")
        measured: dict[str, float] = json.loads(self._measured.read_text())
        return measured

    def run(self, tests: Sequence[str], *, seconds: Seconds, limit: float) -> tuple[str, str]:
        """Runs tests until the first failure, the quickest first.

        Returns:
            `passed`, `failed` or `timeout`, and the line of the test that failed.
        """
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir()
        child = os.fork()
        if child == 0:
            self._become_tests(tests, Order(seconds))
        try:
            code = _wait(child, limit)
        finally:
            _end_children(child)
        lines = self._output.read_text(errors="replace").splitlines()
        failed = next((line for line in lines if line.startswith(("FAILED", "ERROR"))), "")
        verdict = {0: "passed", None: "timeout"}.get(code, "failed")
        is_late = verdict == "failed" and any("Failed: Timeout" in line for line in lines)
        return "timeout" if is_late else verdict, failed or "\n".join(lines[-1:])

    def _become_tests(self, tests: Sequence[str], order: Order) -> None:
        code = 70
        try:
            os.setsid()
            os.chdir(self.root)
            output = os.open(self._output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for standard in (1, 2):
                os.dup2(output, standard)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.environ |= {"PYTHONPATH": str(self.root), "TMPDIR": str(self._temporary)}
            tempfile.tempdir = None
            sys.path[:] = [str(self.root), *(one for one in sys.path if Path(one or ".").resolve() != ROOT)]
            sys.dont_write_bytecode = bool(order.seconds)
            options = ["-x", "-q", "-p", "no:cacheprovider", *IMPORTED]
            verdict = int(pytest.main([*options, *tests], plugins=[order]))
            self._measured.write_text(json.dumps(order.measured))
            package = sys.modules["rh_prefect"]
            assert str(package.__file__).startswith(str(self.root)), "the tests ran elsewhere"
            code = verdict
        except BaseException:  # the process is a fork, and its output is all that is seen of it
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)


def _wait(child: int, limit: float) -> int | None:
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    return None


def _end_children(group: int) -> None:
    """Kills what a run of tests has left; on Linux also servers in separate sessions."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    while True:
        for child in listed.read_text().split() if listed.exists() else ():
            os.kill(int(child), signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def _adopt_orphans() -> None:
    """Has servers whose own parent was killed become children of this process, where the system is Linux."""
    if sys.platform == "linux":
        import ctypes

        set_child_subreaper = 36
        ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


LIMITS = {"quick": 6.0, "wide": 4.0}
"""How many times longer than without a fault a run of tests may take."""

LEAST_LIMIT = 120.0
"""Seconds that every run may take."""


def _stages(module: str, *, tests: Sequence[str] | None, is_quick: bool) -> dict[str, tuple[str, ...]]:
    """The runs of tests for the mutants of a module: arguments of pytest."""
    quick = [f"tests/{name}" for name in tests or QUICK[module]]
    slow = [f"--deselect=tests/{name}" for name in SLOW]
    stages = {"quick": ("-m", "not prefect and not s3 and not long", *slow, *quick)}
    return stages if is_quick else {**stages, "wide": ("-m", "not long", *WIDE[module.partition("/")[0]])}


class Worker:
    """Tries mutants in a copy of the repository; one in each process of the pool."""

    bench: Bench

    @classmethod
    def begin(cls, folder: str) -> None:
        """Makes the copy of this process."""
        _adopt_orphans()
        cls.bench = Bench(Path(folder) / str(os.getpid()))

    @classmethod
    def measure(cls, tests: tuple[str, ...]) -> Seconds:
        """How long each test takes without a fault."""
        return cls.bench.measure(tests)

    @classmethod
    def verdict(cls, mutant: Mutant, stages: Mapping[str, tuple[tuple[str, ...], Seconds]]) -> tuple[str, str]:
        """What becomes of a mutant: `killed`, `timeout` or `survived`, and by which test."""
        for stage, (tests, seconds) in stages.items():
            limit = max(LEAST_LIMIT, LIMITS[stage] * sum(seconds.values()))
            try:
                with cls.bench.changed(mutant):
                    verdict, by = cls.bench.run(tests, seconds=seconds, limit=limit)
            except SystemExit:  # it was stopped, and what it ran is over; the pool would give it the next mutant
                os._exit(1)
            if verdict != "passed":
                return {"failed": "killed"}.get(verdict, verdict), by
        return "survived", ""


def _sample(seed: int, only: Sequence[str]) -> list[Mutant]:
    every = [mutant for module in QUICK if module in only for mutant in mutants_of(module)]
    random.Random(seed).shuffle(every)
    return every


def _show(results: dict[Mutant, str]) -> None:
    print(f"\n{'module':30} {'mutants':>8} {'killed':>8} {'timeout':>8} {'survived':>9}")
    for module in [*QUICK, "all"]:
        counts = Counter(verdict for mutant, verdict in results.items() if module in (mutant.module, "all"))
        if counts:
            cells = [counts.total(), counts["killed"], counts["timeout"], counts["survived"]]
            print(f"{module:30} {cells[0]:8} {cells[1]:8} {cells[2]:8} {cells[3]:9}")
    judged = [verdict for verdict in results.values() if verdict != "timeout"]
    killed = judged.count("killed")
    print(f"killed: {killed} of {len(judged)} that ended in time, {killed / max(1, len(judged)):.1%}; aim 95 %")


def _stop(*_: object) -> None:
    raise SystemExit("stopped")


def main() -> None:
    """Runs mutants and prints what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--count", type=int, default=200, help="how many mutants are run")
    parser.add_argument("--skip", type=int, default=0, help="how many of the sample are left out")
    parser.add_argument("--pick", type=int, nargs="*", help="numbers of the sample's mutants that alone are run")
    parser.add_argument(
        "--only", nargs="*", default=(), choices=QUICK, metavar="MODULE", help="such as works/lifecycle"
    )
    parser.add_argument("--area", choices=WIDE, help="only the modules of this package")
    parser.add_argument("--tests", nargs="*", help="files below tests/ that are run in place of the module's own")
    parser.add_argument("--quick", action="store_true", help="leave the wide tests out")
    parser.add_argument("--at-once", type=int, default=2, help="how many mutants are tried at the same time")
    given = parser.parse_args()
    only = given.only or [module for module in QUICK if module.startswith(given.area or "")]
    every = dict(enumerate(_sample(given.seed, only)))
    numbers = given.pick or list(every)[given.skip : given.skip + given.count]
    print(f"seed {given.seed}: {len(numbers)} of {len(every)} mutants", flush=True)
    # Written first: the sources may be changed while the tests run.
    shown = {number: str(every[number]) for number in numbers}
    of_module = {module: _stages(module, tests=given.tests, is_quick=given.quick) for module in only}
    needed = dict.fromkeys(tests for number in numbers for tests in of_module[every[number].module].values())
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, _stop)
    for name in WARM:
        importlib.import_module(name)
    results: dict[Mutant, str] = {}
    forked = multiprocessing.get_context("fork")
    with (
        tempfile.TemporaryDirectory(prefix="rh-mutants-", ignore_cleanup_errors=True) as folder,
        ProcessPoolExecutor(given.at_once, forked, initializer=Worker.begin, initargs=(folder,)) as pool,
    ):
        seconds = dict(zip(needed, pool.map(Worker.measure, needed), strict=True))
        for tests, measured in seconds.items():
            files = " ".join(name for name in tests if name.startswith("tests/"))
            print(f"without a fault: {sum(measured.values()):.0f} s for {files}", flush=True)
        trials = {}
        for number in numbers:
            stages = of_module[every[number].module].items()
            timed = {stage: (tests, seconds[tests]) for stage, tests in stages}
            trials[pool.submit(Worker.verdict, every[number], timed)] = number
        for trial in as_completed(trials):
            number = trials[trial]
            results[every[number]], by = trial.result()
            print(f"{number} {results[every[number]]} {shown[number]}  {by}", flush=True)
    _show(results)


if __name__ == "__main__":
    main()
