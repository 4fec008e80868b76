"""The command line, `rh-prefect`: each command's module is loaded when the command is run."""

from __future__ import annotations

import codecs
import errno
import functools
import io
import logging
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cyclopts import App, CycloptsError, Parameter, ValidationError

if TYPE_CHECKING:
    from rich.segment import Segments

_PIPELINE_COMMANDS = ("run", "plan", "choose")
"""Commands whose first argument is a pipeline."""

_WITH_PARAMETERS = ("run", "plan", "explain", "batch")
"""Commands with the option `--set NAME=VALUE`."""


class _RootApp(App):
    """The command `rh-prefect`; if its arguments contain a pipeline, `--help` also explains the pipeline."""

    def help_print(self, tokens: Any = None, **more: Any) -> None:
        """Prints a help page; see `cyclopts.App.help_print`."""
        words = list(tokens or ())
        super().help_print(tokens, **more)
        if words[:1] and words[0] in _PIPELINE_COMMANDS and (file := _pipeline_in(words)):
            from rh_prefect.cli.explain_pipeline import explain

            explain(Path(file))


def _pipeline_in(words: Sequence[str]) -> str | None:
    """Returns the name of the pipeline in a command line: the first word that belongs to no option."""
    return next((one for last, one in pairwise(words) if not one.startswith("-") and not last.startswith("-")), None)


def _in_a_sentence(error: CycloptsError) -> Segments:
    """Formats a command-line error in this package's form, because pydantic's message has five lines and a link."""
    from rich.segment import Segment, Segments

    problems = getattr(error.__cause__, "errors", None)
    if isinstance(error, ValidationError) and problems is not None:
        error.exception_message = f"{problems()[0]['msg']}."
    command, unused = (
        " ".join(["rh-prefect", *(error.command_chain or ())]),
        getattr(error, "unused_tokens", None) or (),
    )
    are_parameters = unused and all("=" in one for one in unused) and command.endswith(_WITH_PARAMETERS)
    words = shlex.join(word for one in unused for word in ("--set", one))
    advice = f"use {words}" if are_parameters else "correct the command"
    text = f"rh-prefect: {str(error).strip().rstrip('.')}. What to do: {advice}; see `{command} --help`."
    if error.console is not None:
        error.console.soft_wrap = True
    return Segments([Segment(f"{text}\n")])  # a text's tabs would be replaced, and its words may be a command's


def _shown_default(value: object) -> str | None:
    """Returns a default value for the help page; None for a switch or an empty list."""
    return None if value is None or value is False or value == () else str(value)


app = _RootApp(
    name="rh-prefect",
    help="Paid media jobs on RunningHub, as Prefect flows that are never paid for twice.",
    error_formatter=_in_a_sentence,
    default_parameter=Parameter(
        negative="", show_default=_shown_default, validator=lambda type_, value: _check_texts(type_, value)
    ),
)
_models = App(name="models", help="List RunningHub's models with limits and prices.")
_webhook = App(name="webhook", help="Receive task webhooks instead of polling.")
_jobs = App(name="jobs", help="Show paid jobs and resolve open ones.")


def _add(name: str, function: str, what: str, *, to: App = app) -> None:
    """Adds a command, whose module in this package is loaded when the command is run."""
    to.command(f"rh_prefect.cli.{function}", name=name, help=what)


_add("demo", "demo:demo", "Make a film on this machine: no key, no network, no cost.")
_add("run", "run_pipeline:run", "Run a pipeline: a file, a shipped pipeline, or a model's pipeline.")
_add("batch", "batch:batch", "Run a model on every row of a table or every file of a folder.")
_add("check", "pipelines:check", "Check pipeline files without data and without a network.")
_add("plan", "pipelines:plan", "Show what a run of a pipeline would make and cost.")
_add(
    "explain",
    "explain_pipeline:explain",
    "Show a pipeline's parameters, steps, models, outputs and price, or list the shipped pipelines.",
)
_add("init", "init:init", "Write a shipped pipeline with example inputs.")
_add("choose", "choose_at_reviews:choose", "Record choices at a pipeline's reviews.")
_add("schema", "pipelines:schema_", "Print the JSON schema of pipelines for editors.")
app.command(_models)
_add("search", "models:search", "Find models by what they do, such as `lip sync`.", to=_models)
_add("show", "models:show", "Show a model's parameters, limits and price.", to=_models)
_add("refresh", "models:refresh", "Update this user's models or prices from a public file.", to=_models)
app.command(_jobs)
for _name, _help in {
    "list": "List the jobs of a run, or the latest runs that have jobs.",
    "show": "Show everything that is recorded about one job.",
    "recover": "Restore the records of a run's paid jobs, after Prefect's database was restored from a backup.",
    "adopt": "Record the task of an unknown submission; the next run waits for it.",
    "mark-refused": "Record that an unknown submission was not accepted; the next run submits it again.",
    "mark-lost": "Record that a task or its files no longer exist at RunningHub; the next run pays for a new task.",
    "collect": "Download the paid results of a run, without submitting anything.",
    "cancel": "Cancel the tasks that a run has submitted to RunningHub.",
}.items():
    _add(_name, f"jobs:{_name.replace('-', '_')}_", _help, to=_jobs)
