"""Secrets that would sing: whatever goes well or wrong, they are in no log, database, result, record or artifact."""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from rh_prefect.blocks import MediaStorage, RunningHubCredentials
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from rh_prefect.errors import KeyRejected
from rh_prefect.flow_runs.resume_or_rerun import rerun
from rh_prefect.tasks import generate
from tests.e2e import flows
from tests.support.samples import media as samples
from tests.support.servers.emulator_env import StartEmulator
from tests.support.servers.prefect_server import PrefectServer
from tests.support.servers.s3 import S3Server
from tests.support.world.invariants import forms

CANARY = "c0ffee00canary00c0ffee00canary00"
WRONG = "deadbeef00canary00wrong00deadbee"
TOKEN = "canary-token-0123456789abcdef"
PASSWORDS = {"ACCESS_PASSWORD": 'canary/"0123456789&ü', "WRONG_PASSWORD": 'canary/"9876543210&ü'}
"""With what is written in another way in an address and in JSON."""


def found(places: Iterable[Path], *words: bytes) -> list[str]:
    """The files, in folders or alone, in which one of the words stands."""
    paths = [path for place in places for path in ([place] if place.is_file() else place.rglob("*")) if path.is_file()]
    return sorted(str(path) for path in paths if any(word in path.read_bytes() for word in words))


@pytest.fixture
def rh(start_rh: StartEmulator) -> Emulator:
    return start_rh(key=CANARY, moderated=["forbidden"])


@pytest.mark.prefect
async def test_the_key_is_found_nowhere(
    rh: Emulator,
    prefect_server: PrefectServer,
    s3: S3Server,
    closed_port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    # Each submit has the address of a receiver, with its token; there is none.
    webhooks = {"RH_WEBHOOK_URL": f"http://127.0.0.1:{closed_port}", "RH_WEBHOOK_TOKEN": TOKEN}
    for name, value in {**PASSWORDS, **webhooks}.items():
        monkeypatch.setenv(name, value)
    for name, key in {"canary": CANARY, "canary-wrong": WRONG}.items():
        await RunningHubCredentials(api_key=key, base_url=rh.url).save(name, overwrite=True)
    bucket = s3.url("canary")
    await MediaStorage(url=bucket, options=s3.options).save("canary-bucket", overwrite=True)
    told = await run_everything(rh, tmp_path)
    # Through a block, whose document holds the key, and with its records in the storage.
    result = await generate.fn(flows.picture("a lighthouse"), scope="canary", credentials="canary")
    assert result.job.startswith("works-")
    monkeypatch.setenv("RH_API_KEY", WRONG)
    with pytest.raises(KeyRejected):
        await rerun(flows.one, await flows.begin(flows.one))
    monkeypatch.setenv("RH_API_KEY", CANARY)
    (job,) = set(re.findall(r"[0-9a-f-]{36}/[0-9a-f]+", told["lost"]))
    for words in (("jobs", "list", job.partition("/")[0]), ("jobs", "show", job), ("doctor",)):
        await flows.command(*words)

    s3.filesystem().get(bucket, str(tmp_path / "bucket"), recursive=True)
    said = capsys.readouterr()
    (tmp_path / "said.txt").write_text(json.dumps(told) + said.out + said.err + caplog.text)
    secrets = (CANARY, WRONG, TOKEN, *PASSWORDS.values(), s3.options["secret"])
    hidden = [form for secret in secrets for form in forms(secret)]
    assert not found([tmp_path, prefect_server.home], *hidden)
    # The same look finds what must be there, so it would have found a secret.
    places = {"out/results": "behind a password", "out/works": "a lighthouse", "bucket": "into the bucket"}
    for place, marker in {"said.txt": "httpcore", **places}.items():
        assert found([tmp_path / place], marker.encode()), f"{marker} should be in {place}"
    for marker in ("-intent-1", "everything-report", "this one's answer is lost", "SubmissionUnknown", "Traceback"):
        assert found([prefect_server.home], marker.encode()), f"{marker} should be in Prefect's database"


def test_a_key_would_be_found(tmp_path: Path) -> None:
    for number, form in enumerate(forms(CANARY)):
        (tmp_path / f"{number}.bin").write_bytes(b"\0\1" + form + b"\0")
    assert len(found([tmp_path], *forms(CANARY))) == len(forms(CANARY))
    headers = [base64.b64encode(b"user:" + b"x" * more + CANARY.encode()) for more in range(3)]
    assert all(any(form in header for form in forms(CANARY)) for header in headers)


async def run_everything(rh: Emulator, folder: Path) -> dict[str, str]:
    photo, broken = samples.png(folder / "photo.png"), folder / "broken.png"
    broken.write_bytes(photo.read_bytes()[:40])
    rh.faults.add(Fault("submit", prompt="this one fails", kind="fail", code="805"))
    rh.faults.add(Fault("submit", prompt="this one's answer is lost", kind="502"))
    rh.faults.add(Fault("submit", endpoint="/proxy-plus", kind="502"))
    locked = rh.workflows.add(TEXT_TO_IMAGE, password=PASSWORDS["ACCESS_PASSWORD"])
    run = await flows.begin(flows.everything, photo=str(photo), broken=str(broken), locked=locked)
    told: dict[str, str] = await rerun(flows.everything, run)
    kinds = {name: one.partition(":")[0] for name, one in told.items()}
    wrong = {"nobody": "ConfigError", "moderated": "JobFailed", "failing": "JobFailed", "broken": "MediaError"}
    wrong |= {"rejected": "KeyRejected", "locked": "RequestRejected"}
    wrong |= dict.fromkeys(("lost", "lost-graph"), "SubmissionUnknown")
    assert {name: kinds.pop(name) for name in wrong} == wrong
    assert kinds.pop("bucket") == "s3"
    assert all(Path(record).is_file() for record in kinds.values())
    return told
