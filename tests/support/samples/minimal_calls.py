"""The smallest valid call of any model, with real files, and checks of its result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from rh_prefect import catalog
from rh_prefect.catalog import Model, Param
from rh_prefect.emulator import Emulator
from rh_prefect.emulator.assumptions import DEFAULT
from rh_prefect.errors import RunningHubError
from rh_prefect.media.probe import probe
from rh_prefect.tasks import model_tasks
from rh_prefect.works.result import Result
from tests.support.samples import media as samples
from tests.support.servers.emulator_env import environment

AT_ONCE = 8

_WORDS = {"suno-lyrics"}
"""Listed under audio, and what it makes is the words of a song."""

_MAKE: dict[str, Callable[[Path], Path]] = {
    "png": samples.png,
    "jpg": samples.jpg,
    "jpeg": samples.jpg,
    "webp": samples.webp,
    "mp4": samples.mp4,
    "mp3": samples.mp3,
    "wav": samples.wav,
}
_USUAL = {"image": "png", "video": "mp4", "audio": "mp3"}


@contextmanager
def small_emulator(folder: Path) -> Iterator[Emulator]:
    """An emulator whose media are as small as they can be; `RH_…` points at it and at a folder."""
    rich = 1_000_000  # one model is priced at 9999
    quoted = replace(DEFAULT, preview_unpriced=None, preview_lacking=(), preview_per_second={}, preview_zero=())
    emulator = Emulator(long_side=64, fps=4, max_seconds=1, money=rich, assumptions=quoted)
    with emulator, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(emulator, folder).items():
            patch.setenv(name, value)
        yield emulator


def smallest(model: Model, folder: Path) -> dict[str, object]:
    """The smallest valid input of a model, by Python names; files are real ones in a folder."""
    given = catalog.example(model)
    for param in model.media_params:
        if param.name in given:
            path = str(sample(param, folder))
            given[param.name] = [path] if param.multiple else path
    return given


def sample(param: Param, folder: Path) -> Path:
    extension = next((one for one in param.accept if one in _MAKE), _USUAL[param.type])
    path = folder / f"{param.type}.{extension}"
    return path if path.exists() else _MAKE[extension](path)


async def run_all(rh: Emulator, chosen: Iterable[Model], folder: Path) -> dict[str, str]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(model: Model) -> tuple[str, str]:
        async with gate:
            return model.name, await _problem(rh, model, folder)

    return {name: wrong for name, wrong in await asyncio.gather(*map(one, chosen)) if wrong}


async def _problem(rh: Emulator, model: Model, folder: Path) -> str:
    given = smallest(model, folder)
    try:
        result: Result = await getattr(model_tasks, model.snake_name).fn(**given, scope="all", label=model.snake_name)
    except RunningHubError as error:
        return f"{type(error).__name__}: {error}"
    (row,) = (row for row in rh.recorder.submissions if row.task_id == result.task_id)
    expected = _price(model, given)
    if row.endpoint != model.endpoint or not row.accepted:
        return f"sent to {row.endpoint}"
    if (row.charged, result.cost) != (expected, expected):
        return f"charged {row.charged}, told {result.cost}, expected {expected}"
    return _wrong_output(model, result)


def _price(model: Model, given: dict[str, object]) -> Decimal:
    lengths = [probe(Path(path)).seconds for param in model.media_params for path in _paths(given.get(param.name))]
    known = [length for length in lengths if length is not None]
    price = catalog.estimate(model, catalog.read_parameters(model, given).sent, seconds=max(known, default=None))
    return DEFAULT.unpriced if price is None else price.amount


def _paths(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)] if value else []


def _wrong_output(model: Model, result: Result) -> str:
    if model.output == "text" or model.name in _WORDS:
        return "" if result.text and not result.outputs else f"no text, but {result.outputs}"
    kinds = {output.kind for output in result.outputs}
    if kinds != {model.output}:
        return f"made {kinds}, not {model.output}"
    return "" if all(Path(one.uri).stat().st_size == one.size > 0 for one in result.outputs) else "an empty file"
