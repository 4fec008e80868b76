"""Mutation tests of the package that pays, and of a plan's prices: a test must find the one small fault of each mutant.

    python -m benchmarks.mutation                      # 100 random mutants
    python -m benchmarks.mutation --seed 7 --count 25 --only works/journal works/lifecycle
    python -m benchmarks.mutation --pick 3 17          # these of the same sample again, after a test was added

The tests run once without a fault, which shows how long each takes and which functions it calls. A mutant is written
into a copy of the repository in a temporary folder, and a process that is forked for it runs the tests that call its
function, the quickest first. Several mutants are tried at once, each in a separate copy. What exceeds a time limit is
counted apart: a mutant may wait for ever, and a busy machine may be slow. So is what ends without the failure of a
test, as when the system kills the process. A survivor is judged by hand: either it behaves like the original, or a
test is missing.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import cache_from_source
from pathlib import Path
from types import CodeType, FrameType

import pytest

from benchmarks.mutants import EXCLUDED, PACKAGE, ROOT, Mutant, mutants_of

_WORKS = sorted((ROOT / PACKAGE / "works").rglob("[!_]*.py"))

MODULES = [
    *(path.relative_to(ROOT / PACKAGE).with_suffix("").as_posix() for path in _WORKS),
    "pipelines/rounds_across_runs",
    "pipelines/plan/request_price",
]

TESTS = (
    "tests/works",
    "tests/pipelines/test_rounds.py",
    "tests/pipelines/test_request_price.py",
    "tests/pipelines/test_prices.py",
    "tests/tasks/test_shared_jobs.py",
    "tests/tasks/test_custom.py",
)

QUICK = (
    "-m",
    "not long",
    "--deselect=tests/works/test_work_runner.py::test_a_run_killed_before_any_operation_is_continued_by_a_new_one",
)

SERVERS = {"prefect_server", "s3"}
"""The fixtures of servers that take seconds to start; what tests their users run is in quicker tests too."""

WARM = ("hypothesis", "prefect.main", "prefect.client.orchestration", "httpx", "fsspec", "s3fs", "av", "PIL.Image")
"""What every run of tests imports: this process does it once."""


FAILURES = ("FAILED", "ERROR", "ImportError while loading conftest")
"""How lines begin in which pytest names what a fault has broken."""

IMPORTED = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
"""What this process has imported already is no error."""


SECONDS_OF_A_TEST = 120.0
"""Seconds that every test may take: what was measured once says little about a busy machine."""

SLOWER = 30.0
"""How many times longer than without a fault a test, or all of them, may take."""

LEAST_LIMIT = 600.0
"""Seconds that every run of tests may take."""


@dataclass(slots=True)
class Measured:
    """What the tests did without a fault.

    Attributes:
        seconds: Test -> how long it took.
        calls: Module -> the first and the last line of each function that was called, with the tests that called it.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    calls: dict[str, list[tuple[int, int, list[str]]]] = field(default_factory=dict)

    def tests_of(self, mutant: Mutant) -> list[str]:
        """The tests that call the function of a mutant; for one outside of functions, all that use its module.

        And those of its module's own file, which may call it in another process.
        """
        functions, line = self.calls.get(mutant.module, []), mutant.line
        around = [(last - first, tests) for first, last, tests in functions if first <= line <= last]
        found = set(min(around)[1]) if around else {test for _, _, tests in functions for test in tests}
        own = f"/test_{mutant.module.rpartition('/')[2]}.py::"
        return sorted(found | {test for test in self.seconds if own in test})


class Recorder:
    """Measures the tests, and notes which functions they call; a plugin of pytest."""

    def __init__(self, root: Path) -> None:
        self._folder = f"{root / PACKAGE}{os.sep}"
        self._tests: dict[CodeType, set[str]] = {}
        self._seconds: dict[str, float] = defaultdict(float)
        self._test = ""
        threading.settrace(self._note)
        sys.settrace(self._note)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if SERVERS.isdisjoint(getattr(item, "fixturenames", ()))]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._test = nodeid

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration

    def measured(self) -> Measured:
        sys.settrace(None)
        measured = Measured(dict(self._seconds))
        for code, tests in list(self._tests.items()):
            lines = [line for _, _, line in code.co_lines() if line]
            module = code.co_filename.removeprefix(self._folder).removesuffix(".py")
            measured.calls.setdefault(module, []).append((min(lines), max(lines), sorted(tests)))
        return measured

    def _note(self, frame: FrameType, _event: str, _arg: object) -> None:
        code = frame.f_code
        if self._test and code.co_flags & inspect.CO_OPTIMIZED and code.co_filename.startswith(self._folder):
            self._tests.setdefault(code, set()).add(self._test)


@dataclass(slots=True, eq=False)
class Selection:
    """Runs some tests only, the quickest first, and limits the time of each; a plugin of pytest."""

    seconds: dict[str, float]

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self.seconds), key=lambda item: self.seconds[item.nodeid]
        )
        for item in items:
            limit = max(SECONDS_OF_A_TEST, SLOWER * self.seconds[item.nodeid])
            # An event loop may keep what is raised by a signal in one of its tasks, and go on.
            item.add_marker(pytest.mark.timeout(limit, method="thread"), append=False)


