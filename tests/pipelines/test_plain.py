"""Foreign text: nothing that acts on a terminal comes out, and nothing else is touched."""

from __future__ import annotations

import json
import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from gristmill.orchestration.show.terminal import answer
from gristmill.pipelines.settings.plain import PlainFormatter, json_line, one_line, plain

ACTS = "\x00\x07\x08\x1b\x7f\x80\x85\x9b\u061c\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069\ufeff\U000e0001\ud800"


def acts(text: str) -> list[str]:
    return [
        c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs") and c not in "\n\t\u200c\u200d"
    ]


@pytest.mark.parametrize("character", ACTS, ids=ascii)
def test_each_is_named(character: str) -> None:
    assert plain(f"a{character}b") == f"a{ascii(character)[1:-1]}b"
    line = json_line({f"k{character}": [character]})
    assert line.isprintable() and json.loads(line) == {f"k{character}": [character]}


def test_other_scripts_and_emoji_stay() -> None:
    text = "Zürich 東京 العربية می\u200cخواهم 👩\u200d🔬 a\u00a0b\u3000c\n\td"
    assert plain(text) == text
    assert json_line(text) == json.dumps(text, ensure_ascii=False)
    assert one_line("a\nb\tc") == "a\\nb\\tc"


@given(st.text() | st.text("".join(ACTS)))
def test_nothing_comes_out_that_acts(text: str) -> None:
    assert not acts(plain(text)) and not acts(one_line(text))
    assert json.loads(json_line({"a": text})) == {"a": text}
    assert not acts(json_line(text)) and not {"\n", "\t"} & set(json_line(text))


def test_every_way_to_the_terminal_is_one_way(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "x\x9b31m\u202ey\x1b]0;z\x07"

    def draw(console) -> None:  # as a printer that forgets to call plain
        table = Table(evil)
        table.add_row(Text(evil))
        for drawn in (evil, Text(evil), Panel(evil), table):
            console.print(drawn)

    answer({"a": evil}, False, draw)
    answer({"a": evil}, True, draw)
    out = capsys.readouterr().out
    assert not acts(out) and out.count("x\\x9b31m") == 5 and "\\u009b31m\\u202ey\\u001b]0;z\\u0007" in out


def test_log_lines_too() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "read %s", ("a\x1b[2J\nb",), None)
    assert PlainFormatter("%(levelname)s %(message)s").format(record) == "INFO read a\\x1b[2J\nb"
