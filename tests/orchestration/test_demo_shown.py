"""What the demo shows of its lake: marks against the truth, acceptance by round, controls, and promises that end it."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from gristmill.lake.versions.statistics import EvaluationScore
from gristmill.orchestration.demo import shown
from gristmill.orchestration.demo.shown import Promise
from gristmill.orchestration.demo.truth import Mark, marks
from gristmill.synth.crawl.truth import Truth


def truth(number: int | None, expected: str, *reasons: str, family: str | None = None) -> dict[str, Any]:
    """A row of truth about a record of a file."""
    row = Truth("page", expected=expected, reasons=reasons, family=family, file="crawl/a.warc.gz", ordinal=number)
    return vars(row)


def fates(*reasons: str) -> dict[tuple[str, int], dict[str, Any]]:
    """A ledger of one file: each record's fate, or why it was dropped."""
    rows = [
        {"fate": reason if reason in ("kept", "quarantined") else "dropped", "reason": reason} for reason in reasons
    ]
    return {("crawl/a.warc.gz", number): row for number, row in enumerate(rows)}


def counted(judged: list[Mark]) -> dict[str, tuple[int, int, int]]:
    return {mark.group: mark[1:] for mark in judged}


def test_recall_and_precision_are_of_each_fate_and_reason() -> None:
    expected = [
        truth(0, "kept"),
        truth(1, "kept"),
        truth(2, "dropped", "language"),
        truth(3, "dropped", "http"),
        truth(4, "quarantined", "unreadable"),
    ]
    judged = marks(expected, fates("kept", "language.unwanted", "language.unwanted", "kept", "quarantined"))
    assert counted(judged) == {
        "kept": (2, 2, 1),
        "language": (1, 2, 1),
        "http_status": (1, 0, 0),
        "quarantined": (1, 1, 1),
    }
    assert judged[0].group == "kept" and judged[0].recall == judged[0].precision == 0.5
    language = next(mark for mark in judged if mark.group == "language")
    assert (language.recall, language.precision) == (1, 0.5)


def test_any_of_several_reasons_is_right_and_a_file_of_the_same_name_is_another_one() -> None:
    spam = truth(0, "dropped", "language", "gopher_quality.too_few_words")
    assert counted(marks([spam], fates("gopher_quality.too_few_words"))) == {"gopher_quality": (1, 1, 1)}
    assert counted(marks([spam], fates("kept"))) == {"language": (1, 0, 0), "kept": (0, 1, 0)}
    assert marks([{**spam, "file": "night2/a.warc.gz"}], fates("kept")) == []


def test_which_of_a_family_survives_is_the_pipelines_choice() -> None:
    family = [truth(0, "kept", family="f"), truth(1, "dropped", "exact", family="f")]
    assert counted(marks(family, fates("minhash.duplicate", "kept"))) == {"kept": (1, 1, 1), "copies": (1, 1, 1)}
    both = counted(marks(family, fates("kept", "kept")))
    assert both == {"kept": (1, 2, 1), "copies": (1, 0, 0)}


def test_what_nobody_knows_is_not_marked() -> None:
    rows = [
        truth(None, "kept"),
        truth(0, "other", "record_type"),
        truth(1, "either", "minhash", family="f"),
        truth(2, "kept", family="f"),
        truth(9, "kept"),
        truth(3, "dropped", "decontaminate"),
    ]
    judged = marks(rows, fates("read.not_a_page", "kept", "minhash.duplicate", "kept"))
    assert counted(judged) == {"kept": (1, 1, 1)}  # a leak alone: nothing decontaminates here, so it is kept


def test_an_unread_page_is_counted_by_what_was_wrong_with_it() -> None:
    rows = [truth(0, "dropped", "http"), truth(1, "dropped", "content_type")]
    judged = marks(rows, fates("read.http_status", "read.not_html"))
    assert counted(judged) == {"http_status": (1, 1, 1), "not_html": (1, 1, 1)}


def rolled_out(accepted: int, samples: int, **reasons: int) -> Any:
    """A version of rollouts, as far as the demo looks."""
    statistics = {"rollouts": {"samples": samples, "reasons": reasons}}
    return SimpleNamespace(statistics=statistics, verdicts={"accepted": SimpleNamespace(count=accepted)})


