"""`make learn`, its sixth part: does curation of web text pay? Small language models (`nano`) on as many tokens of each
of five sets of the same real pages, and the bits a byte that they need for clean text of other hosts:

- raw: the whole text of every page, in whatever language, no filter;
- dropped: raw documents dropped at random, until as many tokens are left as curation leaves;
- long: raw documents that are at least as long as the median of the curated ones, as many tokens, at random: the very
  longest are three listings of a forum;
- english: raw text in which language identification finds English, which is the first thing that curation does;
- curated: conf/web.yaml as it is (main content by resiliparse, English, Gopher quality, near duplicates).

Exact copies go from each of them, and so do pages of hosts that are held out, and documents that share 13 words in a
row with a held-out one. Held out are main texts of pages which people marked, of half of their hosts, and crawl
documents which people found good. It reports, and asks for nothing: the exit code is 0 whoever wins. Prints tables,
writes all as JSON with `--out`. `--folder`: where everything is kept, and gone on with.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from learn_quality import LABELLED
from rich.console import Console
from rich.table import Table
from seeds import MACHINE
from text_lessons import AS_IT_IS, Bits, Size, TextLesson, begin, gain, stated

CURATED = "curated"
CONTROLS = ("raw", "dropped", "long", "english")
ARMS = (*CONTROLS, CURATED)
HELD_OUT = "held-out"
TOKENIZER = "web-bpe"
MOST_CHARACTERS = 1000
"""Of a held-out text, from its beginning: no document is more than a small part of what is asked."""
SIZE = Size(steps=96)


# What is held out.


def host_of(url: str) -> str:
    """Of an address, without `www.`."""
    return (urlsplit(url).hostname or "").removeprefix("www.")


def held(host: str) -> bool:
    """Whether a host is of the half that nothing is trained on."""
    return hashlib.blake2b(host.encode()).digest()[0] % 2 == 0


def held_out_rows(shared: Path) -> list[dict[str, Any]]:
    """Clean texts: main texts of pages of held-out hosts, and the crawl documents with a majority for them."""
    lines = (shared / "2_pages" / "pages.gold.jsonl").read_text(encoding="utf-8").splitlines()
    gold = [row for row in map(json.loads, lines) if row["main_text"] and held(host_of(row["url"]))]
    rows: list[dict[str, Any]] = [
        {"text": row["main_text"], "url": row["url"], "source": "marked pages"} for row in gold
    ]
    documents = map(json.loads, (shared / LABELLED).read_text(encoding="utf-8").splitlines())
    good = [row["text"] for row in documents if int(row["label"]) == 1]
    rows += [{"text": text, "source": "labelled documents"} for text in good]
    return [{**row, "text": row["text"][:MOST_CHARACTERS]} for row in rows]


def crawls(shared: Path) -> list[str]:
    """The files of real pages."""
    paths = [shared / "2_pages" / "pages.warc.gz", *sorted((shared / "1_crawl" / "real").iterdir())]
    return [str(path) for path in paths if path.name.endswith((".warc", ".warc.gz"))]


# What is learned from.


def given_texts(lesson: TextLesson, shared: Path) -> None:
    """The held-out version, a tokenizer, and every set that no seed decides."""
    held_out = lesson.written(HELD_OUT, held_out_rows(shared))
    lesson.run("web", {"dataset": HELD_OUT, "inputs": [str(held_out)], **AS_IT_IS, "language": {"keep": ["en"]}})
    hosts = lesson.folder / "held-out-hosts.txt"
    urls = {row["url"] for row in lesson.rows(HELD_OUT) if row["url"]}
    hosts.write_text("".join(f"{host}\n" for host in sorted(map(host_of, urls))))
    pages = {
        "inputs": crawls(shared),
        "unreadable_files": "quarantine",  # some of the crawls are damaged on purpose
        "max_quarantine_rate": 1.0,
        "url": {"block_lists": [str(hosts)], "ip_hosts": True, "host_parts": [], "words": [], "max_soft_words": None},
        "decontaminate": {"benchmarks": [str(held_out)], "fields": ["text"]},
    }
    whole = {"extract": {"html": {"main_content": False}}}
    lesson.run("web", {"dataset": "raw", **pages, **AS_IT_IS, **whole})
    lesson.run("web", {"dataset": "english", **pages, **AS_IT_IS, **whole, "language": {"keep": ["en"]}})
    lesson.run("web", {"dataset": CURATED, **pages})
    lesson.tokenizer(TOKENIZER, ["raw"])


def datasets_of(lesson: TextLesson, seed: int) -> dict[str, str]:
    """Set -> its dataset, with those that a seed decides: raw documents that are left after dropping at random, and
    after dropping short ones, too."""
    raw, curated = lesson.rows("raw"), lesson.rows(CURATED)
    least = median(len(row["text"]) for row in curated)
    enough = sum(lesson.lengths(TOKENIZER, [row["text"] for row in curated]))
    datasets = {arm: arm for arm in ARMS}
    for arm, rows in (("dropped", raw), ("long", [row for row in raw if len(row["text"]) >= least])):
        random.Random(seed).shuffle(rows)
        lengths = np.cumsum(lesson.lengths(TOKENIZER, [row["text"] for row in rows]))
        left = rows[: int(np.searchsorted(lengths, enough)) + 1]
        datasets[arm] = f"{arm}-{seed}"
        lesson.run("web", {"dataset": datasets[arm], "inputs": [str(lesson.written(datasets[arm], left))], **AS_IT_IS})
    return datasets


# What came of it.


def learned(shared: Path, folder: Path, seeds: Sequence[int], size: Size) -> dict[str, Any]:
    """What there was, what each model was trained on and needs, and what curation gains over each control."""
    lesson = TextLesson(folder, size)
    given_texts(lesson, shared)
    bits: dict[str, list[Bits]] = {arm: [] for arm in ARMS}
    by_seed: dict[str, Any] = {}
    for seed in seeds:
        datasets = datasets_of(lesson, seed)
        trained = {}
        for arm, dataset in datasets.items():
            name = f"{arm}-{seed}-windows"
            epochs = lesson.mixed(name, TOKENIZER, {dataset: 1.0}, seed)[dataset]
            trained[arm] = {"epochs": epochs, **lesson.trained(name, TOKENIZER, [HELD_OUT], seed)}
            bits[arm].append(lesson.bits(name, [HELD_OUT]))
            trained[arm]["bits_per_byte"] = round(bits[arm][-1].per_byte, 4)
            print(f"seed {seed}: {arm} {trained[arm]}", flush=True)
        gains = {arm: gain(bits[CURATED][-1:], bits[arm][-1:]).as_json() for arm in CONTROLS}
        by_seed[str(seed)] = {"sets": lesson.material(TOKENIZER, datasets), "trained": trained, "curated_minus": gains}
    held_out = lesson.rows(HELD_OUT)
    return {
        "name": "web_learning",
        "recipe": str(size),
        "machine": MACHINE,
        "held_out": {
            "documents": len(held_out),
            "bytes": sum(len(row["text"].encode()) for row in held_out),
            "hosts": len({host_of(row["url"]) for row in held_out if row["url"]}),
        },
        "seeds": by_seed,
        "curated_minus": {arm: gain(bits[CURATED], bits[arm]).as_json() for arm in CONTROLS},
    }


def show(results: dict[str, Any]) -> None:
    """The tables, and what they say."""
    held_out = results["held_out"]
    sets = Table("seed", "set", "documents", "tokens", "epochs", "bits a byte", "CPU s", title=results["recipe"])
    for seed, result in results["seeds"].items():
        for arm, trained in result["trained"].items():
            there = result["sets"][arm]
            counts = (f"{there['documents']:,}", f"{there['tokens']:,}", f"{trained['epochs']:.2f}")
            sets.add_row(seed, arm, *counts, f"{trained['bits_per_byte']:.3f}", str(trained["cpu_s"]))
    console = Console(width=120)
    console.print(sets)
    console.print(
        f"held out: {held_out['documents']} documents, {held_out['bytes']:,} bytes, {held_out['hosts']} hosts"
    )
    for arm, pooled in results["curated_minus"].items():
        console.print(f"curated minus {arm}, bits a byte, {stated(pooled)}, over documents and seeds")
        for seed, result in results["seeds"].items():
            console.print(f"  seed {seed}: {stated(result['curated_minus'][arm])}")


if __name__ == "__main__":
    sys.exit(begin(sys.argv[1:], __doc__, learned, SIZE, show))
