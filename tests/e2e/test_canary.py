"""A key that would sing: whatever goes well or wrong, it is in no log, database, result, record or artifact."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rh_prefect.blocks import RunningHubCredentials
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.tasks import generate
from rh_prefect.works.outputs.result import Result
from tests.e2e import flows
from tests.support.processes.film_run import FilmRun, staged
from tests.support.processes.flow_process import command
from tests.support.samples import media as samples
from tests.support.servers.emulator_env import environment
from tests.support.servers.holding_proxy import Proxy
from tests.support.servers.prefect_server import PrefectServer

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]

CANARY = "c0ffee00canary00c0ffee00canary00"
WRONG = "deadbeef00canary00wrong00deadbee"


def forms(key: str) -> list[bytes]:
    """A key in the forms in which it travels; base64 at each of its three alignments, without its rims."""
    plain = key.encode()
    aligned = (base64.b64encode(b"x" * shift + plain)[4:-8] for shift in range(3))
    return [plain, *aligned, plain.hex().encode()]


def found(places: Iterable[Path], *words: bytes) -> list[str]:
    """The files, in folders or alone, in which one of the words stands."""
    paths = [path for place in places for path in ([place] if place.is_file() else place.rglob("*")) if path.is_file()]
    return sorted(str(path) for path in paths if any(word in path.read_bytes() for word in words))


@pytest.fixture
def stage(
    prefect_server: PrefectServer, prefect_proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FilmRun]:
    louder = {"PREFECT_LOGGING_LEVEL": "DEBUG", "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG", "PREFECT_DEBUG_MODE": "true"}
    louder["PREFECT_RESULTS_LOCAL_STORAGE_PATH"] = str(tmp_path / "results")
    with Emulator(key=CANARY, long_side=96, fps=6, moderated=["forbidden"]) as rh:
        for name, value in environment(rh, tmp_path).items():
            monkeypatch.setenv(name, value)
        with staged(prefect_server, prefect_proxy, rh, tmp_path, **louder) as made:
            yield made


def test_the_key_is_found_nowhere(
    stage: FilmRun, prefect_server: PrefectServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told = _run_everything(stage, tmp_path)
    asyncio.run(_run_outside_of_flows(stage))
    task_id = _leave_a_ticket_in_the_spool(stage)
    _run_with_a_wrong_key(stage)
    listed = _look_at_it(stage, told)

    said = json.dumps([told, [child.said for child in stage.flow_processes.children]]) + listed + caplog.text
    (tmp_path / "said.txt").write_text(said)
    assert not found([tmp_path, prefect_server.home], *forms(CANARY), *forms(WRONG))
    # The same look finds what must be there, so it would have found a key.
    for place, marker in {
        "said.txt": "SubmissionUnknown",
        "logs": "httpcore",
        "results": "/results/",
        "out/results": "a lighthouse",
        "out/works": "a lighthouse",
        "state/spool": task_id,
    }.items():
        assert found([tmp_path / place], marker.encode()), f"{marker} should be in {place}"
    for marker in ("-intent-1", "everything-report", "this one's answer is lost", "SubmissionUnknown"):
        assert found([prefect_server.home], marker.encode()), f"{marker} should be in Prefect's database"


def test_a_key_would_be_found(tmp_path: Path) -> None:
    for number, form in enumerate(forms(CANARY)):
        (tmp_path / f"{number}.bin").write_bytes(b"\0\1" + form + b"\0")
    assert len(found([tmp_path], *forms(CANARY))) == len(forms(CANARY))
    headers = [base64.b64encode(b"user:" + b"x" * more + CANARY.encode()) for more in range(3)]
    assert all(any(form in header for form in forms(CANARY)) for header in headers)


def _run_everything(stage: FilmRun, folder: Path) -> dict[str, str]:
    photo, broken = samples.png(folder / "photo.png"), folder / "broken.png"
    broken.write_bytes(Path(photo).read_bytes()[:40])
    stage.rh.faults.add(Fault("submit", prompt="this one fails", kind="fail", code="805"))
    stage.rh.faults.add(Fault("submit", prompt="this one's answer is lost", kind="502"))
    child = stage.begin(f"{flows.MODULE}:everything", {"photo": str(photo), "broken": str(broken)}, spares=3)
    assert child.ended() == 0, child.errors()
    told: dict[str, str] = child.wait_for("done")["result"]
    kinds = {name: one.partition(":")[0] for name, one in told.items()}
    assert kinds.pop("nobody") == "ConfigError"
    assert kinds.pop("moderated") == "JobFailed"
    assert kinds.pop("failing") == "JobFailed"
    assert kinds.pop("lost") == "SubmissionUnknown"
    assert kinds.pop("broken") == "MediaError"
    assert all(Path(record).is_file() for record in kinds.values())
    return told


async def _run_outside_of_flows(stage: FilmRun) -> None:
    """Through a block, whose document holds the key, and with its records in the storage."""
    await RunningHubCredentials(api_key=CANARY, base_url=stage.rh.url).save("canary", overwrite=True)
    result: Result = await generate.fn(flows.picture("a lighthouse"), scope="canary", credentials="canary")
    assert result.job.startswith("works-")


def _leave_a_ticket_in_the_spool(stage: FilmRun) -> str:
    held = stage.proxy.hold('"rh-log-[0-9]+".*[0-9a-f]-answer-')
    child = stage.begin(f"{flows.MODULE}:one", {}, spares=0)
    stage.until_held(held, child)
    assert not stage.kill(child), "the ticket is in the spool"
    return stage.rh.recorder.paid[-1].task_id


def _run_with_a_wrong_key(stage: FilmRun) -> None:
    stage.flow_processes.env["RH_API_KEY"] = WRONG
    child = stage.flow_processes.run(f"{flows.MODULE}:one", parameters={}, env={"RH_API_KEY": WRONG})
    assert child.ended() == 1
    assert {one["type"] for one in child.wait_for("failed")["errors"]} == {"KeyRejected"}
    stage.flow_processes.env["RH_API_KEY"] = CANARY


def _look_at_it(stage: FilmRun, told: dict[str, str]) -> str:
    """What the command line shows of it, and of the key."""
    (job,) = set(re.findall(r"[0-9a-f-]{36}/[0-9a-f]+", told["lost"]))
    run = job.partition("/")[0]
    commands = (["jobs", "list", run], ["jobs", "show", job], ["jobs", "cancel", run], ["doctor"])
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda words: command(stage.env, *words), commands))
    assert [one.returncode for one in done[:2]] == [0, 0]
    return "".join(one.stdout + one.stderr for one in done)