def test_acceptance_is_a_table_of_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    rounds = {"first": rolled_out(30, 100, wrong=60, false_step=10)}
    Console(width=120).print(shown.acceptance(rounds))
    line = next(line for line in capsys.readouterr().out.splitlines() if "first" in line)
    assert [cell.strip() for cell in line.strip("│┃ ").split("│")] == [
        "first", "100", "30.0%", "21.9% to 39.6%", "wrong 60, false_step 10",
    ]  # fmt: skip


def answer(question: str, expected: str, text: str) -> dict[str, Any]:
    return {"question": question, "expected": expected, "answer": text, "score": float(text == expected)}


def test_controls_exchange_answers_to_the_same_question() -> None:
    rows = [
        answer("Where?", "left", "left"),
        answer("Where?", "right", "right"),
        answer("Where?", "left", "left"),
        answer("Which?", "red", "blue"),
    ]
    assert shown.controls(rows) == (3 / 4, 1 / 4)  # the third has the first one's answer; the last has no other


def test_who_does_not_look_does_as_well_with_another_pictures_answer() -> None:
    rows = [answer("Is there?", expected, "yes") for expected in ("yes", "no", "yes", "no")]
    assert shown.controls(rows) == (0.5, 0.5)
    assert shown.controls([{**row, "question": None} for row in rows]) == (0.5, 0.5)


PROMISE = Promise("eval-speech", "transcript", "wer", "digits-held-out", 0.25, "of the words are wrong", most=True)
KEPT = Mark("kept", 100, 100, 99)
HOLDS: dict[str, Any] = {"kept": KEPT, "accepted": (0.1, 0.2), "after": 0.5, "wer": 0.25, "exchanged": 0.0}
ENDS = [
    ({}, ""),
    ({"kept": Mark("kept", 100, 99, 90)}, "pages that are kept"),
    ({"kept": Mark("kept", 99, 200, 99)}, "pages that are kept"),
    ({"accepted": (0.2, 0.2)}, "more chains are right in the second round: 20.0%, then 20.0%"),
    ({"after": 0.45}, "gain at least 8% of the held-out problems: 40.0%, then 45.0%"),
    ({"wer": 0.26}, "at most 25% of the words are wrong: 26.0%"),
    ({"exchanged": 0.95}, "who looks answers 10% more written questions right"),
]


@pytest.mark.parametrize(("differs", "why"), ENDS)
def test_a_promise_that_does_not_hold_ends_the_demo(
    monkeypatch: pytest.MonkeyPatch, differs: dict[str, Any], why: str
) -> None:
    given = HOLDS | differs

    def scored(task: str, metric: str, **values: float) -> Any:
        sources = {"": 0.9, **{f"{name.replace('_', '-')}@v1": value for name, value in values.items()}}
        scores = [EvaluationScore(task, metric, source, value, 0, 1, 9) for source, value in sources.items()]
        return SimpleNamespace(scores=[EvaluationScore("other", metric, "", 0, 0, 1, 9), *scores])

    rounds = zip(shown.ROUNDS, given["accepted"], strict=True)
    manifests = {f"{name}.rollouts": rolled_out(round(100 * rate), 100) for name, rate in rounds}
    manifests["eval-speech"] = scored("transcript", "wer", digits_held_out=given["wer"])
    for name, value in (("eval-reasoning-base", 0.4), ("eval-reasoning", given["after"])):
        manifests[name] = SimpleNamespace(scores=[EvaluationScore("exact", "accuracy", "", value, 0, 1, 400)])
    versions: Any = SimpleNamespace(resolve=manifests.__getitem__)
    monkeypatch.setattr(shown, "scores_of", lambda manifest: manifest.scores)
    monkeypatch.setattr(shown, "about_pictures", lambda versions: {"written": []})
    monkeypatch.setattr(shown, "controls", lambda rows: (1.0, given["exchanged"]))
    monkeypatch.setattr(shown, "PROMISES", (PROMISE,))
    with pytest.raises(SystemExit, match=why) if why else nullcontext():
        shown.keep_promises(versions, [given["kept"]])
