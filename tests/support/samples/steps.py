"""Files of pipelines for tests, made of steps: each is written as the keys of its mapping."""

from __future__ import annotations

TEXT_MODEL = "rhart-text-g-3-flash-preview/text-to-text"
PICTURE = "model: z-image/turbo, with: {prompt: %s}"
CLIP = "model: kling-v2.6-pro-image-to-video, from: %s, with: {prompt: slow, duration: 5, sound: false}"
ANSWER = f"model: {TEXT_MODEL}, with: {{prompt: %s}}"
ASK = ANSWER % "x" + ", parse: {object: {ok: boolean}}"
SPEECH = "model: minimax/speech-2.8-hd, with: {text: %s}"
LIPS = (
    "model: kling-lip-sync/lip-sync-video, from: $(voice), with: {session_id: %s, face_id: %s, sound_start_time: 0, "
    "sound_end_time: 5000, sound_insert_time: 0}"
)
RESIZE = "edit: resize, with: {file: %s, width: 64, height: 64}"


def steps(**written: str) -> str:
    return "steps:\n" + further(**written)


def further(**written: str) -> str:
    """Steps that follow others in a file."""
    return _lines("  ", written)


def group(keys: str, **written: str) -> str:
    """The keys of a group or of a fan-out, and its steps."""
    inner = ", ".join(f"{name}: {{{step}}}" for name, step in written.items())
    return (f"{keys}, " if keys else "") + f"steps: {{{inner}}}"


def of_rows(columns: str, keys: str = "", **written: str) -> str:
    """A file with a fan-out `each` over its parameter `rows`.

    Args:
        columns: The columns of the rows, as in `title: string`.
        keys: Another key of the fan-out, as in `id: $(item.title)`.
        written: The steps of each row.
    """
    head = f"params: {{rows: {{type: table, columns: {{{columns}}}}}}}\nsteps:\n  each:\n    foreach: $(params.rows)\n"
    return head + (f"    {keys}\n" if keys else "") + "    steps:\n" + _lines("      ", written)


def rows(*titles: str) -> list[dict[str, str]]:
    return [{"title": title} for title in titles]


def _lines(indent: str, written: dict[str, str]) -> str:
    return "".join(f"{indent}{name}: {{{keys}}}\n" for name, keys in written.items())
