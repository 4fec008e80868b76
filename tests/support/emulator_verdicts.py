"""What the emulator says of a request over HTTP, compared with what the client makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from rh_prefect import catalog
from rh_prefect.catalog import Model, Param
from rh_prefect.emulator import DEFAULT, Emulator
from rh_prefect.errors import MediaError
from rh_prefect.media.probe import Facts, probe
from tests.support import samples
from tests.support.two_readings import ClientReading, Payload, client_reading, least_request


class WireReading:
    """Asks an emulator for the price of requests, which makes no task of them.

    Args:
        rh: The emulator.
        folder: For sample files.
    """

    def __init__(self, rh: Emulator, folder: Path) -> None:
        self._http = httpx.Client(base_url=rh.url, headers={"Authorization": f"Bearer {rh.key}"}, timeout=30)
        paths = (
            samples.png(folder / "a.png"),
            samples.jpg(folder / "a.jpg"),
            samples.webp(folder / "a.webp"),
            samples.gif(folder / "a.gif"),
            samples.mp4(folder / "a.mp4"),
            samples.video(folder / "a.mov", container="mov"),
            samples.video(folder / "a.webm", container="webm"),
            samples.mp3(folder / "a.mp3"),
            samples.wav(folder / "a.wav"),
        )
        self._files: dict[str, Facts] = {self._upload(path): probe(path) for path in paths}
        self.links: dict[str, str] = {}
        for link, facts in self._files.items():
            self.links.setdefault(facts.kind, link)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def _upload(self, path: Path) -> str:
        with path.open("rb") as file:
            answer = self._http.post("/openapi/v2/media/upload/binary", files={"file": (path.name, file)}).json()
        return str(answer["data"]["download_url"])

    def disagreement(self, model: Model, given: Payload) -> str:
        """Says where the two readings of a request differ; empty where they agree."""
        client = client_reading(model, given)
        code, words, price = self._preview(model, client.sent)
        if client.accepts != (code == ""):
            return f"the client {'accepts' if client.accepts else 'refuses'} it, the emulator says {code} {words}"
        expected = client.price(model, seconds=self._seconds(model, client)) if client.accepts else None
        wanted = DEFAULT.unpriced if client.accepts and expected is None else expected
        return "" if price == (None if wanted is None else float(wanted)) else f"{wanted} for the client, {price} here"

    def disagreements_on_files(self, model: Model, param: Param) -> Iterator[str]:
        """Says of which files the client and the emulator think otherwise."""
        least = least_request(model, self.links)
        for link, facts in self._files.items():
            given = {**least, param.key: [link] if param.multiple else link}
            if not client_reading(model, given).accepts:  # another parameter excludes it
                continue
            code, words, _ = self._preview(model, client_reading(model, given).sent)
            if _takes(model, param, facts) != (code == ""):
                yield f"{facts.kind} {facts.extension}: {code} {words}"

    def _preview(self, model: Model, body: Payload) -> tuple[str, str, float | None]:
        answer = self._http.post(f"/openapi/v2/price-preview/{model.endpoint}", json=body).json()
        return answer["errorCode"], answer["errorMessage"], answer["estimatedPrice"]

    def _seconds(self, model: Model, client: ClientReading) -> float | None:
        """How long the input is; a video's length goes before a sound's."""
        kinds = {param.type for param in model.media_params if param.key in client.sent}
        lengths = [self._files[self.links[kind]].seconds for kind in ("video", "audio") if kind in kinds]
        return lengths[0] if lengths else None


def _takes(model: Model, param: Param, facts: Facts) -> bool:
    try:
        catalog.check_file(model, param, extension=facts.extension, size=1000, kind=facts.kind)
    except MediaError:
        return False
    return True
