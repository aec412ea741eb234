"""What the demo's kickoff came to, read from its lake: is the data what it ought to be, and did the models learn?

Evaluations are versions like any other, so that nothing is asked of a model here. A promise that does not hold ends the
demo; what was measured stands beside each bound.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from gristmill.lake.query.dataset import Dataset
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.statistics import EvaluationScore, EvaluationStatistics
from gristmill.lake.versions.versions import Versions
from gristmill.model.evaluate.answers import spoken
from gristmill.orchestration.demo.terminal import DATA, LAKE, check, console, grist, say
from gristmill.orchestration.demo.truth import Mark, marks
from gristmill.orchestration.show.evaluation import draw_evaluation
from gristmill.orchestration.show.version import draw_funnel
from gristmill.synth.bias import share

ROUNDS = ("chains-first", "chains-second")
"""Datasets of chains, each drawn for other problems, until one is right or four were drawn."""
REASONER = "reasoner.r3"
CHAINS = "3"
"""Of each verdict that are printed."""
LEAST_MARK = 0.98
"""Recall and precision of what is kept of the crawl. Measured: 1 and 1."""
GAIN = 0.08
"""How many more of the held-out problems have to be right after the rounds, as a share."""
LEAST_SEEN = 0.1
"""By how much more questions about pictures are answered right than with answers to others. Measured: .28 and .41."""


class Promise(NamedTuple):
    """At least (or at most: `most`) `bound` of a metric of a task in an evaluation, on a dataset; "": on all of it."""

    evaluation: str
    task: str
    metric: str
    source: str
    bound: float
    words: str
    most: bool = False


PROMISES = (
    Promise("eval-language", "exact", "accuracy", "", 0.65, "of the word problems are answered right"),
    Promise("eval-vision", "answer", "exact", "", 0.3, "of the questions about pictures are answered right"),
    Promise("eval-speech", "answer", "exact", "", 0.3, "of the spoken questions about pictures are answered right"),
    *(
        Promise(
            "eval-speech", "transcript", "wer", f"digits-{part}", 0.25, f"of the words are wrong, {words}", most=True
        )
        for part, words in (("held-out", "in voices of training"), ("voices", "in voices never heard"))
    ),
)
"""Measured with seed 0: .78, .44, .46, .12, .13."""


def show_all() -> None:
    """Prints all of it. Raises SystemExit where a promise does not hold."""
    lake = ("--lake", str(LAKE))
    versions = Versions(open_store(str(LAKE.resolve())))
    say("What became of the pages, and is it right? Each of them is held against the truth.")
    console.print("Of web, as `grist show web` has it with all else:")
    draw_funnel(console, versions.resolve("web").funnel)
    judged = crawl_marks(versions)
    console.print(marks_table(judged))
    say("What a model sees of a mixture: what it learns stands between « and ».")
    grist("sample", "mix", "-n", "1", *lake)
    say("Chains that a model drew for problems of which the answer alone is known: accepted ones, and rejected ones.")
    for verdict in ("accepted", "rejected"):
        grist("sample", f"{ROUNDS[0]}.rollouts", "--verdict", verdict, "-n", CHAINS, *lake)
    console.print(acceptance({name: versions.resolve(f"{name}.rollouts") for name in ROUNDS}))
    say("Problems that nothing was ever trained on: before the rounds, and after.")
    grist("diff", "eval-reasoning-base", "eval-reasoning", *lake)
    say("Word problems and rows to copy, pictures and speech that no model has met.")
    for evaluation in ("eval-language", "eval-vision", "eval-speech"):
        manifest = versions.resolve(evaluation)
        console.print(f"{manifest}, of {manifest.recipe['model']}")
        draw_evaluation(console, EvaluationStatistics.of(manifest.statistics))
    say("Does it look at the picture? Its answers, beside those that it gave to the same question about another one.")
    console.print(controls_table(versions))
    say("Where does the model come from that learned from its own chains?")
    grist("lineage", REASONER, *lake)
    keep_promises(versions, judged)


# The crawl.


def crawl_marks(versions: Versions) -> list[Mark]:
    """The dataset `web` beside the truth."""
    manifest = versions.resolve("web")
    names = {file.digest: "/".join(Path(file.names[0]).parts[-2:]) for file in manifest.inputs}
    rows = Dataset(versions.store, manifest).ledger().to_pylist()
    ledger = {(names[row["input"]], row["ordinal"]): row for row in rows}
    truth = (json.loads(line) for line in (DATA / "truth.jsonl").read_text(encoding="utf-8").splitlines())
    return marks(truth, ledger)


def marks_table(judged: Sequence[Mark]) -> Table:
    """A line a group."""
    table = Table("records", "in truth", "by grist", "both", "recall", "precision", title="The crawl beside the truth")
    for mark in judged:
        counts = (f"{count:,}" for count in mark[1:])
        table.add_row(mark.group, *counts, f"{mark.recall:.1%}", f"{mark.precision:.1%}")
    return table


# Chains.


def acceptance(rounds: Mapping[str, Manifest]) -> Table:
    """How many samples of each round were accepted, and why the others were not."""
    table = Table("round", "samples", "accepted", "95% interval", "why not", title="Acceptance by round")
    for name, manifest in rounds.items():
        samples, accepted = sampled(manifest)
        of_all, low, high = share(accepted, samples)
        reasons = sorted(manifest.statistics["rollouts"]["reasons"].items(), key=lambda item: -item[1])
        why = ", ".join(f"{reason} {count:,}" for reason, count in reasons[:3])
        table.add_row(name, f"{samples:,}", f"{of_all:.1%}", f"{low:.1%} to {high:.1%}", why)
    return table


def sampled(manifest: Manifest) -> tuple[int, int]:
    """(samples of a version of rollouts, those that were accepted)."""
    return int(manifest.statistics["rollouts"]["samples"]), manifest.verdicts["accepted"].count


# What models answer.


def about_pictures(versions: Versions) -> dict[str, list[dict[str, Any]]]:
    """How questions were put -> what the model answered to them."""
    return {
        "written": answers(versions, "eval-vision", "questions-held-out"),
        "spoken": answers(versions, "eval-speech", "asked-held-out"),
    }


def controls_table(versions: Versions) -> Table:
    """How many are answered right, and how many would be by answers that were given to others."""
    table = Table(
        "questions", "asked", "right", "right with the answer to another one", title="Questions about pictures"
    )
    for words, rows in about_pictures(versions).items():
        table.add_row(words, f"{len(rows):,}", *(f"{value:.1%}" for value in controls(rows)))
    return table


def answers(versions: Versions, evaluation: str, dataset: str) -> list[dict[str, Any]]:
    """The rows of an evaluation that are about a dataset."""
    rows = Dataset(versions.store, versions.resolve(evaluation)).to_arrow().to_pylist()
    return [row for row in rows if row["source"].partition("@")[0] == dataset]


def controls(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Shares that are right: of the answers; and if each question had the answer to the next one that begins alike, as
    `What colour`, about another picture. Of a question that only a clip says nothing is known, so all are alike."""
    alike: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        alike[" ".join((row["question"] or "").split()[:2])].append(row)
    pairs = [pair for group in alike.values() for pair in zip(group, [*group[1:], group[0]], strict=True)]
    exchanged = sum(spoken(other["answer"]) == row["expected"] for row, other in pairs if other is not row)
    return sum(row["score"] == 1 for row in rows) / len(rows), exchanged / len(rows)


