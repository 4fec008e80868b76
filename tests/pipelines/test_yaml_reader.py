from __future__ import annotations

import json

import pytest
import yaml

from rh_prefect.pipelines.parsed_document import PipelineError, Place
from rh_prefect.pipelines.yaml_reader import read
from tests.support.each_case import each_case


def message(text: str) -> str:
    with pytest.raises(PipelineError) as caught:
        read(text, "film.yaml")
    return caught.value.found[0].head


def test_scalars_are_those_of_yaml_1_2() -> None:
    text = (
        "{a: true, b: no, c: on, d: 1e3, e: 2024-01-01, f: 7, g: 0.5, h: null, i: 007, j: 2030000000000000002, k: '5'}"
    )
    assert list(read(text, "f").data.values()) == [
        True, "no", "on", "1e3", "2024-01-01", 7, 0.5, None, "007", 2030000000000000002, "5",
    ]  # fmt: skip


def test_references_need_no_quotes() -> None:
    text = "a: {b: $(params.seconds), c: [$(x or y), $(z)]}\nd: $(p or q)\n"
    assert read(text, "f").data == {"a": {"b": "$(params.seconds)", "c": ["$(x or y)", "$(z)"]}, "d": "$(p or q)"}


def test_every_value_has_its_place() -> None:
    document = read("steps:\n  a: {model: kling, with: {prompt: hello $(b)}}\n", "f")
    assert document.place(("steps", "a", "model")) == Place(2, 14)
    assert document.place(("steps", "a", "model"), key=True) == Place(2, 7)
    assert document.place(("steps", "a", "with", "prompt"), "$(b)") == Place(2, 42)
    document = read("a: |\n  one\n  two $(x)\n", "f")
    assert document.place(("a",), "$(x)") == Place(3, 7)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x85", "\u2028", "\u2029"])
def test_a_line_ends_where_yaml_ends_it(end: str) -> None:
    text = f"a: 'one{end}two'{end}b:{end}  prompt: no #5{end}  c: [1, 2{end}"
    assert message(text) == "film.yaml:5:6: the value that begins here is not closed before the end of the file"
    document = read(text.replace("[1, 2", "x $(y)"), "f")
    assert document.place(("b", "c"), "$(y)") == Place(5, 8)
    assert document.node(("b", "prompt")).comment == "#5"


def test_json_is_read_as_python_writes_it() -> None:
    data = {"a \U0001f600": "\U0001f600 b", "c": 1e-05, "d": [1.5e-07, -1e16, 5.0]}
    assert read(json.dumps(data), "f").data == read(json.dumps(data, indent=2), "f").data == data


def test_strings_and_numbers_are_read_as_pyyaml_writes_them() -> None:
    data = {"a": "5e-3", "1e-05": "-1e+16", "c": 1e-05, "d": 1.5e-07, "e": "1.5e-07", "f": -1e16}
    for flow in (True, None, False):
        assert read(yaml.safe_dump(data, default_flow_style=flow), "f").data == data


def test_keys_are_merged_where_the_merge_is_written() -> None:
    text = "x: &x {b: 1, c: 2, d: 3}\ny: &y {d: 4, e: 5}\nz: {a: 0, <<: [*x, *y], f: 6, c: 7}\n"
    assert list(read(text, "f").data["z"].items()) == [("a", 0), ("b", 1), ("d", 3), ("e", 5), ("f", 6), ("c", 7)]


WRONG = {
    "a: !!python/name:os x": "film.yaml:1:4: !!python/name:os is a tag, which a pipeline cannot contain; leave it out",
    "a:\n\tb: 1": "film.yaml:2:1: YAML does not allow tabs as indentation; use spaces",
    "a: \x07": "film.yaml:1:4: the file contains a control character, which YAML does not allow; remove it",
    "a: \xa0\nb: \x07": "film.yaml:2:4: the file contains a control character, which YAML does not allow; remove it",
    "a: @x": "film.yaml:1:4: a string cannot begin with @; put it in quotes",
    "a: {b: [1, 2": "film.yaml:1:8: the value that begins here is not closed before the end of the file",
    'a: "x\nb: 1': "film.yaml:1:4: the value that begins here is not closed before the end of the file",
    "": "film.yaml:1:1: the file is empty; `rh-prefect init` writes a file to start from",
    "? [a]\n: b": "film.yaml:1:3: a key must be a name; put a string with braces or brackets in quotes",
    "a: *b": "film.yaml:1:4: *b needs an anchor &b that ends before it",
    "a: &a [*a]": "film.yaml:1:8: *a needs an anchor &a that ends before it",
    "a: 1\n---\nb: 2": "film.yaml:2:1: a second document begins here; a file can contain only one pipeline",
    "a: \ud800": "film.yaml:1:1: the file is not UTF-8; save it as UTF-8 text",
    "a: " + "x" * 2 * 1024 * 1024: "film.yaml:1:1: the file is larger than 1 MiB, the maximum size",
    "a: " + "x" * 100_001: "film.yaml:1:4: a string has 100001 characters; at most 100000 are allowed",
    "[" * 10_000: "film.yaml:1:33: lists and mappings are nested more than 32 levels deep",
    "\n".join(
        " " * n + "a:" for n in range(60)
    ): "film.yaml:33:33: lists and mappings are nested more than 32 levels deep",
    "a0: &a0 "
    + "[" * 20
    + "]" * 20
    + f"\na1: {'[' * 20}*a0{']' * 20}": "film.yaml:2:25: lists and mappings are nested more than 32 levels deep",
}


def test_what_is_not_read_is_named_with_its_place() -> None:
    with each_case() as case:
        for text, said in WRONG.items():
            with case(repr(text[:80])):
                assert message(text) == said


def test_the_line_and_a_caret_follow_the_message() -> None:
    with pytest.raises(PipelineError) as caught:
        read("prompt: Close-up: a cat", "film.yaml")
    assert str(caught.value.found[0]).splitlines()[1:] == ["  prompt: Close-up: a cat", "                  ^"]


def test_merged_mappings_are_not_nested() -> None:
    text = "x0: &a0 {k0: 0}\n" + "".join(f"x{n}: &a{n} {{<<: *a{n - 1}, k{n}: {n}}}\n" for n in range(1, 60))
    assert len(read(text, "f").data["x59"]) == 60


def test_a_file_of_data_may_be_large_or_empty_but_aliases_are_counted() -> None:
    text = "a: &a [1, 2]\nb: [*a, *a]\nc:\n" + "- 1\n" * 20_000
    assert len(read(text, "f", is_data=True).data["c"]) == 20_000
    assert "more than 20000 values" in message(text)
    assert read("# nothing", "f", is_data=True).data == {}
    bomb = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    with pytest.raises(PipelineError, match=r"more than \d+ values after its aliases"):
        read("a0: &a0 x\n" + bomb, "f", is_data=True)


def test_control_characters_are_shown_as_text() -> None:
    assert "\x1b" not in message('a: "\x1b[31m"\nb: @')
