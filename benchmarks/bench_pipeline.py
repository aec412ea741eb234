"""How much does the whole web pipeline cost against datatrove's, on the same crawl, to the same texts?

Ours end to end in this process (`run_pipeline`, no Ray), from an empty lake to a commit, with what datatrove does not
do: the boundary scan, exact duplicates, a ledger with one fate a record, fsync. Datatrove's is
benchmarks/datatrove_web.py, with its extractor in its usual child process, and (`inline`) without that child, which
flatters it. Memos start empty.
Near duplicates are left out on both sides (benchmarks/bench_dedup.py). Equal work: both keep the same texts up to exact
duplicates, except where the language filters differ by design (the label of five windows over the text, against the
score of English in the whole text); every difference has to be that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from datatrove.utils.text import split_into_parts

from benchmarks.datatrove_web import EXTRACT, keeps, run_datatrove
from benchmarks.harness import Arm, Differ, Report, Row, Times, contest, cpu_seconds, figure
from benchmarks.material import crawls
from gristmill.filters.text import words
from gristmill.lake.accounts.identity import url_hash
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import read_table, scratch
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Manifest
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.web import WebConfig
from gristmill.stages.containers import ReadConfig, Record, read, scan
from gristmill.stages.core.work import Work
from gristmill.stages.run.runner import Runner
from gristmill.stages.text.charset import decode
from gristmill.stages.text.html import page_text

OURS, THEIRS, INLINE = "gristmill", "datatrove", "datatrove inline"
ACCOUNTING = ("scan", "exact", "ledger", "commit and the rest")


class Stopwatch(Runner):
    """A runner that notes the CPU time of each stage."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cpu: dict[str, float] = {}

    def map(self, title: str, works: Any) -> list[Receipt]:
        started = cpu_seconds()
        todo: list[Work] = list(works)
        receipts = super().map(title, todo)
        self.cpu[title] = self.cpu.get(title, 0.0) + cpu_seconds() - started
        return receipts


@dataclass(frozen=True)
class Outcome:
    """A committed run. What it holds is read when asked for, which nobody times. URLs go by their hash."""

    crawl: Path
    manifest: Manifest
    store: Store
    cpu: dict[str, float]

    @cached_property
    def ledger(self) -> list[dict[str, Any]]:
        """Its rows."""
        return [row for ref in self.manifest.ledgers for row in read_table(self.store, ref).to_pylist()]

    @cached_property
    def passed(self) -> Counter[str]:
        """What passed all filters, exact duplicates too."""
        return Counter(row["id"][:16] for row in self.ledger if row["fate"] == "kept" or row["stage"] == "exact")

    @cached_property
    def duplicates(self) -> int:
        """How many exact duplicates were dropped."""
        return sum(row["stage"] == "exact" for row in self.ledger)

    @cached_property
    def reasons(self) -> dict[str, str]:
        """Why a record was dropped, with what the ledger says it had."""
        lost = [row for row in self.ledger if row["reason"]]
        return {row["id"][:16]: " ".join(filter(None, (row["reason"], row["value"]))) for row in lost}

    @cached_property
    def texts(self) -> dict[str, str]:
        """Hash of a URL -> the text in the shards."""
        shards = [read_table(self.store, ref, ["url", "text"]) for ref in self.manifest.shards]
        return {url_hash(row["url"]): row["text"] for shard in shards for row in shard.to_pylist()}


def run_gristmill(crawl: Path, folder: Path) -> Outcome:
    """Our pipeline on one WARC file, in a new lake below `folder`."""
    store = open_store(str(folder / "lake"))
    runner = Stopwatch(store, workers=0)
    started = cpu_seconds()
    config = WebConfig.model_validate({"recipe": {"inputs": [str(crawl)], "minhash": None}, "run": {"workers": 0}})
    manifest = run_pipeline(config, store, runner).manifest
    rest = cpu_seconds() - started - sum(runner.cpu.values())
    return Outcome(crawl, manifest, store, {**runner.cpu, "commit and the rest": rest})


ALLOWED = ("language.unwanted", "language.low_score", "read.truncated")
"""Reasons for which ours drops what datatrove keeps: it judges languages in another way, and truncation not at all."""


def differences(outcome: Outcome, reference: Any) -> dict[str, str]:
    """Hash of each URL that the two do not keep alike, and why; raises Differ for what is not allowed to differ."""
    kept = Counter(url_hash(url) for url, _ in reference.kept)
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
    differences(outcomes[OURS], outcomes[THEIRS])
    if outcomes[INLINE].kept != outcomes[THEIRS].kept:
        raise Differ("pipeline: datatrove with and without its child process keeps different texts")


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

    return {
        OURS: Arm(partial(fresh, run_gristmill), forget),
        THEIRS: Arm(partial(fresh, run_datatrove, sandbox=True), forget),
        INLINE: Arm(partial(fresh, run_datatrove, sandbox=False), forget),
    }


def run(tiny: bool) -> Report:
    """The report; `tiny` on a generated crawl."""
    rounds = 1 if tiny else 5
    splits: list[dict[str, float]] = []

    def noted(outcomes: Mapping[str, Any]) -> None:
        check(outcomes)
        splits.append(outcomes[OURS].cpu)

    with crawls(tiny) as crawl_files, scratch() as folder:
        crawl = crawl_files.paths[0]
        times = contest(arms(crawl, folder), rounds, noted)
        return report(crawl_files.named(crawl), times, splits[1:])


def report(data: str, times: Times, splits: Sequence[dict[str, float]]) -> Report:
    """The figures."""
    outcome: Outcome = times.outcomes[OURS]
    reference = times.outcomes[THEIRS]
    differ = differences(outcome, reference)
    total = outcome.passed.total()
    same = (
        f"the texts kept, {len(reference.kept)} of datatrove; {len(differ)} differ, each for a reason that is allowed"
    )
    shares = [100 * sum(split[name] for name in ACCOUNTING) / sum(split.values()) for split in splits]
    stages = {name: figure([split[name] for split in splits]).median for name in splits[0]}
    return Report(
        name="pipeline",
        data=data,
        rounds=len(splits),
        rows=(
            Row("web pipeline over datatrove's", times.ratio(THEIRS, OURS), "x", same),
            Row("web pipeline over datatrove's, no child process", times.ratio(INLINE, OURS), "x", same),
            Row("of ours: scan, exact, ledger, commit", figure(shares), "%", "nothing: datatrove has none"),
        ),
        notes=(
            f"ours passes {total} of {outcome.manifest.received.count} records, of which {outcome.duplicates} are exact"
            f" duplicates; datatrove keeps {len(reference.kept)}; differences: {_counted(differ.values())}",
            "CPU seconds of ours by stage: " + _split(stages),
            "wall seconds of datatrove by block, its own count: " + _split(reference.seconds),
        ),
        details={
            "records": outcome.manifest.received.count,
            "passed": total,
            "duplicates": outcome.duplicates,
            "datatrove_kept": len(reference.kept),
            "differences": differ,
            "cpu_seconds": {name: times.seconds(name).median for name in times.cpu},
            "stages": stages,
            "datatrove_blocks": reference.seconds,
        },
    )


def _counted(reasons: Iterable[str]) -> str:
    return ", ".join(f"{number} x {reason}" for reason, number in sorted(Counter(reasons).items())) or "none"


def _split(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
