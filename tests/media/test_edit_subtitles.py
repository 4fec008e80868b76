from __future__ import annotations

import re
from itertools import pairwise

import pytest

from rh_prefect.errors import InputError
from rh_prefect.media.edit.subtitle_writer import sentences, subtitles


def test_each_text_is_shown_until_the_next() -> None:
    made = subtitles(["One.", "Two\n\nlines", ""], at=[0.5, 61, 70], seconds=3661.25)
    assert made == ("1\n00:00:00,500 --> 00:01:00,960\nOne.\n\n2\n00:01:01,000 --> 01:01:01,250\nTwo\nlines\n\n")


def test_the_last_text_is_shown_for_as_long_as_it_takes_to_read() -> None:
    assert "00:00:01,000 --> 00:00:03,000" in subtitles(["x" * 30], at=[1])
    assert "00:00:01,000 --> 00:00:02,000" in subtitles(["x"], at=[1])


def test_one_text_is_cut_at_its_sentences_and_shares_the_time_by_characters() -> None:
    made = subtitles(["Five! And ten more..."], seconds=10.5, form="vtt")
    assert made == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.625\nFive!\n\n00:00:02.625 --> 00:00:10.500\nAnd ten more...\n\n"
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Pi is 3.14, he said. Really?", ["Pi is 3.14, he said.", "Really?"]),
        ("第一句。第二句！", ["第一句。", "第二句！"]),
        ('She said "No." Then left', ['She said "No."', "Then left"]),
        ("  \n ", []),
    ],
)
def test_sentences(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts


def test_the_text_of_webvtt_is_no_markup() -> None:
    assert "a &lt;b&gt; --&gt; c" in subtitles(["a <b> --> c"], at=[0], form="vtt")


def test_no_text_is_shown_after_the_end_of_the_film() -> None:
    assert "00:00:09,990 --> 00:00:10,000" in subtitles(["One.", "x" * 60], at=[0, 9.99], seconds=10)


@pytest.mark.parametrize(
    ("texts", "at", "seconds", "said"),
    [
        ("ab", [0], None, "2 texts but 1 start time"),
        ("a", None, None, "need times"),
        ("ab", [0, 12], 10, "begins at 12 s, but the film ends at 10 s"),
        ("a", [9.9999], 10, "begins at"),  # less than a millisecond before the end
    ],
)
def test_times_must_fit(texts: str, at: list[float] | None, seconds: float | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        subtitles(list(texts), at=at, seconds=seconds)


def test_a_text_cannot_add_a_cue_of_its_own() -> None:
    text = subtitles(["hello\n2\n00:00:00,000 --> 00:00:01,000\nother"], at=[0], seconds=3)
    assert text.count("-->") == 1
    assert "00:00:00,000 -> 00:00:01,000" in text


@pytest.mark.parametrize("seconds", [None, 20])
@pytest.mark.parametrize("at", [[0, 5, 5, 9], [5, 5, 5, 5], [0, 5, 5.0004, 5.03], [9, 5, 0, 5], [0, 0, 0.05, 0.09]])
def test_texts_are_never_shown_together(at: list[float], seconds: float | None) -> None:
    made = subtitles(["One.", "Two.", "Three.", "Four."], at=at, seconds=seconds)
    found = re.findall(r"(\S+) --> (\S+)", made)
    assert len(found) == 4
    assert all(start < end for start, end in found)
    assert all(end <= start for (_, end), (start, _) in pairwise(found)), found


def test_texts_that_begin_together_share_the_time_in_their_order_by_characters() -> None:
    made = subtitles(["Zero", "Five!", "And ten more...", "Last"], at=[0, 5, 5, 15.04])
    assert made.split("\n\n")[1:3] == [
        "2\n00:00:05,000 --> 00:00:07,500\nFive!",
        "3\n00:00:07,500 --> 00:00:15,000\nAnd ten more...",
    ]
