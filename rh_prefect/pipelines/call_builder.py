"""Builds the calls for a plan's works and edits, once their inputs are known."""

from __future__ import annotations

from functools import partial
from typing import Any

from rh_prefect import catalog
from rh_prefect.catalog.model import text_of
from rh_prefect.errors import InputError
from rh_prefect.media.media import Media
from rh_prefect.models import any_input
from rh_prefect.pipelines.file_model import GraphStep
from rh_prefect.pipelines.parsed_answers import read_answer
from rh_prefect.pipelines.plan.planned_steps import PlannedStep, Work
from rh_prefect.pipelines.planning_values import File, Unknown, leaves
from rh_prefect.workflow_inputs import AppInput, GraphInput, WorkflowInput
from rh_prefect.works.job_options import Request
from rh_prefect.works.journal.identity import media_mark
from rh_prefect.works.work_runner import WorkCall


def work_call(instance: PlannedStep, work: Work) -> WorkCall:
    """Returns the call that makes one take of a paid step."""
    parse, assume = instance.step.get("parse"), instance.step.get("assume")
    # An open price of the catalogue is a lower bound.
    is_priced = assume is not None and (assume.price is not None or not work.price.is_open)
    name = instance.address if len(instance.works) == 1 else f"{instance.address}, take {work.take}"
    return WorkCall(
        request_of(instance),
        step=name,
        take=work.take,
        scope=work.scope,
        attempts=work.attempts,
        parse=partial(read_answer, parse=parse, at_most=instance.at_most) if parse is not None else None,
        shape=instance.shape,
        stands_for=stand_ins(instance),
        planned=work.key,
        price=work.price.most / work.attempts if is_priced else None,
        forbidden=instance.forbidden,
        saved_graph=instance.saved_graph,
    )


def request_of(instance: PlannedStep) -> Request:
    """Returns the request of a paid step; raises an error if a string is given in place of a file."""
    step, values = instance.step, known_values(instance)
    if not isinstance(step, GraphStep):
        _check_files(instance, values)
        return any_input(instance.model, values)
    if step.graph is not None:
        return GraphInput(graph=dict(instance.graph), nodes=values, opens_texts=False)
    nodes = {name: value if isinstance(value, Media) else text_of(value) for name, value in values.items()}
    if step.workflow is not None:
        return WorkflowInput(id=str(step.workflow), nodes=nodes, opens_texts=False)
    return AppInput(id=str(step.app), nodes=nodes, opens_texts=False)


def _check_files(instance: PlannedStep, values: dict[str, Any]) -> None:
    """Raises an error if a file parameter contains a string, because the string would be opened as a path."""
    model = catalog.get(instance.model)
    given = [*values.items(), *values.get("unchecked", {}).items()]
    for param, value in ((model.find_param(name), value) for name, value in given):
        if param is None or not param.is_media:
            continue
        for one in value if isinstance(value, list) else [value]:
            if one is not None and not isinstance(one, Media):
                raise InputError(
                    f"{instance.address}: {param.name} takes a file, not a string. Nothing was paid for this step. "
                    "What to do: declare the file in `params`, or use the result of a step."
                )


def known_values(instance: PlannedStep) -> dict[str, Any]:
    """Returns the parameters of a step as they are sent, with files as `Media`."""
    return {name: _sent(value) for name, value in instance.values.items()}


def has_all_ids(instance: PlannedStep) -> bool:
    """Returns whether all ids that RunningHub gives at run time are known; the request's hash contains none of them."""
    return all(not isinstance(one, Unknown) or one.sent is not None for one in leaves(instance.values))


def has_all_files(instance: PlannedStep) -> bool:
    """Returns whether the files that a step sends exist."""
    return all(one.media is not None for one in leaves(instance.values) if isinstance(one, File))


def stand_ins(instance: PlannedStep) -> dict[str, str]:
    """Returns the replacement in hashes for each expiring id, and for the hash of each file that was rendered again."""
    found: dict[str, str] = {}
    for one in leaves(instance.values):
        if isinstance(one, Unknown) and one.sent is not None:
            found[one.sent] = one.key
        if isinstance(one, File) and one.media is not None and one.key != media_mark(one.media.sha256):
            found[media_mark(one.media.sha256)] = one.key
    return found


def _sent(value: Any) -> Any:
    match value:
        case File():
            return value.located
        case Unknown():
            return value.sent
        case dict():
            return {name: _sent(one) for name, one in value.items()}
        case list() | tuple():
            return [_sent(one) for one in value]
    return value