def scores_of(manifest: Manifest) -> tuple[EvaluationScore, ...]:
    """Of an evaluation."""
    return EvaluationStatistics.of(manifest.statistics).scores


def value_of(scores: Sequence[EvaluationScore], task: str, metric: str, source: str = "") -> float:
    """A metric of a task on a dataset, or on all of them."""
    about = (each for each in scores if (each.task, each.metric) == (task, metric) and not each.group)
    return next(each.value for each in about if each.source.partition("@")[0] == source)


def keep_promises(versions: Versions, judged: Sequence[Mark]) -> None:
    """Ends the demo at the first one that does not hold."""
    kept = next(mark for mark in judged if mark.group == "kept")
    right = min(kept.recall, kept.precision)
    check(right >= LEAST_MARK, f"of pages to keep and pages that are kept at least {LEAST_MARK:.0%} are the same")
    first, second = (sampled(versions.resolve(f"{name}.rollouts")) for name in ROUNDS)
    before, after = first[1] / first[0], second[1] / second[0]
    check(before < after, f"more chains are right in the second round: {before:.1%}, then {after:.1%}")
    base, last = (value_at(versions, name, "exact", "accuracy") for name in ("eval-reasoning-base", "eval-reasoning"))
    check(
        last - base >= GAIN,
        f"the rounds gain at least {GAIN:.0%} of the held-out problems: {base:.1%}, then {last:.1%}",
    )
    for promise in PROMISES:
        value = value_at(versions, promise.evaluation, promise.task, promise.metric, promise.source)
        holds = value <= promise.bound if promise.most else value >= promise.bound
        bound = f"at {'most' if promise.most else 'least'} {promise.bound:.0%}"
        check(holds, f"{bound} {promise.words}: {value:.1%}")
    for words, rows in about_pictures(versions).items():
        seen, other = controls(rows)
        check(seen - other >= LEAST_SEEN, f"who looks answers {LEAST_SEEN:.0%} more {words} questions right, at least")


def value_at(versions: Versions, evaluation: str, task: str, metric: str, source: str = "") -> float:
    """As `value_of`, of the newest version of an evaluation."""
    return value_of(scores_of(versions.resolve(evaluation)), task, metric, source)
