from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from rh_prefect.errors import api_error
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.named_file_saver import SavedNames, _key_of
from rh_prefect.pipelines.rounds_across_runs import Rounds, leave_rounds
from rh_prefect.pipelines.stored_edits import EditResults
from rh_prefect.works.input_identification import Inputs
from rh_prefect.works.journal.identity import text_hash, work_id
from rh_prefect.works.journal.job_records_and_state import KINDS, RESUBMITTED, JobRecords, JobView, Submit
from rh_prefect.works.journal.journal import UnreadableRecord, by_job
from rh_prefect.works.journal.record_types import (
    FORMAT,
    FORMAT_KEY,
    Answer,
    End,
    Format,
    Intent,
    Lost,
    MediaRecord,
    Record,
    Resolution,
    ResultRecord,
    account_words,
)
from rh_prefect.works.journal.scope import FolderScope, Opened, begin_attempt, find_scope, read_run
from rh_prefect.works.journal.works_journal import WorksJournal, choose_new_take, no_evidence
from rh_prefect.works.run_ledger import SharedRecords, read_location
from tests.support.world.job_records import BASE, KEY, SOMEWHERE_ELSE, intent, ticket, unknown, view_of, write
from tests.support.world.memory_journal import MemoryJournal, MemoryPlace

INTENT = intent()
ADOPTED = Resolution(outcome="adopted", task_id="7")
FORGOTTEN = Resolution(outcome="forgotten")
REFUSED = Answer(outcome="refused", code="421", retry="throttled")
SUCCESS = End(status="SUCCESS", task_id="1")


def parsed(**records: Record) -> JobView:
    """`intent_1=…` stands for the record `<key>-intent-1`."""
    return view_of({name.replace("_", "-"): one for name, one in records.items()})


def test_a_record_with_unknown_fields_is_read_and_each_has_a_token_of_its_own() -> None:
    assert intent().token != intent().token
    assert Intent.model_validate({**INTENT.model_dump(mode="json"), "colour": "blue"}) == INTENT


NAME = text_hash("https://h/a.png", 24)
PICTURE = Media(uri="a.png", sha256="b", size=1, mime="image/png", kind="image")

# By the record's file in the place of the records: what reads the record.
READERS: dict[str, Callable[[WorksJournal, FolderScope], Awaitable[object]]] = {
    **{f"works/{KEY}/{kind}-1": lambda works, _: JobRecords(works, KEY).view() for kind in KINDS},
    f"works/{KEY}/end-2": lambda works, _: JobRecords(works, KEY).read_end(2),
    f"works/{KEY}/result": lambda works, _: works.read_results([f"{KEY}-result"]),
    f"works/{KEY}/waiter-other-1": lambda works, _: works.has_other_waiter(KEY, "run"),
    "works/format/1": lambda works, _: works.place_id(),
    "scopes/run/format/1": lambda works, run: begin_attempt(run, MediaStore(works.url)),
    "scopes/run/attempt/1": lambda works, _: find_scope(works, "run"),
    "scopes/run/ended/1": lambda works, _: read_run(works, "run"),
    "scopes/run/pipeline/records-1": lambda _, run: read_location(run.journal),
    "scopes/run/place/1": lambda works, run: SharedRecords(works, KEY, run, has_ended=no_evidence).check_place(),
    f"scopes/run/media/{NAME}-1": lambda works, run: Inputs(
        run.journal, Path(works.url), MediaStore(works.url)
    ).identify("https://h/a.png"),
    f"scopes/run/{work_id(BASE, 0)}/take-1": lambda works, run: choose_new_take(works, run.journal, BASE),
    f"scopes/run/{KEY}/round-1": lambda works, run: leave_rounds(run.journal, works.rounds),
    f"rounds/{KEY}/1": lambda works, _: Rounds(works.rounds, deployment="").read(KEY, 1),
    **{
        f"rounds/{KEY}/1-{what}-0": lambda works, _: Rounds(works.rounds, deployment="").read(KEY, 1)
        for what in ("holder", "suspended", "left")
    },
    f"rounds/{KEY}/1-picture-takes": lambda works, _: Rounds(works.rounds, deployment="").takes_of(f"{KEY}-1-picture"),
    f"edits/{KEY}/result": lambda works, _: EditResults(works.url, MediaStore(works.url)).read_many([KEY]),
    **{
        f"names/{_key_of('a.png')}/{what}-1": lambda works, _: SavedNames(works.url, MediaStore(works.url)).find(
            PICTURE, "a.png"
        )
        for what in ("content", "stamp")
    },
}


