"""How much faster is personal data found than by datatrove's PIIFormatter, and how much of it, how rightly?

Speed: e-mail and IP addresses, which are all that datatrove's formatter knows, on the texts on which both come to the
same text; on the others the rules differ by intent (a name such as `@ann@mastodon.example` is no e-mail address, nor is
`logo@2x.png`; `ann (at) mail.example` is one), and they are counted. Recall and precision: against marks that were set
by reading real texts (pii_pages.py), where these lie beside the checkout.
"""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
from datatrove.pipeline.formatters.pii import PIIFormatter

from benchmarks.harness import Arm, Figure, Report, Row, alike, contest
from benchmarks.material import SHARED
from benchmarks.pii_pages import DISGUISED, documents, marked, scores
from gristmill.filters.edits.pii import Kind, Pii, personal
from gristmill.filters.text.docs import Docs

BOTH: tuple[Kind, ...] = ("email", "ip")
_NAMES = {"email": "e-mail addresses", DISGUISED: "disguised ones (`at`, `dot`)", "phone": "telephone numbers"}


def by_datatrove(texts: list[str]) -> list[str]:
    """The texts with our placeholders in place of what datatrove's formatter finds."""
    formatter = PIIFormatter(email_replacement="<email>", ip_replacement="<ip>")
    return [formatter.format(text) for text in texts]


def by_gristmill(texts: list[str], edit: Pii) -> list[str]:
    """The same of ours."""
    edited: list[str] = edit.edit(Docs(pa.array(texts, pa.string()))).texts.to_pylist()
    return edited


def generated() -> list[str]:
    """Prose with an address here and there."""
    rng = random.Random(0)
    words = ["the", "miller", "took", "8.8.4.14", "grain", "ann.lee@mail.example", "to", "3.14", "(2019)", "@ann"]
    return [" ".join(rng.choices(words, k=300)) for _ in range(20)]


def found_in(text: str) -> list[tuple[int, int, str]]:
    """What the scoring asks for."""
    return [(span.start, span.end, span.kind) for span in personal(text)]


def run(tiny: bool) -> Report:
    """The report; `tiny` on generated texts, without marks."""
    real = [] if tiny else list(documents(SHARED))
    texts = [document.text for document in real] or generated()
    results = zip(texts, by_datatrove(texts), by_gristmill(texts, Pii(kinds=BOTH)), strict=True)
    same = [text for text, by_peer, by_us in results if by_peer == by_us]
    times = contest(
        {
            "datatrove": Arm(lambda: by_datatrove(same)),
            "ours": Arm(lambda: by_gristmill(same, Pii(kinds=BOTH))),
        },
        1 if tiny else 5,
        alike("texts"),
    )
    whole = contest({"all kinds": Arm(lambda: len(by_gristmill(same, Pii())))}, 1 if tiny else 5, lambda _: None)
    megabytes = sum(len(text.encode()) for text in same) / 1e6
    speed = sorted(megabytes / seconds for seconds in whole.cpu["all kinds"])
    rows = [
        Row(
            "e-mail and IP addresses to placeholders, over datatrove's",
            times.ratio("datatrove", "ours"),
            "x",
            f"text of {len(same)} of {len(texts)}; on the others the rules differ",
        ),
        Row("all five kinds", Figure(speed[len(speed) // 2], speed[0], speed[-1]), "MB/s"),
    ]
    scored = scores(real, marked(), found_in) if real else {}
    rows += [row for kind, name in _NAMES.items() if kind in scored for row in _rows(name, scored[kind])]
    return Report(
        name="pii",
        data="shared real data: 1_crawl, 2_pages, 8_quality" if real else "generated",
        rounds=1 if tiny else 5,
        rows=tuple(rows),
        details={
            "texts": len(texts),
            "megabytes": megabytes,
            "scores": {kind: score.__dict__ for kind, score in scored.items()},
            "cpu_seconds": {name: times.seconds(name).median for name in times.cpu},
        },
    )


def _rows(name: str, score: Any) -> list[Row]:
    def row(what: str, share: float) -> Row:
        return Row(f"{what} of {name}, {score.marks} marks", Figure(100 * share, 100 * share, 100 * share), "%")

    return [row("recall", score.recall), row("precision", score.precision)]