_add("gallery", "gallery:gallery", "Write a page with all results of jobs and edits.")
_add("open", "gallery:open_", "Open the film, the results or the report of a run in a browser.")
_add("spend", "spend:spend", "Add up the cost of tasks.")
_add("emulator", "emulator_and_webhook:emulator", "Run an emulator of RunningHub on this machine.")
app.command(_webhook)
_add("serve", "emulator_and_webhook:serve_", "Run the webhook receiver in the foreground.", to=_webhook)
_add("doctor", "doctor:doctor", "Check key, site, account, storage and Prefect, and say how to fix problems.")
app.register_install_completion_command(help="Install the completion of commands and options in your shell.")

# The exit codes that a shell shows after SIGINT, SIGPIPE and SIGTERM.
_INTERRUPTED, _UNREAD, _TERMINATED = 130, 141, 143


QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
    # The run's log is in the dashboard; the terminal gets this command's own lines.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLI_PROMPT": "false",
    "DO_NOT_TRACK": "1",
}

_ASCII = {"✓": "+", "✗": "x", "·": ".", "…": "...", "–": "-", "—": "-", "→": "->", "█": "#"}


def main(command: Callable[[], object] = app) -> None:
    """Runs a command; prints an error as one message without a traceback, and exits with 1."""
    _open_closed_outputs()
    _show_in_any_encoding()
    quiet_prefect()
    # Each warning once, without a line of this package's source for each place that checks an input.
    note = functools.cache(lambda text: print(f"note: {text}", file=sys.stderr))
    warnings.showwarning = lambda message, *_, **__: note(str(message))
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        # The default would end this process at once, without a list of running jobs, and leave its server running.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        # Closing the terminal acts like Ctrl-C; under `nohup` the signal stays ignored.
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        _call(command)
    except SystemExit as end:
        if (error := _flush()) and not end.code:
            _end_with(error)
        raise


def quiet_prefect() -> None:
    """Stops Prefect's output to the terminal; must run before Prefect is imported, since the import sets up logging."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    for service in ("APILogWorker", "EventsWorker"):  # they would print counts of unsent events
        logging.getLogger(service).setLevel(logging.ERROR)


def _open_closed_outputs() -> None:
    """Replaces an output stream that the caller has closed, as with `>&-`, with one that discards its input."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115, open until the end


def _show_in_any_encoding() -> None:
    """Replaces characters that the terminal's encoding lacks with ASCII; an encoding error would end the command."""
    codecs.register_error("rh-ascii", _in_ascii)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="rh-ascii")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_ASCII.get(character, "?") for character in lacking), error.end


def _call(command: Callable[[], object]) -> None:
    try:
        command()
    except SystemExit:
        raise
    except BaseException as error:
        _end_with(error)


def _end_with(error: BaseException) -> NoReturn:
    from rh_prefect.errors import single

    leaves = list(single([error]))
    code = next(filter(None, map(_code, leaves)), None)
    if code is not None:
        sys.exit(code)
    lines = _lines(leaves)
    if lines is None:
        raise error  # a bug in this package or another one: its traceback helps
    print("rh-prefect:", "\n".join(lines), file=sys.stderr)
    sys.exit(1)


def _lines(errors: Sequence[BaseException]) -> list[str] | None:
    """Returns the errors' messages for the user, each cause once; None if any error is unexpected."""
    from rh_prefect.errors import RunningHubError, causes

    ours = [one for one in errors if isinstance(one, RunningHubError)]
    others = [_message_of(one) for one in errors if not isinstance(one, RunningHubError)]
    known = dict.fromkeys(one for one in others if one is not None)
    return None if None in others else [*causes(ours), *known]


def _code(error: BaseException) -> int | None:
    """Returns the exit code of a command that a signal or a closed pipe ended; None for other errors."""
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return _UNREAD
    # While a flow runs, Prefect turns SIGTERM into its own exception.
    prefect = sys.modules.get("prefect.exceptions")
    return _TERMINATED if prefect is not None and isinstance(error, prefect.TerminationSignal) else None


def _flush() -> OSError | None:
    """Writes the rest of the output; returns the error if it cannot be written, as in `… | head`."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # The interpreter flushes again when it exits, and would report an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


def _message_of(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        # The errors of storages and journals are this package's own.
        where = error.filename or "the output of this command"
        return f"{where} cannot be written: {error.strerror}. What to do: free some space on the disk."
    # RunningHub's client raises this package's own errors, so this one comes from Prefect's client.
    httpx = sys.modules.get("httpx")
    if httpx is None or not isinstance(error, httpx.HTTPError | httpx.InvalidURL):
        return None
    from rh_prefect.cli.prefect_server import prefect_failed

    return prefect_failed(error)


def _check_texts(type_: object, value: object) -> None:
    from rh_prefect.cli.argument_checks import check_texts

    check_texts(type_, value)