@pytest.mark.parametrize("file", READERS)
async def test_a_damaged_record_is_an_error_that_names_it_and_says_what_to_do(tmp_path: Path, file: str) -> None:
    works = WorksJournal(str(tmp_path))
    run = FolderScope(works.notes_of("run"), works)
    await write(works, {"intent-1": INTENT})
    await write(run.journal, {"claim-1": Record()})
    await run.journal.create("attempt-1", Opened(owner=SOMEWHERE_ELSE).model_dump(mode="json"))
    path = tmp_path / f"{file}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for record, flaw in {
        "no JSON": "it is not a JSON object",
        "[]": "it is not a JSON object",
        '{"token": "1"}': "at: Field required",
        '{"token": "1", "at": "yesterday"}': "Invalid isoformat string: 'yesterday'",
        f'{{"token": 1, "at": "{INTENT.at}"}}': ".*: .*",
    }.items():
        path.write_text(record)
        with pytest.raises(UnreadableRecord) as found:
            await READERS[file](works, run)
        assert re.fullmatch(
            rf"The record {re.escape(str(path))} cannot be read \({flaw}\): it is damaged, or another version of "
            r"rh-prefect wrote it\. Nothing was paid because of that, .*What to do: restore the record from a .*",
            found.value.message,
        )


def test_of_several_records_that_cannot_be_read_the_first_in_the_course_of_a_submission_is_named() -> None:
    with pytest.raises(UnreadableRecord, match=rf"record {KEY}-intent-1 "):
        JobView.parse(MemoryJournal(MemoryPlace(), "run"), KEY, {f"{KEY}-end-1": {}, f"{KEY}-intent-1": {}})


def test_a_record_without_optional_fields_has_the_defaults_of_the_format() -> None:
    """The defaults: the first take, of the first attempt, with the usual time limits."""
    bare = Intent(
        owner=SOMEWHERE_ELSE, account="acc", site="site", model="some/model", endpoint="e", payload={}, base=BASE
    )
    assert bare.model_dump(exclude={"token", "at", "owner", "payload"}) == {
        "account": "acc", "site": "site", "credentials": None, "storage": None, "store": "", "model": "some/model",
        "endpoint": "e", "base": BASE, "take": 1, "label": None, "run": "", "pipeline": "",
        "flow": "", "estimate": None, "currency": None, "give_up": 30.0, "submit_timeout": 60.0, "attempt": 1,
        "graph": "", "webhook": False, "flow_run": "", "files": (),
    }  # fmt: skip
    assert bare.request_words == "e"
    assert (SUCCESS.attempt, ResultRecord(task_id="1").n) == (1, 1)
    assert (MediaRecord(uri="a", sha256="b", size=1, kind="image", mime="image/png", extension="png").stored) == ""
    assert (Format().format, FORMAT, FORMAT_KEY) == (7, 7, "format-1"), "runs of another format cannot be continued"


def test_two_requests_that_were_sent_at_once_are_told_apart_without_secrets() -> None:
    prompt = f"look at https://h/a.png?Signature={'s' * 20}\n" + "and more " * 20
    words = intent(
        label="shots[1].motion", payload={"prompt": prompt}, files=("a.png", f"{'0' * 64}.png")
    ).request_words
    assert words == (
        'some/model (shots[1].motion, prompt "look at https://h/a.png?Signature=*** and more and more and…", '
        "input files a.png, 0000000000000000…00000000000.png)"
    )


@pytest.mark.parametrize(
    ("records", "state", "task_id", "may_be_paid"),
    [
        ({}, "open", None, False),
        ({"answer": ticket("5")}, "ticket", "5", False),
        ({"answer": REFUSED}, "refused", None, False),
        ({"answer": unknown()}, "unknown", None, True),
        ({"answer": unknown(), "end": SUCCESS}, "ended", "1", False),
        ({"answer": unknown(), "resolution": ADOPTED}, "ticket", "7", False),
        ({"answer": unknown(), "resolution": ADOPTED, "lost": Lost()}, "forgotten", "7", True),
        ({"answer": unknown(), "resolution": ADOPTED, "end": SUCCESS}, "ended", "1", False),
        ({"answer": unknown(), "resolution": FORGOTTEN}, "forgotten", None, False),
        ({"answer": unknown(), "resolution": Resolution(outcome="forgotten", by=RESUBMITTED)}, "forgotten", None, True),
        ({"answer": ticket("1"), "end": SUCCESS}, "ended", "1", False),
        # Not meant to come about; but a task that is known of must never be paid for again.
        ({"answer": REFUSED, "resolution": ADOPTED}, "ticket", "7", False),
        ({"resolution": ADOPTED}, "ticket", "7", False),
        ({"answer": ticket("5"), "lost": Lost(by="a person")}, "forgotten", "5", True),
        ({"answer": ticket("5"), "lost": Lost(by="a person"), "end": SUCCESS}, "ended", "1", False),
        ({"answer": ticket("5"), "resolution": ADOPTED}, "ticket", "7", False),
    ],
)
def test_the_state_of_a_submission(records: dict[str, Any], state: str, task_id: str | None, may_be_paid: bool) -> None:
    submit = Submit(1, INTENT, **records)
    assert (submit.state, submit.task_id, submit.may_be_paid) == (state, task_id, may_be_paid)


