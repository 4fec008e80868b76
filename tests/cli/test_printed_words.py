"""Addresses with signatures and passwords in the commands that are printed for a user."""

from __future__ import annotations

from pathlib import Path

import pytest

from rh_prefect.cli.argument_checks import printable
from rh_prefect.cli.options import words_of
from tests.support.processes.typed_commands import Terminal

NOTE = "<the whole address of https://host/a.png>"


@pytest.mark.parametrize(
    ("word", "printed"),
    [
        ("image=https://host/a.png?X-Amz-Signature=5ec2e7&X-Amz-Credential=5ec2e7", f"image={NOTE}"),
        ("--set=2.image=https://user:5ec2e7@host/a.png", f"--set=2.image={NOTE}"),
        ("https://5ec2e7@host/a.png", NOTE),
        ("--out=ftp://user:5ec2e7@host/x", "--out=<the whole address of ftp://host/x>"),
        ("image=https://host/a.png", "image=https://host/a.png"),
        ("rows=s3://shop/autumn.csv", "rows=s3://shop/autumn.csv"),
        ("prompt=a = b\n?", "prompt=a = b\n?"),
    ],
)
def test_an_address_with_a_secret_is_replaced_by_a_note(word: str, printed: str) -> None:
    assert printable(word) == printed


def test_a_value_with_a_dash_is_one_word_with_its_option(terminal: Terminal) -> None:
    words = words_of(prompt="-hello", set=["a=1", "-b"])
    assert words == ["--prompt=-hello", "--set", "a=1", "--set=-b"]
    assert "most 0.04" in terminal.call(f"run z-image/turbo --dry-run {words[0]}")


@pytest.mark.parametrize(
    "command",
    [
        f"run film --prompt x --image '{NOTE}'",
        f"run kling-v2.6-pro-image-to-video --set 'image={NOTE}'",
        f"batch rows.csv --model z-image/turbo --set 'image={NOTE}'",
        f"batch rows.csv --model z-image/turbo --out '{NOTE}'",
        f"batch '{NOTE}' --model z-image/turbo",
    ],
)
def test_the_note_is_refused_by_each_command(command: str, terminal: Terminal) -> None:
    Path("rows.csv").write_text("prompt\na cup\n")
    assert f"{NOTE} is a masked form of an address whose signature" in terminal.call(command, fails=True)
