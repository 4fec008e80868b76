"""The commands of the README and of a deployment are complete: run in their order in a fresh folder, all succeed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.doc_pages import ROOT, blocks
from tests.support.servers.prefect_server import free_port

KEY = "0123456789abcdef0123456789abcdef"
PAGES = [ROOT / "README.md", ROOT / "docs" / "operations.md"]


def block_with(words: str) -> str:
    """The first block with these words, in the README or in the page about operations."""
    return next(block for page in PAGES for block in blocks(page, "sh") if words in block)


def commands_of_the_reader() -> str:
    """The README's commands for a pipeline; those for a run, with a run that is made for them."""
    reader = block_with("rh-prefect plan") + block_with("rh-prefect doctor")
    lines = [line for line in reader.splitlines() if not line.startswith(("pip ", "export "))]
    of_flows = ("/KEY", "jobs collect", "jobs recover")
    named = [one for one in block_with("jobs list RUN_ID").splitlines() if not any(word in one for word in of_flows)]
    run = "RUN_ID=$(rh-prefect run film --prompt one --shots 1 | grep -oE '[0-9a-f-]{36}' | head -n 1)"
    return "\n".join([*lines, run, *named]).replace("RUN_ID  ", "$RUN_ID  ").replace("RUN_ID #", "$RUN_ID #")


def script(server: int, emulator: int) -> str:
    """The block of the deployment comes first: its server and its emulator serve the other blocks."""
    deploy = block_with("prefect deployment run")
    assert KEY in deploy
    text = "\n".join(["set -eu", "PS4='+ $SECONDS s: '", deploy, commands_of_the_reader()])
    text = text.replace("server start", f"server start --port {server}").replace(
        "127.0.0.1:4200", f"127.0.0.1:{server}"
    )
    text = text.replace("rh-prefect emulator", f"rh-prefect emulator --clock instant --long-side 96 --port {emulator}")
    return re.sub(r"\bRUN_ID\b(?!=)(?<!\$RUN_ID)", "$RUN_ID", text.replace("127.0.0.1:8765", f"127.0.0.1:{emulator}"))


@pytest.mark.readme
@pytest.mark.timeout(1800)
def test_the_commands_of_the_readme_run_in_their_order(tmp_path: Path) -> None:
    for name in ("blocks", "flows", "deployments"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "product.yaml").write_text(blocks(PAGES[0], "yaml")[0], encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "RH_"))}
    env = {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
        "HOME": str(tmp_path),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "RH_STORAGE_URL": str(tmp_path / "out"),
        "RH_ALLOW_PRIVATE_LINKS": "1",
        # The emulator ends tasks at once, and the worker has one run: neither is waited for at the pace of a real site.
        "RH_POLL_SECONDS": "0.2",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    command = ["bash", "-x", "-c", script(free_port(), free_port())]
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        code = process.wait(timeout=800)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the servers and the worker belong to the script's group
    assert code == 0, log.read_text()[-4000:]
    said = log.read_text()
    assert "2 made; paid 1.79 CNY." in said
    assert "Nothing new: the results exist already. Steps: 2 reused; paid nothing." in said
    assert list((tmp_path / "out" / "films").glob("*.mp4"))
