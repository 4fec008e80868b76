"""Chromium without a window, driven over its own protocol: what a person would see on a page."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")

_CODES = {"Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}


class Page:
    def __init__(self, socket: Connection, session: str) -> None:
        self.said: list[str] = []  # what the page wrote to its console, errors and refused scripts included
        self.asked: list[str] = []  # the addresses that it asked for
        self._socket, self._session, self._numbers = socket, session, count(10)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "sessionId": self._session, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=300))
            self._note(message)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def ask(self, expression: str) -> Any:
        """Returns the value of a JavaScript expression; of a promise, what it gives."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        """Waits until a JavaScript condition holds; the test's own limit ends it."""
        while not self.ask(f"new Promise(r => setTimeout(() => r(Boolean({condition})), 20))"):
            pass

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=_CODES.get(key, 0))

    def size(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.consoleAPICalled":
                self.said += [str(one.get("value")) for one in params["args"]]
            case "Runtime.exceptionThrown":
                self.said.append(params["exceptionDetails"]["text"])
            case "Log.entryAdded":
                self.said.append(params["entry"]["text"])
            case "Network.requestWillBeSent":
                self.asked.append(params["request"]["url"])


@contextmanager
def browser() -> Iterator[Page]:
    """Starts Chromium and ends it; yields an empty page."""
    assert PROGRAM is not None
    folder = tempfile.mkdtemp(prefix="rh-browser-")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0"]
    process = subprocess.Popen(
        [PROGRAM, *options, f"--user-data-dir={folder}", "about:blank"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        address = next(line.split()[-1] for line in process.stderr if line.startswith("DevTools listening on"))
        with connect(address, max_size=None, open_timeout=300) as socket:
            target = _answer(socket, 1, "Target.createTarget", url="about:blank")["targetId"]
            session = _answer(socket, 2, "Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            yield Page(socket, session)
            with suppress(Exception):  # it closes the connection in place of an answer
                _answer(socket, 3, "Browser.close")
    finally:
        process.terminate()
        process.communicate()
        shutil.rmtree(Path(folder), ignore_errors=True)


def _answer(socket: Connection, number: int, method: str, **params: Any) -> Any:
    socket.send(json.dumps({"id": number, "method": method, "params": params}))
    while (message := json.loads(socket.recv(timeout=300))).get("id") != number:
        pass
    return message["result"]
