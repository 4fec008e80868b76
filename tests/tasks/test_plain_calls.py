"""Tasks of the package without a run around them and without a Prefect API: plain calls, for which no server starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from prefect.exceptions import TerminationSignal

from rh_prefect import generate, generate_many, models
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import EqualRequest, InputError, JobsFailed, RunningHubError, StoreError, TransportError
from rh_prefect.tasks import account_status
from rh_prefect.tasks.generate import can_help
from rh_prefect.tasks.model_tasks import z_image_turbo
from rh_prefect.tasks.task_or_call import PlainTask, plain_task
from rh_prefect.works.result import Result

LAMP = models.ZImageTurbo(prompt="a lamp")


async def test_calls_of_a_script_are_paid_for_once_in_their_scope(rh: Emulator) -> None:
    first = await generate(LAMP, scope="order-17")
    again = await z_image_turbo(prompt="a lamp", scope="order-17")
    assert (again.job, again.outputs) == (first.job, first.outputs)
    many = await generate_many([LAMP, models.ZImageTurbo(prompt="a mug")], scope="order-17")
    assert many[0].job == first.job
    assert len(rh.recorder.paid) == 2
    assert (await account_status()).currency == "CNY"


async def test_a_task_with_other_options_is_a_plain_call_too(rh: Emulator) -> None:
    patient = z_image_turbo.with_options(retries=5)
    assert (patient.retries, patient.with_options(name="patient").name) == (5, "patient")
    assert (await patient(prompt="a lamp", scope="order-17")).first_output.kind == "image"
    with pytest.raises(InputError, match=r"has no option `promt`"):
        patient.submit(promt="a lamp")  # type: ignore[call-overload]


async def test_equal_calls_of_a_process_are_refused_as_in_a_run(rh: Emulator) -> None:
    with pytest.warns(UserWarning, match="without `scope`"):
        await generate(LAMP)
    with pytest.raises(EqualRequest), pytest.warns(UserWarning, match="without `scope`"):
        await generate(LAMP)
    assert len(rh.recorder.paid) == 1


class Interrupting(models.ZImageTurbo):
    """An input during whose call the process gets a signal."""

    def __getattribute__(self, name: str) -> Any:
        if name == "model":
            raise TerminationSignal(signal=15)
        return super().__getattribute__(name)


async def test_a_signal_during_a_job_is_no_result(rh: Emulator) -> None:
    with pytest.raises(TerminationSignal):
        await generate_many([LAMP, Interrupting(prompt="a mug")], scope="order-17")


async def test_an_argument_that_the_task_does_not_have_is_refused() -> None:
    with pytest.raises(InputError, match=r"z_image_turbo has no option `promt`\. Nothing was sent.* use `prompt`"):
        await z_image_turbo(promt="a lamp")  # type: ignore[call-arg]
    starts: list[Callable[..., object]] = [z_image_turbo.submit, z_image_turbo.map, z_image_turbo.delay]
    for start in starts:
        with pytest.raises(InputError, match=r"z_image_turbo has no option `promt`\. Nothing was sent.* use `prompt`"):
            start(promt=["a lamp"])
    misused: dict[str, Callable[[], object]] = {
        "wait_for": lambda: z_image_turbo.delay(prompt="a lamp", wait_for=[]),  # type: ignore[call-arg]
        "deferred": lambda: z_image_turbo.submit(prompt="a lamp", deferred=True),  # type: ignore[call-overload]
    }
    for option, call in misused.items():
        with pytest.raises(InputError, match=f"has no option `{option}`"):
            call()
    with pytest.raises(InputError, match=r"generate_many has no option `lable`\. Nothing was sent.* use `label`"):
        await generate_many([LAMP], lable="a")  # type: ignore[call-arg]
    with pytest.raises(InputError, match=r"generate_many has no option `lables`.* use `labels`"):
        await generate_many([LAMP], lables=["a"])  # type: ignore[call-arg]


async def test_the_name_of_a_model_in_place_of_its_input_names_the_nearest_classes() -> None:
    name: Any = "z-image/turboo"
    said = r"got str 'z-image/turboo'\. Nothing was sent.* similar names: models\.ZImageTurbo, "
    calls: list[Callable[[], object]] = [
        lambda: generate(name, prompt="a lamp"),  # type: ignore[call-arg]
        lambda: generate.submit(name, prompt="a lamp"),  # type: ignore[call-overload]
        lambda: generate_many([name]),
    ]
    for call in calls:
        with pytest.raises(InputError, match=said):
            call()


async def test_many_jobs_have_labels_and_their_error_has_all_results(rh: Emulator) -> None:
    rh.faults.add(Fault("submit", prompt="a broken lamp", kind="code", code="1007"))
    asked = [models.ZImageTurbo(prompt=prompt) for prompt in ("a lamp", "a broken lamp", "a torch")]
    with pytest.raises(InputError, match="3 requests and 1 labels"):
        await generate_many(asked, labels=["one"])
    with pytest.raises(JobsFailed, match="1 of 3 jobs failed") as failed:
        await generate_many(asked, labels=["lamp", "broken", "torch"], scope="many")
    first, second, third = failed.value.results
    assert isinstance(first, Result) and isinstance(third, Result) and isinstance(second, RunningHubError)
    assert (first.label, second.step, third.label) == ("lamp", "broken", "torch")


def failing(*errors: Exception) -> tuple[PlainTask[[], str], Callable[[], int]]:
    """A task that fails once with each error, then succeeds; and how often it was called."""
    left, calls = list(errors), list[None]()

    async def body() -> str:
        calls.append(None)
        if left:
            raise left.pop(0)
        return "made"

    task = plain_task(body, run_name="failing", can_help=can_help, delays=[0, 0])
    return task, lambda: len(calls)


async def test_a_plain_call_has_the_retries_of_its_task() -> None:
    task, calls = failing(TransportError("no answer"), StoreError("no answer"))
    assert await task() == "made"
    task, calls = failing(*[TransportError("no answer")] * 3)
    with pytest.raises(TransportError):
        await task()
    assert calls() == 3
    for hopeless in (InputError("wrong"), StoreError("no right", is_permanent=True)):
        task, calls = failing(hopeless)
        with pytest.raises(type(hopeless)):
            await task()
        assert calls() == 1
    task, calls = failing(TransportError("no answer"))
    with pytest.raises(TransportError):
        await task.with_options(retry_condition_fn=lambda *_: False)()
    assert calls() == 1, "as in a task run, the condition may be a plain function"
