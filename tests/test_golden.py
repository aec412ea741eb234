"""Golden outputs: a stage whose output changes must raise its VERSION, or old receipts would pass for new work.

The web pipeline runs over the few records of golden/input, and what every stage wrote (tests/golden_outputs.py) is
compared with golden/stages.json. `python tests/test_golden.py --write` writes the file anew, and refuses when a VERSION
should have been raised.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from golden_compare import WRITE, compare
from golden_outputs import FILE, GOLDEN, observe, observe_web

from gristmill.filters.gopher import GopherQuality
from gristmill.stages.text import extract
from gristmill.stages.text.html import PageText
from gristmill.stages.text.screen import Screen

STAGES = [
    "scan",
    "extract",
    "screen",
    "sign",
    "exact",
    "collect",
    "link",
    "merge",
    "gather",
    "choose",
    "clusters",
    "sizes",
    "shards",
    "ledger",
]


def test_no_stage_gives_another_output_under_the_same_version(tmp_path):
    observed = observe(tmp_path / "lake")  # beside which it makes others
    assert [title for title in observed["stages"] if ": " not in title] == STAGES
    problem = compare(json.loads(FILE.read_text()), observed)
    assert problem is None, problem


def test_the_golden_input_takes_every_kind_of_way():
    stages = json.loads(FILE.read_text())["stages"]
    reasons = {reason for stage in stages.values() for part in (*stage["reasons"], *stage["errors"]) for reason in part}
    assert reasons == {
        "read.not_a_page", "read.http_status", "read.not_html", "read.unreadable", "extract.no_text",
        "extract.unwanted_language", "language.unwanted", "language.low_score", "gopher_quality.too_many_bullet_lines",
        "exact.duplicate", "exact.same_record", "minhash.duplicate",
        "c4_lines.nothing_left", "substrings.repeated", "substrings.too_few_words",
        "instruct.bad_arguments", "instruct.no_assistant", "mix.not_drawn", "mix.too_long",
        "image.missing", "image.no_image", "image.too_many_pixels", "image_size.too_narrow", "caption.boilerplate",
        "phash.duplicate",
        "audio.missing", "audio.truncated", "audio.segment", "clip.too_short", "clip.silent", "speech_rate.too_fast",
        "sound.duplicate", "tokenize.clip_too_short", "tokenize.clip_too_long", "mix.too_many_frames",
        "problems.no_field", "select.rejected", "select.per_problem", "pairs.none_accepted", "pairs.none_rejected",
    }  # fmt: skip
    assert stages["extract"]["pieces"] > 3 and stages["shards"]["pieces"] > 1


# The golden test is able to fail


def louder(html: str, config: Any, original: Callable[..., PageText] = extract.page_text) -> PageText:
    page = original(html, config)
    return page._replace(text=page.text.replace("mill", "MILL"))


def one_word_more(self: GopherQuality, docs: Any, original: Callable[..., Any] = GopherQuality.measure) -> pa.Table:
    measures = original(self, docs)
    at = measures.schema.names.index("n_words")
    return measures.set_column(at, "n_words", pa.compute.add(measures["n_words"], 1))


@pytest.mark.parametrize(
    ("target", "name", "value", "message"),
    [
        (extract, "page_text", louder, r"'extract' gives .*text\.columns\.content.*extract \d"),
        (GopherQuality, "measure", one_word_more, r"'screen' gives .*screened\.columns\.gopher_quality\.n_words\)"),
        (Screen, "VERSION", 2, r"'screen' is not the one .*screen: VERSION 1 \{\} -> VERSION 2"),
        (GopherQuality, "VERSION", 2, r"'screen' is not the one .*gopher_quality: VERSION 1 .*VERSION 2"),
    ],
)
def test_a_change_is_named_with_what_to_do(tmp_path, monkeypatch, target, name, value, message):
    monkeypatch.setattr(target, name, value)
    problem = compare(json.loads(FILE.read_text()), observe_web(tmp_path / "lake"))  # where each of them shows first
    assert problem is not None and re.search(rf"{message}.*--write", problem)


def write() -> str:
    """Writes stages.json anew; says what it refuses."""
    with tempfile.TemporaryDirectory() as folder:
        observed = observe(Path(folder) / "lake")
    if FILE.exists():
        problem = compare(json.loads(FILE.read_text()), observed)
        if problem is None:
            return "nothing changed"
        if "Raise the VERSION" in problem or "restore it" in problem:
            hint = f"If golden/input or this test itself changed, delete {FILE.name} first"
            sys.exit(f"not written: {problem}. {hint}")
    FILE.write_text(json.dumps(observed, indent=1, ensure_ascii=False) + "\n")
    return f"wrote {FILE.relative_to(GOLDEN.parents[1])}: look at its diff, and commit it with the change"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: {WRITE}")
    print(write())
