"""How much does the whole web pipeline cost against datatrove's, on the same crawl, to the same texts?

Ours end to end in this process (`run_pipeline`, no Ray), from an empty lake to a commit, with what datatrove does not
do: the boundary scan, exact duplicates, a ledger with one fate a record, fsync. Datatrove's is
benchmarks/datatrove_web.py, with its extractor in its usual child process, and (`inline`) without that child, which
flatters it; ours also with `language_first`. Memos start empty.
Near duplicates are left out on both sides (benchmarks/bench_dedup.py). Equal work: both keep the same texts up to exact
duplicates, except where the language filters differ by design (the label of five windows over the text, against the
score of English in the whole text); every difference has to be that. With `language_first` exactly the same is kept as
without. datatrove with its default extractor, trafilatura, and ours with the trained one have texts of their own: there
the pages that are read are the same, and how many are kept stands side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from datatrove.utils.text import split_into_parts

from benchmarks.datatrove_web import EXTRACT, InlineResiliparse, Resiliparse, default_extractor, keeps, run_datatrove
from benchmarks.gristmill_web import Outcome, run_gristmill, scan_apart
from benchmarks.harness import Arm, Differ, Report, Row, Times, contest, figure, require_equal
from benchmarks.material import crawls
from gristmill.filters.text import words
from gristmill.lake.accounts.identity import url_hash
from gristmill.lake.store.objects import scratch
from gristmill.stages.containers import ReadConfig, Record, read, scan
from gristmill.stages.text.charset import decode
from gristmill.stages.text.extract import UNWANTED
from gristmill.stages.text.html import page_text

OURS, FIRST = "gristmill", "gristmill, language first"
TRAINED, TRAINED_FIRST = "gristmill, trained", "gristmill, trained, language first"
THEIRS, INLINE, DEFAULT = "datatrove", "datatrove inline", "datatrove, its default extractor"
ACCOUNTING = ("scan", "exact", "ledger", "commit and the rest")


ALLOWED = ("language.unwanted", "language.low_score", "read.truncated")
"""Reasons for which ours drops what datatrove keeps: it judges languages in another way, and truncation not at all."""


def differences(outcome: Outcome, reference: Any) -> dict[str, str]:
    """Hash of each URL that the two do not keep alike, and why; raises Differ for what is not allowed to differ."""
    kept = kept_by(reference)
    reasons: dict[str, str] = {}
    for url, text in reference.kept:
        page = url_hash(url)
        if kept[page] == 1 and outcome.passed[page] == 1 and outcome.texts.get(page, text) != text:
            reasons[page] = f"another text; {_charsets(outcome, reference, url)}"
    for page in kept - outcome.passed:
        reason = outcome.reasons.get(page) or "is no record of ours"
        if not reason.startswith(ALLOWED):
            raise Differ(f"pipeline: datatrove keeps {page}, ours: {reason}")
        reasons[page] = f"only datatrove keeps it; ours: {reason}"
    for page in outcome.passed - kept:
        if page not in outcome.texts or keeps(outcome.texts[page]):
            raise Differ(f"pipeline: ours keeps {page}, and datatrove dropped it for another reason than its language")
        reasons[page] = "only ours keeps it; datatrove: language"
    return reasons


def _charsets(outcome: Outcome, reference: Any, url: str) -> str:
    """That the page was decoded in two charsets, and that ours gives the text that ours has. Raises Differ."""
    with outcome.crawl.open("rb") as stream:
        spans = scan(stream, "warc").spans
    for item in read(partial(_open_at, outcome.crawl), spans, "warc", ReadConfig()):
        if isinstance(item, Record) and item.kind == "page" and item.url == url:
            html = decode(item.payload, item.charset)
            charset = reference.charsets[url]
            if html.charset != charset and page_text(html.text, EXTRACT).text == outcome.texts[url_hash(url)]:
                return f"ours reads {html.charset}, datatrove's reader {charset}"
    raise Differ(f"pipeline: {url} has another text, though both read it in one charset")


def _open_at(path: Path, offset: int) -> BinaryIO:
    stream = path.open("rb")
    stream.seek(offset)
    return stream


def check(outcomes: Mapping[str, Any]) -> None:
    """Raises Differ for a difference that is not allowed."""
    plain, first, trained, default = (outcomes[name] for name in (OURS, FIRST, TRAINED, DEFAULT))
    differences(plain, outcomes[THEIRS])
    if outcomes[INLINE].kept != outcomes[THEIRS].kept:
        raise Differ("pipeline: datatrove with and without its child process keeps different texts")
    for before, without in ((first, plain), (outcomes[TRAINED_FIRST], trained)):
        require_equal(
            "texts with and without language first", sorted(before.texts.items()), sorted(without.texts.items())
        )
    if trained.read != plain.read or trained.read.total() != default.read:
        raise Differ(f"pipeline: {trained.read.total()} pages come to our extractor, {default.read} to datatrove's")
    if unread := kept_by(default) - trained.read:
        raise Differ(f"pipeline: datatrove with trafilatura keeps {unread}, which ours has not read")


def kept_by(reference: Any) -> Counter[str]:
    """The pages that datatrove keeps, by the hash of their URL."""
    return Counter(url_hash(url) for url, _ in reference.kept)


def forget() -> None:
    """Empty memos for everybody, tables loaded."""
    words.english_words.cache_clear()
    words.english_words()
    split_into_parts.cache_clear()


def arms(crawl: Path, folder: Path) -> dict[str, Arm]:
    """Every contestant, each time in a new folder."""
    numbers = count()

    def fresh(run: Callable[..., Any], **options: Any) -> Any:
        place = folder / str(next(numbers))
        place.mkdir()
        return run(crawl, place, **options)

    first: dict[str, Any] = {"language_first": {}}
    trained = {"html": {"method": "trained"}}
    return {
        OURS: Arm(partial(fresh, run_gristmill), forget),
        FIRST: Arm(partial(fresh, run_gristmill, **first), forget),
        THEIRS: Arm(partial(fresh, run_datatrove, extractor=Resiliparse()), forget),
        INLINE: Arm(partial(fresh, run_datatrove, extractor=InlineResiliparse()), forget),
        TRAINED: Arm(partial(fresh, run_gristmill, **trained), forget),
        TRAINED_FIRST: Arm(partial(fresh, run_gristmill, **first, **trained), forget),
        DEFAULT: Arm(partial(fresh, run_datatrove, extractor=default_extractor()), forget),
    }


def run(tiny: bool) -> Report:
    """The report; `tiny` on a generated crawl."""
    rounds = 1 if tiny else 5
    splits: dict[str, list[Mapping[str, float]]] = {name: [] for name in (OURS, FIRST, TRAINED, TRAINED_FIRST)}

    with crawls(tiny) as crawl_files, scratch() as folder:
        crawl = crawl_files.paths[0]

        def noted(outcomes: Mapping[str, Any]) -> None:
            check(outcomes)
            for name, parts in splits.items():
                with scratch() as place:
                    parts.append(scan_apart(outcomes[name].cpu, crawl, place))

        times = contest(arms(crawl, folder), rounds, noted)
        return report(crawl_files.named(crawl), times, {name: parts[1:] for name, parts in splits.items()})


def report(data: str, times: Times, splits: Mapping[str, Sequence[Mapping[str, float]]]) -> Report:
    """The figures. `splits`: CPU seconds by stage, of each of our arms and round."""
    outcome, reference, default = times.outcomes[OURS], times.outcomes[THEIRS], times.outcomes[DEFAULT]
    differ = differences(outcome, reference)
    shares = [100 * sum(split[name] for name in ACCOUNTING) / sum(split.values()) for split in splits[OURS]]
    stages = {
        arm: {name: figure([s[name] for s in parts]).median for name in parts[0]} for arm, parts in splits.items()
    }
    return Report(
        name="pipeline",
        data=data,
        rounds=len(shares),
        rows=(
            *_ratios(times, len(differ)),
            Row("of ours: scan, exact, ledger, commit", figure(shares), "%", "nothing: datatrove has none"),
        ),
        notes=(
            f"ours passes {outcome.passed.total()} of {outcome.manifest.received.count} records, of which"
            f" {outcome.duplicates} are exact duplicates; datatrove keeps {len(reference.kept)}; differences:"
            f" {_counted(differ.values())}",
            *(f"CPU seconds of {arm} by stage: {_split(seconds)}" for arm, seconds in stages.items()),
            "wall seconds of datatrove by block, its own count: " + _split(reference.seconds),
            "the same with trafilatura: " + _split(default.seconds),
        ),
        details={
            "records": outcome.manifest.received.count,
            "passed": outcome.passed.total(),
            "duplicates": outcome.duplicates,
            "datatrove_kept": len(reference.kept),
            "differences": differ,
            "before_extraction": sum(row["reason"] == UNWANTED for row in times.outcomes[FIRST].ledger),
            "cpu_seconds": {name: times.seconds(name).median for name in times.cpu},
            "stages": stages,
            "datatrove_blocks": {THEIRS: reference.seconds, DEFAULT: default.seconds},
        },
    )


def _ratios(times: Times, differ: int) -> Iterator[Row]:
    """How often our time goes into datatrove's. `differ`: pages that the two do not keep alike."""
    reference, default = times.outcomes[THEIRS], times.outcomes[DEFAULT]
    by_default, by_trained = kept_by(default), times.outcomes[TRAINED].passed
    same = f"the texts kept, {len(reference.kept)} of datatrove; {differ} differ, each for a reason that is allowed"
    read = (
        f"the {default.read} pages that are read; of two extractors the texts are not: kept {by_trained.total()} by"
        f" ours, {by_default.total()} by datatrove, {(by_trained & by_default).total()} of them by both"
    )
    yield Row("web pipeline over datatrove's", times.ratio(THEIRS, OURS), "x", same)
    yield Row("web pipeline over datatrove's, no child process", times.ratio(INLINE, OURS), "x", same)
    yield Row("with language first over datatrove's", times.ratio(THEIRS, FIRST), "x", same)
    yield Row("with language first over datatrove's, no child process", times.ratio(INLINE, FIRST), "x", same)
    yield Row("with language first over without", times.ratio(OURS, FIRST), "x", "every text kept")
    yield Row("trained over datatrove's with trafilatura", times.ratio(DEFAULT, TRAINED), "x", read)
    yield Row("trained, language first, over the same", times.ratio(DEFAULT, TRAINED_FIRST), "x", read)


def _counted(reasons: Iterable[str]) -> str:
    return ", ".join(f"{number} x {reason}" for reason, number in sorted(Counter(reasons).items())) or "none"


def _split(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