class Bench:
    """A copy of the repository in which tests are run.

    Attributes:
        root: The copy.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "copy"
        self._temporary = folder / "tmp"
        self._output = folder / "output"
        self._measured = folder / "measured"
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

    def measure(self, tests: Sequence[str]) -> Measured:
        """Runs tests without a fault."""
        verdict, said = self._run(tests, Recorder(self.root), limit=3600)
        if verdict != "passed":
            raise SystemExit(f"The tests do not pass without a fault: {said}. What to do: repair them first.")
        measured: Measured = pickle.loads(self._measured.read_bytes())
        return measured

    def verdict(self, seconds: dict[str, float]) -> tuple[str, str]:
        """Runs tests until the first failure; returns `killed`, `timeout`, `unclear` or `lived`, and the test."""
        files = list(dict.fromkeys(test.partition("::")[0] for test in seconds))
        verdict, said = self._run(files, Selection(seconds), limit=max(LEAST_LIMIT, SLOWER * sum(seconds.values())))
        return {"failed": "killed", "passed": "lived"}.get(verdict, verdict), said

    def _run(self, tests: Sequence[str], plugin: Recorder | Selection, *, limit: float) -> tuple[str, str]:
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir()
        child = os.fork()
        if child == 0:
            self._become_tests(tests, plugin)
        try:
            code = _wait(child, limit)
        finally:
            _end_children(child)
        lines = self._output.read_text(errors="replace").splitlines()
        failed = next((line for line in lines if line.startswith(FAILURES)), "")
        # 1: a test failed; 2 and 4: so did the collection of the tests or the import of a conftest, among others.
        is_failed = code == 1 or (code in (2, 4) and failed != "")
        verdict = "failed" if is_failed else {0: "passed", None: "timeout"}.get(code, "unclear")
        is_late = verdict == "failed" and any("+ Timeout +" in line for line in lines)
        return "timeout" if is_late else verdict, failed or "\n".join(lines[-1:])

    def _become_tests(self, tests: Sequence[str], plugin: Recorder | Selection) -> None:
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
            sys.dont_write_bytecode = isinstance(plugin, Selection)
            options = ["-x", "-q", "-p", "no:cacheprovider", *IMPORTED, *QUICK]
            verdict = int(pytest.main([*options, *tests], plugins=[plugin]))
            if isinstance(plugin, Recorder):
                self._measured.write_bytes(pickle.dumps(plugin.measured()))
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


class Worker:
    """Tries mutants in a copy of the repository; one in each process of the pool."""

    bench: Bench

    @classmethod
    def begin(cls, folder: str) -> None:
        """Makes the copy of this process."""
        _adopt_orphans()
        cls.bench = Bench(Path(folder) / str(os.getpid()))

    @classmethod
    def measure(cls, tests: Sequence[str]) -> Measured:
        return cls.bench.measure(tests)

    @classmethod
    def verdict(cls, mutant: Mutant, seconds: dict[str, float]) -> tuple[str, str]:
        if not seconds:
            return "lived", "no test calls it"
        try:
            with cls.bench.changed(mutant):
                return cls.bench.verdict(seconds)
        except SystemExit:  # it was stopped, and what it ran is over; the pool would give it the next mutant
            os._exit(1)


def _sample(seed: int, only: Sequence[str]) -> list[Mutant]:
    every = [mutant for module in MODULES if module.startswith(tuple(only)) for mutant in mutants_of(module)]
    random.Random(seed).shuffle(every)
    return every


def _show(results: dict[Mutant, str]) -> None:
    verdicts = ("killed", "lived", "timeout", "unclear")
    print(f"\n{'module':42}", *(f"{verdict:>8}" for verdict in verdicts))
    for module in [*MODULES, "all"]:
        counts = Counter(verdict for mutant, verdict in results.items() if module in (mutant.module, "all"))
        if counts:
            print(f"{module:42}", *(f"{counts[verdict]:8}" for verdict in verdicts))
    counts = Counter(results.values())
    judged = counts["killed"] + counts["lived"]
    print(f"killed: {counts['killed']} of {judged} that were judged, {counts['killed'] / max(1, judged):.1%}; aim 95 %")


def _stop(*_: object) -> None:
    raise SystemExit("stopped")


def main() -> None:
    """Runs mutants and prints what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--count", type=int, default=100, help="how many mutants are run")
    parser.add_argument("--skip", type=int, default=0, help="how many of the sample are left out")
    parser.add_argument("--pick", type=int, nargs="*", help="numbers of the sample's mutants that alone are run")
    parser.add_argument("--only", nargs="*", default=[""], metavar="MODULE", help="how names begin: works/journal")
    parser.add_argument("--at-once", type=int, default=2, help="how many mutants are tried at the same time")
    given = parser.parse_args()
    every = dict(enumerate(_sample(given.seed, given.only)))
    numbers = given.pick or list(every)[given.skip : given.skip + given.count]
    print(f"seed {given.seed}: {len(numbers)} of {len(every)} mutants; {EXCLUDED}", flush=True)
    # Written first: the sources may be changed while the tests run.
    shown = {number: str(every[number]) for number in numbers}
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
        measured = pool.submit(Worker.measure, TESTS).result()
        print(f"without a fault: {len(measured.seconds)} tests, {sum(measured.seconds.values()):.0f} s", flush=True)
        trials = {}
        for number in numbers:
            seconds = {test: measured.seconds[test] for test in measured.tests_of(every[number])}
            trials[pool.submit(Worker.verdict, every[number], seconds)] = number
        for trial in as_completed(trials):
            number = trials[trial]
            results[every[number]], by = trial.result()
            print(f"{number} {results[every[number]]} {shown[number]}  {by}", flush=True)
    _show(results)


if __name__ == "__main__":
    main()
