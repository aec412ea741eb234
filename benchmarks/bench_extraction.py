"""How well do the extractors find the main text of real pages, and how fast?

Quality is counted on pages whose main text people have marked (benchmarks/extraction_pages.py). The trained extractor
has seen these pages, so its row says how well it fits, not how well it does: what it does on hosts that it has not seen
is what `train_extraction.py` prints, and docs/extraction.md quotes. The others were not trained on anything; but
trafilatura was developed on 210 of these 298 pages, which are its own evaluation. Speed is of all extractors in turns,
from the page as a text to its main text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from typing import Any

from benchmarks.extraction_pages import MARKS, Page, bodies_of, marked_pages, score
from benchmarks.harness import Arm, Differ, Report, Row, contest
from benchmarks.material import SHARED, crawls
from gristmill.filters.extraction.extractor import warm
from gristmill.stages.text.charset import decode
from gristmill.stages.text.html import ExtractConfig, page_text


def run(tiny: bool) -> Report:
    """The report; `tiny` on a few generated pages, whose quality says nothing."""
    is_real = not tiny and (SHARED / MARKS).is_file()
    pages = marked_pages(SHARED) if is_real else generated()
    methods = ["trained", "resiliparse", *(["trafilatura"] if find_spec("trafilatura") else [])]
    warm()
    rounds = 1 if tiny else 2  # trafilatura takes its time
    arms = {method: Arm(partial(texts_by, method, pages)) for method in methods}
    times = contest(arms, rounds, partial(check, pages))
    quality = {method: asdict(score(pages, times.outcomes[method])) for method in methods} if is_real else {}
    others = methods[1:]
    return Report(
        name="extraction",
        data="shared real data: 2_pages" if is_real else "generated pages",
        rounds=rounds,
        rows=tuple(
            Row(
                f"trained extractor over {method}",
                times.ratio(method, "trained"),
                "x",
                f"text for all {len(pages)} pages",
            )
            for method in others
        ),
        notes=(
            "the trained extractor has seen these pages: its quality on unseen hosts is in docs/extraction.md",
            *([] if "trafilatura" in methods else ["trafilatura is not installed, and was left out"]),
        ),
        details={
            "pages": len(pages),
            "bytes": sum(len(page.html.encode("utf-8", "replace")) for page in pages),
            "quality": quality,
            "ms_a_page": {method: 1000 * times.seconds(method).median / len(pages) for method in methods},
        },
    )


def generated() -> list[Page]:
    """Pages of the sample crawl, each URL once, without marks."""
    with crawls(True) as files:
        bodies = dict(bodies_of(files.paths[0]))
    return [Page(url, decode(body, None).text) for url, body in bodies.items()]


def texts_by(method: Any, pages: Sequence[Page]) -> dict[str, str]:
    """The text of each page as the web recipe would have it, by URL."""
    config = ExtractConfig(method=method)
    return {page.url: page_text(page.html, config).text for page in pages}


def check(pages: Sequence[Page], outcomes: Mapping[str, Mapping[str, str]]) -> None:
    """Raises Differ if an extractor has no text of a page."""
    for method, texts in outcomes.items():
        if missing := [page.url for page in pages if not texts[page.url].strip()]:
            raise Differ(f"{method} has no text of {missing[0]}")