@pytest.mark.parametrize(
    ("records", "late"),
    [
        ({"answer": ticket("5")}, None),
        ({"answer": unknown(), "resolution": FORGOTTEN, "late": ticket("8")}, "8"),
        ({"answer": unknown(), "resolution": ADOPTED, "late": ticket("8")}, "8"),
        ({"answer": unknown(), "resolution": ADOPTED, "late": ticket("7")}, None),
    ],
)
def test_a_late_ticket_is_not_the_task_of_its_submission(records: dict[str, Any], late: str | None) -> None:
    assert Submit(1, INTENT, **records).late_task_id == late


def test_a_job_has_its_submissions_in_order() -> None:
    records: dict[str, Record] = {f"answer_{n}": REFUSED for n in range(11, 0, -1)}
    records |= {f"intent_{n}": INTENT for n in (10, 2, 11, 1, 3, 9, 4, 8, 5, 7, 6)}
    view = parsed(**records)
    assert [submit.n for submit in view.submits] == list(range(1, 12))
    assert view.state == "refused"


def test_the_last_submission_determines_the_state() -> None:
    first: dict[str, Record] = {"intent_1": INTENT, "answer_1": unknown(), "resolution_1": FORGOTTEN}
    assert parsed(**first, late_1=ticket("8")).state == "forgotten", "other records of the job are no submissions"
    view = parsed(**first, intent_2=INTENT, answer_2=ticket("9"))
    assert view.last is not None
    assert (view.state, view.last.task_id) == ("ticket", "9")
    for nothing in (parsed(), parsed(answer_1=ticket())):  # an answer without an intent is no submission
        assert (nothing.state, nothing.last, nothing.tickets) == ("new", None, 0)


def test_tickets_count_as_paid_and_refusals_do_not() -> None:
    records: dict[str, Record] = {f"intent_{n}": INTENT for n in (1, 2, 3, 4)}
    records |= {"answer_1": REFUSED, "answer_2": ticket("2"), "end_2": End(status="FAILED", task_id="2")}
    records |= {"answer_3": unknown(), "resolution_3": FORGOTTEN, "answer_4": unknown(), "resolution_4": ADOPTED}
    assert parsed(**records).tickets == 2


def test_a_newer_view_of_an_earlier_submission_does_not_become_the_last() -> None:
    view = JobView(KEY, (Submit(1, INTENT, unknown()), Submit(2, INTENT, ticket("2"))))
    newer = view.adding(Submit(1, INTENT, unknown(), FORGOTTEN))
    assert [submit.n for submit in newer.submits] == [1, 2]
    assert newer.submits[0].state == "forgotten"
    assert newer.state == "ticket"


@pytest.mark.parametrize(
    ("account", "block", "words"),
    [
        ("main", "studio", "main (block 'studio')"),
        ("main", None, "main (RH_API_KEY)"),
        ("3eb1bd439947", None, "of RH_API_KEY (key fingerprint 3eb1bd439947)"),
        ("3eb1bd439947", "studio", "of block 'studio' (key fingerprint 3eb1bd439947)"),
    ],
)
def test_an_account_without_a_name_is_named_by_its_key(account: str, block: str | None, words: str) -> None:
    assert account_words(account, block) == words


def test_records_are_grouped_by_job_without_those_of_the_scope() -> None:
    own = {f"{KEY}-intent-1": 1, f"{KEY}-answer-1": 2}
    assert by_job({"cancel-1": 0, "format-1": 0, **own}) == {KEY: own}


@pytest.mark.parametrize(("flow_run", "is_adopted"), [("", False), ("night", False), (f"night/{KEY}", True)])
def test_a_result_that_names_another_work_is_adopted(flow_run: str, is_adopted: bool) -> None:
    assert ResultRecord(task_id="1", flow_run=flow_run).is_adopted is is_adopted


@pytest.mark.parametrize(("retry", "outcome"), [("unknown", "unknown"), ("pending", "unknown"), ("final", "refused")])
def test_an_error_after_which_a_task_may_exist_is_an_unknown_answer(retry: Any, outcome: str) -> None:
    error = api_error("421", doing="submit", submitting=True)
    error.retry = retry
    assert Answer.of(error).outcome == outcome


async def test_the_first_recorded_end_counts_and_no_other_run_shares_the_work_of_a_run() -> None:
    first, second = (JobRecords(MemoryJournal(place, "run"), KEY) for place in [MemoryPlace()] * 2)
    assert await first.end(1, SUCCESS) == SUCCESS
    assert await second.end(1, End(status="CANCELLED", task_id="1")) == SUCCESS
    assert (first.is_shared, await first.has_waited(1, since=1), await first.has_other_waiters()) == (
        False,
        False,
        False,
    )
