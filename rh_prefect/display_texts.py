"""Names, counts, sizes and shortened texts as people read them in the dashboard, the log and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROMPT_SHOWN = 40
"""Maximum number of characters of a prompt in the name of a job."""

_PROMPTS = ("prompt", "text", "description")


def shortened(text: str, width: int) -> str:
    """Returns text as one line of at most `width` characters; longer text is cut, after a word if possible."""
    line = " ".join(text.split())
    if len(line) <= width:
        return line
    words, _, cut = line[:width].rpartition(" ")
    return f"{words if len(cut) <= width // 2 else line[: width - 1]}…"


def counted(count: int, noun: str) -> str:
    """Returns a number with its noun, as in `1 item` or `3 items`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def size_text(size: int) -> str:
    """Returns a size in bytes as text with a unit, as in `12.5 kB` or `2.50 MB`."""
    return f"{size / 1e6:.2f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def cut_middle(text: str, width: int) -> str:
    """Returns a name of at most `width` characters: a longer name is cut in its middle, since both ends identify it."""
    end = (width - 1) // 2
    return text if len(text) <= width else f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def beginning_of_prompt(params: Mapping[str, Any], width: int = PROMPT_SHOWN) -> str:
    """Returns the beginning of a request's main text, such as its prompt; empty if the request has none."""
    # The `prompt` of ComfyUI's own API is a graph.
    texts = (text for name in _PROMPTS if isinstance(text := params.get(name), str))
    return shortened(next(filter(str.strip, texts), ""), width)


def with_prompt(name: str, prompt: str) -> str:
    """Returns a name with the beginning of a prompt, if there is one, as in `z-image/turbo (a lighthouse)`."""
    return f"{name} ({prompt})" if prompt else name
